"""Detection, while running, of what is allowed here and goes wrong on some VTA (VTA spec 11.15)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, MemoryType, Module, Opcode
from vta_sim._jit import inner
from vta_sim.functional.columns import (
    ALU_OPCODE,
    DST_IN,
    DST_OUT,
    IMM,
    MEMORY_TYPE,
    POP_NEXT,
    POP_PREV,
    PUSH_NEXT,
    PUSH_PREV,
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
    Hint,
)
from vta_sim.functional.state import Machine
from vta_sim.functional.store import holds_loaded

SENTENCES: Final = {
    Hint.FLAG_WITHOUT_QUEUE: "token flags must name a queue of the module; this one is ignored here, TVM's fsim crashes",
    Hint.STORE_PAD: "a STORE must have no pads; they are ignored here, TVM's fsim refuses them",
    Hint.STORE_OF_LOADED: "a stored element must be written by GEMM or ALU after its LOAD; OUT holds older data",
    Hint.IMMEDIATE_SOURCE: "an immediate ALU must have src equal to dst; Chisel reads its operand at src",
    Hint.SHIFT_RANGE: "an immediate SHR must shift by -16 to 15; HLS takes the amount from 5 signed bits",
    Hint.UOP_ROWS: "a LOAD of UOP must have one row and no pads; HLS loads only x_size micro-ops",
    Hint.WGT_PAD: "a LOAD of WGT must have no pads; HLS ignores them",
    Hint.AFTER_FINISH: "nothing must be executed after FINISH; TVM's fsim loops for ever",
}
"""What each hint says: the rule, and who breaks on it."""

_FLAG_WITHOUT_QUEUE = int(Hint.FLAG_WITHOUT_QUEUE)
_STORE_PAD = int(Hint.STORE_PAD)
_STORE_OF_LOADED = int(Hint.STORE_OF_LOADED)
_IMMEDIATE_SOURCE = int(Hint.IMMEDIATE_SOURCE)
_SHIFT_RANGE = int(Hint.SHIFT_RANGE)
_UOP_ROWS = int(Hint.UOP_ROWS)
_WGT_PAD = int(Hint.WGT_PAD)
_LOAD, _STORE, _ALU = int(Opcode.LOAD), int(Opcode.STORE), int(Opcode.ALU)
_UOP, _WGT, _SHR = int(MemoryType.UOP), int(MemoryType.WGT), int(AluOp.SHR)
_LOAD_MODULE, _STORE_MODULE = int(Module.LOAD.value), int(Module.STORE.value)


@inner
def flag_hint(header: NDArray[np.int64], module: int) -> int:
    """Hint about flags for which the module has no queue (VTA spec 5.2)."""
    before = header[POP_PREV] != 0 or header[PUSH_PREV] != 0
    after = header[POP_NEXT] != 0 or header[PUSH_NEXT] != 0
    wrong = (module == _LOAD_MODULE and before) or (module == _STORE_MODULE and after)
    return _FLAG_WITHOUT_QUEUE if wrong else 0


@inner
def _transfer_hints(m: Machine, opcode: int, fields: NDArray[np.int64]) -> int:
    if fields[X_SIZE] == 0:
        return 0
    pads = fields[X_PAD_0] + fields[X_PAD_1] + fields[Y_PAD_0] + fields[Y_PAD_1] != 0
    if opcode == _STORE:
        found = _STORE_PAD if pads else 0
        return found | _STORE_OF_LOADED if holds_loaded(m, fields) else found
    if fields[MEMORY_TYPE] == _UOP and (pads or fields[Y_SIZE] != 1):
        return _UOP_ROWS
    return _WGT_PAD if fields[MEMORY_TYPE] == _WGT and pads else 0


@inner
def _alu_hints(m: Machine, fields: NDArray[np.int64]) -> int:
    if fields[USE_IMM] == 0:
        return 0
    found = _SHIFT_RANGE if fields[ALU_OPCODE] == _SHR and not -16 <= fields[IMM] <= 15 else 0
    differs = fields[SRC_OUT] != fields[DST_OUT] or fields[SRC_IN] != fields[DST_IN]
    for index in range(fields[UOP_BGN], min(fields[UOP_END], m.uop_depth)):
        word = np.int64(m.uop[index])
        differs = differs or ((word >> m.src_lsb) & m.src_mask) != (word & m.dst_mask)
    return found | _IMMEDIATE_SOURCE if differs else found


@inner
def insn_hints(m: Machine, opcode: int, fields: NDArray[np.int64]) -> int:
    """Hints about an instruction, as bits of `Hint`, from its fields and from the state it is about to meet."""
    if opcode == _LOAD or opcode == _STORE:
        return _transfer_hints(m, opcode, fields)
    return _alu_hints(m, fields) if opcode == _ALU else 0
