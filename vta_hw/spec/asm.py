"""Instructions and micro-ops as text, in both directions, derived from the field table.

One line is one instruction or micro-op::

    load.inp sram_base=0x10 dram_base=0x200 y_size=1 x_size=4 x_stride=4 push_next   # a comment
    gemm uop_end=4 iter_out=1 iter_in=1 pop_prev push_next
    alu.shr uop_end=4 iter_out=1 iter_in=1 use_imm imm=8
    store.out dram_base=0x300 y_size=1 x_size=4 x_stride=4 pop_prev push_prev
    finish
    uop dst=3 src=1 wgt=2

The word after the dot is the memory type or ALU operation, or its number (`load.6`). Fields that are not named are 0,
flags are bare words, numbers are decimal or, after 0x, hexadecimal. An instruction with an unassigned opcode is written
`op.5 raw=0x...`. Comments begin with `#` or `;`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import FIELDS, FORMAT_OF, Field, Format
from vta_hw.spec.instructions import Code, Insn, InstructionSet, Opcode, Unknown, Uop, codes_of
from vta_hw.spec.isa import CLASS_OF, ISA, EncodingError, opcode_of

_UOP: Final = "uop"
_UNKNOWN: Final = "op"
_OPCODES: Final[Mapping[str, Opcode]] = MappingProxyType({opcode.name.lower(): opcode for opcode in Opcode})
_HEADER_NAMES: Final = frozenset(field.name for field in FIELDS[Format.HEADER])
_RAW: Final = Field(name="raw", width=lambda _: 121, hexadecimal=True, meaning="bits 127 to 7")


class AsmError(ValueError):
    """A line that is not an instruction or micro-op of the configuration; `line` is its number, from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class _SyntaxError(Exception):
    pass


def assemble(text: str, config: VTAConfig) -> tuple[list[Insn], list[Uop]]:
    """Return the instructions and the micro-ops of a text, each in the order of their lines; raises `AsmError`."""
    isa = ISA(config)
    insns: list[Insn] = []
    uops: list[Uop] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.split("[#;]", line, maxsplit=1)[0].lower().split()
        if not words:
            continue
        try:
            item = _assemble(words, config.isa)
            if isinstance(item, Uop):
                isa.encode_uop(item)
                uops.append(item)
            else:
                isa.encode(item)
                insns.append(item)
        except (_SyntaxError, EncodingError) as error:
            raise AsmError(number, str(error)) from None
    return insns, uops


def disassemble(insn: Insn) -> str:
    """Return one line for an instruction, without an end of line."""
    if isinstance(insn, Unknown):
        return _line(f"{_UNKNOWN}.{insn.opcode}", insn, (*FIELDS[Format.HEADER], _RAW))
    opcode = Opcode(opcode_of(insn))
    fields = FIELDS[FORMAT_OF[opcode]]
    mnemonic = opcode.name.lower()
    selector = _selector(fields)
    if selector is not None:
        mnemonic = f"{mnemonic}.{_code_name(selector, getattr(insn, selector.name))}"
    return _line(mnemonic, insn, fields)


def disassemble_uop(uop: Uop) -> str:
    """Return one line for a micro-op, without an end of line."""
    return _line(_UOP, uop, FIELDS[Format.UOP])


def disassemble_program(insns: Iterable[Insn], uops: Iterable[Uop] = ()) -> str:
    """Return a text that `assemble` turns into the same instructions and micro-ops; comments count them."""
    lines = [f"{disassemble_uop(uop)}  # {place}" for place, uop in enumerate(uops)]
    lines += [f"{disassemble(insn)}  # {place}" for place, insn in enumerate(insns)]
    return "".join(f"{line}\n" for line in lines)


def _selector(fields: Iterable[Field]) -> Field | None:
    """Return the field that the word after the mnemonic's dot gives."""
    return next((field for field in fields if field.codes is not None and field.name != "opcode"), None)


def _codes(field: Field, isa: str) -> tuple[Code, ...]:
    return codes_of(field.codes, isa) if field.codes is not None else ()


def _code_name(field: Field, value: int) -> str:
    # A plain number may be unknown to the machine, so that only TVM's have a name.
    known = (value,) if isinstance(value, Code) else _codes(field, InstructionSet.TVM)
    return next((code.name.lower() for code in known if code == value), str(int(value)))


def _line(mnemonic: str, item: Insn | Uop, fields: Iterable[Field]) -> str:
    plain = [field for field in fields if field.codes is None]
    words = [mnemonic]
    for field in plain:
        value = getattr(item, field.name)
        if value and not field.flag:
            words.append(f"{field.name}={value:#x}" if field.hexadecimal else f"{field.name}={value}")
    flags = [field.name for field in plain if field.flag and getattr(item, field.name)]
    # What the instruction does comes before the tokens it waits for and gives.
    words += sorted(flags, key=lambda name: name in _HEADER_NAMES)
    return " ".join(words)


def _assemble(words: list[str], isa: str) -> Insn | Uop:
    mnemonic, dot, code = words[0].partition(".")
    known = (*(opcode.name.lower() for opcode in codes_of(Opcode, isa)), _UNKNOWN, _UOP)
    if mnemonic not in known:
        raise _SyntaxError(f"mnemonic must be one of {', '.join(known)}, not {mnemonic!r}")
    if mnemonic == _UNKNOWN:
        values = _operands(mnemonic, words[1:], (*FIELDS[Format.HEADER], _RAW))
        return Unknown(opcode=_number(f"{mnemonic} opcode", code), **values)
    fields = FIELDS[Format.UOP if mnemonic == _UOP else FORMAT_OF[_OPCODES[mnemonic]]]
    values = _operands(mnemonic, words[1:], fields)
    selector = _selector(fields)
    if selector is not None:
        values[selector.name] = _code(f"{mnemonic} {selector.name}", _codes(selector, isa), code)
    elif dot:
        raise _SyntaxError(f"{mnemonic} must stand alone, not with {'.' + code!r}")
    return Uop(**values) if mnemonic == _UOP else CLASS_OF[_OPCODES[mnemonic]](**values)


def _code(subject: str, codes: Iterable[Code], text: str) -> int:
    names = {code.name.lower(): code for code in codes}
    if text in names:
        return names[text]
    if not text.isdecimal():
        raise _SyntaxError(f"{subject} must be one of {', '.join(names)} or a number, not {text!r}")
    value = _number(subject, text)
    return next((code for code in names.values() if code == value), value)


def _operands(mnemonic: str, words: Iterable[str], fields: Iterable[Field]) -> dict[str, Any]:
    plain = {field.name: field for field in fields if field.codes is None}
    values: dict[str, Any] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if name not in plain:
            raise _SyntaxError(f"{mnemonic} operand must be one of {', '.join(plain)}, not {name!r}")
        if name in values:
            raise _SyntaxError(f"{mnemonic} operand must be given once, not {name!r} again")
        if plain[name].flag:
            if equals:
                raise _SyntaxError(f"{mnemonic} {name} must be a bare word, not {word!r}")
            values[name] = True
        else:
            values[name] = _number(f"{mnemonic} {name}", number)
    return values


def _number(subject: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise _SyntaxError(f"{subject} must be a number, not {text!r}") from None
