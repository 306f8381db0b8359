"""Ops that make images larger by whole factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, unit_tiles
from compiler.graph.ops import checks
from compiler.graph.ops.along import Resample
from compiler.graph.ops.move import Movement
from compiler.graph.ops.window import Pair
from compiler.tensor import define_move, define_tiles
from compiler.tensor.define_tiles import Side, Upsampling
from compiler.tensor.ir import DType
from compiler.tensor.tiles import Tiled

BETWEEN: Final = (1, 2, 4)
"""Factors of bilinear interpolation in integers: quotients are shifts, and weights have 8 bits."""


def _larger(type: TensorType, factors: Pair) -> TensorType:
    batch, channels, height, width = type.shape
    return TensorType((batch, channels, height * factors[0], width * factors[1]), type.dtype)


@dataclass(frozen=True, kw_only=True)
class Repeat(Movement):
    """[N,C,H,W] -> [N,C,H*factors[0],W*factors[1]]: each pixel becomes so many rows and columns of pixels like it.

    Of an activation in tiles it is a product with unit vectors; with factors of 1, a copy.
    """

    kind: ClassVar[str] = "repeat"
    factors: Pair

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.rank("input", types[0], 4)
        checks.within("least factor", min(self.factors), 1, max(self.factors))
        return _larger(types[0], self.factors)

    def reference(self, *arrays: Array) -> Array:
        return arrays[0].repeat(self.factors[0], axis=2).repeat(self.factors[1], axis=3)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if operands[0].tile in (None, (1, 1)):
            return Lowered(define_move.repeat(name, result.dtype, operands[0].image, self.factors), (0,))
        x, y = operands[0].tiled(blocks.block_in, blocks.batch), result.tiled(blocks.block_out, blocks.batch)
        weights = _weights(np.ones((self.factors[0], 1)), np.ones((self.factors[1], 1)), x, y, blocks)
        proc = define_tiles.upsample(name, x, y, Upsampling(factors=self.factors), DType(weights.dtype.name))
        return Lowered(proc, (0, weights))


@dataclass(frozen=True, kw_only=True)
class Interpolate(Op):
    """x float32 [N,C,H,W] -> [N,C,H*factors[0],W*factors[1]]: bilinear, in the coordinates that ONNX calls half_pixel.

    Behind x are, for the rows and the columns, as far as there get more of them, the parameters of a `Resample`.
    """

    kind: ClassVar[str] = "interpolate"
    factors: Pair

    @property
    def steps(self) -> tuple[Resample, ...]:
        """What it consists of: along one axis after the other."""
        return tuple(Resample(axis=axis) for axis, factor in zip((2, 3), self.factors, strict=True) if factor > 1)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1 + 2 * len(self.steps))
        checks.activation(types, DType.FLOAT32)
        checks.within("least factor", min(self.factors), 1, max(self.factors))
        result = types[0]
        for step, k, v in zip(self.steps, types[1::2], types[2::2], strict=True):
            result = step.infer((result, k, v))
        checks.same("what the parameters make", result, _larger(types[0], self.factors))
        return result

    def reference(self, *arrays: Array) -> Array:
        result = arrays[0]
        for step, k, v in zip(self.steps, arrays[1::2], arrays[2::2], strict=True):
            result = step.reference(result, k, v)
        return result


@dataclass(frozen=True, kw_only=True)
class QInterpolate(Op):
    """x int8 [N,C,H,W] -> [N,C,H*factors[0],W*factors[1]] of its type and scale, bilinear as `Interpolate`.

    Each result is ``(sum of pixels * weights + half) >> shift``, exact but for this rounding; behind the sides of x are
    its outermost pixels once more. The factors are `BETWEEN`.
    """

    kind: ClassVar[str] = "qinterpolate"
    factors: Pair

    @property
    def largest_weight(self) -> int:
        """Of a pixel, in the product of both axes."""
        return math.prod(int(phases(factor).max()) for factor in self.factors)

    @property
    def shift(self) -> int:
        return sum((2 * factor).bit_length() - 1 for factor in self.factors if factor > 1)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.activation(types, DType.INT8)
        if not set(self.factors) <= set(BETWEEN):
            raise GraphError(f"factors must be {' or '.join(map(str, BETWEEN))}, not {self.factors}")
        return _larger(types[0], self.factors)

    def reference(self, *arrays: Array) -> Array:
        total = arrays[0].astype(np.int32)
        for axis, factor in zip((2, 3), self.factors, strict=True):
            total = _between(total, axis, phases(factor))
        return ((total + (1 << self.shift >> 1)) >> self.shift).astype(np.int8)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = operands[0].tiled(blocks.block_in, blocks.batch), result.tiled(blocks.block_out, blocks.batch)
        down, across = self.factors
        # New columns that share a loop with parts of tiles must begin at the same pixel.
        rows, columns = phases(down, moving=True), phases(across, moving=y.subs == 1)
        weights = _weights(rows, columns, x, y, blocks)
        up = Upsampling(
            factors=self.factors,
            taps=(rows.shape[1], columns.shape[1]),
            advances=(int(rows.shape == (2, 2)), int(columns.shape == (2, 2))),
            padding=(int(down > 1), int(across > 1)),
            shift=self.shift,
            sides=(*_sides("co", "oh", x.height, down), *_sides("ow", "s", x.width, across, y.subs)),
        )
        return Lowered(define_tiles.upsample(name, x, y, up, DType(weights.dtype.name)), (0, weights))


def phases(factor: int, *, moving: bool = False) -> Array:
    """int64 [factor, taps]: weights of pixels, whose sum is ``2 * factor``, for each new one that is made of one.

    The taps are the pixel before, the pixel, and the one behind; with a factor of 1 the pixel alone. moving: with a
    factor of 2 those of the first phase are the first two of these, those of the second the last two.
    """
    if factor == 1:
        return np.ones((1, 1), np.int64)
    ahead = 2 * np.arange(factor) + 1 - factor
    taps = np.stack([np.maximum(-ahead, 0), 2 * factor - np.abs(ahead), np.maximum(ahead, 0)], axis=1)
    return np.stack([taps[0, :2], taps[1, 1:]]) if moving and factor == 2 else taps


def _between(x: Array, axis: int, weights: Array) -> Array:
    """Sums of the three pixels, along one axis, with the weights of each phase."""
    factor, taps = weights.shape
    if taps == 1:
        return x
    extent = x.shape[axis]
    padded = np.take(x, np.clip(np.arange(-1, extent + 1), 0, extent - 1), axis=axis)
    parts = [np.take(padded, np.arange(k, k + extent), axis=axis) for k in range(taps)]
    made = [sum(part * np.int32(w) for part, w in zip(parts, phase, strict=True)) for phase in weights]
    return np.stack(made, axis=axis + 1).reshape(*x.shape[:axis], extent * factor, *x.shape[axis + 1 :])


def _sides(axis: str, phase: str, extent: int, factor: int, subs: int = 1) -> list[Side]:
    """Where a pixel is missing before the first and behind the last along an axis: its weight is what is missing."""
    sides = []
    for number, (before, _, behind) in enumerate(phases(factor).tolist()) if factor > 1 else ():
        at, missing = (0, before) if before else (extent - 1, behind)
        for sub in range(subs):
            loops = (axis, at), (phase, number * subs + sub)
            sides.append(Side(at=loops, numerator=2 * factor, denominator=2 * factor - missing))
    return sides


def _weights(rows: Array, columns: Array, x: Tiled, y: Tiled, blocks: Blocks) -> Array:
    """[rows, columns*subs_y, subs_x, *taps, c_y, c_x] of weights [rows, taps] and [columns, taps]: of each channel."""
    pixels = rows[:, None, :, None] * columns[None, :, None, :]
    unit = unit_tiles(x, y, blocks)  # [subs_y, subs_x, c_y, c_x]
    full = pixels[:, :, None, None, :, :, None, None] * unit[None, None, :, :, None, None]
    shape = len(rows), len(columns) * y.subs, *full.shape[3:]
    return np.ascontiguousarray(full.reshape(shape)).astype(unit.dtype)
