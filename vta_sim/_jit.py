"""The only place where numba's decorators, which have no types, meet typed code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from numba import njit
from numba.extending import intrinsic as numba_intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Only compiled code calls an inner function, so it needs no entry from Python or C. And none creates an array, so none
# has to count references: without that, and it is most of what numba generates, compilation takes half the time.
_INNER_OPTIONS: Final[dict[str, Any]] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}


def inner(function: F) -> F:
    """Compile a function that only other compiled functions call, and that creates no array.

    It is not cached by itself: numba checks the file of the cached function alone, and would not notice a change in
    a function it calls from another file. See `source_stamp`.
    """
    return cast(F, njit(nogil=True, error_model="numpy", **_INNER_OPTIONS)(function))


def entry(function: F) -> F:
    """Compile a function that Python calls, and keep the machine code on disk.

    The function must be a closure over a `source_stamp` of every file it is compiled from: numba makes the values
    of a closure part of the cache key.
    """
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def intrinsic(function: Callable[..., Any]) -> Callable[..., None]:
    """Declare a function whose body is given as LLVM IR (see `numba.extending.intrinsic`).

    The decorated function has one parameter more than its callers give arguments: the typing context.
    """
    return cast(Callable[..., None], numba_intrinsic(function))


def source_stamp(*files: str | Path) -> str:
    """Return a digest of the given source files, for the closures of `entry`."""
    digest = hashlib.sha256()
    for file in (Path(__file__), *map(Path, files)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
