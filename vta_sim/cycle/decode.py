"""What an instruction is for the compute unit (`Decoder` of vta_hw/rtl/compute.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType, Opcode
from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle.wires import Parameters
from vta_sim.functional.columns import ALU_OPCODE, MEMORY_TYPE, X_SIZE, Y_PAD_0, Y_PAD_1, Y_SIZE

LOAD, GEMM, ALU, NOTHING = range(4)
"""A LOAD with data or pads to move; loops of GEMM or ALU; neither."""

_LOAD, _GEMM, _ALU, _GEMM_OVERWRITE = (
    int(code) for code in (Opcode.LOAD, Opcode.GEMM, Opcode.ALU, Opcode.GEMM_OVERWRITE)
)
_UOP, _ACC, _OUT = int(MemoryType.UOP), int(MemoryType.ACC), int(MemoryType.OUT)
_UNKNOWN_OPCODE, _UNKNOWN_MEMORY_TYPE, _UNKNOWN_ALU_OPCODE = (
    int(status) for status in (Status.UNKNOWN_OPCODE, Status.UNKNOWN_MEMORY_TYPE, Status.UNKNOWN_ALU_OPCODE)
)


@inner
def kind_of(p: Parameters, opcode: int, fields: NDArray[np.int64]) -> int:
    """What to do for an instruction of the compute queue."""
    if opcode == _LOAD:
        kind = fields[MEMORY_TYPE]
        known = kind == _UOP or (kind >= _ACC and kind != _OUT and kind <= p.last_memory_type)
        return LOAD if fields[X_SIZE] != 0 and known else NOTHING
    if opcode == _ALU:
        return ALU if fields[ALU_OPCODE] <= p.last_alu_opcode else NOTHING
    return GEMM if opcode == _GEMM or (opcode == _GEMM_OVERWRITE and opcode <= p.last_opcode) else NOTHING


@inner
def fault_of(p: Parameters, opcode: int, fields: NDArray[np.int64]) -> int:
    """The bit of `Status` that is due to codes that the machine does not know, or 0."""
    if opcode > p.last_opcode:
        return _UNKNOWN_OPCODE
    if opcode == _LOAD:
        has_rows = fields[Y_SIZE] != 0 or fields[Y_PAD_0] != 0 or fields[Y_PAD_1] != 0
        moves = fields[X_SIZE] != 0 and has_rows
        return _UNKNOWN_MEMORY_TYPE if moves and kind_of(p, opcode, fields) == NOTHING else 0
    return _UNKNOWN_ALU_OPCODE if opcode == _ALU and kind_of(p, opcode, fields) == NOTHING else 0
