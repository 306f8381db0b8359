"""Buffers of streams: the RTL's own, and those of Amaranth that it uses."""

from __future__ import annotations

from typing import Any, Final

from amaranth.hdl import Elaboratable, Module
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from tests.vta_hw.rtl.formal.harness import (
    Case,
    Proof,
    count,
    handshake,
    in_order,
    is_stable,
    not_withdrawn,
    past,
)
from vta_hw.rtl.streams import SkidBuffer

WIDTH: Final = 4
DEPTH: Final = 3
"""Of the queues: they count and address alike at every depth from 3 on."""

ORDER: Final = "all come out once, in order and unchanged"
OFFERED: Final = "what is inside is offered"
ROOM: Final = "what has room is accepted"
KEPT: Final = "valid is not withdrawn"
STABLE: Final = "the payload is stable while it waits"


class BufferProof(Proof):
    """A buffer of `capacity` payloads; one is offered `latency` cycles after it was accepted, if it is the first."""

    def __init__(self, buffer: Any, *, i: Any, o: Any, capacity: int, latency: int) -> None:
        super().__init__({"payload": WIDTH, "valid": 1, "ready": 1})
        self._buffer = buffer
        self._i = i
        self._o = o
        self._capacity = capacity
        self._latency = latency

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.buffer = self._buffer
        i, o = self._i, self._o
        m.d.comb += [i.payload.eq(self.payload), i.valid.eq(self.valid), o.ready.eq(self.ready)]
        pushed, popped = handshake(i), handshake(o)
        inside = count(m, pushed) - count(m, popped)
        due = inside != 0
        for _ in range(self._latency - 1):
            due = past(m, due & (inside != popped))
        self.claim(m, ORDER, in_order(m, pushed=pushed, word=i.payload, offered=o.valid, popped=popped, out=o.payload))
        self.claim(m, OFFERED, ~due | o.valid)
        self.claim(m, ROOM, i.ready == (inside < self._capacity))
        self.claim(m, KEPT, not_withdrawn(m, o))
        self.claim(m, STABLE, is_stable(m, o))
        return m


def _of_skid_buffer(buffer: SkidBuffer) -> BufferProof:
    return BufferProof(buffer, i=buffer.i, o=buffer.o, capacity=2, latency=1)


def _of_queue(queue: SyncFIFO) -> BufferProof:
    return BufferProof(queue, i=queue.w_stream, o=queue.r_stream, capacity=DEPTH, latency=1)


def _of_buffered_queue(queue: SyncFIFOBuffered) -> BufferProof:
    return BufferProof(queue, i=queue.w_stream, o=queue.r_stream, capacity=DEPTH, latency=2)


def _accepts_always(buffer: SkidBuffer, m: Module) -> None:
    """Accept what there is no room for."""
    m.d.comb += buffer.i.ready.eq(1)


def _accepts_one(buffer: SkidBuffer, m: Module) -> None:
    """Accept one payload, but no second."""
    m.d.comb += buffer.i.ready.eq(~buffer.o.valid)


def _withdraws(buffer: SkidBuffer, m: Module) -> None:
    """Drop a payload that waits."""
    with m.If(buffer.o.valid & ~buffer.o.ready):
        m.d.sync += buffer.o.valid.eq(0)


def _overtakes(buffer: SkidBuffer, m: Module) -> None:
    """Put the newest payload before the one that waits."""
    m.d.sync += buffer.o.payload.eq(buffer.i.payload)


def _queue_accepts_always(queue: Any, m: Module) -> None:
    """Accept what there is no room for."""
    m.d.comb += queue.w_rdy.eq(1)


def _queue_accepts_fewer(queue: Any, m: Module) -> None:
    """Have room for one payload less."""
    m.d.comb += queue.w_rdy.eq(queue.level < DEPTH - 1)


def _queue_keeps_the_last(queue: Any, m: Module) -> None:
    """Keep the last payload back."""
    m.d.comb += queue.r_rdy.eq(queue.level > 1)


def _queue_withdraws(queue: Any, m: Module) -> None:
    """Offer nothing in a cycle in which something is accepted."""
    m.d.comb += queue.r_rdy.eq((queue.level != 0) & ~queue.w_en)


def _queue_passes_through(queue: Any, m: Module) -> None:
    """Offer what is at the input."""
    m.d.comb += queue.r_data.eq(queue.w_data)


def _buffered_queue_withdraws(queue: Any, m: Module) -> None:
    """Offer a payload for one cycle only."""
    with m.If(~queue.r_en):
        m.d.sync += queue.r_rdy.eq(0)


_QUEUE_BUGS: Final = {
    ORDER: _queue_accepts_always,
    OFFERED: _queue_keeps_the_last,
    ROOM: _queue_accepts_fewer,
    KEPT: _queue_withdraws,
    STABLE: _queue_passes_through,
}

CASES: Final = (
    Case(
        name="skid buffer",
        component=lambda: SkidBuffer(WIDTH),
        proof=_of_skid_buffer,
        depth=12,
        planted={ORDER: _accepts_always, OFFERED: _withdraws, ROOM: _accepts_one, KEPT: _withdraws, STABLE: _overtakes},
    ),
    Case(
        name="queue",
        component=lambda: SyncFIFO(width=WIDTH, depth=DEPTH),
        proof=_of_queue,
        depth=12,
        planted=_QUEUE_BUGS,
    ),
    Case(
        name="buffered queue",
        component=lambda: SyncFIFOBuffered(width=WIDTH, depth=DEPTH),
        proof=_of_buffered_queue,
        depth=12,
        planted={**_QUEUE_BUGS, OFFERED: _buffered_queue_withdraws, KEPT: _buffered_queue_withdraws},
    ),
)
