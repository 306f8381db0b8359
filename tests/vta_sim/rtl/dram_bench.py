"""What surrounds `Dram` and `Machine` in Amaranth's simulator: the bytes that are stored, and settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, Value
from amaranth.sim import SimulatorContext

from vta_sim.memory import Memory
from vta_sim.timing import MemoryTiming


async def serve_storage(ctx: SimulatorContext, design: Any, memory: Callable[[], Memory]) -> None:
    """Serve the storage port of a design at each clock edge; reads see what was there before the edge."""
    bus_bytes = len(design.storage_write_strobe)
    enables = Value.cast(Cat(design.storage_read_enable, design.storage_write_enable))
    read, write = design.storage_read_address, design.storage_write_address
    ports = (enables, read, write, design.storage_write_strobe, design.storage_write_data)
    async for _, _, enabled, read_address, write_address, strobes, word in ctx.tick().sample(*ports):
        if enabled & 1:
            stored = memory().read(read_address, bus_bytes).tobytes()
            ctx.set(design.storage_read_data, int.from_bytes(stored, "little"))
        if enabled & 2:
            for place in range(bus_bytes):
                if strobes >> place & 1:
                    memory().write(write_address + place, bytes([word >> 8 * place & 255]))


def set_timing(ctx: SimulatorContext, design: Any, timing: MemoryTiming) -> None:
    """Tell a design how its memory behaves; before the first clock edge."""
    for name, value in timing.settings(len(design.storage_write_strobe))._asdict().items():
        ctx.set(getattr(design, name), value)
