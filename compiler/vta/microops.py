"""Micro-op kernels: stored once in DRAM, kept in the micro-op buffer while they fit.

Kernels are appended to one DRAM area and never overwritten, so that a launch may use more of them than the buffer holds
(the TVM runtime breaks there: VTA spec 8.2). Within a launch a kernel that is still resident is not loaded again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Residence:
    """Where a kernel is: its first micro-op in the buffer, and in the DRAM area if it has to be loaded first."""

    begin: int
    load_from: int | None


class MicroOps:
    """The micro-ops of a program, and what the buffer of `depth` micro-ops holds at this point of it."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._area: list[NDArray[np.uint32]] = []
        self._area_length = 0
        self._stored: dict[bytes, int] = {}
        self._resident: dict[bytes, tuple[int, int]] = {}
        self._next = 0

    @property
    def area(self) -> NDArray[np.uint32]:
        """All kernels, as they lie in DRAM."""
        return np.concatenate([np.zeros(0, np.uint32), *self._area])

    def forget(self) -> None:
        """A launch begins: the buffer holds nothing that may be relied on."""
        self._resident.clear()
        self._next = 0

    def place(self, kernel: NDArray[np.uint32]) -> Residence:
        """Make room for `kernel` (at most `depth` micro-ops), evicting the oldest where it goes."""
        key, length = kernel.tobytes(), len(kernel)
        if key in self._resident:
            return Residence(self._resident[key][0], None)
        if key not in self._stored:
            self._stored[key] = self._area_length
            self._area.append(kernel)
            self._area_length += length
        begin = self._next if self._next + length <= self.depth else 0
        end = begin + length
        self._resident = {k: (b, e) for k, (b, e) in self._resident.items() if e <= begin or b >= end}
        self._resident[key] = (begin, end)
        self._next = end
        return Residence(begin, self._stored[key])
