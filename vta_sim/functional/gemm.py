"""The steps of a GEMM (VTA spec 3.4), and of a GEMM that overwrites.

Sums modulo 2**32 do not depend on their order, and a GEMM reads no accumulator but the one it adds to. So the steps
of one instruction may be taken in any order, and are taken such that one weight tile serves as many as possible.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner
from vta_sim.functional.columns import DST_IN, DST_OUT, ITER_IN, ITER_OUT, SRC_IN, SRC_OUT, WGT_IN, WGT_OUT
from vta_sim.functional.state import (
    RUN_DST,
    RUN_DST_STEP,
    RUN_LENGTH,
    RUN_SRC,
    RUN_SRC_STEP,
    RUN_WGT,
    WIDE_LANES,
    Machine,
)
from vta_sim.functional.vector import make_panel

_wide_panel = make_panel(WIDE_LANES, WIDE_LANES // 2)
_narrow_panel = make_panel(WIDE_LANES // 2, WIDE_LANES // 4)


@inner
def _multiply(
    m: Machine, d: int, s: int, w: int,
    n2: int, d2: int, s2: int, n1: int, d1: int, s1: int, n0: int, d0: int, s0: int,
) -> None:  # fmt: skip
    """Add input tiles times weight tile `w` for three nested loops over tiles; all numbers count tiles."""
    inp_tile = m.batch * m.inp_row
    d0, d1, d2 = d0 * m.acc_tile, d1 * m.acc_tile, d2 * m.acc_tile
    s0, s1, s2 = s0 * inp_tile, s1 * inp_tile, s2 * inp_tile
    weights = w * m.acc_row * m.inp_row
    for group in range(0, m.acc_row, m.lanes):
        for part in range(0, m.inp_row, m.lanes):
            for row in range(m.batch):
                a = d * m.acc_tile + row * m.acc_row + group
                i = s * inp_tile + row * m.inp_row + part
                if m.lanes == WIDE_LANES:
                    _wide_panel(m.acc, m.inp, m.wgt, a, i, weights, n2, d2, s2, n1, d1, s1, n0, d0, s0)
                else:
                    _narrow_panel(m.acc, m.inp, m.wgt, a, i, weights, n2, d2, s2, n1, d1, s1, n0, d0, s0)
            weights += m.lanes * m.lanes


@inner
def overwrite_all(m: Machine, fields: NDArray[np.int64], runs: int) -> None:
    """Execute all steps of a GEMM_OVERWRITE in their order: the last one that names an accumulator wins."""
    for o in range(fields[ITER_OUT]):
        for i in range(fields[ITER_IN]):
            for run in range(runs):
                d = m.runs[run, RUN_DST] + o * fields[DST_OUT] + i * fields[DST_IN]
                s = m.runs[run, RUN_SRC] + o * fields[SRC_OUT] + i * fields[SRC_IN]
                w = m.runs[run, RUN_WGT] + o * fields[WGT_OUT] + i * fields[WGT_IN]
                for _ in range(m.runs[run, RUN_LENGTH]):
                    for k in range(d * m.acc_tile, (d + 1) * m.acc_tile):
                        m.acc[k] = 0
                    _multiply(m, d, s, w, 1, 0, 0, 1, 0, 0, 1, 0, 0)
                    d += m.runs[run, RUN_DST_STEP]
                    s += m.runs[run, RUN_SRC_STEP]


@inner
def run_all(m: Machine, fields: NDArray[np.int64], runs: int) -> None:
    """Execute all steps; a loop in which the weight index stands still is moved into the use of the weight tile."""
    n_out, n_in = fields[ITER_OUT], fields[ITER_IN]
    w_out, w_in = fields[WGT_OUT], fields[WGT_IN]
    outside_out, inside_out = (1, n_out) if w_out == 0 else (n_out, 1)
    outside_in, inside_in = (1, n_in) if w_in == 0 else (n_in, 1)
    for o in range(outside_out):
        for i in range(outside_in):
            for run in range(runs):
                d = m.runs[run, RUN_DST] + o * fields[DST_OUT] + i * fields[DST_IN]
                s = m.runs[run, RUN_SRC] + o * fields[SRC_OUT] + i * fields[SRC_IN]
                w = m.runs[run, RUN_WGT] + o * w_out + i * w_in
                n0, d0, s0 = m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP], m.runs[run, RUN_SRC_STEP]
                n1, d1, s1 = inside_in, fields[DST_IN], fields[SRC_IN]
                n2, d2, s2 = inside_out, fields[DST_OUT], fields[SRC_OUT]
                # The innermost loop of the kernel is the cheapest: let it be one that turns.
                if n0 == 1:
                    n0, d0, s0, n1, d1, s1 = n1, d1, s1, n0, d0, s0
                if n0 == 1:
                    n0, d0, s0, n2, d2, s2 = n2, d2, s2, n0, d0, s0
                _multiply(m, d, s, w, n2, d2, s2, n1, d1, s1, n0, d0, s0)
