"""Quantised products of two activations, of which the second takes the place of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import LoweringError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.graph.ops.conv import channel_product, multiply_channels
from compiler.graph.ops.qconv import MAX_FACTOR, clip_to, wrap32
from compiler.graph.ops.rescaled import RescaledOp
from compiler.tensor import define
from compiler.tensor.tiles import Tiled


@dataclass(frozen=True, kw_only=True)
class IntegerMatMul(Op):
    """What products of integers have in common: x int8|int16 [N,G*K,H,W] and w of its dtype [N,G*K,P,Q], as
    `ChannelMatMul` multiplies them, to [N,G*P*Q,H,W] of that dtype."""

    groups: int = 1

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        return channel_product(types, self.groups, *checks.QUANTISED)

    def products(self, x: Array, w: Array) -> Array:
        """The exact sums of products, int64; float64 holds them, and is faster."""
        kind = np.float64 if x.shape[1] << (8 * (x.itemsize + w.itemsize)) < 1 << 53 else np.int64
        return multiply_channels(x.astype(kind), w.astype(kind), self.groups).astype(np.int64)

    def macs(self, types: Sequence[TensorType]) -> int:
        return math.prod(self.infer(types).shape) * types[0].shape[1] // self.groups

    def tiled(self, operands: Sequence[Placed], result: Placed) -> tuple[Tiled, Tiled]:
        """(x, y) with a batch for each group of each image. Raises LoweringError unless `multiplies_tiles`."""
        x, w = operands
        if x.tile is None or w.tile != x.tile or result.tile != x.tile:
            raise LoweringError(f"Operands must be packed alike, not by {x.tile}, {w.tile} and {result.tile}")
        why = unfit(x.shape, w.shape, self.groups, x.tile)
        if why:
            raise LoweringError(f"Product of {x.shape} and {w.shape} must consist of tiles: {why}")
        batch, channels, height, width = x.shape
        block = x.tile[1]

        def tensor(channels: int) -> Tiled:
            blocks = -(-channels // self.groups // block)
            return Tiled(
                batches=batch * self.groups, blocks=blocks, height=height, width=width, n=1, c=block, dtype=x.dtype
            )

        return tensor(channels), tensor(result.shape[1])


def unfit(x: tuple[int, ...], w: tuple[int, ...], groups: int, tile: tuple[int, int]) -> str:
    """Why tiles of the machine do not make up a product of images of these shapes; empty if they do."""
    images, block = tile
    positions, inner = math.prod(w[2:]), x[1] // groups
    if images > 1:
        return f"{images} images share their weights"
    if groups > 1 and inner % block:
        return f"{inner} channels of a group are no multiple of {block}"
    if positions % block:
        return f"{positions} positions are no multiple of {block}"
    return ""


@dataclass(frozen=True, kw_only=True)
class QMatMul(IntegerMatMul):
    """With acc the sums of products:

        y = clip(((acc >> pre_shift) * mul + bias) >> shift, lo, hi)

    Every step is int32 and wraps. mul and bias have 15 bits and a sign.
    """

    kind: ClassVar[str] = "qmatmul"
    pre_shift: int = 0
    mul: int = 1
    bias: int = 0
    shift: int = 0
    lo: int
    hi: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        for what, value in (("pre_shift", self.pre_shift), ("shift", self.shift)):
            checks.within(what, value, 0, 31)
        for what, value in (("mul", self.mul), ("bias", self.bias)):
            checks.within(what, value, -MAX_FACTOR, MAX_FACTOR)
        result = super().infer(types)
        checks.clip_range(self.lo, self.hi, result.dtype)
        return result

    def reference(self, *arrays: Array) -> Array:
        acc = wrap32(self.products(*arrays)) >> np.int32(self.pre_shift)
        acc = (acc * np.int32(self.mul) + np.int32(self.bias)) >> np.int32(self.shift)
        return clip_to(acc, self.lo, self.hi, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = self.tiled(operands, result)
        requantize = define.Requantize(pre_shift=self.pre_shift, shift=self.shift, low=self.lo, high=self.hi)
        return Lowered(define.matmul(name, x, y, requantize, self.mul, self.bias), (0, 1))


@dataclass(frozen=True, kw_only=True)
class RescaledMatMul(RescaledOp, IntegerMatMul):
    """The sums of products, int32, through the scale of `RescaledOp`."""

    kind: ClassVar[str] = "rescaled_matmul"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        result = super().infer(types)
        self.check_scale(result)
        return result

    def reference(self, *arrays: Array) -> Array:
        return self.rescaled(wrap32(self.products(*arrays)), arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = self.tiled(operands, result)
        return Lowered(define.rescaled_matmul(name, x, y, self.definition), (0, 1, self.pairs(y)))
