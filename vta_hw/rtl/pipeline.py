"""The datapath of the compute unit: micro-ops in, accumulator and output tiles out, one per cycle.

| stage | work |
|---|---|
| `fetch` | the micro-op is read, in the cycle in which the nest shows its step |
| `index` | offsets are added to its indices; INP and WGT are read; REQUANT reads ACC |
| `operand` | tiles go into the registers of the multipliers |
| `product` | products |
| `partial` | first half of the adder tree |
| `sum` | second half; ACC is read |
| `write` | accumulation or ALU; ACC and OUT are written, the instruction retires |

GEMM and ALU share the stages, so that their micro-ops take effect in program order. ACC is read and written in
neighbouring stages, and its read ports see what is written in the same cycle: a micro-op may use the result of the one
before it. REQUANT works in the stages of the multipliers and so reads ACC early; it waits in `index` for operands that
are still on their way.

Where GEMM and ALU overlap, each has a pipeline of its own that shares ACC with the other, and waits when told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.alu import Alu, tile_layout
from vta_hw.rtl.gemm import GemmArray
from vta_hw.rtl.instruction import FAULT, view_layout
from vta_hw.rtl.nest import OPERANDS, OPERATION, RETIREMENT, add_index, index_bits, step_layout
from vta_hw.rtl.requant import Requant
from vta_hw.rtl.scratchpad import Geometry, ReadSignature, WriteSignature
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import InstructionSet, MemoryType
from vta_hw.spec.registers import Status

STAGES: Final = ("operand", "product", "partial", "sum", "write")
"""The stages behind `index`, through which a micro-op goes without waiting."""


class Units(Flag):
    """What a pipeline is built of."""

    GEMM = auto()
    ALU = auto()
    BOTH = GEMM | ALU


class ComputePipeline(wiring.Component):
    """Executes the steps of a `Nest`.

    A step that is taken in cycle t is in `index` in t+1 and writes its tiles in t+6 (later if it had to wait in
    `index`): they can be read in t+7. `retired` is high in the cycle of the write for the last step of an instruction,
    with what follows from it on `retirement`. `idle`: no step inside. `plain`: a step inside, other than of REQUANT,
    has yet to read ACC in `sum`. `fault` names indices out of range (they wrap). `wrote` counts accumulator writes by
    kind; `gemm` is without resets.

    With `hold` all stages but `write` stay as they are, with `hold_early` a REQUANT stays in `index`. `late` is the ACC
    index that `sum` reads in this cycle and `write` writes in the next, `early` the one a REQUANT reads in `index`.

    units: what the pipeline is built of; it is given no other operations.
    """

    def __init__(self, config: VTAConfig, units: Units = Units.BOTH) -> None:
        self._config = config
        self._units = units
        self._extended = config.isa == InstructionSet.EXTENDED and Units.ALU in units
        acc = Geometry.of(config, MemoryType.ACC)
        super().__init__(
            {
                "i": In(stream.Signature(step_layout(config))),
                "uop": Out(ReadSignature(Geometry.of(config, MemoryType.UOP))),
                "inp": Out(ReadSignature(Geometry.of(config, MemoryType.INP))),
                "wgt": Out(ReadSignature(Geometry.of(config, MemoryType.WGT))),
                "acc": Out(ReadSignature(acc)).array(2),
                "acc_write": Out(WriteSignature(acc)),
                "out_write": Out(WriteSignature(Geometry.of(config, MemoryType.OUT))),
                "retired": Out(1),
                "retirement": Out(RETIREMENT),
                "idle": Out(1),
                "plain": Out(1),
                "fault": Out(FAULT),
                "wrote": Out(data.StructLayout({"any": 1, "gemm": 1, "alu": 1})),
                "hold": In(1),
                "hold_early": In(1),
                "late": Out(data.StructLayout({"work": 1, "index": index_bits(config, "dst")})),
                "early": Out(index_bits(config, "dst")),
            }
        )
        acc_bits = index_bits(config, "dst")
        flags = {"valid": 1, "work": 1, "last": 1}
        self._stage = data.StructLayout(
            {**flags, "operation": OPERATION, "retirement": RETIREMENT, "dst": acc_bits, "src": acc_bits}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        index = Signal(self._stage, name="index")
        stages = {name: Signal(self._stage, name=name) for name in STAGES}
        wait = Signal()
        with m.If(self.hold):
            m.d.sync += stages["write"].eq(0)
        with m.Else():
            m.d.sync += stages["operand"].eq(Mux(wait, 0, Value.cast(index)))
            for before, after in pairwise(stages.values()):
                m.d.sync += after.eq(before)
        self._index(m, index, wait | self.hold)

        reading = [stages[name] for name in STAGES[:-1]]
        requant = index.work & index.operation.requant
        hazard = _any(stage.work & ((stage.dst == index.dst) | (stage.dst >> 1 == index.src >> 1)) for stage in reading)
        late = stages["sum"]
        m.d.comb += [
            self.idle.eq(~_any(stage.valid for stage in (index, *stages.values()))),
            self.plain.eq(_any(stage.valid & ~stage.operation.requant for stage in (index, *reading))),
            # Two neighbours hold the parameters of REQUANT, so that the lowest bit of `src` does not matter.
            wait.eq(requant & (hazard | self.hold_early)),
            self.late.work.eq(late.work),
            self.late.index.eq(late.dst),
            self.early.eq(index.dst),
        ]
        early = requant if self._extended else Const(0)
        for port, operand in zip(self.acc, ("dst", "src"), strict=True):
            m.d.comb += [
                port.index.eq(Mux(early, index[operand], late[operand])),
                port.en.eq(~self.hold & Mux(early, ~wait, late.work & ~late.operation.requant)),
            ]
        self._write(m, stages["write"], self._result(m, stages))
        return m

    def _index(self, m: Module, index: data.View, wait: Value) -> None:
        """Stage `index`: from the step and its micro-op to the indices."""
        step = Signal(step_layout(self._config))
        valid = Signal()
        m.d.comb += [
            self.i.ready.eq(~wait),
            self.uop.index.eq(self.i.p.uop.value),
            self.uop.en.eq(self.i.valid & self.i.ready),
        ]
        with m.If(~wait):
            m.d.sync += [step.eq(self.i.p), valid.eq(self.i.valid)]
        uop = data.View(view_layout(self._config, Format.UOP), self.uop.data)
        sums = {operand: add_index(m, step[operand], uop[operand], f"sum_{operand}") for operand in OPERANDS}
        multiplies = index.work & step.operation.gemm & ~step.operation.reset
        m.d.comb += [
            index.valid.eq(valid),
            index.work.eq(valid & step.work),
            index.last.eq(step.last),
            index.operation.eq(step.operation),
            index.retirement.eq(step.retirement),
            index.dst.eq(sums["dst"].value),
            index.src.eq(sums["src"].value),
            self.inp.index.eq(sums["src"].value),
            self.inp.en.eq(multiplies & ~wait),
            self.wgt.index.eq(sums["wgt"].value),
            self.wgt.en.eq(multiplies & ~wait),
        ]
        two_operands = index.work & step.operation.alu & (~step.operation.use_imm | step.operation.requant)
        acc_depth, inp_depth = self._config.acc_depth, self._config.inp_depth
        src, src_over = sums["src"].value, sums["src"].over
        with m.If(index.work & ~wait):
            m.d.comb += [
                self.fault.index.eq(step.index),
                self.fault.status.eq(
                    Mux(step.uop.over, Status.UOP_INDEX, 0)
                    | Mux(sums["dst"].over, Status.ACC_INDEX, 0)
                    | Mux(two_operands & (src_over | (src >= acc_depth)), Status.ACC_INDEX, 0)
                    | Mux(multiplies & (src_over | (src >= inp_depth)), Status.INP_INDEX, 0)
                    | Mux(multiplies & sums["wgt"].over, Status.WGT_INDEX, 0)
                ),
            ]

    def _result(self, m: Module, stages: dict[str, data.View]) -> Value:
        """The accumulator tile that stage `write` writes."""
        write, operation = stages["write"], stages["write"].operation
        result = Signal(tile_layout(self._config))
        choices: list[tuple[Value, Value]] = []
        if Units.GEMM in self._units:
            products = self._multiply_accumulate(m, stages["operand"], operation)
            choices.append((operation.gemm & ~operation.reset, products))
        if Units.ALU in self._units:
            choices.append((operation.alu & ~operation.requant, self._alu(m, operation)))
        if self._extended:
            choices.append((operation.requant, self._requantise(m, stages["operand"], operation)))
        for condition, tile in choices:
            with m.If(condition):
                m.d.comb += result.eq(tile)
        m.d.comb += [
            self.wrote.any.eq(write.work & (operation.gemm | operation.alu)),
            self.wrote.gemm.eq(write.work & operation.gemm & ~operation.reset),
            self.wrote.alu.eq(write.work & operation.alu),
        ]
        return result

    def _tile(self, number: int) -> data.View:
        return data.View(tile_layout(self._config), self.acc[number].data)

    def _multiply_accumulate(self, m: Module, operand: data.View, operation: data.View) -> Value:
        gemm = GemmArray(self._config)
        m.submodules.gemm = self._held(gemm)
        result = Signal(tile_layout(self._config))
        m.d.comb += [
            gemm.en.eq(operand.work & operand.operation.gemm),
            gemm.inp.eq(self.inp.data),
            gemm.wgt.eq(self.wgt.data),
        ]
        for lane, dot, addend in zip(result, gemm.dot, self._tile(0), strict=True):
            m.d.comb += lane.eq(dot + Mux(operation.overwrite, 0, addend))
        return result

    def _alu(self, m: Module, operation: data.View) -> Value:
        m.submodules.alu = alu = Alu(self._config)
        m.d.comb += alu.opcode.eq(operation.alu_opcode)
        # Operands that rest save power, and time in simulation.
        with m.If(operation.alu & ~operation.requant):
            m.d.comb += [Value.cast(alu.x).eq(self._tile(0)), Value.cast(alu.y).eq(self._tile(1))]
            with m.If(operation.use_imm):
                m.d.comb += [scalar.eq(operation.imm.as_signed()) for scalar in alu.y]
        result: Value = alu.o
        return result

    def _requantise(self, m: Module, operand: data.View, operation: data.View) -> Value:
        requant = Requant(self._config)
        m.submodules.requant = self._held(requant)
        tile = Value.cast(self._tile(0))
        if self._config.overlap:
            # While this pipeline holds, the other one may read from the same port.
            fresh = Signal()
            kept = Signal(tile.shape())
            m.d.sync += fresh.eq(self.acc[0].en)
            with m.If(fresh):
                m.d.sync += kept.eq(tile)
            tile = Mux(fresh, tile, kept)
        m.d.comb += [
            requant.en.eq(operand.work & operand.operation.requant),
            Value.cast(requant.x).eq(tile),
            requant.bias.eq(self.acc[1].pair[0]),
            requant.q.eq(self.acc[1].pair[1]),
            requant.imm.eq(operation.imm),
        ]
        result: Value = requant.o
        return result

    def _held(self, unit: wiring.Component) -> Elaboratable:
        """The unit, standing still with the pipeline."""
        return EnableInserter(~self.hold)(unit) if self._config.overlap else unit

    def _write(self, m: Module, write: data.View, result: data.View) -> None:
        """Stage `write`: ACC, OUT (the low bits of each scalar, VTA spec 3.6), and retirement."""
        for port, memory, bits in (
            (self.acc_write, MemoryType.ACC, 32),
            (self.out_write, MemoryType.OUT, self._config.out_bits),
        ):
            geometry = Geometry.of(self._config, memory)
            for bank in range(geometry.banks):
                chosen = write.dst[: geometry.bank_bits] == bank
                m.d.comb += [
                    port.line[bank].eq(write.dst >> geometry.bank_bits),
                    port.data[bank].eq(Cat(scalar[:bits] for scalar in result)),
                    port.en[bank].eq(Mux(self.wrote.any & chosen, -1, 0)),
                ]
        m.d.comb += [
            self.retired.eq(write.valid & write.last),
            self.retirement.eq(write.retirement),
        ]


def _any(flags: Iterable[Value]) -> Value:
    return reduce(or_, flags)
