"""The compute unit: LOAD UOP and ACC, GEMM, ALU, FINISH, and whatever nobody knows (VTA spec 5.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.axi import ReadPort
from vta_hw.rtl.instruction import FAULT, QUEUED, earliest, view_layout
from vta_hw.rtl.load import LoadEngine
from vta_hw.rtl.nest import OPERANDS, Nest, command_layout
from vta_hw.rtl.pipeline import ComputePipeline
from vta_hw.rtl.registers import event_layout
from vta_hw.rtl.scratchpad import Geometry, ReadSignature, WriteSignature
from vta_hw.rtl.tokens import MAX_IN_FLIGHT, TokenPop, TokenPush
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import AluOp, MemoryType, Opcode, codes_of
from vta_hw.spec.registers import Status

_COUNTERS: Final = (
    "insn_compute",
    "acc_writes",
    "gemm_uops",
    "alu_uops",
    "gemm_busy",
    "alu_busy",
    "compute_load_busy",
    "compute_wait_load",
    "compute_wait_store",
    "uop_bytes",
    "acc_bytes",
)


def unit_event_layout(config: VTAConfig) -> data.StructLayout:
    """What the unit counts in a cycle, under the names of the registers (`vta_hw.spec.registers`)."""
    every = event_layout(config)
    return data.StructLayout({name: every[name].shape for name in _COUNTERS})


STROBES: Final = data.StructLayout({"next_gemm": 1, "next_alu": 1, "loaded": 1})
"""What the unit does in a cycle, for who traces a launch: the micro-ops of the next GEMM or ALU instruction that has
any trips step from the next cycle on; the data of the oldest LOAD is there."""


class Decoder(wiring.Component):
    """From an instruction to the command it is for the nest, or the fact that it is a load; combinational.

    An instruction that does nothing (a NOP, FINISH, what is unknown) becomes a command of zero trips. `fault` is of
    `Status` (VTA spec 11.2).
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "insn": In(QUEUED),
                "command": Out(command_layout(config)),
                "is_load": Out(1),
                "fault": Out(FAULT),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        memory, gemm, alu, header = (
            data.View(view_layout(self._config, kind), self.insn.word)
            for kind in (Format.MEMORY, Format.GEMM, Format.ALU, Format.HEADER)
        )
        command, operation = self.command, self.command.operation
        opcodes, alu_ops = codes_of(Opcode, self._config.isa), codes_of(AluOp, self._config.isa)
        known_load = [code for code in codes_of(MemoryType, self._config.isa) if _is_of_compute(code)]
        moves_data = (header.opcode == Opcode.LOAD) & (memory.x_size != 0)
        has_rows = (memory.y_size != 0) | (memory.y_pad_0 != 0) | (memory.y_pad_1 != 0)
        loads = moves_data & _among(memory.memory_type, known_load)
        m.d.comb += [
            self.is_load.eq(loads),
            command.index.eq(self.insn.index),
            command.retirement.push_prev.eq(header.push_prev),
            command.retirement.push_next.eq(header.push_next),
            command.retirement.finish.eq(header.opcode == Opcode.FINISH),
            self.fault.index.eq(self.insn.index),
        ]
        with m.If(~_among(header.opcode, opcodes)):
            m.d.comb += self.fault.status.eq(Status.UNKNOWN_OPCODE)
        with m.Elif(moves_data & has_rows & ~loads):
            m.d.comb += self.fault.status.eq(Status.UNKNOWN_MEMORY_TYPE)
        with m.Elif((header.opcode == Opcode.ALU) & ~_among(alu.alu_opcode, alu_ops)):
            m.d.comb += self.fault.status.eq(Status.UNKNOWN_ALU_OPCODE)
        with m.Elif(_among(header.opcode, [code for code in opcodes if code not in _OTHERS])):
            # An iteration count of zero, the default, is what makes a NOP.
            m.d.comb += [command.iter_out.eq(gemm.iter_out), command.iter_in.eq(gemm.iter_in)]
        m.d.comb += [command.uop_bgn.eq(gemm.uop_bgn), command.uop_end.eq(gemm.uop_end)]
        factors = [f"{operand}_factor_{loop}" for operand in OPERANDS for loop in ("out", "in")]
        with m.If(header.opcode == Opcode.ALU):
            m.d.comb += [command[name].eq(alu[name]) for name in factors if not name.startswith("wgt")]
            m.d.comb += [
                operation.alu.eq(1),
                operation.alu_opcode.eq(alu.alu_opcode),
                operation.use_imm.eq(alu.use_imm),
                operation.imm.eq(alu.imm),
            ]
        with m.Else():
            m.d.comb += [command[name].eq(gemm[name]) for name in factors]
            m.d.comb += [operation.gemm.eq(1), operation.reset.eq(gemm.reset)]
        if AluOp.REQUANT in alu_ops:
            m.d.comb += operation.requant.eq(operation.alu & (alu.alu_opcode == AluOp.REQUANT))
        if Opcode.GEMM_OVERWRITE in opcodes:
            with m.If(header.opcode == Opcode.GEMM_OVERWRITE):
                m.d.comb += [operation.overwrite.eq(1), operation.reset.eq(0)]
        return m


_OTHERS: Final = (Opcode.LOAD, Opcode.STORE, Opcode.FINISH)


def _is_of_compute(code: MemoryType) -> bool:
    return code.scratchpad in (MemoryType.UOP, MemoryType.ACC)


def _among(value: Value, codes: Iterable[int]) -> Value:
    found: Value = value.matches(*(int(code) for code in codes))
    return found


class ComputeUnit(wiring.Component):
    """Executes the instructions of the compute queue in order.

    GEMM, ALU and instructions without work follow each other without a bubble and retire in order at the end of the
    pipeline; N micro-ops take N + 7 cycles from the acceptance of their instruction to the cycle behind their last
    write. A load begins when the pipeline is empty, other instructions when all loads are complete. Tokens are taken in
    the cycle in which an instruction begins and given in the one in which it completes; an instruction that gives
    tokens begins only when there is room for them.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        geometry = {memory: Geometry.of(config, memory) for memory in MemoryType if memory <= MemoryType.OUT}
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
                "uop_read": Out(ReadSignature(geometry[MemoryType.UOP])),
                "inp_read": Out(ReadSignature(geometry[MemoryType.INP])),
                "wgt_read": Out(ReadSignature(geometry[MemoryType.WGT])),
                "acc_read": Out(ReadSignature(geometry[MemoryType.ACC])).array(2),
                "uop_write": Out(WriteSignature(geometry[MemoryType.UOP])),
                "acc_write": Out(WriteSignature(geometry[MemoryType.ACC])),
                "out_write": Out(WriteSignature(geometry[MemoryType.OUT])),
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
        m.submodules.nest = nest = Nest(self._config)
        m.submodules.pipeline = pipeline = ComputePipeline(self._config)
        m.submodules.loader = loader = LoadEngine(self._config, (MemoryType.UOP, MemoryType.ACC))
        m.submodules.pushes = pushes = SyncFIFO(width=2, depth=MAX_IN_FLIGHT)
        connect(m, nest.o, pipeline.i)
        self._connect_memories(m, pipeline, loader)
        self._begin(m, decoder, nest, pipeline, loader, pushes)
        self._end(m, nest, pipeline, loader, pushes)
        return m

    def _connect_memories(self, m: Module, pipeline: ComputePipeline, loader: LoadEngine) -> None:
        connect(m, flipped(self.port), loader.port)
        for inside, outside in (
            (pipeline.uop, self.uop_read),
            (pipeline.inp, self.inp_read),
            (pipeline.wgt, self.wgt_read),
            *zip(pipeline.acc, self.acc_read, strict=True),
            (pipeline.out_write, self.out_write),
            (loader.uop_write, self.uop_write),
        ):
            connect(m, inside, flipped(outside))
        # The pipeline and loads never write in the same cycle.
        for name in ("line", "data", "en"):
            from_pipeline, from_loader = (getattr(source.acc_write, name) for source in (pipeline, loader))
            m.d.comb += getattr(self.acc_write, name).eq(Mux(pipeline.wrote.any, from_pipeline, from_loader))
        m.d.comb += [
            loader.uop_base.eq(self.uop_base),
            loader.acc_base.eq(self.acc_base),
            loader.halt.eq(self.halt),
        ]

    def _begin(
        self,
        m: Module,
        decoder: Decoder,
        nest: Nest,
        pipeline: ComputePipeline,
        loader: LoadEngine,
        pushes: SyncFIFO,
    ) -> None:
        """Hand the head of the queue to the nest or to the loader."""
        header = data.View(view_layout(self._config, Format.HEADER), self.i.p.word)
        tokens = Signal()
        room = Signal()
        free = Signal()
        begin = Signal()
        plain_nest = nest.o.valid & ~nest.o.p.operation.requant
        m.d.comb += [
            decoder.insn.eq(self.i.p),
            nest.i.p.eq(decoder.command),
            loader.i.p.eq(self.i.p),
            pushes.w_data.eq(Cat(header.push_prev, header.push_next)),
            tokens.eq((~header.pop_prev | self.pop_load.available) & (~header.pop_next | self.pop_store.available)),
            room.eq((~header.push_prev | self.push_load.room) & (~header.push_next | self.push_store.room)),
        ]
        with m.If(decoder.is_load):
            m.d.comb += free.eq(pipeline.idle & ~nest.o.valid & loader.i.ready & pushes.w_rdy)
        with m.Else():
            early = decoder.command.operation.requant & (plain_nest | pipeline.plain)
            m.d.comb += free.eq(nest.i.ready & ~pushes.r_rdy & ~early)
        m.d.comb += [
            begin.eq(self.i.valid & tokens & room & free),
            self.i.ready.eq(begin),
            nest.i.valid.eq(begin & ~decoder.is_load),
            loader.i.valid.eq(begin & decoder.is_load),
            pushes.w_en.eq(begin & decoder.is_load),
            self.pop_load.take.eq(begin & header.pop_prev),
            self.pop_store.take.eq(begin & header.pop_next),
        ]
        m.d.comb += [
            self.waiting.eq(self.i.valid & ~(tokens & room)),
            self.events.compute_wait_load.eq(self._stopped(self.i.valid & header.pop_prev & ~self.pop_load.available)),
            self.events.compute_wait_store.eq(
                self._stopped(self.i.valid & header.pop_next & ~self.pop_store.available)
            ),
        ]
        decoded = FAULT(Cat(Mux(begin, decoder.fault.status, 0), decoder.fault.index))
        m.d.comb += self.fault.eq(earliest((loader.fault, pipeline.fault, decoded)))
        steps = nest.i.valid & (decoder.command.iter_out != 0) & (decoder.command.iter_in != 0)
        m.d.comb += [
            self.strobes.next_gemm.eq(steps & decoder.command.operation.gemm),
            self.strobes.next_alu.eq(steps & decoder.command.operation.alu),
            self.strobes.loaded.eq(loader.done),
        ]

    def _stopped(self, reason: Value) -> Value:
        return reason & self.idle

    def _end(self, m: Module, nest: Nest, pipeline: ComputePipeline, loader: LoadEngine, pushes: SyncFIFO) -> None:
        """Give tokens for what completes, and count."""
        pushed = Signal(2)
        m.d.comb += [
            pushes.r_en.eq(loader.done),
            pushed.eq(
                Mux(loader.done, pushes.r_data, 0)
                | Mux(pipeline.retired, Cat(pipeline.retirement.push_prev, pipeline.retirement.push_next), 0)
            ),
            self.push_load.give.eq(pushed[0]),
            self.push_store.give.eq(pushed[1]),
            self.finished.eq(pipeline.retired & pipeline.retirement.finish),
            self.idle.eq(~nest.o.valid & pipeline.idle & ~pushes.r_rdy),
            self.events.insn_compute.eq(loader.done | pipeline.retired),
            self.events.acc_writes.eq(pipeline.wrote.any),
            self.events.gemm_uops.eq(pipeline.wrote.gemm),
            self.events.alu_uops.eq(pipeline.wrote.alu),
            self.events.gemm_busy.eq(nest.o.valid & nest.o.p.work & nest.o.p.operation.gemm),
            self.events.alu_busy.eq(nest.o.valid & nest.o.p.work & nest.o.p.operation.alu),
            self.events.compute_load_busy.eq(pushes.r_rdy),
            self.events.uop_bytes.eq(loader.uop_bytes),
            self.events.acc_bytes.eq(loader.acc_bytes),
        ]
