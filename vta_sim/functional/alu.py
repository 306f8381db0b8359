"""The steps of an ALU instruction (VTA spec 3.5, 11.3, 11.4; decision 0006 for REQUANT).

They read ACC, and so are taken strictly in the order of the nest.
"""

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
)
from vta_sim.functional.state import RUN_DST, RUN_DST_STEP, RUN_LENGTH, RUN_SRC, RUN_SRC_STEP, Machine
from vta_sim.functional.vector import VECTOR_LANES, make_elementwise, make_requantise

_minimum = make_elementwise(AluOp.MIN)
_maximum = make_elementwise(AluOp.MAX)
_add = make_elementwise(AluOp.ADD)
_shift = make_elementwise(AluOp.SHR)
_times = make_elementwise(AluOp.MUL)
_requantise = make_requantise()

_MIN, _MAX, _ADD, _SHR = int(AluOp.MIN), int(AluOp.MAX), int(AluOp.ADD), int(AluOp.SHR)
_REQUANT = int(AluOp.REQUANT)


@inner
def takes_immediate(fields: NDArray[np.int64]) -> bool:
    """Whether the second operand is the immediate; a REQUANT has its own use for it."""
    return bool(fields[USE_IMM] != 0 and fields[ALU_OPCODE] != _REQUANT)


@inner
def _requantise_tiles(m: Machine, imm: int, d: int, s: int, tiles: int, d_step: int, s_step: int) -> None:
    """Requantise `tiles` tiles in turn; bias and parameters are the even tile at or below `s` and the one after it."""
    lowest, highest = -(1 << m.out_bits - 1), (1 << m.out_bits - 1) - 1
    zero_point = (imm & 0x7FFF) - ((imm & 0x4000) << 1)
    low = min(max(zero_point, lowest), highest) if imm >> 15 & 1 else lowest
    vectors = m.acc_tile // VECTOR_LANES
    for tile in range(tiles):
        bias = (s + tile * s_step >> 1 << 1) * m.acc_tile
        target = (d + tile * d_step) * m.acc_tile
        _requantise(m.acc, target, bias, bias + m.acc_tile, vectors, zero_point, low, highest)


@inner
def _operate(m: Machine, opcode: int, d: int, s: int, tiles: int, d_step: int, s_step: int) -> None:
    """acc[d] = op(acc[d], acc[s]) for `tiles` tiles in turn; indices and steps count tiles."""
    d, s, d_step, s_step = d * m.acc_tile, s * m.acc_tile, d_step * m.acc_tile, s_step * m.acc_tile
    vectors = m.acc_tile // VECTOR_LANES
    if opcode == _MIN:
        _minimum(m.acc, d, s, tiles, d_step, s_step, vectors)
    elif opcode == _MAX:
        _maximum(m.acc, d, s, tiles, d_step, s_step, vectors)
    elif opcode == _ADD:
        _add(m.acc, d, s, tiles, d_step, s_step, vectors)
    elif opcode == _SHR:
        _shift(m.acc, d, s, tiles, d_step, s_step, vectors)
    else:
        _times(m.acc, d, s, tiles, d_step, s_step, vectors)


@inner
def run_all(m: Machine, fields: NDArray[np.int64], runs: int) -> None:
    """Execute all steps; `m.runs` holds the micro-ops."""
    n_in = fields[ITER_IN]
    immediate = takes_immediate(fields)
    if immediate:
        # The immediate becomes a tile behind the last accumulator: one kernel serves both kinds of operand.
        value = np.int16(fields[IMM])
        for k in range(m.acc.size - m.acc_tile, m.acc.size):
            m.acc[k] = value
    single = fields[UOP_END] - fields[UOP_BGN] == 1
    for o in range(fields[ITER_OUT]):
        for i in range(1 if single else n_in):
            for run in range(runs):
                d = m.runs[run, RUN_DST] + o * fields[DST_OUT] + i * fields[DST_IN]
                s = m.runs[run, RUN_SRC] + o * fields[SRC_OUT] + i * fields[SRC_IN]
                tiles, d_step, s_step = m.runs[run, RUN_LENGTH], m.runs[run, RUN_DST_STEP], m.runs[run, RUN_SRC_STEP]
                if single:
                    tiles, d_step, s_step = n_in, fields[DST_IN], fields[SRC_IN]
                if immediate:
                    s, s_step = m.acc.size // m.acc_tile - 1, 0
                if fields[ALU_OPCODE] == _REQUANT:
                    _requantise_tiles(m, fields[IMM], d, s, tiles, d_step, s_step)
                else:
                    _operate(m, fields[ALU_OPCODE], d, s, tiles, d_step, s_step)


@inner
def source_differs(m: Machine, fields: NDArray[np.int64]) -> bool:
    """Whether an immediate instruction names a src that is not its dst, which only matters on Chisel (VTA spec 3.5)."""
    if not takes_immediate(fields) or fields[ITER_OUT] == 0 or fields[ITER_IN] == 0:
        return False
    differs = bool(fields[SRC_OUT] != fields[DST_OUT] or fields[SRC_IN] != fields[DST_IN])
    for index in range(fields[UOP_BGN], fields[UOP_END]):
        word = np.int64(m.uop[index])
        source = word >> m.uop_places[1, 0] & m.uop_places[1, 1]
        differs = differs or bool(source != (word >> m.uop_places[0, 0] & m.uop_places[0, 1]))
    return differs
