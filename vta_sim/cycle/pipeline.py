"""The nest and the pipeline behind it (vta_hw/rtl/nest.py, vta_hw/rtl/pipeline.py): one micro-op per cycle.

Steps in the stages are bits, from bit 0 (`index`) to bit 5 (`write`). Which accumulators a step uses matters only where
steps may have to wait: those of REQUANT for each other, and those of two pipelines for a bank of ACC.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, Opcode
from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle.records import array, copy
from vta_sim.cycle.wires import Parameters, Wires, report_fault
from vta_sim.functional.columns import (
    ALU_OPCODE,
    DST_IN,
    DST_OUT,
    ITER_IN,
    ITER_OUT,
    RESET,
    SRC_IN,
    SRC_OUT,
    UOP_BGN,
    UOP_END,
    USE_IMM,
    WGT_IN,
    WGT_OUT,
)
from vta_sim.functional.state import Machine

_ALL: Final = 0b111111
_INDEX: Final = 0b000001
_BEFORE_WRITE: Final = 0b011111
_SUM: Final = 4  # place of the stage that reads ACC
_WRITE: Final = 5
_RING: Final = 16
_NONE: Final = -1

_ALU, _GEMM, _GEMM_OVERWRITE = int(Opcode.ALU), int(Opcode.GEMM), int(Opcode.GEMM_OVERWRITE)
_REQUANT: Final = int(AluOp.REQUANT)
_UOP_INDEX, _ACC_INDEX = int(Status.UOP_INDEX), int(Status.ACC_INDEX)
_INP_INDEX, _WGT_INDEX = int(Status.INP_INDEX), int(Status.WGT_INDEX)
_FAULTS: Final = 4
"""Bits of status that a micro-op may be at fault for, each at most once worth telling."""


class Pipeline:
    """Registers of a nest and its pipeline.

    steps: those left of the instruction in the nest, 0 without one. insn, work, requant: of it. valid, last, plain:
    stages with a step, with the last of an instruction, with one that is no REQUANT. flags: of the instructions in
    nest and pipeline, by their number modulo its length; begun, ended: how many did.

    fields: of the instruction in the nest. uop, inner, outer: of the step that the nest shows. dst: accumulators that
    the steps in the stages write, src: the one that the step in `index` reads besides; -1 where it does not matter.
    tracks: they matter for the instruction in the nest; shifts: for a step in a stage. step: the one that the nest
    shows. faulty: the instruction in the nest has indices out of range; faults: first step at which each kind of them
    is, and its bit of status. bad, bad_insn: bits of status due to the step in `index`.
    """

    steps: int
    insn: int
    work: int
    requant: int
    valid: int
    last: int
    plain: int
    flags: NDArray[np.int64] = array(_RING)
    begun: int
    ended: int
    fields: NDArray[np.int64] = array(11)
    uop: int
    inner: int
    outer: int
    dst: NDArray[np.int64] = array(6)
    src: int
    tracks: int
    shifts: int
    step: int
    faulty: int
    faults: NDArray[np.int64] = array(_FAULTS, 2)
    bad: int
    bad_insn: int


@inner
def reset(e: Pipeline) -> None:
    """As after reset."""
    for stage in range(6):
        e.dst[stage] = _NONE
    e.src = _NONE


@inner
def is_empty(e: Pipeline) -> bool:
    """Whether neither the nest nor a stage has a step."""
    return e.steps == 0 and e.valid == 0


@inner
def is_plain(e: Pipeline) -> bool:
    """Whether a step that is no REQUANT has yet to read ACC in `sum`."""
    return (e.plain & e.valid & _BEFORE_WRITE) != 0 or (e.steps != 0 and e.requant == 0)


@inner
def waits(e: Pipeline) -> bool:
    """Whether the REQUANT in `index` waits for an accumulator that a step before it has yet to write."""
    if e.src < 0:
        return False
    for stage in range(1, _SUM + 1):
        if e.dst[stage] >= 0 and (e.dst[stage] == e.dst[0] or e.dst[stage] >> 1 == e.src >> 1):
            return True
    return False


@inner
def late(e: Pipeline) -> int:
    """The accumulator that `sum` reads and `write` writes in the next cycle, or -1; only if it is tracked."""
    return int(e.dst[_SUM])


@inner
def is_last(e: Pipeline) -> bool:
    """Whether the nest shows no step, or the last of its instruction."""
    return e.steps <= 1


@inner
def accepts(e: Pipeline, wait: bool) -> bool:
    """Whether the nest accepts an instruction, in a cycle in which `index` waits or not."""
    return e.steps == 0 or (e.steps == 1 and not wait)


@inner
def step(e: Pipeline, uops: NDArray[np.uint32], p: Parameters, w: Wires, wait: bool, hold: bool) -> int:
    """One clock edge but for what begins; the flags of the instruction that retires, or -1.

    wait: the step in `index` stays there. hold: all stages but `write` stay as they are.
    """
    retired = _NONE
    if is_empty(e):
        return retired
    if e.last >> _WRITE & 1:
        retired = e.flags[e.ended & _RING - 1]
        e.ended += 1
    if hold:
        e.valid &= _BEFORE_WRITE
        e.last &= _BEFORE_WRITE
        e.plain &= _BEFORE_WRITE
        e.dst[_WRITE] = _NONE
        w.moved = 1
        return retired
    valid, last, plain = e.valid, e.last, e.plain
    kept = valid & _INDEX if wait else 0
    e.valid = (valid & ~kept) << 1 & _ALL | kept
    e.last = (last & ~kept) << 1 & _ALL | last & kept
    e.plain = (plain & ~kept) << 1 & _ALL | plain & kept
    if e.shifts:
        w.moved |= int(e.requant != 0 or e.src >= 0)
        _shift(e, wait)
    if not wait:
        if e.bad:
            report_fault(w, e.bad, e.bad_insn)
            e.bad = 0
        if e.steps:
            e.valid |= _INDEX
            e.plain |= int(e.requant == 0)
            if e.faulty:
                _meet_fault(e)
            if e.tracks:
                _track(e, uops, p)
            e.steps -= 1
            e.step += 1
            e.last |= int(e.steps == 0)
            if e.steps == 0:
                w.moved = 1
    if e.valid != valid or e.last != last or e.plain != plain or last or wait:
        w.moved = 1
    return retired


@inner
def _shift(e: Pipeline, wait: bool) -> None:
    """Move what is known of the accumulators to the next stages."""
    for stage in range(_WRITE, 1, -1):
        e.dst[stage] = e.dst[stage - 1]
    if wait:
        e.dst[1] = _NONE
    else:
        e.dst[1] = e.dst[0]
        e.dst[0] = _NONE
        e.src = _NONE
    e.shifts = 0
    for stage in range(_WRITE):
        e.shifts |= int(e.dst[stage] >= 0)


@inner
def _track(e: Pipeline, uops: NDArray[np.uint32], p: Parameters) -> None:
    """Note the accumulators of the step that moves from the nest to `index`, and walk the nest on."""
    if not e.work:
        return
    fields = e.fields
    word = np.int64(uops[e.uop & uops.size - 1])
    dst = (word >> p.uop_places[0, 0] & p.uop_places[0, 1]) + e.outer * fields[DST_OUT] + e.inner * fields[DST_IN]
    e.dst[0] = dst & p.acc_mask
    e.shifts = 1
    if e.requant:
        src = (word >> p.uop_places[1, 0] & p.uop_places[1, 1]) + e.outer * fields[SRC_OUT] + e.inner * fields[SRC_IN]
        e.src = src & p.acc_mask
    e.uop += 1
    if e.uop == fields[UOP_END]:
        e.uop = fields[UOP_BGN]
        e.inner += 1
        if e.inner == fields[ITER_IN]:
            e.inner = 0
            e.outer += 1


@inner
def _meet_fault(e: Pipeline) -> None:
    """Whether the step that moves from the nest to `index` has an index out of range."""
    for number in range(_FAULTS):
        if e.faults[number, 0] == e.step:
            e.bad |= e.faults[number, 1]
            e.bad_insn = e.insn


@inner
def steps_of(fields: NDArray[np.int64]) -> int:
    """Micro-op steps of a GEMM or ALU instruction."""
    return int(fields[ITER_OUT] * fields[ITER_IN] * max(fields[UOP_END] - fields[UOP_BGN], 0))


@inner
def begin(e: Pipeline, fields: NDArray[np.int64], opcode: int, insn: int, flags: int, runs: bool, tracks: bool) -> None:
    """Accept an instruction, at the end of a cycle in which it is accepted.

    runs: it is a GEMM or ALU instruction with known codes; others make one step without work. tracks: whether it
    matters which accumulators it uses, even if it is no REQUANT.
    """
    e.flags[e.begun & _RING - 1] = flags
    e.begun += 1
    steps = steps_of(fields) if runs else 0
    e.insn = insn
    e.work = int(steps != 0)
    e.requant = int(runs and opcode == _ALU and fields[ALU_OPCODE] == _REQUANT)
    e.steps = max(steps, 1)
    e.step = 0
    e.faulty = 0
    e.tracks = int(tracks or e.requant)
    copy(fields, e.fields)
    e.uop = fields[UOP_BGN]
    e.inner = 0
    e.outer = 0


@inner
def find_faults(e: Pipeline, m: Machine, p: Parameters, opcode: int) -> None:
    """Find the first step at which each kind of index is out of range, of the instruction in the nest."""
    fields = e.fields
    e.faulty = 1
    for number in range(_FAULTS):
        e.faults[number, 0] = _NONE
    is_alu = opcode == _ALU
    multiplies = opcode == _GEMM_OVERWRITE or (opcode == _GEMM and fields[RESET] == 0)
    two_operands = is_alu and (fields[USE_IMM] == 0 or fields[ALU_OPCODE] == _REQUANT)
    number = 0
    for outer in range(fields[ITER_OUT]):
        for inside in range(fields[ITER_IN]):
            for uop in range(fields[UOP_BGN], fields[UOP_END]):
                word = np.int64(m.uop[uop & m.uop.size - 1])
                dst = (word >> m.uop_places[0, 0] & m.uop_places[0, 1]) + outer * fields[DST_OUT]
                src = (word >> m.uop_places[1, 0] & m.uop_places[1, 1]) + outer * fields[SRC_OUT]
                dst += inside * fields[DST_IN]
                src += inside * fields[SRC_IN]
                if uop >= m.uop.size:
                    _note(e, 0, number, _UOP_INDEX)
                if dst > p.acc_mask or (two_operands and src > p.acc_mask):
                    _note(e, 1, number, _ACC_INDEX)
                if multiplies:
                    wgt = (word >> m.uop_places[2, 0] & m.uop_places[2, 1]) + outer * fields[WGT_OUT]
                    wgt += inside * fields[WGT_IN]
                    if src >= p.inp_depth:
                        _note(e, 2, number, _INP_INDEX)
                    if wgt >= p.wgt_depth:
                        _note(e, 3, number, _WGT_INDEX)
                number += 1


@inner
def _note(e: Pipeline, kind: int, number: int, status: int) -> None:
    if e.faults[kind, 0] < 0:
        e.faults[kind, 0] = number
        e.faults[kind, 1] = status


@inner
def horizon(e: Pipeline, alone: bool, limit: int) -> int:
    """For how many cycles, up to `limit`, steps go through the pipeline and none is the last of its instruction.

    The last cycle was like that. alone: nobody else may want a bank of ACC. Those of REQUANT are taken one by one.
    """
    if e.steps == 0:
        return limit
    if e.faulty or e.bad or e.requant or e.src >= 0 or ((e.tracks or e.shifts) and not alone):
        return 0
    return int(min(limit, e.steps - 1))


@inner
def advance(e: Pipeline, uops: NDArray[np.uint32], p: Parameters, cycles: int) -> None:
    """As many cycles as `horizon` says."""
    if e.steps == 0:
        return
    e.steps -= cycles
    e.step += cycles
    if e.tracks:
        last = min(cycles, _WRITE + 1)
        _seek(e, e.step - last)
        for _ in range(last):
            _shift(e, False)
            _track(e, uops, p)


@inner
def _seek(e: Pipeline, number: int) -> None:
    """Walk the nest to a step."""
    fields = e.fields
    begin = fields[UOP_BGN]
    uops = fields[UOP_END] - begin
    e.uop = begin + number % uops
    e.inner = number // uops % fields[ITER_IN]
    e.outer = number // uops // fields[ITER_IN]
