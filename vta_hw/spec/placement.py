"""Where to put the instructions of a third-party stream that does not say where they were.

They must not lie in memory the stream reads or writes: reads of memory nobody filled give zero (VTA spec 3.7), and
what is dumped afterwards must hold no instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Opcode, codes_of
from vta_hw.spec.program_parts import ADDRESS_LIMIT, ProgramError

Interval = tuple[int, int]

PAGE_BYTES: Final = 4096
MOST_ELEMENTS: Final = 1 << 16
"""In any scratchpad: what the 16 bits of `sram_base` address."""

_AT_ZERO: Final[Mapping[MemoryType, int]] = MappingProxyType({})


def place_instructions(
    config: VTAConfig, insns: bytes, *, bases: Mapping[MemoryType, int] = _AT_ZERO, taken: Iterable[Interval] = ()
) -> int:
    """Lowest page address, not 0, where `insns` collide with nothing. Raises ProgramError if there is none.

    bases: byte address in the base register of each scratchpad, by its plain memory type, 0 where none is given.
    taken: (first byte, byte after the last) of memory that is used besides the stream's own loads and stores.
    """
    pages = merged([*touched(config, insns, bases), *taken])
    address = PAGE_BYTES
    for begin, end in pages:
        if address + len(insns) <= begin:
            break
        address = max(address, -(-end // PAGE_BYTES) * PAGE_BYTES)
    if address + len(insns) > ADDRESS_LIMIT:
        raise ProgramError(
            f"Memory below 2**32 must have room for {len(insns)} bytes of instructions; give their address"
        )
    return address


def touched(config: VTAConfig, insns: bytes, bases: Mapping[MemoryType, int]) -> list[Interval]:
    """(first byte, byte after the last) that each LOAD and STORE may reach; rows less than a page apart are one."""
    rows = ISA(config).decode_fields(insns)
    moves = (rows["opcode"] == Opcode.LOAD) | (rows["opcode"] == Opcode.STORE)
    rows = rows[moves & (rows["x_size"] > 0) & (rows["y_size"] > 0)]
    intervals: list[Interval] = []
    for memory_type in codes_of(MemoryType, config.isa):
        # A store is of the OUT buffer whatever its memory type says.
        stores = rows["opcode"] == Opcode.STORE
        chosen = rows[stores if memory_type is MemoryType.OUT else ~stores & (rows["memory_type"] == memory_type)]
        intervals += _spans(chosen, bases.get(memory_type.scratchpad, 0), config.dram_elem_bytes(memory_type))
    return intervals


def stored(config: VTAConfig, insns: bytes, base: int = 0) -> list[Interval]:
    """(first byte, byte after the last) of what STOREs write, ascending, disjoint; `base` is in the base register."""
    rows = ISA(config).decode_fields(insns)
    rows = rows[(rows["opcode"] == Opcode.STORE) & (rows["memory_type"] == MemoryType.OUT)]
    rows = rows[(rows["x_size"] > 0) & (rows["y_size"] > 0)]
    return merged(_spans(rows, base, config.dram_elem_bytes(MemoryType.OUT), gap=0))


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Ascending, disjoint, none touching the next."""
    result: list[Interval] = []
    for begin, end in sorted(intervals):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def _spans(rows: NDArray[np.void], base: int, element_bytes: int, gap: int = PAGE_BYTES - 1) -> list[Interval]:
    """Rows that are at most `gap` bytes apart are one."""
    spans: list[Interval] = []
    for row in rows:
        first, height, width, stride = (int(row[name]) for name in ("dram_base", "y_size", "x_size", "x_stride"))
        if height * width > MOST_ELEMENTS:
            continue  # no scratchpad holds that much: executing it is refused, and says why
        begin, pitch, length = base + first * element_bytes, stride * element_bytes, width * element_bytes
        if pitch - length <= gap:
            spans.append((begin, begin + (height - 1) * pitch + length))
        else:
            spans += [(begin + y * pitch, begin + y * pitch + length) for y in range(height)]
    return spans
