"""What a design must not contain to be compiled."""

from __future__ import annotations


class Unsupported(Exception):
    """The design has a construct that is not compiled; the message names it, and where it stands."""
