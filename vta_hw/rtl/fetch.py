"""Fetch: reads a launch's instructions ahead of their use and hands each to the queue of its unit (VTA spec 5.1)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.axi import ReadPort
from vta_hw.rtl.dma import BEATS_BITS, BurstSplitter, run_layout
from vta_hw.rtl.instruction import FAULT, INSN_BITS, QUEUED, view_layout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import MemoryType, Opcode
from vta_hw.spec.registers import Status

PREFETCH: Final = 256
"""Instructions, or words of a bus that needs two for each, that are asked for or wait to be dispatched.

At one of them a cycle this hides a memory latency of 180 cycles on every bus: a burst waits until all of it has room.
"""


MAX_QUEUE_DEPTH: Final = 65536
"""Instructions of a queue that is a megabyte of memory: no accelerator needs more."""


def _word_layout(config: VTAConfig) -> data.StructLayout:
    return data.StructLayout({"data": config.bus_bits, "error": 1})


class Prefetcher(wiring.Component):
    """Reads runs of bus words into a queue, as far ahead as the queue has room for the answers.

    depth: words that the queue has room for; `PREFETCH` says how many, unless told otherwise.
    i, o: a run, and its words in order. The first burst is on `port` one cycle after its run was taken, a word in `o`
        two cycles after its beat.
    clear: forgets the words in the queue and what is left of the run; only in a cycle with `idle`.
    halt: while high no new burst is made.
    idle: no burst waits to be taken and no beat is awaited.
    """

    def __init__(self, config: VTAConfig, *, depth: int | None = None) -> None:
        self._config = config
        self._depth = PREFETCH * INSN_BITS // max(config.bus_bits, INSN_BITS) if depth is None else depth
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(config))),
                "o": Out(stream.Signature(_word_layout(config))),
                "port": Out(ReadPort(config)),
                "clear": In(1),
                "halt": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        splitter = BurstSplitter(self._config)
        queue = SyncFIFOBuffered(width=self._config.bus_bits + 1, depth=self._depth)
        m.submodules.splitter = ResetInserter(self.clear)(splitter)
        m.submodules.queue = ResetInserter(self.clear)(queue)
        wiring.connect(m, wiring.flipped(self.i), splitter.i)
        burst, beat = self.port.burst, self.port.beat
        beats = burst.payload.len + 1
        space = Signal(range(self._depth + 1), init=self._depth)
        awaited = Signal(range(self._depth + 1))
        room = Signal()
        shown = Signal()
        asked = Signal()
        taken = Signal()
        m.d.comb += [
            splitter.halt.eq(self.halt),
            # A burst that is shown keeps its room, which only another burst could take, and is shown on during `halt`.
            room.eq((beats <= space) & (shown | ~self.halt)),
            burst.payload.eq(splitter.o.payload.burst),
            burst.valid.eq(splitter.o.valid & room),
            splitter.o.ready.eq(burst.ready & room),
            asked.eq(burst.valid & burst.ready),
            queue.w_data.eq(Cat(beat.payload.data, beat.payload.error)),
            queue.w_en.eq(beat.valid),
            self.o.payload.eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            taken.eq(self.o.valid & self.o.ready),
            self.idle.eq(~burst.valid & (awaited == 0)),
        ]
        m.d.sync += [
            shown.eq(burst.valid & ~burst.ready),
            space.eq(space - Mux(asked, beats, 0) + taken),
            awaited.eq(awaited + Mux(asked, beats, 0) - beat.valid),
        ]
        with m.If(self.clear):
            m.d.sync += space.eq(self._depth)
        return m


class Fetch(wiring.Component):
    """Fetches the instructions of a launch and dispatches them in order to three queues, at most one per cycle.

    start: a pulse that begins a launch; only in a cycle with `idle`, after `done` or `failed`.
    base: byte address of the first instruction, a multiple of 16, in the cycle of `start`.
    count: instructions, in the cycle of `start`; 0 for none.
    load, compute, store: the queues, each `queue_depth` instructions deep. STORE goes to `store`, LOAD of INP and WGT
        to `load`, everything else to `compute`. A full queue blocks everything behind its instruction.
    done: all instructions are in the queues; low in the cycle of `start`.
    failed: an instruction came with an error response, so that what it says is unknown. It is reported through `fault`
        in one cycle, and neither it nor any behind it is dispatched. Until the next `start` or reset.
    idle: nothing is outstanding on `port`.
    blocked: in this cycle an instruction waits for room in its queue.
    dispatched: in this cycle an instruction goes to its queue.
    bytes: of instructions that arrive in this cycle.
    halt: while high no new burst is made.

    The first burst is on `port` two cycles after `start`. An instruction is in its queue's output four cycles after
    the beat that completes it. While instructions are there, one is dispatched each cycle, or on a 64-bit bus in every
    second cycle; `PREFETCH` says up to which memory latency they are.
    """

    def __init__(self, config: VTAConfig, queue_depth: int = 512) -> None:
        if type(queue_depth) is not int or not 2 <= queue_depth <= MAX_QUEUE_DEPTH:
            raise ValueError(f"queue_depth must be an integer from 2 to {MAX_QUEUE_DEPTH}, not {queue_depth!r}")
        self._config = config
        self._queue_depth = queue_depth
        self._beats = max(INSN_BITS // config.bus_bits, 1)  # Of an instruction.
        self._lanes = max(config.bus_bits // INSN_BITS, 1)  # Instructions of a beat.
        self._unit_bytes = min(config.bus_bits, INSN_BITS) // 8
        super().__init__(
            {
                "start": In(1),
                "base": In(config.address_bits),
                "count": In(32),
                "port": Out(ReadPort(config)),
                "load": Out(stream.Signature(QUEUED)),
                "compute": Out(stream.Signature(QUEUED)),
                "store": Out(stream.Signature(QUEUED)),
                "fault": Out(FAULT),
                "done": Out(1),
                "failed": Out(1),
                "idle": Out(1),
                "blocked": Out(1),
                "dispatched": Out(1),
                "bytes": Out(range(config.bus_bits // 8 + 1)),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.prefetcher = prefetcher = Prefetcher(self._config)
        wiring.connect(m, prefetcher.port, wiring.flipped(self.port))
        m.d.comb += [prefetcher.clear.eq(self.start), prefetcher.halt.eq(self.halt), self.idle.eq(prefetcher.idle)]
        self._request(m, prefetcher)
        self._count_bytes(m)
        self._dispatch(m, *self._instruction(m, prefetcher))
        return m

    def _first_lane(self) -> Value:
        """The place of the first instruction in its bus word; no bits if there is only one."""
        return self.base[4:][: (self._lanes - 1).bit_length()]

    def _request(self, m: Module, prefetcher: Prefetcher) -> None:
        """Ask for the words of the launch as one run."""
        run = prefetcher.i
        word_bits = (self._config.bus_bits // 8 - 1).bit_length()
        with m.If(run.ready):
            m.d.sync += run.valid.eq(0)
        with m.If(self.start):
            words = (self.count * self._beats + self._first_lane() + self._lanes - 1) >> (self._lanes.bit_length() - 1)
            m.d.sync += [
                run.valid.eq(self.count != 0),
                run.payload.addr.eq(Cat(Const(0, word_bits), self.base[word_bits:])),
                run.payload.beats.eq(words),
            ]

    def _count_bytes(self, m: Module) -> None:
        """Tell the useful bytes of a beat: not all of those of the first and the last word on a wide bus."""
        skipped = Signal(range(self._lanes))
        coming = Signal(BEATS_BITS)
        most = self._lanes - skipped
        useful = Mux(coming < most, coming, most)
        with m.If(self.port.beat.valid):
            m.d.comb += self.bytes.eq(useful * self._unit_bytes)
            m.d.sync += [coming.eq(coming - useful), skipped.eq(0)]
        with m.If(self.start):
            m.d.sync += [coming.eq(self.count * self._beats), skipped.eq(self._first_lane())]

    def _instruction(self, m: Module, prefetcher: Prefetcher) -> tuple[stream.Interface, Value]:
        """Cut bus words into instructions, or join them; returns a stream of 128 bits and the error of its head."""
        words = prefetcher.o
        insn = stream.Signature(INSN_BITS).create(path=("insn",))
        if self._beats == 1:
            lane = Signal(range(self._lanes))
            m.d.comb += [
                insn.payload.eq(words.payload.data.word_select(lane, INSN_BITS)),
                insn.valid.eq(words.valid),
                words.ready.eq(insn.ready & (lane == self._lanes - 1)),
            ]
            with m.If(self.start):
                m.d.sync += lane.eq(self._first_lane())
            with m.Elif(insn.valid & insn.ready):
                m.d.sync += lane.eq(lane + 1)
            return insn, words.payload.error
        half = Signal(_word_layout(self._config))
        has_half = Signal()
        m.d.comb += [
            insn.payload.eq(Cat(half.data, words.payload.data)),
            insn.valid.eq(words.valid & has_half),
            words.ready.eq(insn.ready | ~has_half),
        ]
        with m.If(self.start):
            m.d.sync += has_half.eq(0)
        with m.Elif(words.valid & words.ready):
            m.d.sync += [half.eq(words.payload), has_half.eq(~has_half)]
        return insn, half.error | words.payload.error

    def _dispatch(self, m: Module, insn: stream.Interface, error: Value) -> None:
        index = Signal(32)
        end = Signal(32)
        ready = Signal()
        m.d.comb += [
            self.done.eq((index == end) & ~self.start),
            # Behind the last instruction may come words of the same bus word, which are none.
            ready.eq(insn.valid & ~self.failed & (index != end)),
            insn.ready.eq(ready & ~error & self._enqueue(m, insn.payload, index, ready & ~error)),
            self.blocked.eq(ready & ~error & ~insn.ready),
            self.dispatched.eq(insn.ready),
            self.fault.index.eq(index),
        ]
        with m.If(ready & error):
            m.d.comb += self.fault.status.eq(Status.READ_ERROR)
            m.d.sync += self.failed.eq(1)
        with m.If(insn.ready):
            m.d.sync += index.eq(index + 1)
        with m.If(self.start):
            m.d.sync += [index.eq(0), end.eq(self.count), self.failed.eq(0)]

    def _enqueue(self, m: Module, word: Value, index: Value, valid: Value) -> Value:
        """Offer an instruction to the queue of its unit; returns whether that queue takes it."""
        fields = view_layout(self._config, Format.MEMORY)(word)
        is_load = (fields.opcode == Opcode.LOAD) & fields.memory_type.matches(MemoryType.INP, MemoryType.WGT)
        is_store = fields.opcode == Opcode.STORE
        taken: Value = Const(0)
        for name, chosen in (("load", is_load), ("store", is_store), ("compute", ~is_load & ~is_store)):
            queue = SyncFIFOBuffered(width=QUEUED.size, depth=self._queue_depth)
            m.submodules[name] = queue
            output = getattr(self, name)
            m.d.comb += [
                queue.w_data.eq(Cat(word, index)),
                queue.w_en.eq(valid & chosen),
                output.payload.eq(queue.r_data),
                output.valid.eq(queue.r_rdy),
                queue.r_en.eq(output.ready),
            ]
            taken |= queue.w_rdy & chosen
        return taken
