"""A well-behaved master without a simulator: bursts in, and what came of them."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from vta_sim.rtl.axi_memory import INCR, Address, Answer, AxiMemory, ReadWord, Response, Shown, WriteWord

BUS_BYTES = 8
SIZE = 3


def address(addr: int, beats: int, ident: int = 0) -> Address:
    """A burst of full words."""
    return Address(addr=addr, len=beats - 1, size=SIZE, burst=INCR, lock=0, id=ident)


def write_words(data: bytes, strobes: int = 0xFF) -> list[WriteWord]:
    """The words of a burst that writes `data`."""
    parts = [data[begin : begin + BUS_BYTES] for begin in range(0, len(data), BUS_BYTES)]
    last = len(parts) - 1
    return [WriteWord(int.from_bytes(part, "little"), strobes, int(k == last)) for k, part in enumerate(parts)]


@dataclass
class Master:
    """Shows what is in its queues, and notes what comes back with the cycle in which it came."""

    port: AxiMemory
    pause: float = 0.0
    seed: int = 0
    ar: deque[Address] = field(default_factory=deque)
    aw: deque[Address] = field(default_factory=deque)
    w: deque[WriteWord] = field(default_factory=deque)
    taken: list[tuple[int, str]] = field(default_factory=list)
    read: list[tuple[int, ReadWord]] = field(default_factory=list)
    written: list[tuple[int, Response]] = field(default_factory=list)
    cycle: int = 0
    shown: Shown = field(default_factory=Shown)
    answer: Answer = field(default_factory=Answer)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._held = Shown()

    def _may(self) -> bool:
        return self._random.random() >= self.pause

    def step(self) -> None:
        """One cycle: show, look at the answer of this cycle, let the memory see the edge."""
        before, answer = self._held, self.answer
        self.shown = shown = Shown(
            ar=self.ar[0] if self.ar and (before.ar is not None or self._may()) else None,
            aw=self.aw[0] if self.aw and (before.aw is not None or self._may()) else None,
            w=self.w[0] if self.w and (before.w is not None or self._may()) else None,
            r_ready=self._may(),
            b_ready=self._may(),
        )
        self._held = shown
        if shown.ar is not None and answer.ar_ready:
            self._take("ar", self.ar)
        if shown.aw is not None and answer.aw_ready:
            self._take("aw", self.aw)
        if shown.w is not None and answer.w_ready:
            self._take("w", self.w)
        if answer.r is not None and shown.r_ready:
            self.read.append((self.cycle, answer.r))
        if answer.b is not None and shown.b_ready:
            self.written.append((self.cycle, answer.b))
        self.answer = self.port.step(shown)
        self.cycle += 1

    def _take(self, channel: str, queue: deque[Address] | deque[WriteWord]) -> None:
        queue.popleft()
        self.taken.append((self.cycle, channel))
        # What comes next on this channel is a new offer, which a pause may delay.
        free: dict[str, Any] = {channel: None}
        self._held = self._held._replace(**free)

    def run(self, most: int = 10_000) -> None:
        """Until nothing is left to do."""
        for _ in range(most):
            self.step()
            if not (self.ar or self.aw or self.w) and self.port.idle:
                return
        raise AssertionError(f"not idle after {most} cycles")
