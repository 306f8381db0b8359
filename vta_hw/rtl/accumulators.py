"""The accumulator scratchpad that GEMM, ALU and loads use at the same time, each bank by one of them in a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import In

from vta_hw.rtl.scratchpad import Geometry, ReadSignature, WriteSignature


class SharedAccumulators(wiring.Component):
    """Banks with one write port and two read ports, as the scratchpad of a machine that works in order.

    `gemm` and `alu` read elements as `ReadSignature` says, but not the same bank in one cycle; `gemm` has priority. The
    second read port is the ALU's alone (`operand`). Of `gemm_write`, `alu_write` and `load_write`, no two may write one
    bank in one cycle. Reads see what is written in the same cycle.

    banks: what the memories hold, for simulators that look inside; see `Geometry` for where an element lies.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        shape, lines = geometry.elem_bits, max(geometry.lines, 2)
        self.banks = tuple(MemoryData(shape=shape, depth=lines, init=[]) for _ in range(geometry.banks))
        super().__init__(
            {
                **{name: In(ReadSignature(geometry)) for name in ("gemm", "alu", "operand")},
                **{f"{name}_write": In(WriteSignature(geometry)) for name in ("gemm", "alu", "load")},
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        geometry = self.geometry
        first: list[Value] = []
        second: list[Value] = []
        for bank, contents in enumerate(self.banks):
            m.submodules[f"bank{bank}"] = memory = Memory(contents)
            write = memory.write_port(granularity=geometry.granule_bits)
            read, read_operand = (memory.read_port(transparent_for=(write,)) for _ in range(2))
            for writer in (self.alu_write, self.load_write, self.gemm_write):
                with m.If(writer.en[bank].any()):
                    m.d.comb += [
                        write.addr.eq(writer.line[bank]),
                        write.data.eq(writer.data[bank]),
                        write.en.eq(writer.en[bank]),
                    ]
            by_gemm = self.gemm.en & self._is_in(self.gemm.index, bank)
            by_alu = self.alu.en & self._is_in(self.alu.index, bank)
            m.d.comb += [
                read.addr.eq(Mux(by_gemm, self.gemm.index, self.alu.index) >> geometry.bank_bits),
                read.en.eq(by_gemm | by_alu),
                read_operand.addr.eq(self.operand.index >> geometry.bank_bits),
                read_operand.en.eq(self.operand.en),
            ]
            first.append(read.data)
            second.append(read_operand.data)
        for reader, elements in ((self.gemm, first), (self.alu, first), (self.operand, second)):
            self._choose(m, reader, Cat(*elements))
        return m

    def _is_in(self, index: Value, bank: int) -> Value:
        return index[: self.geometry.bank_bits] == bank

    def _choose(self, m: Module, reader: wiring.PureInterface, elements: Value) -> None:
        bits = self.geometry.elem_bits
        chosen = Signal(self.geometry.bank_bits)
        with m.If(reader.en):
            m.d.sync += chosen.eq(reader.index)
        m.d.comb += [
            reader.data.eq(elements.word_select(chosen, bits)),
            reader.pair.eq(elements.word_select(chosen >> 1, 2 * bits)),
        ]
