"""Float ops that work element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, elements
from compiler.graph.ops import checks
from compiler.tensor import define_host
from compiler.tensor.ir import DType


def _unary(types: Sequence[TensorType]) -> TensorType:
    checks.count(types, 1)
    checks.dtype("input", types[0], DType.FLOAT32)
    return types[0].logical


@dataclass(frozen=True, kw_only=True)
class Add(Op):
    """a + b in float32. One operand may be smaller and is then broadcast to the other: a bias, [C,1,1] say."""

    kind: ClassVar[str] = "add"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2)
        for what, t in zip(("first operand", "second operand"), types, strict=True):
            checks.dtype(what, t, DType.FLOAT32)
        try:
            shape = np.broadcast_shapes(types[0].shape, types[1].shape)
        except ValueError:
            shape = ()
        if shape not in (types[0].shape, types[1].shape):
            raise GraphError(f"one operand must broadcast to the other, not {types[0]} and {types[1]}")
        return TensorType(shape, DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        return np.add(arrays[0], arrays[1], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Relu(Op):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        return _unary(types)

    def reference(self, *arrays: Array) -> Array:
        return np.maximum(arrays[0], np.float32(0))


@dataclass(frozen=True, kw_only=True)
class Clip(Op):
    """min(max(x, lo), hi); a bound may be infinite. Relu6 is lo=0, hi=6."""

    kind: ClassVar[str] = "clip"
    lo: float = -math.inf
    hi: float = math.inf

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        if not self.lo <= self.hi:
            raise GraphError(f"clip range must not be empty, not {self.lo}..{self.hi}")
        return _unary(types)

    def reference(self, *arrays: Array) -> Array:
        return np.minimum(np.maximum(arrays[0], np.float32(self.lo)), np.float32(self.hi))


@dataclass(frozen=True, kw_only=True)
class Identity(Op):
    """x. Dropout at inference is imported as this."""

    kind: ClassVar[str] = "identity"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        return arrays[0]

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_host.copy(name, elements(operands), result.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Op):
    """x float32 [N,C,...]; scale, bias, mean, variance float32 [C]:
    (x - mean) / sqrt(variance + epsilon) * scale + bias.

    The reference computes in float64 and rounds once.
    """

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 5)
        if len(types[0].shape) < 2:
            raise GraphError(f"input must have rank 2 or more, not {types[0]}")
        checks.dtype("input", types[0], DType.FLOAT32)
        for what, t in zip(("scale", "bias", "mean", "variance"), types[1:], strict=True):
            checks.same(what, t, TensorType(types[0].shape[1:2], DType.FLOAT32))
        return types[0].logical

    def affine(self, scale: Array, bias: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        """float64 (factor, offset), both [C]: the op is x * factor + offset."""
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + self.epsilon)
        return factor, bias.astype(np.float64) - mean.astype(np.float64) * factor

    def reference(self, *arrays: Array) -> Array:
        shape = (1, -1) + (1,) * (arrays[0].ndim - 2)
        factor, offset = (array.reshape(shape) for array in self.affine(*arrays[1:]))
        return (arrays[0].astype(np.float64) * factor + offset).astype(np.float32)
