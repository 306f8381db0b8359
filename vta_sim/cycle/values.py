"""What an instruction computes: the functional engine's kernels, with indices that wrap as in the RTL.

An instruction within its scratchpads is executed as in the functional engine. One that leaves them, at which that
engine stops, is taken step by step, each with its indices modulo the depth of their scratchpads.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, MemoryType, Opcode
from vta_sim._jit import inner
from vta_sim.cycle.records import copy
from vta_sim.functional import alu, gemm, load, nest, store
from vta_sim.functional.columns import (
    DRAM_BASE,
    DST_IN,
    DST_OUT,
    ITER_IN,
    ITER_OUT,
    MEMORY_TYPE,
    RESET,
    SRAM_BASE,
    SRC_IN,
    SRC_OUT,
    UOP_BGN,
    UOP_END,
    WGT_IN,
    WGT_OUT,
    X_PAD_0,
    X_PAD_1,
    X_SIZE,
    X_STRIDE,
    Y_PAD_0,
    Y_PAD_1,
    Y_SIZE,
    Code,
)
from vta_sim.functional.state import RUN_DST, RUN_DST_STEP, RUN_LENGTH, RUN_SRC, RUN_SRC_STEP, RUN_WGT, Machine
from vta_sim.pages import PageTable

_LOAD, _STORE, _ALU = int(Opcode.LOAD), int(Opcode.STORE), int(Opcode.ALU)
_GEMM_OVERWRITE: Final = int(Opcode.GEMM_OVERWRITE)
_REQUANT: Final = int(AluOp.REQUANT)
_UOP, _INP, _WGT, _ACC = (int(kind) for kind in (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC))
_DONE, _GROW, _LOAD_RANGE, _STORE_RANGE, _UOP_RANGE = (
    int(code) for code in (Code.DONE, Code.GROW, Code.LOAD_RANGE, Code.STORE_RANGE, Code.UOP_RANGE)
)


@inner
def execute(
    m: Machine,
    table: PageTable,
    opcode: int,
    fields: NDArray[np.int64],
    single: NDArray[np.int64],
    bases: NDArray[np.int64],
    fault: NDArray[np.int64],
) -> int:
    """Execute an instruction with known codes; DONE, GROW (see `store.execute`), or what was out of range.

    single: room for the fields of one step.
    """
    kind = fields[MEMORY_TYPE]
    if opcode == _LOAD:
        address = bases[kind] + fields[DRAM_BASE] * m.elem_bytes[kind]
        status = load.execute(m, table, fields, address, fault)
        if status == _LOAD_RANGE:
            _load_wrapped(m, table, fields, single, address, fault)
        return status
    if opcode == _STORE:
        address = bases[kind] + fields[DRAM_BASE] * m.elem_bytes[kind]
        status = store.execute(m, table, fields, address, fault)
        if status == _STORE_RANGE and not _store_wrapped(m, table, fields, single, address, fault):
            return _GROW
        return status
    status = nest.execute(m, fields, opcode == _ALU, opcode == _GEMM_OVERWRITE, fault)
    if status >= _UOP_RANGE:
        _run_wrapped(m, fields, single, opcode)
    return status


@inner
def _load_wrapped(
    m: Machine,
    table: PageTable,
    fields: NDArray[np.int64],
    single: NDArray[np.int64],
    address: int,
    fault: NDArray[np.int64],
) -> None:
    """A LOAD, element by element: the data in their order, then the pads, which are written later."""
    kind, depth = fields[MEMORY_TYPE], m.depths[fields[MEMORY_TYPE]]
    columns, rows = fields[X_SIZE], fields[Y_SIZE]
    width = fields[X_PAD_0] + columns + fields[X_PAD_1]
    height = fields[Y_PAD_0] + rows + fields[Y_PAD_1]
    single[:] = 0
    single[MEMORY_TYPE] = kind
    single[X_SIZE] = 1
    for pads in range(2):
        single[Y_SIZE], single[Y_PAD_0] = 1 - pads, pads
        for y in range(height):
            row = y - fields[Y_PAD_0]
            for x in range(width):
                column = x - fields[X_PAD_0]
                is_pad = row < 0 or row >= rows or column < 0 or column >= columns
                if is_pad == (pads == 1):
                    single[SRAM_BASE] = (fields[SRAM_BASE] + y * width + x) % depth
                    source = address + (row * fields[X_STRIDE] + column) * m.elem_bytes[kind]
                    load.execute(m, table, single, source, fault)


@inner
def _store_wrapped(
    m: Machine,
    table: PageTable,
    fields: NDArray[np.int64],
    single: NDArray[np.int64],
    address: int,
    fault: NDArray[np.int64],
) -> bool:
    """A STORE, element by element; False if page frames ran out."""
    kind = fields[MEMORY_TYPE]
    single[:] = 0
    single[MEMORY_TYPE] = kind
    single[X_SIZE] = single[Y_SIZE] = 1
    for y in range(fields[Y_SIZE]):
        for x in range(fields[X_SIZE]):
            single[SRAM_BASE] = (fields[SRAM_BASE] + y * fields[X_SIZE] + x) % m.depths[kind]
            target = address + (y * fields[X_STRIDE] + x) * m.elem_bytes[kind]
            if store.execute(m, table, single, target, fault) == _GROW:
                return False
    return True


@inner
def _run_wrapped(m: Machine, fields: NDArray[np.int64], single: NDArray[np.int64], opcode: int) -> None:
    """A GEMM or ALU instruction, step by step."""
    is_alu = opcode == _ALU
    overwrites = opcode == _GEMM_OVERWRITE
    sources = m.depths[_ACC] if is_alu else m.depths[_INP]
    copy(fields, single)
    single[ITER_OUT] = single[ITER_IN] = 1
    single[UOP_BGN], single[UOP_END] = 0, 1
    for factor in (DST_OUT, DST_IN, SRC_OUT, SRC_IN):
        single[factor] = 0
    if not is_alu:
        single[WGT_OUT] = single[WGT_IN] = 0
    for outer in range(fields[ITER_OUT]):
        for inside in range(fields[ITER_IN]):
            for uop in range(fields[UOP_BGN], fields[UOP_END]):
                word = np.int64(m.uop[uop % m.uop.size])
                dst = (word >> m.uop_places[0, 0] & m.uop_places[0, 1]) + outer * fields[DST_OUT]
                src = (word >> m.uop_places[1, 0] & m.uop_places[1, 1]) + outer * fields[SRC_OUT]
                dst = (dst + inside * fields[DST_IN]) % m.depths[_ACC]
                m.runs[0, RUN_DST] = dst
                m.runs[0, RUN_SRC] = (src + inside * fields[SRC_IN]) % sources
                m.runs[0, RUN_LENGTH] = 1
                m.runs[0, RUN_DST_STEP] = m.runs[0, RUN_SRC_STEP] = 0
                m.parted[dst] = 0
                if is_alu:
                    m.runs[0, RUN_WGT] = 0
                    alu.run_all(m, single, 1)
                    continue
                wgt = (word >> m.uop_places[2, 0] & m.uop_places[2, 1]) + outer * fields[WGT_OUT]
                m.runs[0, RUN_WGT] = (wgt + inside * fields[WGT_IN]) % m.depths[_WGT]
                if overwrites:
                    gemm.overwrite_all(m, single, 1)
                elif fields[RESET]:
                    for k in range(dst * m.acc_tile, (dst + 1) * m.acc_tile):
                        m.acc[k] = 0
                else:
                    gemm.run_all(m, single, 1)
