"""How long the memory of a simulated machine takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_LATENCY: Final = 1 << 20
MAX_OUTSTANDING: Final = 1 << 10
MOST_BURSTS: Final = 256
"""Bursts of a direction at work in a compiled memory, whatever the timing allows: more than the accelerator has."""
STALL_STEPS: Final = 256
"""A compiled memory rounds the probability of stalls to a multiple of one in so many, neither 0 nor 1."""

_WORD_MASK: Final = (1 << 64) - 1


class Settings(NamedTuple):
    """A timing as small numbers, for a memory that is compiled.

    latency, outstanding (up to `MOST_BURSTS`), shared_bus: of `MemoryTiming`. read_gap, write_gap: cycles between two
    bus words of a direction in which none moves. stall_threshold: a channel pauses in a cycle if a random byte is less.
    random_state: the first state of the random numbers, 64 bits, not zero.
    """

    latency: int
    outstanding: int
    read_gap: int
    write_gap: int
    shared_bus: int
    stall_threshold: int
    random_state: int


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Timing of a memory behind an AXI port; by default it answers in the next cycle and never pauses.

    The bursts of a direction are pipelined and answered in the order of their addresses. Raises ValueError.

    latency: cycles that lie between the address of a read burst and its first word, and between the last word of a
    write burst and its response; a word that was taken before its address counts from the address, and words that wait
    for one follow each other in a cycle each. outstanding: bursts of a direction, accepted and not yet answered to the
    end, beyond which no address is accepted, and no word of a further burst. stalls: probability that a channel pauses
    in a cycle, 0 to below 1; writes may then also see an address that waits for its data, or data that wait for their
    address. interleave: words of read bursts with different IDs come mixed at random. seed: of the random choices.

    read_bytes, write_bytes: bytes that a direction moves per cycle, a power of two up to the width of the bus, which is
    what None stands for. A word of the bus moves in the cycle in which it is first shown (read) or taken (write), and
    then no other for the bus width divided by these bytes: a narrow memory shows or takes a word every so many cycles.

    shared_bus: both directions share one data bus. In a cycle either a read word is first shown or a write word may be
    taken, and each then occupies the bus for both. A read wants the bus when its word is due and the one before it was
    taken; a write is known to want it when a word that could be taken is offered for more than a cycle. If both want
    it, the direction gets it that did not move the last word; otherwise a read that wants it, and in its absence
    writes. So a word waits for at most one of the other direction, beside what else holds it up.
    """

    latency: int = 0
    outstanding: int = 16
    stalls: float = 0.0
    interleave: bool = False
    seed: int = 0
    read_bytes: int | None = None
    write_bytes: int | None = None
    shared_bus: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= MAX_LATENCY:
            raise ValueError(f"Memory latency must be 0 to {MAX_LATENCY} cycles, not {self.latency!r}")
        if not 1 <= self.outstanding <= MAX_OUTSTANDING:
            raise ValueError(f"Outstanding bursts must be 1 to {MAX_OUTSTANDING}, not {self.outstanding!r}")
        if not 0 <= self.stalls < 1:
            raise ValueError(f"Probability of stalls must be 0 to below 1, not {self.stalls!r}")
        for name, nbytes in (("read", self.read_bytes), ("write", self.write_bytes)):
            if nbytes is not None and (nbytes < 1 or nbytes & (nbytes - 1)):
                raise ValueError(f"Bytes to {name} per cycle must be a power of two, not {nbytes!r}")

    def gaps(self, bus_bytes: int) -> tuple[int, int]:
        """Cycles without a word between two words that are read, and between two that are written.

        Raises ValueError if the memory is wider than the bus.
        """
        return _gap("read", self.read_bytes, bus_bytes), _gap("write", self.write_bytes, bus_bytes)

    def settings(self, bus_bytes: int) -> Settings:
        """The same for a compiled memory on a bus of `bus_bytes` bytes.

        Raises ValueError if the memory is wider than the bus, or interleaves.
        """
        if self.interleave:
            raise ValueError("Interleaved answers must be left to Amaranth's simulator, not asked of a compiled memory")
        read_gap, write_gap = self.gaps(bus_bytes)
        threshold = min(max(round(self.stalls * STALL_STEPS), 1), STALL_STEPS - 1) if self.stalls else 0
        return Settings(
            latency=self.latency,
            outstanding=min(self.outstanding, MOST_BURSTS),
            read_gap=read_gap,
            write_gap=write_gap,
            shared_bus=int(self.shared_bus),
            stall_threshold=threshold,
            random_state=_scattered(self.seed),
        )


def error_words(errors: Mapping[range, int], bus_bytes: int) -> list[tuple[int, int, int]]:
    """(first bus word, behind the last, response) of byte ranges that answer with an error, the lowest response first.

    A word that a range touches answers with its response, and with the highest of several.
    """
    touched = ((bad.start // bus_bytes, -(-bad.stop // bus_bytes), code) for bad, code in errors.items())
    return sorted((word for word in touched if word[0] < word[1]), key=lambda word: word[2])


def _gap(name: str, nbytes: int | None, bus_bytes: int) -> int:
    if nbytes is None:
        return 0
    if nbytes > bus_bytes:
        raise ValueError(f"Bytes to {name} per cycle must be at most the {bus_bytes} of the bus, not {nbytes}")
    return bus_bytes // nbytes - 1


def _scattered(seed: int) -> int:
    """A state of 64 bits that is not zero, with bits that look random for seeds that are neighbours, too.

    The finaliser of SplitMix64, which takes only one seed to zero.
    """
    state = (seed + 0x9E37_79B9_7F4A_7C15) & _WORD_MASK
    state = (state ^ state >> 30) * 0xBF58_476D_1CE4_E5B9 & _WORD_MASK
    state = (state ^ state >> 27) * 0x94D0_49BB_1331_11EB & _WORD_MASK
    return state ^ state >> 31 or 1
