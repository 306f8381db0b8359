"""What may be passed to a procedure, whichever back end runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.tensor.ir import Proc, Store, walk


class ArgumentError(CompileError):
    """An array does not fit the parameter it is passed for."""


def written(proc: Proc) -> frozenset[str]:
    """Names of the buffers that the procedure stores to."""
    return frozenset(stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Store))


def check_arguments(proc: Proc, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Raise ArgumentError unless `arrays` are usable as the arguments of `proc`."""
    if len(arrays) != len(proc.params):
        raise ArgumentError(f"Arguments of {proc.name} must be {len(proc.params)} arrays, not {len(arrays)}")
    stored = written(proc)
    for buffer, array in zip(proc.params, arrays, strict=True):
        who = f"Argument {buffer.name} of {proc.name}"
        if array.dtype != buffer.type.numpy or array.shape != buffer.static_shape:
            expected = f"{buffer.type.value} of shape {buffer.static_shape}"
            raise ArgumentError(f"{who} must be {expected}, not {array.dtype} of shape {array.shape}")
        if not array.flags.c_contiguous or not array.flags.aligned:
            raise ArgumentError(f"{who} must be C-contiguous and aligned, not of strides {array.strides}")
        if buffer.name in stored and not array.flags.writeable:
            raise ArgumentError(f"{who} must be writeable, because the procedure stores to it")
