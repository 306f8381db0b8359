"""What a launch did that is allowed here and goes wrong on some VTA (VTA spec 11.15)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, MemoryType, Module, Opcode, module_codes
from vta_sim.functional.columns import HINT_IMMEDIATE_SOURCE, HINT_STORE_OF_LOADED


class Hint(Enum):
    """A rule of portable programs, and who breaks on it."""

    FLAG_WITHOUT_QUEUE = "token flags must name a queue of the module; others are ignored here, TVM's fsim crashes"
    STORE_PAD = "a STORE must have no pads; they are ignored here, TVM's fsim refuses them"
    UOP_ROWS = "a LOAD of UOP must have one row and no pads; HLS loads only x_size micro-ops"
    WGT_PAD = "a LOAD of WGT must have no pads; HLS ignores them"
    SHIFT_RANGE = "an immediate SHR must shift by -16 to 15; HLS takes the amount from 5 signed bits"
    IMMEDIATE_SOURCE = "an immediate ALU must have src equal to dst; Chisel reads its operand at src"
    STORE_OF_LOADED = "a STORE must take what GEMM or ALU wrote after the last LOAD; OUT holds older data"
    AFTER_FINISH = "nothing must follow FINISH; TVM's fsim loops for ever"


@dataclass(frozen=True, kw_only=True)
class Lint:
    """Instruction number `insn` of the launch breaks the rule `hint`."""

    insn: int
    hint: Hint

    def __str__(self) -> str:
        return f"Instruction {self.insn}: {self.hint.value}"


def _breaches(rows: NDArray[np.void], found: NDArray[np.uint8]) -> dict[Hint, NDArray[np.bool_]]:
    opcode, memory_type, module = rows["opcode"], rows["memory_type"], module_codes(rows)
    loads = (opcode == Opcode.LOAD) & (rows["x_size"] != 0)
    stores = (opcode == Opcode.STORE) & (rows["x_size"] != 0)
    pads = sum(rows[name] for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")) != 0
    before = (rows["pop_prev"] | rows["push_prev"]) != 0
    after = (rows["pop_next"] | rows["push_next"]) != 0
    shifts = (opcode == Opcode.ALU) & (rows["alu_opcode"] == AluOp.SHR) & (rows["use_imm"] != 0)
    finished = np.cumsum(opcode == Opcode.FINISH) - (opcode == Opcode.FINISH)
    return {
        Hint.FLAG_WITHOUT_QUEUE: ((module == Module.LOAD.value) & before) | ((module == Module.STORE.value) & after),
        Hint.STORE_PAD: stores & pads,
        Hint.UOP_ROWS: loads & (memory_type == MemoryType.UOP) & (pads | (rows["y_size"] != 1)),
        Hint.WGT_PAD: loads & (memory_type == MemoryType.WGT) & pads,
        Hint.SHIFT_RANGE: shifts & ((rows["imm"] < -16) | (rows["imm"] > 15)),
        Hint.IMMEDIATE_SOURCE: (found & HINT_IMMEDIATE_SOURCE) != 0,
        Hint.STORE_OF_LOADED: (found & HINT_STORE_OF_LOADED) != 0,
        Hint.AFTER_FINISH: finished != 0,
    }


def find_lint(rows: NDArray[np.void], found: NDArray[np.uint8]) -> tuple[Lint, ...]:
    """Return the breaches of `ISA.decode_fields` rows [N] and of what execution found, uint8 [N], by instruction."""
    breaches = _breaches(rows, found)
    pairs = [(int(insn), hint) for hint, which in breaches.items() for insn in np.flatnonzero(which)]
    return tuple(Lint(insn=insn, hint=hint) for insn, hint in sorted(pairs, key=lambda pair: pair[0]))
