"""Regions of tiles: the affine loop nests that one or a few hardware instructions cover, as plain integers.

By the time instructions are emitted all loops around a nest have values, so that what was symbolic is now a box of tile
indices with strides. This module cuts such boxes into the shapes the instructions have: two loops around a list of
micro-ops, or a two-dimensional copy with padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Axis(NamedTuple):
    """One loop: trip count, and how far each operand moves per iteration."""

    extent: int
    strides: tuple[int, ...]


def merge_axes(axes: Sequence[Axis]) -> list[Axis]:
    """Drop loops of one trip, and join neighbours (outermost first) that all operands traverse as one."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.extent == 1:
            continue
        if merged and merged[-1].strides == tuple(axis.extent * stride for stride in axis.strides):
            outer = merged.pop()
            merged.append(Axis(outer.extent * axis.extent, axis.strides))
        else:
            merged.append(axis)
    return merged


@dataclass(frozen=True)
class Sweep:
    """What one GEMM or ALU instruction covers: micro-op operands (columns), inside at most two loops."""

    outer: Axis
    inner: Axis
    operands: Ints

    @cached_property
    def reach(self) -> list[tuple[int, int]]:
        """For each operand the elements between the first and the last that it touches: begin, end."""
        far = [
            sum((axis.extent - 1) * axis.strides[k] for axis in (self.outer, self.inner))
            for k in range(self.operands.shape[1])
        ]
        first, last = self.operands.min(axis=0).tolist(), self.operands.max(axis=0).tolist()
        return [(begin, end + more + 1) for begin, end, more in zip(first, last, far, strict=True)]

    def elements(self, operand: int) -> Ints:
        """The element of an operand in every step."""
        steps = [np.arange(axis.extent) * axis.strides[operand] for axis in (self.outer, self.inner)]
        return np.asarray((self.operands[:, operand] + steps[0][:, None, None] + steps[1][:, None]).reshape(-1))

    def first_visits(self, operand: int) -> tuple[Sweep | None, Sweep | None]:
        """The micro-ops with which the sweep first comes to each element of an operand, and the others.

        None instead of the first where no choice of micro-ops comes to each just once.
        """
        _, first = np.unique(self.operands[:, operand], return_index=True)
        rest = np.setdiff1d(np.arange(len(self.operands)), first)
        once = replace(self, operands=self.operands[np.sort(first)])
        elements = once.elements(operand)
        if len(np.unique(elements)) < len(elements):
            return None, self
        return once, replace(self, operands=self.operands[rest]) if len(rest) else None


def sweeps(
    base: Sequence[int],
    axes: Sequence[Axis],
    limits: Sequence[int],
    most_trips: int,
    most_uops: int,
    *,
    visit_once: bool = False,
) -> list[Sweep]:
    """Cover the box with as few micro-ops as two instruction loops allow.

    base: first tile of each operand. limits: exclusive bound of each operand's loop factor. visit_once: a micro-op
    should come to each tile of the first operand only once, if that does not take many more of them.
    """
    outer, inner, steps = _loops(tuple(axes), tuple(limits), most_trips, most_uops, visit_once)
    operands = steps + np.array(base, np.int64)
    return [Sweep(outer, inner, operands[at : at + most_uops]) for at in range(0, len(operands), most_uops)]


@lru_cache(maxsize=1024)  # most tiles of a layer are alike but for their place
def _loops(
    axes: tuple[Axis, ...], limits: tuple[int, ...], most_trips: int, most_uops: int, visit_once: bool
) -> tuple[Axis, Axis, Ints]:
    """The two loops of instructions over a box, and the operands of their micro-ops relative to its first tiles."""
    once = Axis(1, (0,) * len(limits))
    merged = merge_axes(axes)
    usable = [
        k
        for k, axis in enumerate(merged)
        if axis.extent <= most_trips
        and all(0 <= stride < limit for stride, limit in zip(axis.strides, limits, strict=True))
    ]
    if visit_once:
        moving = [k for k in usable if merged[k].strides[0]]
        uops = math.prod(axis.extent for axis in merged) // math.prod(sorted(merged[k].extent for k in moving)[-2:])
        usable = moving if uops <= min(_MANY_UOPS, most_uops) else usable
    chosen = sorted(sorted(usable, key=lambda k: merged[k].extent)[-2:])
    loops = [merged[k] for k in chosen]
    outer, inner = ([once] * (2 - len(loops)) + loops)[:2]
    operands = np.zeros((1, len(limits)), np.int64)
    for k, axis in enumerate(merged):
        if k not in chosen:
            steps = np.arange(axis.extent, dtype=np.int64)[:, None] * np.array(axis.strides, np.int64)
            operands = (operands[:, None, :] + steps[None, :, :]).reshape(-1, len(limits))
    return outer, inner, operands


_MANY_UOPS = 256
"""A longer list of micro-ops is not worth the resets that it saves: 256 take 128 cycles on a bus of 64 bits."""


@dataclass(frozen=True, slots=True)
class CopyAxis:
    """One loop of a copy: `before` and `after` padded iterations around `size` that move data."""

    size: int
    sram: int
    dram: int
    before: int = 0
    after: int = 0

    @property
    def total(self) -> int:
        return self.before + self.size + self.after

    @property
    def padded(self) -> bool:
        return bool(self.before or self.after)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One LOAD or STORE. `sram` and `dram` are first elements; `dram` is that of the first data element."""

    sram: int
    dram: int
    y_size: int
    x_size: int
    x_stride: int
    y_pad: tuple[int, int] = (0, 0)
    x_pad: tuple[int, int] = (0, 0)


MOST_SIZE = (1 << 16) - 1
MOST_PAD = 15


def transfers(sram: int, dram: int, axes: Sequence[CopyAxis]) -> Iterator[Transfer]:
    """Cover a copy with two-dimensional transfers, whose scratchpad side must be compact.

    `dram` is the element of iteration zero of every axis, padding included, and may lie outside the tensor.
    """
    if any(axis.total <= 0 for axis in axes):
        return
    joined = _join([axis for axis in axes if axis.total > 1 or axis.padded])
    x = joined.pop() if joined and (joined[-1].sram, joined[-1].dram) == (1, 1) else CopyAxis(1, 1, 1)
    if not _fits(x):
        yield from _rows(sram, dram, joined, x)
        return
    y = (
        joined.pop()
        if joined and joined[-1].sram == x.total and _fits(joined[-1]) and 0 <= joined[-1].dram <= MOST_SIZE
        else None
    )
    y = y or CopyAxis(1, x.total, 0)
    for to, start, inside in _steps(sram, dram, joined):
        yield from _plane(to, start, y, x) if inside else _zeros(to, y.total * x.total)


def cut(sram: int, dram: int, axes: Sequence[CopyAxis], most: int) -> Iterator[tuple[int, int, list[CopyAxis]]]:
    """Cut a copy into copies of at most `most` elements, across its outermost loops as far as they have no padding."""
    axes = [axis for axis in axes if axis.total != 1 or axis.padded]
    inner = math.prod(axis.total for axis in axes[1:])
    if not axes or axes[0].padded or axes[0].total * inner <= most:
        yield sram, dram, list(axes)
        return
    outer, *rest = axes
    at_once = max(1, most // inner) if inner else outer.size
    for done in range(0, outer.size, at_once):
        part = CopyAxis(min(at_once, outer.size - done), outer.sram, outer.dram)
        to, source = sram + done * outer.sram, dram + done * outer.dram
        if part.size > 1:
            yield to, source, [part, *rest]
        else:
            yield from cut(to, source, rest, most)


def _steps(sram: int, dram: int, axes: Sequence[CopyAxis]) -> Iterator[tuple[int, int, bool]]:
    """First elements of every iteration of `axes`, and whether it moves data or is padding."""
    for steps in itertools.product(*(range(axis.total) for axis in axes)):
        pairs = list(zip(axes, steps, strict=True))
        inside = all(axis.before <= step < axis.before + axis.size for axis, step in pairs)
        yield (
            sram + sum(axis.sram * step for axis, step in pairs),
            dram + sum(axis.dram * step for axis, step in pairs),
            inside,
        )


def _rows(sram: int, dram: int, outer: Sequence[CopyAxis], x: CopyAxis) -> Iterator[Transfer]:
    """Rows longer, or with more padding, than an instruction has room for: zeros, pieces of data, zeros."""
    for to, start, inside in _steps(sram, dram, outer):
        if not inside:
            yield from _zeros(to, x.total)
            continue
        yield from _zeros(to, x.before)
        for done in range(0, x.size, MOST_SIZE):
            size = min(MOST_SIZE, x.size - done)
            yield Transfer(to + x.before + done, start + x.before + done, 1, size, size)
        yield from _zeros(to + x.before + x.size, x.after)


def _fits(axis: CopyAxis) -> bool:
    return axis.size <= MOST_SIZE and axis.before <= MOST_PAD and axis.after <= MOST_PAD and axis.total <= MOST_SIZE


def _join(axes: list[CopyAxis]) -> list[CopyAxis]:
    """Join neighbours that are contiguous on both sides, as far as one axis of an instruction reaches.

    Padding survives on the outer one, counted in elements.
    """
    joined: list[CopyAxis] = []  # innermost first
    for axis in reversed(axes):
        inner = joined[-1] if joined else None
        whole = _whole(axis, inner) if inner is not None else None
        if whole is None:
            joined.append(axis)
        else:
            joined[-1] = whole
    return joined[::-1]


def _whole(axis: CopyAxis, inner: CopyAxis) -> CopyAxis | None:
    """The axis that covers both, if there is one."""
    n = inner.size
    if inner.padded or (axis.sram, axis.dram) != (inner.sram * n, inner.dram * n):
        return None
    whole = CopyAxis(axis.size * n, inner.sram, inner.dram, axis.before * n, axis.after * n)
    return whole if _fits(whole) else None


def _plane(sram: int, dram: int, y: CopyAxis, x: CopyAxis) -> Iterator[Transfer]:
    if x.size <= 0 or y.size <= 0:
        yield from _zeros(sram, y.total * x.total)
        return
    first = dram + y.before * y.dram + x.before * x.dram
    yield Transfer(
        sram, first, y.size, x.size, y.dram if y.size > 1 else x.size, (y.before, y.after), (x.before, x.after)
    )


def _zeros(sram: int, count: int) -> Iterator[Transfer]:
    """Fill with zeros: rows of padding around no data at all (VTA spec 3.2, y_size 0)."""
    while count:
        rows = min(count, MOST_PAD) if count < MOST_SIZE else 1
        width = min(count // rows, MOST_SIZE)
        yield Transfer(sram, 0, 0, width, width, (rows, 0))
        sram += rows * width
        count -= rows * width
