"""What the memory engine's clients promise it: fetch of its bursts, store of its beats.

Load and compute hand on the bursts of their splitter, and store its bursts through a queue, as they are.
"""

from __future__ import annotations

from typing import Final

from amaranth.asserts import AnyConst
from amaranth.hdl import Assume, Elaboratable, Module, Signal, Value
from amaranth.lib import data

from tests.vta_hw.rtl.formal.harness import (
    Case,
    Proof,
    count,
    handshake,
    has_length,
    in_order,
    is_stable,
    not_withdrawn,
    past,
)
from vta_hw.rtl.axi import read_beat_layout
from vta_hw.rtl.dma import run_layout
from vta_hw.rtl.fetch import Prefetcher
from vta_hw.rtl.scratchpad import Geometry
from vta_hw.rtl.store import BeatReader
from vta_hw.rtl.transfer import Units, pattern_layout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType

CONFIG: Final = VTAConfig()
DEPTH: Final = 3
"""Words that fetch reads ahead in the proof: few, so that few cycles fill its queue."""

KEPT: Final = "valid is not withdrawn"
STABLE: Final = "the payload is stable while it waits"
ROOM: Final = "no more words are asked for than have room"
ORDER: Final = "words that arrive come out once, in order and unchanged, until they are cleared"
OFFERED: Final = "a word is offered two cycles after it arrived, if it is the first"
HALTED: Final = "no burst becomes valid during halt"
IDLE: Final = "idle means that no burst is offered and no word is awaited"


class PrefetcherProof(Proof):
    """Runs that fit into the queue, a memory that answers what it was asked, and a reader; halt and clear."""

    def __init__(self, prefetcher: Prefetcher) -> None:
        bits = ("valid", "accepted", "arrives", "ready", "halt", "clear")
        super().__init__({"run": run_layout(CONFIG), "beat": read_beat_layout(CONFIG), **dict.fromkeys(bits, 1)})
        self._prefetcher = prefetcher

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.prefetcher = prefetcher = self._prefetcher
        burst, beat, o = prefetcher.port.burst, prefetcher.port.beat, prefetcher.o
        awaited = Signal(8)
        inside = Signal(8)
        cleared = Signal()
        m.d.comb += [
            prefetcher.i.valid.eq(self.valid),
            prefetcher.i.payload.eq(self.run),
            burst.ready.eq(self.accepted),
            beat.valid.eq(self.arrives),
            beat.payload.eq(self.beat),
            o.ready.eq(self.ready),
            prefetcher.halt.eq(self.halt),
            prefetcher.clear.eq(self.clear),
            Assume((self.run.beats != 0) & (self.run.beats <= DEPTH)),
            Assume(self.run.addr[:3] == 0),
            Assume(~self.arrives | (awaited != 0)),
            Assume(~self.clear | prefetcher.idle),
        ]
        asked = Signal(8)
        with m.If(handshake(burst)):
            m.d.comb += asked.eq(burst.payload.len + 1)
        m.d.sync += [
            awaited.eq(awaited + asked - self.arrives),
            inside.eq(inside + self.arrives - handshake(o)),
            cleared.eq(cleared | self.clear),
        ]
        with m.If(self.clear):
            m.d.sync += inside.eq(0)
        self.claim(m, KEPT, not_withdrawn(m, burst))
        self.claim(m, STABLE, is_stable(m, burst))
        self.claim(m, HALTED, ~(burst.valid & self.halt) | past(m, burst.valid & ~burst.ready))
        self.claim(m, ROOM, awaited + inside <= DEPTH)
        self.claim(m, IDLE, prefetcher.idle == (~burst.valid & (awaited == 0)))
        due = past(m, (inside != 0) & (inside != handshake(o)) & ~self.clear)
        self.claim(m, OFFERED, ~due | o.valid)
        word = Value.cast(self.beat)[: CONFIG.bus_bits + 1]
        order = in_order(m, pushed=self.arrives, word=word, offered=o.valid, popped=handshake(o), out=o.payload)
        self.claim(m, ORDER, cleared | order)
        return m


WLAST: Final = "a burst has as many beats as it said, the last of which is marked"
READ: Final = "a beat is offered two cycles after its burst, unless one before it waits"


class BeatsProof(Proof):
    """Bursts of any length, rows and contents of OUT of any kind, and a port that takes beats when it likes."""

    def __init__(self, reader: BeatReader) -> None:
        geometry = Geometry.of(CONFIG, MemoryType.OUT)
        inputs = {
            "length": 8,
            "pattern": pattern_layout(Units(CONFIG, [MemoryType.OUT])),
            "data": data.ArrayLayout(geometry.elem_bits, geometry.banks),
        }
        super().__init__({**inputs, **dict.fromkeys(("bursts", "patterns", "ready"), 1)})
        self._reader = reader

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.reader = reader = self._reader
        i, o = reader.i, reader.o
        number, length = AnyConst(3), AnyConst(8)
        m.d.comb += [
            i.valid.eq(self.bursts),
            i.payload.eq(self.length),
            reader.pattern.valid.eq(self.patterns),
            reader.pattern.payload.eq(self.pattern),
            reader.read.data.eq(self.data),
            o.ready.eq(self.ready),
            Assume(not_withdrawn(m, i)),
            Assume(is_stable(m, i)),
            Assume(~(i.valid & (count(m, handshake(i)) == number)) | (i.payload == length)),
        ]
        self.claim(m, KEPT, not_withdrawn(m, o))
        self.claim(m, STABLE, is_stable(m, o))
        self.claim(m, WLAST, has_length(m, o, number, length))
        self.claim(m, READ, ~past(m, past(m, i.valid & (~o.valid | o.ready))) | o.valid)
        return m


def _stops_in_halt(prefetcher: Prefetcher, m: Module) -> None:
    """Withdraw a burst in halt."""
    with m.If(prefetcher.halt):
        m.d.comb += prefetcher.port.burst.valid.eq(0)


def _changes(prefetcher: Prefetcher, m: Module) -> None:
    """Cut a burst that waits to one beat."""
    burst = prefetcher.port.burst
    with m.If(past(m, burst.valid & ~burst.ready)):
        m.d.comb += burst.payload.len.eq(0)


def _asks_at_once(prefetcher: Prefetcher, m: Module) -> None:
    """Ask for every burst at once."""
    burst, made = prefetcher.port.burst, m.submodules.splitter.o
    m.d.comb += [burst.valid.eq(made.valid), made.ready.eq(burst.ready)]


def _forgets_what_it_asked_for(prefetcher: Prefetcher, m: Module) -> None:
    """Be idle while words are awaited."""
    m.d.comb += prefetcher.idle.eq(~prefetcher.port.burst.valid)


def _loses_a_word(prefetcher: Prefetcher, m: Module) -> None:
    """Lose a word that arrives in a cycle in which a burst is accepted."""
    with m.If(handshake(prefetcher.port.burst)):
        m.d.comb += m.submodules.queue.w_en.eq(0)


def _keeps_a_word_back(prefetcher: Prefetcher, m: Module) -> None:
    """Offer no word in a cycle in which another arrives."""
    with m.If(prefetcher.port.beat.valid):
        m.d.comb += prefetcher.o.valid.eq(0)


def _gives_up(reader: BeatReader, m: Module) -> None:
    """Drop a beat that waits."""
    with m.If(reader.o.valid & ~reader.o.ready):
        m.d.sync += reader.o.valid.eq(0)


def _reads_on(reader: BeatReader, m: Module) -> None:
    """Put what OUT answers into a beat that waits."""
    with m.If(reader.o.valid & ~reader.o.ready):
        m.d.sync += reader.o.payload.data.eq(reader.read.data.as_value())


def _ends_early(reader: BeatReader, m: Module) -> None:
    """Mark a beat that is read while another waits as the last."""
    with m.If(reader.o.valid):
        m.d.sync += reader.o.payload.last.eq(1)


CASES: Final = (
    Case(
        name="fetch's reader",
        component=lambda: Prefetcher(CONFIG, depth=DEPTH),
        proof=PrefetcherProof,
        depth=12,
        planted={
            KEPT: _stops_in_halt,
            STABLE: _changes,
            HALTED: _asks_at_once,
            ROOM: _asks_at_once,
            IDLE: _forgets_what_it_asked_for,
            ORDER: _loses_a_word,
            OFFERED: _keeps_a_word_back,
        },
    ),
    Case(
        name="store's beats",
        component=lambda: BeatReader(CONFIG),
        proof=BeatsProof,
        depth=12,
        planted={KEPT: _gives_up, STABLE: _reads_on, WLAST: _ends_early, READ: _gives_up},
    ),
)
