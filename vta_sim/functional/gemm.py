"""GEMM (VTA spec 3.4).

Sums modulo 2**32 do not depend on their order, and a GEMM reads no accumulator but the one it adds to. So the steps
of one instruction may be taken in any order, and are taken such that one weight tile serves as many as possible.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner
from vta_sim.functional.columns import (
    DST_IN,
    DST_OUT,
    ITER_IN,
    ITER_OUT,
    RESET,
    SRC_IN,
    SRC_OUT,
    UOP_BGN,
    UOP_END,
    WGT_IN,
    WGT_OUT,
    Code,
)
from vta_sim.functional.nest import (
    RUN_DST,
    RUN_DST_STEP,
    RUN_LENGTH,
    RUN_SRC,
    RUN_SRC_STEP,
    RUN_WGT,
    check_operand,
    group_uops,
    trip_count,
)
from vta_sim.functional.state import Machine
from vta_sim.functional.vector import make_panel

_panel_16 = make_panel(16, 8)
_panel_8 = make_panel(8, 4)
_panel_4 = make_panel(4, 2)

_ACC_DST = int(Code.ACC_DST_RANGE)
_INP = int(Code.INP_RANGE)
_WGT = int(Code.WGT_RANGE)


@inner
def _multiply(
    m: Machine, d: int, s: int, w: int,
    n2: int, d2: int, s2: int, n1: int, d1: int, s1: int, n0: int, d0: int, s0: int,
) -> None:  # fmt: skip
    """Add input tile times weight tile `w` for three nested loops over tiles; all numbers in tiles."""
    inp_tile = m.batch * m.inp_row
    block = 2 * m.pairs
    w_at = w * m.acc_row * m.inp_row
    for group in range(0, m.acc_row, m.lanes):
        for part in range(0, m.inp_row, block):
            for row in range(m.batch):
                a = d * m.acc_tile + row * m.acc_row + group
                i = s * inp_tile + row * m.inp_row + part
                if m.lanes == 16:
                    _panel_16(
                        m.acc, m.inp, m.wgt, a, i, w_at, n2, d2 * m.acc_tile, s2 * inp_tile,
                        n1, d1 * m.acc_tile, s1 * inp_tile, n0, d0 * m.acc_tile, s0 * inp_tile,
                    )  # fmt: skip
                elif m.lanes == 8:
                    _panel_8(
                        m.acc, m.inp, m.wgt, a, i, w_at, n2, d2 * m.acc_tile, s2 * inp_tile,
                        n1, d1 * m.acc_tile, s1 * inp_tile, n0, d0 * m.acc_tile, s0 * inp_tile,
                    )  # fmt: skip
                else:
                    _panel_4(
                        m.acc, m.inp, m.wgt, a, i, w_at, n2, d2 * m.acc_tile, s2 * inp_tile,
                        n1, d1 * m.acc_tile, s1 * inp_tile, n0, d0 * m.acc_tile, s0 * inp_tile,
                    )  # fmt: skip
            w_at += m.lanes * block


@inner
def _run_all(m: Machine, fields: NDArray[np.int64], runs: int) -> None:
    """Execute all steps; a loop in which the weight index stands still moves inside the weight tile's use."""
    n_out, n_in = fields[ITER_OUT], fields[ITER_IN]
    d_out, d_in, s_out, s_in = fields[DST_OUT], fields[DST_IN], fields[SRC_OUT], fields[SRC_IN]
    w_out, w_in = fields[WGT_OUT], fields[WGT_IN]
    outside_out, inside_out = (1, n_out) if w_out == 0 else (n_out, 1)
    outside_in, inside_in = (1, n_in) if w_in == 0 else (n_in, 1)
    for o in range(outside_out):
        for i in range(outside_in):
            for run in range(runs):
                d = m.runs[run, RUN_DST] + o * d_out + i * d_in
                s = m.runs[run, RUN_SRC] + o * s_out + i * s_in
                w = m.runs[run, RUN_WGT] + o * w_out + i * w_in
                n0, d0, s0 = m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP], m.runs[run, RUN_SRC_STEP]
                n1, d1, s1 = inside_in, d_in, s_in
                n2, d2, s2 = inside_out, d_out, s_out
                # The innermost loop of the kernel is the cheapest: let it be one that turns.
                if n0 == 1:
                    n0, d0, s0, n1, d1, s1 = n1, d1, s1, n0, d0, s0
                if n0 == 1:
                    n0, d0, s0, n2, d2, s2 = n2, d2, s2, n0, d0, s0
                _multiply(m, d, s, w, n2, d2, s2, n1, d1, s1, n0, d0, s0)


@inner
def mark_written(m: Machine, fields: NDArray[np.int64], runs: int, clear: bool) -> None:
    """OUT follows ACC again at every dst of the nest; with `clear`, both become zero (VTA spec 11.6)."""
    n_out = fields[ITER_OUT] if fields[DST_OUT] != 0 else 1
    n_in = fields[ITER_IN] if fields[DST_IN] != 0 else 1
    for run in range(runs):
        base, length, step = m.runs[run, RUN_DST], m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP]
        if (
            run > 0
            and base == m.runs[run - 1, RUN_DST]
            and length == m.runs[run - 1, RUN_LENGTH]
            and step == m.runs[run - 1, RUN_DST_STEP]
        ):
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
def execute(m: Machine, fields: NDArray[np.int64], fault: NDArray[np.int64]) -> int:
    """Execute one GEMM; return the micro-ops that multiply (0 for a reset), or -1 with `fault` filled."""
    steps = trip_count(m, fields, fault)
    if steps <= 0:
        return steps
    if check_operand(m, fields, fault, 0, m.dst_mask, DST_OUT, m.acc_depth, _ACC_DST) < 0:
        return -1
    reset = fields[RESET] != 0
    if not reset:
        if check_operand(m, fields, fault, m.src_lsb, m.src_mask, SRC_OUT, m.inp_depth, _INP) < 0:
            return -1
        if check_operand(m, fields, fault, m.wgt_lsb, m.wgt_mask, WGT_OUT, m.wgt_depth, _WGT) < 0:
            return -1
    runs = group_uops(m, fields[UOP_BGN], fields[UOP_END], not reset)
    mark_written(m, fields, runs, reset)
    if reset:
        return 0
    _run_all(m, fields, runs)
    return steps
