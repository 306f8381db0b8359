"""STORE (VTA spec 3.3): rows of OUT elements to memory."""

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
    X_SIZE,
    X_STRIDE,
    Y_SIZE,
    Code,
)
from vta_sim.functional.packing import pack
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable, write_bytes

_OUT = int(MemoryType.OUT)
_DONE, _GROW = int(Code.DONE), int(Code.GROW)
_STORE_RANGE, _UNKNOWN_STORE = int(Code.STORE_RANGE), int(Code.UNKNOWN_STORE)


@inner
def _pack_tiles(m: Machine, first: int, count: int) -> None:
    """Write OUT[first : first + count] to the buffer."""
    position = 0
    for tile in range(first, first + count):
        begin = tile * m.acc_tile
        for _ in range(m.batch):
            if m.parted[tile] != 0:
                pack(m.out, begin, m.out_bits, m.block_out, m.buffer, position)
            else:
                pack(m.acc, begin, m.out_bits, m.block_out, m.buffer, position)
            begin += m.acc_row
            position += m.block_out


@inner
def _store_row(m: Machine, table: PageTable, first: int, address: int, count: int) -> bool:
    """Store `count` neighbouring elements; False if page frames ran out."""
    size = m.elem_bytes[_OUT]
    most = m.buffer.size // size
    done = 0
    while done < count:
        step = min(most, count - done)
        _pack_tiles(m, first + done, step)
        if write_bytes(table, address + done * size, m.buffer, 0, step * size) != step * size:
            return False
        done += step
    return True


@inner
def holds_loaded(m: Machine, fields: NDArray[np.int64]) -> bool:
    """Whether a STORE takes an element that was loaded since GEMM or ALU last wrote it (VTA spec 3.6)."""
    first = fields[SRAM_BASE]
    found = False
    for d in range(first, first + fields[X_SIZE] * fields[Y_SIZE]):
        found = found or m.parted[d] != 0
    return found


@inner
def execute(m: Machine, table: PageTable, fields: NDArray[np.int64], address: int, fault: NDArray[np.int64]) -> int:
    """Execute one STORE to byte `address` on; return a `Code`, with `fault` filled if it is not DONE or GROW.

    GROW says that page frames ran out: the whole STORE is to be repeated after `Memory.grow`.
    """
    columns, rows = fields[X_SIZE], fields[Y_SIZE]
    if columns == 0 or rows == 0:
        return _DONE
    if fields[MEMORY_TYPE] != _OUT:
        fault[FAULT_VALUE] = fields[MEMORY_TYPE]
        return _UNKNOWN_STORE
    first = fields[SRAM_BASE]
    if first + columns * rows > m.depths[_OUT]:
        fault[FAULT_VALUE] = first + columns * rows
        fault[FAULT_LIMIT] = m.depths[_OUT]
        return _STORE_RANGE
    row_bytes = fields[X_STRIDE] * m.elem_bytes[_OUT]
    for y in range(rows):
        if not _store_row(m, table, first + y * columns, address + y * row_bytes, columns):
            return _GROW
    return _DONE
