"""Ops along axes: reductions, normalisation, resampling.

References and what is compiled sum in the type of the elements, in the order of the elements, and so agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.tensor import define_float
from compiler.tensor.define_float import Along, Reduction
from compiler.tensor.ir import DType


def _check_range(types: Sequence[TensorType], first: int, last: int) -> None:
    checks.count(types, 1)
    if not 0 <= first < last <= len(types[0].shape):
        raise GraphError(f"dimensions must be some of {types[0]}, not {first}..{last - 1}")


def _rows(array: Array, first: int, last: int) -> Array:
    """[length, outer, inner], to go along the first."""
    along = Along.of(array.shape, first, last)
    return np.ascontiguousarray(array.reshape(along.shape).transpose(1, 0, 2))


def _sum(rows: Array) -> Array:
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows:
        total = total + row
    return total


@dataclass(frozen=True, kw_only=True)
class Reduce(Op):
    """The dimensions from `first` to `last`, not included, become one element each: sum, max or min of numbers, whose
    sums wrap if they are integers, or mean of float32."""

    kind: ClassVar[str] = "reduce"
    reduction: Reduction
    first: int
    last: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        _check_range(types, self.first, self.last)
        if self.reduction is Reduction.MEAN:
            checks.dtype("input", types[0], DType.FLOAT32)
        checks.number("input", types[0])
        shape = types[0].shape
        ones = (1,) * (self.last - self.first)
        return TensorType((*shape[: self.first], *ones, *shape[self.last :]), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        rows = _rows(arrays[0], self.first, self.last)
        if self.reduction in (Reduction.MAX, Reduction.MIN):
            value = rows.max(axis=0) if self.reduction is Reduction.MAX else rows.min(axis=0)
        else:
            value = _sum(rows)
            value = value / np.float32(len(rows)) if self.reduction is Reduction.MEAN else value
        return np.ascontiguousarray(value.reshape(self.infer([TensorType.of(arrays[0])]).shape))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        along = Along.of(operands[0].shape, self.first, self.last)
        return Lowered(define_float.reduce(name, along, self.reduction, result.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class Normalize(Op):
    """float32, (x - mean) / sqrt(variance + epsilon) over the dimensions from `first` to `last`, not included.

    What layer and instance normalisation have in common, without their scale and bias.
    """

    kind: ClassVar[str] = "normalize"
    first: int
    last: int
    epsilon: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        _check_range(types, self.first, self.last)
        checks.dtype("input", types[0], DType.FLOAT32)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        rows = _rows(arrays[0], self.first, self.last)
        length = np.float32(len(rows))
        centred = rows - _sum(rows) / length
        deviation = np.sqrt(_sum(centred * centred) / length + np.float32(self.epsilon))
        return np.ascontiguousarray((centred / deviation).transpose(1, 0, 2).reshape(arrays[0].shape))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        along = Along.of(operands[0].shape, self.first, self.last)
        return Lowered(define_float.normalize(name, along, self.epsilon), (0,))


@dataclass(frozen=True, kw_only=True)
class Resample(Op):
    """x float32, k int32 [count,taps], v float32 [count,taps]: along `axis`, y[j] = sum over t of v[j,t] * x[k[j,t]].

    Interpolation, whatever its coordinates. k and v are constants, k within the axis.
    """

    kind: ClassVar[str] = "resample"
    axis: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 3)
        x, k, v = types
        checks.dtype("input", x, DType.FLOAT32)
        checks.within("axis", self.axis, 0, len(x.shape) - 1)
        checks.rank("indices", k, 2)
        checks.dtype("indices", k, DType.INT32)
        checks.same("weights", v, TensorType(k.shape, DType.FLOAT32))
        return TensorType((*x.shape[: self.axis], k.shape[0], *x.shape[self.axis + 1 :]), DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        x, k, v = arrays
        shape = [1] * x.ndim
        shape[self.axis] = len(k)
        total = np.zeros((*x.shape[: self.axis], len(k), *x.shape[self.axis + 1 :]), np.float32)
        for t in range(k.shape[1]):
            index = np.clip(k[:, t], 0, x.shape[self.axis] - 1)
            total = total + v[:, t].reshape(shape) * np.take(x, index, axis=self.axis)
        return total

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        count, taps = operands[1].shape
        along = Along.of(operands[0].shape, self.axis, self.axis + 1)
        return Lowered(define_float.resample(name, along, count, taps), (0, 1, 2))
