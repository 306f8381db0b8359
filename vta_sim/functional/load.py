"""LOAD (VTA spec 3.2): rows of elements from memory into a scratchpad, with padding around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType
from vta_sim._jit import inner
from vta_sim.functional.columns import (
    FAULT_LIMIT,
    FAULT_VALUE,
    MEMORY_TYPE,
    SRAM_BASE,
    X_PAD_0,
    X_PAD_1,
    X_SIZE,
    X_STRIDE,
    Y_PAD_0,
    Y_PAD_1,
    Y_SIZE,
    Code,
)
from vta_sim.functional.packing import unpack
from vta_sim.functional.state import WIDE_LANES, Machine
from vta_sim.functional.vector import make_transpose
from vta_sim.pages import PageTable, read_bytes

_wide_transpose = make_transpose(WIDE_LANES)
_narrow_transpose = make_transpose(WIDE_LANES // 2)

_UOP, _WGT, _INP = int(MemoryType.UOP), int(MemoryType.WGT), int(MemoryType.INP)
_ACC, _OUT, _ACC_8BIT = int(MemoryType.ACC), int(MemoryType.OUT), int(MemoryType.ACC_8BIT)
_ACC_PAD_MIN, _ACC_8BIT_PAD_MIN = int(MemoryType.ACC_PAD_MIN), int(MemoryType.ACC_8BIT_PAD_MIN)
_DONE, _LOAD_RANGE, _UNKNOWN_LOAD = int(Code.DONE), int(Code.LOAD_RANGE), int(Code.UNKNOWN_LOAD)


@inner
def _part_from_out(m: Machine, first: int, count: int) -> None:
    """Keep OUT of the accumulators that a LOAD is about to overwrite: it does not reach OUT (VTA spec 3.6)."""
    for d in range(first, first + count):
        if m.parted[d] == 0:
            m.parted[d] = 1
            for k in range(d * m.acc_tile, (d + 1) * m.acc_tile):
                m.out[k] = m.acc[k]


@inner
def _pad(m: Machine, kind: int, first: int, count: int, value: int) -> None:
    """Fill `count` elements of a scratchpad: accumulators with `value`, everything else with zero."""
    if kind == _UOP:
        for k in range(first, first + count):
            m.uop[k] = 0
    elif kind == _INP:
        size = m.batch * m.inp_row
        for k in range(first * size, (first + count) * size):
            m.inp[k] = 0
    elif kind == _WGT:
        size = m.acc_row * m.inp_row
        for k in range(first * size, (first + count) * size):
            m.wgt[k] = 0
    else:
        for k in range(first * m.acc_tile, (first + count) * m.acc_tile):
            m.acc[k] = value


@inner
def _place_inp(m: Machine, first: int, count: int) -> None:
    """Put `count` input tiles from `m.scalars` into place."""
    for row in range(count * m.batch):
        source = row * m.block_in
        target = first * m.batch * m.inp_row + row * m.inp_row
        for k in range(m.block_in):
            m.inp[target + k] = m.scalars[source + k]


@inner
def _place_wgt(m: Machine, first: int, count: int) -> None:
    """Put `count` weight tiles from `m.scalars` into place, transposed to [group][pair][lane] (see `Machine`)."""
    pairs = m.block_in // 2
    target = first * m.acc_row * m.inp_row // 2
    if m.acc_row == m.block_out and m.inp_row == m.block_in:
        for row in range(0, count * m.block_out, m.lanes):
            for pair in range(0, pairs, m.lanes // 2):
                if m.lanes == WIDE_LANES:
                    _wide_transpose(m.scalar_pairs, row * pairs + pair, pairs, m.wgt_pairs, target)
                else:
                    _narrow_transpose(m.scalar_pairs, row * pairs + pair, pairs, m.wgt_pairs, target)
                target += m.lanes * m.lanes // 2
        return
    for tile in range(count):
        for channel in range(m.block_out):
            group = channel // m.lanes * m.lanes
            for pair in range(pairs):
                value = m.scalar_pairs[(tile * m.block_out + channel) * pairs + pair]
                m.wgt_pairs[target + group * m.inp_row // 2 + pair * m.lanes + channel % m.lanes] = value
        target += m.acc_row * m.inp_row // 2


@inner
def _place_acc(m: Machine, first: int, count: int, narrow: bool) -> None:
    """Put `count` accumulator tiles from the buffer into place; `narrow` ones are int8 and sign-extended."""
    for row in range(count * m.batch):
        source = row * m.block_out
        target = (first + row // m.batch) * m.acc_tile + row % m.batch * m.acc_row
        if narrow:
            for k in range(m.block_out):
                m.acc[target + k] = np.int8(m.buffer[source + k])
        else:
            for k in range(4 * m.block_out):
                m.acc_bytes[4 * target + k] = m.buffer[4 * source + k]


@inner
def _load_row(m: Machine, table: PageTable, kind: int, first: int, address: int, count: int) -> None:
    """Load `count` neighbouring elements, as many at a time as the buffer holds."""
    size = m.elem_bytes[kind]
    # Micro-ops and unpadded accumulators lie in memory as they do here.
    direct = kind == _UOP or (kind == _ACC and m.acc_tile == m.batch * m.block_out)
    most = count if direct else m.buffer.size // size
    done = 0
    while done < count:
        step = min(most, count - done)
        target = m.buffer if not direct else m.uop_bytes if kind == _UOP else m.acc_bytes
        read_bytes(table, address + done * size, target, first * size if direct else 0, step * size)
        if kind == _INP or kind == _WGT:
            bits = m.inp_bits if kind == _INP else m.wgt_bits
            unpack(m.buffer, bits, step * size * 8 // bits, m.scalars)
        if kind == _INP:
            _place_inp(m, first + done, step)
        elif kind == _WGT:
            _place_wgt(m, first + done, step)
        elif not direct:
            _place_acc(m, first + done, step, kind == _ACC_8BIT)
        done += step


@inner
def execute(m: Machine, table: PageTable, fields: NDArray[np.int64], address: int, fault: NDArray[np.int64]) -> int:
    """Execute one LOAD from byte `address` on; return a `Code`, with `fault` filled if it is not DONE.

    With x_size = 0, or with neither rows nor row pads, nothing happens at all (VTA spec 11.7).
    """
    kind = fields[MEMORY_TYPE]
    columns, rows = fields[X_SIZE], fields[Y_SIZE]
    width = fields[X_PAD_0] + columns + fields[X_PAD_1]
    elements = width * (fields[Y_PAD_0] + rows + fields[Y_PAD_1])
    if columns == 0 or elements == 0:
        return _DONE
    if kind == _OUT or kind > m.last_memory_type:
        fault[FAULT_VALUE] = kind
        return _UNKNOWN_LOAD
    first = fields[SRAM_BASE]
    if first + elements > m.depths[kind]:
        fault[FAULT_VALUE] = first + elements
        fault[FAULT_LIMIT] = m.depths[kind]
        return _LOAD_RANGE
    padding = 0
    if kind == _ACC_PAD_MIN:
        kind, padding = _ACC, -(1 << 31)
    elif kind == _ACC_8BIT_PAD_MIN:
        kind, padding = _ACC_8BIT, -(1 << 7)
    if kind == _ACC or kind == _ACC_8BIT:
        _part_from_out(m, first, elements)
    if elements != rows * columns:
        _pad(m, kind, first, elements, padding)
    first += fields[Y_PAD_0] * width + fields[X_PAD_0]
    for y in range(rows):
        _load_row(m, table, kind, first + y * width, address + y * fields[X_STRIDE] * m.elem_bytes[kind], columns)
    return _DONE
