"""What GEMM and ALU share: the two-level loop nest around micro-ops (VTA spec 3.4), its checks, and its grouping.

Every index is affine in the loop counters with factors that are not negative, so the largest index of a micro-op is
the one of the last trip: one check for each micro-op replaces one for each step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType
from vta_sim._jit import inner
from vta_sim.functional import alu, gemm
from vta_sim.functional.columns import (
    ALU_OPCODE,
    DST_IN,
    DST_OUT,
    FAULT_LIMIT,
    FAULT_UOP,
    FAULT_VALUE,
    ITER_IN,
    ITER_OUT,
    RESET,
    UOP_BGN,
    UOP_END,
    Code,
)
from vta_sim.functional.state import (
    RUN_DST,
    RUN_DST_STEP,
    RUN_LENGTH,
    RUN_SRC,
    RUN_SRC_STEP,
    RUN_WGT,
    Machine,
)

_DONE, _UNKNOWN_ALU, _UOP_RANGE, _DST_RANGE = (
    int(code) for code in (Code.DONE, Code.UNKNOWN_ALU, Code.UOP_RANGE, Code.DST_RANGE)
)
_SEEN = 2  # a value of `Machine.parted` that only lives within an instruction
_WGT, _INP, _ACC, _UOP = (int(kind) for kind in (MemoryType.WGT, MemoryType.INP, MemoryType.ACC, MemoryType.UOP))


@inner
def _check(m: Machine, fields: NDArray[np.int64], is_alu: bool, operands: int, fault: NDArray[np.int64]) -> int:
    """Check the first `operands` of dst, src, wgt of every micro-op; return a `Code`, with `fault` filled."""
    for operand in range(operands):
        kind = _ACC if operand == 0 or is_alu else _INP if operand == 1 else _WGT
        lsb, mask, depth = m.uop_places[operand, 0], m.uop_places[operand, 1], m.depths[kind]
        factors = DST_OUT + 2 * operand
        span = (fields[ITER_OUT] - 1) * fields[factors] + (fields[ITER_IN] - 1) * fields[factors + 1]
        for index in range(fields[UOP_BGN], fields[UOP_END]):
            last = ((np.int64(m.uop[index]) >> lsb) & mask) + span
            if last >= depth:
                fault[FAULT_VALUE] = last
                fault[FAULT_LIMIT] = depth
                fault[FAULT_UOP] = index
                return _DST_RANGE + operand
    return _DONE


@inner
def _group(m: Machine, begin: int, end: int, with_weights: bool) -> int:
    """Fill `m.runs` from the micro-ops begin..end-1, in their order; return the number of runs."""
    runs = m.runs
    count = 0
    last_d = 0
    last_s = 0
    for index in range(begin, end):
        word = np.int64(m.uop[index])
        d = word >> m.uop_places[0, 0] & m.uop_places[0, 1]
        s = word >> m.uop_places[1, 0] & m.uop_places[1, 1]
        w = word >> m.uop_places[2, 0] & m.uop_places[2, 1] if with_weights else 0
        run = count - 1
        joins = count > 0 and runs[run, RUN_WGT] == w
        if joins and runs[run, RUN_LENGTH] > 1:
            joins = d - last_d == runs[run, RUN_DST_STEP] and s - last_s == runs[run, RUN_SRC_STEP]
        if not joins:
            run = count
            count += 1
            runs[run, RUN_DST] = d
            runs[run, RUN_SRC] = s
            runs[run, RUN_WGT] = w
            runs[run, RUN_LENGTH] = 0
            last_d = d
            last_s = s
        runs[run, RUN_DST_STEP] = d - last_d
        runs[run, RUN_SRC_STEP] = s - last_s
        runs[run, RUN_LENGTH] += 1
        last_d = d
        last_s = s
    return count


@inner
def _mark_written(m: Machine, fields: NDArray[np.int64], runs: int, clear: bool) -> None:
    """OUT follows ACC again at every dst of the nest; with `clear`, both become zero (VTA spec 11.6)."""
    n_out = fields[ITER_OUT] if fields[DST_OUT] != 0 else 1
    n_in = fields[ITER_IN] if fields[DST_IN] != 0 else 1
    for run in range(runs):
        base, length, step = m.runs[run, RUN_DST], m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP]
        # Consecutive runs of a reduction differ in src and wgt alone.
        if run > 0:
            before = run - 1
            same = base == m.runs[before, RUN_DST] and length == m.runs[before, RUN_LENGTH]
            if same and step == m.runs[before, RUN_DST_STEP]:
                continue
        for o in range(n_out):
            for i in range(n_in):
                d = base + o * fields[DST_OUT] + i * fields[DST_IN]
                for _ in range(length):
                    m.parted[d] = 0
                    if clear:
                        for k in range(d * m.acc_tile, (d + 1) * m.acc_tile):
                            m.acc[k] = 0
                    d += step


@inner
def _all_differ(m: Machine, fields: NDArray[np.int64], runs: int) -> bool:
    """Whether no two steps of the nest have the same dst; leaves `m.parted` to be cleared by `_mark_written`."""
    differ = True
    for run in range(runs):
        for o in range(fields[ITER_OUT]):
            for i in range(fields[ITER_IN]):
                d = m.runs[run, RUN_DST] + o * fields[DST_OUT] + i * fields[DST_IN]
                for _ in range(m.runs[run, RUN_LENGTH]):
                    differ = differ and m.parted[d] != _SEEN
                    m.parted[d] = _SEEN
                    d += m.runs[run, RUN_DST_STEP]
    return differ


@inner
def execute(m: Machine, fields: NDArray[np.int64], is_alu: bool, overwrites: bool, fault: NDArray[np.int64]) -> int:
    """Execute one GEMM or ALU instruction; return a `Code`, with `fault` filled if it is not DONE.

    An empty loop makes the instruction do nothing (VTA spec 11.8). A reset reads neither src nor wgt, an immediate
    ALU instruction no src, and so they may hold anything. A GEMM that overwrites knows no reset.
    """
    if is_alu and fields[ALU_OPCODE] > m.last_alu_opcode:
        fault[FAULT_VALUE] = fields[ALU_OPCODE]
        return _UNKNOWN_ALU
    if fields[UOP_BGN] >= fields[UOP_END] or fields[ITER_OUT] == 0 or fields[ITER_IN] == 0:
        return _DONE
    if fields[UOP_END] > m.depths[_UOP]:
        fault[FAULT_VALUE] = fields[UOP_END]
        fault[FAULT_LIMIT] = m.depths[_UOP]
        return _UOP_RANGE
    reset = not is_alu and not overwrites and fields[RESET] != 0
    if is_alu:
        operands = 1 if alu.takes_immediate(fields) else 2
    else:
        operands = 1 if reset else 3
    status = _check(m, fields, is_alu, operands, fault)
    if status != _DONE:
        return status
    runs = _group(m, fields[UOP_BGN], fields[UOP_END], operands == 3)
    # Where no accumulator is written twice, to overwrite is to reset and to add.
    at_once = overwrites and _all_differ(m, fields, runs)
    _mark_written(m, fields, runs, reset or at_once)
    if is_alu:
        alu.run_all(m, fields, runs)
    elif overwrites and not at_once:
        gemm.overwrite_all(m, fields, runs)
    elif not reset:
        gemm.run_all(m, fields, runs)
    return _DONE
