"""JSON read without surprises: one error type, no repeated keys, no NaN, bounded nesting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 200
"""Nested arrays and objects a document may have; far below Python's own recursion limit."""


class JsonError(ValueError):
    """A text that is not JSON, or is JSON that two readers could understand differently."""


def parse(text: str) -> Any:
    """Return the value of a JSON text; raises `JsonError` with one sentence."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"JSON must nest at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise JsonError(f"JSON must be well-formed: {error}") from error
    check_depth(value)
    return value


def check_depth(value: object, limit: int = MAX_DEPTH) -> None:
    """Raise `JsonError` if lists and dictionaries nest deeper than `limit`."""
    level = [value]
    for _ in range(limit + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise JsonError(f"JSON must nest at most {limit} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise JsonError(f"JSON object must name each key once, not {key!r} again")
        values[key] = value
    return values


def _no_constant(name: str) -> NoReturn:
    raise JsonError(f"JSON number must be finite, not {name}")
