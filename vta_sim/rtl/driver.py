"""How a host launches instructions: register accesses alone, as a driver of a board makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amaranth.hdl import Value
from amaranth.sim import SimulatorContext

from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, TOKEN_QUEUES, Control, RegisterMap, Status
from vta_sim.errors import SimulationError
from vta_sim.launch_parameters import NO_INSN
from vta_sim.rtl.register_port import RegisterPort

CLOCK_PERIOD: Final = 1e-8
"""Seconds."""

RESET_PATIENCE: Final = 100_000
"""Looks at the control register in which a soft reset must be over: every burst that was made has to be answered."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the registers say after a launch; see `MachineReport`."""

    counters: Mapping[str, int]
    status: Status
    fault_insn: int | None
    tokens_left: Tokens


class Driver:
    """Launches on a machine behind a register port and an interrupt line; for one testbench."""

    def __init__(self, registers: RegisterMap, port: RegisterPort, irq: Value) -> None:
        self._registers = registers
        self._port = port
        self._irq = irq

    async def launch(self, ctx: SimulatorContext, values: Mapping[str, int], max_cycles: int) -> Outcome | None:
        """Set registers to `values`, start, and wait for the interrupt.

        None if that does not come within `max_cycles`; the machine has then been reset. Raises RegisterPortError.
        """
        await self._port.write(ctx, {**values, "irq_enable": 1, "control": Control.LAUNCH})
        if not await self._interrupt(ctx, max_cycles):
            await self.reset(ctx)
            return None
        outcome = await self._outcome(ctx)
        await self._port.write(ctx, {"control": 0})
        return outcome

    async def reset(self, ctx: SimulatorContext) -> None:
        """Reset everything but registers and scratchpads. Raises SimulationError if that does not end."""
        await self._port.write(ctx, {"control": Control.RESET})
        for _ in range(RESET_PATIENCE):
            if not (await self._port.read(ctx, ["control"]))["control"] & Control.RESET:
                return
        raise SimulationError(f"Soft reset must be over after {RESET_PATIENCE} looks at it, and is not")

    async def _interrupt(self, ctx: SimulatorContext, max_cycles: int) -> bool:
        # Nothing runs here until then. The line may glitch, so that only its settled value counts. It rises with the
        # clock, and so never at the deadline itself, which Amaranth would not survive.
        deadline = ctx.posedge(self._irq).delay((max_cycles + 0.5) * CLOCK_PERIOD)
        while not ctx.get(self._irq):
            _, expired = await deadline
            if expired:
                break
        in_time = bool(ctx.get(self._irq))
        await ctx.tick()
        return in_time

    async def _outcome(self, ctx: SimulatorContext) -> Outcome:
        names = [register.name for register in self._registers.counters]
        queues = {name: f"tokens_{name}" for name in TOKEN_QUEUES}
        values = await self._port.read(ctx, [*names, "status", "fault_insn", *queues.values()])
        status, fault_insn = Status(values["status"]), values["fault_insn"]
        return Outcome(
            counters={name: values[name] for name in names},
            status=status,
            fault_insn=fault_insn if status & FAULTS and fault_insn != NO_INSN else None,
            tokens_left=Tokens(**{name: values[register] for name, register in queues.items()}),
        )
