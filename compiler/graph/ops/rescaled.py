"""Convolution with the requantisation that an extended machine has as one instruction (decision 0006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, diagonal, pack_channels
from compiler.graph.ops import checks
from compiler.graph.ops.qconv import MAX_FACTOR, MAX_INT32, IntegerConv, wrap32
from compiler.tensor import define
from compiler.tensor.ir import DType
from compiler.tensor.tiles import Tiled, Weighted

FACTOR_BITS = 24
MAX_SHIFT = 63
MAX_ZERO_POINT = (1 << 14) - 1


@dataclass(frozen=True, kw_only=True)
class ByRequant(Op):
    """An op that ends in the REQUANT of an extended machine (decision 0006).

    Its results are the numbers of `bits` bits, lo..hi, without the negative ones if `relu`. zero_point: what stands for
    0, and is added behind the rounding; 0 if `relu`.
    """

    bits: int = 8
    relu: bool = False
    zero_point: int = 0

    @property
    def lo(self) -> int:
        return 0 if self.relu else -(1 << (self.bits - 1))

    @property
    def hi(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def definition(self) -> define.Rescale:
        return define.Rescale(relu=self.relu, bits=self.bits, zero_point=self.zero_point)

    def check_result(self, result: TensorType) -> None:
        """Raises GraphError for bits, or a zero point, that a result of that type has not."""
        checks.within("bits", self.bits, 2, result.dtype.bits)
        if self.relu and self.zero_point:
            raise GraphError(f"zero_point must be 0 with relu, not {self.zero_point}")
        largest = min(self.hi, MAX_ZERO_POINT)
        checks.within("zero_point", self.zero_point, -largest - 1, largest)

    def clipped(self, rounded: Array, like: Array) -> Array:
        """int64 results in steps, in the dtype of `like`."""
        clipped: Array = np.clip(rounded + self.zero_point, self.lo, self.hi).astype(like.dtype)
        return clipped


@dataclass(frozen=True, kw_only=True)
class RescaledConv2d(ByRequant, IntegerConv):
    """x int8|int16 [N,C,H,W], w int8|int16 [O,C/groups,KH,KW], b int32 [O], scale int32 [O], optional r of the result's
    type and m [O] of the weights':

        acc = (conv(x, w) + r * m[o] * r_mul) * mul + b[o]                    (padding is zero; int32, wraps)
        y   = clip(round(acc * factor[o] / 2**shift[o]) + zero_point, lo, hi) [N,O,OH,OW], dtype of x

    factor is ``scale[23:0]`` without sign, shift ``scale[29:24]``. What is rounded is exact; halves go away from zero.
    The residual is multiplied as weights multiply, so that it comes the way of the other activations, ahead of its use.
    mul makes a bias finer than sums.
    """

    kind: ClassVar[str] = "rescaled_conv2d"
    r_mul: int = 1
    mul: int = 1

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 4, 6)
        x, w = types[:2]
        result = self.result(x, w)
        channels = TensorType((w.shape[0],), DType.INT32)
        checks.same("bias b", types[2], channels)
        checks.same("scale", types[3], channels)
        self.check_result(result)
        if len(types) == 6:
            checks.same("residual", types[4], result)
            checks.same("factor m of the residual", types[5], TensorType((w.shape[0],), w.dtype))
        elif self.r_mul != 1:
            raise GraphError(f"r_mul must be 1 without a residual, not {self.r_mul}")
        checks.within("r_mul", self.r_mul, -MAX_FACTOR, MAX_FACTOR)
        checks.within("mul", self.mul, 1, MAX_FACTOR)
        return result

    def reference(self, *arrays: Array) -> Array:
        x, w, b, scale = arrays[:4]
        acc = self.products(x, w)
        if len(arrays) == 6:
            acc = acc + arrays[4].astype(np.int64) * arrays[5].astype(np.int64).reshape(1, -1, 1, 1) * self.r_mul
        acc = acc * self.mul + b.astype(np.int64).reshape(1, -1, 1, 1)
        rounded = rescale(wrap32(acc), scale.astype(np.int64).reshape(1, -1, 1, 1))
        return self.clipped(rounded, x)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        source, y, weights = self.weighted(operands, result, blocks)
        b, scale = (operand.constant() for operand in operands[2:4])
        residual: Weighted | None = None
        last: tuple[int | Array, ...] = ()
        if len(operands) == 6:
            residual, packed = diagonal(operands[5].constant(), operands[4], y, blocks)
            last = (4, packed)
        proc = define.rescaled_conv2d(
            name,
            source,
            y,
            self.definition,
            residual=residual,
            residual_multiplier=self.r_mul,
            multiplier=self.mul,
        )
        pairs = np.stack([pack_channels(b, y), pack_channels(scale, y)], axis=2)
        return Lowered(proc, (0, *weights, np.ascontiguousarray(pairs), *last))


@dataclass(frozen=True, kw_only=True)
class RescaledOp(ByRequant):
    """An op whose int32 results, of all channels alike, go through a `scale` as of `RescaledConv2d`:

    y = clip(round((acc + bias) * factor / 2**shift) + zero_point, lo, hi)
    """

    scale: int
    bias: int = 0

    def check_scale(self, result: TensorType) -> None:
        """Raises GraphError for numbers that a result of that type has not."""
        checks.within("scale", self.scale, 0, (1 << (FACTOR_BITS + MAX_SHIFT.bit_length())) - 1)
        checks.within("bias", self.bias, -MAX_INT32, MAX_INT32)
        self.check_result(result)

    def rescaled(self, acc: Array, like: Array) -> Array:
        """int32 accumulators scaled and clipped, in the dtype of `like`."""
        total = wrap32(acc.astype(np.int64) + self.bias)
        return self.clipped(rescale(total, np.array(self.scale, np.int64)), like)

    def pairs(self, y: Tiled) -> Array:
        """Bias and scale of every channel of a tile, int32 [1, 1, 2, n, c]."""
        pair = np.array([self.bias, self.scale], np.int32).reshape(1, 1, 2, 1, 1)
        return np.ascontiguousarray(np.broadcast_to(pair, (1, 1, 2, y.n, y.c)))


def scale_word(factor: int, shift: int) -> int:
    """The scale of a channel that means ``factor / 2**shift``. Raises GraphError for what has no room."""
    checks.within("factor", factor, 0, (1 << FACTOR_BITS) - 1)
    checks.within("shift", shift, 0, MAX_SHIFT)
    return factor | shift << FACTOR_BITS


def rescale(acc: Array, word: Array) -> Array:
    """int32 accumulators times what scales (int64, which broadcast to them) mean, rounded: int64, not clipped."""
    product = acc.astype(np.int64) * (word & ((1 << FACTOR_BITS) - 1))
    shift = word >> FACTOR_BITS & MAX_SHIFT
    # Half the divisor added to a magnitude rounds halves away from zero; beyond 2**55 nothing is left to round.
    half = np.where(shift > 0, np.int64(1) << np.clip(shift - 1, 0, 61), 0)
    magnitude = np.where(shift > 62, 0, (np.abs(product) + half) >> np.minimum(shift, 62))
    return np.asarray(np.where(product < 0, -magnitude, magnitude))
