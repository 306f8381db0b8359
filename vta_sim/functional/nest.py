"""What GEMM and ALU share: range checks of the two-level loop nest, and grouping of its micro-ops.

Every index is affine in the loop counters with factors that are not negative, so the largest index of a micro-op is
the one of the last trip: one check for each micro-op replaces one for each step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner
from vta_sim.functional.columns import (
    FAULT_CODE,
    FAULT_LIMIT,
    FAULT_UOP,
    FAULT_VALUE,
    ITER_IN,
    ITER_OUT,
    UOP_BGN,
    UOP_END,
    Code,
)
from vta_sim.functional.state import Machine

RUN_DST, RUN_SRC, RUN_WGT, RUN_LENGTH, RUN_DST_STEP, RUN_SRC_STEP = range(6)
"""Columns of `Machine.runs`: consecutive micro-ops with one weight tile and constant steps of dst and src."""

_UOP_RANGE = int(Code.UOP_RANGE)


@inner
def fail(fault: NDArray[np.int64], code: int, value: int, limit: int, uop: int) -> int:
    """Describe a failure; return -1."""
    fault[FAULT_CODE] = code
    fault[FAULT_VALUE] = value
    fault[FAULT_LIMIT] = limit
    fault[FAULT_UOP] = uop
    return -1


@inner
def trip_count(machine: Machine, fields: NDArray[np.int64], fault: NDArray[np.int64]) -> int:
    """Return the micro-ops the nest executes, 0 if a loop is empty (VTA spec 11.8), -1 if uop_end is out of range."""
    uops = fields[UOP_END] - fields[UOP_BGN]
    if uops <= 0 or fields[ITER_OUT] == 0 or fields[ITER_IN] == 0:
        return 0
    if fields[UOP_END] > machine.uop_depth:
        return fail(fault, _UOP_RANGE, fields[UOP_END], machine.uop_depth, 0)
    return uops * fields[ITER_OUT] * fields[ITER_IN]


@inner
def check_operand(
    machine: Machine,
    fields: NDArray[np.int64],
    fault: NDArray[np.int64],
    lsb: int,
    mask: int,
    factors: int,
    depth: int,
    code: int,
) -> int:
    """Check one operand of every micro-op against its scratchpad; return 0, or -1 naming the first that leaves it.

    `lsb` and `mask` are the operand's place in the micro-op, `factors` the field number of its outer factor.
    """
    span = (fields[ITER_OUT] - 1) * fields[factors] + (fields[ITER_IN] - 1) * fields[factors + 1]
    for index in range(fields[UOP_BGN], fields[UOP_END]):
        last = ((np.int64(machine.uop[index]) >> lsb) & mask) + span
        if last >= depth:
            return fail(fault, code, last, depth, index)
    return 0


@inner
def group_uops(machine: Machine, begin: int, end: int, with_weights: bool) -> int:
    """Fill `machine.runs` from the micro-ops begin..end-1, in their order; return the number of runs."""
    runs = machine.runs
    count = 0
    last_d = 0
    last_s = 0
    for index in range(begin, end):
        word = np.int64(machine.uop[index])
        d = word & machine.dst_mask
        s = (word >> machine.src_lsb) & machine.src_mask
        w = (word >> machine.wgt_lsb) & machine.wgt_mask if with_weights else 0
        run = count - 1
        joins = count > 0 and runs[run, RUN_WGT] == w
        if joins and runs[run, RUN_LENGTH] > 1:
            joins = d - last_d == runs[run, RUN_DST_STEP] and s - last_s == runs[run, RUN_SRC_STEP]
        if joins:
            runs[run, RUN_DST_STEP] = d - last_d
            runs[run, RUN_SRC_STEP] = s - last_s
            runs[run, RUN_LENGTH] += 1
        else:
            runs[count, RUN_DST] = d
            runs[count, RUN_SRC] = s
            runs[count, RUN_WGT] = w
            runs[count, RUN_LENGTH] = 1
            runs[count, RUN_DST_STEP] = 0
            runs[count, RUN_SRC_STEP] = 0
            count += 1
        last_d = d
        last_s = s
    return count
