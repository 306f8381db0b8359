"""Bus words that answer with an error: while a launch runs they read as zero, and they are not written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vta_sim.memory import Memory
from vta_sim.pages import PAGE_BYTES
from vta_sim.timing import error_words


class BadWords:
    """The contents of these words of a memory, which are kept here while the words are hidden.

    errors: byte ranges that answer with an error; a bus word that one touches is bad.
    """

    def __init__(self, memory: Memory, errors: Mapping[range, int], bus_bytes: int) -> None:
        self._memory = memory
        self._ranges = [
            range(first * bus_bytes, behind * bus_bytes) for first, behind, _ in error_words(errors, bus_bytes)
        ]
        self._kept = {part: memory.read(part.start, len(part)) for part in self._parts()}

    def hide(self) -> None:
        """Let the words be zero, whatever has been written there since."""
        for part in self._parts():
            self._memory.write(part.start, np.zeros(len(part), np.uint8))

    def show(self) -> None:
        """Put the contents back."""
        for part in self._parts():
            self._memory.write(part.start, self._contents(part))

    def _contents(self, part: range) -> NDArray[np.uint8]:
        kept = self._kept.get(part)
        return np.zeros(len(part), np.uint8) if kept is None else kept

    def _parts(self) -> list[range]:
        """The bad words of each page that exists; all others are zero anyway."""
        pages = [range(page, page + PAGE_BYTES) for page in self._memory.page_addresses().tolist()]
        both = (range(max(bad.start, page.start), min(bad.stop, page.stop)) for bad in self._ranges for page in pages)
        return [part for part in both if len(part)]
