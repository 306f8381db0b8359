"""Since when each unit of a simulated machine has been waiting for tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from amaranth.hdl import Cat
from amaranth.sim import SimulatorContext

from vta_hw.rtl.top import Top
from vta_hw.spec.instructions import Module

_UNITS: Final = (Module.LOAD, Module.COMPUTE, Module.STORE)


class WaitWatch:
    """Looks, in every cycle of a launch, which units do nothing but wait for tokens; to be simulated with `process`.

    A cycle counts as waiting if it counts in `load_wait_token`, `store_wait_token`, or one of `compute_wait_load` and
    `compute_wait_store`.
    """

    def __init__(self, top: Top) -> None:
        events = top.core.events
        self._running = top.registers.running
        self._waiting = Cat(
            events.load_wait_token, events.compute_wait_load | events.compute_wait_store, events.store_wait_token
        )
        self._cycles = 0
        self._since = [0, 0, 0]

    @property
    def since(self) -> Mapping[Module, int]:
        """Of the launch so far, or of the last one: the first cycle of the wait that has not ended, for who waits."""
        return {unit: since for unit, since in zip(_UNITS, self._since, strict=True) if since < self._cycles}

    async def process(self, ctx: SimulatorContext) -> None:
        """Watch the launches, one after the other."""
        over = True
        async for _, _, running, waiting in ctx.tick().sample(self._running, self._waiting):
            if running and over:
                self._cycles, self._since = 0, [0, 0, 0]
            over = not running
            if running:
                self._cycles += 1
                for unit in range(len(_UNITS)):
                    if not waiting >> unit & 1:
                        self._since[unit] = self._cycles
