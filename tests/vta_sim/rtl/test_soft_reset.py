"""A soft reset of a launch that is under way: that launch is lost, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tests.vta_sim.rtl.machines import INSN_AT, TINY
from vta_hw.rtl.registers import register_map
from vta_hw.spec.asm import assemble
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Control, Status
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import parameters
from vta_sim.report import MachineReport
from vta_sim.rtl.engine import AmaranthSimulator, Job
from vta_sim.rtl.register_port import RegisterPort
from vta_sim.timing import MemoryTiming

KEPT = ("status", "fault_insn", "cycle_count", "acc_writes")
AT = 0x1000
LATENCY = 40


class Machine(AmaranthSimulator):
    """Reads registers between launches, and resets in the middle of one."""

    def registers(self) -> dict[str, int]:
        """Those of `KEPT`, and control."""
        found: dict[str, int] = {}

        async def read(ctx: Any) -> None:
            found.update(await self._port.read(ctx, ("control", *KEPT)))

        self._do(read)
        return found

    def run(self, source: str) -> MachineReport:
        return self.launch(INSN_AT, self._place(source), allow_faults=True, allow_leftover_tokens=True)

    def interrupt(self, source: str, cycles: int) -> None:
        """Ask for a soft reset so many cycles behind the write that launches, and wait until it is over."""
        values = parameters(self.config, INSN_AT, self._place(source), Bases(), Tokens())

        async def launch(ctx: Any) -> None:
            await self._port.write(ctx, {**values, "control": Control.LAUNCH})
            await ctx.tick().repeat(cycles)
            await self._port.write(ctx, {"control": Control.RESET})
            while (await self._port.read(ctx, ["control"]))["control"] & Control.RESET:
                pass

        self._do(launch)

    @property
    def _port(self) -> RegisterPort:
        return RegisterPort(self._top, register_map(self.config))

    def _place(self, source: str) -> int:
        words = ISA(self.config).encode_program(assemble(source, self.config)[0])
        self.memory.write(INSN_AT, words)
        return len(words)

    def _do(self, job: Job) -> None:
        self._begin(job)
        while not self.advance(1):
            pass


@cache
def build(overlap: bool) -> Machine:
    return Machine(replace(TINY, overlap=overlap))


@pytest.fixture(params=[False, True], ids=["in order", "overlap"])
def machine(request: pytest.FixtureRequest) -> Machine:
    here = build(request.param)
    here.reset(timing=MemoryTiming(latency=LATENCY))
    return here


def alu(steps: int) -> str:
    return f"alu.add uop_end=1 iter_out=1 iter_in={steps} use_imm imm=1"


FAULTY = f"{alu(3)}\nload.uop sram_base=63 y_size=1 x_size=3\nfinish"
"""Leaves something in each register of `KEPT`."""

UNDER_WAY = {
    "ALU": alu(10_000),
    "fault in an answer": f"load.inp dram_base={AT} sram_base=63 y_size=1 x_size=2",
    "loads": f"load.inp dram_base={AT} y_size=60 x_size=1\nload.acc dram_base={AT} y_size=60 x_size=1",
    "store": f"store.out dram_base={AT} y_size=60 x_size=1\n{alu(10_000)}",
}


@pytest.mark.parametrize(
    ("under_way", "cycles"), [("ALU", 200), ("fault in an answer", LATENCY + 30), ("loads", 150), ("store", 150)]
)
def test_registers_keep_what_the_launch_before_left(machine: Machine, under_way: str, cycles: int) -> None:
    before = machine.run(FAULTY)
    assert (before.status, before.fault_insn) == (Status.UOP_INDEX, 1)
    kept = machine.registers()
    assert kept["acc_writes"] == 3
    machine.interrupt(UNDER_WAY[under_way] + "\nfinish", cycles)
    # The start of a launch clears what was in its status.
    assert machine.registers() == {**kept, "status": 0}
    after = machine.run(FAULTY)
    assert (after.status, after.fault_insn, after.counters) == (before.status, before.fault_insn, before.counters)


LAST = {
    "load": f"{alu(20)}\nfinish\nload.inp dram_base={AT} y_size=1 x_size=2",
    "finish": f"load.uop dram_base={AT} y_size=1 x_size=2\n{alu(20)}\nfinish",
}


@pytest.mark.parametrize("last", LAST)
def test_a_launch_whose_end_falls_into_the_reset_is_lost(machine: Machine, last: str) -> None:
    """What was outstanding is answered, and what waited for it completes, before the reset is done."""
    whole = machine.run(LAST[last])
    ended = machine.registers()
    machine.run(alu(5) + "\nfinish")
    lost = machine.registers()
    outcomes = []
    for cycles in range(whole.cycles - 44, whole.cycles + 2, 3):
        machine.interrupt(LAST[last], cycles)
        found = machine.registers()
        outcomes.append(found["cycle_count"] == ended["cycle_count"])
        assert found == ({**ended, "control": 0} if outcomes[-1] else lost)
        machine.run(alu(5) + "\nfinish")
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}
