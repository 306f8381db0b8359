"""The file for Perfetto, as Perfetto's own trace processor reads it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.trace_processor import TraceProcessor
from tests.vta.test_profile import CYCLES, TWO, program, trace
from vta.perfetto import UNITS, perfetto
from vta.profile import windows
from vta.timeline import entries
from vta_sim.trace import COUNTERS

TRACES = [trace(5), trace(6)]
PROGRAM = program(TWO, launches=2)

SLICES = """
select thread.name as track, slice.name as name, slice.ts as begin, slice.ts + slice.dur as end, depth,
    slice.arg_set_id as args
from slice join thread_track on slice.track_id = thread_track.id join thread using (utid)
order by slice.ts, slice.dur
"""


@pytest.fixture(scope="module")
def processor() -> TraceProcessor:
    return TraceProcessor("".join(perfetto(PROGRAM, TRACES)).encode())


@pytest.fixture(scope="module")
def slices(processor: TraceProcessor) -> list[Mapping[str, Any]]:
    return processor.query(SLICES)


def shown(slices: list[Mapping[str, Any]], track: str) -> list[tuple[str, int, int]]:
    return [(row["name"], row["begin"], row["end"]) for row in slices if row["track"] == track]


def test_nothing_of_the_file_is_lost(processor: TraceProcessor, slices: list[Mapping[str, Any]]) -> None:
    assert processor.query("select name, value from stats where severity != 'info' and value > 0") == []
    events = json.loads("".join(perfetto(PROGRAM, TRACES)))["traceEvents"]
    assert len(slices) == sum(event["ph"] == "X" for event in events) > 50
    assert {row["depth"] for row in slices} == {0}


def test_the_machine_and_its_five_units(processor: TraceProcessor) -> None:
    assert processor.query("select name from process where name is not null") == [
        {"name": f"VTA {PROGRAM.config.name}"}
    ]
    # Thread 0 is the processor's own.
    rows = processor.query("select name from thread where tid > 0 order by tid")
    names = [row["name"] for row in rows if row["name"] is not None]
    assert [name for name in names if name in UNITS] == ["fetch", "load", "compute", "store", "memory"]
    assert {*names} <= {"layers", *UNITS, *COUNTERS}


def test_instructions_are_slices_of_their_unit(processor: TraceProcessor, slices: list[Mapping[str, Any]]) -> None:
    lines = [line for line in entries(PROGRAM, TRACES) if line.end > line.oldest >= 0]
    for unit in ("load", "compute", "store"):
        wanted = [(line.text.split()[0], line.oldest, line.end) for line in lines if line.unit.name.lower() == unit]
        assert shown(slices, unit) == wanted
        assert wanted
    row = next(row for row in slices if row["track"] == "compute")
    line = next(line for line in lines if line.unit.name == "COMPUTE")
    found = {
        each["key"].removeprefix("args."): each["display_value"]
        for each in processor.query(f"select key, display_value from args where arg_set_id = {row['args']}")
    }
    for name in ("index", "text", "layer", "begin", "end", "bytes", "uops"):
        assert found[name] == str(getattr(line, name))
    assert {name: int(found[name]) for name in line.counters} == line.counters


def test_counters_have_tracks_of_their_own(slices: list[Mapping[str, Any]]) -> None:
    for name in COUNTERS:
        wanted = [
            (name, start + begin, start + end)
            for start, traced in ((0, TRACES[0]), (CYCLES, TRACES[1]))
            for _, _, begin, end in traced.spans_of(name).tolist()
        ]
        assert shown(slices, name) == ([] if name in ("load_busy", "store_busy") else wanted)


def test_layers_and_launches(slices: list[Mapping[str, Any]]) -> None:
    parts = [
        (part.name, start + part.begin, start + part.end)
        for step, traced, start in zip(PROGRAM.steps, TRACES, (0, CYCLES), strict=True)
        for part in windows(PROGRAM, step, traced)
        if part.begin < part.end
    ]
    assert shown(slices, "layers") == parts
    for unit in ("fetch", "memory"):
        assert shown(slices, unit) == [("launch", 0, CYCLES), ("launch", CYCLES, 2 * CYCLES)]


def test_words_that_units_move(processor: TraceProcessor) -> None:
    rows = processor.query(
        "select track.name as name, ts, value from counter join track on counter.track_id = track.id order by ts"
    )
    bus = PROGRAM.config.bus_bits // 8
    lines = list(entries(PROGRAM, TRACES))
    for unit, counter in (("load", "load_busy"), ("compute", "compute_load_busy"), ("store", "store_busy")):
        own = [(row["ts"], row["value"]) for row in rows if row["name"] == f"{unit} words per cycle"]
        moved = sum(value * (after - ts) for (ts, value), (after, _) in itertools.pairwise(own))
        wanted = sum(line.bytes for line in lines if line.counters.get(counter)) / bus
        assert moved == pytest.approx(wanted, abs=0.01)
