"""LOAD: 2-D strided transfers from DRAM to the scratchpads, with padding (VTA spec 3.2), and the load unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.axi import ReadPort
from vta_hw.rtl.dma import BurstSplitter
from vta_hw.rtl.instruction import FAULT, QUEUED, STATUS_BITS, view_layout
from vta_hw.rtl.padding import PAD, WINDOW, PadWalker
from vta_hw.rtl.scratchpad import Geometry, WriteSignature
from vta_hw.rtl.tokens import MAX_IN_FLIGHT, TokenPop, TokenPush
from vta_hw.rtl.transfer import BeatWalker, RowWalker, Units, log2, pattern_layout, place_layout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.registers import Status

LOADS_IN_FLIGHT: Final = 8
"""Loads whose data may be on their way at the same time, besides the one whose completion is awaited."""

_SMALLEST_BYTE: Final = 0x80
_SMALLEST_WORD: Final = 0x80000000


class ElementWriter(wiring.Component):
    """Writes what a bus word holds (`beat`) or one pad (`pad`) in the next cycle; both at once are not allowed.

    `word` is already turned as `place` says. A word that is smaller than an element is one granule of it (four, where
    signed bytes become accumulators); a larger one is neighbouring elements in as many banks. Indices wrap; `outside`
    is high if there is one beyond the scratchpad's depth in this cycle's input. `active` while something is written.
    `next_banks`: those to be written in the next cycle.
    """

    def __init__(self, config: VTAConfig, units: Units, scratchpad: MemoryType) -> None:
        self._units = units
        self._bus_bits = config.bus_bits
        self._codes = [code for code in units.codes if code.scratchpad is scratchpad]
        self._dram_bits = {code.is_narrow: 8 * config.dram_elem_bytes(code) for code in self._codes}
        self._geometry = Geometry.of(config, scratchpad)
        super().__init__(
            {
                "beat": In(1),
                "place": In(place_layout(units)),
                "word": In(config.bus_bits),
                "pad": In(1),
                "pad_place": In(PAD),
                "write": Out(WriteSignature(self._geometry)),
                "next_banks": Out(self._geometry.banks),
                "outside": Out(1),
                "active": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        geometry = self._geometry
        index = Signal(geometry.index_bits)
        count = Signal(range(geometry.banks + 1))
        granule = Signal(log2(geometry.granules))
        word = Signal(self._bus_bits)
        narrow = Signal()
        whole = Signal()
        place, pad_place = self.place, self.pad_place
        first = self._by_width(place.code, {kind: place.dest >> self._log(kind) for kind in self._dram_bits})
        elements = self._by_width(
            place.code,
            {
                kind: place.take >> self._log(kind) if bits < self._bus_bits else Const(1)
                for kind, bits in self._dram_bits.items()
            },
        )
        last = first + elements - 1
        depth = log2(geometry.depth)
        m.d.comb += [
            self.outside.eq((self.beat & (last >> depth).any()) | (self.pad & (pad_place.index >> depth).any())),
            self.active.eq(count != 0),
        ]
        next_index = Signal.like(index)
        next_count = Signal.like(count)
        m.d.comb += [
            next_index.eq(Mux(self.pad, pad_place.index, first)),
            next_count.eq(Mux(self.beat, elements, self.pad)),
        ]
        m.d.sync += [
            index.eq(next_index),
            count.eq(next_count),
            granule.eq(place.dest >> self._units.log_word),
            word.eq(Mux(self.pad, self._filling(pad_place.code), self.word)),
            narrow.eq(self._is_narrow(Mux(self.pad, pad_place.code, place.code))),
            whole.eq(self.pad),
        ]
        enables = self._by_flag(narrow, {kind: self._enables(kind, granule) for kind in self._dram_bits})
        within = index[: geometry.bank_bits]
        reached, next_reached = Signal(geometry.banks, name="reached"), Signal(geometry.banks, name="next_reached")
        distances = [Signal(geometry.bank_bits, name=f"distance{bank}") for bank in range(geometry.banks)]
        for bank, distance in enumerate(distances):
            next_distance = Signal(geometry.bank_bits, name=f"next_distance{bank}")
            m.d.comb += [
                distance.eq(bank - within),
                next_distance.eq(bank - next_index),
                reached[bank].eq(distance < count),
                next_reached[bank].eq(next_distance < next_count),
            ]
        for bank in range(geometry.banks):
            # A scratchpad of fewer elements than a word has wraps within the word: the last that reaches a bank wins.
            places = range(bank, geometry.banks, geometry.depth) if bank < geometry.depth else ()
            there, distance, element = Const(0, 1), Const(0, geometry.bank_bits), Const(0, geometry.elem_bits)
            for place in places:
                wins = reached[place] & (~there | (distances[place] > distance))
                held = self._by_flag(narrow, {kind: self._element(kind, word, place) for kind in self._dram_bits})
                there, distance = there | reached[place], Mux(wins, distances[place], distance)
                element = Mux(wins, held, element) if len(places) > 1 else held
            m.d.comb += [
                # Banks before that of the first element are on the next line.
                self.write.line[bank].eq(index[geometry.bank_bits :] + (bank < within)),
                self.write.data[bank].eq(element),
                self.write.en[bank].eq(Mux(there, enables | whole.replicate(geometry.granules), 0)),
                self.next_banks[bank].eq(Cat(next_reached[place] for place in places).any()),
            ]
        return m

    def _log(self, narrow: bool) -> int:
        return log2(self._dram_bits[narrow] // (8 * self._units.bytes))

    def _is_narrow(self, code: Value) -> Value:
        codes = [int(known) for known in self._codes if known.is_narrow]
        return code.matches(*codes) if codes else Const(0)

    def _by_width(self, code: Value, values: dict[bool, Value]) -> Value:
        return self._by_flag(self._is_narrow(code), values)

    @staticmethod
    def _by_flag(narrow: Value, values: dict[bool, Value]) -> Value:
        return Mux(narrow, values[True], values[False]) if True in values else values[False]

    def _filling(self, code: Value) -> Value:
        """The word that, as if it had been read, fills an element of a memory type with its padding."""
        filling: Value = Const(0, self._bus_bits)
        for pad_type, bits, smallest in (
            (MemoryType.ACC_PAD_MIN, 32, _SMALLEST_WORD),
            (MemoryType.ACC_8BIT_PAD_MIN, 8, _SMALLEST_BYTE),
        ):
            if pad_type in self._codes:
                pattern = Const(smallest, bits).replicate(self._bus_bits // bits)
                filling = Mux(code == int(pad_type), pattern, filling)
        return filling

    def _enables(self, narrow: bool, granule: Value) -> Value:
        """The granules of an element that a word writes."""
        words = max(self._dram_bits[narrow] // self._bus_bits, 1)
        each = self._geometry.granules // words
        return Cat((granule[: log2(words)] == number).replicate(each) for number in range(words))

    def _element(self, narrow: bool, word: Value, bank: int) -> Value:
        """What a bank is given of a word, repeated up to the size of an element."""
        bits = self._dram_bits[narrow]
        lane = word.word_select(bank % max(self._bus_bits // bits, 1), min(bits, self._bus_bits))
        if narrow:
            signed_bytes = (lane.word_select(number, 8) for number in range(len(lane) // 8))
            lane = Cat(Cat(byte, byte[-1].replicate(24)) for byte in signed_bytes)
        return lane.replicate(self._geometry.elem_bits // len(lane))


_OUTSIDE: Final = {
    MemoryType.UOP: Status.UOP_INDEX,
    MemoryType.INP: Status.INP_INDEX,
    MemoryType.WGT: Status.WGT_INDEX,
    MemoryType.ACC: Status.ACC_INDEX,
}


def _memory_side(config: VTAConfig, scratchpads: Sequence[MemoryType]) -> dict[str, wiring.Member]:
    """What an engine shows to memory and scratchpads, and a unit around it passes on."""
    members = {"port": Out(ReadPort(config)), "fault": Out(FAULT), "halt": In(1)}
    for memory in scratchpads:
        name = memory.name.lower()
        members[f"{name}_base"] = In(config.address_bits)
        members[f"{name}_write"] = Out(WriteSignature(Geometry.of(config, memory)))
        members[f"{name}_next_banks"] = Out(Geometry.of(config, memory).banks)
        members[f"{name}_bytes"] = Out(range(config.bus_bits // 8 + 1))
    return members


class LoadEngine(wiring.Component):
    """Executes the LOADs of some scratchpads, each named by its plain memory type.

    i: instructions; only LOADs of the scratchpads' types, with `x_size` other than 0.
    uop_base, inp_base, wgt_base, acc_base: byte address added to those of the instructions, modulo the address space.
    uop_write, inp_write, wgt_write, acc_write: write ports of the scratchpads; there are those of `scratchpads` only.
    uop_next_banks, ...: the banks that will be written in the next cycle.
    uop_bytes, ...: useful bytes that arrive in this cycle.
    port: a beat is written in the cycle after it arrived.
    done: the oldest unfinished instruction is complete: the last of its elements is being written in this cycle.
    idle: no instruction is unfinished.
    writing: a beat or a pad is being written in this cycle.
    fault: an index beyond the depth of a scratchpad (it wraps), or a beat with an error.
    halt: while high no new burst is made.

    The first burst is on `port` two cycles after its instruction was accepted. An instruction is accepted while the
    last run of the one before is being taken, and its data may arrive while older ones are on their way. Pads are
    written in cycles without a beat for their scratchpad, once all older instructions are complete. Later writes win:
    no other instruction of the scratchpad begins while pads are to be written, and none at all begins behind one that
    has only pads.
    """

    def __init__(self, config: VTAConfig, scratchpads: Sequence[MemoryType]) -> None:
        self._config = config
        for memory in scratchpads:
            if memory not in _OUTSIDE:
                raise ValueError(f"scratchpad must be UOP, INP, WGT or ACC, not {memory!r}")
        self._units = Units(config, scratchpads)
        super().__init__(
            {
                "i": In(stream.Signature(QUEUED)),
                "done": Out(1),
                "idle": Out(1),
                "writing": Out(1),
                **_memory_side(config, scratchpads),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.rows = rows = RowWalker(self._config)
        m.submodules.splitter = splitter = BurstSplitter(self._config)
        m.submodules.beats = beats = BeatWalker(self._units)
        m.submodules.pads = pads = PadWalker(LOADS_IN_FLIGHT)
        m.submodules.patterns = patterns = SyncFIFO(width=beats.i.payload.shape().size, depth=LOADS_IN_FLIGHT)
        m.submodules.windows = windows = SyncFIFO(width=WINDOW.size, depth=LOADS_IN_FLIGHT)
        connect(m, rows.o, splitter.i)
        for queue, walker in ((patterns, beats), (windows, pads)):
            m.d.comb += [
                walker.i.valid.eq(queue.r_rdy),
                walker.i.payload.eq(queue.r_data),
                queue.r_en.eq(walker.i.ready),
            ]
        m.d.comb += [
            splitter.halt.eq(self.halt),
            self.port.burst.valid.eq(splitter.o.valid),
            self.port.burst.payload.eq(splitter.o.payload.burst),
            splitter.o.ready.eq(self.port.burst.ready),
            beats.beat.eq(self.port.beat.valid),
            pads.arrived.eq(beats.finished),
            self.done.eq(pads.done),
            self.idle.eq(pads.idle & ~windows.r_rdy),
        ]
        self._begin(m, rows, patterns, windows, pads)
        self._write(m, beats, pads)
        return m

    def _base(self, code: Value) -> Value:
        """The base register of a memory type."""
        first, *others = self._units.scratchpads
        base = getattr(self, f"{first.name.lower()}_base")
        for memory in others:
            base = Mux(self._is_of(code, memory), getattr(self, f"{memory.name.lower()}_base"), base)
        return base

    def _is_of(self, code: Value, memory: MemoryType) -> Value:
        return code.matches(*(int(known) for known in self._units.codes if known.scratchpad is memory))

    def _begin(self, m: Module, rows: RowWalker, patterns: SyncFIFO, windows: SyncFIFO, pads: PadWalker) -> None:
        """Accept an instruction: its rows, the pattern of its words, the window of its pads."""
        units = self._units
        insn = data.View(view_layout(self._config, Format.MEMORY), self.i.payload.word)
        begin = Signal()
        free = Signal()
        pads_alone = Signal()
        has_pads = Signal()
        filled = Signal()
        m.d.comb += [
            has_pads.eq(Cat(insn.y_pad_0, insn.y_pad_1, insn.x_pad_0, insn.x_pad_1).any()),
            free.eq(rows.i.ready & patterns.w_rdy & windows.w_rdy & ~pads_alone & filled),
            self.i.ready.eq(free),
            begin.eq(free & self.i.valid),
            patterns.w_en.eq(begin),
            windows.w_en.eq(begin),
            rows.i.valid.eq(begin & (insn.y_size != 0)),
        ]
        with m.If(begin & (insn.y_size == 0)):
            m.d.sync += pads_alone.eq(1)
        with m.Elif(self.idle):
            m.d.sync += pads_alone.eq(0)
        m.d.comb += filled.eq(1)
        for memory in units.scratchpads:
            unfilled = Signal(name=f"unfilled_{memory.name.lower()}")
            with m.If(begin & has_pads & self._is_of(insn.memory_type, memory)):
                m.d.sync += unfilled.eq(1)
            with m.Elif(pads.filled & self._is_of(pads.code, memory)):
                m.d.sync += unfilled.eq(0)
            with m.If(unfilled & self._is_of(insn.memory_type, memory)):
                m.d.comb += filled.eq(0)
        self._describe(m, insn, rows, patterns, windows, has_pads)

    def _describe(
        self,
        m: Module,
        insn: data.View,
        rows: RowWalker,
        patterns: SyncFIFO,
        windows: SyncFIFO,
        has_pads: Value,
    ) -> None:
        units = self._units
        pattern = Signal(pattern_layout(units))
        window = Signal(WINDOW)
        code, unit = insn.memory_type, log2(units.bytes)
        only_pads = insn.y_size == 0
        width = insn.x_pad_0 + insn.x_size + insn.x_pad_1
        y_pads = insn.y_pad_0 + insn.y_pad_1
        top, bottom = (_times(width, pads) for pads in (Mux(only_pads, y_pads, insn.y_pad_0), insn.y_pad_1))
        first = top + Mux(only_pads, 0, insn.x_pad_0)
        address = self._base(code) + (units.scale(code, insn.dram_base) << unit)
        m.d.comb += [
            rows.i.payload.addr.eq(address),
            rows.i.payload.step.eq(units.scale(code, insn.x_stride) << unit),
            rows.i.payload.bytes.eq(units.scale(code, insn.x_size) << unit),
            rows.i.payload.rows.eq(insn.y_size),
            pattern.code.eq(code),
            pattern.insn.eq(self.i.payload.index),
            pattern.sram_base.eq(insn.sram_base),
            pattern.lead.eq(first),
            pattern.x_size.eq(insn.x_size),
            pattern.gap.eq(insn.x_pad_0 + insn.x_pad_1),
            pattern.rows.eq(insn.y_size),
            pattern.offset.eq(address >> unit),
            pattern.step.eq(units.scale(code, insn.x_stride)),
            window.code.eq(code),
            window.insn.eq(self.i.payload.index),
            window.padded.eq(has_pads),
            window.sram_base.eq(insn.sram_base),
            window.first.eq(first),
            window.middle.eq(insn.x_pad_0 + insn.x_pad_1),
            window.last.eq(bottom + insn.x_pad_1),
            window.x_size.eq(insn.x_size),
            # Without pads behind the first data there is no need to walk over it.
            window.rows.eq(Mux(Cat(insn.x_pad_0, insn.x_pad_1, insn.y_pad_1).any(), insn.y_size, 0)),
            patterns.w_data.eq(pattern),
            windows.w_data.eq(window),
        ]

    def _write(self, m: Module, beats: BeatWalker, pads: PadWalker) -> None:
        """Give beats and pads to the scratchpads' writers, and collect what they find."""
        beat = self.port.beat
        word = Signal(self._config.bus_bits)
        wrong_beat = Signal(STATUS_BITS)
        wrong_pad = Signal(STATUS_BITS)
        refused = Signal(len(self._units.scratchpads))
        active = Signal(len(self._units.scratchpads))
        m.d.comb += word.eq(self._turn(beat.payload.data, beats.o.turn))
        for number, memory in enumerate(self._units.scratchpads):
            name = memory.name.lower()
            m.submodules[name] = writer = ElementWriter(self._config, self._units, memory)
            connect(m, writer.write, flipped(getattr(self, f"{name}_write")))
            m.d.comb += getattr(self, f"{name}_next_banks").eq(writer.next_banks)
            wants_pad = self._is_of(pads.o.payload.code, memory) & pads.o.valid
            m.d.comb += [
                writer.beat.eq(beat.valid & self._is_of(beats.o.code, memory)),
                writer.place.eq(beats.o),
                writer.word.eq(word),
                writer.pad.eq(wants_pad & ~writer.beat),
                writer.pad_place.eq(pads.o.payload),
                refused[number].eq(wants_pad & writer.beat),
                active[number].eq(writer.active),
                getattr(self, f"{name}_bytes").eq(Mux(writer.beat, beats.o.take << log2(self._units.bytes), 0)),
            ]
            with m.If(writer.outside & writer.beat):
                m.d.comb += wrong_beat.eq(_OUTSIDE[memory])
            with m.If(writer.outside & writer.pad):
                m.d.comb += wrong_pad.eq(_OUTSIDE[memory])
        error = Mux(beat.valid & beat.payload.error, int(Status.READ_ERROR), 0)
        m.d.comb += [
            pads.o.ready.eq(~refused.any()),
            self.writing.eq(active.any()),
            self.fault.status.eq(wrong_pad | wrong_beat | error),
            # The instruction with pads to write is never younger than the one whose beats arrive.
            self.fault.index.eq(Mux(wrong_pad != 0, pads.o.payload.insn, beats.o.insn)),
        ]

    def _turn(self, word: Value, turn: Value) -> Value:
        """Turn a bus word left by a number of units."""
        for stage in range(self._units.log_word):
            word = Mux(turn[stage], word.rotate_left(8 * self._units.bytes << stage), word)
        return word


def _times(value: Value, factor: Value) -> Value:
    """A product with a short factor, as a sum."""
    return sum((Mux(factor[bit], value << bit, 0) for bit in range(len(factor))), start=Const(0))


_OF_LOAD_UNIT: Final = (MemoryType.INP, MemoryType.WGT)

_IN_FLIGHT: Final = data.StructLayout({"nop": 1, "push": 1})


class LoadUnit(wiring.Component):
    """Executes the instructions of the load queue in order: LOADs of INP and WGT, and NOPs (`x_size` is 0).

    i: from the queue. An instruction begins when the token it waits for is there, which is taken in that cycle, and
        when there is room for the token it will give.
    pop, push: tokens that compute gives and takes. `pop_prev` and `push_prev` name a unit that is not there: ignored.
    retired: an instruction completes in this cycle, in which it gives its token.
    idle: nothing in flight.
    waiting: the next instruction waits for a token, or for room for one.
    busy, stall_token, stall_memory: events: something in flight; nothing in flight and waiting; something in flight and
        neither a beat nor a pad being written.
    The other ports are those of `LoadEngine`.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(QUEUED)),
                "pop": Out(TokenPop()),
                "push": Out(TokenPush()),
                "retired": Out(1),
                "idle": Out(1),
                "waiting": Out(1),
                "busy": Out(1),
                "stall_token": Out(1),
                "stall_memory": Out(1),
                **_memory_side(config, _OF_LOAD_UNIT),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.engine = engine = LoadEngine(self._config, _OF_LOAD_UNIT)
        m.submodules.order = order = SyncFIFO(width=_IN_FLIGHT.size, depth=MAX_IN_FLIGHT)
        for name, member in _memory_side(self._config, _OF_LOAD_UNIT).items():
            inside, outside = getattr(engine, name), getattr(self, name)
            if member.is_signature:
                connect(m, inside, flipped(outside))
            else:
                m.d.comb += inside.eq(outside) if member.flow is In else outside.eq(inside)
        m.d.comb += [
            self.idle.eq(~order.r_rdy),
            self.busy.eq(order.r_rdy),
            self.stall_token.eq(self.idle & self.waiting),
            self.stall_memory.eq(self.busy & ~engine.writing),
        ]
        self._begin(m, engine, order)
        self._retire(m, engine, order)
        return m

    def _begin(self, m: Module, engine: LoadEngine, order: SyncFIFO) -> None:
        insn = data.View(view_layout(self._config, Format.MEMORY), self.i.payload.word)
        begun = data.View(_IN_FLIGHT, order.w_data)
        allowed = Signal()
        begin = Signal()
        m.d.comb += [
            allowed.eq((~insn.pop_next | self.pop.available) & (~insn.push_next | self.push.room)),
            self.waiting.eq(self.i.valid & ~allowed),
            begun.nop.eq(insn.x_size == 0),
            begun.push.eq(insn.push_next),
            self.i.ready.eq(allowed & order.w_rdy & (begun.nop | engine.i.ready)),
            begin.eq(self.i.valid & self.i.ready),
            order.w_en.eq(begin),
            self.pop.take.eq(begin & insn.pop_next),
            engine.i.valid.eq(begin & ~begun.nop),
            engine.i.payload.eq(self.i.payload),
        ]

    def _retire(self, m: Module, engine: LoadEngine, order: SyncFIFO) -> None:
        head = data.View(_IN_FLIGHT, order.r_data)
        # A load may be done while a NOP before it has still to retire.
        ahead = Signal(range(MAX_IN_FLIGHT + 1))
        m.d.comb += [
            self.retired.eq(order.r_rdy & (head.nop | engine.done | (ahead != 0))),
            order.r_en.eq(self.retired),
            self.push.give.eq(self.retired & head.push),
        ]
        m.d.sync += ahead.eq(ahead + engine.done - (self.retired & ~head.nop))
