"""From runs of bus words to AXI bursts."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.axi import MAX_BURST_BEATS, burst_layout
from vta_hw.spec.config import VTAConfig

BEATS_BITS: Final = 33
"""Of the longest run: the instructions of a launch, on a bus that needs two words for each."""

_OFFSET_BITS: Final = (MAX_BURST_BEATS - 1).bit_length()


def run_layout(config: VTAConfig) -> data.StructLayout:
    """Consecutive bus words: byte address of the first, a multiple of the bus's bytes, and how many (at least 1)."""
    return data.StructLayout({"addr": config.address_bits, "beats": BEATS_BITS})


def split_layout(config: VTAConfig) -> data.StructLayout:
    """A burst of a run; `last` marks the run's last burst."""
    return data.StructLayout({"burst": burst_layout(config), "last": 1})


class BurstSplitter(wiring.Component):
    """Cuts each run at multiples of `MAX_BURST_BEATS` bus words.

    An aligned window of that size is at most 1 KiB, so no burst crosses 4 KiB. The bursts of a run cover its words
    once, in order; addresses wrap at the end of the address space. The first burst is valid in the cycle after its run
    was accepted; then there is a burst in each cycle, also from run to run: a run is accepted in the cycle in which the
    last burst of the one before is taken.

    While `halt` is high, no run is accepted and no burst becomes valid; one that is valid stays so until it is taken.

    `rest`, for proofs: words behind the latest burst, minus one; without meaning when that is the last of its run.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._word_bits = (config.bus_bits // 8).bit_length() - 1
        self._window_bits = self._word_bits + _OFFSET_BITS
        self.rest = Signal(BEATS_BITS)
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(config))),
                "o": Out(stream.Signature(split_layout(config), payload_init={"last": 1})),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        run, burst, last = self.i.payload, self.o.payload.burst, self.o.payload.last
        offset = run.addr[self._word_bits : self._window_bits]
        one_burst = Signal()
        rest = self.rest
        free = Signal()
        m.d.comb += [
            free.eq((~self.o.valid | self.o.ready) & ~self.halt),
            self.i.ready.eq(free & last),
            one_burst.eq(run.beats <= MAX_BURST_BEATS - offset),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(free & ~last):
            m.d.sync += [
                self.o.valid.eq(1),
                burst.addr.eq(Cat(Const(0, self._window_bits), burst.addr[self._window_bits :] + 1)),
                burst.len.eq(Mux(rest < MAX_BURST_BEATS, rest, MAX_BURST_BEATS - 1)),
                last.eq(rest < MAX_BURST_BEATS),
                rest.eq(rest - MAX_BURST_BEATS),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.valid.eq(1),
                burst.addr.eq(run.addr),
                # ~offset is the number of words behind the first one in its window.
                burst.len.eq(Mux(one_burst, run.beats - 1, ~offset)[:_OFFSET_BITS]),
                last.eq(one_burst),
                rest.eq(run.beats - (MAX_BURST_BEATS + 1 - offset)),
            ]
        return m
