"""Encoder and decoders of the VTA instruction set for one configuration, derived from the field table.

`isa` is the public name of the instruction set: enums, instruction classes and formats are exported here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import index
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vta_hw.spec.config import ISA_TABLE_VERSION, VTAConfig
from vta_hw.spec.fields import FIELDS, FORMAT_OF, Field, FieldPosition, Format, positions
from vta_hw.spec.instructions import (
    Alu,
    AluOp,
    Code,
    Dependences,
    Finish,
    Gemm,
    GemmOverwrite,
    Insn,
    InstructionSet,
    Load,
    MemoryType,
    Module,
    Opcode,
    Store,
    Unknown,
    Uop,
    codes_of,
    module_of,
    requant_imm,
)

__all__ = [
    "FIELDS",
    "FORMAT_OF",
    "ISA",
    "ISA_TABLE_VERSION",
    "Alu",
    "AluOp",
    "Code",
    "Dependences",
    "EncodingError",
    "Field",
    "FieldPosition",
    "Finish",
    "Format",
    "Gemm",
    "GemmOverwrite",
    "Insn",
    "InstructionSet",
    "Load",
    "MemoryType",
    "Module",
    "Opcode",
    "Store",
    "Unknown",
    "Uop",
    "codes_of",
    "module_codes",
    "module_of",
    "opcode_of",
    "requant_imm",
]

Known = Load | Store | Gemm | GemmOverwrite | Alu | Finish
"""An instruction with an assigned opcode."""

CLASS_OF: Final[Mapping[Opcode, type[Known]]] = MappingProxyType(
    {
        Opcode.LOAD: Load,
        Opcode.STORE: Store,
        Opcode.GEMM: Gemm,
        Opcode.FINISH: Finish,
        Opcode.ALU: Alu,
        Opcode.GEMM_OVERWRITE: GemmOverwrite,
    }
)
"""The class of each opcode's instructions."""

_OPCODES: Final = MappingProxyType({insn: code for code, insn in CLASS_OF.items()})
_FLAGS: Final = frozenset(field.name for fields in FIELDS.values() for field in fields if field.flag)
_HEADER_BITS: Final = 7
_WORD: Final = (1 << 64) - 1


class EncodingError(ValueError):
    """A value that its field cannot hold, or words that are not instructions."""


def opcode_of(insn: Insn) -> int:
    """Return the operation code of an instruction."""
    return insn.opcode if isinstance(insn, Unknown) else _OPCODES[type(insn)]


def module_codes(columns: NDArray[np.void]) -> NDArray[np.int64]:
    """Return `Module.value` for each row of `ISA.decode_fields`, as `module_of` does for one instruction."""
    to_load = (columns["opcode"] == Opcode.LOAD) & np.isin(columns["memory_type"], (MemoryType.INP, MemoryType.WGT))
    codes = np.full(columns.shape, Module.COMPUTE.value, dtype=np.int64)
    codes[to_load] = Module.LOAD.value
    codes[columns["opcode"] == Opcode.STORE] = Module.STORE.value
    return codes


class ISA:
    """The instruction set of one configuration.

    Encoding writes zero to unused bits and decoding ignores them (VTA spec 2.7). Instructions are 128-bit numbers, or
    rows of two little-endian 64-bit words, low word first; micro-ops are 32-bit numbers.
    """

    def __init__(self, config: VTAConfig) -> None:
        self.config = config
        self._layouts = {kind: positions(fields, config) for kind, fields in FIELDS.items()}
        self._opcodes = codes_of(Opcode, config.isa)

    def layout(self, kind: Format | Opcode) -> tuple[FieldPosition, ...]:
        """Return name, lowest bit and width of each field of a format, or of the format of an opcode."""
        return self._layouts[FORMAT_OF[kind] if isinstance(kind, Opcode) else kind]

    def format_of(self, opcode: int) -> Format:
        """Return the format of an operation code, `Format.HEADER` if the instruction set does not know the code."""
        return FORMAT_OF[Opcode(opcode)] if opcode in self._opcodes else Format.HEADER

    def encode(self, insn: Insn) -> int:
        """Return the 128-bit number of an instruction.

        Raises `EncodingError` naming field, width and value, or what the instruction set does not have.
        """
        if isinstance(insn, Unknown):
            return self._encode_unknown(insn)
        opcode = _OPCODES[type(insn)]
        self._check_known("Instruction", opcode)
        word = int(opcode)
        for field in self._layouts[FORMAT_OF[opcode]][1:]:
            value = getattr(insn, field.name)
            if isinstance(value, Code):
                self._check_known(f"{opcode.name} {field.name}", value)
            word |= _insert(opcode.name, field, value)
        return word

    def _check_known(self, subject: str, code: Code) -> None:
        if code not in codes_of(type(code), self.config.isa):
            raise EncodingError(f"{subject} must be of the instruction set {self.config.isa}, not {code.name}")

    def _encode_unknown(self, insn: Unknown) -> int:
        first = len(self._opcodes)
        if not first <= insn.opcode <= 7:
            raise EncodingError(f"UNKNOWN opcode must be {first} to 7, not {insn.opcode!r}")
        raw = FieldPosition(name="raw", lsb=_HEADER_BITS, width=128 - _HEADER_BITS)
        word = insn.opcode | _insert("UNKNOWN", raw, insn.raw)
        for field in self._layouts[Format.HEADER][1:]:
            word |= _insert("UNKNOWN", field, getattr(insn, field.name))
        return word

    def decode(self, word: int) -> Insn:
        """Return the instruction of a 128-bit number; every such number has one."""
        if not 0 <= word < 1 << 128:
            raise EncodingError(f"instruction must be a number of 128 bits, not {word!r}")
        opcode = word & 7
        values = {field.name: _extract(field, word) for field in self._layouts[self.format_of(opcode)][1:]}
        for name in values.keys() & _FLAGS:
            values[name] = bool(values[name])
        if opcode not in self._opcodes:
            return Unknown(opcode=opcode, raw=word >> _HEADER_BITS, **values)
        if "memory_type" in values:
            values["memory_type"] = self._named(MemoryType, values["memory_type"])
        if "alu_opcode" in values:
            values["alu_opcode"] = self._named(AluOp, values["alu_opcode"])
        return CLASS_OF[Opcode(opcode)](**values)

    def _named(self, codes: type[Code], value: int) -> int:
        return codes(value) if value in codes_of(codes, self.config.isa) else value

    def encode_program(self, insns: Iterable[Insn]) -> NDArray[np.uint64]:
        """Return the words of a program, uint64 of shape (N, 2), low word first."""
        places: dict[type[Insn], list[int]] = {}
        given = list(insns)
        for place, insn in enumerate(given):
            places.setdefault(type(insn), []).append(place)
        words = np.zeros((len(given), 2), dtype="<u8")
        for chosen in places.values():
            alike = [given[place] for place in chosen]
            columns = None if isinstance(alike[0], Unknown) else self._encode_columns(_OPCODES[type(alike[0])], alike)
            if columns is None:
                numbers = [self.encode(insn) for insn in alike]
                columns = np.array([(number & _WORD, number >> 64) for number in numbers], dtype="<u8")
            words[chosen] = columns
        return words

    def _encode_columns(self, opcode: Opcode, insns: Sequence[Insn]) -> NDArray[np.uint64] | None:
        """The words of instructions of one opcode, field by field; None if `encode` refuses one of them."""
        words = np.zeros((len(insns), 2), dtype="<u8")
        words[:, 0] = int(opcode)
        codes: set[Code] = {opcode}
        for field in self._layouts[FORMAT_OF[opcode]][1:]:
            values = [getattr(insn, field.name) for insn in insns]
            codes.update(value for value in values if isinstance(value, Code))
            column = np.array(values)
            if column.dtype.kind not in "bi" or column.min() < field.low or column.max() > field.high:
                return None
            bits = column.astype(np.int64) & ((1 << field.width) - 1)
            words[:, field.lsb // 64] |= bits.astype(np.uint64) << np.uint64(field.lsb % 64)
        return words if all(code in codes_of(type(code), self.config.isa) for code in codes) else None

    def decode_program(self, program: NDArray[np.uint64] | bytes) -> list[Insn]:
        """Return the instructions of a program given as (N, 2) words or as 16 N bytes."""
        return [self.decode(low | high << 64) for low, high in _words(program).tolist()]

    @cached_property
    def columns(self) -> np.dtype[np.void]:
        """The row type of `decode_fields`: one int64 for each field name of all formats."""
        names = [field.name for kind in FIELDS if kind is not Format.UOP for field in FIELDS[kind]]
        return np.dtype([(name, np.int64) for name in dict.fromkeys(names)])

    def decode_fields(self, program: NDArray[np.uint64] | bytes) -> NDArray[np.void]:
        """Return a structured array of shape (N,) with a column for each field, decoded all at once.

        A field that the instruction's format does not have is 0. `program` is as for `decode_program`.
        """
        words = _words(program)
        opcodes = words[:, 0] & np.uint64(7)
        rows = np.zeros(len(words), dtype=self.columns)
        for kind in (Format.HEADER, Format.MEMORY, Format.GEMM, Format.ALU):
            members = [code for code in range(8) if self.format_of(code) is kind]
            chosen = slice(None) if kind is Format.HEADER else np.flatnonzero(np.isin(opcodes, members))
            for field in self._layouts[kind]:
                rows[field.name][chosen] = _extract_column(field, words[chosen, field.lsb // 64])
        return rows

    def encode_uop(self, uop: Uop) -> int:
        """Return the 32-bit number of a micro-op; raises `EncodingError` naming field, width and value."""
        word = 0
        for field in self._layouts[Format.UOP]:
            word |= _insert("UOP", field, getattr(uop, field.name))
        return word

    def decode_uop(self, word: int) -> Uop:
        """Return the micro-op of a 32-bit number; every such number has one."""
        if not 0 <= word < 1 << 32:
            raise EncodingError(f"micro-op must be a number of 32 bits, not {word!r}")
        return Uop(**{field.name: _extract(field, word) for field in self._layouts[Format.UOP]})

    def encode_uops(self, uops: Sequence[Uop] | tuple[ArrayLike, ArrayLike, ArrayLike]) -> NDArray[np.uint32]:
        """Return the words of micro-ops, uint32 of shape (N,), from `Uop`s or from the arrays (dst, src, wgt)."""
        if len(uops) == 3 and not any(isinstance(item, Uop) for item in uops):
            values: Sequence[Any] = uops
        else:
            values = [[getattr(uop, name) for uop in uops] for name in ("dst", "src", "wgt")]
        columns = [np.asarray(value) for value in values]
        words = np.zeros(np.broadcast_shapes(*(column.shape for column in columns)), dtype=np.int64)
        for field, column in zip(self._layouts[Format.UOP], columns, strict=True):
            if column.size:
                if column.dtype.kind not in "iu":
                    raise EncodingError(f"UOP {field.name} must be integers, not {column.dtype}")
                if column.min() < field.low or column.max() > field.high:
                    wrong = column[(column < field.low) | (column > field.high)]
                    raise _out_of_range("UOP", field, int(wrong.flat[0]))
            words |= column.astype(np.int64, copy=False) << field.lsb
        return words.astype("<u4")

    def decode_uops(self, words: NDArray[np.uint32] | bytes) -> NDArray[np.void]:
        """Return a structured array of shape (N,) with int64 columns dst, src and wgt, from words or 4 N bytes."""
        if isinstance(words, bytes):
            if len(words) % 4:
                raise EncodingError(f"micro-ops must be a multiple of 4 bytes, not {len(words)}")
            words = np.frombuffer(words, dtype="<u4")
        layout = self._layouts[Format.UOP]
        rows = np.zeros(words.shape, dtype=[(field.name, np.int64) for field in layout])
        for field in layout:
            rows[field.name] = _extract_column(field, words.astype(np.uint64))
        return rows


def _out_of_range(subject: str, field: FieldPosition, value: object) -> EncodingError:
    rule = f"fit {field.width} bits ({field.low} to {field.high})"
    return EncodingError(f"{subject} {field.name} must {rule}, not {value!r}")


def _insert(subject: str, field: FieldPosition, value: Any) -> int:
    try:
        number = index(value)
    except TypeError:
        raise EncodingError(f"{subject} {field.name} must be an integer, not {value!r}") from None
    if not field.low <= number <= field.high:
        raise _out_of_range(subject, field, number)
    return (number & ((1 << field.width) - 1)) << field.lsb


def _extract(field: FieldPosition, word: int) -> Any:
    value = (word >> field.lsb) & ((1 << field.width) - 1)
    return value - (1 << field.width) if value > field.high else value


def _extract_column(field: FieldPosition, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    mask = np.uint64((1 << field.width) - 1)
    values = ((words >> np.uint64(field.lsb % 64)) & mask).astype(np.int64)
    return np.where(values > field.high, values - (1 << field.width), values)


def _words(program: NDArray[np.uint64] | bytes) -> NDArray[np.uint64]:
    if isinstance(program, bytes):
        if len(program) % 16:
            raise EncodingError(f"instructions must be a multiple of 16 bytes, not {len(program)}")
        return np.frombuffer(program, dtype="<u8").reshape(-1, 2)
    if program.ndim != 2 or program.shape[1] != 2 or program.dtype != np.uint64:
        raise EncodingError(f"instructions must be uint64 of shape (N, 2), not {program.dtype} of {program.shape}")
    return program
