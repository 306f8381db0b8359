"""Token queues."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Assume, Elaboratable, Module, Signal

from tests.vta_hw.rtl.formal.harness import Case, Proof
from vta_hw.rtl.tokens import MAX_IN_FLIGHT, TokenQueue
from vta_hw.spec.registers import TOKEN_BITS

LIMIT: Final = (1 << TOKEN_BITS) - 1


class TokenProof(Proof):
    """A unit that begins instructions only with `room` and gives a token at the end of each; one that takes.

    `given` and `taken` follow the tokens in wide numbers, from any value that a driver loads.
    """

    def __init__(self, queue: TokenQueue) -> None:
        super().__init__({"begin": 1, "give": 1, "take": 1, "load": 1, "value": TOKEN_BITS})
        self._queue = queue

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.queue = queue = self._queue
        in_flight = Signal(range(MAX_IN_FLIGHT + 1))
        tokens = Signal(TOKEN_BITS + 2)
        m.d.comb += [
            Assume(~self.begin | (queue.push.room & (in_flight < MAX_IN_FLIGHT))),
            Assume(~self.give | (in_flight != 0)),
            Assume(~self.take | queue.pop.available),
            Assume(~self.load | ((in_flight == 0) & ~self.begin & ~self.take)),
            queue.push.give.eq(self.give),
            queue.pop.take.eq(self.take),
            queue.replace.eq(self.load),
            queue.value.eq(self.value),
        ]
        m.d.sync += [
            in_flight.eq(in_flight + self.begin - self.give),
            tokens.eq(tokens + self.give - self.take),
        ]
        with m.If(self.load):
            m.d.sync += tokens.eq(self.value)
        self.claim(m, "the count is given minus taken", queue.count == tokens)
        self.claim(m, "tokens are available while there are any", queue.pop.available == (tokens != 0))
        self.claim(
            m, "there is room while as many fit as may be in flight", queue.push.room | (tokens > LIMIT - MAX_IN_FLIGHT)
        )
        self.claim(m, "what is in flight has room", tokens + in_flight <= LIMIT)
        return m


def _loses_one(queue: TokenQueue, m: Module) -> None:
    """Lose the token that is given in the cycle in which another is taken."""
    with m.If(queue.push.give & queue.pop.take):
        m.d.sync += queue.count.eq(queue.count - 1)


def _forgets_the_last(queue: TokenQueue, m: Module) -> None:
    """Do not count the last token."""
    m.d.comb += queue.pop.available.eq(queue.count > 1)


def _has_no_room(queue: TokenQueue, m: Module) -> None:
    """Have room for one token less than there is."""
    m.d.comb += queue.push.room.eq(queue.count < LIMIT - MAX_IN_FLIGHT)


def _has_room_too_long(queue: TokenQueue, m: Module) -> None:
    """Have room for four instructions in flight, not for sixteen."""
    m.d.comb += queue.push.room.eq(queue.count <= LIMIT - 4)


CASES: Final = (
    Case(
        name="token queue",
        component=TokenQueue,
        proof=TokenProof,
        depth=10,
        inductive=True,
        planted={
            "the count is given minus taken": _loses_one,
            "tokens are available while there are any": _forgets_the_last,
            "there is room while as many fit as may be in flight": _has_no_room,
            "what is in flight has room": _has_room_too_long,
        },
    ),
)
