"""The compute unit of a machine whose ALU and accumulator loads work beside GEMM (decision 0008).

Instructions are dispatched in program order, each to the lane that executes it, run when the scoreboard says that
nothing older which they clash with is under way, and retire in program order. So whoever waits for a token sees what it
would see of a machine that works in order.
"""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.axi import ReadPort
from vta_hw.rtl.compute import STROBES, Decoder, unit_event_layout
from vta_hw.rtl.instruction import FAULT, QUEUED, earliest, view_layout
from vta_hw.rtl.load import LoadEngine
from vta_hw.rtl.nest import SLOT_BITS, Nest, command_layout, step_layout
from vta_hw.rtl.pipeline import ComputePipeline, Units
from vta_hw.rtl.scan import Scanner
from vta_hw.rtl.scoreboard import SLOTS, Lane, Scoreboard
from vta_hw.rtl.scratchpad import SHARED_BANKS, Geometry, ReadSignature, WideReadSignature, WriteSignature
from vta_hw.rtl.tokens import TokenPop, TokenPush
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import MemoryType

_BANK_BITS: Final = SHARED_BANKS.bit_length() - 1


class ArithmeticLane(wiring.Component):
    """A queue, a nest and a pipeline for GEMM or for the ALU.

    i: commands, of which each waits for the bit of its slot in `runnable`. pipeline: for the unit around it to connect.
    step: what the nest shows in this cycle, if `active`. dry: there is no command behind that step. begins: the nest
    takes a command, whose steps it shows from the next cycle on.
    """

    def __init__(self, config: VTAConfig, units: Units) -> None:
        self._config = config
        self.pipeline = ComputePipeline(config, units)
        super().__init__(
            {
                "i": In(stream.Signature(command_layout(config))),
                "runnable": In(SLOTS),
                "step": Out(step_layout(config)),
                "active": Out(1),
                "dry": Out(1),
                "begins": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.queue = queue = SyncFIFO(width=self.i.p.shape().size, depth=SLOTS)
        m.submodules.nest = nest = Nest(self._config)
        m.submodules.pipeline = pipeline = self.pipeline
        connect(m, nest.o, pipeline.i)
        command = data.View(command_layout(self._config), queue.r_data)
        # REQUANT reads ACC in an early stage, so what came before it must be past the late one.
        plain = pipeline.plain | (nest.o.valid & ~nest.o.p.operation.requant)
        run = Signal()
        m.d.comb += [
            queue.w_data.eq(self.i.p),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            run.eq(
                queue.r_rdy
                & self.runnable.bit_select(command.retirement.slot, 1)
                & ~(command.operation.requant & plain)
            ),
            nest.i.valid.eq(run),
            nest.i.p.eq(command),
            queue.r_en.eq(run & nest.i.ready),
            self.step.eq(nest.o.p),
            self.active.eq(nest.o.valid),
            self.begins.eq(run & nest.i.ready),
            self.dry.eq(~queue.r_rdy & (~nest.o.valid | nest.o.p.last)),
        ]
        return m


class LoadLane(wiring.Component):
    """A queue in front of the loader of micro-ops and accumulators.

    i: LOADs; `slot` belongs to the one that is taken, and waits for its bit in `runnable`. `done`: the load in
    `done_slot` is complete. `busy`: there are loads here; `dry`: there are none. engine: to be connected to memory and
    scratchpads.
    """

    def __init__(self, config: VTAConfig) -> None:
        self.engine = LoadEngine(config, (MemoryType.UOP, MemoryType.ACC))
        super().__init__(
            {
                "i": In(stream.Signature(QUEUED)),
                "slot": In(SLOT_BITS),
                "runnable": In(SLOTS),
                "done": Out(1),
                "done_slot": Out(SLOT_BITS),
                "busy": Out(1),
                "dry": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.engine = engine = self.engine
        m.submodules.queue = queue = SyncFIFO(width=QUEUED.size + SLOT_BITS, depth=SLOTS)
        m.submodules.running = running = SyncFIFO(width=SLOT_BITS, depth=SLOTS)
        slot, insn = queue.r_data[:SLOT_BITS], queue.r_data[SLOT_BITS:]
        run = Signal()
        m.d.comb += [
            queue.w_data.eq(Cat(self.slot, self.i.p)),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            run.eq(queue.r_rdy & self.runnable.bit_select(slot, 1)),
            engine.i.valid.eq(run),
            engine.i.p.eq(insn),
            queue.r_en.eq(run & engine.i.ready),
            running.w_data.eq(slot),
            running.w_en.eq(run & engine.i.ready),
            running.r_en.eq(engine.done),
            self.done.eq(engine.done),
            self.done_slot.eq(running.r_data),
            self.busy.eq(queue.r_rdy | running.r_rdy),
            self.dry.eq(~self.busy),
        ]
        return m


class OverlappedComputeUnit(wiring.Component):
    """Executes the instructions of the compute queue, those that do not clash beside each other.

    An instruction is dispatched when its tokens are there, which are taken then, when there is room for those it will
    give, and when its ranges are known: a scanner reads its micro-ops while others are executing. If only its own lane
    has work, and that is about to end, it goes at once, and its ranges become known later. Tokens are given at
    retirement.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        acc = Geometry.of(config, MemoryType.ACC)
        super().__init__(
            {
                "i": In(stream.Signature(QUEUED)),
                "pop_load": Out(TokenPop()),
                "pop_store": Out(TokenPop()),
                "push_load": Out(TokenPush()),
                "push_store": Out(TokenPush()),
                "uop_base": In(config.address_bits),
                "acc_base": In(config.address_bits),
                "port": Out(ReadPort(config)),
                "uop_read": Out(ReadSignature(Geometry.of(config, MemoryType.UOP))).array(2),
                "uop_scan": Out(WideReadSignature(Geometry.of(config, MemoryType.UOP))),
                "inp_read": Out(ReadSignature(Geometry.of(config, MemoryType.INP))),
                "wgt_read": Out(ReadSignature(Geometry.of(config, MemoryType.WGT))),
                **{f"{name}_acc_read": Out(ReadSignature(acc)) for name in ("gemm", "alu", "operand")},
                **{f"{name}_acc_write": Out(WriteSignature(acc)) for name in ("gemm", "alu", "load")},
                "uop_write": Out(WriteSignature(Geometry.of(config, MemoryType.UOP))),
                "out_write": Out(WriteSignature(Geometry.of(config, MemoryType.OUT))),
                "halt": In(1),
                "idle": Out(1),
                "waiting": Out(1),
                "finished": Out(1),
                "fault": Out(FAULT),
                "events": Out(unit_event_layout(config)),
                "strobes": Out(STROBES),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.decoder = decoder = Decoder(self._config)
        m.submodules.scanner = scanner = Scanner(self._config)
        m.submodules.scoreboard = scoreboard = Scoreboard(self._config)
        m.submodules.gemm = gemm = ArithmeticLane(self._config, Units.GEMM)
        m.submodules.alu = alu = ArithmeticLane(self._config, Units.ALU)
        m.submodules.load = load = LoadLane(self._config)
        m.d.comb += [lane.runnable.eq(scoreboard.runnable) for lane in (gemm, alu, load)]
        self._connect_memories(m, gemm.pipeline, alu.pipeline, load.engine)
        connect(m, scanner.uop, flipped(self.uop_scan))
        begin = self._dispatch(m, decoder, scanner, scoreboard, gemm, alu, load)
        self._arbitrate(m, gemm.pipeline, alu.pipeline, load.engine)
        self._complete(m, scoreboard, gemm, alu, load)
        decoded = FAULT(Cat(Mux(begin, decoder.fault.status, 0), decoder.fault.index))
        m.d.comb += self.fault.eq(earliest((alu.pipeline.fault, gemm.pipeline.fault, load.engine.fault, decoded)))
        return m

    def _connect_memories(self, m: Module, gemm: ComputePipeline, alu: ComputePipeline, loader: LoadEngine) -> None:
        connect(m, flipped(self.port), loader.port)
        for inside, outside in (
            (gemm.uop, self.uop_read[0]),
            (alu.uop, self.uop_read[1]),
            (gemm.inp, self.inp_read),
            (gemm.wgt, self.wgt_read),
            (gemm.acc[0], self.gemm_acc_read),
            (alu.acc[0], self.alu_acc_read),
            (alu.acc[1], self.operand_acc_read),
            (gemm.acc_write, self.gemm_acc_write),
            (alu.acc_write, self.alu_acc_write),
            (loader.acc_write, self.load_acc_write),
            (loader.uop_write, self.uop_write),
        ):
            connect(m, inside, flipped(outside))
        for bank in range(Geometry.of(self._config, MemoryType.OUT).banks):
            by_gemm = gemm.out_write.en[bank].any()
            for name in ("line", "data", "en"):
                from_gemm, from_alu = (getattr(lane.out_write, name)[bank] for lane in (gemm, alu))
                m.d.comb += getattr(self.out_write, name)[bank].eq(Mux(by_gemm, from_gemm, from_alu))
        m.d.comb += [
            loader.uop_base.eq(self.uop_base),
            loader.acc_base.eq(self.acc_base),
            loader.halt.eq(self.halt),
        ]

    def _dispatch(
        self,
        m: Module,
        decoder: Decoder,
        scanner: Scanner,
        scoreboard: Scoreboard,
        gemm: ArithmeticLane,
        alu: ArithmeticLane,
        load: LoadLane,
    ) -> Value:
        """Hand the head of the queue to the scoreboard and its lane; returns whether this happens."""
        memory = data.View(view_layout(self._config, Format.MEMORY), self.i.p.word)
        lane = Signal(Lane)
        known = Signal()
        dry = Signal()
        tokens = Signal()
        room = Signal()
        free = Signal()
        begin = Signal()
        command, operation = decoder.command, decoder.command.operation
        does_nothing = (command.iter_out == 0) | (command.iter_in == 0)
        with m.If(decoder.is_load):
            m.d.comb += [lane.eq(Lane.LOAD), free.eq(load.i.ready), dry.eq(load.dry)]
        with m.Elif(does_nothing):
            m.d.comb += [lane.eq(Lane.NONE), free.eq(1)]
        with m.Elif(operation.alu):
            m.d.comb += [lane.eq(Lane.ALU), free.eq(alu.i.ready), dry.eq(alu.dry)]
        with m.Else():
            m.d.comb += [lane.eq(Lane.GEMM), free.eq(gemm.i.ready), dry.eq(gemm.dry)]
        # Without work of other lanes there is nothing to clash with, and a lane that runs dry need not wait for ranges.
        early = dry & ((scoreboard.busy & ~(1 << lane)) == 0)
        m.d.comb += [
            decoder.insn.eq(self.i.p),
            scanner.command.eq(command),
            scanner.word.eq(self.i.p.word),
            scanner.is_load.eq(decoder.is_load),
            tokens.eq((~memory.pop_prev | self.pop_load.available) & (~memory.pop_next | self.pop_store.available)),
            room.eq((~memory.push_prev | self.push_load.room) & (~memory.push_next | self.push_store.room)),
            begin.eq(self.i.valid & tokens & room & free & (known | early | (lane == Lane.NONE)) & scoreboard.i.ready),
            self.i.ready.eq(begin),
            self.waiting.eq(self.i.valid & ~(tokens & room)),
            self.pop_load.take.eq(begin & memory.pop_prev),
            self.pop_store.take.eq(begin & memory.pop_next),
            scoreboard.i.valid.eq(begin),
            scoreboard.i.p.lane.eq(lane),
            scoreboard.i.p.known.eq(known),
            scoreboard.i.p.ranges.eq(scanner.ranges),
            scoreboard.i.p.retirement.eq(command.retirement),
            self.events.compute_wait_load.eq(self._stopped(memory.pop_prev & ~self.pop_load.available)),
            self.events.compute_wait_store.eq(self._stopped(memory.pop_next & ~self.pop_store.available)),
        ]
        for target, number in ((gemm, Lane.GEMM), (alu, Lane.ALU), (load, Lane.LOAD)):
            m.d.comb += target.i.valid.eq(begin & (lane == number))
        for arithmetic in (gemm, alu):
            m.d.comb += [arithmetic.i.p.eq(command), arithmetic.i.p.retirement.slot.eq(scoreboard.slot)]
        m.d.comb += [load.i.p.eq(self.i.p), load.slot.eq(scoreboard.slot)]
        self._scan(m, scanner, scoreboard, self.i.valid & (lane != Lane.NONE), begin, known)
        return begin

    def _scan(
        self, m: Module, scanner: Scanner, scoreboard: Scoreboard, wanted: Value, begin: Value, known: Signal
    ) -> None:
        """Find the ranges of the head of the queue, or those of the latest instruction that went without them."""
        of_head = Signal()
        of_slot = Signal()
        m.d.comb += [
            scanner.start.eq(
                wanted & ~of_head & (~of_slot | scanner.done | begin) & (scanner.is_load | ~scoreboard.loads_uops)
            ),
            known.eq(of_head & scanner.done),
            scoreboard.found.valid.eq(of_slot & scanner.done),
        ]
        with m.If(begin & wanted):
            m.d.sync += [of_head.eq(0), of_slot.eq(~known), scoreboard.found.slot.eq(scoreboard.slot)]
        with m.Else():
            with m.If(scanner.start):
                m.d.sync += of_head.eq(1)
            with m.If(scanner.done):
                m.d.sync += of_slot.eq(0)

    def _stopped(self, reason: Value) -> Value:
        return self.i.valid & reason & self.idle

    def _arbitrate(self, m: Module, gemm: ComputePipeline, alu: ComputePipeline, loader: LoadEngine) -> None:
        """Who waits for a bank of ACC: the ALU for GEMM, and both for loads, whose beats cannot wait."""
        bank_bits = Geometry.of(self._config, MemoryType.ACC).bank_bits
        gemm_bank = gemm.late.index[:_BANK_BITS]

        def loaded(index: Value) -> Value:
            return loader.acc_next_banks.bit_select(index[:bank_bits], 1)

        taken = gemm.late.work & (alu.late.index[:_BANK_BITS] == gemm_bank)
        m.d.comb += [
            gemm.hold.eq(gemm.late.work & loaded(gemm.late.index)),
            alu.hold.eq(alu.late.work & (loaded(alu.late.index) | taken)),
            alu.hold_early.eq(gemm.late.work & (alu.early[:_BANK_BITS] == gemm_bank)),
        ]

    def _complete(
        self, m: Module, scoreboard: Scoreboard, gemm: ArithmeticLane, alu: ArithmeticLane, load: LoadLane
    ) -> None:
        """Tell the scoreboard what is complete, give tokens for what retires, and count."""
        for lane, number in ((gemm, Lane.GEMM), (alu, Lane.ALU)):
            done = scoreboard.completed[number - 1]
            m.d.comb += [done.valid.eq(lane.pipeline.retired), done.slot.eq(lane.pipeline.retirement.slot)]
        loaded = scoreboard.completed[Lane.LOAD - 1]
        wrote_gemm, wrote_alu = gemm.pipeline.wrote, alu.pipeline.wrote
        m.d.comb += [
            loaded.valid.eq(load.done),
            loaded.slot.eq(load.done_slot),
            self.push_load.give.eq(scoreboard.retired & scoreboard.retirement.push_prev),
            self.push_store.give.eq(scoreboard.retired & scoreboard.retirement.push_next),
            self.finished.eq(scoreboard.retired & scoreboard.retirement.finish),
            self.idle.eq(scoreboard.empty),
            self.events.insn_compute.eq(scoreboard.retired),
            self.events.acc_writes.eq(wrote_gemm.any + wrote_alu.any),
            self.events.gemm_uops.eq(wrote_gemm.gemm),
            self.events.alu_uops.eq(wrote_alu.alu),
            self.events.gemm_busy.eq(gemm.active & gemm.step.work),
            self.events.alu_busy.eq(alu.active & alu.step.work),
            self.events.compute_load_busy.eq(load.busy),
            self.strobes.next_gemm.eq(gemm.begins),
            self.strobes.next_alu.eq(alu.begins),
            self.strobes.loaded.eq(load.done),
            self.events.uop_bytes.eq(load.engine.uop_bytes),
            self.events.acc_bytes.eq(load.engine.acc_bytes),
        ]
