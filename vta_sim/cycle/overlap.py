"""The compute unit whose ALU and accumulator loads work beside GEMM (overlap.py and scoreboard.py of vta_hw/rtl)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, MemoryType, Module, Opcode
from vta_sim._jit import inner
from vta_sim.cycle import compute, decode, load_engine, pipeline, ranges
from vta_sim.cycle.load_engine import LoadEngine
from vta_sim.cycle.pipeline import Pipeline
from vta_sim.cycle.queues import InsnQueues
from vta_sim.cycle.ranges import RANGES, Scanner
from vta_sim.cycle.records import array, copy
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import Parameters, Wires, bit, compute_values, report_fault, take_token
from vta_sim.functional.columns import (
    ALU_OPCODE,
    FIELD_COUNT,
    FLAG_POP_NEXT,
    FLAG_POP_PREV,
    ITER_IN,
    ITER_OUT,
    L2G,
    MEMORY_TYPE,
    S2G,
)

_SLOTS: Final = 8
_NONE, _GEMM, _ALU, _LOAD = range(4)
"""Lanes (`vta_hw.rtl.scoreboard.Lane`)."""
_LANES: Final = 4
_SHARED_BANKS: Final = 4  # `vta_hw.rtl.scratchpad.SHARED_BANKS`
_MODULE: Final = int(Module.COMPUTE.value)
_ACC, _ALU_OPCODE, _REQUANT = int(MemoryType.ACC), int(Opcode.ALU), int(AluOp.REQUANT)
_GEMM_BUSY, _ALU_BUSY, _LOAD_BUSY = bit("gemm_busy"), bit("alu_busy"), bit("compute_load_busy")
_BEGIN, _NEXT_GEMM, _NEXT_ALU, _LOADED = bit("begin_compute"), bit("next_gemm"), bit("next_alu"), bit("loaded")


class Overlap:
    """Registers of the scoreboard, of the lanes' queues, and of what scans.

    insn, flags, opcode, fields: of the instruction in each slot. present, busy, lane, known, waits, ranges, head, tail:
    as in the scoreboard; waits is a mask of slots. queue: slots of each lane, by their number modulo its length;
    queued, ran, done: how many came, began, and are done. of_head, of_slot, found_slot: whose ranges the scanner finds.
    """

    insn: NDArray[np.int64] = array(_SLOTS)
    flags: NDArray[np.int64] = array(_SLOTS)
    opcode: NDArray[np.int64] = array(_SLOTS)
    fields: NDArray[np.int64] = array(_SLOTS, FIELD_COUNT)
    present: NDArray[np.int64] = array(_SLOTS)
    busy: NDArray[np.int64] = array(_SLOTS)
    lane: NDArray[np.int64] = array(_SLOTS)
    known: NDArray[np.int64] = array(_SLOTS)
    waits: NDArray[np.int64] = array(_SLOTS)
    ranges: NDArray[np.int64] = array(_SLOTS, RANGES)
    head: int
    tail: int
    queue: NDArray[np.int64] = array(_LANES, 2 * _SLOTS)
    queued: NDArray[np.int64] = array(_LANES)
    ran: NDArray[np.int64] = array(_LANES)
    done: NDArray[np.int64] = array(_LANES)
    of_head: int
    of_slot: int
    found_slot: int


@inner
def is_idle(o: Overlap) -> bool:
    """Whether no instruction is between dispatch and retirement (`Scoreboard.empty`)."""
    present = 0
    for slot in range(_SLOTS):
        present |= o.present[slot]
    return present == 0


@inner
def _lane_of(p: Parameters, opcode: int, fields: NDArray[np.int64]) -> int:
    kind = decode.kind_of(p, opcode, fields)
    if kind == decode.LOAD:
        return _LOAD
    if kind == decode.NOTHING or fields[ITER_OUT] == 0 or fields[ITER_IN] == 0:
        return _NONE
    return _ALU if kind == decode.ALU else _GEMM


@inner
def _is_dry(o: Overlap, lane: int, e: Pipeline) -> bool:
    """Whether a lane is about to end, `e` being its pipeline if it has one."""
    if o.queued[lane] != o.ran[lane]:
        return False
    return o.ran[lane] == o.done[lane] if lane == _LOAD else pipeline.is_last(e)


@inner
def _others_are_busy(o: Overlap, lane: int) -> bool:
    found = False
    for slot in range(_SLOTS):
        found = found or bool(o.busy[slot] != 0 and o.lane[slot] != lane)
    return found


@inner
def _loads_uops(o: Overlap) -> bool:
    for slot in range(_SLOTS):
        if o.busy[slot] and o.lane[slot] == _LOAD and (not o.known[slot] or ranges.writes_uops(o.ranges[slot])):
            return True
    return False


@inner
def _runs(o: Overlap, lane: int) -> bool:
    """Whether the head of a lane's queue waits for nothing older."""
    return bool(o.queued[lane] != o.ran[lane] and o.waits[_next(o, lane)] == 0)


@inner
def _next(o: Overlap, lane: int) -> int:
    """The slot of the head of a lane's queue."""
    return int(o.queue[lane, o.ran[lane] & 2 * _SLOTS - 1])


@inner
def _run_steps(o: Overlap, lane: int, e: Pipeline, stays: bool) -> bool:
    """Whether the head of an arithmetic lane's queue goes to the nest, in a cycle in which `index` stays or moves."""
    if not _runs(o, lane):
        return False
    slot = _next(o, lane)
    requant = o.opcode[slot] == _ALU_OPCODE and o.fields[slot, ALU_OPCODE] == _REQUANT
    return not (requant and pipeline.is_plain(e)) and pipeline.accepts(e, stays)


@inner
def _is_loaded(p: Parameters, index: int, first: int, count: int) -> bool:
    """Whether a load writes the bank of an accumulator in the next cycle."""
    if count == 0:
        return False
    depth, banks = p.acc_mask + 1, p.acc_banks
    bank = index & banks - 1
    if depth >= banks:
        return (bank - first & banks - 1) < count
    found = False
    for place in range(bank, banks, depth):
        found = found or (place - first & banks - 1) < count
    return found


@inner
def step(
    o: Overlap,
    s: Scanner,
    gemm: Pipeline,
    alu: Pipeline,
    loader: LoadEngine,
    b: Bursts,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    uops: NDArray[np.uint32],
    insn: int,
    flags: int,
    opcode: int,
    fields: NDArray[np.int64],
    taken: bool,
    beat: bool,
    error: bool,
) -> bool:
    """One cycle; whether the head of the queue, `insn` with `flags`, is dispatched.

    `insn` is -1 without a head; its opcode and decoded fields are `opcode` and `fields` otherwise. uops: the micro-op
    scratchpad. taken: the burst; beat: a bus word comes, with or without an error.
    """
    # What the registers say.
    scanned = ranges.is_done(s)
    known = o.of_head != 0 and scanned
    begins, wanted, lane = False, False, _NONE
    if insn >= 0:
        lane = _lane_of(p, opcode, fields)
        wanted = lane != _NONE
        if compute.is_waiting(w, flags):
            if is_idle(o):
                compute.count_waits(w, flags)
        elif not o.present[o.tail] and (lane == _NONE or o.queued[lane] - o.ran[lane] != _SLOTS):
            begins = lane == _NONE or known
            if not begins:
                begins = _is_dry(o, lane, alu if lane == _ALU else gemm) and not _others_are_busy(o, lane)
    starts = wanted and not o.of_head and (not o.of_slot or scanned or begins) and (lane == _LOAD or not _loads_uops(o))
    _show_busy(o, gemm, alu, w)
    # Who waits for a bank of ACC.
    first, count = load_engine.follow(loader, p, _ACC, beat)
    gemm_late, alu_late = pipeline.late(gemm), pipeline.late(alu)
    gemm_hold = gemm_late >= 0 and _is_loaded(p, gemm_late, first, count)
    taken_bank = gemm_late & _SHARED_BANKS - 1 if gemm_late >= 0 else -1
    alu_hold = alu_late >= 0 and (_is_loaded(p, alu_late, first, count) or alu_late & _SHARED_BANKS - 1 == taken_bank)
    alu_wait = pipeline.waits(alu) or (alu.src >= 0 and alu.dst[0] & _SHARED_BANKS - 1 == taken_bank)
    gemm_runs = _run_steps(o, _GEMM, gemm, gemm_hold)
    alu_runs = _run_steps(o, _ALU, alu, alu_hold or alu_wait)
    load_runs = _runs(o, _LOAD)
    load_runs = load_runs and load_engine.accepts(loader, b, o.fields[_next(o, _LOAD), MEMORY_TYPE], taken)
    # What completes.
    completing = 0
    if pipeline.step(gemm, uops, p, w, False, gemm_hold) >= 0:
        completing |= _complete(o, _GEMM)
    if pipeline.step(alu, uops, p, w, alu_wait, alu_hold) >= 0:
        completing |= _complete(o, _ALU)
    if load_engine.step(loader, b, p, w, taken, beat, error):
        w.bits |= _LOADED
        compute_values(w, o.insn[o.queue[_LOAD, o.done[_LOAD] & 2 * _SLOTS - 1]])
        completing |= _complete(o, _LOAD)
    head = o.head
    retires = o.present[head] != 0 and (not o.busy[head] or completing >> head & 1 != 0)
    if retires:
        compute.retire(w, o.flags[head])
    # The clock edge.
    _run_lanes(o, gemm, alu, loader, b, p, w, gemm_runs, alu_runs, load_runs)
    if begins:
        _enter(o, s, lane, known, completing, insn, flags, opcode, fields)
    _settle_slots(o, begins, retires, completing)
    _settle_scanner(o, s, w, scanned, starts, begins and wanted, known)
    if begins:
        _leave_queue(o, q, p, w, insn, flags, opcode, fields)
    if ranges.step(s) or starts or begins or retires or completing:
        w.moved = 1
    if starts:
        ranges.start(s, uops, p, lane == _LOAD, opcode, fields)
    return begins


@inner
def _show_busy(o: Overlap, gemm: Pipeline, alu: Pipeline, w: Wires) -> None:
    """Which lanes are at work, for the counters."""
    if gemm.steps and gemm.work:
        w.bits |= _GEMM_BUSY
    if alu.steps and alu.work:
        w.bits |= _ALU_BUSY
    if o.queued[_LOAD] != o.done[_LOAD]:
        w.bits |= _LOAD_BUSY


@inner
def _run_lanes(
    o: Overlap,
    gemm: Pipeline,
    alu: Pipeline,
    loader: LoadEngine,
    b: Bursts,
    p: Parameters,
    w: Wires,
    gemm_runs: bool,
    alu_runs: bool,
    load_runs: bool,
) -> None:
    """The heads of the lanes' queues that may go on."""
    if gemm_runs:
        w.bits |= _NEXT_GEMM
        _run(o, _GEMM, gemm, w)
    if alu_runs:
        w.bits |= _NEXT_ALU
        _run(o, _ALU, alu, w)
    if load_runs:
        slot = _next(o, _LOAD)
        load_engine.begin(loader, b, p, o.fields[slot], o.insn[slot])
        o.ran[_LOAD] += 1
        w.moved = 1


@inner
def _settle_slots(o: Overlap, begins: bool, retires: bool, completing: int) -> None:
    """What completed no longer holds up others, except for the slot that is being filled; the oldest may leave."""
    for slot in range(_SLOTS):
        if not (begins and slot == o.tail):
            o.waits[slot] &= ~completing
            if completing >> slot & 1:
                o.busy[slot] = 0
    if retires:
        o.present[o.head] = 0
        o.head = (o.head + 1) % _SLOTS


@inner
def _settle_scanner(o: Overlap, s: Scanner, w: Wires, scanned: bool, starts: bool, enters: bool, known: bool) -> None:
    """What the scanner has found, and whose ranges it looks for from now on: the head's, or those of what enters."""
    if o.of_slot and scanned:
        copy(s.found, o.ranges[o.found_slot])
        o.known[o.found_slot] = 1
        w.moved = 1
    if enters:
        o.of_head = 0
        o.of_slot = int(not known)
        o.found_slot = o.tail
    else:
        if starts:
            o.of_head = 1
        if scanned:
            o.of_slot = 0


@inner
def _leave_queue(
    o: Overlap,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    insn: int,
    flags: int,
    opcode: int,
    fields: NDArray[np.int64],
) -> None:
    """The head of the queue, which has its slot, takes its tokens."""
    o.tail = (o.tail + 1) % _SLOTS
    q.read[_MODULE] = 1
    w.bits |= _BEGIN
    take_token(w, L2G, flags >> FLAG_POP_PREV & 1)
    take_token(w, S2G, flags >> FLAG_POP_NEXT & 1)
    fault = decode.fault_of(p, opcode, fields)
    if fault:
        report_fault(w, fault, insn)


@inner
def _complete(o: Overlap, lane: int) -> int:
    """The bit of the slot of the oldest instruction of a lane that has run, which is now done."""
    slot = o.queue[lane, o.done[lane] & 2 * _SLOTS - 1]
    o.done[lane] += 1
    return 1 << int(slot)


@inner
def _run(o: Overlap, lane: int, e: Pipeline, w: Wires) -> None:
    """Let the nest take the head of an arithmetic lane's queue."""
    slot = _next(o, lane)
    o.ran[lane] += 1
    compute_values(w, o.insn[slot])
    pipeline.begin(e, o.fields[slot], o.opcode[slot], o.insn[slot], o.flags[slot], True, True)
    w.moved = 1


@inner
def _enter(
    o: Overlap,
    s: Scanner,
    lane: int,
    known: bool,
    completing: int,
    insn: int,
    flags: int,
    opcode: int,
    fields: NDArray[np.int64],
) -> None:
    """Enter an instruction in the table, in the slot `tail`, and in the queue of its lane."""
    tail = o.tail
    conflicts = 0
    for slot in range(_SLOTS):
        beside = o.busy[slot] != 0 and not completing >> slot & 1 and o.lane[slot] != lane
        if beside and (not o.known[slot] or not known or ranges.clash(s.found, o.ranges[slot])):
            conflicts |= 1 << slot
    o.insn[tail], o.flags[tail], o.opcode[tail] = insn, flags, opcode
    copy(fields, o.fields[tail])
    o.present[tail], o.busy[tail], o.lane[tail] = 1, int(lane != _NONE), lane
    o.waits[tail], o.known[tail] = conflicts, int(known)
    copy(s.found, o.ranges[tail])
    if lane != _NONE:
        o.queue[lane, o.queued[lane] & 2 * _SLOTS - 1] = tail
        o.queued[lane] += 1
