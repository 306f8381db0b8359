"""Launches on the compiled RTL, beside what `cycle.test_programs` and `test_compiled_programs` compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.vta_sim.rtl.code_cache import CODE_CACHE
from tests.vta_sim.rtl.test_engine import INPUTS, INSN_AT, OUTPUTS, SOURCE, TINY, with_data, write
from vta_hw.spec.program import Tokens
from vta_sim.errors import CycleLimit, Deadlock, SimulationError
from vta_sim.memory import Memory
from vta_sim.rtl import compiled
from vta_sim.rtl.axi_memory import SLVERR
from vta_sim.rtl.compiled import CompiledSimulator
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming
from vta_sim.waves import Waves


def machine(**options: object) -> CompiledSimulator:
    return CompiledSimulator(TINY, cache=CODE_CACHE, **options)  # type: ignore[arg-type]  # options of several types


@pytest.mark.parametrize(
    "timing", [MemoryTiming(), MemoryTiming(latency=50, read_bytes=2), MemoryTiming(shared_bus=True)]
)
def test_a_launch_is_that_of_amaranths_simulator(timing: MemoryTiming) -> None:
    simulators = machine(timing=timing, trace=True), AmaranthSimulator(TINY, timing=timing, trace=True)
    reports = []
    for each in simulators:
        expected = with_data(each.memory)
        count = write(each.memory, SOURCE)
        for _ in range(2):
            reports.append(each.launch(INSN_AT, count))
            assert each.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()
    for mine, theirs in zip(reports[:2], reports[2:], strict=True):
        assert dict(mine.counters) == dict(theirs.counters)
        assert mine.trace == theirs.trace
        assert mine.trace is not None


def test_memory_grows_where_the_machine_writes() -> None:
    simulator = machine()
    pages = 40
    lines = [
        f"store.out dram_base={(0x100_0000 + 4096 * page) // 4} y_size=1 x_size=1 x_stride=1" for page in range(pages)
    ]
    lines.insert(0, "alu.add uop_end=1 iter_out=1 iter_in=1 use_imm imm=3 push_next")
    lines[1] += " pop_prev"
    simulator.launch(INSN_AT, write(simulator.memory, "\n".join([*lines, "finish"])))
    for page in range(pages):
        assert simulator.memory.read(0x100_0000 + 4096 * page, 4).tobytes() == b"\3\3\3\3"


def test_memory_may_have_grown_since_the_machine_was_made() -> None:
    simulator = machine()
    expected = with_data(simulator.memory)
    count = write(simulator.memory, SOURCE)
    for page in range(5000):
        simulator.memory.write(0x1000_0000 + 4096 * page, b"x")
    simulator.launch(INSN_AT, count)
    assert simulator.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()


def test_a_trace_may_have_more_changes_than_are_noted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    for room in (1 << 16, 3):
        monkeypatch.setattr(compiled, "_CHANGES", room)
        simulator = machine(trace=True)
        with_data(simulator.memory)
        traces.append(simulator.launch(INSN_AT, write(simulator.memory, SOURCE)).trace)
    assert traces[0] == traces[1]


def test_a_launch_that_takes_too_long_is_given_up() -> None:
    simulator = machine(timing=MemoryTiming(latency=200))
    expected = with_data(simulator.memory)
    count = write(simulator.memory, SOURCE)
    with pytest.raises(CycleLimit, match="Launch must be over within 300 cycles, and is not"):
        simulator.launch(INSN_AT, count, max_cycles=300)
    simulator.launch(INSN_AT, count)
    assert simulator.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()


def test_a_launch_is_advanced_in_steps() -> None:
    simulator = machine()
    with_data(simulator.memory)
    count = write(simulator.memory, SOURCE)
    whole = simulator.launch(INSN_AT, count)
    simulator.start(INSN_AT, count)
    with pytest.raises(SimulationError, match="Launch must be over before the simulator is used again, and is not"):
        simulator.start(INSN_AT, count)
    steps = 1
    while not simulator.advance(7):
        steps += 1
    assert 7 * steps >= whole.cycles
    assert dict(simulator.report().counters) == dict(whole.counters)


def test_deadlocks_and_tokens() -> None:
    simulator = machine()
    count = write(simulator.memory, "load.uop push_prev push_next\nfinish pop_prev")
    left = simulator.launch(INSN_AT, count, tokens=Tokens(l2g=4, s2g=1023), allow_leftover_tokens=True).tokens_left
    assert left == Tokens(l2g=3, g2l=1, g2s=1, s2g=1023)
    with pytest.raises(Deadlock, match="waits since cycle 17 for a token of l2g"):
        simulator.launch(INSN_AT, count)


def test_errors_of_memory_are_part_of_the_machine() -> None:
    simulator = machine(errors={range(INPUTS, INPUTS + 4): SLVERR})
    with_data(simulator.memory)
    report = simulator.launch(INSN_AT, write(simulator.memory, SOURCE), allow_faults=True)
    assert report.fault_insn == 1


def test_interleaved_answers_are_for_amaranths_simulator() -> None:
    with pytest.raises(ValueError, match="Interleaved answers must be left to Amaranth's simulator"):
        machine(timing=MemoryTiming(interleave=True))


def test_time_stands_still_at_a_signal() -> None:
    simulator = machine(observe=["machine.top.core.store.busy"])
    with_data(simulator.memory)
    simulator.start(INSN_AT, write(simulator.memory, SOURCE))
    assert simulator.run_until("machine.top.core.store.busy", 1000)
    # Counters have counted the cycles before this one.
    cycle = simulator.peek("machine.top.registers.count_cycle_count.count")
    assert simulator.peek("machine.top.registers.count_insn_compute.count") == 4
    while not simulator.advance(1000):
        pass
    report = simulator.report()
    assert 0 < cycle < report.cycles
    assert not simulator.run_until("machine.top.core.store.busy", 10)


def test_registers_are_set_by_name() -> None:
    simulator = machine()
    simulator.poke("machine.top.core.l2g.count", 3)
    count = write(simulator.memory, "load.uop pop_prev\nfinish pop_prev")
    simulator.start(INSN_AT, count, tokens=Tokens(l2g=3))
    while not simulator.advance(100):
        pass
    assert simulator.report().tokens_left == Tokens(l2g=1)
    with pytest.raises(ValueError, match="Signal to set must be an input or a register, not 'irq'"):
        simulator.poke("irq", 1)


def test_a_window_of_a_waveform(tmp_path: Path) -> None:
    path = tmp_path / "wave.vcd"
    with machine(waves=Waves(path=path, signals=("irq", "machine.top.core.load.*"), begin=20, end=40)) as simulator:
        expected = with_data(simulator.memory)
        report = simulator.launch(INSN_AT, write(simulator.memory, SOURCE))
        with pytest.raises(SimulationError, match="Simulator must not be reset while it writes a waveform"):
            simulator.reset()
        assert simulator.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()
    plain = machine()
    with_data(plain.memory)
    assert dict(plain.launch(INSN_AT, write(plain.memory, SOURCE)).counters) == dict(report.counters)
    text = path.read_text()
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert len(range(times[1] // 2, times[-1] // 2)) == 20
    assert "$scope module load $end" in text
    assert "store" not in text


def test_waves_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Cycles of a waveform must be a range from 0 on, not 5 to 4"):
        Waves(path=tmp_path / "w.vcd", begin=5, end=4)
    old = tmp_path / "w.vcd"
    old.write_text("kept")
    with pytest.raises(ValueError, match="Pattern must fit a port, a register or an observed signal, and 'x' does not"):
        machine(waves=Waves(path=old, signals=("x",)))
    assert old.read_text() == "kept"


def test_scratchpads_can_begin_with_a_pattern() -> None:
    simulator = machine(poison=True, memory=Memory())
    from vta_hw.spec.isa import MemoryType

    assert np.unique(simulator.scratchpad(MemoryType.ACC)).tolist() == [0x5A5A5A5A]
