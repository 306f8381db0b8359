"""The simulator that Verilator makes, with its memory in C++, against our own engines: memory and every counter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from bench.engine_speed import Outcome, check, python_engine
from bench.verilator_core.build import Build, build, lacks_verilator
from bench.verilator_core.core import VerilatedCore
from bench.workloads import Pages, Start, Workload, pages_of
from runtime.device import PAGE_BYTES
from tests.vta_hw.rtl.cocotb.cases import Author, add_product, random_launches
from tests.vta_hw.rtl.cocotb.launches import Launch
from tests.vta_hw.rtl.cocotb.test_cosimulation import digits_launches
from vta_hw.spec.config import VTAConfig, preset
from vta_sim.memory import Memory
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming

TINY = preset("tiny")
DEFAULT = preset("sim")
TIMINGS = (MemoryTiming(), MemoryTiming(latency=7, outstanding=1))


def built(config: VTAConfig, tmp_path_factory: pytest.TempPathFactory) -> Build:
    missing = lacks_verilator()
    if missing is not None:
        pytest.skip(missing)
    return build(config, tmp_path_factory.mktemp("verilator"), flags="-O1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return built(TINY, tmp_path_factory)


def starts(launches: Iterable[Launch]) -> list[Start]:
    return [
        Start(
            written=launch.written,
            insn_address=launch.insn_address,
            insn_count=launch.insn_count,
            bases=launch.bases,
            tokens=launch.tokens,
        )
        for launch in launches
    ]


def after(launches: Iterable[Launch]) -> Pages:
    """What memory holds at the end, as far as the launches touched it."""
    pages: dict[int, np.ndarray[tuple[int], np.dtype[np.uint8]]] = {}
    for launch in launches:
        pages |= {**launch.written, **(launch.stored or {})}
    return pages


@pytest.fixture(scope="module")
def machine() -> AmaranthSimulator:
    return AmaranthSimulator(TINY)


@pytest.mark.parametrize("timing", TIMINGS)
def test_random_programs_take_the_cycles_of_amaranths_simulator(
    tiny: Build, machine: AmaranthSimulator, timing: MemoryTiming
) -> None:
    launches = random_launches(TINY, range(3), 16, clear=True).launches
    pages = after(launches)
    core = VerilatedCore(tiny, memory_bytes=max(pages) + PAGE_BYTES, timing=timing)
    runs, memory = core.run(starts(launches))
    own = Memory()
    machine.reset(memory=own, timing=timing)
    for number, start in enumerate(starts(launches)):
        for address, page in start.written.items():
            own.write(address, page)
        report = machine.launch(
            start.insn_address,
            start.insn_count,
            bases=start.simulator_bases,
            tokens=start.tokens,
            allow_leftover_tokens=True,
        )
        assert runs[number].counters == dict(report.counters)
        assert runs[number].registers["status"] == 0
    for address, page in pages_of(own).items():
        np.testing.assert_array_equal(memory[address : address + PAGE_BYTES], page)
    for address, page in pages.items():
        np.testing.assert_array_equal(memory[address : address + PAGE_BYTES], page)


def test_the_digits_network_on_the_compiled_rtl(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Memory at the end and every counter of each launch are those of Verilator, and memory that of no engine alone."""
    core_of = built(DEFAULT, tmp_path_factory)
    launches = digits_launches(DEFAULT).launches
    workload = Workload(name="digits", config=DEFAULT, starts=starts(launches), memory=after(launches))
    core = VerilatedCore(core_of, memory_bytes=workload.memory_bytes, timing=MemoryTiming(latency=32))
    runs, memory = core.run(workload.starts)
    compiled = python_engine("compiled", DEFAULT)(workload)
    assert [dict(run.counters) for run in runs] == list(compiled.counters)
    assert sum(run.counters["cycle_count"] for run in runs) == compiled.cycles > 10_000
    for address, page in workload.memory.items():
        np.testing.assert_array_equal(memory[address : address + PAGE_BYTES], page)
        np.testing.assert_array_equal(compiled.memory[address], page)


def test_other_timings_are_refused(tmp_path: Path) -> None:
    program = Build(program=tmp_path, config=TINY, verilate_seconds=0, compile_seconds=0)
    with pytest.raises(ValueError, match="Memory behind Verilator must have latency and outstanding bursts alone"):
        VerilatedCore(program, memory_bytes=4096, timing=MemoryTiming(stalls=0.5))


def test_what_the_program_says_is_reported(tiny: Build) -> None:
    author = Author(TINY)
    add_product(author)
    core = VerilatedCore(tiny, memory_bytes=0x1000, timing=MemoryTiming())
    with pytest.raises(RuntimeError, match="Simulator must succeed, and says: no memory at address"):
        core.run(starts(author.launches.launches))


@pytest.mark.parametrize(
    ("counters", "byte", "sentence"),
    [
        ({"cycle_count": 5}, 1, "w: mine differs from the functional simulator at 0x1000"),
        ({"cycle_count": 6}, 0, "w, launch 0: cycle_count is 6 by mine, 5 by another"),
    ],
)
def test_engines_that_differ_give_no_figures(counters: dict[str, int], byte: int, sentence: str) -> None:
    page = np.zeros(PAGE_BYTES, np.uint8)
    workload = Workload(name="w", config=TINY, starts=(), memory={0x1000: page})
    other = Outcome(cycles=5, seconds=1.0, counters=({"cycle_count": 5},), memory={0x1000: page})
    mine = Outcome(cycles=5, seconds=1.0, counters=(counters,), memory={0x1000: page + np.uint8(byte)})
    check(workload, "other", other, other)
    with pytest.raises(SystemExit, match=sentence):
        check(workload, "mine", mine, other)
