"""Numbers of 4, 8 and 16 bits in memory; the lowest address holds the lowest bits (VTA spec 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner


@inner
def unpack(source: NDArray[np.uint8], bits: int, count: int, target: NDArray[np.int16]) -> None:
    """Put the first `count` signed numbers of `source` into `target`; `count` is even for 4 bits."""
    if bits == 8:
        for k in range(count):
            target[k] = np.int8(source[k])
    elif bits == 16:
        for k in range(count):
            target[k] = np.int16(np.uint16(source[2 * k]) | np.uint16(source[2 * k + 1]) << 8)
    else:
        for k in range(count // 2):
            both = np.int8(source[k])
            target[2 * k] = np.int8(both << 4) >> 4
            target[2 * k + 1] = both >> 4


@inner
def pack(
    source: NDArray[np.int32] | NDArray[np.int16],
    begin: int,
    bits: int,
    count: int,
    target: NDArray[np.uint8],
    position: int,
) -> None:
    """Write the low bits of source[begin : begin + count] to `target` as its numbers from `position` on."""
    if bits == 8:
        for k in range(count):
            target[position + k] = np.uint8(source[begin + k])
    elif bits == 16:
        for k in range(count):
            value = source[begin + k]
            target[2 * (position + k)] = np.uint8(value)
            target[2 * (position + k) + 1] = np.uint8(value >> 8)
    else:
        for k in range(0, count, 2):
            low, high = source[begin + k], source[begin + k + 1]
            target[(position + k) // 2] = np.uint8((low & 15) | (high & 15) << 4)
