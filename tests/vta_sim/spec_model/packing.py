"""Scalars in DRAM bytes: little endian, below 8 bits the lowest lane first (VTA spec 3.8 and 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


def wrap(values: Array, bits: int) -> Array:
    """The low `bits` bits, read as two's complement."""
    half = 1 << bits - 1
    wrapped: Array = (values + half & (1 << bits) - 1) - half
    return wrapped


def unpack(data: NDArray[np.uint8], bits: int) -> Array:
    """Signed scalars of a byte string whose length is a multiple of the scalar, or a whole number of lanes."""
    if bits >= 8:
        return data.view(f"<i{bits // 8}").astype(np.int64)
    lanes = np.arange(0, 8, bits)
    fields = data[:, None].astype(np.int64) >> lanes & (1 << bits) - 1
    return wrap(fields.reshape(-1), bits)


def pack(values: Array, bits: int) -> NDArray[np.uint8]:
    """The inverse of `unpack`; high bits are dropped."""
    if bits >= 8:
        return values.reshape(-1).astype(f"<i{bits // 8}").view(np.uint8)
    lanes = np.arange(0, 8, bits)
    fields = (values.reshape(-1, 8 // bits) & (1 << bits) - 1) << lanes
    data: NDArray[np.uint8] = fields.sum(axis=1).astype(np.uint8)
    return data
