"""Rows in DRAM as bursts: `RowWalker` (vta_hw/rtl/transfer.py) and `BurstSplitter` (vta_hw/rtl/dma.py)."""

from __future__ import annotations

from typing import Final

from vta_sim._jit import inner
from vta_sim.cycle.wires import Parameters

MAX_BURST_BEATS: Final = 16
_LOG_BEATS: Final = 4


class Bursts:
    """Registers of a row walker and of the burst splitter behind it.

    rows: rows left, 0 while the walker is idle; addr, step, nbytes: byte address of the next, from one to the next,
    bytes of each. valid: whether there is a burst; burst, beats: its byte address and bus words. last: of its run;
    rest: bus words of the run behind it. final: its run is the last row's. row, row_end: byte addresses where the row
    of this run begins and ends.
    """

    rows: int
    addr: int
    step: int
    nbytes: int
    valid: int
    burst: int
    beats: int
    last: int
    rest: int
    final: int
    row: int
    row_end: int


@inner
def reset(b: Bursts) -> None:
    """As after reset: `last` is 1 when there is no run."""
    b.last = 1


@inner
def accepts(b: Bursts, taken: bool) -> bool:
    """Whether new rows are accepted in a cycle in which the burst is taken or not (`RowWalker.i.ready`)."""
    return b.rows == 0 or (b.rows == 1 and b.last != 0 and (b.valid == 0 or taken))


@inner
def step(b: Bursts, p: Parameters, taken: bool) -> bool:
    """One clock edge; whether anything changed."""
    if b.valid != 0 and not taken:
        return False
    if b.last == 0:
        b.burst = ((b.burst >> p.log_word + _LOG_BEATS) + 1 << p.log_word + _LOG_BEATS) & p.address_mask
        b.beats = min(b.rest, MAX_BURST_BEATS)
        b.rest -= b.beats
        b.last = int(b.rest == 0)
        b.valid = 1
        return True
    if b.rows != 0:
        word = (1 << p.log_word) - 1
        b.row = b.addr
        b.row_end = b.addr + b.nbytes
        words = (b.addr & word) + b.nbytes + word >> p.log_word
        b.burst = b.addr & ~word
        b.beats = min(words, MAX_BURST_BEATS - (b.addr >> p.log_word & MAX_BURST_BEATS - 1))
        b.rest = words - b.beats
        b.last = int(b.rest == 0)
        b.valid = 1
        b.final = int(b.rows == 1)
        b.addr = (b.addr + b.step) & p.address_mask
        b.rows -= 1
        return True
    b.valid = 0
    return taken


@inner
def begin(b: Bursts, p: Parameters, addr: int, row_step: int, nbytes: int, rows: int) -> None:
    """Accept rows, at the end of a cycle in which they are accepted."""
    b.addr = addr & p.address_mask
    b.step = row_step
    b.nbytes = nbytes
    b.rows = rows
