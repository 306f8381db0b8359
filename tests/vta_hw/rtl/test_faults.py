"""Which fault is named when several units report in one cycle."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.sim import Simulator

from tests.vta_sim.rtl.machines import INSN_AT, TINY
from vta_hw.rtl.instruction import FAULT, earliest
from vta_hw.rtl.registers import register_map
from vta_hw.spec.asm import assemble
from vta_hw.spec.instructions import Finish, Insn, Unknown
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Control, Status
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import parameters
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.rtl.register_port import RegisterPort

INDICES = (0, 1, 7, 8, 1 << 31, (1 << 32) - 2)
STATUSES = (0, 0, Status.UNKNOWN_OPCODE, Status.ACC_INDEX, Status.READ_ERROR | Status.UOP_INDEX)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_smallest_index_of_those_that_report(count: int) -> None:
    rng = random.Random(count)
    faults = [Signal(FAULT, name=f"fault{number}") for number in range(count)]
    m, found = Module(), Signal(FAULT)
    m.d.comb += found.eq(earliest(faults))

    async def testbench(ctx: Any) -> None:
        for _ in range(300):
            values = [(rng.choice(STATUSES), rng.choice(INDICES)) for _ in faults]
            for fault, (status, index) in zip(faults, values, strict=True):
                ctx.set(fault, {"status": status, "index": index})
            expected = min((index for status, index in values if status), default=(1 << 32) - 1)
            assert ctx.get(found.index) == expected
            assert ctx.get(found.status) == sum({bit for status, _ in values for bit in Status(status)})

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


class Watched(AmaranthSimulator):
    """Looks at what the units of the core report while a launch is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._faults: list[data.View] = []

        def spy(faults: Iterable[data.View]) -> data.View:
            self._faults = list(faults)
            return earliest(self._faults)

        monkeypatch.setattr("vta_hw.rtl.core.earliest", spy)
        super().__init__(TINY)

    def run(self, insns: Sequence[Insn]) -> tuple[list[list[int]], dict[str, int]]:
        """The indices that are reported in the same cycle, for each such cycle; status and fault_insn."""
        words = ISA(TINY).encode_program(insns)
        self.memory.write(INSN_AT, words)
        values = parameters(TINY, INSN_AT, len(words), Bases(), Tokens())
        port = RegisterPort(self._top, register_map(TINY))
        cycles: list[list[int]] = []
        left: dict[str, int] = {}

        async def job(ctx: Any) -> None:
            await port.write(ctx, {**values, "irq_enable": 1, "control": Control.LAUNCH})
            while not ctx.get(self._top.irq):
                _, _, *faults = await ctx.tick().sample(*self._faults)
                cycles.append([int(fault.index) for fault in faults if fault.status])
            left.update(await port.read(ctx, ["status", "fault_insn"]))
            await port.write(ctx, {"control": 0})

        self._begin(job)
        while not self.advance(1):
            pass
        return [indices for indices in cycles if len(indices) > 1], left


LOAD = "load.inp sram_base=63 dram_base=64 y_size=1 x_size=2"


@pytest.mark.parametrize("load_first", [False, True])
def test_load_and_compute_in_one_cycle(load_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compute unit finds its fault one cycle later with each step of the instruction in front of it."""
    machine = Watched(monkeypatch)
    load = assemble(LOAD, TINY)[0]
    named = []
    for steps in range(1, 40):
        alu = assemble(f"alu.add uop_end=1 iter_out=1 iter_in={steps} use_imm imm=1", TINY)[0]
        compute = [*alu, Unknown(opcode=6)]
        together, left = machine.run([*(load + compute if load_first else compute + load), Finish()])
        assert left["status"] == Status.INP_INDEX | Status.UNKNOWN_OPCODE
        if together:
            named.append((together[0], left["fault_insn"]))
    assert named == [([0, 2], 0) if load_first else ([2, 1], 1)]
