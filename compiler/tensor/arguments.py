"""What may be passed to a procedure, whichever back end runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.tensor.ir import Proc, Store
from compiler.tensor.traverse import walk


class ArgumentError(CompileError):
    """An array does not fit the parameter it is passed for."""


def written(proc: Proc) -> frozenset[str]:
    """Names of the buffers that the procedure stores to."""
    return frozenset(stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Store))


@dataclass(frozen=True, kw_only=True)
class Parameter:
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_written: bool


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The parameters of a procedure, in order."""

    name: str
    parameters: tuple[Parameter, ...]

    @staticmethod
    def of(proc: Proc) -> Signature:
        stored = written(proc)
        parameters = (
            Parameter(name=b.name, dtype=b.type.numpy, shape=b.static_shape, is_written=b.name in stored)
            for b in proc.params
        )
        return Signature(name=proc.name, parameters=tuple(parameters))

    def check(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        """Raise ArgumentError unless `arrays` have dtype and shape of the parameters, C-contiguous and aligned."""
        self.check_count(len(arrays))
        for parameter, array in zip(self.parameters, arrays, strict=True):
            flags = array.flags
            if array.dtype != parameter.dtype or array.shape != parameter.shape:
                expected, found = (f"{a.dtype} of shape {a.shape}" for a in (parameter, array))
                raise self._error(parameter, f"{expected}, not {found}")
            if not flags.c_contiguous or not flags.aligned:
                raise self._error(parameter, f"C-contiguous and aligned, not of strides {array.strides}")
            if parameter.is_written and not flags.writeable:
                raise self._error(parameter, "writeable, because the procedure stores to it")

    def check_count(self, arrays: int) -> None:
        """Raise ArgumentError unless there are so many parameters."""
        if arrays != len(self.parameters):
            raise ArgumentError(f"Arguments of {self.name} must be {len(self.parameters)} arrays, not {arrays}")

    def _error(self, parameter: Parameter, rule: str) -> ArgumentError:
        return ArgumentError(f"Argument {parameter.name} of {self.name} must be {rule}")


@dataclass(frozen=True, kw_only=True, order=True)
class Span:
    """The bytes from `start` to `end`, exclusive, that an argument occupies."""

    start: int
    end: int
    name: str
    is_written: bool


def check_overlap(proc: str, arguments: Iterable[Span]) -> None:
    """Raise ArgumentError if an argument that the procedure stores to shares memory with another."""
    reached, last, last_written = 0, "", False
    for span in sorted(span for span in arguments if span.start < span.end):
        if span.start < reached and (span.is_written or last_written):
            raise ArgumentError(f"Arguments {last} and {span.name} of {proc} must not share memory")
        if span.end > reached:
            reached, last, last_written = span.end, span.name, span.is_written
