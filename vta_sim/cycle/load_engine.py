"""The engine of LOADs (`LoadEngine` of vta_hw/rtl/load.py, with `BeatWalker` and `PadWalker`).

There are two: one in the load unit for INP and WGT, one in the compute unit for UOP and ACC.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType
from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle import transfer
from vta_sim.cycle.records import array
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import Parameters, Wires, report_fault
from vta_sim.functional.columns import (
    DRAM_BASE,
    MEMORY_TYPE,
    SRAM_BASE,
    X_PAD_0,
    X_PAD_1,
    X_SIZE,
    X_STRIDE,
    Y_PAD_0,
    Y_PAD_1,
    Y_SIZE,
)

_FIFO_DEPTH: Final = 8  # `vta_hw.rtl.load.LOADS_IN_FLIGHT`
_RING: Final = 16
_INDEX_MASK: Final = (1 << 18) - 1  # `vta_hw.rtl.transfer.INDEX_BITS`
_RUN_MASK: Final = (1 << 21) - 1  # `vta_hw.rtl.padding.RUN_BITS`
_NEVER: Final = -1

(
    _INSN, _KIND, _BEATS, _OUTSIDE, _FIRST, _MIDDLE, _LAST, _ROWS, _X_SIZE, _PADDED, _SRAM_BASE, _LIMIT,
    _OFFSET, _ROW_STEP, _ELEM_BYTES,
) = range(15)  # fmt: skip
"""Columns of `LoadEngine.loads`.

_KIND: plain memory type. _BEATS: bus words. _OUTSIDE: bus words before the first that leaves the scratchpad, or
_NEVER. _FIRST to _ROWS: the window of `PadWalker`. _LIMIT: elements of the scratchpad. _OFFSET: of the first byte in
its bus word, _ROW_STEP: bytes from row to row, _ELEM_BYTES: of an element.
"""

_UOP, _INP, _WGT, _ACC = (int(kind) for kind in (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC))
_READ_ERROR: Final = int(Status.READ_ERROR)
_UOP_INDEX, _INP_INDEX, _WGT_INDEX, _ACC_INDEX = (
    int(status) for status in (Status.UOP_INDEX, Status.INP_INDEX, Status.WGT_INDEX, Status.ACC_INDEX)
)


class LoadEngine:
    """Registers of a load engine.

    loads: those that have begun and are not complete, by their number modulo its length. begun: how many began.
    patterns: how many the walker of beats has taken; walks: it has one, with `beats` bus words to come. windows: how
    many the walker of pads has taken; has_window: it has one. run, rows, index, padded: of the window. ahead: loads
    whose data is there before their pads. alone: the latest has pads only. unfilled: a bit for each scratchpad, with
    pads to write. writes: something is being written. place, left, offset: where the next bus word of the pattern goes,
    in elements, the bytes left of its row, and the place of the first of them in the word; row_offset: of the row.
    """

    loads: NDArray[np.int64] = array(_RING, 15)
    begun: int
    patterns: int
    walks: int
    beats: int
    windows: int
    has_window: int
    run: int
    rows: int
    index: int
    padded: int
    ahead: int
    alone: int
    unfilled: int
    writes: int
    place: int
    left: int
    offset: int
    row_offset: int


@inner
def plain(kind: int) -> int:
    """The scratchpad of a memory type (`MemoryType.scratchpad`)."""
    return kind if kind <= _ACC else _ACC


@inner
def _index_status(kind: int) -> int:
    if kind == _UOP:
        return _UOP_INDEX
    if kind == _INP:
        return _INP_INDEX
    return _WGT_INDEX if kind == _WGT else _ACC_INDEX


@inner
def accepts(e: LoadEngine, b: Bursts, kind: int, taken: bool) -> bool:
    """Whether a LOAD of a memory type is accepted in this cycle (`LoadEngine.i.ready`)."""
    fits = e.begun - e.patterns != _FIFO_DEPTH and e.begun - e.windows != _FIFO_DEPTH
    return fits and e.alone == 0 and not e.unfilled >> plain(kind) & 1 and transfer.accepts(b, taken)


@inner
def step(e: LoadEngine, b: Bursts, p: Parameters, w: Wires, taken: bool, beat: bool, error: bool) -> bool:
    """One clock edge but for what begins; whether the oldest load is complete (`done`)."""
    if e.begun == e.windows and e.has_window == 0 and e.alone == 0 and e.writes == 0:
        return False
    loads = e.loads
    pattern, window = (e.patterns - 1) & _RING - 1, (e.windows - 1) & _RING - 1
    moved = transfer.step(b, p, taken)
    if e.alone and not e.has_window and e.begun == e.windows:
        e.alone = 0
        moved = True
    # PadWalker
    complete = e.has_window != 0 and e.run == 0 and e.rows == 0
    filled = complete and e.padded != 0
    done = complete and e.ahead != 0
    pads = e.run != 0 and not (beat and loads[pattern, _KIND] == loads[window, _KIND])
    if pads and e.index >= loads[window, _LIMIT]:
        report_fault(w, _index_status(loads[window, _KIND]), loads[window, _INSN])
    if beat and loads[pattern, _OUTSIDE] == loads[pattern, _BEATS] - e.beats:
        report_fault(w, _index_status(loads[pattern, _KIND]), loads[pattern, _INSN])
    if beat and error:
        report_fault(w, _READ_ERROR, loads[pattern, _INSN])
    # BeatWalker
    finished = e.walks != 0 and (loads[pattern, _BEATS] == 0 or (beat and e.beats == 1))
    e.beats -= int(beat)
    if (e.walks == 0 or finished) and (e.walks != 0 or e.begun != e.patterns):
        e.walks = int(e.begun != e.patterns)
        e.beats = loads[e.patterns & _RING - 1, _BEATS]
        e.patterns += e.walks
        moved = True
    if finished or done:
        e.ahead += int(finished) - int(done)
        moved = True
    if filled:
        e.padded = 0
        e.unfilled &= ~(1 << loads[window, _KIND])
        moved = True
    if e.has_window == 0 or done:
        if e.begun != e.windows:
            window = e.windows & _RING - 1
            e.windows += 1
            e.has_window = 1
            e.run = loads[window, _FIRST]
            e.rows = loads[window, _ROWS]
            e.index = loads[window, _SRAM_BASE]
            e.padded = loads[window, _PADDED]
            moved = True
        elif e.has_window:
            e.has_window = 0
            moved = True
    elif e.rows != 0 and (e.run == 0 or (pads and e.run == 1)):
        e.index += loads[window, _X_SIZE] + int(pads)
        e.run = loads[window, _LAST] if e.rows == 1 else loads[window, _MIDDLE]
        e.rows -= 1
        moved = True
    elif pads:
        e.index += 1
        e.run -= 1
        moved = moved or e.run == 0
    writes = int(beat or pads)
    if moved or writes != e.writes:
        e.writes = writes
        w.moved = 1
    return done


@inner
def follow(e: LoadEngine, p: Parameters, kind: int, beat: bool) -> tuple[int, int]:
    """First element and number of elements of a scratchpad that are written in the next cycle (`next_banks`).

    To be called in every cycle, before `step`: it walks the places of the bus words along (`BeatWalker.o`).
    """
    loads = e.loads
    pattern, window = (e.patterns - 1) & _RING - 1, (e.windows - 1) & _RING - 1
    first, count = 0, 0
    if beat:
        load = loads[pattern]
        word = 1 << p.log_word
        if e.beats == load[_BEATS]:
            e.place = (load[_SRAM_BASE] + _lead(load)) * load[_ELEM_BYTES]
            e.left = load[_X_SIZE] * load[_ELEM_BYTES]
            e.offset = e.row_offset = load[_OFFSET]
        take = min(e.left, word - e.offset)
        if load[_KIND] == kind:
            first, count = e.place // load[_ELEM_BYTES], max(take // load[_ELEM_BYTES], 1)
        e.place += take
        e.left -= take
        e.offset = 0
        if e.left == 0:
            e.place += load[_MIDDLE] * load[_ELEM_BYTES]
            e.left = load[_X_SIZE] * load[_ELEM_BYTES]
            e.row_offset = e.offset = e.row_offset + load[_ROW_STEP] & word - 1
    if e.run != 0 and loads[window, _KIND] == kind and not (beat and loads[pattern, _KIND] == kind):
        first, count = e.index, 1
    return first, count


@inner
def _lead(load: NDArray[np.int64]) -> int:
    """Pads before the first data."""
    return int(load[_FIRST])


@inner
def horizon(e: LoadEngine, beat: bool, limit: int) -> int:
    """For how many cycles like the last, up to `limit`, only beats and pads count down.

    `step` has to have changed nothing else in the last cycle. No index may lie outside of its scratchpad.
    """
    pattern, window = (e.patterns - 1) & _RING - 1, (e.windows - 1) & _RING - 1
    if beat:
        limit = min(limit, e.beats - 1)
        if e.loads[pattern, _OUTSIDE] != _NEVER:
            return 0
    if e.run != 0 and not (beat and e.loads[pattern, _KIND] == e.loads[window, _KIND]):
        limit = min(limit, e.run - 1)
        if e.index + e.run > e.loads[window, _LIMIT]:
            return 0
    return limit


@inner
def advance(e: LoadEngine, beat: bool, cycles: int) -> None:
    """As many cycles, of which `horizon` says that they are like the last."""
    pattern, window = (e.patterns - 1) & _RING - 1, (e.windows - 1) & _RING - 1
    if beat:
        e.beats -= cycles
    if e.run != 0 and not (beat and e.loads[pattern, _KIND] == e.loads[window, _KIND]):
        e.run -= cycles
        e.index += cycles


@inner
def begin(e: LoadEngine, b: Bursts, p: Parameters, fields: NDArray[np.int64], insn: int) -> None:
    """Accept a LOAD at the end of a cycle in which it is accepted."""
    memory = fields[MEMORY_TYPE]
    base, elem_bytes, depth = p.bases[memory], p.elem_bytes[memory], p.depths[memory]
    load = e.loads[e.begun & _RING - 1]
    e.begun += 1
    kind = plain(fields[MEMORY_TYPE])
    rows, columns = fields[Y_SIZE], fields[X_SIZE]
    beside, below = fields[X_PAD_0] + fields[X_PAD_1], fields[Y_PAD_1]
    width = beside + columns
    has_pads = beside + fields[Y_PAD_0] + below != 0
    first = width * fields[Y_PAD_0] + fields[X_PAD_0] if rows != 0 else width * (fields[Y_PAD_0] + below)
    load[_INSN] = insn
    load[_KIND] = kind
    load[_FIRST] = first & _RUN_MASK
    load[_MIDDLE] = beside
    load[_LAST] = width * below + fields[X_PAD_1]
    load[_ROWS] = rows if beside + below != 0 else 0
    load[_X_SIZE] = columns
    load[_PADDED] = int(has_pads)
    load[_SRAM_BASE] = fields[SRAM_BASE]
    load[_LIMIT] = depth
    load[_ELEM_BYTES] = elem_bytes
    address = base + fields[DRAM_BASE] * elem_bytes
    row_step, nbytes = fields[X_STRIDE] * elem_bytes, columns * elem_bytes
    if rows == 0:
        e.alone = 1
    else:
        transfer.begin(b, p, address, row_step, nbytes, rows)
    if has_pads:
        e.unfilled |= 1 << kind
    elements = width * (rows + fields[Y_PAD_0] + below)
    load[_OFFSET] = address & (1 << p.log_word) - 1
    load[_ROW_STEP] = row_step
    load[_OUTSIDE] = _NEVER
    load[_BEATS] = _count_beats(p, address, row_step, nbytes, rows)
    if fields[SRAM_BASE] + elements > depth:
        dest = fields[SRAM_BASE] + first & _INDEX_MASK
        load[_OUTSIDE] = _first_outside(p, address, row_step, elem_bytes, columns, rows, dest, width, depth)


@inner
def _count_beats(p: Parameters, address: int, row_step: int, nbytes: int, rows: int) -> int:
    """Bus words of a transfer."""
    word = (1 << p.log_word) - 1
    if row_step & word == 0:
        return rows * ((address & word) + nbytes + word >> p.log_word)
    beats = 0
    for row in range(rows):
        beats += (address + row * row_step & word) + nbytes + word >> p.log_word
    return beats


@inner
def _first_outside(
    p: Parameters,
    address: int,
    row_step: int,
    elem_bytes: int,
    columns: int,
    rows: int,
    dest: int,
    pitch: int,
    depth: int,
) -> int:
    """Bus words before the first that holds an element outside of the scratchpad, or _NEVER.

    dest: index of the first element; pitch: from one row to the next.
    """
    word = (1 << p.log_word) - 1
    beats = 0
    for row in range(rows):
        offset = address + row * row_step & word
        inside = max(depth - dest, 0)
        if inside < columns:
            return beats + (offset + inside * elem_bytes >> p.log_word)
        beats += offset + columns * elem_bytes + word >> p.log_word
        dest += pitch
    return _NEVER
