"""The memory behind the accelerator's AXI port, as a block that is simulated with it.

It decides when each channel moves, for any `MemoryTiming` but an interleaved one, without a line of Python per cycle.
What is stored lies elsewhere, because it is sparse: behind a storage port, which whoever simulates the block serves at
each clock edge. `vta_sim.cycle.dram` is the same memory for the cycle engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from amaranth.hdl import Elaboratable, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.axi import ID_BITS, MAX_BURST_BEATS
from vta_hw.spec.config import VTAConfig
from vta_sim.timing import MAX_LATENCY, MOST_BURSTS, error_words

SETTINGS: Final[Mapping[str, int]] = {
    "latency": MAX_LATENCY.bit_length(),
    "outstanding": MOST_BURSTS.bit_length(),
    "read_gap": 6,
    "write_gap": 6,
    "shared_bus": 1,
    "stall_threshold": 8,
    "random_state": 64,
}
"""Bits of the inputs that hold a timing, under the names of `vta_sim.timing.Settings`."""

TIME_BITS: Final = 64
CHANNELS: Final = ("ar", "r", "aw", "w", "b")
"""In the order of the bytes of the random numbers that make them pause."""


class Dram(wiring.Component):
    """Timing of a memory behind AXI4, for bursts such as the accelerator's: INCR, of up to 16 full bus words.

    Pins have AXI's names (`araddr`). No READY and no VALID depends on what the master shows in the same cycle. The
    inputs of `SETTINGS` describe the timing and must not change after the first cycle, so that a simulator that is
    compiled once serves all timings. Rules of AXI are not checked: `AxiMemory` does so.

    `restart`: what follows is random as it is from the first cycle on, and forgets who moved last; for a cycle in which
    no burst is at work. So the answers of a launch depend on what happens in it, and not on when it begins.

    Storage: a read is asked for in a cycle with `storage_read_enable`; from the next cycle on `storage_read_data` is
    the bus word at `storage_read_address`, and stays so until the next read. A cycle with `storage_write_enable` writes
    the bytes that have a strobe. If both mean the same word, the read may see either. A word is read when the one
    before it is taken, the first of a burst possibly already when the address is; it is written in the cycle after it
    and its address have met, at the latest in the one that first shows the response. So a master that waits for the
    response before it reads what it wrote, and for a word before it writes over it, reads what it reads of `AxiMemory`.

    errors: byte ranges that answer with SLVERR or DECERR: they read as zero and are not written.
    """

    def __init__(self, config: VTAConfig, *, errors: Mapping[range, int] | None = None) -> None:
        self._bus_bytes = config.bus_bits // 8
        self._errors = error_words(errors or {}, self._bus_bytes)
        address, word = config.address_bits, config.bus_bits
        self._burst_layout = data.StructLayout({"addr": address, "len": 8, "id": ID_BITS})
        self._word_layout = data.StructLayout({"data": word, "strb": self._bus_bytes})
        members = {"restart": In(1), **{name: In(bits) for name, bits in SETTINGS.items()}}
        for channel in ("ar", "aw"):
            members |= {f"{channel}addr": In(address), f"{channel}len": In(8), f"{channel}id": In(ID_BITS)}
        members |= {"wdata": In(word), "wstrb": In(self._bus_bytes), "wlast": In(1)}
        members |= {"rdata": Out(word), "rresp": Out(2), "rlast": Out(1), "rid": Out(ID_BITS)}
        members |= {"bresp": Out(2), "bid": Out(ID_BITS)}
        for channel in CHANNELS:
            towards, back = (Out, In) if channel in ("r", "b") else (In, Out)
            members |= {f"{channel}valid": towards(1), f"{channel}ready": back(1)}
        super().__init__(members | storage_members(config))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        now = Signal(TIME_BITS)
        # Nothing is ready in the first cycle, in which the random numbers get their first state.
        started = Signal()
        m.submodules.pauses = pauses = _Pauses()
        m.submodules.bus = bus = _Bus()
        m.d.comb += [
            pauses.running.eq(started & ~self.restart),
            bus.restart.eq(self.restart),
            pauses.first.eq(self.random_state),
            pauses.threshold.eq(self.stall_threshold),
            *(getattr(bus, name).eq(getattr(self, name)) for name in ("read_gap", "write_gap", "shared_bus")),
        ]
        m.d.sync += [now.eq(now + 1), started.eq(1)]
        self._read(m, now, started, pauses, bus)
        self._write(m, now, started, pauses, bus)
        return m

    def _read(self, m: Module, now: Signal, started: Signal, pauses: _Pauses, bus: _Bus) -> None:
        """AR and R: a queue of bursts, and behind it the burst whose words are being shown."""
        layout = data.StructLayout({**self._burst_layout.members, "due": TIME_BITS})
        m.submodules.read_bursts = waiting = _Queue(layout, MOST_BURSTS)
        accepted, burst = Signal(layout), Signal(layout)
        valid, held = Signal(), Signal()
        taken, ends, free = Signal(), Signal(), Signal()
        unfinished = Signal(range(MOST_BURSTS + 1))
        m.d.comb += [
            self.arready.eq(started & (unfinished < self.outstanding) & ~pauses.ar),
            accepted.addr.eq(self.araddr),
            accepted.len.eq(self.arlen),
            accepted.id.eq(self.arid),
            accepted.due.eq(now + self.latency + 1),
            bus.read_wants.eq(valid & ~held & (now >= burst.due) & ~pauses.r),
            self.rvalid.eq(held | bus.read_moves),
            self.rid.eq(burst.id),
            self.rlast.eq(burst.len == 0),
            taken.eq(self.rvalid & self.rready),
            ends.eq(taken & self.rlast),
            free.eq(~valid | ends),
            waiting.row.eq(accepted),
            waiting.pop.eq(free),
            waiting.push.eq(self.arvalid & self.arready & ~(free & waiting.empty)),
        ]
        following = Signal(layout)
        with m.If(~free):
            m.d.comb += [
                following.eq(burst),
                following.addr.eq(burst.addr + self._bus_bytes),
                following.len.eq(burst.len - 1),
                self.storage_read_enable.eq(taken),
            ]
        with m.Elif(waiting.empty):
            m.d.comb += [following.eq(accepted), self.storage_read_enable.eq(self.arvalid & self.arready)]
        with m.Else():
            m.d.comb += [following.eq(waiting.head), self.storage_read_enable.eq(1)]
        m.d.comb += self.storage_read_address.eq(following.addr)
        with m.If(self.storage_read_enable):
            m.d.sync += burst.eq(following)
        with m.If(free):
            m.d.sync += valid.eq(self.storage_read_enable)
        m.d.sync += [
            held.eq(self.rvalid & ~self.rready),
            unfinished.eq(unfinished + (self.arvalid & self.arready) - ends),
        ]
        response = self._response(m, burst.addr)
        m.d.comb += [self.rresp.eq(response), self.rdata.eq(self.storage_read_data)]
        if self._errors:
            with m.If(response != 0):
                m.d.comb += self.rdata.eq(0)

    def _write(self, m: Module, now: Signal, started: Signal, pauses: _Pauses, bus: _Bus) -> None:
        """AW, W and B: queues of addresses, words and responses, and the burst whose words are being written."""
        answered = Signal()
        addressed, filled = (Signal(range(MOST_BURSTS + 1)) for _ in range(2))
        m.submodules.write_bursts = bursts = _Queue(self._burst_layout, MOST_BURSTS)
        m.submodules.write_words = words = _Queue(self._word_layout, MOST_BURSTS * MAX_BURST_BEATS)
        m.d.comb += [
            self.awready.eq(started & (addressed < self.outstanding) & ~pauses.aw),
            bus.write_can.eq(started & (filled < self.outstanding) & ~pauses.w),
            self.wready.eq(bus.write_may),
            bus.write_valid.eq(self.wvalid),
            bursts.push.eq(self.awvalid & self.awready),
            bursts.row.addr.eq(self.awaddr),
            bursts.row.len.eq(self.awlen),
            bursts.row.id.eq(self.awid),
            words.push.eq(self.wvalid & self.wready),
            words.row.data.eq(self.wdata),
            words.row.strb.eq(self.wstrb),
        ]
        m.d.sync += [
            addressed.eq(addressed + bursts.push - answered),
            filled.eq(filled + (words.push & self.wlast) - answered),
        ]
        response, complete = self._place(m, bursts, words)
        self._respond(m, now, pauses, bursts.head.id, response, complete, answered)

    def _place(self, m: Module, bursts: _Queue, words: _Queue) -> tuple[Value, Signal]:
        """Write the oldest word to the oldest address; (response of the burst so far, it is the last word)."""
        beat = Signal(8)
        places, complete = Signal(), Signal()
        address = Signal.like(self.storage_write_address)
        m.d.comb += [
            places.eq(~bursts.empty & ~words.empty),
            complete.eq(places & (beat == bursts.head.len)),
            words.pop.eq(places),
            bursts.pop.eq(complete),
            address.eq(bursts.head.addr + beat * self._bus_bytes),
            self.storage_write_address.eq(address),
            self.storage_write_data.eq(words.head.data),
            self.storage_write_strobe.eq(words.head.strb),
            self.storage_write_enable.eq(places),
        ]
        with m.If(places):
            m.d.sync += beat.eq(Mux(complete, 0, beat + 1))
        response = self._response(m, address)
        if not self._errors:
            return response, complete
        before, worst = Signal(2), Signal(2)
        m.d.comb += [
            worst.eq(Mux(response > before, response, before)),
            self.storage_write_enable.eq(places & (response == 0)),
        ]
        with m.If(places):
            m.d.sync += before.eq(Mux(complete, 0, worst))
        return worst, complete

    def _respond(
        self, m: Module, now: Signal, pauses: _Pauses, ident: Value, response: Value, complete: Signal, answered: Signal
    ) -> None:
        """Answer bursts when their time has come; without latency that is the cycle in which they are `complete`."""
        layout = data.StructLayout({"resp": 2, "id": ID_BITS, "due": TIME_BITS})
        m.submodules.responses = responses = _Queue(layout, MOST_BURSTS)
        held = Signal()
        first, due = Signal(layout), Signal()
        m.d.comb += [
            responses.row.resp.eq(response),
            responses.row.id.eq(ident),
            responses.row.due.eq(now + self.latency),
            first.eq(Mux(responses.empty, responses.row, responses.head)),
            due.eq((~responses.empty | complete) & (now >= first.due)),
            self.bvalid.eq(held | (due & ~pauses.b)),
            self.bresp.eq(first.resp),
            self.bid.eq(first.id),
            answered.eq(self.bvalid & self.bready),
            responses.push.eq(complete & ~(answered & responses.empty)),
            responses.pop.eq(answered & ~responses.empty),
        ]
        m.d.sync += held.eq(self.bvalid & ~self.bready)

    def _response(self, m: Module, address: Value) -> Value:
        """The response of the bus word at an address."""
        response = Signal(2)
        word = address[(self._bus_bytes - 1).bit_length() :]
        for first, behind, code in self._errors:
            with m.If((word >= first) & (word < behind)):
                m.d.comb += response.eq(code)
        return response


def storage_members(config: VTAConfig) -> dict[str, wiring.Member]:
    """The pins of the storage port of `Dram`."""
    return {
        "storage_read_enable": Out(1),
        "storage_read_address": Out(config.address_bits),
        "storage_read_data": In(config.bus_bits),
        "storage_write_enable": Out(1),
        "storage_write_address": Out(config.address_bits),
        "storage_write_strobe": Out(config.bus_bits // 8),
        "storage_write_data": Out(config.bus_bits),
    }


class _Pauses(wiring.Component):
    """Which channels pause in this cycle, at random: each if its byte of the random number is below `threshold`.

    Xorshift with the shifts 13, 7 and 17, which goes through all numbers of 64 bits but zero. `first`: the number of
    the cycle after one without `running`.
    """

    def __init__(self) -> None:
        super().__init__(
            {"running": In(1), "first": In(64), "threshold": In(8), **{channel: Out(1) for channel in CHANNELS}}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        state, left, right, following = (Signal(64, name=name) for name in ("state", "left", "right", "following"))
        m.d.comb += [
            left.eq(state ^ state[:-13].shift_left(13)),
            right.eq(left ^ left[7:]),
            following.eq(right ^ right[:-17].shift_left(17)),
        ]
        # Numbers that nobody looks at are not made: whoever simulates them has less to do.
        with m.If(~self.running | (self.threshold != 0)):
            m.d.sync += state.eq(Mux(self.running, following, self.first))
        for number, channel in enumerate(CHANNELS):
            m.d.comb += getattr(self, channel).eq(state.word_select(number, 8) < self.threshold)
        return m


class _Bus(wiring.Component):
    """When words of data may move: gaps between those of a direction, and turns if there is one bus for both.

    `read_wants`: a new read word could be shown in this cycle, but for the bus; `read_moves`: it is shown.
    `write_can`: a word could be taken; `write_may`: it is, if `write_valid`. `restart`: be as in the first cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                **{name: In(SETTINGS[name]) for name in ("read_gap", "write_gap", "shared_bus")},
                "restart": In(1),
                "read_wants": In(1),
                "read_moves": Out(1),
                "write_can": In(1),
                "write_may": Out(1),
                "write_valid": In(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        read_rest, write_rest = Signal.like(self.read_gap), Signal.like(self.write_gap)
        read_was_last, write_waits, yields = Signal(), Signal(), Signal()
        write_free, write_moves = Signal(), Signal()
        m.d.comb += [
            write_free.eq(self.write_can & (write_rest == 0)),
            yields.eq(self.shared_bus & write_free & write_waits & read_was_last),
            self.read_moves.eq(self.read_wants & (read_rest == 0) & ~yields),
            self.write_may.eq(write_free & ~(self.shared_bus & self.read_moves)),
            write_moves.eq(self.write_valid & self.write_may),
        ]
        m.d.sync += write_waits.eq(self.write_valid & ~self.write_may)
        for rest in (read_rest, write_rest):
            with m.If(rest != 0):
                m.d.sync += rest.eq(rest - 1)
        with m.If(self.read_moves):
            m.d.sync += [read_rest.eq(self.read_gap), read_was_last.eq(1)]
            with m.If(self.shared_bus):
                m.d.sync += write_rest.eq(self.read_gap)
        with m.If(write_moves):
            m.d.sync += [write_rest.eq(self.write_gap), read_was_last.eq(0)]
            with m.If(self.shared_bus):
                m.d.sync += read_rest.eq(self.write_gap)
        with m.If(self.restart):
            m.d.sync += [read_rest.eq(0), write_rest.eq(0), read_was_last.eq(0)]
        return m


class _Queue(wiring.Component):
    """At most `depth` rows, a power of two; `head` is the oldest, from the cycle after it came, if not `empty`.

    `pop` has no effect on an empty queue.
    """

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        self._shape = shape
        self._depth = depth
        super().__init__({"push": In(1), "row": In(shape), "pop": In(1), "head": Out(shape), "empty": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.rows = rows = Memory(shape=self._shape, depth=self._depth, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        # A bit more than an address has, so that a full queue does not look like an empty one.
        first, behind = Signal(range(2 * self._depth)), Signal(range(2 * self._depth))
        m.d.comb += [
            self.empty.eq(first == behind),
            read.addr.eq(first),
            self.head.eq(read.data),
            write.addr.eq(behind),
            write.data.eq(self.row),
            write.en.eq(self.push),
        ]
        with m.If(self.push):
            m.d.sync += behind.eq(behind + 1)
        with m.If(self.pop & ~self.empty):
            m.d.sync += first.eq(first + 1)
        with m.If(self.empty & ~self.push):
            # So that what the simulating machine has to keep in its caches stays small.
            m.d.sync += [first.eq(0), behind.eq(0)]
        return m
