"""Burst splitting."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Assume, Cat, Const, Elaboratable, Module, Mux, Signal, Value

from tests.vta_hw.rtl.formal.harness import Case, Proof, handshake, is_stable, not_withdrawn, past
from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.rtl.dma import BurstSplitter, run_layout
from vta_hw.spec.config import VTAConfig

PAGE_BITS: Final = 12

ALIGNED: Final = "a burst begins at a bus word"
LENGTH: Final = "a burst has at most 16 beats"
WINDOW: Final = "a burst lies in one window"
PAGE: Final = "a burst lies in one page of 4 KiB"
TILED: Final = "bursts begin where the one before ended, the first where the run does"
LAST: Final = "the last burst, and no other, ends where the run does"
NOTHING_ELSE: Final = "no burst is made without a run"
FULL: Final = "a burst that is not the last ends where its window does"
REST: Final = "the words left are those of the burst and the rest"
LIVE: Final = "there is a burst in each cycle in which a run is not at its end"
ACCEPTED: Final = "a run is accepted when the last burst of the one before is taken"
HALTED: Final = "no run is accepted during halt"
QUIET: Final = "no burst is made during halt"
KEPT: Final = "valid is not withdrawn"
STABLE: Final = "the payload is stable while it waits"


class SplitterProof(Proof):
    """Runs of any length from any bus word, taken and halted at any time.

    `left` and `addr` follow the words of the run that are not yet in a burst that was taken.
    """

    def __init__(self, config: VTAConfig, splitter: BurstSplitter) -> None:
        super().__init__({"run": run_layout(config), "valid": 1, "ready": 1, "halt": 1})
        self._splitter = splitter
        self._word_bits = (config.bus_bits // 8).bit_length() - 1

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.splitter = splitter = self._splitter
        i, o = splitter.i, splitter.o
        burst, last = o.payload.burst, o.payload.last
        m.d.comb += [
            i.payload.eq(self.run),
            i.valid.eq(self.valid),
            o.ready.eq(self.ready),
            splitter.halt.eq(self.halt),
            Assume(self.run.beats != 0),
            Assume(self.run.addr[: self._word_bits] == 0),
        ]
        left = Signal.like(self.run.beats)
        addr = Signal.like(self.run.addr)
        beats = burst.len + 1
        with m.If(handshake(o)):
            m.d.sync += [left.eq(left - beats), addr.eq(addr + (beats << self._word_bits))]
        with m.If(handshake(i)):
            m.d.sync += [left.eq(self.run.beats), addr.eq(self.run.addr)]
        ahead = Mux(last, 0, splitter.rest + 1)
        self.claim(m, REST, left == Mux(o.valid, beats, 0) + ahead)
        self._claim_content(m, left=left, addr=addr)
        busy = o.valid & ~o.ready
        self.claim(m, LIVE, (left == 0) | past(m, self.halt) | o.valid)
        self.claim(m, ACCEPTED, (i.ready == ((left == 0) | (handshake(o) & last))) | self.halt)
        self.claim(m, HALTED, ~self.halt | ~i.ready)
        self.claim(m, QUIET, ~past(m, self.halt & ~busy) | ~o.valid)
        self.claim(m, KEPT, not_withdrawn(m, o))
        self.claim(m, STABLE, is_stable(m, o))
        return m

    def _claim_content(self, m: Module, *, left: Signal, addr: Signal) -> None:
        """Say what is in a burst."""
        o = self._splitter.o
        burst = o.payload.burst
        offset_bits = (MAX_BURST_BEATS - 1).bit_length()
        offset = burst.addr[self._word_bits :][:offset_bits]
        end = burst.addr[:PAGE_BITS] + ((burst.len + 1) << self._word_bits)
        self.claim(m, ALIGNED, burst.addr[: self._word_bits] == 0)
        self.claim(m, LENGTH, ~o.valid | (burst.len < MAX_BURST_BEATS))
        self.claim(m, WINDOW, ~o.valid | (offset + burst.len < MAX_BURST_BEATS))
        self.claim(m, PAGE, ~o.valid | (end <= 1 << PAGE_BITS))
        self.claim(m, FULL, o.payload.last | (offset + burst.len == MAX_BURST_BEATS - 1))
        after = Cat(Const(0, self._word_bits + offset_bits), burst.addr[self._word_bits + offset_bits :] + 1)
        self.claim(m, TILED, (left == 0) | (addr == Mux(o.valid, burst.addr, after[: len(addr)])))
        self.claim(m, LAST, ~o.valid | (o.payload.last == (burst.len + 1 == left)))
        self.claim(m, NOTHING_ELSE, ~o.valid | (burst.len < left))


def _next(splitter: BurstSplitter) -> Value:
    return handshake(splitter.o) & ~splitter.o.payload.last


def _waits(splitter: BurstSplitter) -> Value:
    return splitter.o.valid & ~splitter.o.ready


def _is_askew(splitter: BurstSplitter, m: Module) -> None:
    """Begin a byte behind the bus word."""
    with m.If(handshake(splitter.i)):
        m.d.sync += splitter.o.payload.burst.addr.eq(splitter.i.payload.addr | 1)


def _is_long(splitter: BurstSplitter, m: Module) -> None:
    """Make a first burst of 17 beats."""
    with m.If(handshake(splitter.i)):
        m.d.sync += splitter.o.payload.burst.len.eq(MAX_BURST_BEATS)


def _ignores_windows(splitter: BurstSplitter, m: Module) -> None:
    """Make a first burst of 16 beats wherever it begins."""
    with m.If(handshake(splitter.i)):
        m.d.sync += splitter.o.payload.burst.len.eq(MAX_BURST_BEATS - 1)


def _is_short(splitter: BurstSplitter, m: Module) -> None:
    """Make bursts of one beat behind the first."""
    with m.If(_next(splitter)):
        m.d.sync += splitter.o.payload.burst.len.eq(0)


def _stays(splitter: BurstSplitter, m: Module) -> None:
    """Keep the address from burst to burst."""
    burst = splitter.o.payload.burst
    with m.If(_next(splitter)):
        m.d.sync += burst.addr.eq(burst.addr)


def _does_not_end(splitter: BurstSplitter, m: Module) -> None:
    """Never mark the last burst."""
    m.d.sync += splitter.o.payload.last.eq(0)


def _drops_a_burst(splitter: BurstSplitter, m: Module) -> None:
    """Skip a burst behind one that was taken."""
    with m.If(_next(splitter)):
        m.d.sync += splitter.o.valid.eq(0)


def _accepts_late(splitter: BurstSplitter, m: Module) -> None:
    """Accept a run only once the last burst of the one before is gone."""
    m.d.comb += splitter.i.ready.eq(~splitter.o.valid & splitter.o.payload.last & ~splitter.halt)


def _accepts_in_halt(splitter: BurstSplitter, m: Module) -> None:
    """Accept a run during halt."""
    m.d.comb += splitter.i.ready.eq(~splitter.o.valid & splitter.o.payload.last)


def _goes_on_in_halt(splitter: BurstSplitter, m: Module) -> None:
    """Make the next burst during halt."""
    with m.If(splitter.halt):
        m.d.sync += splitter.o.valid.eq(splitter.o.valid | ~splitter.o.payload.last)


def _withdraws(splitter: BurstSplitter, m: Module) -> None:
    """Drop a burst that waits."""
    with m.If(_waits(splitter)):
        m.d.sync += splitter.o.valid.eq(0)


def _changes(splitter: BurstSplitter, m: Module) -> None:
    """Cut a burst that waits to one beat."""
    with m.If(_waits(splitter)):
        m.d.sync += splitter.o.payload.burst.len.eq(0)


def _case(config: VTAConfig) -> Case:
    return Case(
        name=f"burst splitter, bus {config.bus_bits}, addresses {config.address_bits}",
        component=lambda: BurstSplitter(config),
        proof=lambda splitter: SplitterProof(config, splitter),
        depth=8,
        inductive=True,
        planted={
            ALIGNED: _is_askew,
            LENGTH: _is_long,
            WINDOW: _ignores_windows,
            PAGE: _ignores_windows,
            TILED: _stays,
            LAST: _does_not_end,
            FULL: _is_short,
            REST: _does_not_end,
            NOTHING_ELSE: _does_not_end,
            LIVE: _drops_a_burst,
            ACCEPTED: _accepts_late,
            HALTED: _accepts_in_halt,
            QUIET: _goes_on_in_halt,
            KEPT: _withdraws,
            STABLE: _changes,
        },
    )


CASES: Final = (_case(VTAConfig()), _case(VTAConfig(log_bus_width=9, log_address_width=6)))
