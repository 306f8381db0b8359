"""Quantised convolution. Everything up to the stored int8 is one op: one visit of a tile to the accelerator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import (
    Blocks,
    GroupedWeights,
    Lowered,
    Placed,
    diagonal,
    pack_channels,
    pack_depthwise,
    packed_tile,
)
from compiler.graph.ops import checks
from compiler.graph.ops.conv import convolve
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor import define, tiles
from compiler.tensor.ir import DType
from compiler.tensor.tiles import RAISE, Tiled, Weighted, is_power_of_two

MAX_FACTOR = (1 << 15) - 1
"""Largest magnitude of a scalar factor: VTA's ALU immediates have 16 bits (VTA spec 2.4)."""


MAX_INT32 = (1 << 31) - 1
"""Largest magnitude of one that comes in a register."""


def is_wide(*numbers: int) -> bool:
    """Whether any is no immediate."""
    return max(map(abs, numbers)) > MAX_FACTOR


def shifted(total: Array, shift: int, *, even: bool) -> Array:
    """int32 ``total >> shift``, cut, or `even`: rounded to nearest, halves to even. Every step wraps."""
    if even:
        total = total + np.int32((1 << (shift - 1)) - 1) + ((total >> np.int32(shift)) & np.int32(1))
    result: Array = total >> np.int32(shift)
    return result


def wrap32(array: Array) -> Array:
    """int64 -> int32, keeping the low bits."""
    return array.astype(np.int64).astype(np.int32)


def clip_to(acc: Array, lo: int, hi: int, like: Array) -> Array:
    """int32 -> the dtype of `like`, clipped to lo..hi, which lies within it."""
    clipped: Array = np.minimum(np.maximum(acc, np.int32(lo)), np.int32(hi))
    return clipped.astype(like.dtype)


def convolve_exact(x: Array, w: Array, window: Window, groups: int = 1) -> Array:
    """Integer convolution as int64. Runs in float64 where every partial sum is an exact float64, else in int64."""
    taps = math.prod(w.shape[1:])
    largest = taps * max(1, int(np.abs(x.astype(np.int64)).max())) * max(1, int(np.abs(w.astype(np.int64)).max()))
    kind = np.float64 if largest < 1 << 53 else np.int64
    return convolve(x.astype(kind), w.astype(kind), window, groups).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class IntegerConv(Op):
    """What convolutions of integers have in common: the first two inputs, x int8|int16 [N,C,H,W] and w int8|int16
    [O,C/groups,KH,KW], of which each subclass makes its result."""

    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def window(self, w: TensorType) -> Window:
        kernel = w.shape[2], w.shape[3]
        return Window(kernel=kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def result(self, x: TensorType, w: TensorType) -> TensorType:
        """[N,O,OH,OW] in the dtype of x. Raises GraphError."""
        batch, channels, height, width = checks.activation((x,), *checks.QUANTISED)
        checks.rank("weight", w, 4)
        checks.dtype("weight", w, *checks.QUANTISED)
        checks.groups(self.groups, channels, w.shape[0])
        if w.shape[1] != channels // self.groups:
            raise GraphError(f"weight must have {channels // self.groups} input channels, not {w.shape[1]}")
        return TensorType((batch, w.shape[0], *self.window(w).output(height, width)), x.dtype)

    def products(self, x: Array, w: Array) -> Array:
        """The exact sums of products, int64 [N,O,OH,OW]."""
        return convolve_exact(x, w, self.window(TensorType.of(w)), self.groups)

    def macs(self, types: Sequence[TensorType]) -> int:
        return math.prod(self.infer(types).shape) * math.prod(types[1].shape[1:])

    def tiled(self, operand: Placed, channels: int, w: Array, blocks: Blocks) -> Tiled:
        """The input or the result in tiles of so many channels; on a CPU pixels that are all alike are in one row,
        which no end of an image cuts."""
        tiles_of = operand.tiled(channels, blocks.batch)
        return tiles_of.in_a_row() if blocks.dot and self.window(TensorType.of(w)).is_pixel else tiles_of

    def weighted(
        self, operands: Sequence[Placed], result: Placed, blocks: Blocks
    ) -> tuple[Weighted, Tiled, tuple[Array, ...]]:
        """The input as what weights multiply, the result, and the constants that `tiles.summed` takes behind X."""
        w = operands[1].constant()
        window, weight = self.window(TensorType.of(w)), DType(w.dtype.name)
        y = self.tiled(result, blocks.block_out, w, blocks)
        if blocks.dot and w.shape[1] == 1 and self.groups == len(w) > 1:
            x = self.tiled(operands[0], y.c, w, blocks)
            source = Weighted(x=x, window=window, weight=weight, blockwise=True, channelwise=True)
            return source, y, (pack_depthwise(w, y)[:, :, :, :, 0],)
        sums_bytes = blocks.dot and weight is operands[0].dtype is DType.INT8
        x = self.tiled(operands[0], packed_tile(operands[0])[1] if sums_bytes else blocks.block_in, w, blocks)
        weights = GroupedWeights(w, self.groups, x, y)
        source = Weighted(x=x, window=window, weight=weight, blockwise=weights.blockwise)
        if not sums_bytes:
            return source, y, (weights.packed(),)
        source = replace(source, dot=blocks.dot)
        sums = pack_channels(w.astype(np.int32).sum(axis=(1, 2, 3), dtype=np.int32) * RAISE, y)
        return source, y, (weights.by_neighbours(blocks.dot), *((sums,) if tiles.is_raised(source) else ()))


@dataclass(frozen=True, kw_only=True)
class QConv2d(IntegerConv):
    """x int8|int16 [N,C,H,W], w int8|int16 [O,C/groups,KH,KW], m int32 [O], b int32 [O], optional r of the result's
    type:

        acc = conv(x, w)                                                      (padding is zero)
        y   = clip(((acc >> pre_shift) * m[o] + b[o] + r * r_mul) >> shift, lo, hi)     [N,O,OH,OW], dtype of x

    Every step is int32 and wraps; >> is arithmetic. Rounding is part of b. The quantiser proves that nothing wraps.
    """

    kind: ClassVar[str] = "qconv2d"
    pre_shift: int = 0
    shift: int = 0
    r_mul: int = 0
    lo: int
    hi: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 4, 5)
        x, w, m, b = types[:4]
        result = self.result(x, w)
        for what, t in (("factor m", m), ("bias b", b)):
            checks.same(what, t, TensorType((w.shape[0],), DType.INT32))
        checks.within("pre_shift", self.pre_shift, 0, 31)
        checks.within("shift", self.shift, 0, 31)
        checks.within("r_mul", self.r_mul, -MAX_FACTOR, MAX_FACTOR)
        checks.clip_range(self.lo, self.hi, x.dtype)
        if len(types) == 5:
            checks.same("residual", types[4], result)
        elif self.r_mul:
            raise GraphError(f"r_mul must be 0 without a residual, not {self.r_mul}")
        return result

    def reference(self, *arrays: Array) -> Array:
        x, w, m, b = arrays[:4]
        acc = wrap32(self.products(x, w)) >> np.int32(self.pre_shift)
        acc = acc * m.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
        if len(arrays) == 5:
            acc = acc + arrays[4].astype(np.int32) * np.int32(self.r_mul)
        return clip_to(acc >> np.int32(self.shift), self.lo, self.hi, x)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        source, y, weights = self.weighted(operands, result, blocks)
        m, b = (operand.constant() for operand in operands[2:4])
        scaled = bool((m != 1).any())
        requantize = define.Requantize(
            pre_shift=self.pre_shift, shift=self.shift, low=self.lo, high=self.hi, multiplier=scaled
        )
        multiplier = self.r_mul
        residual: Weighted | Tiled | None = None
        last: tuple[int | Array, ...] = ()
        if len(operands) == 5:
            residual, last = y, (4,)
            factors = two_factors(self.r_mul, blocks.weight_bits)
            plain = not scaled and not self.pre_shift  # so that sums of products are in the units of the residual
            # A machine that adds beside its products has nothing to gain from more of these, where shifts will do.
            gains = not blocks.overlap or not (self.r_mul == 1 or is_power_of_two(self.r_mul))
            if plain and gains and not blocks.dot and factors is not None and operands[4].is_read_by_products(blocks):
                factor, multiplier = factors
                m = np.full(len(m), factor, source.weight.numpy)
                residual, packed = diagonal(m, operands[4], y, blocks)
                last = (4, packed)
        proc = define.conv2d(name, source, y, requantize, residual=residual, residual_multiplier=multiplier)
        scale = (pack_channels(m, y),) if scaled else ()
        return Lowered(proc, (0, *weights, *scale, pack_channels(b, y), *last))


def two_factors(number: int, bits: int) -> tuple[int, int] | None:
    """The number as a weight of so many bits times a power of two that is an immediate, or None."""
    power, limit = 1, 1 << (bits - 1)
    while number % 2 == 0 and not -limit <= number < limit:
        number, power = number // 2, power * 2
    return (number, power) if -limit <= number < limit and power <= MAX_FACTOR else None
