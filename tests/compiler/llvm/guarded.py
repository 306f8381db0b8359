"""Arrays with canaries before and after, to catch stores outside a buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MARGIN = 256  # bytes, several of the widest vectors
CANARY = 0x3C


@dataclass(frozen=True)
class Guarded:
    memory: np.ndarray[Any, np.dtype[np.uint8]]
    array: np.ndarray[Any, Any]

    @property
    def is_intact(self) -> bool:
        return bool((self.memory[:MARGIN] == CANARY).all() and (self.memory[-MARGIN:] == CANARY).all())


def guarded(array: np.ndarray[Any, Any]) -> Guarded:
    """A copy of `array`, aligned to no more than its element, between canaries."""
    skew = array.itemsize
    memory = np.full(MARGIN + skew + array.nbytes + MARGIN, CANARY, np.uint8)
    copy = memory[MARGIN + skew : MARGIN + skew + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return Guarded(memory, copy)
