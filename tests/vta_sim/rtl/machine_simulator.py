"""The accelerator and `Dram` as one design, in Amaranth's simulator: slow, and what a compiled one is measured by."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray

from tests.vta_sim.rtl.dram_bench import serve_storage, set_timing
from vta_hw.rtl.registers import register_map
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.program import Tokens
from vta_sim.errors import CycleLimit
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import INSN_ALIGNMENT, parameters
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.rtl.contents import contents
from vta_sim.rtl.driver import CLOCK_PERIOD, Driver, Outcome
from vta_sim.rtl.machine import Machine
from vta_sim.rtl.register_port import RegisterPort
from vta_sim.timing import MemoryTiming


class MachineSimulator:
    """`Machine` with the interface of `AmaranthSimulator`; ranges of errors belong to the design."""

    def __init__(self, config: VTAConfig, *, errors: Mapping[range, int] | None = None, **options: int) -> None:
        self.config = config
        self.memory = Memory()
        self._machine = Machine(config, errors=errors, **options)
        registers = register_map(config)
        self._driver = Driver(registers, RegisterPort(self._machine, registers), self._machine.irq)
        self._timing = MemoryTiming()
        self._job: Any = None
        self._result: Any = None
        # Amaranth writes masks as decimal numbers.
        sys.set_int_max_str_digits(0)
        self._simulator = Simulator(self._machine)
        self._simulator.add_clock(CLOCK_PERIOD)
        self._simulator.add_process(self._store)
        self._simulator.add_testbench(self._serve)
        self._simulator.advance()

    def reset(self, *, memory: Memory | None = None, timing: MemoryTiming | None = None) -> None:
        """Be as new, with other memory."""
        self.memory = Memory() if memory is None else memory
        self._timing = MemoryTiming() if timing is None else timing
        self._job = None
        self._simulator.reset()
        self._simulator.advance()

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
        allow_faults: bool = False,
        max_cycles: int = 100_000,
    ) -> MachineReport:
        """As `AmaranthSimulator.launch`."""
        values = parameters(self.config, insn_address, insn_count, bases or Bases(), tokens or Tokens())
        words = self.memory.read(insn_address, insn_count * INSN_ALIGNMENT).view("<u8").reshape(-1, 2)
        outcome: Outcome | None = self._do(lambda ctx: self._driver.launch(ctx, values, max_cycles))
        if outcome is None:
            raise CycleLimit(f"Launch must be over within {max_cycles} cycles, and is not")
        report = MachineReport(config=self.config, words=words, **vars(outcome))
        if not allow_faults:
            report.check(allow_leftover_tokens=allow_leftover_tokens)
        return report

    def scratchpad(self, memory_type: MemoryType) -> NDArray[np.generic]:
        """As `AmaranthSimulator.scratchpad`."""
        pad = self._machine.top.scratchpads[memory_type.scratchpad]

        async def read(ctx: SimulatorContext) -> NDArray[np.generic]:
            return contents(self.config, memory_type, pad, lambda bank, row: int(ctx.get(bank[row])))

        return self._do(read)

    def _do(self, job: Any) -> Any:
        self._job = job
        while self._job is not None:
            self._simulator.advance()
        return self._result

    async def _store(self, ctx: SimulatorContext) -> None:
        await serve_storage(ctx, self._machine, lambda: self.memory)

    async def _serve(self, ctx: SimulatorContext) -> None:
        set_timing(ctx, self._machine, self._timing)
        while True:
            if self._job is not None:
                self._result = await self._job(ctx)
                self._job = None
            await ctx.tick()


def machine_simulator(config: VTAConfig, queue_depth: int = 512) -> MachineSimulator:
    """The simulator of a machine, in whatever state its last user left it: to be reset."""
    return _machine_simulator(config, queue_depth)


@functools.lru_cache(maxsize=2)
def _machine_simulator(config: VTAConfig, queue_depth: int) -> MachineSimulator:
    return MachineSimulator(config, queue_depth=queue_depth)
