"""How a host launches instructions: register accesses alone, as a driver of a board makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from amaranth.hdl import Value
from amaranth.sim import SimulatorContext

from vta_hw.rtl.tokens import TOKEN_BITS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, TOKEN_QUEUES, Control, RegisterMap, Status
from vta_sim.errors import SimulationError
from vta_sim.functional.engine import Bases
from vta_sim.rtl.register_port import RegisterPort

CLOCK_PERIOD: Final = 1e-8
"""Seconds."""

INSN_ALIGNMENT: Final = 16
NO_INSN: Final = 0xFFFF_FFFF
"""What `fault_insn` reads when the first fault was a deadlock, which belongs to no single instruction."""
MAX_TOKENS: Final = (1 << TOKEN_BITS) - 1
RESET_PATIENCE: Final = 100_000
"""Looks at the control register in which a soft reset must be over: every burst that was made has to be answered."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the registers say after a launch; see `RtlReport`."""

    counters: Mapping[str, int]
    status: Status
    fault_insn: int | None
    tokens_left: Tokens


def parameters(
    config: VTAConfig, insn_address: int, insn_count: int, bases: Bases, tokens: Tokens
) -> Mapping[str, int]:
    """Values of the registers that describe a launch. Raises SimulationError for one that the machine cannot do."""
    if insn_count < 1:
        raise SimulationError(f"Launch must have at least 1 instruction, not {insn_count}")
    if insn_address % INSN_ALIGNMENT:
        raise SimulationError(
            f"Instructions must begin at a multiple of {INSN_ALIGNMENT} bytes, not at {insn_address:#x}"
        )
    end, limit = insn_address + INSN_ALIGNMENT * insn_count, 1 << config.address_bits
    if end > limit:
        raise SimulationError(f"Instructions must end within the {config.address_bits} address bits, not at {end:#x}")
    for name, base in asdict(bases).items():
        unit = min(config.dram_elem_bytes(MemoryType[name.upper()]), config.bus_bits // 8)
        if base % unit:
            raise SimulationError(f"Base register {name} must be a multiple of {unit} bytes, not {base:#x}")
        if base >= limit:
            raise SimulationError(
                f"Base register {name} must fit the {config.address_bits} address bits, not {base:#x}"
            )
    for name in TOKEN_QUEUES:
        if getattr(tokens, name) > MAX_TOKENS:
            raise SimulationError(f"Tokens of {name} must be at most {MAX_TOKENS}, not {getattr(tokens, name)}")
    return {
        "insn_count": insn_count,
        "insn_base": insn_address,
        **{f"{name}_base": base for name, base in asdict(bases).items()},
        **{f"tokens_{name}": getattr(tokens, name) for name in TOKEN_QUEUES},
    }


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
