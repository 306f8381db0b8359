"""State of the units as records of int64, which compiled code reads and writes by name, and Python as numpy arrays.

A class declares one: each annotation is a number, another record, or an array whose shape is the attribute's value. The
class is the type that functions of compiled code are annotated with; there are no instances of it.
"""

from __future__ import annotations

from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner


def array(*shape: int) -> Any:
    """Declare an array of a record."""
    return shape


def record_type(declaration: type) -> np.dtype[np.void]:
    """The type of its records; compiled code takes one out of an array of length 1."""
    fields: list[tuple[str, Any, tuple[int, ...]]] = []
    for name, hint in get_type_hints(declaration).items():
        shape = getattr(declaration, name, ())
        nested = hint is not int and not shape
        fields.append((name, record_type(hint) if nested else np.int64, shape))
    return np.dtype(fields)


@inner
def copy(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    """target[:] = source, which compiled code without an allocator cannot do."""
    for place in range(target.size):
        target[place] = source[place]
