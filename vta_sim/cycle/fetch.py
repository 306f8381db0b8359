"""Fetch (vta_hw/rtl/fetch.py): the prefetcher, and the dispatch of instructions to the queues."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle import queues, transfer
from vta_sim.cycle.queues import InsnQueues
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import Parameters, Wires, bit, report_fault

_READ_ERROR: Final = int(Status.READ_ERROR)
_WAIT_QUEUE: Final = bit("fetch_wait_queue")
_DISPATCH: Final = bit("dispatch")
_NO_WORD: Final = 1 << 62


class Fetch:
    """Registers of fetch.

    space, awaited: of the prefetcher, in bus words. level, shows: its queue, a `SyncFIFOBuffered`. arrived, word: bus
    words that have come, and that have left the queue. bad_word: the first that came with an error. lane: place of the
    next instruction in its bus word. has_half: half of an instruction has been taken. index: instructions handed out.
    failed: the next one came with an error.
    """

    space: int
    awaited: int
    level: int
    shows: int
    arrived: int
    word: int
    bad_word: int
    lane: int
    has_half: int
    index: int
    failed: int


@inner
def start(f: Fetch, b: Bursts, p: Parameters) -> None:
    """The registers in the first cycle of a launch."""
    transfer.reset(b)
    words = p.count * p.beats + p.first_lane + p.lanes - 1 >> _log2(p.lanes)
    transfer.begin(b, p, p.base >> p.log_word << p.log_word, 0, words << p.log_word, 1)
    f.space = p.prefetch
    f.bad_word = _NO_WORD
    f.lane = p.first_lane


@inner
def _log2(value: int) -> int:
    log = 0
    while value >> log > 1:
        log += 1
    return log


@inner
def wants(f: Fetch, b: Bursts) -> bool:
    """Whether a burst is on the port (`burst.valid`)."""
    return b.valid != 0 and b.beats <= f.space


@inner
def is_idle(f: Fetch, b: Bursts) -> bool:
    """Whether nothing is outstanding."""
    return f.awaited == 0 and not wants(f, b)


@inner
def bytes_read(f: Fetch, p: Parameters) -> int:
    """The useful bytes of the bus words that have come."""
    instructions = min(f.arrived * p.lanes - p.first_lane, p.count * p.beats)
    return max(instructions, 0) * (16 // p.beats)


@inner
def step(
    f: Fetch,
    b: Bursts,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    module: NDArray[np.uint8],
    taken: bool,
    beat: bool,
    error: bool,
) -> None:
    """One cycle. taken: the burst; beat: a bus word comes, with or without an error."""
    if not (f.shows or f.level or b.rows or taken or beat):
        return
    pops = False
    if f.shows:
        if p.beats == 2 and f.has_half == 0:
            pops = True
            f.has_half = 1
        elif f.failed == 0 and f.index != p.count:
            if f.bad_word <= f.word:
                f.failed = 1
                report_fault(w, _READ_ERROR, f.index)
            elif queues.is_full(q, p, int(module[f.index])):
                w.bits |= _WAIT_QUEUE
            else:
                w.bits |= _DISPATCH
                w.moved = 1
                q.write[module[f.index]] = 1
                f.index += 1
                pops = f.lane == p.lanes - 1
                f.lane = 0 if pops else f.lane + 1
                f.has_half = 0
    moves_up = f.level != 0 and (f.shows == 0 or pops)
    if pops or moves_up:
        w.moved = 1
        f.word += pops
        f.shows = int(moves_up or not pops)
    f.level += int(beat) - int(moves_up)
    if beat:
        w.moved = 1
        if error:
            f.bad_word = min(f.bad_word, f.arrived)
        f.arrived += 1
        f.awaited -= 1
    if taken:
        f.awaited += b.beats
        f.space -= b.beats
    f.space += pops
    if transfer.step(b, p, taken):
        w.moved = 1
