"""The padding of loads: visits the elements of a window that do not come from DRAM (VTA spec 3.2)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.transfer import CODE_BITS, INDEX_BITS

RUN_BITS: Final = 21
"""Bits of a run of pads: 30 rows of 2**16 + 29 elements."""

WINDOW: Final = data.StructLayout(
    {
        "code": CODE_BITS,
        "insn": 32,
        "padded": 1,
        "sram_base": 16,
        "first": RUN_BITS,
        "middle": 5,
        "last": RUN_BITS,
        "x_size": 16,
        "rows": 16,
    }
)
"""Runs of pads in ascending order, each of which but the last is followed by `x_size` elements that are no pads.

`first` pads, then `rows - 1` times `middle`, then `last`; if `rows` is 0, there is `first` alone. `padded` if there are
any, which then are of memory type `code`."""

PAD: Final = data.StructLayout({"code": CODE_BITS, "insn": 32, "index": INDEX_BITS})
"""An element to fill: memory type, the instruction, and the index in the scratchpad."""


class PadWalker(wiring.Component):
    """Visits the pads of one window after the other, and says when an instruction is complete.

    A window is taken from `i` when there is none or the one before is complete. `o` shows one pad in each cycle; a run
    of no pads costs a cycle. `filled` is a pulse in the cycle after the last pad of a padded window, of type `code`,
    was taken. `arrived` is a pulse for each instruction whose data is there, in order; `done` is high in the first
    later cycle in which the pads are there as well. `idle` without a window.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        super().__init__(
            {
                "i": In(stream.Signature(WINDOW)),
                "o": Out(stream.Signature(PAD)),
                "arrived": In(1),
                "filled": Out(1),
                "code": Out(CODE_BITS),
                "done": Out(1),
                "idle": Out(1, init=1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        window = Signal(WINDOW)
        index = Signal(INDEX_BITS)
        run = Signal(RUN_BITS)
        ahead = Signal(range(self._in_flight + 1))
        complete = Signal()
        taken = Signal()
        m.d.comb += [
            complete.eq(~self.idle & (run == 0) & (window.rows == 0)),
            self.filled.eq(complete & window.padded),
            self.code.eq(window.code),
            self.done.eq(complete & (ahead != 0)),
            self.i.ready.eq(self.idle | self.done),
            self.o.valid.eq(run != 0),
            self.o.payload.code.eq(window.code),
            self.o.payload.insn.eq(window.insn),
            self.o.payload.index.eq(index),
            taken.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += ahead.eq(ahead + self.arrived - self.done)
        with m.If(self.filled):
            m.d.sync += window.padded.eq(0)
        with m.If(self.i.ready):
            m.d.sync += [
                self.idle.eq(~self.i.valid),
                window.eq(self.i.payload),
                index.eq(self.i.payload.sram_base),
                run.eq(Mux(self.i.valid, self.i.payload.first, 0)),
            ]
        with m.Elif((window.rows != 0) & ((run == 0) | (taken & (run == 1)))):
            m.d.sync += [
                index.eq(index + window.x_size + taken),
                run.eq(Mux(window.rows == 1, window.last, window.middle)),
                window.rows.eq(window.rows - 1),
            ]
        with m.Elif(taken):
            m.d.sync += [index.eq(index + 1), run.eq(run - 1)]
        return m
