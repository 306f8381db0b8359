"""Measurements; each module is a program, and what they share."""
