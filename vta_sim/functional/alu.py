"""ALU (VTA spec 3.5, with the choices of 11.3 and 11.4): strictly in the order of the nest, for it reads what it wrote."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp
from vta_sim._jit import inner
from vta_sim.functional.columns import (
    ALU_OPCODE,
    DST_IN,
    DST_OUT,
    IMM,
    ITER_IN,
    ITER_OUT,
    SRC_IN,
    SRC_OUT,
    UOP_BGN,
    UOP_END,
    USE_IMM,
    Code,
)
from vta_sim.functional.gemm import mark_written
from vta_sim.functional.nest import (
    RUN_DST,
    RUN_DST_STEP,
    RUN_LENGTH,
    RUN_SRC,
    RUN_SRC_STEP,
    check_operand,
    fail,
    group_uops,
    trip_count,
)
from vta_sim.functional.state import Machine
from vta_sim.functional.vector import VECTOR_LANES, make_elementwise

_minimum = make_elementwise(AluOp.MIN)
_maximum = make_elementwise(AluOp.MAX)
_add = make_elementwise(AluOp.ADD)
_shift = make_elementwise(AluOp.SHR)
_times = make_elementwise(AluOp.MUL)

_MIN, _MAX, _ADD, _SHR = int(AluOp.MIN), int(AluOp.MAX), int(AluOp.ADD), int(AluOp.SHR)
_LAST_OPCODE = int(max(AluOp))
_UNKNOWN_ALU = int(Code.UNKNOWN_ALU)
_ACC_DST = int(Code.ACC_DST_RANGE)
_ACC_SRC = int(Code.ACC_SRC_RANGE)


@inner
def _operate(m: Machine, opcode: int, d: int, s: int, tiles: int, d_step: int, s_step: int) -> None:
    """acc[d] = op(acc[d], acc[s]) for `tiles` tiles in turn; indices and steps in tiles."""
    size = m.acc_tile
    vectors = size // VECTOR_LANES
    if opcode == _MIN:
        _minimum(m.acc, d * size, s * size, tiles, d_step * size, s_step * size, vectors)
    elif opcode == _MAX:
        _maximum(m.acc, d * size, s * size, tiles, d_step * size, s_step * size, vectors)
    elif opcode == _ADD:
        _add(m.acc, d * size, s * size, tiles, d_step * size, s_step * size, vectors)
    elif opcode == _SHR:
        _shift(m.acc, d * size, s * size, tiles, d_step * size, s_step * size, vectors)
    else:
        _times(m.acc, d * size, s * size, tiles, d_step * size, s_step * size, vectors)


@inner
def _run_all(m: Machine, fields: NDArray[np.int64], runs: int) -> None:
    opcode = fields[ALU_OPCODE]
    n_out, n_in = fields[ITER_OUT], fields[ITER_IN]
    d_out, d_in, s_out, s_in = fields[DST_OUT], fields[DST_IN], fields[SRC_OUT], fields[SRC_IN]
    immediate = fields[USE_IMM] != 0
    if immediate:
        # The immediate becomes a tile behind the last accumulator: one kernel serves both kinds of operand.
        m.acc[m.acc_depth * m.acc_tile :] = fields[IMM]
    single = fields[UOP_END] - fields[UOP_BGN] == 1
    for o in range(n_out):
        for i in range(1 if single else n_in):
            for run in range(runs):
                d = m.runs[run, RUN_DST] + o * d_out + i * d_in
                s = m.runs[run, RUN_SRC] + o * s_out + i * s_in
                tiles, d_step, s_step = m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP], m.runs[run, RUN_SRC_STEP]
                if single:
                    tiles, d_step, s_step = n_in, d_in, s_in
                if immediate:
                    s, s_step = m.acc_depth, 0
                _operate(m, opcode, d, s, tiles, d_step, s_step)


@inner
def execute(m: Machine, fields: NDArray[np.int64], fault: NDArray[np.int64]) -> int:
    """Execute one ALU instruction; return its micro-ops, or -1 with `fault` filled."""
    if fields[ALU_OPCODE] > _LAST_OPCODE:
        return fail(fault, _UNKNOWN_ALU, fields[ALU_OPCODE], _LAST_OPCODE, 0)
    steps = trip_count(m, fields, fault)
    if steps <= 0:
        return steps
    if check_operand(m, fields, fault, 0, m.dst_mask, DST_OUT, m.acc_depth, _ACC_DST) < 0:
        return -1
    if (
        fields[USE_IMM] == 0
        and check_operand(m, fields, fault, m.src_lsb, m.src_mask, SRC_OUT, m.acc_depth, _ACC_SRC) < 0
    ):
        return -1
    runs = group_uops(m, fields[UOP_BGN], fields[UOP_END], False)
    mark_written(m, fields, runs, False)
    _run_all(m, fields, runs)
    return steps
