"""Errors of the Python interface and the command line."""

from __future__ import annotations


class ApiError(ValueError):
    """An argument that the toolkit cannot use; the message is one sentence."""


class CompilerFault(Exception):
    """The compiler has made a program that the checker refuses, or two that do not agree: a mistake in the toolkit, not
    in what it was given."""
