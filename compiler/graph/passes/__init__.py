"""Passes over the graph, one theme to a file; `pipeline` holds the recipes."""
