"""The memory engine: AXI's handshakes, turns, and that everything arrives."""

from __future__ import annotations

from typing import Any, Final

from amaranth.asserts import AnyConst
from amaranth.hdl import Assume, C, Cat, Elaboratable, Module, Signal, Value

from tests.vta_hw.rtl.formal.harness import (
    Bug,
    Case,
    Proof,
    count,
    handshake,
    has_length,
    in_order,
    is_stable,
    not_withdrawn,
    past,
    plant,
)
from vta_hw.rtl.axi import AXI4, Client, Response, burst_layout, write_beat_layout
from vta_hw.rtl.memory_engine import MemoryEngine, Outstanding, RoundRobin
from vta_hw.spec.config import VTAConfig

CONFIG: Final = VTAConfig()
LIMIT: Final = 2
"""Outstanding bursts in the proofs: few, so that few cycles reach it."""

GRANTED: Final = "a grant goes to who requests"
TURNS: Final = "who waits is granted after at most two others"


class RoundRobinProof(Proof):
    """Three that request; a request stays until it has been granted."""

    def __init__(self, turns: RoundRobin) -> None:
        super().__init__({"requests": 3, "taken": 1})
        self._turns = turns

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.turns = turns = self._turns
        m.d.comb += [
            turns.requests.eq(self.requests),
            turns.taken.eq(self.taken & self.requests.any()),
        ]
        patient = []
        for number in range(3):
            waits = self.requests[number]
            granted = turns.taken & (turns.grant == number)
            m.d.comb += Assume(~past(m, waits & ~granted) | waits)
            patient.append(_others(m, waits=waits, granted=granted, taken=turns.taken) <= 2)
        self.claim(m, GRANTED, (turns.grant < 3) & (~self.requests.any() | self.requests.bit_select(turns.grant, 1)))
        self.claim(m, TURNS, Cat(patient).all())
        return m


def _others(m: Module, *, waits: Any, granted: Any, taken: Any) -> Value:
    """Count the grants to others, this cycle's included, since one waits."""
    others = Signal(3)
    now = others + (taken & waits & ~granted)
    m.d.sync += others.eq(now)
    with m.If(granted | ~waits):
        m.d.sync += others.eq(0)
    return now


COUNTED: Final = "empty and full say how many there are"


class OutstandingProof(Proof):
    """Begins while it is not full, ends what has begun."""

    def __init__(self, outstanding: Outstanding) -> None:
        super().__init__({"begin": 1, "end": 1})
        self._outstanding = outstanding

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.outstanding = outstanding = self._outstanding
        m.d.comb += [outstanding.begin.eq(self.begin), outstanding.end.eq(self.end)]
        there = count(m, self.begin) - count(m, self.end)
        m.d.comb += [Assume(~self.begin | ~outstanding.full), Assume(~self.end | (there != 0))]
        exact = (outstanding.empty == (there == 0)) & (outstanding.full == (there == LIMIT))
        self.claim(m, COUNTED, exact & (there <= LIMIT))
        return m


OFFERED: Final = "what was accepted is offered, whatever READY does"
KEPT: Final = "VALID is not withdrawn"
STABLE: Final = "the payload is stable while it waits"
ORDER: Final = "bursts come out once and in order, with the ARID of their reader"
ACCEPTED: Final = "a burst is accepted in every cycle in which AR has room"
BEATS: Final = "a read beat reaches the reader of its RID, and no other, in the next cycle"
READY: Final = "RREADY is high"
LIMITED: Final = "no reader has more bursts at work than it may"
IDLE: Final = "idle means that nothing is offered or unanswered"


class ReadProof(Proof):
    """Three readers, and a memory that answers only what it was asked; nobody writes."""

    def __init__(self, engine: MemoryEngine) -> None:
        inputs: dict[str, Any] = {f"valid{client}": 1 for client in range(3)}
        inputs |= {f"burst{client}": burst_layout(CONFIG) for client in range(3)}
        answer = AXI4(CONFIG).members["r"].signature.members["payload"].shape
        super().__init__({**inputs, "ready": 1, "answers": 1, "answer": answer})
        self._engine = engine

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.engine = engine = self._engine
        ar, r = engine.axi.ar, engine.axi.r
        m.d.comb += [ar.ready.eq(self.ready), r.valid.eq(self.answers), r.payload.eq(self.answer)]
        ports = [engine.fetch, engine.load, engine.compute]
        accepted, unanswered = [], []
        for client, port in enumerate(ports):
            m.d.comb += [
                port.burst.valid.eq(getattr(self, f"valid{client}")),
                port.burst.payload.eq(getattr(self, f"burst{client}")),
                Assume(not_withdrawn(m, port.burst)),
                Assume(is_stable(m, port.burst)),
            ]
            mine = r.payload.id == client
            asked = count(m, handshake(ar) & (ar.payload.id == client))
            answered = count(m, r.valid & mine & r.payload.last)
            m.d.comb += Assume(~(r.valid & mine) | (asked != answered))
            accepted.append(handshake(port.burst))
            delivered = port.beat.valid & port.beat.payload.last
            unanswered.append(count(m, accepted[-1]) - count(m, delivered))
        m.d.comb += Assume(r.payload.id <= max(Client))
        self._claim_addresses(m, ports, accepted, unanswered)
        self._claim_beats(m, ports)
        offers = [port.burst.valid for port in ports]
        self.claim(m, LIMITED, Cat(bursts <= LIMIT for bursts in unanswered).all())
        self.claim(m, IDLE, engine.idle == ~(Cat(offers).any() | Cat(bursts != 0 for bursts in unanswered).any()))
        return m

    def _claim_addresses(self, m: Module, ports: list[Any], accepted: list[Any], unanswered: list[Any]) -> None:
        ar = self._engine.axi.ar
        inside = count(m, Cat(accepted).any()) - count(m, handshake(ar))
        self.claim(m, OFFERED, ar.valid == (inside != 0))
        self.claim(m, KEPT, not_withdrawn(m, ar))
        self.claim(m, STABLE, is_stable(m, ar))
        patient, eligible = [], []
        for port, taken, at_work in zip(ports, accepted, unanswered, strict=True):
            eligible.append(port.burst.valid & (at_work < LIMIT))
            others = _others(m, waits=eligible[-1], granted=taken, taken=Cat(accepted).any())
            patient.append(others <= 2)
        one = sum(accepted[1:], start=accepted[0])
        self.claim(m, ACCEPTED, one == (Cat(eligible).any() & (inside < 2)))
        self.claim(m, TURNS, Cat(patient).all())
        word = Signal.like(ar.payload)
        for client, (port, taken) in enumerate(zip(ports, accepted, strict=True)):
            with m.If(taken):
                m.d.comb += Value.cast(word).eq(Cat(port.burst.payload, C(client, 2)))
        order = in_order(
            m, pushed=Cat(accepted).any(), word=word, offered=ar.valid, popped=handshake(ar), out=ar.payload
        )
        self.claim(m, ORDER, order)

    def _claim_beats(self, m: Module, ports: list[Any]) -> None:
        r = self._engine.axi.r
        word = Cat(r.payload.data, r.payload.resp.matches(Response.SLVERR, Response.DECERR), r.payload.last)
        before = past(m, word)
        routed = []
        for client, port in enumerate(ports):
            beat = port.beat
            routed.append(beat.valid == past(m, r.valid & (r.payload.id == client)))
            routed.append(~beat.valid | (Value.cast(beat.payload) == before))
        self.claim(m, BEATS, Cat(routed).all())
        self.claim(m, READY, r.ready)


WRITES: Final = "bursts and beats come out once and in order, with AWID 0"
WLAST: Final = "WLAST comes with the beat that AWLEN tells, if the writer does so"
RESPONSES: Final = "a response reaches the writer in the next cycle, and none is lost"
ROOM: Final = "what has room is accepted"


class WriteProof(Proof):
    """A writer whose bursts and beats run ahead of each other as they like, and a memory; nobody reads.

    The writer keeps its word about the length of one of its bursts, whichever.
    """

    def __init__(self, engine: MemoryEngine) -> None:
        answer = AXI4(CONFIG).members["b"].signature.members["payload"].shape
        layouts = {"burst": burst_layout(CONFIG), "beat": write_beat_layout(CONFIG), "answer": answer}
        super().__init__({**layouts, "bursts": 1, "beats": 1, "answers": 1, "aw_ready": 1, "w_ready": 1})
        self._engine = engine

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.engine = engine = self._engine
        aw, w, b, store = engine.axi.aw, engine.axi.w, engine.axi.b, engine.store
        m.d.comb += [
            store.burst.valid.eq(self.bursts),
            store.burst.payload.eq(self.burst),
            store.beat.valid.eq(self.beats),
            store.beat.payload.eq(self.beat),
            aw.ready.eq(self.aw_ready),
            w.ready.eq(self.w_ready),
            b.valid.eq(self.answers),
            b.payload.eq(self.answer),
        ]
        for stream in (store.burst, store.beat):
            m.d.comb += [Assume(not_withdrawn(m, stream)), Assume(is_stable(m, stream))]
        answered = count(m, b.valid)
        written = count(m, handshake(w) & w.payload.last)
        m.d.comb += Assume(~b.valid | ((answered < count(m, handshake(aw))) & (answered < written)))
        for name, stream in (("AW", aw), ("W", w)):
            self.claim(m, f"{name}: {KEPT}", not_withdrawn(m, stream))
            self.claim(m, f"{name}: {STABLE}", is_stable(m, stream))
        self._claim_flow(m)
        self._claim_content(m)
        is_error = b.payload.resp.matches(Response.SLVERR, Response.DECERR)
        arrived = store.response.valid == past(m, b.valid)
        self.claim(m, RESPONSES, b.ready & arrived & (store.response.payload == past(m, is_error)))
        return m

    def _claim_flow(self, m: Module) -> None:
        """Say when something is accepted and offered."""
        engine = self._engine
        aw, w, store = engine.axi.aw, engine.axi.w, engine.store
        end = handshake(store.beat) & store.beat.payload.last
        responded = count(m, store.response.valid)
        bursts, bodies = count(m, handshake(store.burst)) - responded, count(m, end) - responded
        body = Signal()
        with m.If(handshake(store.beat)):
            m.d.sync += body.eq(~store.beat.payload.last)
        for name, stream, source, at_work in (("AW", aw, store.burst, bursts), ("W", w, store.beat, bodies)):
            inside = count(m, handshake(source)) - count(m, handshake(stream))
            self.claim(m, f"{name}: {OFFERED}", stream.valid == (inside != 0))
            self.claim(m, f"{name}: {ROOM}", source.ready == ((inside < 2) & (at_work < LIMIT)))
        offers = store.burst.valid | store.beat.valid
        self.claim(m, IDLE, engine.idle == ~(offers | body | (bursts != 0) | (bodies != 0)))

    def _claim_content(self, m: Module) -> None:
        """Say what comes out."""
        aw, w, store = self._engine.axi.aw, self._engine.axi.w, self._engine.store
        number, length = AnyConst(3), AnyConst(8)
        given, taken = handshake(store.burst), handshake(aw)
        out = Cat(aw.payload.addr, aw.payload.len)
        addresses = in_order(m, pushed=given, word=store.burst.payload, offered=aw.valid, popped=taken, out=out)
        beats = in_order(
            m,
            pushed=handshake(store.beat),
            word=store.beat.payload,
            offered=w.valid,
            popped=handshake(w),
            out=w.payload,
        )
        self.claim(m, WRITES, addresses & beats & (aw.payload.id == 0))
        told = ~(store.burst.valid & (count(m, given) == number)) | (store.burst.payload.len == length)
        m.d.comb += [Assume(told), Assume(has_length(m, store.beat, number, length))]
        tells = ~(aw.valid & (count(m, taken) == number)) | (aw.payload.len == length)
        self.claim(m, WLAST, tells & has_length(m, w, number, length))


def _is_unfair(turns: RoundRobin, m: Module) -> None:
    """Prefer the lowest number."""
    for number in reversed(range(3)):
        with m.If(turns.requests[number]):
            m.d.comb += turns.grant.eq(number)


def _is_blind(turns: RoundRobin, m: Module) -> None:
    """Grant number 0, whoever requests."""
    m.d.comb += turns.grant.eq(0)


def _miscounts(outstanding: Outstanding, m: Module) -> None:
    """Be empty in a cycle in which one begins and one ends."""
    with m.If(outstanding.begin & outstanding.end):
        m.d.comb += outstanding.empty.eq(1)


def _is_never_full(outstanding: Outstanding, m: Module) -> None:
    m.d.comb += outstanding.full.eq(0)


def _waits_for_ready(name: str) -> Bug:
    def bug(engine: MemoryEngine, m: Module) -> None:
        """Let VALID wait for READY, as the memory engine of the Chisel VTA does (VTA spec 6.3)."""
        stream = getattr(engine.axi, name)
        m.d.comb += stream.valid.eq(getattr(m.submodules, name).o.valid & stream.ready)

    return bug


def _withdraws(name: str) -> Bug:
    def bug(engine: MemoryEngine, m: Module) -> None:
        """Lower VALID for a cycle behind each cycle without READY."""
        stream = getattr(engine.axi, name)
        refused = past(m, stream.valid & ~stream.ready)
        m.d.comb += stream.valid.eq(getattr(m.submodules, name).o.valid & ~refused)

    return bug


def _changes(name: str) -> Bug:
    def bug(engine: MemoryEngine, m: Module) -> None:
        """Replace the payload by zero while it waits."""
        stream = getattr(engine.axi, name)
        with m.If(past(m, stream.valid & ~stream.ready)):
            m.d.comb += stream.payload.eq(0)

    return bug


def _mixes_readers(engine: MemoryEngine, m: Module) -> None:
    """Send all bursts with the ARID of the load unit."""
    m.d.comb += engine.axi.ar.payload.id.eq(Client.LOAD)


def _forgets_a_reader(engine: MemoryEngine, m: Module) -> None:
    """Never accept a burst of the load unit."""
    m.d.comb += engine.load.burst.ready.eq(0)


def _prefers_fetch(engine: MemoryEngine, m: Module) -> None:
    """Prefer fetch to the others."""
    plant(m.submodules.turns, _is_unfair)


def _tells_everybody(engine: MemoryEngine, m: Module) -> None:
    """Give the load unit the beats of all readers."""
    m.d.sync += engine.load.beat.valid.eq(engine.axi.r.valid)


def _refuses_beats(engine: MemoryEngine, m: Module) -> None:
    """Lower RREADY behind a beat of fetch."""
    m.d.comb += engine.axi.r.ready.eq(~engine.fetch.beat.valid)


def _asks_without_limit(engine: MemoryEngine, m: Module) -> None:
    """Never count the bursts of the load unit as too many."""
    plant(m.submodules.load_bursts, _is_never_full)


def _forgets_a_reader_in_idle(engine: MemoryEngine, m: Module) -> None:
    """Be idle whatever the compute unit awaits."""
    m.d.comb += engine.idle.eq(m.submodules.fetch_bursts.empty & m.submodules.load_bursts.empty)


def _takes_bursts_without_limit(engine: MemoryEngine, m: Module) -> None:
    """Accept bursts beyond the limit."""
    m.d.comb += engine.store.burst.ready.eq(m.submodules.aw.i.ready)


def _takes_beats_without_limit(engine: MemoryEngine, m: Module) -> None:
    """Accept beats beyond the limit."""
    m.d.comb += engine.store.beat.ready.eq(m.submodules.w.i.ready)


def _forgets_beats_in_idle(engine: MemoryEngine, m: Module) -> None:
    """Be idle whatever beats await their response."""
    offers = engine.store.burst.valid | engine.store.beat.valid
    m.d.comb += engine.idle.eq(~offers & m.submodules.store_bursts.empty)


def _repeats_a_beat(engine: MemoryEngine, m: Module) -> None:
    """Send a beat again in the cycle behind that of a burst."""
    w = m.submodules.w
    m.d.comb += w.o.ready.eq(engine.axi.w.ready & ~past(m, handshake(engine.store.burst)))


def _ends_bursts_early(engine: MemoryEngine, m: Module) -> None:
    """Raise WLAST with every beat that follows another."""
    with m.If(past(m, engine.axi.w.valid)):
        m.d.comb += engine.axi.w.payload.last.eq(1)


def _loses_a_response(engine: MemoryEngine, m: Module) -> None:
    """Lose a response that follows another at once."""
    with m.If(engine.store.response.valid):
        m.d.sync += engine.store.response.valid.eq(0)


def _engine() -> MemoryEngine:
    return MemoryEngine(CONFIG, outstanding=LIMIT)


CASES: Final = (
    Case(
        name="round robin",
        component=lambda: RoundRobin(3),
        proof=RoundRobinProof,
        depth=16,
        planted={GRANTED: _is_blind, TURNS: _is_unfair},
    ),
    Case(
        name="outstanding",
        component=lambda: Outstanding(LIMIT),
        proof=OutstandingProof,
        depth=12,
        planted={COUNTED: _miscounts},
    ),
    Case(
        name="memory engine, read addresses",
        component=_engine,
        proof=ReadProof,
        depth=10,
        planted={
            OFFERED: _waits_for_ready("ar"),
            KEPT: _withdraws("ar"),
            STABLE: _changes("ar"),
            ORDER: _mixes_readers,
            ACCEPTED: _forgets_a_reader,
            TURNS: _prefers_fetch,
        },
    ),
    Case(
        name="memory engine, read data",
        component=_engine,
        proof=ReadProof,
        depth=11,
        planted={
            BEATS: _tells_everybody,
            READY: _refuses_beats,
            LIMITED: _asks_without_limit,
            IDLE: _forgets_a_reader_in_idle,
        },
    ),
    Case(
        name="memory engine, write channels",
        component=_engine,
        proof=WriteProof,
        depth=12,
        planted={
            f"AW: {OFFERED}": _waits_for_ready("aw"),
            f"AW: {KEPT}": _withdraws("aw"),
            f"AW: {STABLE}": _changes("aw"),
            f"AW: {ROOM}": _takes_bursts_without_limit,
            f"W: {OFFERED}": _waits_for_ready("w"),
            f"W: {KEPT}": _withdraws("w"),
            f"W: {STABLE}": _changes("w"),
            f"W: {ROOM}": _takes_beats_without_limit,
            RESPONSES: _loses_a_response,
            IDLE: _forgets_beats_in_idle,
        },
    ),
    Case(
        name="memory engine, writes",
        component=_engine,
        proof=WriteProof,
        depth=10,
        planted={WRITES: _repeats_a_beat, WLAST: _ends_bursts_early},
    ),
)
