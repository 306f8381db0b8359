"""The memory port: three readers share one AXI master with the writer."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.axi import AXI4, Client, ReadPort, Response, WritePort, read_beat_layout
from vta_hw.rtl.streams import SkidBuffer
from vta_hw.spec.config import VTAConfig

MAX_OUTSTANDING: Final = 63
"""Bursts that a client may have at work, unless told otherwise."""


class RoundRobin(wiring.Component):
    """Grants one of `count` requests, combinationally: the next one behind the request granted last.

    `grant` is the number of a request if there is any; a grant counts in a cycle with `taken`. So a request that stays
    is granted after at most ``count - 1`` others. ValueError on a `count` below 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        self._count = count
        super().__init__({"requests": In(count), "grant": Out(range(count)), "taken": In(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        last = Signal.like(self.grant, init=self._count - 1)
        with m.If(self.taken):
            m.d.sync += last.eq(self.grant)
        m.d.comb += self.grant.eq(last)
        with m.Switch(last):
            for number in range(self._count):
                with m.Case(number):
                    # The assignment that comes last wins.
                    for distance in reversed(range(1, self._count)):
                        candidate = (number + distance) % self._count
                        with m.If(self.requests[candidate]):
                            m.d.comb += self.grant.eq(candidate)
        return m


class Outstanding(wiring.Component):
    """Counts what has begun and not ended: at most `limit`, if nothing begins in a cycle with `full`.

    ValueError on a `limit` below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit!r}")
        self._limit = limit
        super().__init__({"begin": In(1), "end": In(1), "full": Out(1), "empty": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        count = Signal(range(self._limit + 1))
        m.d.sync += count.eq(count + self.begin - self.end)
        m.d.comb += [self.full.eq(count == self._limit), self.empty.eq(count == 0)]
        return m


class MemoryEngine(wiring.Component):
    """Joins the clients' ports to the AXI master.

    Readers take turns: a burst that waits goes after at most two of other readers. Bursts and beats of the writer
    travel independently of each other; beats may be ahead of their burst. What is accepted is at `axi` in the next
    cycle, unless something before it waits there, and one burst or beat of each kind is accepted per cycle. Beats and
    responses reach their client one cycle after they were at `axi`. Beats of different readers may come interleaved;
    those of one reader come in the order of its bursts, as AXI promises for equal ARID.

    A reader has at most `outstanding` bursts at work, and so has the writer, with the beats of no more bursts than
    that; further ones are not accepted until one has been answered. ValueError on an `outstanding` below 1.

    `idle`: no client offers a burst or beat, and every burst that was accepted has been answered to its client.
    `read_wait` and `write_wait`: in this cycle the memory holds up a read address, or a write address or beat.
    """

    def __init__(self, config: VTAConfig, *, outstanding: int = MAX_OUTSTANDING) -> None:
        if outstanding < 1:
            raise ValueError(f"outstanding must be at least 1, not {outstanding!r}")
        self._config = config
        self._outstanding = outstanding
        super().__init__(
            {
                "fetch": In(ReadPort(config)),
                "load": In(ReadPort(config)),
                "compute": In(ReadPort(config)),
                "store": In(WritePort(config)),
                "axi": Out(AXI4(config)),
                "idle": Out(1),
                "read_wait": Out(1),
                "write_wait": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        quiet = self._read(m) + self._write(m)
        ar, aw, w = self.axi.ar, self.axi.aw, self.axi.w
        m.d.comb += [
            self.idle.eq(Cat(quiet).all()),
            self.read_wait.eq(ar.valid & ~ar.ready),
            self.write_wait.eq((aw.valid & ~aw.ready) | (w.valid & ~w.ready)),
        ]
        return m

    def _read(self, m: Module) -> list[Value]:
        """Build the read side; the values returned are all 1 when it has nothing to do."""
        ports = {Client.FETCH: self.fetch, Client.LOAD: self.load, Client.COMPUTE: self.compute}
        m.submodules.turns = turns = RoundRobin(len(ports))
        m.submodules.ar = ar = SkidBuffer(self.axi.ar.payload.shape())
        connect(m, ar.o, flipped(self.axi.ar))
        r = self.axi.r
        beat = Signal(read_beat_layout(self._config))
        m.d.sync += [beat.data.eq(r.payload.data), beat.last.eq(r.payload.last), beat.error.eq(_is_error(r.payload))]
        m.d.comb += [r.ready.eq(1), ar.i.valid.eq(turns.requests.any()), turns.taken.eq(ar.i.valid & ar.i.ready)]
        quiet = []
        for client, port in ports.items():
            count = Outstanding(self._outstanding)
            m.submodules[f"{client.name.lower()}_bursts"] = count
            m.d.comb += [
                turns.requests[client].eq(port.burst.valid & ~count.full),
                count.begin.eq(port.burst.valid & port.burst.ready),
                count.end.eq(port.beat.valid & port.beat.payload.last),
                port.beat.payload.eq(beat),
            ]
            with m.If(turns.grant == client):
                m.d.comb += [
                    port.burst.ready.eq(ar.i.ready & ~count.full),
                    ar.i.payload.addr.eq(port.burst.payload.addr),
                    ar.i.payload.len.eq(port.burst.payload.len),
                    ar.i.payload.id.eq(client),
                ]
            m.d.sync += port.beat.valid.eq(r.valid & (r.payload.id == client))
            quiet += [~port.burst.valid, count.empty]
        return quiet

    def _write(self, m: Module) -> list[Value]:
        """Build the write side; the values returned are all 1 when it has nothing to do."""
        burst, beat, response = self.store.burst, self.store.beat, self.store.response
        m.submodules.aw = aw = SkidBuffer(self.axi.aw.payload.shape())
        m.submodules.w = w = SkidBuffer(self.axi.w.payload.shape())
        connect(m, aw.o, flipped(self.axi.aw))
        connect(m, w.o, flipped(self.axi.w))
        m.submodules.store_bursts = bursts = Outstanding(self._outstanding)
        m.submodules.store_beats = bodies = Outstanding(self._outstanding)
        within = Signal()  # Some beats of a burst were accepted, but not yet its last.
        m.d.comb += [
            aw.i.payload.addr.eq(burst.payload.addr),
            aw.i.payload.len.eq(burst.payload.len),
            aw.i.valid.eq(burst.valid & ~bursts.full),
            burst.ready.eq(aw.i.ready & ~bursts.full),
            bursts.begin.eq(burst.valid & burst.ready),
            w.i.payload.eq(beat.payload),
            w.i.valid.eq(beat.valid & ~bodies.full),
            beat.ready.eq(w.i.ready & ~bodies.full),
            bodies.begin.eq(beat.valid & beat.ready & beat.payload.last),
            bursts.end.eq(response.valid),
            bodies.end.eq(response.valid),
            self.axi.b.ready.eq(1),
        ]
        with m.If(beat.valid & beat.ready):
            m.d.sync += within.eq(~beat.payload.last)
        m.d.sync += [response.valid.eq(self.axi.b.valid), response.payload.eq(_is_error(self.axi.b.payload))]
        return [~burst.valid, ~beat.valid, ~within, bursts.empty, bodies.empty]


def _is_error(answer: data.View) -> Value:
    return (answer.resp == Response.SLVERR) | (answer.resp == Response.DECERR)
