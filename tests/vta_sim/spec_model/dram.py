"""Sparse byte memory in pages of 4096 bytes; what was never written reads as zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAGE = 4096


class Dram:
    """Pages by page number, created by the first write."""

    def __init__(self) -> None:
        self.pages: dict[int, NDArray[np.uint8]] = {}

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        data = np.zeros(nbytes, np.uint8)
        done = 0
        while done < nbytes:
            number, offset = divmod(address + done, PAGE)
            chunk = min(PAGE - offset, nbytes - done)
            if number in self.pages:
                data[done : done + chunk] = self.pages[number][offset : offset + chunk]
            done += chunk
        return data

    def write(self, address: int, data: NDArray[np.uint8]) -> None:
        done = 0
        while done < len(data):
            number, offset = divmod(address + done, PAGE)
            chunk = min(PAGE - offset, len(data) - done)
            page = self.pages.setdefault(number, np.zeros(PAGE, np.uint8))
            page[offset : offset + chunk] = data[done : done + chunk]
            done += chunk

    def copy(self) -> Dram:
        twin = Dram()
        twin.pages = {number: page.copy() for number, page in self.pages.items()}
        return twin
