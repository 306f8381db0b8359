"""A 2-D transfer in DRAM: its rows as runs of bus words, and what each bus word that comes back holds.

Sizes are in *units*, the largest power of two of bytes that divides a bus word and every kind of element: an element
smaller than the bus word and a bus word inside an element are both whole numbers of units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.dma import BEATS_BITS, run_layout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType, codes_of

ROW_BITS: Final = 28
"""Bits of the bytes of a row, and from one row to the next: 16-bit sizes of elements of at most 4096 bytes."""

INDEX_BITS: Final = 18
"""Bits of a scratchpad index before it wraps.

The deepest scratchpad has 2**16 elements and no step in an instruction is longer than 2**16, so that an instruction
that leaves the scratchpad is seen outside before its index wraps.
"""

CODE_BITS: Final = 3
"""Bits of a memory type."""


def log2(value: int) -> int:
    """Return the logarithm of a power of two."""
    return value.bit_length() - 1


def rows_layout(config: VTAConfig) -> data.StructLayout:
    """Rows in DRAM: byte address of the first, bytes from one to the next, bytes of each, and how many (at least 1)."""
    return data.StructLayout({"addr": config.address_bits, "step": ROW_BITS, "bytes": ROW_BITS, "rows": 16})


class RowWalker(wiring.Component):
    """Turns rows into runs, one for each row; the first is valid in the cycle after its rows were accepted.

    There is a run in each cycle while they are taken, also across instructions: rows are accepted in the cycle in which
    the last run of the ones before is taken. Addresses wrap. `idle` while there is no run left.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(rows_layout(config))),
                "o": Out(stream.Signature(run_layout(config))),
                "idle": Out(1, init=1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        word = self._config.bus_bits // 8
        rows = Signal(rows_layout(self._config))
        end = rows.addr[: log2(word)] + rows.bytes
        m.d.comb += [
            self.o.valid.eq(~self.idle),
            self.o.payload.addr.eq(Cat(Const(0, log2(word)), rows.addr[log2(word) :])),
            self.o.payload.beats.eq(((end + word - 1) >> log2(word))[:BEATS_BITS]),
            self.i.ready.eq(self.idle | (self.o.ready & (rows.rows == 1))),
        ]
        with m.If(self.i.ready):
            m.d.sync += [self.idle.eq(~self.i.valid), rows.eq(self.i.payload)]
        with m.Elif(self.o.ready):
            m.d.sync += [rows.addr.eq(rows.addr + rows.step), rows.rows.eq(rows.rows - 1)]
        return m


class Units:
    """The units of transfers of some memory types, given by their scratchpads."""

    def __init__(self, config: VTAConfig, scratchpads: Iterable[MemoryType]) -> None:
        self.scratchpads = tuple(scratchpads)
        self.codes = tuple(code for code in codes_of(MemoryType, config.isa) if code.scratchpad in self.scratchpads)
        word = config.bus_bits // 8
        self.bytes = min(word, *(config.dram_elem_bytes(code) for code in self.codes))
        self.log_word = log2(word // self.bytes)
        """log2 of the units in a bus word."""
        self._logs = {code: log2(config.dram_elem_bytes(code) // self.bytes) for code in self.codes}

    @property
    def largest(self) -> int:
        """log2 of the units in an element of the largest type."""
        return max(self._logs.values())

    def log(self, code: MemoryType) -> int:
        """Return log2 of the units in an element of a memory type."""
        return self._logs[code]

    def scale(self, code: Value, elements: Value) -> Value:
        """Return how many units `elements` of the memory type in `code` are."""
        first, *others = sorted(set(self._logs.values()))
        scaled = elements << first
        for log in others:
            same = code.matches(*(int(known) for known in self.codes if self._logs[known] == log))
            scaled = Mux(same, elements << log, scaled)
        return scaled


def pattern_layout(units: Units) -> data.StructLayout:
    """What the words of an instruction mean: rows of `x_size` elements, `rows` of them, and where they go.

    The first goes to the scratchpad element `sram_base + lead`; `gap` elements between rows are not of this transfer.
    `offset` is that of the first row in its bus word, `step` what is added to it from row to row, both in units and
    modulo the bus word.
    """
    word = units.log_word
    return data.StructLayout(
        {
            "code": CODE_BITS,
            "insn": 32,
            "sram_base": 16,
            "lead": INDEX_BITS,
            "x_size": 16,
            "gap": 5,
            "rows": 16,
            "offset": word,
            "step": word,
        }
    )


def place_layout(units: Units) -> data.StructLayout:
    """What a bus word holds: `take` units, the first of which goes to unit `dest` of the scratchpad.

    Turned left by `turn` units, the word's units are at the places, modulo a bus word, that they have there.
    """
    return data.StructLayout(
        {
            "code": CODE_BITS,
            "insn": 32,
            "dest": INDEX_BITS + units.largest,
            "take": units.log_word + 1,
            "turn": units.log_word,
        }
    )


class BeatWalker(wiring.Component):
    """Walks the pattern of each instruction in step with its beats, without knowing of bursts.

    `o` describes the beat that arrives while `beat` is high. `finished` is high with the last beat of a pattern, or, if
    it has no rows, in the cycle after it was taken. A pattern is taken from `i` when there is none, and in the cycle in
    which the one before is finished: it must be there at least one cycle before its first beat.
    """

    def __init__(self, units: Units) -> None:
        self._units = units
        super().__init__(
            {
                "i": In(stream.Signature(pattern_layout(units))),
                "beat": In(1),
                "o": Out(place_layout(units)),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        units, new = self._units, self.i.payload
        busy = Signal()
        pattern = Signal(pattern_layout(units))
        row = Signal(16 + units.largest)
        left = Signal(16 + units.largest)
        gap = Signal(5 + units.largest)
        dest = Signal(INDEX_BITS + units.largest)
        offset = Signal(units.log_word)
        room = (1 << units.log_word) - offset
        ends_row = Signal()
        m.d.comb += [
            ends_row.eq(left <= room),
            self.o.code.eq(pattern.code),
            self.o.insn.eq(pattern.insn),
            self.o.dest.eq(dest),
            self.o.take.eq(Mux(ends_row, left, room)),
            self.o.turn.eq(dest - offset),
            self.finished.eq(busy & ((pattern.rows == 0) | (self.beat & ends_row & (pattern.rows == 1)))),
            self.i.ready.eq(~busy | self.finished),
        ]
        next_row = pattern.offset + pattern.step
        with m.If(self.i.ready):
            m.d.sync += [
                busy.eq(self.i.valid),
                pattern.eq(new),
                row.eq(units.scale(new.code, new.x_size)),
                left.eq(units.scale(new.code, new.x_size)),
                gap.eq(units.scale(new.code, new.gap)),
                dest.eq(units.scale(new.code, (new.sram_base + new.lead)[:INDEX_BITS])),
                offset.eq(new.offset),
            ]
        with m.Elif(self.beat):
            m.d.sync += dest.eq(dest + self.o.take + Mux(ends_row, gap, 0))
            with m.If(ends_row):
                m.d.sync += [
                    left.eq(row),
                    offset.eq(next_row),
                    pattern.offset.eq(next_row),
                    pattern.rows.eq(pattern.rows - 1),
                ]
            with m.Else():
                m.d.sync += [left.eq(left - room), offset.eq(0)]
        return m
