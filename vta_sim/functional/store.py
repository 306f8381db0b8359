"""STORE (VTA spec 3.3): rows of OUT elements to memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType
from vta_sim._jit import inner
from vta_sim.functional.columns import FAULT_CODE, MEMORY_TYPE, SRAM_BASE, X_SIZE, X_STRIDE, Y_SIZE, Code
from vta_sim.functional.load import element_bytes
from vta_sim.functional.nest import fail
from vta_sim.functional.packing import pack
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable, write_bytes

_OUT = int(MemoryType.OUT)
_GROW = int(Code.GROW)
_STORE_RANGE = int(Code.STORE_RANGE)
_UNKNOWN_STORE = int(Code.UNKNOWN_STORE)


@inner
def _pack_tile(m: Machine, tile: int, number: int) -> None:
    """Write OUT[tile] to the buffer as its element `number`."""
    source = m.out if m.parted[tile] != 0 else m.acc
    size = m.batch * m.block_out
    if m.acc_row == m.block_out:
        pack(source, tile * m.acc_tile, m.out_bits, size, m.buffer, number * size)
        return
    for row in range(m.batch):
        begin = tile * m.acc_tile + row * m.acc_row
        pack(source, begin, m.out_bits, m.block_out, m.buffer, number * size + row * m.block_out)


@inner
def _store_row(m: Machine, table: PageTable, first: int, address: int, count: int) -> bool:
    """Store `count` neighbouring elements; False if page frames ran out."""
    size = element_bytes(m, _OUT)
    most = m.buffer.size // size
    done = 0
    while done < count:
        step = min(most, count - done)
        for number in range(step):
            _pack_tile(m, first + done + number, number)
        if write_bytes(table, address + done * size, m.buffer, 0, step * size) != step * size:
            return False
        done += step
    return True


@inner
def holds_loaded(m: Machine, fields: NDArray[np.int64]) -> bool:
    """Whether a STORE takes an element that was loaded since GEMM or ALU last wrote it (VTA spec 3.6)."""
    first = fields[SRAM_BASE]
    last = min(first + fields[X_SIZE] * fields[Y_SIZE], m.acc_depth)
    return np.any(m.parted[first:last] != 0)


@inner
def execute(m: Machine, table: PageTable, fields: NDArray[np.int64], address: int, fault: NDArray[np.int64]) -> int:
    """Execute one STORE to byte `address` on; return 0, or -1 with `fault` filled.

    If page frames run out the code is GROW, and the whole STORE is to be repeated after `Memory.grow`.
    """
    columns, rows = fields[X_SIZE], fields[Y_SIZE]
    if columns == 0 or rows == 0:
        return 0
    if fields[MEMORY_TYPE] != _OUT:
        return fail(fault, _UNKNOWN_STORE, fields[MEMORY_TYPE], 0, 0)
    first = fields[SRAM_BASE]
    if first + columns * rows > m.acc_depth:
        return fail(fault, _STORE_RANGE, first + columns * rows, m.acc_depth, 0)
    row_bytes = fields[X_STRIDE] * element_bytes(m, _OUT)
    for y in range(rows):
        if not _store_row(m, table, first + y * columns, address + y * row_bytes, columns):
            fault[FAULT_CODE] = _GROW
            return -1
    return 0
