"""Which instructions are under way beside each other, what each waits for, and in which order they retire."""

from __future__ import annotations

from enum import IntEnum
from functools import reduce
from operator import or_
from typing import Final

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.nest import RETIREMENT, SLOT_BITS
from vta_hw.rtl.ranges import clash, ranges_layout
from vta_hw.spec.config import VTAConfig

SLOTS: Final = 1 << SLOT_BITS


class Lane(IntEnum):
    """What executes an instruction; within a lane instructions keep their order."""

    NONE = 0
    GEMM = 1
    ALU = 2
    LOAD = 3


SLOT_OF: Final = data.StructLayout({"valid": 1, "slot": SLOT_BITS})
"""The slot of an instruction, if `valid`."""


def entry_layout(config: VTAConfig) -> data.StructLayout:
    """An instruction on its way into the table; `ranges` are without meaning unless `known`."""
    ranges = ranges_layout(config)
    return data.StructLayout({"lane": 2, "known": 1, "ranges": ranges, "retirement": RETIREMENT})


class Scoreboard(wiring.Component):
    """A table of the instructions between dispatch and retirement, the oldest first.

    i: the next instruction, in program order; it gets `slot`. It waits for the instructions of other lanes that are not
        complete and that its ranges clash with, as ranges do that are not known; `runnable` has a bit for each slot
        that waits for nothing.
    found: the ranges of `i` are, instead, those of the instruction in this slot, and known from the next cycle on.
    completed: for each lane but NONE, in the order of `Lane`, an instruction whose last access is made in this cycle.
    retired, retirement: the oldest instruction is complete, possibly in this very cycle, and leaves; one per cycle.
    busy: for each `Lane`, whether instructions of it are not complete.
    loads_uops: one of these writes micro-ops, or is a load of which it is not known.
    empty: no instruction is in the table.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(entry_layout(config))),
                "slot": Out(SLOT_BITS),
                "found": In(SLOT_OF),
                "runnable": Out(SLOTS),
                "completed": In(data.ArrayLayout(SLOT_OF, len(Lane) - 1)),
                "retired": Out(1),
                "retirement": Out(RETIREMENT),
                "busy": Out(len(Lane)),
                "loads_uops": Out(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        present = Signal(SLOTS)
        busy = Signal(SLOTS)
        head = Signal(SLOT_BITS)
        tail = Signal(SLOT_BITS)
        completing = Signal(SLOTS)
        conflicts = Signal(SLOTS)
        retirements = Array(Signal(RETIREMENT, name=f"retirement{slot}") for slot in range(SLOTS))
        accept = self.i.valid & self.i.ready
        entry = self.i.p
        runs = entry.lane != Lane.NONE
        writes_uops = []
        busy_lanes = []
        for slot in range(SLOTS):
            lane, known = Signal(2, name=f"lane{slot}"), Signal(name=f"known{slot}")
            ranges = Signal(ranges_layout(self._config), name=f"ranges{slot}")
            waits = Signal(SLOTS, name=f"waits{slot}")
            enters, found = accept & (tail == slot), self.found.valid & (self.found.slot == slot)
            clashes = ~known | ~entry.known | clash(entry.ranges, ranges)
            m.d.comb += [
                completing[slot].eq(_any_of(done.valid & (done.slot == slot) for done in self.completed)),
                conflicts[slot].eq(busy[slot] & ~completing[slot] & (lane != entry.lane) & clashes),
                self.runnable[slot].eq(waits == 0),
            ]
            with m.If(enters):
                m.d.sync += [lane.eq(entry.lane), waits.eq(conflicts), retirements[slot].eq(entry.retirement)]
                m.d.sync += [present[slot].eq(1), busy[slot].eq(runs)]
            with m.Else():
                m.d.sync += waits.eq(waits & ~completing)
                with m.If(completing[slot]):
                    m.d.sync += busy[slot].eq(0)
                with m.If(self.retired & (head == slot)):
                    m.d.sync += present[slot].eq(0)
            with m.If(enters | found):
                m.d.sync += [ranges.eq(entry.ranges), known.eq(~enters | entry.known)]
            busy_lanes.append(Mux(busy[slot], 1 << lane, 0))
            writes_uops.append(busy[slot] & (lane == Lane.LOAD) & (~known | ranges.uop_write))
        m.d.comb += [
            self.slot.eq(tail),
            self.i.ready.eq(~present.bit_select(tail, 1)),
            self.retired.eq((present & (~busy | completing)).bit_select(head, 1)),
            self.retirement.eq(retirements[head]),
            self.busy.eq(reduce(or_, busy_lanes)),
            self.loads_uops.eq(Cat(writes_uops).any()),
            self.empty.eq(present == 0),
        ]
        with m.If(accept):
            m.d.sync += tail.eq(tail + 1)
        with m.If(self.retired):
            m.d.sync += head.eq(head + 1)
        return m


def _any_of(flags: object) -> Value:
    return Cat(flags).any()
