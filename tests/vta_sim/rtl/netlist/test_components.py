"""Test benches of the accelerator's components, done again to the compiled components; see `replay.py`.

A few tests of each bench, so that every component is in one of their designs. All of them:

    python -m pytest -p tests.vta_sim.rtl.netlist.replay --replay-all tests/vta_hw/rtl
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator, SimulatorContext

from tests.vta_sim.rtl.netlist.replay import Edge, Recorder, components
from vta_hw.rtl.top import Top

ROOT: Final = Path(__file__).parents[4]
BENCHES: Final = (
    "test_arithmetic.py::test_alu",
    "test_arithmetic.py::test_requantisation[8-at_random]",
    "test_dma.py::test_bursts_are_those_of_the_model[bus64-address32-0.5]",
    "test_faults.py::test_the_smallest_index_of_those_that_report",
    "test_faults.py::test_load_and_compute_in_one_cycle[True]",
    "test_fetch.py::test_exact_cycles[bus64-address32-1]",
    "test_load.py::test_fault_of_a_pad_and_of_a_beat",
    "test_load_unit.py::test_events",
    "test_memory_engine.py::test_latencies",
    "test_memory_engine.py::test_round_robin_grants_the_next_request",
    "test_overlap.py::test_tokens_are_given_in_program_order",
    "test_pipeline.py::test_results_are_used_at_every_distance[gemm-3]",
    "test_pipeline.py::test_results_are_used_at_every_distance[requant-2]",
    "test_register_counters.py::test_counter_is_a_sum_that_stops_at_its_largest_value",
    "test_registers.py::test_launch_until_finish[2]",
    "test_scan.py::test_the_longest_nest",
    "test_scoreboard.py",
    "test_scratchpad.py",
    "test_store.py::test_full_speed[bus64-tile1]",
)


def test_every_component_does_the_same_when_it_is_compiled() -> None:
    tests = [f"tests/vta_hw/rtl/{bench}" for bench in BENCHES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.vta_sim.rtl.netlist.replay"]
    result = subprocess.run(
        [*command, "--replay-all", *tests], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stdout
    assert "in no design: no component" in result.stdout
    replayed = re.search(r"replayed (\d+) cycles", result.stdout)
    assert replayed is not None
    assert int(replayed[1]) > 3000


def test_components_are_found() -> None:
    names = {item.__name__ for item in components()}
    assert Top in components()
    assert {"Fetch", "LoadUnit", "ComputeUnit", "OverlappedComputeUnit", "StoreUnit", "ControlRegisters"} <= names


def simulate(m: Module, inputs: list[Signal], memory: Memory | None = None) -> None:
    """Count through the inputs for some cycles; before, set a row."""

    async def bench(ctx: SimulatorContext) -> None:
        if memory is not None:
            ctx.set(memory.data[1], 0x55)
        for number in range(20):
            for signal in inputs:
                ctx.set(signal, number)
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    simulator.reset()
    simulator.run()


def counter(m: Module) -> list[Signal]:
    step, total = Signal(4), Signal(8)
    m.d.sync += total.eq(total + step)
    return [step]


def test_rows_that_a_bench_sets_are_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    m = Module()
    m.submodules.memory = memory = Memory(shape=8, depth=4, init=[])
    port = memory.read_port(domain="comb")
    address, out = Signal(2), Signal(8)
    m.d.comb += [port.addr.eq(address), out.eq(port.data)]
    m.d.sync += Signal(name="unused").eq(address[0])
    simulate(m, [address], memory)
    recorder.replay()
    assert recorder.edges == 40


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    m = Module()
    simulate(m, counter(m))
    ((recording, _),) = recorder.recordings
    place = next(k for k, event in enumerate(recording.events) if isinstance(event, Edge) and event.outputs == 10)
    event = recording.events[place]
    assert isinstance(event, Edge)
    recording.events[place] = event._replace(outputs=11)
    with pytest.raises(AssertionError, match=r"total must be 0xb in cycle 5, not 0xa"):
        recorder.replay()
