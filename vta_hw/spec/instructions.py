"""The instructions, micro-ops and code numbers of the VTA instruction set, as values (VTA spec 2 and 5).

What is not in TVM's instruction set is that of decision 0006. Nothing here depends on a configuration; bit positions
live in `vta_hw.spec.fields`, encoding in `vta_hw.spec.isa`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from functools import cache
from typing import Self, TypeVar


class InstructionSet(StrEnum):
    """Which instructions a machine knows; an extended machine knows TVM's as well."""

    TVM = "tvm"
    EXTENDED = "extended"


class Code(IntEnum):
    """A code number of an instruction field, and the instruction set that gives it a meaning."""

    isa: InstructionSet

    def __new__(cls, value: int, isa: InstructionSet = InstructionSet.TVM) -> Self:
        """Make a member from its number and, unless it is TVM's, its instruction set."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.isa = isa
        return member


C = TypeVar("C", bound=Code)


@cache
def codes_of(codes: type[C], isa: str) -> tuple[C, ...]:
    """Return the codes that a machine of the instruction set `isa` knows, in ascending order from 0 without gaps."""
    return tuple(code for code in codes if isa == InstructionSet.EXTENDED or code.isa == isa)


class Opcode(Code):
    """Operation codes; 5 to 7 are not assigned by TVM (VTA spec 2.1), 6 and 7 by nobody."""

    LOAD = 0
    STORE = 1
    GEMM = 2
    FINISH = 3
    ALU = 4
    GEMM_OVERWRITE = 5, InstructionSet.EXTENDED


class MemoryType(Code):
    """Memory codes of LOAD and STORE; 6 and 7 are not assigned by TVM (VTA spec 2.2)."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC_8BIT = 5
    ACC_PAD_MIN = 6, InstructionSet.EXTENDED
    ACC_8BIT_PAD_MIN = 7, InstructionSet.EXTENDED

    @property
    def scratchpad(self) -> MemoryType:
        """The plain memory type that has the same scratchpad and base register."""
        of_acc = (MemoryType.ACC_8BIT, MemoryType.ACC_PAD_MIN, MemoryType.ACC_8BIT_PAD_MIN)
        return MemoryType.ACC if self in of_acc else self

    @property
    def is_narrow(self) -> bool:
        """Whether DRAM holds signed bytes that become accumulators."""
        return self in (MemoryType.ACC_8BIT, MemoryType.ACC_8BIT_PAD_MIN)


class AluOp(Code):
    """Operation codes of the ALU; 5 to 7 are not assigned by TVM (VTA spec 2.4), 6 and 7 by nobody."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4
    REQUANT = 5, InstructionSet.EXTENDED


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

    The pad types fill with the smallest number of their type. `memory_type` is a plain `int` for a code that the
    instruction set does not know.
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
class _Product(_Nest):
    wgt_factor_out: int = 0
    wgt_factor_in: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemm(_Product):
    """Two loops around micro-ops, each adding the product of an input and a weight tile (VTA spec 3.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GemmOverwrite(_Product):
    """A GEMM whose products replace the accumulators instead of being added to them (extended set).

    `reset` exists in the encoding and is ignored by the machine.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Alu(_Nest):
    """Two loops around micro-ops, each updating one accumulator tile (VTA spec 3.5).

    `reset` exists in the encoding and is ignored by the machine, and so is `use_imm` in a REQUANT (extended set), whose
    `imm` holds `requant_imm`. `alu_opcode` is a plain `int` for a code that the instruction set does not know.
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


Insn = Load | Store | Gemm | GemmOverwrite | Alu | Finish | Unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Uop:
    """One micro-op: accumulator index, input (GEMM) or accumulator (ALU) index, weight index (VTA spec 2.6)."""

    dst: int = 0
    src: int = 0
    wgt: int = 0


def requant_imm(zero_point: int, *, relu: bool = False) -> int:
    """Return the `imm` of a REQUANT: bits 14 to 0 are the zero point, bit 15 says that nothing is below it.

    Raises `ValueError` if the zero point does not fit 15 bits, -16384 to 16383.
    """
    if not -(1 << 14) <= zero_point < 1 << 14:
        raise ValueError(f"zero point must fit 15 bits (-16384 to 16383), not {zero_point!r}")
    return (zero_point & 0x7FFF) - (0x8000 if relu else 0)


def module_of(insn: Insn) -> Module:
    """Return the unit whose queue takes `insn` (VTA spec 5.1); what nobody knows goes to compute."""
    if isinstance(insn, Store):
        return Module.STORE
    if isinstance(insn, Load) and insn.memory_type in (MemoryType.INP, MemoryType.WGT):
        return Module.LOAD
    return Module.COMPUTE
