"""Sweeps and transfers against the boxes they cover, expanded element by element."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from compiler.vta.regions import (
    MOST_PAD,
    MOST_SIZE,
    Axis,
    CopyAxis,
    Sweep,
    Transfer,
    cut,
    merge_axes,
    sweeps,
    transfers,
)

MOST_TRIPS = (1 << 14) - 1

Point = tuple[int, ...]


def box_points(base: Sequence[int], axes: Sequence[Axis]) -> Counter[Point]:
    """Operand indices of every iteration."""
    points: Counter[Point] = Counter()
    for steps in itertools.product(*(range(axis.extent) for axis in axes)):
        moved = (sum(axis.strides[k] * step for axis, step in zip(axes, steps, strict=True)) for k in range(len(base)))
        points[tuple(first + offset for first, offset in zip(base, moved, strict=True))] += 1
    return points


def swept_points(sweep: Sweep) -> Counter[Point]:
    """What the machine does: the two loops of an instruction around its micro-ops (VTA spec 3.4)."""
    points: Counter[Point] = Counter()
    for out, in_ in itertools.product(range(sweep.outer.extent), range(sweep.inner.extent)):
        for first in sweep.operands.tolist():
            strides = zip(first, sweep.outer.strides, sweep.inner.strides, strict=True)
            points[tuple(base + out * outer + in_ * inner for base, outer, inner in strides)] += 1
    return points


@pytest.mark.parametrize("seed", range(120))
def test_sweeps_cover_every_iteration_once(seed: int) -> None:
    r = random.Random(seed)
    operands = r.randint(1, 3)
    limits = [r.choice([2, 8, 64]) for _ in range(operands)]
    axes = [
        Axis(r.choice([1, 1, 2, 3, 5]), tuple(r.choice([0, 1, 2, 6, 30]) for _ in range(operands)))
        for _ in range(r.randint(0, 5))
    ]
    base = [r.randint(0, 9) for _ in range(operands)]
    most_trips, most_uops = r.choice([2, 4, MOST_TRIPS]), r.choice([1, 2, 5, 100])
    parts = sweeps(base, axes, limits, most_trips, most_uops)
    assert sum((swept_points(part) for part in parts), Counter[Point]()) == box_points(base, axes)
    for part in parts:
        assert 1 <= len(part.operands) <= most_uops
        for loop in (part.outer, part.inner):
            assert 1 <= loop.extent <= most_trips
            assert all(stride < limit for stride, limit in zip(loop.strides, limits, strict=True))


def test_the_longest_loops_become_instruction_loops() -> None:
    (sweep,) = sweeps([0, 0], [Axis(2, (0, 7)), Axis(9, (50, 1)), Axis(5, (1, 100))], [1000, 1000], MOST_TRIPS, 64)
    assert (sweep.outer, sweep.inner) == (Axis(9, (50, 1)), Axis(5, (1, 100)))
    assert sweep.operands.tolist() == [[0, 0], [0, 7]]


def test_loops_that_continue_each_other_are_one() -> None:
    axes = [Axis(4, (24, 6)), Axis(1, (99, 99)), Axis(3, (8, 2)), Axis(2, (4, 1))]
    assert merge_axes(axes) == [Axis(24, (4, 1))]
    assert merge_axes([Axis(4, (24, 7)), Axis(3, (8, 2))]) == [Axis(4, (24, 7)), Axis(3, (8, 2))]


def test_a_loop_too_long_for_an_instruction_becomes_micro_ops() -> None:
    parts = sweeps([0], [Axis(10, (1,))], [100], 9, 4)
    assert [part.operands.ravel().tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(part.outer.extent == part.inner.extent == 1 for part in parts)


def copied(sram: int, dram: int, axes: Sequence[CopyAxis]) -> dict[int, int | None]:
    """DRAM element, or None for padding, by scratchpad element."""
    result: dict[int, int | None] = {}
    for steps in itertools.product(*(range(axis.total) for axis in axes)):
        to = sram + sum(axis.sram * step for axis, step in zip(axes, steps, strict=True))
        assert to not in result
        inside = all(axis.before <= step < axis.before + axis.size for axis, step in zip(axes, steps, strict=True))
        source = dram + sum(axis.dram * step for axis, step in zip(axes, steps, strict=True))
        result[to] = source if inside else None
    return result


def transferred(parts: Sequence[Transfer]) -> dict[int, int | None]:
    """The same for what the machine does (VTA spec 3.2), each field in its range; no element may be written twice."""
    result: dict[int, int | None] = {}
    for part in parts:
        for size in (part.y_size, part.x_size, part.x_stride):
            assert 0 <= size < 1 << 16
        for pad in (*part.y_pad, *part.x_pad):
            assert 0 <= pad < 1 << 4
        assert part.x_size > 0, "without a row of data the machine does nothing at all"
        assert part.dram >= 0
        rows, columns = part.y_pad[0] + part.y_size + part.y_pad[1], part.x_pad[0] + part.x_size + part.x_pad[1]
        for row, column in itertools.product(range(rows), range(columns)):
            y, x = row - part.y_pad[0], column - part.x_pad[0]
            inside = 0 <= y < part.y_size and 0 <= x < part.x_size
            to = part.sram + row * columns + column
            assert to not in result
            result[to] = part.dram + y * part.x_stride + x if inside else None
    return result


def random_copy(r: random.Random) -> tuple[int, list[CopyAxis]]:
    """First DRAM element that keeps data at 0 or more, and axes, compact or with gaps, on either side."""
    axes: list[CopyAxis] = []
    sram, dram = r.choice([1, 1, 1, 2]), r.choice([1, 1, 1, 3])
    for _ in range(r.randint(0, 4)):
        padded = r.random() < 0.4
        size = r.choice([0, 1, 1, 2, 3, 4]) if padded else r.choice([1, 1, 2, 3, 4])
        before, after = (r.choice([0, 1, 2, 17]), r.choice([0, 1, 3, 16])) if padded else (0, 0)
        if size + before + after > 12:
            before = min(before, 17 if not axes else 2)
            after = min(after, 2)
        axes.append(CopyAxis(size, sram, dram, before, after))
        sram *= axes[-1].total * r.choice([1, 1, 1, 1, 2])
        dram *= max(axes[-1].size, 1) * r.choice([1, 1, 2])
        sram, dram = max(sram, 1), max(dram, 1)
    axes.reverse()
    return r.randint(0, 5) - sum(axis.before * axis.dram for axis in axes), axes


@pytest.mark.parametrize("seed", range(300))
def test_transfers_copy_every_element_once(seed: int) -> None:
    r = random.Random(seed)
    dram, axes = random_copy(r)
    sram = r.randint(0, 5)
    expected = copied(sram, dram, axes)
    assert transferred(list(transfers(sram, dram, axes))) == expected


def test_an_axis_without_iterations_copies_nothing() -> None:
    assert list(transfers(0, 0, [CopyAxis(3, 2, 2), CopyAxis(0, 1, 1)])) == []


def test_a_copy_of_nothing_but_padding_reads_nothing() -> None:
    parts = list(transfers(10, -50, [CopyAxis(0, 6, 6, before=2), CopyAxis(6, 1, 1)]))
    assert transferred(parts) == dict.fromkeys(range(10, 22))
    assert all(part.y_size == 0 for part in parts)


def test_a_contiguous_copy_is_one_row() -> None:
    axes = [CopyAxis(3, 20, 20), CopyAxis(4, 5, 5), CopyAxis(5, 1, 1)]
    assert list(transfers(0, 7, axes)) == [Transfer(sram=0, dram=7, y_size=1, x_size=60, x_stride=60)]


def test_a_window_of_an_image_is_one_transfer() -> None:
    (part,) = transfers(0, 0, [CopyAxis(3, 6, 10, 1, 0), CopyAxis(4, 1, 1, 0, 2)])
    assert part == Transfer(sram=0, dram=10, y_size=3, x_size=4, x_stride=10, y_pad=(1, 0), x_pad=(0, 2))


def test_rows_above_an_image_do_not_split_it() -> None:
    """The rows are contiguous on both sides, and their padding, counted in elements, would not fit its field."""
    (part,) = transfers(0, -56, [CopyAxis(10, 56, 56, 1, 1), CopyAxis(56, 1, 1)])
    assert part == Transfer(sram=0, dram=0, y_size=10, x_size=56, x_stride=56, y_pad=(1, 1))


def test_more_elements_than_a_size_field_counts() -> None:
    (part,) = transfers(0, 0, [CopyAxis(300, 300, 300), CopyAxis(300, 1, 1)])
    assert part == Transfer(sram=0, dram=0, y_size=300, x_size=300, x_stride=300)


@pytest.mark.parametrize("axis", [CopyAxis(MOST_SIZE + 1, 1, 1), CopyAxis(0, 1, 1, before=MOST_SIZE + 1)])
def test_an_axis_longer_than_a_size_field_counts(axis: CopyAxis) -> None:
    expected = copied(0, 0, [axis])
    assert transferred(list(transfers(0, 0, [axis]))) == expected


def test_a_row_stride_wider_than_its_field_separates_the_rows() -> None:
    parts = list(transfers(0, 0, [CopyAxis(3, 4, MOST_SIZE + 1), CopyAxis(4, 1, 1)]))
    assert [(part.y_size, part.x_size, part.dram) for part in parts] == [(1, 4, k * (MOST_SIZE + 1)) for k in range(3)]


def test_padding_wider_than_its_field_is_filled_apart() -> None:
    axes = [CopyAxis(2, 24, 4), CopyAxis(4, 1, 1, before=MOST_PAD + 1, after=4)]
    assert transferred(list(transfers(0, 100, axes))) == copied(0, 100, axes)


def test_zeros_take_few_instructions() -> None:
    parts = list(transfers(0, 0, [CopyAxis(0, 100, 100, before=7), CopyAxis(100, 1, 1)]))
    assert transferred(parts) == dict.fromkeys(range(700))
    assert len(parts) <= 2


def test_gaps_in_the_scratchpad_separate_elements() -> None:
    axes = [CopyAxis(3, 2, 1)]
    assert transferred(list(transfers(0, 5, axes))) == {0: 5, 2: 6, 4: 7}


@pytest.mark.parametrize("seed", range(60))
def test_cut_copies_cover_the_same_elements(seed: int) -> None:
    r = random.Random(seed)
    axes, sram = [], 1
    for k in range(r.randint(0, 4)):
        pad = r.choice([0, 0, 2]) if k < 2 else 0
        axes.append(CopyAxis(r.randint(1, 5), sram, r.choice([sram, 100]), before=pad, after=pad // 2))
        sram *= axes[-1].total
    axes.reverse()
    most = r.choice([1, 3, 8, 1000])
    parts = list(cut(7, 500, axes, most))
    whole: dict[int, int | None] = {}
    for part in parts:
        elements = copied(*part)
        assert not whole.keys() & elements.keys()
        whole |= elements
    assert whole == copied(7, 500, axes)
    if not any(axis.padded for axis in axes):
        assert all(math.prod(axis.total for axis in part[2]) <= most for part in parts)


def test_a_copy_is_cut_across_its_outermost_loops() -> None:
    axes = [CopyAxis(5, 10, 100), CopyAxis(10, 1, 1)]
    assert list(cut(0, 0, axes, 20)) == [
        (0, 0, [CopyAxis(2, 10, 100), CopyAxis(10, 1, 1)]),
        (20, 200, [CopyAxis(2, 10, 100), CopyAxis(10, 1, 1)]),
        (40, 400, [CopyAxis(10, 1, 1)]),
    ]


def test_first_visits_come_to_each_element_once() -> None:
    axes = [Axis(2, (9, 1)), Axis(3, (0, 5)), Axis(9, (1, 2))]
    (sweep,) = sweeps([4, 0], axes, [64, 64], MOST_TRIPS, 100, visit_once=True)
    first, rest = sweep.first_visits(0)
    assert first is not None
    assert rest is not None
    assert sorted(first.elements(0)) == list(range(4, 22))
    assert swept_points(first) + swept_points(rest) == box_points([4, 0], axes)


def test_a_loop_that_stays_with_an_element_has_no_first_visits() -> None:
    (sweep,) = sweeps([0, 0], [Axis(3, (0, 1))], [64, 64], MOST_TRIPS, 100)
    assert sweep.first_visits(0) == (None, sweep)
    (sweep,) = sweeps([0, 0], [Axis(3, (0, 1))], [64, 64], MOST_TRIPS, 100, visit_once=True)
    first, rest = sweep.first_visits(0)
    assert first is not None
    assert rest is not None
    assert (len(first.operands), len(rest.operands)) == (1, 2)
