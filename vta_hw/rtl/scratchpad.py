"""On-chip memories: elements in banks, so that one bus word lands in one cycle wherever it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amaranth.hdl import Cat, Elaboratable, MemoryData, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import InstructionSet, MemoryType
from vta_hw.spec.parameters import ConfigError

SHARED_BANKS: Final = 4
"""Banks of ACC and OUT where GEMM and ALU use them at the same time: enough that they seldom want the same."""

SCRATCHPADS: Final = (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT)
"""The memory types that have a scratchpad of their own."""

MAX_LINE_BITS: Final = 65534
"""Bits of the widest signal that Amaranth writes and Yosys reads."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a scratchpad is cut: element `e` is line ``e // banks`` of bank ``e % banks``.

    A bank is one element wide and has one write address, so `banks` neighbouring elements can be written in a cycle,
    wherever the first of them lies. `granules` parts of an element have write enables of their own: an element wider
    than the bus arrives in several beats. All numbers are powers of two.
    """

    elem_bits: int
    depth: int
    banks: int
    granules: int

    @property
    def lines(self) -> int:
        """Elements of one bank."""
        return max(self.depth // self.banks, 1)

    @property
    def line_bits(self) -> int:
        """Bits of a bank's address; a bank of one line has an address of no bits."""
        return self.lines.bit_length() - 1

    @property
    def bank_bits(self) -> int:
        """Low bits of an element's index that select its bank."""
        return self.banks.bit_length() - 1

    @property
    def granule_bits(self) -> int:
        """Bits of the smallest part that can be written."""
        return self.elem_bits // self.granules

    @property
    def index_bits(self) -> int:
        """Bits of an index that count; those above wrap."""
        return self.line_bits + self.bank_bits

    @staticmethod
    def of(config: VTAConfig, memory: MemoryType) -> Geometry:
        """The geometry of a scratchpad: a bus word fills `banks` elements, or one granule of an element.

        ACC has banks for the elements of an ACC_8BIT beat, which are a quarter as large in DRAM; at least two in an
        extended machine, whose REQUANT reads a pair of neighbours. Where GEMM and ALU write in the same cycle, ACC and
        OUT have at least `SHARED_BANKS`. Raises ConfigError where a line of all banks gets too wide.
        """
        bits = 8 * config.dram_elem_bytes(memory)
        smallest, least = bits, 1
        if memory is MemoryType.ACC:
            smallest = bits // 4
            least = 2 if config.isa == InstructionSet.EXTENDED else 1
        if config.overlap and memory in (MemoryType.ACC, MemoryType.OUT):
            least = SHARED_BANKS
        banks = max(config.bus_bits // smallest, least)
        if banks * bits > MAX_LINE_BITS:
            reason = f"{banks} banks of {bits} bits"
            raise ConfigError(
                f"line of {memory.name} must have at most {MAX_LINE_BITS} bits, not {banks * bits} ({reason})"
            )
        return Geometry(
            elem_bits=bits,
            depth=config.depth(memory),
            banks=banks,
            granules=max(bits // config.bus_bits, 1),
        )


class WriteSignature(wiring.Signature):
    """Of the writer: for each bank a line, an element, and an enable for each granule of it."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(
            {
                "line": Out(data.ArrayLayout(geometry.line_bits, geometry.banks)),
                "data": Out(data.ArrayLayout(geometry.elem_bits, geometry.banks)),
                "en": Out(data.ArrayLayout(geometry.granules, geometry.banks)),
            }
        )


class ReadSignature(wiring.Signature):
    """Of a reader of single elements: `data` holds the element of `index` one cycle after `en`, until the next `en`.

    Where there are banks, `pair` holds that element and its neighbour, the even one first.
    """

    def __init__(self, geometry: Geometry) -> None:
        members = {"index": Out(geometry.index_bits), "en": Out(1), "data": In(geometry.elem_bits)}
        if geometry.banks > 1:
            members["pair"] = In(data.ArrayLayout(geometry.elem_bits, 2))
        super().__init__(members)


class WideReadSignature(wiring.Signature):
    """Of a reader of `banks` neighbours: for each bank a line; `data` one cycle after `en`, until the next `en`."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(
            {
                "line": Out(data.ArrayLayout(geometry.line_bits, geometry.banks)),
                "en": Out(1),
                "data": In(data.ArrayLayout(geometry.elem_bits, geometry.banks)),
            }
        )


class Scratchpad(wiring.Component):
    """A memory of `geometry.depth` elements, zero at first (VTA spec 3.7).

    One write port, `readers` read ports of one element, and, if `wide`, one of all banks. Every read port sees the
    elements of the cycle before; with `transparent` also those written in the cycle of the read, which makes one
    read-modify-write per cycle possible without a hazard at any distance.

    banks: what the memories hold, for simulators that look inside; see `Geometry` for where an element lies.
    """

    def __init__(self, geometry: Geometry, *, readers: int, wide: bool = False, transparent: bool = False) -> None:
        self.geometry = geometry
        self._wide = wide
        self._transparent = transparent
        # A line of no address bits cannot be declared; a second line that nothing addresses costs nothing.
        shape, lines = geometry.elem_bits, max(geometry.lines, 2)
        self.banks = tuple(MemoryData(shape=shape, depth=lines, init=[]) for _ in range(geometry.banks))
        members = {"write": In(WriteSignature(geometry)), "read": In(ReadSignature(geometry)).array(readers)}
        if wide:
            members["wide"] = In(WideReadSignature(geometry))
        super().__init__(members)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        geometry = self.geometry
        data_of: list[list[Value]] = [[] for _ in self.read]
        for bank, contents in enumerate(self.banks):
            m.submodules[f"bank{bank}"] = memory = Memory(contents)
            write = memory.write_port(granularity=geometry.granule_bits)
            m.d.comb += [
                write.addr.eq(self.write.line[bank]),
                write.data.eq(self.write.data[bank]),
                write.en.eq(self.write.en[bank]),
            ]
            through = (write,) if self._transparent else ()
            for reader, elements in zip(self.read, data_of, strict=True):
                port = memory.read_port(transparent_for=through)
                m.d.comb += [port.addr.eq(reader.index >> geometry.bank_bits), port.en.eq(reader.en)]
                elements.append(port.data)
            if self._wide:
                port = memory.read_port(transparent_for=through)
                m.d.comb += [
                    port.addr.eq(self.wide.line[bank]),
                    port.en.eq(self.wide.en),
                    self.wide.data[bank].eq(port.data),
                ]
        for number, (reader, elements) in enumerate(zip(self.read, data_of, strict=True)):
            chosen = Signal(geometry.bank_bits, name=f"chosen{number}")
            with m.If(reader.en):
                m.d.sync += chosen.eq(reader.index)
            m.d.comb += reader.data.eq(Cat(*elements).word_select(chosen, geometry.elem_bits))
            if geometry.banks > 1:
                m.d.comb += reader.pair.eq(Cat(*elements).word_select(chosen >> 1, 2 * geometry.elem_bits))
        return m
