"""The memory engine (vta_hw/rtl/memory_engine.py): three readers and the writer share the memory port."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle import dram
from vta_sim.cycle.dram import Answer, Dram
from vta_sim.cycle.records import array, copy
from vta_sim.cycle.wires import Wires, bit

FETCH, LOAD, COMPUTE = range(3)
"""Numbers of the readers (`vta_hw.rtl.axi.Client`)."""

_READERS: Final = 3
_OUTSTANDING: Final = 63  # `vta_hw.rtl.memory_engine.MAX_OUTSTANDING`
_ADDRESS, _BEATS, _READER = range(3)
_READ_WAIT, _WRITE_WAIT = bit("read_wait"), bit("write_wait")
_NOTHING: Final = -1
_ERROR: Final = int(Status.READ_ERROR)


class MemoryEngine:
    """Registers of the memory engine.

    granted: the reader that was granted last. at_work: bursts of each reader that are not answered. ar, aw: payloads of
    the skid buffers: address, bus words, reader; row 0 is the one at the port, row 1 the spare one. ar_valid, aw_valid,
    w_valid: of the port; ar_spare, aw_spare, w_spare: of the spare ones. w_last, w_spare_last: the payloads of W.
    beat: the reader that a bus word comes for, or -1; beat_last, beat_error: of it. response, response_error: a
    response comes. writes, bodies: bursts of the writer that are not answered, and of those the ones with all words.
    within: some words of a burst were accepted, but not yet its last.
    """

    granted: int
    at_work: NDArray[np.int64] = array(_READERS)
    ar: NDArray[np.int64] = array(2, 3)
    aw: NDArray[np.int64] = array(2, 3)
    ar_valid: int
    aw_valid: int
    w_valid: int
    ar_spare: int
    aw_spare: int
    w_spare: int
    w_last: int
    w_spare_last: int
    beat: int
    beat_last: int
    beat_error: int
    response: int
    response_error: int
    writes: int
    bodies: int
    within: int


@inner
def reset(e: MemoryEngine) -> None:
    """As after reset."""
    e.granted = _READERS - 1
    e.beat = _NOTHING


@inner
def grant(e: MemoryEngine, fetch: bool, load: bool, compute: bool) -> int:
    """The reader whose burst is taken in this cycle, of those that offer one, or -1 (`RoundRobin`)."""
    if e.ar_spare or not (fetch or load or compute):
        return _NOTHING
    for distance in range(1, _READERS + 1):
        reader = (e.granted + distance) % _READERS
        wants = fetch if reader == FETCH else load if reader == LOAD else compute
        if wants and e.at_work[reader] != _OUTSTANDING:
            e.granted = reader
            return reader
    return _NOTHING


@inner
def reads_are_answered(e: MemoryEngine) -> bool:
    """Whether no burst of a reader is at work."""
    return bool(e.at_work[FETCH] == 0 and e.at_work[LOAD] == 0 and e.at_work[COMPUTE] == 0)


@inner
def writes_are_answered(e: MemoryEngine) -> bool:
    """Whether no burst of the writer is at work."""
    return e.writes == 0 and e.bodies == 0 and e.within == 0


@inner
def step(
    e: MemoryEngine,
    d: Dram,
    answer: Answer,
    w: Wires,
    reader: int,
    address: int,
    beats: int,
    writes: bool,
    write_address: int,
    write_beats: int,
    has_word: bool,
    last_word: bool,
) -> None:
    """One cycle, in which the burst of a reader (or of none: -1), one of the writer, and a word of it are taken."""
    ar_valid, aw_valid, w_valid = e.ar_valid, e.aw_valid, e.w_valid
    if ar_valid and not answer.ar_ready:
        w.bits |= _READ_WAIT
    if (aw_valid and not answer.aw_ready) or (w_valid and not answer.w_ready):
        w.bits |= _WRITE_WAIT
    dram.clock(
        d,
        answer,
        ar_valid,
        e.ar[0, _ADDRESS],
        e.ar[0, _BEATS] - 1,
        e.ar[0, _READER],
        aw_valid,
        e.aw[0, _ADDRESS],
        e.aw[0, _BEATS] - 1,
        0,
        w_valid,
        e.w_last,
        1,
        1,
    )
    moved = reader >= 0 or writes or (has_word and last_word)
    moved = _take_answers(e, answer) or moved
    moved = _take_read(e, answer, reader, address, beats) or moved
    moved = _take_write(e, answer, writes, write_address, write_beats) or moved
    moved = _take_word(e, answer, has_word, last_word) or moved
    if moved:
        w.moved = 1


# Each takes what one channel brings or is given, and gives whether anything changed.


@inner
def _take_answers(e: MemoryEngine, answer: Answer) -> bool:
    moved = False
    if e.beat >= 0 and e.beat_last:
        e.at_work[e.beat] -= 1
        moved = True
    if e.response:
        e.writes -= 1
        e.bodies -= 1
        moved = True
    beat = answer.r_id if answer.r_valid else _NOTHING
    last, error = answer.r_valid & answer.r_last, answer.r_valid & (answer.r_resp >> 1)
    response, failed = answer.b_valid, answer.b_valid & (answer.b_resp >> 1)
    if beat != e.beat or last != e.beat_last or error != e.beat_error or response != e.response:
        moved = True
    e.beat, e.beat_last, e.beat_error = beat, last, error
    e.response, e.response_error = response, failed
    return moved


@inner
def _take_read(e: MemoryEngine, answer: Answer, reader: int, address: int, beats: int) -> bool:
    """The address of a reader's burst, through a `SkidBuffer`."""
    moved = False
    if reader >= 0:
        e.at_work[reader] += 1
    if e.ar_valid == 0 or answer.ar_ready:
        moved = e.ar_valid != 0
        if e.ar_spare:
            copy(e.ar[1], e.ar[0])
        elif reader >= 0:
            _put(e.ar, 0, address, beats, reader)
        e.ar_valid = e.ar_spare | (reader >= 0)
        e.ar_spare = 0
    elif reader >= 0:
        _put(e.ar, 1, address, beats, reader)
        e.ar_spare = 1
    return moved


@inner
def _take_write(e: MemoryEngine, answer: Answer, writes: bool, address: int, beats: int) -> bool:
    """The address of the writer's burst, through a `SkidBuffer`."""
    moved = False
    if writes:
        e.writes += 1
    if e.aw_valid == 0 or answer.aw_ready:
        moved = e.aw_valid != 0
        if e.aw_spare:
            copy(e.aw[1], e.aw[0])
        elif writes:
            _put(e.aw, 0, address, beats, 0)
        e.aw_valid = e.aw_spare | writes
        e.aw_spare = 0
    elif writes:
        _put(e.aw, 1, address, beats, 0)
        e.aw_spare = 1
    return moved


@inner
def _take_word(e: MemoryEngine, answer: Answer, has_word: bool, last_word: bool) -> bool:
    """A word of the writer, through a `SkidBuffer`."""
    moved = False
    if has_word:
        within = int(not last_word)
        e.bodies += int(last_word)
        moved = within != e.within
        e.within = within
    if e.w_valid == 0 or answer.w_ready:
        next_valid = int(e.w_spare != 0 or has_word)
        next_last = e.w_spare_last if e.w_spare else int(has_word and last_word)
        moved = moved or next_valid != e.w_valid or next_last != e.w_last or e.w_spare != 0
        e.w_valid, e.w_last, e.w_spare = next_valid, next_last, 0
    elif has_word:
        e.w_spare, e.w_spare_last = 1, int(last_word)
        moved = True
    return moved


@inner
def _put(skid: NDArray[np.int64], row: int, address: int, beats: int, reader: int) -> None:
    skid[row, _ADDRESS] = address
    skid[row, _BEATS] = beats
    skid[row, _READER] = reader
