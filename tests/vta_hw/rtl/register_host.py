"""A host on the AXI4-Lite register port, for testbenches: reads, writes, random stalls, and rules of the channels."""

from __future__ import annotations

import random
from typing import Any

LIMIT = 200
"""Cycles after which a transfer that was not answered is a failure."""


class RegisterHost:
    """Reads and writes registers through an `AXI4Lite` interface of the machine.

    stall: the part of the transfers that wait up to eight cycles before the host gives or takes what is due on a
        channel. Without stalls it offers address and data in the cycle of the call, and takes answers at once.
    """

    def __init__(self, axi: Any, *, seed: int = 0, stall: float = 0.0) -> None:
        self._axi = axi
        self._rng = random.Random(seed)
        self._stall = stall

    def _wait(self) -> int:
        return self._rng.randint(1, 8) if self._rng.random() < self._stall else 0

    async def write(
        self, ctx: Any, address: int, value: int, *, strobe: int = 0xF, aw_wait: int = 0, w_wait: int = 0
    ) -> int:
        """Write a word; return the cycle, counted from the call, in which the answer was taken.

        Address and data come so many cycles later, on top of any stall.
        """
        aw, w, b = self._axi.aw, self._axi.w, self._axi.b
        ctx.set(aw.payload, address)
        ctx.set(w.payload, {"data": value, "strb": strobe})
        due = [
            (aw.valid, aw.ready, aw_wait + self._wait()),
            (w.valid, w.ready, w_wait + self._wait()),
            (b.ready, b.valid, self._wait()),
        ]
        cycle, response = await self._exchange(ctx, due, b.payload)
        assert response == 0
        return cycle

    async def read(self, ctx: Any, address: int) -> int:
        """Read a word."""
        value, _ = await self.timed_read(ctx, address)
        return value

    async def timed_read(self, ctx: Any, address: int) -> tuple[int, int]:
        """Read a word; return it, and the cycle, counted from the call, in which it was taken."""
        ar, r = self._axi.ar, self._axi.r
        ctx.set(ar.payload, address)
        due = [(ar.valid, ar.ready, self._wait()), (r.ready, r.valid, self._wait())]
        cycle, answer = await self._exchange(ctx, due, r.payload)
        assert answer.resp == 0
        return answer.data, cycle

    async def _exchange(self, ctx: Any, due: list[tuple[Any, Any, int]], answer: Any) -> tuple[int, Any]:
        """Do one transfer on each channel (our signal, theirs, cycles to wait); return that of the last.

        The last channel brings the answer.
        """
        left = set(range(len(due)))
        for cycle in range(LIMIT):
            for channel in left:
                ctx.set(due[channel][0], cycle >= due[channel][2])
            _, _, payload, *theirs = await ctx.tick().sample(answer, *(signal for _, signal, _ in due))
            for channel in sorted(left):
                if theirs[channel] and cycle >= due[channel][2]:
                    left.remove(channel)
                    ctx.set(due[channel][0], 0)
            if len(due) - 1 not in left:
                assert not left
                return cycle, payload
        raise AssertionError(f"channels {sorted(left)} took no transfer in {LIMIT} cycles")

    async def watch(self, ctx: Any) -> None:
        """Check for ever that an answer, once given, stays as it is until it is taken."""
        waiting: list[Any] = [None, None]
        while True:
            b, r = self._axi.b, self._axi.r
            _, _, *sampled = await ctx.tick().sample(
                b.valid, b.ready, b.payload, r.valid, r.ready, r.payload.data, r.payload.resp
            )
            for channel, (valid, ready, *payload) in enumerate((sampled[:3], sampled[3:])):
                assert waiting[channel] is None or (valid and payload == waiting[channel])
                waiting[channel] = payload if valid and not ready else None
