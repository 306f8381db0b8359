"""Instructions as hardware sees them: the field table as Amaranth layouts, and what travels with an instruction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amaranth.hdl import Cat, Const, Mux, Value, signed, unsigned
from amaranth.lib import data

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import FIELDS, Format, positions
from vta_hw.spec.registers import Status

INSN_BITS: Final = 128
UOP_BITS: Final = 32

QUEUED: Final = data.StructLayout({"word": INSN_BITS, "index": 32})
"""An instruction in a queue: its 128 bits, and its index in the launch, which a fault reports."""

STATUS_BITS: Final = max(Status).bit_length()

FAULT: Final = data.StructLayout({"status": STATUS_BITS, "index": 32})
"""What a unit reports in the cycle in which it finds it: bits of `Status` (0: nothing), and the instruction's index."""


def earliest(faults: Iterable[data.View]) -> data.View:
    """What several units report in one cycle: all of their bits, and the smallest index among those that report any.

    Without any the index is all ones, which no instruction has.
    """
    status: Value = Const(0, STATUS_BITS)
    index: Value = Const((1 << 32) - 1, 32)
    for fault in faults:
        index = Mux(fault.status.any() & (fault.index < index), fault.index, index)
        status |= fault.status
    return FAULT(Cat(status, index))


def view_layout(config: VTAConfig, kind: Format) -> data.FlexibleLayout:
    """The fields of a format at their bit positions in an instruction (128 bits) or micro-op (32 bits)."""
    fields = {
        place.name: data.Field(signed(place.width) if place.signed else unsigned(place.width), place.lsb)
        for place in positions(FIELDS[kind], config)
    }
    return data.FlexibleLayout(UOP_BITS if kind is Format.UOP else INSN_BITS, fields)
