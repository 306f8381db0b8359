"""Which micro-ops and accumulators an instruction touches (vta_hw/rtl/ranges.py), and how they are found
(`Scanner` of vta_hw/rtl/scan.py)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, MemoryType, Opcode
from vta_sim._jit import inner
from vta_sim.cycle.records import array
from vta_sim.cycle.wires import Parameters
from vta_sim.functional.columns import (
    ALU_OPCODE,
    DST_IN,
    DST_OUT,
    ITER_IN,
    ITER_OUT,
    MEMORY_TYPE,
    SRAM_BASE,
    SRC_IN,
    SRC_OUT,
    UOP_BGN,
    UOP_END,
    USE_IMM,
    X_PAD_0,
    X_PAD_1,
    X_SIZE,
    Y_PAD_0,
    Y_PAD_1,
    Y_SIZE,
)

RANGES: Final = 10
_UOP, _DST, _SRC, _UOP_WRITE = 0, 3, 6, 9
"""Places in an array of ranges: valid, first, last of each interval; whether micro-ops are written."""

_UOP_TYPE, _ALU, _REQUANT = int(MemoryType.UOP), int(Opcode.ALU), int(AluOp.REQUANT)


class Scanner:
    """Registers of the scanner.

    lines: of micro-ops that have yet to arrive; shifts: cycles until the products are there. found: the ranges.
    """

    lines: int
    shifts: int
    found: NDArray[np.int64] = array(RANGES)


@inner
def writes_uops(ranges: NDArray[np.int64]) -> bool:
    """Whether micro-ops are written."""
    return bool(ranges[_UOP_WRITE] != 0)


@inner
def is_done(s: Scanner) -> bool:
    """Whether the ranges are there."""
    return s.lines == 0 and s.shifts == 0


@inner
def clash(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Whether the order of two instructions matters."""
    in_acc = _overlap(a, _DST, b, _DST) or _overlap(a, _DST, b, _SRC) or _overlap(a, _SRC, b, _DST)
    return in_acc or ((a[_UOP_WRITE] != 0 or b[_UOP_WRITE] != 0) and _overlap(a, _UOP, b, _UOP))


@inner
def _overlap(a: NDArray[np.int64], i: int, b: NDArray[np.int64], j: int) -> bool:
    return bool(a[i] != 0 and b[j] != 0 and a[i + 1] <= b[j + 2] and b[j + 1] <= a[i + 2])


@inner
def step(s: Scanner) -> bool:
    """One clock edge; whether anything changed."""
    moved = s.lines != 0 or s.shifts != 0
    s.lines = max(s.lines - 1, 0)
    s.shifts = max(s.shifts - 1, 0)
    return moved


@inner
def start(
    s: Scanner, uops: NDArray[np.uint32], p: Parameters, is_load: bool, opcode: int, fields: NDArray[np.int64]
) -> None:
    """Take an instruction, at the end of the cycle; its micro-ops do not change before they have arrived."""
    found = s.found
    for place in range(RANGES):
        found[place] = 0
    if is_load:
        height = fields[Y_PAD_0] + fields[Y_SIZE] + fields[Y_PAD_1]
        elements = height * (fields[X_PAD_0] + fields[X_SIZE] + fields[X_PAD_1])
        first = fields[SRAM_BASE]
        is_uop = fields[MEMORY_TYPE] == _UOP_TYPE
        found[_UOP_WRITE] = int(is_uop)
        interval, mask = (_UOP, uops.size - 1) if is_uop else (_DST, p.acc_mask)
        _cover(found, interval, elements != 0, first, first + elements - 1, mask)
        s.lines = 1
        s.shifts = _bits(height)
        return
    outer, inside = fields[ITER_OUT] - 1, fields[ITER_IN] - 1
    is_alu = opcode == _ALU
    pair = int(is_alu and fields[ALU_OPCODE] == _REQUANT)
    low_dst, high_dst = p.uop_places[0, 1], 0
    low_src, high_src = p.uop_places[1, 1], 0
    begin, end = fields[UOP_BGN], fields[UOP_END]
    for index in range(begin, end):
        word = np.int64(uops[index & uops.size - 1])
        dst, src = word >> p.uop_places[0, 0] & p.uop_places[0, 1], word >> p.uop_places[1, 0] & p.uop_places[1, 1]
        low_dst, high_dst = min(low_dst, dst), max(high_dst, dst)
        low_src, high_src = min(low_src, src), max(high_src, src)
    high_dst += outer * fields[DST_OUT] + inside * fields[DST_IN]
    high_src += outer * fields[SRC_OUT] + inside * fields[SRC_IN]
    _cover(found, _DST, True, low_dst, high_dst, p.acc_mask)
    two = is_alu and (fields[USE_IMM] == 0 or pair != 0)
    _cover(found, _SRC, two, low_src & ~pair, high_src | pair, p.acc_mask)
    found[_UOP] = 1
    found[_UOP + 1], found[_UOP + 2] = begin, end - 1 & uops.size - 1
    if end > uops.size:
        found[_UOP + 1], found[_UOP + 2] = 0, uops.size - 1
    s.lines = max(-(-end // p.uop_banks) - begin // p.uop_banks, 1)
    s.shifts = _bits(max(outer, inside))


@inner
def _cover(found: NDArray[np.int64], interval: int, valid: bool, first: int, last: int, mask: int) -> None:
    """Set an interval; beyond the scratchpad indices wrap, so that it is all of it."""
    found[interval] = int(valid)
    found[interval + 1], found[interval + 2] = first & mask, last
    if last > mask:
        found[interval + 1], found[interval + 2] = 0, mask


@inner
def _bits(value: int) -> int:
    bits = 0
    while value >> bits:
        bits += 1
    return bits
