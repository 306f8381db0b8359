"""Dependence tokens: four counters between the units, with back-pressure instead of loss (VTA spec 5.2 and 11)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vta_hw.spec.registers import TOKEN_BITS

MAX_IN_FLIGHT: Final = 16
"""Instructions a unit may have in flight: `room` promises a place for a token of each."""


class TokenPop(wiring.Signature):
    """Of the unit that waits: `take` only in a cycle with `available`."""

    def __init__(self) -> None:
        super().__init__({"available": In(1), "take": Out(1)})


class TokenPush(wiring.Signature):
    """Of the unit that gives: an instruction that will push begins only in a cycle with `room`."""

    def __init__(self) -> None:
        super().__init__({"room": In(1), "give": Out(1)})


class TokenQueue(wiring.Component):
    """Counts the tokens one unit has given another.

    A token given in one cycle is available in the next. `room` holds while `MAX_IN_FLIGHT` more tokens fit, so that a
    unit that checks it before it begins an instruction never loses the token it gives at the end. `replace` puts
    `value` in the place of the count, which a driver does between launches; `count` is the tokens there are.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "push": In(TokenPush()),
                "pop": In(TokenPop()),
                "replace": In(1),
                "value": In(TOKEN_BITS),
                "count": Out(TOKEN_BITS),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        limit = (1 << TOKEN_BITS) - 1
        m.d.comb += [
            self.push.room.eq(self.count <= limit - MAX_IN_FLIGHT),
            self.pop.available.eq(self.count != 0),
        ]
        with m.If(self.replace):
            m.d.sync += self.count.eq(self.value)
        with m.Elif(self.push.give & ~self.pop.take):
            m.d.sync += self.count.eq(self.count + 1)
        with m.Elif(self.pop.take & ~self.push.give):
            m.d.sync += self.count.eq(self.count - 1)
        return m
