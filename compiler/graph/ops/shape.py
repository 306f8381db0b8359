"""Ops that rename dimensions and move nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, elements
from compiler.graph.ops import checks
from compiler.tensor import define_host


@dataclass(frozen=True, kw_only=True)
class Reshape(Op):
    """The same elements in row-major order under the static `shape`."""

    kind: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        if math.prod(self.shape) != math.prod(types[0].shape):
            raise GraphError(f"shape must hold as many elements as {types[0]}, not {self.shape}")
        return TensorType(self.shape, types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return arrays[0].reshape(self.shape)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_host.copy(name, elements(operands), result.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class Flatten(Op):
    """[N,...] -> [N, product of the rest]."""

    kind: ClassVar[str] = "flatten"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        if not types[0].shape:
            raise GraphError(f"input must have rank 1 or more, not {types[0]}")
        return TensorType((types[0].shape[0], math.prod(types[0].shape[1:])), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return arrays[0].reshape(self.infer([TensorType.of(arrays[0])]).shape)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_host.copy(name, elements(operands), result.dtype), (0,))
