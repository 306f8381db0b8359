"""The tables of an instruction set manual, as Markdown, for one configuration."""

from __future__ import annotations

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.fields import FIELDS, FORMAT_OF, Field, FieldPosition, Format, positions
from vta_hw.spec.instructions import Opcode, codes_of


def manual(config: VTAConfig) -> str:
    """Return a Markdown page: for each format its opcodes, and a table of bits, fields, codes and meanings."""
    sections = [f"# Instruction set of {config.name}"]
    sections += [_section(kind, config) for kind in FIELDS]
    return "\n\n".join(sections) + "\n"


def _section(kind: Format, config: VTAConfig) -> str:
    size = 32 if kind is Format.UOP else 128
    users = [opcode.name for opcode in codes_of(Opcode, config.isa) if FORMAT_OF[opcode] is kind]
    title = f"## {' and '.join(users)}" if users else "## Micro-op"
    lines = [title, "", "| bits | width | field | meaning |", "|---|---|---|---|"]
    end = 0
    for field, position in zip(FIELDS[kind], positions(FIELDS[kind], config), strict=True):
        if position.lsb > end:
            lines.append(_unused(end, position.lsb))
        lines.append(_row(field, position, config))
        end = position.lsb + position.width
    if end < size:
        lines.append(_unused(end, size))
    return "\n".join(lines)


def _row(field: Field, position: FieldPosition, config: VTAConfig) -> str:
    known = codes_of(field.codes, config.isa) if field.codes is not None else ()
    codes = ", ".join(f"{code.name} {code.value}" for code in known)
    meaning = f"{field.meaning}: {codes}" if codes else field.meaning
    return f"| {_bits(position.lsb, position.lsb + position.width)} | {position.width} | `{field.name}` | {meaning} |"


def _unused(begin: int, end: int) -> str:
    return f"| {_bits(begin, end)} | {end - begin} | | unused |"


def _bits(begin: int, end: int) -> str:
    return f"[{end - 1}:{begin}]" if end - begin > 1 else f"[{begin}]"
