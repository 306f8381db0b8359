"""Ops that move elements and compute nothing. Tensors may be of any type and rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, GroupedWeights, Lowered, Placed, weight_type
from compiler.graph.ops import checks
from compiler.graph.ops.boxes import is_tiled, moved
from compiler.tensor import define_move, define_tiles
from compiler.tensor.define_tiles import Filled, Line, Moved
from compiler.tensor.tiles import Tiled, Weighted

Shape = tuple[int, ...]


class Movement(Op):
    """What these ops have in common: each element of the result is one of an input, or a constant."""


@dataclass(frozen=True, kw_only=True)
class Transpose(Movement):
    """Dimension k of the result is dimension ``order[k]`` of the input."""

    kind: ClassVar[str] = "transpose"
    order: Shape

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        if sorted(self.order) != list(range(len(types[0].shape))):
            raise GraphError(f"order must name each dimension of {types[0]} once, not be {self.order}")
        return TensorType(tuple(types[0].shape[axis] for axis in self.order), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.ascontiguousarray(arrays[0].transpose(self.order))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if is_tiled(operands[0]):
            height, width = result.shape[2:]
            return moved(name, operands, [Moved(size=(height, width), transposed=True)], result, blocks)
        return Lowered(define_move.transpose(name, result.dtype, operands[0].shape, self.order), (0,))


@dataclass(frozen=True, kw_only=True)
class ChannelTranspose(Movement):
    """[N,G*C,H,W] -> [N,G*H*W,1,C]: within each of `groups` groups channels and positions are exchanged."""

    kind: ClassVar[str] = "channel_transpose"
    groups: int = 1

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.rank("input", types[0], 4)
        batch, channels, height, width = types[0].shape
        checks.groups(self.groups, channels, channels)
        return TensorType((batch, self.groups * height * width, 1, channels // self.groups), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        batch, channels = arrays[0].shape[:2]
        groups = arrays[0].reshape(batch, self.groups, channels // self.groups, -1)
        return np.ascontiguousarray(groups.swapaxes(2, 3)).reshape(batch, -1, 1, channels // self.groups)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        batch, channels, *size = operands[0].shape
        products, inner, positions = batch * self.groups, channels // self.groups, math.prod(size)
        if operands[0].tile in (None, (1, 1)):
            shape = (products, inner, positions)
            return Lowered(define_move.transpose(name, result.dtype, shape, (0, 2, 1)), (0,))
        block = blocks.block_in
        y = Tiled(
            batches=products, blocks=positions // block, height=inner // block, width=block, n=1, c=block,
            dtype=result.dtype,
        )
        unit = np.eye(block, dtype=result.dtype.numpy).reshape(block, 1, block)
        return Lowered(define_tiles.transpose(name, y), (unit, 0))


@dataclass(frozen=True, kw_only=True)
class Rearrange(Movement):
    """The input taken as `split`, its dimensions in another order, taken as `shape`."""

    kind: ClassVar[str] = "rearrange"
    split: Shape
    order: Shape
    shape: Shape

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        if not math.prod(self.split) == math.prod(self.shape) == math.prod(types[0].shape):
            raise GraphError(f"shapes must hold as many elements as {types[0]}, not be {self.split} and {self.shape}")
        Transpose(order=self.order).infer([TensorType(self.split, types[0].dtype)])
        return TensorType(self.shape, types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.ascontiguousarray(arrays[0].reshape(self.split).transpose(self.order)).reshape(self.shape)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_move.transpose(name, result.dtype, self.split, self.order), (0,))


@dataclass(frozen=True, kw_only=True)
class Slice(Movement):
    """In each dimension `shape` elements, from `starts` on in `steps`, which may be negative."""

    kind: ClassVar[str] = "slice"
    starts: Shape
    steps: Shape
    shape: Shape

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        whole = types[0].shape
        if not len(whole) == len(self.starts) == len(self.steps) == len(self.shape):
            raise GraphError(f"starts, steps and shape must have one element for each dimension of {types[0]}")
        for extent, start, step, count in zip(whole, self.starts, self.steps, self.shape, strict=True):
            last = start + (count - 1) * step
            if count < 1 or not (0 <= start < extent and 0 <= last < extent):
                raise GraphError(f"slice must lie within {types[0]}, not from {self.starts} by {self.steps}")
        return TensorType(self.shape, types[0].dtype)

    def selects_channels(self, shape: Sequence[int]) -> bool:
        """Whether it takes all of a value [N,C,H,W] but for channels."""
        if len(shape) != 4:
            return False
        return all(shape[k] == 1 or (self.shape[k] == shape[k] and self.steps[k] == 1) for k in (0, 2, 3))

    def reference(self, *arrays: Array) -> Array:
        at = (s + np.arange(n) * step for s, n, step in zip(self.starts, self.shape, self.steps, strict=True))
        return np.ascontiguousarray(arrays[0][np.ix_(*at)]) if self.shape else arrays[0]

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        shape = operands[0].shape
        if is_tiled(operands[0]):
            chosen = self.starts[1] + np.arange(self.shape[1]) * self.steps[1]
            if self.selects_channels(shape):
                return _gathered(name, operands, [(0, chosen)], result, blocks)
            rows, columns = (Line(first=self.starts[k], step=self.steps[k]) for k in (2, 3))
            box = Moved(size=(self.shape[2], self.shape[3]), source=(rows, columns))
            return moved(name, operands, [box], result, blocks, [(np.arange(len(chosen)), chosen)])
        return Lowered(define_move.strided_slice(name, result.dtype, shape, self.shape, self.starts, self.steps), (0,))


@dataclass(frozen=True, kw_only=True)
class Pad(Movement):
    """`before` and `after` elements of `value` in each dimension."""

    kind: ClassVar[str] = "pad"
    before: Shape
    after: Shape
    value: float = 0.0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        shape = types[0].shape
        if not len(shape) == len(self.before) == len(self.after) or min((*self.before, *self.after), default=0) < 0:
            raise GraphError(
                f"padding must be positive in each dimension of {types[0]}, not {self.before}, {self.after}"
            )
        return TensorType(self._whole(shape), types[0].dtype)

    def _whole(self, shape: Shape) -> Shape:
        return tuple(a + n + b for a, n, b in zip(self.before, shape, self.after, strict=True))

    def reference(self, *arrays: Array) -> Array:
        result = np.full(self._whole(arrays[0].shape), self.value, arrays[0].dtype)
        result[tuple(slice(a, a + n) for a, n in zip(self.before, arrays[0].shape, strict=True))] = arrays[0]
        return result

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if is_tiled(operands[0]):
            return self._in_tiles(name, operands, result, blocks)
        proc = define_move.pad(name, result.dtype, operands[0].shape, self.before, result.shape, self.value)
        return Lowered(proc, (0,))

    @property
    def is_border(self) -> bool:
        """Whether it is rows and columns around images [N,C,H,W]."""
        return len(self.before) == 4 and not any((*self.before[:2], *self.after[:2]))

    def _in_tiles(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        """Zeros come with what is loaded; anything else makes boxes around the image, which has all channels then."""
        (height, width), (top, left) = result.shape[2:], self.before[2:]
        rows, columns = operands[0].shape[2:]
        if not self.value:
            box = Moved(size=(height, width), source=(Line(first=-top), Line(first=-left)))
            channels = np.arange(operands[0].shape[1])
            return moved(name, operands, [box], result, blocks, [(self.before[1] + channels, channels)])
        box = Moved(size=(rows, columns), target=(Line(first=top), Line(first=left)))
        sides = {
            (0, 0): (top, width),
            (top, 0): (rows, left),
            (top, left + columns): (rows, width - left - columns),
            (top + rows, 0): (height - top - rows, width),
        }
        filled = [Filled(first=at, size=size, value=int(self.value)) for at, size in sides.items() if min(size)]
        return moved(name, operands, [box], result, blocks, filled=filled)


@dataclass(frozen=True, kw_only=True)
class Concat(Movement):
    """The inputs behind each other along `axis`, which counts from the front."""

    kind: ClassVar[str] = "concat"
    axis: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        rank = len(types[0].shape)
        checks.within("axis", self.axis, 0, rank - 1)
        for t in types:
            alike = len(t.shape) == rank and t.dtype is types[0].dtype
            if not alike or any(
                k != self.axis and n != m for k, (n, m) in enumerate(zip(t.shape, types[0].shape, strict=True))
            ):
                raise GraphError(f"inputs must differ along axis {self.axis} alone, not be {types[0]} and {t}")
        total = sum(t.shape[self.axis] for t in types)
        return TensorType((*types[0].shape[: self.axis], total, *types[0].shape[self.axis + 1 :]), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if is_tiled(operands[0]):
            counts = [operand.shape[self.axis] for operand in operands]
            begins = itertools.accumulate(counts[:-1], initial=0)
            if self.axis > 1:
                boxes = [self._box(k, operands[k], begin) for k, begin in enumerate(begins)]
                return moved(name, operands, boxes, result, blocks)
            parts = [(begin, np.arange(count)) for begin, count in zip(begins, counts, strict=True)]
            return _gathered(name, operands, parts, result, blocks)
        proc = define_move.concat(name, result.dtype, [operand.shape for operand in operands], self.axis)
        return Lowered(proc, tuple(range(len(operands))))

    def _box(self, number: int, operand: Placed, begin: int) -> Moved:
        rows, columns = (Line(first=begin if self.axis == axis else 0) for axis in (2, 3))
        return Moved(x=number, size=(operand.shape[2], operand.shape[3]), target=(rows, columns))


def _gathered(
    name: str, operands: Sequence[Placed], parts: Sequence[tuple[int, Array]], result: Placed, blocks: Blocks
) -> Lowered:
    """Tiles of channels of the operands: of each those `chosen`, from channel `begin` of the result on."""
    y = result.tiled(blocks.block_out, blocks.batch)
    weight = weight_type(blocks)
    sources, arrays = [], []
    for operand, (begin, chosen) in zip(operands, parts, strict=True):
        x = operand.tiled(blocks.block_in, blocks.batch)
        w = np.zeros((result.shape[1], operand.shape[1], 1, 1), weight.numpy)
        w[begin + np.arange(len(chosen)), chosen] = 1
        sources.append(Weighted(x=x, weight=weight))
        arrays.append(GroupedWeights(w, 1, x, y).packed())
    return Lowered(define_tiles.gather_channels(name, sources, y), (*range(len(operands)), *arrays))


@dataclass(frozen=True, kw_only=True)
class Expand(Movement):
    """The input broadcast to `shape`."""

    kind: ClassVar[str] = "expand"
    shape: Shape

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        if checks.broadcast([types[0], TensorType(self.shape, types[0].dtype)]) != self.shape:
            raise GraphError(f"shape must be one that {types[0]} broadcasts to, not {self.shape}")
        return TensorType(self.shape, types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.array(np.broadcast_to(arrays[0], self.shape))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_move.expand(name, result.dtype, operands[0].shape, self.shape), (0,))


@dataclass(frozen=True, kw_only=True)
class Take(Movement):
    """Elements `indices` along `axis`, which counts from the front."""

    kind: ClassVar[str] = "take"
    axis: int
    indices: tuple[int, ...]

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        shape = types[0].shape
        checks.within("axis", self.axis, 0, len(shape) - 1)
        checks.within("smallest index", min(self.indices), 0, shape[self.axis] - 1)
        checks.within("largest index", max(self.indices), 0, shape[self.axis] - 1)
        return TensorType((*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :]), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.take(arrays[0], self.indices, axis=self.axis)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        proc = define_move.take(name, result.dtype, operands[0].shape, self.axis, len(self.indices))
        return Lowered(proc, (0, np.array(self.indices, np.int32)))
