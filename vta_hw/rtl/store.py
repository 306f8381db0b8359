"""The store unit: rows of output tiles from the OUT scratchpad to DRAM (VTA spec 3.3)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.axi import WritePort, write_beat_layout
from vta_hw.rtl.dma import BurstSplitter
from vta_hw.rtl.instruction import FAULT, QUEUED, view_layout
from vta_hw.rtl.memory_engine import Outstanding
from vta_hw.rtl.scratchpad import Geometry, WideReadSignature
from vta_hw.rtl.tokens import MAX_IN_FLIGHT, TokenPop, TokenPush
from vta_hw.rtl.transfer import BeatWalker, RowWalker, Units, log2, pattern_layout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.registers import Status

MAX_BURSTS: Final = 16
"""Bursts at work: on their way to the port, or there, or awaiting their responses."""

_OUT: Final = Const(MemoryType.OUT, 3)

_IN_FLIGHT: Final = data.StructLayout({"index": 32, "push": 1, "nop": 1, "unknown": 1})

_SENT: Final = data.StructLayout({"ends_insn": 1, "outside": 1})


class BeatReader(wiring.Component):
    """Reads from OUT what the beats of bursts hold; one beat per cycle.

    i: beats minus one of each burst, in order.
    pattern: the rows of each instruction, one cycle or more before the first burst of it.
    o: the beats, with strobes for the bytes of the rows; the first is valid two cycles after its burst was.
    sent: with `sent_valid`, in the cycle in which the last beat of a burst is read: whether it ends an instruction, and
        whether an element of the burst lies outside of OUT (its index wraps).
    bytes: bytes of rows in the beat that is taken from `o` in this cycle.
    idle: no beat is left to send.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._units = Units(config, [MemoryType.OUT])
        self._geometry = Geometry.of(config, MemoryType.OUT)
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "pattern": In(stream.Signature(pattern_layout(self._units))),
                "read": Out(WideReadSignature(self._geometry)),
                "o": Out(stream.Signature(write_beat_layout(config))),
                "sent": Out(_SENT),
                "sent_valid": Out(1),
                "bytes": Out(range(config.bus_bits // 8 + 1)),
                "idle": Out(1),
            }
        )
        word = self._units.log_word
        self._place = data.StructLayout(
            {
                "offset": word,
                "take": word + 1,
                "turn": word,
                "bank": self._geometry.bank_bits,
                "granule": log2(self._geometry.granules),
                "last": 1,
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.walker = walker = BeatWalker(self._units)
        connect(m, flipped(self.pattern), walker.i)
        place = Signal(self._place)
        place_valid = Signal()
        free = Signal()
        reads = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            reads.eq(self.i.valid & free),
            walker.beat.eq(reads),
            self.idle.eq(~self.i.valid & ~place_valid & ~self.o.valid),
        ]
        self._read(m, walker, reads, place)
        with m.If(free):
            m.d.sync += [place_valid.eq(reads), self.o.valid.eq(place_valid)]
            self._assemble(m, place)
        return m

    def _read(self, m: Module, walker: BeatWalker, reads: Signal, place: data.View) -> None:
        """Address the banks, and note what is to be done with what they answer."""
        geometry = self._geometry
        dest, take = walker.o.dest, walker.o.take
        element = dest >> log2(geometry.granules)
        bank, line = element[: geometry.bank_bits], element[geometry.bank_bits :]
        beat = Signal(8)
        m.d.comb += [
            self.read.en.eq(reads),
            # The banks below the first unit's hold units of the next line.
            *(self.read.line[number].eq(line + (number < bank)) for number in range(geometry.banks)),
            self.sent.ends_insn.eq(walker.finished),
            # Indices rise in a burst: if one is outside, so is the last.
            self.sent.outside.eq(dest + take > geometry.depth * geometry.granules),
            self.sent_valid.eq(reads & (beat == self.i.payload)),
            self.i.ready.eq(self.sent_valid),
        ]
        with m.If(reads):
            m.d.sync += [
                beat.eq(Mux(self.sent_valid, 0, beat + 1)),
                place.offset.eq(dest - walker.o.turn),
                place.take.eq(take),
                place.turn.eq(walker.o.turn),
                place.bank.eq(bank),
                place.granule.eq(dest),
                place.last.eq(self.sent_valid),
            ]

    def _assemble(self, m: Module, place: data.View) -> None:
        """Make a beat of what the banks hold."""
        geometry, unit_bytes = self._geometry, self._units.bytes
        # A scratchpad of fewer elements than banks repeats itself.
        banks = [self.read.data[number % geometry.depth] for number in range(geometry.banks)]
        lanes = max(len(self.o.payload.data) // geometry.elem_bits, 1)
        first, group = place.bank[: log2(lanes)], place.bank[log2(lanes) :]
        # Where there are more banks than elements in a word, those before the first element are of the next group.
        elements = [
            Cat(banks[lane::lanes]).word_select((group + (lane < first))[: len(group)], geometry.elem_bits)
            for lane in range(lanes)
        ]
        word = Signal(len(self.o.payload.data), name="word")
        m.d.comb += word.eq(Cat(element.word_select(place.granule, geometry.granule_bits) for element in elements))
        for stage in range(self._units.log_word):
            turned = Signal.like(word, name=f"turned{stage}")
            m.d.comb += turned.eq(Mux(place.turn[stage], word.rotate_right(8 * unit_bytes << stage), word))
            word = turned
        units = range(1 << self._units.log_word)
        used = ((unit >= place.offset) & (unit < place.offset + place.take) for unit in units)
        count = Signal(self._units.log_word + 1)
        m.d.sync += [
            self.o.payload.data.eq(word),
            self.o.payload.strb.eq(Cat(use.replicate(unit_bytes) for use in used)),
            self.o.payload.last.eq(place.last),
            count.eq(place.take),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += self.bytes.eq(count << log2(unit_bytes))


class StoreUnit(wiring.Component):
    """Executes the instructions of the store queue in order: STOREs of OUT, and of nothing else.

    i: from the queue. An instruction begins when the token it waits for is there, which is taken in that cycle, and
        when there is room for the token it will give. It is complete when all of its bursts have been answered; one
        without rows or elements, or of another memory type, is complete with those before it.
    pop, push: tokens that compute gives and takes; the flags of the unit behind store, which does not exist, are
        ignored.
    base: byte address of DRAM element 0.
    read: of the OUT scratchpad.
    fault: OUT_INDEX for elements outside of OUT, whose index wraps, and WRITE_ERROR, both with the response to their
        burst; UNKNOWN_MEMORY_TYPE when an instruction that would move data completes.
    halt: while high, no instruction begins and no burst is made; what was made is finished.
    bytes: of elements in the beat that is taken in this cycle.
    retired: an instruction completes in this cycle, in which it gives its token.
    idle: nothing in flight.
    waiting: the next instruction waits for a token, or for room for one.
    busy, stall_token, stall_memory: events: something in flight; nothing in flight and waiting; the port does not take
        a burst or beat, or only responses are awaited.

    At most `MAX_IN_FLIGHT` instructions and `MAX_BURSTS` bursts are in flight. The first burst is on `port` three
    cycles after its instruction was taken from `i`, the first beat five; then there is a beat in each cycle, across
    rows and instructions, whatever their size, while the responses to bursts of one beat come within eleven cycles,
    and to longer ones later. An instruction completes one cycle after the response to its last burst.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        self._units = Units(config, [MemoryType.OUT])
        super().__init__(
            {
                "i": In(stream.Signature(QUEUED)),
                "pop": Out(TokenPop()),
                "push": Out(TokenPush()),
                "base": In(config.address_bits),
                "read": Out(WideReadSignature(Geometry.of(config, MemoryType.OUT))),
                "port": Out(WritePort(config)),
                "fault": Out(FAULT),
                "halt": In(1),
                "bytes": Out(range(config.bus_bits // 8 + 1)),
                "retired": Out(1),
                "idle": Out(1),
                "waiting": Out(1),
                "busy": Out(1),
                "stall_token": Out(1),
                "stall_memory": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.rows = rows = RowWalker(self._config)
        m.submodules.splitter = splitter = BurstSplitter(self._config)
        m.submodules.beats = beats = BeatReader(self._config)
        m.submodules.in_flight = in_flight = SyncFIFO(width=_IN_FLIGHT.size, depth=MAX_IN_FLIGHT)
        m.submodules.at_work = at_work = Outstanding(MAX_BURSTS)
        connect(m, rows.o, splitter.i)
        connect(m, beats.o, flipped(self.port.beat))
        connect(m, beats.read, flipped(self.read))
        self._begin(m, rows, beats, in_flight)
        self._make_bursts(m, splitter, beats, at_work)
        self._complete(m, beats, in_flight, at_work)
        refused = (self.port.burst.valid & ~self.port.burst.ready) | (self.port.beat.valid & ~self.port.beat.ready)
        sending = ~rows.idle | splitter.o.valid | self.port.burst.valid | ~beats.idle
        m.d.comb += [
            splitter.halt.eq(self.halt),
            self.bytes.eq(beats.bytes),
            self.idle.eq(~in_flight.r_rdy),
            self.busy.eq(in_flight.r_rdy),
            self.stall_token.eq(self.idle & self.waiting),
            self.stall_memory.eq(refused | (~at_work.empty & ~sending)),
        ]
        return m

    def _begin(self, m: Module, rows: RowWalker, beats: BeatReader, in_flight: SyncFIFO) -> None:
        """Take an instruction; the addresses of its rows and what its beats hold go separate ways."""
        insn = data.View(view_layout(self._config, Format.MEMORY), self.i.payload.word)
        units, unit = self._units, log2(self._units.bytes)
        pattern = Signal(pattern_layout(units))
        m.submodules.patterns = patterns = SyncFIFO(width=len(pattern.as_value()), depth=MAX_IN_FLIGHT)
        begun = data.View(_IN_FLIGHT, in_flight.w_data)
        address = self.base + (units.scale(_OUT, insn.dram_base) << unit)
        step = units.scale(_OUT, insn.x_stride)
        allowed = Signal()
        begin = Signal()
        no_data = Signal()
        m.d.comb += [
            no_data.eq((insn.x_size == 0) | (insn.y_size == 0)),
            allowed.eq((~insn.pop_prev | self.pop.available) & (~insn.push_prev | self.push.room)),
            self.waiting.eq(self.i.valid & ~allowed),
            begun.nop.eq(no_data | (insn.memory_type != _OUT)),
            begun.unknown.eq(begun.nop & ~no_data),
            begun.push.eq(insn.push_prev),
            begun.index.eq(self.i.payload.index),
            # There are never more patterns than instructions in flight.
            self.i.ready.eq(allowed & ~self.halt & in_flight.w_rdy & (begun.nop | rows.i.ready)),
            begin.eq(self.i.valid & self.i.ready),
            in_flight.w_en.eq(begin),
            self.pop.take.eq(begin & insn.pop_prev),
            rows.i.valid.eq(begin & ~begun.nop),
            rows.i.payload.addr.eq(address),
            rows.i.payload.step.eq(step << unit),
            rows.i.payload.bytes.eq(units.scale(_OUT, insn.x_size) << unit),
            rows.i.payload.rows.eq(insn.y_size),
            patterns.w_en.eq(begin & ~begun.nop),
            patterns.w_data.eq(pattern),
            pattern.code.eq(_OUT),
            pattern.sram_base.eq(insn.sram_base),
            pattern.x_size.eq(insn.x_size),
            pattern.rows.eq(insn.y_size),
            pattern.offset.eq(address >> unit),
            pattern.step.eq(step),
            beats.pattern.payload.eq(patterns.r_data),
            beats.pattern.valid.eq(patterns.r_rdy),
            patterns.r_en.eq(beats.pattern.ready),
        ]

    def _make_bursts(self, m: Module, splitter: BurstSplitter, beats: BeatReader, at_work: Outstanding) -> None:
        """Hand each burst to the port and to the reader of its beats, neither of which waits for the other."""
        made = splitter.o.payload.burst
        m.submodules.bursts = bursts = SyncFIFO(width=len(made.as_value()), depth=MAX_BURSTS)
        m.submodules.lengths = lengths = SyncFIFO(width=len(made.len), depth=MAX_BURSTS)
        m.d.comb += [
            # Both have room for all bursts at work.
            splitter.o.ready.eq(~at_work.full),
            at_work.begin.eq(splitter.o.valid & splitter.o.ready),
            bursts.w_en.eq(at_work.begin),
            bursts.w_data.eq(made),
            lengths.w_en.eq(at_work.begin),
            lengths.w_data.eq(made.len),
            self.port.burst.payload.eq(bursts.r_data),
            self.port.burst.valid.eq(bursts.r_rdy),
            bursts.r_en.eq(self.port.burst.ready),
            beats.i.payload.eq(lengths.r_data),
            beats.i.valid.eq(lengths.r_rdy),
            lengths.r_en.eq(beats.i.ready),
        ]

    def _complete(self, m: Module, beats: BeatReader, in_flight: SyncFIFO, at_work: Outstanding) -> None:
        """Match responses to bursts, and bursts to instructions: both come in order."""
        m.submodules.sent = sent = SyncFIFO(width=_SENT.size, depth=MAX_BURSTS)
        m.submodules.responses = responses = SyncFIFO(width=1, depth=MAX_BURSTS)
        insn = data.View(_IN_FLIGHT, in_flight.r_data)
        burst = data.View(_SENT, sent.r_data)
        answered = Signal()
        m.d.comb += [
            sent.w_en.eq(beats.sent_valid),
            sent.w_data.eq(beats.sent),
            responses.w_en.eq(self.port.response.valid),
            responses.w_data.eq(self.port.response.payload),
            # A response waits for the NOPs before its instruction, so that it is always that of the first in flight.
            answered.eq(responses.r_rdy & in_flight.r_rdy & ~insn.nop),
            sent.r_en.eq(answered),
            responses.r_en.eq(answered),
            at_work.end.eq(answered),
            self.retired.eq(in_flight.r_rdy & (insn.nop | (answered & burst.ends_insn))),
            in_flight.r_en.eq(self.retired),
            self.push.give.eq(self.retired & insn.push),
            self.fault.index.eq(insn.index),
        ]
        with m.If(insn.nop):
            m.d.comb += self.fault.status.eq(Mux(self.retired & insn.unknown, Status.UNKNOWN_MEMORY_TYPE, 0))
        with m.Elif(answered):
            m.d.comb += self.fault.status.eq(
                Mux(burst.outside, Status.OUT_INDEX, 0) | Mux(responses.r_data, Status.WRITE_ERROR, 0)
            )
