"""The static checker: what can be said of a program before anything runs."""
