"""Float ops after fusion: what one pass over the accelerator will compute. The quantiser turns each into one q op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import (
    Blocks,
    GroupedWeights,
    Lowered,
    Placed,
    pack_channels,
    pack_depthwise,
    stored_elements,
)
from compiler.graph.ops import checks
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.window import Pair, Quad
from compiler.tensor import define_blocked, define_host, define_winograd
from compiler.tensor.define_blocked import Bounds
from compiler.tensor.ir import DType
from compiler.tensor.minimal import best_tiling, transform_weights
from compiler.tensor.tiles import Weighted


def _clip(array: Array, lo: float, hi: float) -> Array:
    return np.minimum(np.maximum(array, np.float32(lo)), np.float32(hi))


def _check_range(lo: float, hi: float) -> None:
    if not lo <= hi:
        raise GraphError(f"clip range must not be empty, not {lo}..{hi}")


@dataclass(frozen=True, kw_only=True)
class FusedConv(Op):
    """x, w, bias as `Conv` with a bias, optional residual of the result's type:
    clip(conv(x, w) + bias + residual, lo, hi)."""

    kind: ClassVar[str] = "fused_conv"
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    lo: float = -math.inf
    hi: float = math.inf

    @property
    def conv(self) -> Conv:
        return Conv(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 3, 4)
        _check_range(self.lo, self.hi)
        result = self.conv.infer(types[:3])
        if len(types) == 4:
            checks.same("residual", types[3], result)
        return result

    def wants_blocks(self, types: Sequence[TensorType], channels: int) -> bool:
        """Whether it is faster where a row-major input is put in blocks of so many channels first."""
        x, y = (Placed(t.shape, t.dtype, (1, channels)).in_blocks() for t in (types[0], self.infer(types)))
        source = Weighted(x=x, window=self.conv.window(types[1]), weight=DType.FLOAT32, blockwise=self.groups > 1)
        return types[0].shape[1] >= channels and best_tiling(source, y) is not None

    def reference(self, *arrays: Array) -> Array:
        y = self.conv.reference(*arrays[:3])
        return _clip(y + arrays[3] if len(arrays) == 4 else y, self.lo, self.hi)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = operands[0].in_blocks(), result.in_blocks()
        w, bias = operands[1].constant(), operands[2].constant()
        window = self.conv.window(TensorType.of(w))
        depthwise = x.c == y.c and w.shape[1] == 1 and self.groups == len(w)
        if window.is_pixel and not depthwise:  # all pixels are alike, so that rows need not end
            x, y = x.in_a_row(), y.in_a_row()
        weights = pack_depthwise(w, y) if depthwise else GroupedWeights(w, self.groups, x, y).by_input()
        source = Weighted(x=x, window=window, weight=DType.FLOAT32, blockwise=depthwise)
        bounds, residual = Bounds(lo=self.lo, hi=self.hi), len(operands) == 4
        if (tiling := best_tiling(source, y)) is not None:
            weights = transform_weights(weights, tiling.scheme)
            proc = define_winograd.conv2d(name, source, y, bounds, tiling, residual=residual)
        else:
            proc = define_blocked.conv2d(name, source, y, bounds, residual=residual)
        return Lowered(proc, (0, weights, pack_channels(bias, y), *((3,) if residual else ())))

    def macs(self, types: Sequence[TensorType]) -> int:
        return self.conv.macs(types[:3])


@dataclass(frozen=True, kw_only=True)
class FusedAdd(Op):
    """One or two float32 operands of one type: clip(a, lo, hi) or clip(a + b, lo, hi)."""

    kind: ClassVar[str] = "fused_add"
    lo: float = -math.inf
    hi: float = math.inf

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1, 2)
        _check_range(self.lo, self.hi)
        checks.dtype("first operand", types[0], DType.FLOAT32)
        if len(types) == 2:
            checks.same("second operand", types[1], types[0])
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        return _clip(arrays[0] + arrays[1] if len(arrays) == 2 else arrays[0], self.lo, self.hi)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        low, high = (None if math.isinf(bound) else bound for bound in (self.lo, self.hi))
        proc = define_host.clip(name, stored_elements(result), low, high, len(operands))
        return Lowered(proc, tuple(range(len(operands))))
