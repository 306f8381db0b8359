"""How long the memory of a simulated machine takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LATENCY: Final = 1 << 20
MAX_OUTSTANDING: Final = 1 << 10


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Timing of a memory behind an AXI port; by default it answers in the next cycle and never pauses.

    Each direction moves one bus word in a cycle. The bursts of a direction are pipelined and answered in the order of
    their addresses. Raises ValueError.

    latency: cycles that lie between the address of a read burst and its first word, and between the last word of a
    write burst and its response. outstanding: bursts of a direction, accepted and not yet answered to the end, beyond
    which no address is accepted. stalls: probability that a channel pauses in a cycle, 0 to below 1; writes may then
    also see an address that waits for its data, or data that wait for their address. interleave: words of read bursts
    with different IDs come mixed at random. seed: of the random choices.
    """

    latency: int = 0
    outstanding: int = 16
    stalls: float = 0.0
    interleave: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= MAX_LATENCY:
            raise ValueError(f"Memory latency must be 0 to {MAX_LATENCY} cycles, not {self.latency!r}")
        if not 1 <= self.outstanding <= MAX_OUTSTANDING:
            raise ValueError(f"Outstanding bursts must be 1 to {MAX_OUTSTANDING}, not {self.outstanding!r}")
        if not 0 <= self.stalls < 1:
            raise ValueError(f"Probability of stalls must be 0 to below 1, not {self.stalls!r}")
