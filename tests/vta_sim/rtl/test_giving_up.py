"""When a launch is given up: not while an instruction that was handed out last has still to show itself to its unit.

In all programs the first LOAD waits for a token that a late instruction gives, so that for long only fetch moves.
"""

from __future__ import annotations

import pytest

from tests.vta_sim.rtl.machines import INSN_AT, MACHINES, simulator
from vta_hw.spec.asm import assemble
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.rtl.axi_memory import SLVERR, Errors
from vta_sim.timing import MemoryTiming

LOAD = "load.inp dram_base=0x1000 y_size=1 x_size=1"
GIVES = "finish push_prev"


def launch(machine: str, insns: list[str], *, queue_depth: int = 512, errors: Errors | None = None) -> MachineReport:
    config = MACHINES[machine]
    words = ISA(config).encode_program(assemble("\n".join(insns), config)[0])
    memory = Memory()
    memory.write(INSN_AT, words)
    rtl = simulator(config, queue_depth)
    rtl.reset(memory=memory, timing=MemoryTiming(latency=10), errors=errors)
    return rtl.launch(INSN_AT, len(words), allow_faults=True, allow_leftover_tokens=True, max_cycles=5_000)


def completed(report: MachineReport) -> tuple[Status, int, int]:
    return report.status, report.counters["insn_load"], report.counters["insn_compute"]


@pytest.mark.parametrize("loads", [0, 13, 14, 15, 16, 17, 40])
@pytest.mark.parametrize("machine", ["tiny", "bus 256, extended", "bus 512, batch 2"])
def test_the_last_instruction_may_be_the_one_that_gives_the_token(machine: str, loads: int) -> None:
    report = launch(machine, [f"{LOAD} pop_next", *[LOAD] * loads, GIVES])
    assert completed(report) == (Status(0), 1 + loads, 1)


def test_it_may_be_the_last_one_before_a_full_queue() -> None:
    insns = [f"{LOAD} pop_next", *[LOAD] * 30, GIVES, *[LOAD] * 5]
    report = launch("bus 256, extended", insns, queue_depth=32)
    assert completed(report) == (Status(0), 36, 1)


@pytest.mark.parametrize("loads", [8, 40])
def test_it_may_be_the_last_one_before_an_error(loads: int) -> None:
    insns = [f"{LOAD} pop_next", *[LOAD] * loads, GIVES, *["finish"] * 4]
    behind = INSN_AT + 16 * (loads + 2)
    report = launch("bus 256, extended", insns, errors={range(behind, behind + 64): SLVERR})
    assert completed(report) == (Status.READ_ERROR, 1 + loads, 1)


@pytest.mark.parametrize("loads", [0, 40])
def test_a_token_that_nobody_gives_ends_the_launch(loads: int) -> None:
    report = launch("bus 256, extended", [f"{LOAD} pop_next", *[LOAD] * loads, "finish"])
    assert completed(report) == (Status.DEADLOCK, 0, 1)
