"""LOAD (VTA spec 3.2): rows of elements from memory into a scratchpad, with zeros around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType
from vta_sim._jit import inner
from vta_sim.functional.columns import (
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
from vta_sim.functional.nest import fail
from vta_sim.functional.packing import unpack
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable, read_bytes

_UOP, _WGT, _INP = int(MemoryType.UOP), int(MemoryType.WGT), int(MemoryType.INP)
_ACC, _ACC_8BIT = int(MemoryType.ACC), int(MemoryType.ACC_8BIT)
_LOAD_RANGE = int(Code.LOAD_RANGE)
_UNKNOWN_LOAD = int(Code.UNKNOWN_LOAD)


@inner
def _part_from_out(m: Machine, first: int, count: int) -> None:
    """Keep OUT of some accumulators that a LOAD is about to overwrite: it does not reach OUT (VTA spec 3.6)."""
    for d in range(first, first + count):
        if m.parted[d] == 0:
            m.parted[d] = 1
            for k in range(d * m.acc_tile, (d + 1) * m.acc_tile):
                m.out[k] = m.acc[k]


@inner
def _zero(m: Machine, kind: int, first: int, count: int) -> None:
    """Zero `count` elements of a scratchpad."""
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
        _part_from_out(m, first, count)
        for k in range(first * m.acc_tile, (first + count) * m.acc_tile):
            m.acc[k] = 0


@inner
def _place_inp(m: Machine, first: int, count: int) -> None:
    """Put `count` input tiles from the buffer into place."""
    rows = count * m.batch
    if m.inp_row == m.block_in:
        unpack(m.buffer, m.inp_bits, rows * m.block_in, m.inp, first * m.batch * m.inp_row)
        return
    unpack(m.buffer, m.inp_bits, rows * m.block_in, m.scalars, 0)
    for row in range(rows):
        target = (first * m.batch + row) * m.inp_row
        for k in range(m.block_in):
            m.inp[target + k] = m.scalars[row * m.block_in + k]


@inner
def _place_wgt(m: Machine, first: int, count: int) -> None:
    """Put `count` weight tiles from the buffer into place, transposed to [group][pair][lane] (see `Machine`)."""
    unpack(m.buffer, m.wgt_bits, count * m.block_out * m.block_in, m.scalars, 0)
    pairs = m.block_in // 2
    row_pairs = m.inp_row // 2
    source = 0
    for tile in range(first, first + count):
        for channel in range(m.block_out):
            group, lane = channel // m.lanes, channel % m.lanes
            target = (tile * m.acc_row + group * m.lanes) * row_pairs + lane
            for pair in range(pairs):
                m.wgt_pairs[target + pair * m.lanes] = m.scalar_pairs[source + pair]
            source += pairs


@inner
def _place_acc(m: Machine, first: int, count: int, narrow: bool) -> None:
    """Put `count` accumulator tiles from the buffer into place; `narrow` ones are int8 and sign-extended."""
    source = 0
    for tile in range(first, first + count):
        for row in range(m.batch):
            target = tile * m.acc_tile + row * m.acc_row
            if narrow:
                for k in range(m.block_out):
                    m.acc[target + k] = np.int8(m.buffer[source + k])
                source += m.block_out
            else:
                for k in range(4 * m.block_out):
                    m.acc_bytes[4 * target + k] = m.buffer[source + k]
                source += 4 * m.block_out


@inner
def element_bytes(m: Machine, kind: int) -> int:
    """Bytes of one element in memory (VTA spec 3.1)."""
    if kind == _UOP:
        return 4
    if kind == _INP:
        return m.batch * m.block_in * m.inp_bits // 8
    if kind == _WGT:
        return m.block_out * m.block_in * m.wgt_bits // 8
    if kind == _ACC:
        return m.batch * m.block_out * 4
    if kind == _ACC_8BIT:
        return m.batch * m.block_out
    return m.batch * m.block_out * m.out_bits // 8


@inner
def counted_bytes(m: Machine, kind: int) -> int:
    """Bytes an element counts for in the statistics: ACC_8BIT at its width in the scratchpad (VTA spec 3.9)."""
    return element_bytes(m, _ACC) if kind == _ACC_8BIT else element_bytes(m, kind)


@inner
def _depth(m: Machine, kind: int) -> int:
    if kind == _UOP:
        return m.uop_depth
    if kind == _INP:
        return m.inp_depth
    return m.wgt_depth if kind == _WGT else m.acc_depth


@inner
def _load_row(m: Machine, table: PageTable, kind: int, first: int, address: int, count: int) -> None:
    """Load `count` neighbouring elements, as many at a time as the buffer holds."""
    size = element_bytes(m, kind)
    if kind == _UOP:
        read_bytes(table, address, m.uop_bytes, 4 * first, 4 * count)
        return
    if kind == _ACC or kind == _ACC_8BIT:
        _part_from_out(m, first, count)
        if kind == _ACC and m.acc_tile == m.batch * m.block_out:
            read_bytes(table, address, m.acc_bytes, first * size, count * size)
            return
    most = m.buffer.size // size
    done = 0
    while done < count:
        step = min(most, count - done)
        read_bytes(table, address + done * size, m.buffer, 0, step * size)
        if kind == _INP:
            _place_inp(m, first + done, step)
        elif kind == _WGT:
            _place_wgt(m, first + done, step)
        else:
            _place_acc(m, first + done, step, kind == _ACC_8BIT)
        done += step


@inner
def execute(m: Machine, table: PageTable, fields: NDArray[np.int64], address: int, fault: NDArray[np.int64]) -> int:
    """Execute one LOAD from byte `address` on; return 0, or -1 with `fault` filled.

    With x_size = 0, or with neither rows nor row pads, nothing happens at all (VTA spec 11.7).
    """
    kind = fields[MEMORY_TYPE]
    columns, rows = fields[X_SIZE], fields[Y_SIZE]
    width = fields[X_PAD_0] + columns + fields[X_PAD_1]
    height = fields[Y_PAD_0] + rows + fields[Y_PAD_1]
    if columns == 0 or height == 0:
        return 0
    if kind > _ACC and kind != _ACC_8BIT:
        return fail(fault, _UNKNOWN_LOAD, kind, 0, 0)
    first = fields[SRAM_BASE]
    if first + width * height > _depth(m, kind):
        return fail(fault, _LOAD_RANGE, first + width * height, _depth(m, kind), 0)
    row_bytes = fields[X_STRIDE] * element_bytes(m, kind)
    for y in range(height):
        if y < fields[Y_PAD_0] or y >= fields[Y_PAD_0] + rows:
            _zero(m, kind, first, width)
        else:
            _zero(m, kind, first, fields[X_PAD_0])
            _load_row(m, table, kind, first + fields[X_PAD_0], address + (y - fields[Y_PAD_0]) * row_bytes, columns)
            _zero(m, kind, first + fields[X_PAD_0] + columns, fields[X_PAD_1])
        first += width
    return 0
