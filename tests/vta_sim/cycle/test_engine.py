"""The cycle engine by itself: what it refuses, long launches, traces, and recorded streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.vta.streams import code
from tests.vta_sim.cycle.cases import TIMED_MACHINES, timed_case
from tests.vta_sim.cycle.comparison import simulator
from tests.vta_sim.rtl.code_cache import CODE_CACHE
from tests.vta_sim.rtl.machines import INSN_AT, TINY, contents_differ, execute
from tests.vta_sim.spec_model import compare
from tests.vta_sim.spec_model.stream import Stream
from tests.vta_sim.test_streams import RECORDED, SYNTHETIC, expect
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status
from vta_sim.cycle.engine import CycleSimulator
from vta_sim.errors import CycleLimit, SimulationError
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.report import MachineReport
from vta_sim.rtl.axi_memory import SLVERR
from vta_sim.rtl.compiled import CompiledSimulator
from vta_sim.timing import MemoryTiming

NAMES = ("uop", "inp", "wgt", "acc", "out")
ALL = [pytest.param(path, id=path.stem) for path in SYNTHETIC]
ALL += [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in RECORDED]


def launch(machine: CycleSimulator, source: str, **options: object) -> MachineReport:
    insns = code(machine.config, source)
    machine.memory.write(INSN_AT, insns)
    return machine.launch(INSN_AT, len(insns) // 16, **options)  # type: ignore[arg-type]  # options of several types


@pytest.mark.parametrize("depth", [1, 65537, 2.0, True])
def test_refuses_a_queue_depth(depth: object) -> None:
    with pytest.raises(ValueError) as caught:
        CycleSimulator(TINY, queue_depth=depth)  # type: ignore[arg-type]  # the refusal is tested
    assert str(caught.value) == f"queue_depth must be an integer from 2 to 65536, not {depth!r}"


def test_refuses_a_memory_that_interleaves() -> None:
    with pytest.raises(ValueError) as caught:
        CycleSimulator(TINY, timing=MemoryTiming(interleave=True))
    assert str(caught.value) == (
        "Interleaved answers must be left to Amaranth's simulator, not asked of a compiled memory"
    )


def test_refuses_what_registers_cannot_hold() -> None:
    with pytest.raises(SimulationError) as caught:
        CycleSimulator(TINY).launch(INSN_AT + 1, 1)
    assert str(caught.value) == f"Instructions must begin at a multiple of 16 bytes, not at {INSN_AT + 1:#x}"


def test_a_launch_is_given_up_at_its_limit_and_another_may_follow() -> None:
    machine = CycleSimulator(TINY)
    with pytest.raises(CycleLimit) as caught:
        launch(machine, "finish", max_cycles=17)
    assert str(caught.value) == "Launch must be over within 17 cycles, and is not"
    assert launch(machine, "finish", max_cycles=18).cycles == 18


def test_a_launch_under_way_must_be_over_before_the_next() -> None:
    machine = CycleSimulator(TINY)
    machine.memory.write(INSN_AT, code(TINY, "finish"))
    machine.start(INSN_AT, 1)
    assert not machine.advance(17)
    with pytest.raises(SimulationError) as caught:
        machine.start(INSN_AT, 1)
    assert str(caught.value) == "Launch must be over before the simulator is used again, and is not"
    assert machine.advance(1)
    assert machine.report().cycles == 18


def test_a_long_wait_for_memory_is_passed_at_once() -> None:
    machine = CycleSimulator(TINY, timing=MemoryTiming(latency=1_000_000))
    assert launch(machine, "finish").cycles == 18 + 1_000_000


def test_scratchpads_start_with_the_pattern_and_stay() -> None:
    machine, functional = CycleSimulator(TINY, poison=True), FunctionalSimulator(TINY, poison=True)
    launch(machine, "load.uop y_size=1 x_size=2\nfinish")
    assert machine.scratchpad(MemoryType.UOP).tolist()[:3] == [0, 0, 0xFFFF_FFFF]
    for pad in (MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT):
        assert np.array_equal(machine.scratchpad(pad), functional.scratchpad(pad))


def test_words_with_errors_read_as_zero_and_are_not_written() -> None:
    bad = range(0x2008, 0x2010)
    machine = CycleSimulator(TINY, errors={bad: SLVERR})
    machine.memory.write(0x2000, np.arange(1, 9, dtype=np.uint32))
    bases = Bases(uop=0x2000, out=0x2000)
    report = launch(machine, "load.uop y_size=1 x_size=8 x_stride=8\nfinish", bases=bases, allow_faults=True)
    assert report.status == Status.READ_ERROR
    assert machine.scratchpad(MemoryType.UOP).tolist()[:8] == [1, 2, 0, 0, 5, 6, 7, 8]
    stored = 32 // TINY.out_elem_bytes
    source = f"store.out y_size=1 x_size={stored} x_stride={stored}\nfinish"
    report = launch(machine, source, bases=bases, allow_faults=True)
    assert report.status & Status.WRITE_ERROR
    assert machine.memory.read(0x2000, 32).view("<u4").tolist() == [0, 0, 3, 4, 0, 0, 0, 0]


@pytest.mark.parametrize("machine", TIMED_MACHINES)
def test_every_program_of_a_machine_leaves_what_the_functional_engine_leaves(machine: str) -> None:
    for seed in range(40):
        timed = timed_case(machine, seed)
        if not timed.has_results:
            continue
        case = timed.case
        functional = FunctionalSimulator(case.config, memory=compare.toolkit_memory(case.dram))
        mine: CycleSimulator = simulator("cycle", case.config, case.queue_depth, ())
        mine.reset(memory=compare.toolkit_memory(case.dram), timing=case.timing)
        for expected, report in zip(execute(case, functional), execute(case, mine, max_cycles=1 << 30), strict=True):
            assert report.tokens_left == expected.tokens_left
            assert list(contents_differ(functional, mine)) == [], f"seed {seed}"


@pytest.mark.parametrize("machine", ["tiny", "bus 256, extended", "overlap", "overlap, extended, bus 128, packed"])
def test_traces_are_those_of_the_rtl(machine: str) -> None:
    config = TIMED_MACHINES[machine]
    seen = set()
    with CompiledSimulator(config, trace=True, cache=CODE_CACHE) as rtl:
        mine = CycleSimulator(config, trace=True)
        for seed in range(32):
            case = timed_case(machine, seed).case
            for each in (mine, rtl):
                each.reset(memory=compare.toolkit_memory(case.dram), timing=case.timing)
            ends = (execute(case, each, max_cycles=200_000, allow_faults=True) for each in (mine, rtl))
            for found, wanted in zip(*ends, strict=True):
                assert found.trace == wanted.trace, f"seed {seed}"
                assert found.waiting_since == wanted.waiting_since, f"seed {seed}"
                seen.add((case.timing.stalls > 0, bool(found.waiting_since)))
    # With and without pauses of the memory, and programs that deadlock.
    assert {stalls for stalls, _ in seen} == {waits for _, waits in seen} == {False, True}


@pytest.mark.parametrize("path", ALL)
def test_streams(path: Path) -> None:
    stream = Stream.load(path)
    config = VTAConfig.from_json(stream.vta_config)
    machine = CycleSimulator(config, memory=compare.toolkit_memory(stream.memory()), timing=MemoryTiming(latency=32))
    address = stream.free_address()
    compare.write_words(machine.memory, address, stream.insns)
    report = machine.launch(
        address, len(stream.insns), tokens=compare.as_tokens(stream.tokens_before), allow_leftover_tokens=True
    )
    for number, page in enumerate(stream.page_addr.tolist()):
        expect(stream, number, machine.memory.read(page, 4096))
    after = stream.tokens_after or (0, 0, 0, 0)
    assert report.tokens_left == Tokens(**dict(zip(("l2g", "g2l", "g2s", "s2g"), after, strict=True)))
    assert report.cycles > len(stream.insns)


def test_presets_that_overlap_take_fewer_cycles_and_leave_the_same() -> None:
    config = preset("tiny")
    source = """
    load.uop y_size=1 x_size=1
    gemm uop_end=1 iter_out=1 iter_in=40 dst_factor_in=1
    load.acc sram_base=60 y_size=1 x_size=4 x_stride=4
    finish
    """
    in_order, beside = (
        launch(CycleSimulator(replace(config, overlap=overlap), timing=MemoryTiming(latency=32)), source)
        for overlap in (False, True)
    )
    assert beside.cycles < in_order.cycles
    assert beside.counters["gemm_uops"] == in_order.counters["gemm_uops"] == 40
