"""What an object file defines for others and expects of them: the symbol table of an ELF file (System V gABI)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SYMBOL_TABLE = 2
_LOCAL = 0
_UNDEFINED = 0


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """Names, sorted."""

    defined: tuple[str, ...]
    undefined: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Section:
    type: int
    offset: int
    nbytes: int
    link: int


def symbols(code: bytes) -> Symbols:
    """Those of a little-endian object file that are not local to it."""
    wide = code[4] == 2
    sections = list(_sections(code, wide))
    defined: set[str] = set()
    undefined: set[str] = set()
    for table in (section for section in sections if section.type == _SYMBOL_TABLE):
        names = sections[table.link].offset
        size = 24 if wide else 16
        for at in range(table.offset + size, table.offset + table.nbytes, size):  # the first is none
            if wide:
                name, info, _, section = struct.unpack_from("<IBBH", code, at)
            else:
                name, _, _, info, _, section = struct.unpack_from("<IIIBBH", code, at)
            if info >> 4 != _LOCAL:
                text = code[names + name : code.index(0, names + name)].decode()
                (undefined if section == _UNDEFINED else defined).add(text)
    return Symbols(defined=tuple(sorted(defined)), undefined=tuple(sorted(undefined)))


def _sections(code: bytes, wide: bool) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", code, 40) if wide else struct.unpack_from("<I", code, 32)
    size, count = struct.unpack_from("<HH", code, 58 if wide else 46)
    for at in range(start, start + size * count, size):
        fields = struct.unpack_from("<IIQQQQI" if wide else "<IIIIIII", code, at)
        yield _Section(type=fields[1], offset=fields[4], nbytes=fields[5], link=fields[6])
