"""The only place where numba's decorators, which have no types, meet typed code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.extending import intrinsic as numba_intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def inner(function: F) -> F:
    """Compile a function that only other compiled functions call.

    It is not cached by itself: numba checks the file of the cached function alone, and would not notice a change in
    a function it calls from another file. See `source_stamp`.
    """
    return cast(F, njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function))


def entry(function: F) -> F:
    """Compile a function that Python calls, and keep the machine code on disk.

    The function must be a closure over a `source_stamp` of every file it is compiled from: numba makes the values
    of a closure part of the cache key.
    """
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def intrinsic(function: F) -> F:
    """Declare a function whose body is given as LLVM IR (see `numba.extending.intrinsic`)."""
    return cast(F, numba_intrinsic(function))


def source_stamp(*files: str | Path) -> str:
    """Return a digest of the given source files, for the closures of `entry`."""
    digest = hashlib.sha256()
    for file in (Path(__file__), *map(Path, files)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
