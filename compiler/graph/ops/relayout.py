"""Values that lie in memory in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, packed_tile
from compiler.graph.ops import checks
from compiler.tensor import define_host
from compiler.tensor.ir import DType


@dataclass(frozen=True, kw_only=True)
class Relayout(Op):
    """The same logical tensor; input and result lie in memory differently (`Graph.layouts`)."""

    kind: ClassVar[str] = "relayout"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.activation(types, *checks.QUANTISED, DType.FLOAT32)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        return arrays[0]

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x = operands[0]
        return Lowered(define_host.relayout(name, x.image, packed_tile(x), packed_tile(result), dtype=x.dtype), (0,))
