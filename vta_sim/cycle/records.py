"""State of the units as records of int64, which compiled code reads and writes by name, and Python as numpy arrays.

A class declares one: each annotation is a number, or an array whose shape is the value of the attribute. The class is
the type that functions of compiled code are annotated with; there are no instances of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner


def array(*shape: int) -> Any:
    """Declare an array of a record."""
    return shape


def new_record(declaration: type) -> NDArray[np.void]:
    """One record, all zero, in an array of length 1: compiled code takes it out of there."""
    fields = [(name, np.int64, getattr(declaration, name, ())) for name in declaration.__annotations__]
    return np.zeros(1, np.dtype(fields))


@inner
def copy(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    """target[:] = source, which compiled code without an allocator cannot do."""
    for place in range(target.size):
        target[place] = source[place]
