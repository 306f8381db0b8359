"""Traces: what is one, how they are built, what they say of Amaranth's simulator, and their files."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vta_sim.rtl.machines import MACHINES, Case, execute
from tests.vta_sim.rtl.random_cases import random_case
from tests.vta_sim.spec_model import compare
from tests.vta_sim.traces import SOURCE, TINY, bits, changes_of, drawn, owners, words
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.container import read_container, write_container
from vta_hw.spec.isa import ISA, module_codes
from vta_hw.spec.registers import REGISTERS, PointerWidth
from vta_sim.cycle.engine import CycleSimulator
from vta_sim.memory import Memory
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming
from vta_sim.trace import COUNTERS, INSN, SPAN, Trace, TraceError
from vta_sim.trace_build import SAMPLED, trace_of_samples, trace_of_spans
from vta_sim.trace_file import ARRAYS, MEMBERS


def small() -> Trace:
    """A trace with a span of most counters."""
    return trace_of_samples(TINY, words(), 200, changes_of(drawn(3, 200)))


def test_counters_are_those_of_the_register_map() -> None:
    names = [register.name for register in REGISTERS[PointerWidth.BITS_64].extension if register.name in COUNTERS]
    assert tuple(names) == COUNTERS
    assert (len(COUNTERS), COUNTERS[0], COUNTERS[-1]) == (14, "load_busy", "write_wait")
    assert len(SAMPLED) < 63


@given(st.integers(0, 1 << 32), st.integers(1, 120))
def test_spans_of_samples_are_those_found_cycle_by_cycle(seed: int, cycles: int) -> None:
    samples = drawn(seed, cycles)
    trace = trace_of_samples(TINY, words(), cycles, changes_of(samples))
    found = {
        (cycle, COUNTERS[counter], insn)
        for counter, insn, begin, end in trace.spans.tolist()
        for cycle in range(begin, end)
    }
    assert found == set(owners(samples))
    trace.verify({"cycle_count": cycles, **{c: sum(s & bits(c) > 0 for s in samples) for c in COUNTERS}})


@given(st.integers(0, 1 << 32))
def test_changes_that_change_nothing_and_those_behind_the_end_change_nothing(seed: int) -> None:
    samples = drawn(seed, 60)
    every = np.array(list(enumerate(samples)), np.int64)
    assert trace_of_samples(TINY, words(), 40, every) == trace_of_samples(TINY, words(), 40, changes_of(samples[:40]))


def test_strobes_become_times() -> None:
    samples = [0, bits("begin_load"), bits("begin_load"), bits("end_load", "begin_compute"), 0, bits("end_compute")]
    trace = trace_of_samples(TINY, words(), 6, changes_of(samples))
    assert trace.insns.tolist() == [
        (1, 3, 6),
        (0, 1, 4),
        (0, 2, -1),
        *[(unit, -1, -1) for unit in (1, 1, 1, 2, 1, 1)],
    ]


def test_more_strobes_than_instructions_are_no_launch() -> None:
    with pytest.raises(TraceError, match=r"^begin must be of at most the 1 instructions of store, not of 2$"):
        trace_of_samples(TINY, words(), 9, changes_of([bits("begin_store"), bits("begin_store"), 0]))


def test_spans_may_come_in_any_order_and_pieces() -> None:
    trace = small()
    rows = np.array(trace.spans.tolist(), np.int64)
    middle = (rows[:, 2] + rows[:, 3]) // 2
    pieces = np.concatenate(
        (
            np.stack((rows[:, 0], rows[:, 1], middle, rows[:, 3]), axis=1),
            np.stack((rows[:, 0], rows[:, 1], rows[:, 2], middle), axis=1),
        )
    )
    np.random.default_rng(1).shuffle(pieces)
    times = np.stack((trace.insns["begin"], trace.insns["end"]), axis=1)
    assert trace_of_spans(TINY, trace.words, trace.cycles, times=times, spans=pieces) == trace


def test_a_counter_that_counted_something_else_is_found() -> None:
    trace = small()
    counters = {"cycle_count": 200, **trace.counters}
    trace.verify(counters)
    found = counters["alu_busy"]
    with pytest.raises(
        TraceError, match=rf"^trace of alu_busy must have {found + 1} cycles, as the counter, not {found}$"
    ):
        trace.verify({**counters, "alu_busy": found + 1})
    with pytest.raises(TraceError, match=r"^trace of cycle_count must have 201 cycles, as the counter, not 200$"):
        trace.verify({**counters, "cycle_count": 201})


def test_spans_of_a_counter() -> None:
    trace = small()
    parts = [trace.spans_of(name) for name in COUNTERS]
    assert np.array_equal(np.concatenate(parts), trace.spans)
    with pytest.raises(TraceError, match=r"^counter must be one of load_busy, .*, write_wait, not 'busy'$"):
        trace.spans_of("busy")


def changed(name: str, row: int, field: str, value: int) -> dict[str, Any]:
    array = getattr(small(), name).copy()
    array[field][row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cycles": -1}, "trace cycles must be 0 or more, not -1"),
        ({"words": np.zeros((9, 2), "<i8")}, "trace words must be of type uint64, not int64"),
        ({"words": np.zeros(18, "<u8")}, r"trace words must be of shape \[N\]\[2\], not \[18\]"),
        ({"insns": np.zeros(8, INSN)}, r"trace insns must be of shape \[9\], not \[8\]"),
        ({"spans": np.zeros((1, 1), SPAN)}, "trace spans must have one dimension, not 2"),
        (changed("insns", 1, "unit", 2), "unit of instruction 1 must be the one that executes it, not 2"),
        (changed("insns", 1, "end", 0), "end of instruction 1 must be after its begin, not 0"),
        (changed("insns", 1, "end", 201), "instruction 1 must be within 200 cycles, not 201"),
        (changed("spans", -1, "counter", 14), f"counter of span {len(small().spans) - 1} must be below 14, not 14"),
        (changed("spans", 0, "insn", 9), "instruction of span 0 must be -1 to 8, not 9"),
        (changed("spans", 0, "end", 201), "end of span 0 must be after its begin and within 200 cycles, not 201"),
        (
            {"spans": np.array([(1, 1, 4, 5), (1, 1, 5, 6)], SPAN)},
            "begin of the span behind span 0 must be in order, without overlap, and apart, not 5",
        ),
        (
            {"spans": np.array([(1, 1, 4, 6), (1, 2, 5, 7)], SPAN)},
            "begin of the span behind span 0 must be in order, without overlap, and apart, not 5",
        ),
    ],
)
def test_what_is_no_trace(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TraceError, match=f"^{sentence}$"):
        replace(small(), **values)


# Traces of the RTL.


@pytest.mark.parametrize("machine", ["tiny", "overlap", "scratchpads of two elements", "bus 512, batch 2"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_rtl_of_random_programs(machine: str, number: int) -> None:
    case = random_case(machine, number)
    for trace in traced(case):
        check_launch(trace)


def traced(case: Case) -> list[Trace]:
    """The traces of a case's launches, which the recorder has compared with the counters."""
    memory = compare.toolkit_memory(case.dram)
    simulator = AmaranthSimulator(
        case.config, memory=memory, timing=case.timing, queue_depth=case.queue_depth, trace=True
    )
    traces = [report.trace for report in execute(case, simulator, max_cycles=100_000)]
    assert None not in traces
    return [trace for trace in traces if trace is not None]


def check_launch(trace: Trace) -> None:
    """What is so in every launch that ends well."""
    begin, end = trace.insns["begin"], trace.insns["end"]
    assert (begin >= 0).all()
    assert (end > begin).all()
    units = module_codes(ISA(trace.config).decode_fields(trace.words))
    for unit in range(3):
        assert (np.diff(begin[units == unit]) > 0).all()
        assert (np.diff(end[units == unit]) > 0).all()
    for name in COUNTERS:
        spans = trace.spans_of(name)
        owners_of = spans["insn"]
        if name in ("read_wait", "write_wait"):
            assert (owners_of == -1).all()
            continue
        assert (owners_of >= 0).all()
        if name == "fetch_wait_queue" or "wait_token" in name or name in ("compute_wait_load", "compute_wait_store"):
            assert (spans["end"] <= begin[owners_of]).all()
        else:
            assert (spans["begin"] > begin[owners_of]).all()
            assert (spans["end"] <= end[owners_of]).all()


def run(source: str, timing: MemoryTiming | None = None) -> Trace:
    """A program on the small machine, in memory that is all zero."""
    memory = Memory()
    memory.write(0x8000, words(source))
    simulator = AmaranthSimulator(TINY, memory=memory, timing=timing or MemoryTiming(), trace=True)
    trace = simulator.launch(0x8000, len(words(source)), allow_leftover_tokens=True).trace
    assert trace is not None
    return trace


def test_the_rtl_takes_the_cycles_that_the_page_says() -> None:
    trace = run(
        "alu.add uop_end=1 iter_out=1 iter_in=40 use_imm\nalu.max uop_end=1 iter_out=1 iter_in=9 use_imm\nfinish"
    )
    begin, end = trace.insns["begin"], trace.insns["end"]
    assert (np.diff(begin) == [40, 9]).all()
    # The last step is taken 7 cycles before what it writes can be read.
    assert (end - begin == [40 + 7, 9 + 7, 1 + 7]).all()
    assert trace.spans_of("alu_busy").tolist() == [
        (COUNTERS.index("alu_busy"), 0, int(begin[0]) + 1, int(begin[0]) + 41),
        (COUNTERS.index("alu_busy"), 1, int(begin[0]) + 41, int(begin[0]) + 50),
    ]


def test_waits_are_of_the_instruction_that_waits() -> None:
    timing = MemoryTiming(latency=20, read_bytes=4, shared_bus=True)
    trace = run(SOURCE, timing)
    check_launch(trace)
    memory = Memory()
    memory.write(0x8000, words())
    # Equal timing gives equal traces.
    assert CycleSimulator(TINY, memory=memory, timing=timing, trace=True).launch(0x8000, 9).trace == trace
    (waits,) = trace.spans_of("store_wait_token").tolist()
    assert waits[1:] == (6, waits[2], int(trace.insns["begin"][6]))
    assert [row[1] for row in trace.spans_of("compute_wait_load").tolist()] == [3]
    assert [row[1] for row in trace.spans_of("compute_wait_store").tolist()] == [7]


def test_launches_have_traces_of_their_own() -> None:
    memory = Memory()
    memory.write(0x8000, words("alu.add uop_end=1 iter_out=1 iter_in=40 use_imm\nfinish"))
    simulator = AmaranthSimulator(TINY, memory=memory, trace=True)
    both = [simulator.launch(0x8000, 2).trace for _ in range(2)]
    assert both[0] == both[1]
    assert AmaranthSimulator(TINY, memory=memory).launch(0x8000, 2).trace is None


def test_machines_of_the_tests_are_there() -> None:
    assert {"overlap", "bus 512, batch 2"} <= MACHINES.keys()


# Files.


def test_a_file_gives_the_trace_back(tmp_path: Path) -> None:
    trace = small()
    trace.save(tmp_path / "a.trace")
    trace.save(tmp_path / "b.trace")
    assert (tmp_path / "a.trace").read_bytes() == (tmp_path / "b.trace").read_bytes() == trace.to_bytes()
    assert Trace.load(tmp_path / "a.trace", config=TINY) == trace


def test_a_file_of_another_machine(tmp_path: Path) -> None:
    small().save(tmp_path / "a.trace")
    other = VTAConfig()
    with pytest.raises(TraceError) as error:
        Trace.load(tmp_path / "a.trace", config=other)
    assert str(error.value) == (
        f"{tmp_path / 'a.trace'}: trace must be of configuration digest {other.digest!r}, not {TINY.digest!r}"
    )


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no\.trace: trace file cannot be read: No such file or directory$"):
        Trace.load(tmp_path / "no.trace")


def with_manifest(old: str, new: str) -> bytes:
    """The file with other text in its manifest."""
    members = read_container(small().to_bytes(), MEMBERS)
    text = members["trace.json"].decode()
    assert old in text
    return write_container({**members, "trace.json": text.replace(old, new, 1).encode()})


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"vta-trace"', '"other"', "trace format must be 'vta-trace', not 'other'"),
        ('"version": 1', '"version": 2', "trace version must be 1, not 2"),
        ('"cycles": 200', '"cycles": "x"', "trace cycles must be an integer from 0 to 4611686018427387904, not 'x'"),
        ('"cycles"', '"time"', "trace manifest must have the keys format, .*, members, not .*time, members"),
        ("{", "[", "trace manifest cannot be read: .*"),
        ('"TARGET"', '"target"', "trace config must be a possible one: .*"),
        (TINY.digest, "0" * 64, f"trace config digest must be '{TINY.digest}', not '{'0' * 64}'"),
    ],
)
def test_what_is_wrong_with_a_manifest(old: str, new: str, sentence: str) -> None:
    with pytest.raises(TraceError, match=f"^{sentence}$"):
        Trace.from_bytes(with_manifest(old, new))


def test_a_member_that_was_changed() -> None:
    members = read_container(small().to_bytes(), MEMBERS)
    members[ARRAYS["spans"]] = members[ARRAYS["spans"]][:-1]
    with pytest.raises(TraceError, match=r"^trace members must have the digests .*, not .*$"):
        Trace.from_bytes(write_container(members))


def test_a_file_that_was_rewritten() -> None:
    members = read_container(small().to_bytes(), MEMBERS)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(TraceError, match=r"^trace file must be in canonical form, as saved, not rewritten or damaged$"):
        Trace.from_bytes(stream.getvalue())


@given(st.data())
def test_any_damage_is_a_trace_error(data: st.DataObject) -> None:
    good = bytearray(small().to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 20))
    damaged = bytes(good[: len(good) - cut])
    if damaged == small().to_bytes():
        return
    with pytest.raises(TraceError):
        Trace.from_bytes(damaged)
