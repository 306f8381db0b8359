"""Profiles: every cycle goes to one layer and one cause, and the roofline is that of the machine."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vta_sim.traces import SOURCE, TINY, changes_of, drawn, words
from vta.errors import ApiError
from vta.profile import CAUSES, NO_LAYER, launches_of, profile, windows
from vta.timeline import entries, starts
from vta_hw.spec.program import Launch, Layer, Program
from vta_sim.timing import MemoryTiming
from vta_sim.trace import COUNTERS, Trace
from vta_sim.trace_build import trace_of_samples

CYCLES = 90


def program(layers: tuple[Layer, ...] = (), launches: int = 1) -> Program:
    """`SOURCE`, in as many launches one after the other."""
    code = words().tobytes()
    return Program(
        config=TINY,
        insns=code * launches,
        arena_bytes=0x1000,
        steps=tuple(Launch(insn_begin=9 * k, insn_count=9) for k in range(launches)),
        layers=layers,
    )


def layer(name: str, begin: int, end: int, macs: int = 0) -> Layer:
    return Layer(name=name, insn_begin=begin, insn_end=end, macs=macs)


def trace(seed: int, cycles: int = CYCLES) -> Trace:
    return trace_of_samples(TINY, words(), cycles, changes_of(drawn(seed, cycles)))


TWO = (layer("first", 0, 4, 100), layer("second", 5, 8, 50))


@given(st.integers(0, 1 << 32))
def test_every_cycle_is_of_one_row_and_of_one_cause(seed: int) -> None:
    source, traced = program(TWO), trace(seed)
    result = profile(source, [traced], MemoryTiming())
    assert [row.name for row in result.rows] == ["first", "second", NO_LAYER]
    counted = {name: np.zeros(CYCLES, bool) for name in COUNTERS}
    for counter, _, begin, end in traced.spans.tolist():
        counted[COUNTERS[counter]][begin:end] = True
    # Instructions of the four ranges complete at these times, in this order at the earliest.
    ends = traced.insns["end"]
    now, cycles = 0, {name: np.zeros(CYCLES, bool) for name in ("first", "second", NO_LAYER)}
    for name, first, last in (("first", 0, 4), (NO_LAYER, 4, 5), ("second", 5, 8), (NO_LAYER, 8, 9)):
        then = CYCLES if last == 9 else max(now, ends[first:last].max())
        cycles[name][now:then] = True
        now = then
    for row in result.rows:
        own = cycles[row.name]
        assert row.cycles == own.sum()
        assert row.counters == {name: (own & counted[name]).sum() for name in COUNTERS}
        left = own.copy()
        for cause, counter in CAUSES.items():
            assert row.cycles_by_cause[cause] == (left & counted[counter]).sum()
            left &= ~counted[counter]
        assert row.cycles_by_cause["other"] == left.sum()
    total = result.total
    assert total.cycles == CYCLES == sum(total.cycles_by_cause.values())
    assert total.counters == traced.counters
    assert total.work.instructions == 9


def test_layers_may_lie_in_several_launches() -> None:
    source = program((layer("a", 2, 12, 77), layer("b", 12, 18)), launches=2)
    traces = [trace(1), trace(2, 70)]
    result = profile(source, traces, MemoryTiming())
    assert sum(row.cycles for row in result.rows) == result.total.cycles == CYCLES + 70
    assert result.total.work.macs == 77
    assert [row.work.instructions for row in result.rows] == [10, 6, 2]
    assert [(part.name, part.insn_begin, part.insn_end) for part in windows(source, source.steps[1], traces[1])] == [
        ("a", 9, 12),
        ("b", 12, 18),
    ]
    assert starts(traces) == [0, CYCLES, CYCLES + 70]


def test_the_roofline() -> None:
    # Tiles of 1 x 4 and 4 x 4 bytes, accumulators of 16 bytes, a bus of 8 bytes: loads 4 + 4 + 16 + 16, stores 4.
    source = program((layer("all", 0, 9, 160),))
    traced = trace(1)
    (row,) = profile(source, [traced], MemoryTiming()).rows
    assert (row.work.load_bytes, row.work.store_bytes, row.work.insn_bytes) == (40, 4, 144)
    assert (row.compute_bound, row.bus_bound, row.bound) == (10, 23, "bus")
    assert row.intensity == 160 / 188
    assert row.utilisation == 160 / (16 * CYCLES)
    assert row.achieved == 23 / CYCLES
    (slow,) = profile(source, [traced], MemoryTiming(read_bytes=4, write_bytes=1)).rows
    assert slow.bus_bound == 46
    (shared,) = profile(source, [traced], MemoryTiming(read_bytes=4, write_bytes=1, shared_bus=True)).rows
    assert shared.bus_bound == 46 + 4
    (busy,) = profile(replace(source, layers=(layer("all", 0, 9, 16 * 23),)), [traced], MemoryTiming()).rows
    assert (busy.compute_bound, busy.bound) == (23, "compute")


def test_without_layers_the_macs_are_those_of_the_array() -> None:
    (row,) = profile(program(), [trace(1)], MemoryTiming()).rows
    assert (row.name, row.work.macs, row.work.gemm_uops, row.work.alu_uops) == (NO_LAYER, 32, 2, 2)


def test_figures_for_json() -> None:
    figures = profile(program(TWO), [trace(1)], MemoryTiming()).rows[0].as_dict()
    assert list(figures["cycles_by_cause"]) == [*CAUSES, "other"]
    assert list(figures["counters"]) == list(COUNTERS)
    assert figures["dram_bytes"] == figures["load_bytes"] + figures["store_bytes"] + figures["insn_bytes"]


def test_traces_of_another_program_are_refused() -> None:
    with pytest.raises(ApiError, match=r"^Traces must be of the program's 1 launches, not 2 of them$"):
        launches_of(program(), [trace(1), trace(1)])
    other = replace(trace(1), words=words(SOURCE.replace("x_size=1 push", "x_size=2 push")))
    with pytest.raises(ApiError, match=r"^Trace must be of the program's instructions, not of others$"):
        profile(program(), [other], MemoryTiming())


@given(st.integers(0, 1 << 32))
def test_a_line_for_each_instruction(seed: int) -> None:
    traces = [trace(seed), trace(seed + 1)]
    source = program(TWO, launches=2)
    lines = list(entries(source, traces))
    assert [line.index for line in lines] == list(range(18))
    assert [line.layer for line in lines[:9]] == ["first"] * 4 + [NO_LAYER] + ["second"] * 3 + [NO_LAYER]
    assert [line.text.split()[0] for line in lines[:3]] == ["load.uop", "load.inp", "load.wgt"]
    assert [line.bytes for line in lines[:3]] == [4, 4, 16]
    for start, traced, part in ((0, traces[0], lines[:9]), (CYCLES, traces[1], lines[9:])):
        for line, (_, begin, end) in zip(part, traced.insns.tolist(), strict=True):
            assert (line.begin, line.end) == (begin + start if begin >= 0 else -1, end + start if end >= 0 else -1)
        known = {name: sum(line.counters.get(name, 0) for line in part) for name in COUNTERS}
        spans = traced.spans[traced.spans["insn"] >= 0]
        assert sum(known.values()) == (spans["end"] - spans["begin"]).sum()
        for unit in {line.unit for line in part}:
            shown = [(line.oldest, line.end) for line in part if line.unit is unit and line.end >= 0]
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(shown))
