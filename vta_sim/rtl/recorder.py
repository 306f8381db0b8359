"""The events of a launch, cycle by cycle, as they are seen in Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from amaranth.hdl import Cat, Value
from amaranth.sim import SimulatorContext
from numpy.typing import NDArray

from vta_hw.rtl.top import Top
from vta_hw.spec.config import VTAConfig
from vta_sim.trace import COUNTERS, Trace
from vta_sim.trace_build import SAMPLED, STROBES, trace_of_samples

_BITS: Final = (1 << len(SAMPLED)) - 1


def sampled_bits(top: Top) -> Value:
    """The bits of `SAMPLED` in a machine; bits of a value that nothing assigns to."""
    events, strobes = top.core.events, top.core.strobes
    return Cat(*(events[name] for name in COUNTERS), *(strobes[name] for name in STROBES))


class Recorder:
    """Notes when bits of `SAMPLED` change, in cycles that count, for the latest launch of a machine."""

    def __init__(self, top: Top) -> None:
        registers = top.registers
        counts = registers.running & ~registers.soft_reset
        self._packed = Cat(sampled_bits(top), counts, registers.start)
        self._changes: list[tuple[int, int]] = []

    def trace(self, config: VTAConfig, words: NDArray[np.uint64], counters: Mapping[str, int]) -> Trace:
        """The trace of the launch of `words`, which has ended with `counters`."""
        changes = np.array(self._changes, np.int64).reshape(-1, 2)
        trace = trace_of_samples(config, words, counters["cycle_count"], changes)
        trace.verify(counters)
        return trace

    async def process(self, ctx: SimulatorContext) -> None:
        """Watch, as a process of the simulator."""
        cycle = last = 0
        async for _, _, packed in ctx.tick().sample(self._packed):
            flags = packed >> len(SAMPLED)
            if flags & 1:
                bits = packed & _BITS
                if bits != last:
                    self._changes.append((cycle, bits))
                    last = bits
                cycle += 1
            if flags & 2:
                self._changes.clear()
                cycle = last = 0
