"""Which micro-ops and accumulators an instruction touches, and whether two instructions clash."""

from __future__ import annotations

from amaranth.hdl import Value
from amaranth.lib import data

from vta_hw.spec.config import VTAConfig


def interval_layout(bits: int) -> data.StructLayout:
    """The indices from `first` to `last`, both included; none unless `valid`."""
    return data.StructLayout({"valid": 1, "first": bits, "last": bits})


def ranges_layout(config: VTAConfig) -> data.StructLayout:
    """What an instruction touches.

    `uop`: micro-ops it reads, or with `uop_write` writes. `dst`: accumulators it writes (and reads). `src`: those it
    only reads.
    """
    acc = interval_layout(config.log_acc_depth)
    return data.StructLayout({"uop": interval_layout(config.log_uop_depth), "uop_write": 1, "dst": acc, "src": acc})


def overlaps(a: data.View, b: data.View) -> Value:
    """Whether two intervals have an index in common."""
    return a.valid & b.valid & (a.first <= b.last) & (b.first <= a.last)


def clash(a: data.View, b: data.View) -> Value:
    """Whether the order of two instructions matters: both touch the same thing, and one of them writes it."""
    in_acc = overlaps(a.dst, b.dst) | overlaps(a.dst, b.src) | overlaps(a.src, b.dst)
    return in_acc | ((a.uop_write | b.uop_write) & overlaps(a.uop, b.uop))
