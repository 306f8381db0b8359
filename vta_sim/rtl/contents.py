"""Scratchpads as arrays, from the rows of their memories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from amaranth.hdl import MemoryData
from numpy.typing import NDArray

from vta_hw.rtl.scratchpad import Geometry
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType

_POISON_BYTE = 0x5A


class Pad(Protocol):
    """A scratchpad as it looks from inside; see `Geometry` for where an element lies."""

    geometry: Geometry
    banks: Sequence[MemoryData]


def fill_with_pattern(memory_type: MemoryType, pad: Pad) -> None:
    """Let a scratchpad start with the pattern of the functional simulator instead of zeros; before it is elaborated."""
    byte = 0xFF if memory_type is MemoryType.UOP else _POISON_BYTE
    row = int.from_bytes(bytes([byte]) * (pad.geometry.elem_bits // 8), "little")
    for bank in pad.banks:
        bank.init = [row] * bank.depth


def contents(
    config: VTAConfig, memory_type: MemoryType, pad: Pad, row_of: Callable[[MemoryData, int], int]
) -> NDArray[np.generic]:
    """A scratchpad in the layout of `FunctionalSimulator.scratchpad`; `row_of` reads one row of a memory."""
    geometry = pad.geometry
    nbytes = geometry.elem_bits // 8
    data = b"".join(
        row_of(pad.banks[element % geometry.banks], element // geometry.banks).to_bytes(nbytes, "little")
        for element in range(geometry.depth)
    )
    raw = np.frombuffer(data, np.uint8)
    match memory_type.scratchpad:
        case MemoryType.UOP:
            return raw.view("<u4").copy()
        case MemoryType.INP:
            return _numbers(raw, config.inp_bits).reshape(-1, config.batch, config.block_in)
        case MemoryType.WGT:
            return _numbers(raw, config.wgt_bits).reshape(-1, config.block_out, config.block_in)
        case MemoryType.ACC:
            return raw.view("<i4").reshape(-1, config.batch, config.block_out).copy()
        case _:
            return _numbers(raw, config.out_bits).reshape(-1, config.batch, config.block_out)


def _numbers(raw: NDArray[np.uint8], bits: int) -> NDArray[np.int16]:
    """Signed numbers of 4, 8 or 16 bits, lowest bits first."""
    if bits == 16:
        return raw.view("<i2").copy()
    if bits == 8:
        return raw.view(np.int8).astype(np.int16)
    both = np.stack([raw << 4, raw & 0xF0], axis=-1).view(np.int8) >> 4
    return both.reshape(-1).astype(np.int16)
