"""Quantised pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, pack_numbers, pack_positions
from compiler.graph.ops import checks
from compiler.graph.ops.pool import pooled
from compiler.graph.ops.qconv import MAX_INT32, clip_to, is_wide, shifted
from compiler.graph.ops.rescaled import RescaledOp
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor import define
from compiler.tensor.ir import DType


@dataclass(frozen=True, kw_only=True)
class QMaxPool2d(Op):
    """int8|int16 [N,C,H,W] -> largest value of each window, padding ignored; the scale stays."""

    kind: ClassVar[str] = "qmax_pool2d"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    @property
    def window(self) -> Window:
        return Window(kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return pooled(types, self.window, *checks.QUANTISED)

    def reference(self, *arrays: Array) -> Array:
        lowest = np.iinfo(arrays[0].dtype).min
        result = np.full(self.infer([TensorType.of(arrays[0])]).shape, lowest, arrays[0].dtype)
        for _, _, tap in self.window.taps(arrays[0], lowest):
            np.maximum(result, tap, out=result)
        return result

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = (t.tiled(blocks.block_out, blocks.batch) for t in (operands[0], result))
        return Lowered(define.max_pool2d(name, x, y, self.window), (0,))


@dataclass(frozen=True, kw_only=True)
class QAvgPool2d(Op):
    """x int8|int16 [N,C,H,W], optional m int32 [OH,OW] -> y = clip((sum * mul + bias) >> shift, lo, hi), dtype of x.

    The sum is over each window with zeros as padding. `mul` is either the attribute, or None and then the element of m
    at that position (windows at the border that divide by fewer elements). Every step is int32 and wraps. `mul`,
    `bias` and `even` are as in `QAdd`.
    """

    kind: ClassVar[str] = "qavg_pool2d"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    mul: int | None
    bias: int = 0
    shift: int = 0
    lo: int
    hi: int
    even: bool = False

    @property
    def window(self) -> Window:
        return Window(kernel=self.kernel, stride=self.stride, padding=self.padding)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1 if self.mul is not None else 2)
        result = pooled(types, self.window, *checks.QUANTISED)
        if self.mul is None:
            checks.same("factor m", types[1], TensorType(result.shape[2:], DType.INT32))
        else:
            checks.within("mul", self.mul, -MAX_INT32, MAX_INT32)
        checks.right_shift(self.shift, even=self.even)
        checks.within("bias", self.bias, -MAX_INT32, MAX_INT32)
        checks.clip_range(self.lo, self.hi, types[0].dtype)
        return result

    def reference(self, *arrays: Array) -> Array:
        scaled = _sums(self.window, arrays[0]) * (arrays[1] if self.mul is None else np.int32(self.mul))
        rounded = shifted(scaled + np.int32(self.bias), self.shift, even=self.even)
        return clip_to(rounded, self.lo, self.hi, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = (t.tiled(blocks.block_out, blocks.batch) for t in (operands[0], result))
        numbers = (self.bias,) if self.mul is None else (self.mul, self.bias)
        wide = is_wide(*numbers)
        proc = define.avg_pool2d(
            name, x, y, self.window, self.mul, self.bias, self.shift, self.lo, self.hi, even=self.even, wide=wide
        )
        parameters = [pack_positions(operands[1].constant(), y)] if self.mul is None else []
        parameters += [pack_numbers(numbers, y)] if wide else []
        return Lowered(proc, (0, *parameters))


@dataclass(frozen=True, kw_only=True)
class RescaledAvgPool2d(RescaledOp):
    """x int8|int16 [N,C,H,W], optional m int32 [OH,OW] -> sum * m, int32, scaled as `RescaledOp` says.

    The sum is over each window with zeros as padding.
    """

    kind: ClassVar[str] = "rescaled_avg_pool2d"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)

    @property
    def window(self) -> Window:
        return Window(kernel=self.kernel, stride=self.stride, padding=self.padding)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1, 2)
        result = pooled(types, self.window, *checks.QUANTISED)
        if len(types) == 2:
            checks.same("factor m", types[1], TensorType(result.shape[2:], DType.INT32))
        self.check_scale(result)
        return result

    def reference(self, *arrays: Array) -> Array:
        sums = _sums(self.window, arrays[0])
        return self.rescaled(sums * arrays[1] if len(arrays) == 2 else sums, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = (t.tiled(blocks.block_out, blocks.batch) for t in (operands[0], result))
        factors = tuple(pack_positions(operand.constant(), y) for operand in operands[1:])
        proc = define.rescaled_avg_pool2d(name, x, y, self.window, self.definition, factors=bool(factors))
        return Lowered(proc, (0, *factors, self.pairs(y)))


def _sums(window: Window, x: Array) -> Array:
    """int32 sum of each window of x [N,C,H,W], padding being zero."""
    total = np.zeros((*x.shape[:2], *window.output(*x.shape[2:])), np.int32)
    for _, _, tap in window.taps(x.astype(np.int32), 0):
        total += tap
    return total
