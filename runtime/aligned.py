"""Memory for arrays of any type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CACHE_LINE = 64


def aligned_zeros(nbytes: int) -> NDArray[np.uint8]:
    """uint8 [nbytes] that starts at a cache line, so that views of any type and vector loads are aligned."""
    return _from_line(np.zeros(nbytes + _CACHE_LINE, np.uint8), nbytes)


def aligned_empty(nbytes: int) -> NDArray[np.uint8]:
    """The same with any contents."""
    return _from_line(np.empty(nbytes + _CACHE_LINE, np.uint8), nbytes)


def _from_line(raw: NDArray[np.uint8], nbytes: int) -> NDArray[np.uint8]:
    begin = -raw.ctypes.data % _CACHE_LINE
    return raw[begin : begin + nbytes]
