"""Channels that become rows and columns: the pixels of a transposed convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Array, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.graph.ops.boxes import is_tiled, moved
from compiler.graph.ops.move import Movement, Rearrange, Shape
from compiler.graph.ops.window import Pair
from compiler.tensor import define_move
from compiler.tensor.define_tiles import Line, Moved


@dataclass(frozen=True, kw_only=True)
class Interleave(Movement):
    """x int8|int16 [N,C*F0*F1,H,W] -> [N,C,*size]: pixel (p, q) of ``[N,C,H*F0,W*F1]`` is one of (p // F0, q // F1).

    It is that of channel ``((g*F0 + p % F0)*F1 + q % F1)*(C/groups) + c`` for channel ``g*C/groups + c``. Of these
    pixels, `size` from `starts` on are the result.
    """

    kind: ClassVar[str] = "interleave"
    factors: Pair
    size: Pair
    starts: Pair = (0, 0)
    groups: int = 1

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        batch, channels, height, width = checks.activation(types, *checks.QUANTISED)
        checks.within("least factor", min(self.factors), 1, max(self.factors))
        checks.groups(self.groups * math.prod(self.factors), channels, channels)
        for extent, factor, start, size in zip((height, width), self.factors, self.starts, self.size, strict=True):
            checks.within("start", start, 0, extent * factor - 1)
            checks.within("size", size, 1, extent * factor - start)
        return TensorType((batch, channels // math.prod(self.factors), *self.size), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        whole = _rearrangement(arrays[0].shape, self.factors, self.groups).reference(arrays[0])
        rows, columns = (slice(start, start + size) for start, size in zip(self.starts, self.size, strict=True))
        return np.ascontiguousarray(whole[:, :, rows, columns])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if not is_tiled(operands[0]):
            source = _rearrangement(operands[0].image, self.factors, self.groups).split
            target = source[0], self.groups, source[4], *self.size
            return Lowered(define_move.interleave(name, result.dtype, source, target, self.starts), (0,))
        boxes, channels = [], []
        lines = [self._lines(axis) for axis in (0, 1)]
        for (row, to_rows, rows, height), (column, to_columns, columns, width) in itertools.product(*lines):
            boxes.append(Moved(size=(height, width), source=(rows, columns), target=(to_rows, to_columns)))
            every = np.arange(result.shape[1]).reshape(self.groups, 1, -1)
            places = np.arange(operands[0].shape[1]).reshape(self.groups, *self.factors, -1)
            channels.append((every.ravel(), places[:, row, column].ravel()))
        return moved(name, operands, boxes, result, blocks, channels)

    def _lines(self, axis: int) -> list[tuple[int, Line, Line, int]]:
        """For every phase along an axis: its number, where it is in the result and in x, and how many pixels it has."""
        factor, size = self.factors[axis], self.size[axis]
        lines = []
        for at in range(min(factor, size)):
            first, phase = divmod(at + self.starts[axis], factor)
            lines.append((phase, Line(first=at, step=factor), Line(first=first), -(-(size - at) // factor)))
        return lines


def _rearrangement(shape: Shape, factors: Pair, groups: int) -> Rearrange:
    """The same as a rearrangement of a value of that shape."""
    batch, channels, height, width = shape
    (down, right), inner = factors, channels // math.prod(factors)
    split = batch, groups, down, right, inner // groups, height, width
    return Rearrange(split=split, order=(0, 1, 4, 5, 2, 6, 3), shape=(batch, inner, height * down, width * right))


def interleaving(op: Rearrange, shape: Shape) -> Interleave | None:
    """What interleaves a value of that shape as the rearrangement does, if that is all it does."""
    if len(shape) != 4 or len(op.shape) != 4:
        return None
    (batch, channels, height, width), (images, inner, *size) = shape, op.shape
    factors = size[0] // height, size[1] // width
    whole = images, inner * math.prod(factors), height * factors[0], width * factors[1]
    if whole != (batch, channels, *size):
        return None
    places = np.arange(math.prod(shape)).reshape(shape)
    index = op.reference(places)
    chosen = index[0, :, 0, 0] // (height * width)
    together = int(np.sum(np.cumprod(chosen == np.arange(inner))))
    groups = inner // max(together, 1)
    found = groups * together == inner and _rearrangement(shape, factors, groups).reference(places)
    return Interleave(factors=factors, size=(size[0], size[1]), groups=groups) if np.array_equal(found, index) else None
