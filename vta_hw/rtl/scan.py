"""Finds the ranges of the next instruction while others execute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import gt, lt
from typing import Final

from amaranth.hdl import Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.instruction import view_layout
from vta_hw.rtl.nest import OPERATION, command_layout
from vta_hw.rtl.ranges import ranges_layout
from vta_hw.rtl.scratchpad import Geometry, WideReadSignature
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import Format
from vta_hw.spec.instructions import MemoryType

COUNT_BITS: Final = 17
"""Bits of a window's height or width, pads included; iteration counts have fewer."""


class SumOfProducts(wiring.Component):
    """``a * x + b * y`` by shifts and additions.

    `start` takes the operands; `total` is there in every later cycle with `done`, at the earliest one cycle after
    `start` and as many as the larger of `a` and `b` has bits.
    """

    def __init__(self) -> None:
        bits = COUNT_BITS
        super().__init__(
            {
                "start": In(1),
                "a": In(bits),
                "x": In(bits),
                "b": In(bits),
                "y": In(bits),
                "total": Out(2 * bits + 1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        a = Signal.like(self.a)
        b = Signal.like(self.b)
        x, y = (Signal(2 * COUNT_BITS, name=name) for name in ("x", "y"))
        m.d.comb += self.done.eq((a == 0) & (b == 0))
        with m.If(self.start):
            m.d.sync += [a.eq(self.a), b.eq(self.b), x.eq(self.x), y.eq(self.y), self.total.eq(0)]
        with m.Else():
            m.d.sync += [
                a.eq(a >> 1),
                b.eq(b >> 1),
                x.eq(x << 1),
                y.eq(y << 1),
                self.total.eq(self.total + Mux(a[0], x, 0) + Mux(b[0], y, 0)),
            ]
        return m


class Scanner(wiring.Component):
    """The ranges of one instruction after the other.

    `start` takes an instruction, as the nest's `command` or, with `is_load`, as the LOAD in `word`. Its `ranges` are
    there in every later cycle with `done`, in GEMM and ALU two cycles after `start` and one later for each further line
    of micro-ops, which are read through `uop` (none of them may be on its way), and at the earliest one cycle after
    `start` and as many as an iteration count minus one, or the height of a load's window, has bits. A range that goes
    beyond its scratchpad is the whole of it. Another `start` gives up what has been found.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "command": In(command_layout(config)),
                "word": In(128),
                "is_load": In(1),
                "uop": Out(WideReadSignature(Geometry.of(config, MemoryType.UOP))),
                "ranges": Out(ranges_layout(config)),
                "done": Out(1),
            }
        )
        self._first, self._last = (Signal(config.log_uop_depth, name=name) for name in ("first_uop", "last_uop"))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        command = self.command
        load = data.View(view_layout(self._config, Format.MEMORY), self.word)
        width, height = load.x_pad_0 + load.x_size + load.x_pad_1, load.y_pad_0 + load.y_size + load.y_pad_1
        extents = {operand: SumOfProducts() for operand in ("dst", "src")}
        for operand, extent in extents.items():
            m.submodules[operand] = extent
            m.d.comb += [
                extent.start.eq(self.start),
                extent.a.eq(Mux(self.is_load, height, command.iter_out - 1)),
                extent.x.eq(Mux(self.is_load, width, command[f"{operand}_factor_out"])),
                extent.b.eq(Mux(self.is_load, 0, command.iter_in - 1)),
                extent.y.eq(command[f"{operand}_factor_in"]),
            ]
        limits, all_read = self._read(m)
        m.d.comb += self.done.eq(all_read & extents["dst"].done & extents["src"].done)
        is_load = Signal()
        is_uop = Signal()
        base = Signal(16)
        operation = Signal(OPERATION)
        with m.If(self.start):
            m.d.sync += [
                is_load.eq(self.is_load),
                is_uop.eq(load.memory_type == int(MemoryType.UOP)),
                base.eq(load.sram_base),
                operation.eq(command.operation),
            ]
        elements = extents["dst"].total
        with m.If(is_load):
            m.d.comb += self.ranges.uop_write.eq(is_uop)
            self._cover(m, self.ranges.uop, is_uop & (elements != 0), base, base + elements - 1)
            self._cover(m, self.ranges.dst, ~is_uop & (elements != 0), base, base + elements - 1)
        with m.Else():
            # REQUANT reads a pair of neighbours.
            pair = operation.requant
            two = operation.alu & (~operation.use_imm | pair)
            ends = {operand: limits[operand][1] + extents[operand].total for operand in extents}
            self._cover(m, self.ranges.dst, Const(1), limits["dst"][0], ends["dst"])
            self._cover(m, self.ranges.src, two, limits["src"][0] & ~(pair | Const(0, 16)), ends["src"] | pair)
            m.d.comb += [
                self.ranges.uop.valid.eq(1),
                self.ranges.uop.first.eq(self._first),
                self.ranges.uop.last.eq(self._last),
            ]
        return m

    @staticmethod
    def _cover(m: Module, interval: data.View, valid: Value, first: Value, last: Value) -> None:
        """Set an interval; beyond the scratchpad indices wrap, so that it is all of it."""
        bits = len(interval.first)
        m.d.comb += [interval.valid.eq(valid), interval.first.eq(first), interval.last.eq(last)]
        with m.If((last >> bits).any()):
            m.d.comb += [interval.first.eq(0), interval.last.eq((1 << bits) - 1)]

    def _read(self, m: Module) -> tuple[dict[str, tuple[Value, Value]], Value]:
        """Smallest and largest index of each operand among the micro-ops, and whether all were read."""
        config, command = self._config, self.command
        bank_bits = Geometry.of(config, MemoryType.UOP).bank_bits
        begin, end = (Signal(config.log_uop_depth + 1, name=name) for name in ("begin", "end"))
        asked, arriving = (Signal(len(begin) - min(bank_bits, len(begin)) + 1, name=n) for n in ("asked", "arriving"))
        line = Signal.like(asked)
        more = Signal()
        arrives = Signal()
        m.d.comb += [
            more.eq((asked << bank_bits) < end),
            line.eq(Mux(self.start, command.uop_bgn >> bank_bits, asked)),
            *(address.eq(line) for address in self.uop.line),
            self.uop.en.eq(self.start | more),
        ]
        m.d.sync += [arrives.eq(self.uop.en), arriving.eq(line)]
        with m.If(self.uop.en):
            m.d.sync += asked.eq(line + 1)
        with m.If(self.start):
            m.d.sync += [
                begin.eq(command.uop_bgn),
                end.eq(Mux(self.is_load, 0, command.uop_end)),
                self._first.eq(command.uop_bgn),
                self._last.eq(command.uop_end - 1),
            ]
            # Those beyond the scratchpad wrap.
            with m.If(command.uop_end > config.uop_depth):
                m.d.sync += [self._first.eq(0), self._last.eq(-1)]
        return self._limits(m, begin, end, arriving << bank_bits, arrives), ~more & ~arrives

    def _limits(
        self, m: Module, begin: Value, end: Value, arriving: Value, arrives: Value
    ) -> dict[str, tuple[Value, Value]]:
        """Smallest and largest index of each operand since `start`; `arriving` is the first micro-op of a line."""
        geometry = Geometry.of(self._config, MemoryType.UOP)
        layout = view_layout(self._config, Format.UOP)
        # A scratchpad of fewer elements than banks repeats itself.
        uops = [data.View(layout, self.uop.data[bank % geometry.depth]) for bank in range(geometry.banks)]
        counts = [(arriving + bank >= begin) & (arriving + bank < end) & arrives for bank in range(geometry.banks)]
        limits: dict[str, tuple[Value, Value]] = {}
        for operand in ("dst", "src"):
            low, high = (Signal(len(uops[0][operand]), name=f"{operand}_{name}") for name in ("low", "high"))
            indices = [uop[operand] for uop in uops]
            masks = [count.replicate(len(low)) for count in counts]
            floors = (index | ~mask for index, mask in zip(indices, masks, strict=True))
            tops = (index & mask for index, mask in zip(indices, masks, strict=True))
            lowest, highest = _best(m, [low, *floors], lt), _best(m, [high, *tops], gt)
            m.d.sync += [low.eq(Mux(self.start, -1, lowest)), high.eq(Mux(self.start, 0, highest))]
            limits[operand] = low, high
        return limits


def _best(m: Module, values: Sequence[Value], better: Callable[[Value, Value], Value]) -> Value:
    """A balanced tree of comparisons."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    first, second = _best(m, values[:half], better), _best(m, values[half:], better)
    best = Signal.like(first)
    m.d.comb += best.eq(Mux(better(first, second), first, second))
    return best
