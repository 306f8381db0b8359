"""The instructions, micro-ops and code numbers of the VTA instruction set, as values (VTA spec 2 and 5).

Nothing here depends on a configuration; bit positions live in `vta_hw.spec.fields`, encoding in `vta_hw.spec.isa`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Opcode(IntEnum):
    """Operation codes; 5 to 7 are not assigned (VTA spec 2.1)."""

    LOAD = 0
    STORE = 1
    GEMM = 2
    FINISH = 3
    ALU = 4


class MemoryType(IntEnum):
    """Memory codes of LOAD and STORE; 6 and 7 are not assigned (VTA spec 2.2)."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC_8BIT = 5


class AluOp(IntEnum):
    """Operation codes of the ALU; 5 to 7 are not assigned (VTA spec 2.4)."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4


class Module(Enum):
    """The three units that execute instructions, each from its own queue (VTA spec 5.1)."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependences:
    """The four token flags every instruction carries (VTA spec 2.1 and 5.2)."""

    pop_prev: bool = False
    pop_next: bool = False
    push_prev: bool = False
    push_next: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Transfer(Dependences):
    memory_type: MemoryType | int = MemoryType.UOP
    sram_base: int = 0
    dram_base: int = 0
    y_size: int = 0
    x_size: int = 0
    x_stride: int = 0
    y_pad_0: int = 0
    y_pad_1: int = 0
    x_pad_0: int = 0
    x_pad_1: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load(_Transfer):
    """2-D copy with zero padding from DRAM to a scratchpad; sizes and bases in elements (VTA spec 3.2).

    `memory_type` is a plain `int` for the codes 6 and 7.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Store(_Transfer):
    """2-D copy from the OUT buffer to DRAM; sizes and bases in elements (VTA spec 3.3)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Nest(Dependences):
    reset: bool = False
    uop_bgn: int = 0
    uop_end: int = 0
    iter_out: int = 0
    iter_in: int = 0
    dst_factor_out: int = 0
    dst_factor_in: int = 0
    src_factor_out: int = 0
    src_factor_in: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemm(_Nest):
    """Two loops around micro-ops, each multiplying one input tile by one weight tile (VTA spec 3.4)."""

    wgt_factor_out: int = 0
    wgt_factor_in: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Alu(_Nest):
    """Two loops around micro-ops, each updating one accumulator tile (VTA spec 3.5).

    `reset` exists in the encoding and is ignored by the machine. `alu_opcode` is a plain `int` for the codes 5 to 7.
    """

    alu_opcode: AluOp | int = AluOp.MIN
    use_imm: bool = False
    imm: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish(Dependences):
    """End of a launch (VTA spec 5.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown(Dependences):
    """An instruction with an unassigned opcode: executes as a no-op that honours its tokens (VTA spec 11.2).

    `raw` is bits 127 to 7 of the instruction, as a number.
    """

    opcode: int = 5
    raw: int = 0


Insn = Load | Store | Gemm | Alu | Finish | Unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Uop:
    """One micro-op: accumulator index, input (GEMM) or accumulator (ALU) index, weight index (VTA spec 2.6)."""

    dst: int = 0
    src: int = 0
    wgt: int = 0


def module_of(insn: Insn) -> Module:
    """Return the unit whose queue takes `insn` (VTA spec 5.1); what nobody knows goes to compute."""
    if isinstance(insn, Store):
        return Module.STORE
    if isinstance(insn, Load) and insn.memory_type in (MemoryType.INP, MemoryType.WGT):
        return Module.LOAD
    return Module.COMPUTE
