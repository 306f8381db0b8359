"""Importers: from files of other tools to the graph IR."""
