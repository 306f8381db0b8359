"""Which bytes of memory a program asks for: what its machine may read, and what it may write."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.device import PAGE_BYTES, Bases
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Opcode, codes_of


class Footprint:
    """A set of byte addresses."""

    def __init__(self) -> None:
        self._pages: dict[int, NDArray[np.bool_]] = {}

    def add(self, address: int, nbytes: int) -> None:
        """Put `nbytes` addresses from `address` into the set."""
        end = address + nbytes
        while address < end:
            number, offset = divmod(address, PAGE_BYTES)
            count = min(PAGE_BYTES - offset, end - address)
            self._pages.setdefault(number, np.zeros(PAGE_BYTES, np.bool_))[offset : offset + count] = True
            address += count

    def mask(self, address: int, nbytes: int) -> int:
        """A bit for each of `nbytes` addresses of one page, the lowest for `address`: whether it is in the set."""
        page = self._pages.get(address // PAGE_BYTES)
        if page is None:
            return 0
        offset = address % PAGE_BYTES
        return int.from_bytes(np.packbits(page[offset : offset + nbytes], bitorder="little").tobytes(), "little")


def footprints(
    config: VTAConfig, words: NDArray[np.uint64], insn_address: int, bases: Bases
) -> tuple[Footprint, Footprint]:
    """What a launch of instructions, uint64 [N][2], may read and write."""
    reads, writes = Footprint(), Footprint()
    reads.add(insn_address, 16 * len(words))
    limit = 1 << config.address_bits
    sources = {
        int(code): (bases.by_memory[code.scratchpad], config.dram_elem_bytes(code))
        for code in codes_of(MemoryType, config.isa)
    }
    rows = ISA(config).decode_fields(words)
    columns = ("opcode", "memory_type", "dram_base", "y_size", "x_size", "x_stride")
    for opcode, memory, first, y_size, x_size, stride in zip(*(rows[name].tolist() for name in columns), strict=True):
        if opcode == Opcode.STORE:
            base, unit, target = bases.out, config.out_elem_bytes, writes
        elif opcode == Opcode.LOAD and memory in sources:
            base, unit, target = *sources[memory], reads
        else:
            continue
        for line in range(y_size if x_size else 0):
            target.add((base + (first + line * stride) * unit) % limit, x_size * unit)
    return reads, writes
