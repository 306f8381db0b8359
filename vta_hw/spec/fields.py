"""The table of instruction fields, and where a configuration puts each of them (VTA spec 2).

This table is the only statement of the encodings. Encoder, decoders, assembler, disassembler, manual and hardware
layouts are derived from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Final

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import AluOp, Code, MemoryType, Opcode


class Format(Enum):
    """The layouts there are: four of 128 bits, the header all instructions share, and the 32-bit micro-op."""

    MEMORY = "memory"
    GEMM = "gemm"
    ALU = "alu"
    HEADER = "header"
    UOP = "uop"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field: its width in bits follows from the configuration, its place from the fields before it.

    `codes` names the values that have names; every other value is kept as a number. A `flag` is a truth value, in text
    a bare word; `hexadecimal` says how text shows the number. `role` says how the text form
    shows the field.
    """

    name: str
    width: Callable[[VTAConfig], int]
    meaning: str
    signed: bool = False
    codes: type[Code] | None = None
    hexadecimal: bool = False
    flag: bool = False


@dataclass(frozen=True, kw_only=True)
class FieldPosition:
    """A field of one configuration: bits `lsb` to `lsb + width - 1` of the word. No field crosses bit 64."""

    name: str
    lsb: int
    width: int
    signed: bool = False

    @cached_property
    def low(self) -> int:
        """Smallest value the field can hold."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @cached_property
    def high(self) -> int:
        """Largest value the field can hold."""
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1


def _bits(width: int) -> Callable[[VTAConfig], int]:
    return lambda _: width


def _u(config: VTAConfig) -> int:
    return config.log_uop_depth


def _u_end(config: VTAConfig) -> int:
    return config.log_uop_depth + 1


def _a(config: VTAConfig) -> int:
    return config.log_acc_depth


def _i(config: VTAConfig) -> int:
    return config.log_inp_depth


def _w(config: VTAConfig) -> int:
    return config.log_wgt_depth


def _uop_src(config: VTAConfig) -> int:
    # VTA spec 2.7: of the three upstream opinions on this width, the C struct's is canonical.
    return max(config.log_acc_depth, config.log_inp_depth)


_HEADER: Final = (
    Field(name="opcode", width=_bits(3), codes=Opcode, meaning="operation"),
    Field(name="pop_prev", width=_bits(1), flag=True, meaning="wait for a token of the unit before"),
    Field(name="pop_next", width=_bits(1), flag=True, meaning="wait for a token of the unit after"),
    Field(name="push_prev", width=_bits(1), flag=True, meaning="give a token to the unit before"),
    Field(name="push_next", width=_bits(1), flag=True, meaning="give a token to the unit after"),
)

_MEMORY: Final = (
    Field(name="memory_type", width=_bits(3), codes=MemoryType, meaning="scratchpad"),
    Field(name="sram_base", width=_bits(16), hexadecimal=True, meaning="first scratchpad element"),
    Field(name="dram_base", width=_bits(32), hexadecimal=True, meaning="first DRAM element, in units of its type"),
    Field(name="y_size", width=_bits(16), meaning="rows"),
    Field(name="x_size", width=_bits(16), meaning="elements in a row; 0 moves tokens only"),
    Field(name="x_stride", width=_bits(16), meaning="DRAM elements from one row to the next"),
    Field(name="y_pad_0", width=_bits(4), meaning="rows of padding before"),
    Field(name="y_pad_1", width=_bits(4), meaning="rows of padding after"),
    Field(name="x_pad_0", width=_bits(4), meaning="elements of padding before each row"),
    Field(name="x_pad_1", width=_bits(4), meaning="elements of padding after each row"),
)

_NEST: Final = (
    Field(name="uop_bgn", width=_u, meaning="first micro-op"),
    Field(name="uop_end", width=_u_end, meaning="micro-op after the last"),
    Field(name="iter_out", width=_bits(14), meaning="trips of the outer loop"),
    Field(name="iter_in", width=_bits(14), meaning="trips of the inner loop"),
    Field(name="dst_factor_out", width=_a, meaning="step of the accumulator index, outer loop"),
    Field(name="dst_factor_in", width=_a, meaning="step of the accumulator index, inner loop"),
)

_GEMM: Final = (
    Field(name="reset", width=_bits(1), flag=True, meaning="GEMM: write zero instead of multiplying"),
    *_NEST,
    Field(name="src_factor_out", width=_i, meaning="step of the input index, outer loop"),
    Field(name="src_factor_in", width=_i, meaning="step of the input index, inner loop"),
    Field(name="wgt_factor_out", width=_w, meaning="step of the weight index, outer loop"),
    Field(name="wgt_factor_in", width=_w, meaning="step of the weight index, inner loop"),
)

_ALU: Final = (
    Field(name="reset", width=_bits(1), flag=True, meaning="ignored"),
    *_NEST,
    Field(name="src_factor_out", width=_a, meaning="step of the second operand's index, outer loop"),
    Field(name="src_factor_in", width=_a, meaning="step of the second operand's index, inner loop"),
    Field(name="alu_opcode", width=_bits(3), codes=AluOp, meaning="operation of the ALU"),
    Field(name="use_imm", width=_bits(1), flag=True, meaning="second operand is the immediate"),
    Field(name="imm", width=_bits(16), signed=True, meaning="immediate, two's complement"),
)

_UOP: Final = (
    Field(name="dst", width=_a, meaning="accumulator index"),
    Field(name="src", width=_uop_src, meaning="input index (GEMM), accumulator index (ALU)"),
    Field(name="wgt", width=_w, meaning="weight index (GEMM), ignored (ALU)"),
)

FIELDS: Final[Mapping[Format, tuple[Field, ...]]] = MappingProxyType(
    {
        Format.MEMORY: (*_HEADER, *_MEMORY),
        Format.GEMM: (*_HEADER, *_GEMM),
        Format.ALU: (*_HEADER, *_ALU),
        Format.HEADER: _HEADER,
        Format.UOP: _UOP,
    }
)
"""Every field of every format, in the order of the encoding."""

FORMAT_OF: Final[Mapping[Opcode, Format]] = MappingProxyType(
    {
        Opcode.LOAD: Format.MEMORY,
        Opcode.STORE: Format.MEMORY,
        Opcode.GEMM: Format.GEMM,
        Opcode.FINISH: Format.HEADER,
        Opcode.ALU: Format.ALU,
        Opcode.GEMM_OVERWRITE: Format.GEMM,
    }
)
"""The format of each opcode; an unassigned opcode has `Format.HEADER`."""


def positions(fields: tuple[Field, ...], config: VTAConfig) -> tuple[FieldPosition, ...]:
    """Place fields in order from bit 0; one that would cross bit 64 starts there (VTA spec 2.7)."""
    placed = []
    lsb = 0
    for field in fields:
        width = field.width(config)
        if lsb < 64 < lsb + width:
            lsb = 64
        placed.append(FieldPosition(name=field.name, lsb=lsb, width=width, signed=field.signed))
        lsb += width
    return tuple(placed)
