"""How ops that move rows and columns of images become boxes of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compiler.graph.lowering import Array, Blocks, GroupedWeights, Lowered, Placed, weight_type
from compiler.tensor import define_tiles
from compiler.tensor.define_tiles import Filled, Line, Moved
from compiler.tensor.ir import Buffer
from compiler.tensor.tiles import Tiled

Channels = tuple[Array, Array]
"""Channels of a result, and those of an operand that they are."""


def is_tiled(operand: Placed) -> bool:
    """Whether the operand lies in tiles, and not row-major."""
    return operand.tile not in (None, (1, 1))


def moved(
    name: str,
    operands: Sequence[Placed],
    boxes: Sequence[Moved],
    result: Placed,
    blocks: Blocks,
    channels: Sequence[Channels] = (),
    filled: Sequence[Filled] = (),
) -> Lowered:
    """Boxes of pixels of the operands, at other places, and boxes of a number.

    channels: of each box of pixels; without them every channel stays what it is.
    """
    y = result.tiled(blocks.block_out, blocks.batch)
    xs = [operand.tiled(blocks.block_in, blocks.batch) for operand in operands]
    every = np.arange(result.shape[1])
    weights = np.stack([_choosing(each, operands[0], result, xs[0], y) for each in channels or [(every, every)]])
    lines, summed = _blocks_read(np.asarray(weights.any(axis=(2, 4, 5, 6))))
    begins = np.array([[line.first + line.step * block for block in range(y.blocks)] for line in lines])
    read = begins[:, :, None] + np.arange(summed)
    weights = np.take_along_axis(weights, read[:, :, None, :, None, None, None], axis=3)
    for axis in (0, 1):  # what all have alike is there once
        first = weights.take([0], axis)
        weights = first if (weights == first).all() else weights
    lines = lines if channels else lines * len(boxes)
    boxes = [replace(box, blocks=line, summed=summed) for box, line in zip(boxes, lines, strict=True)]
    array = np.ascontiguousarray(weights, weight_type(blocks).numpy)
    w = Buffer.of("W", weight_type(blocks), array.shape)
    return Lowered(define_tiles.move(name, xs, boxes, y, w, filled), (*range(len(operands)), array))


def _choosing(channels: Channels, operand: Placed, result: Placed, x: Tiled, y: Tiled) -> NDArray[np.bool_]:
    """[blocks_y, subs_y, blocks_x, subs_x, c_y, c_x], true where a channel of the result is one of the operand."""
    to, chosen = channels
    count, width = y.blocks * y.subs * y.c, x.blocks * x.subs * x.c
    w = np.zeros((count, width, 1, 1), np.bool_)
    w[to, chosen] = True
    if (to[-1] + 1, chosen[-1] + 1) == (result.shape[1], operand.shape[1]):
        # The zeros that fill up a block may come along: whole blocks are then alike.
        more = np.arange(min(count - result.shape[1], width - operand.shape[1]))
        w[result.shape[1] + more, operand.shape[1] + more] = True
    return GroupedWeights(w, 1, x, y).packed()[:, :, :, :, 0, 0]


def _blocks_read(used: NDArray[np.bool_]) -> tuple[list[Line], int]:
    """For each box of `used` [boxes, blocks_y, blocks_x]: where the blocks that a block of the result reads begin.

    And how many these are, the same number for all.
    """
    outs, ins = used.shape[1:]
    found = [_window(box) for box in used]
    summed = max(count for _, count in found)
    firsts = [min(line.first, ins - summed - line.step * (outs - 1)) for line, _ in found]
    if min(firsts) < 0:
        return [Line(step=0)] * len(found), ins
    return [Line(first=first, step=line.step) for first, (line, _) in zip(firsts, found, strict=True)], summed


def _window(used: NDArray[np.bool_]) -> tuple[Line, int]:
    """The same for one box: as few blocks as possible."""
    outs, ins = used.shape
    at, read = np.nonzero(used)
    step = int(used[at[-1]].argmax() - read[0]) // max(int(at[-1] - at[0]), 1)
    places = read - step * at
    first, count = int(places.min()), int(np.ptp(places)) + 1
    if step < 0 or first < 0 or first + step * (outs - 1) + count > ins:
        return Line(first=int(read.min()), step=0), int(np.ptp(read)) + 1
    return Line(first=first, step=step), count
