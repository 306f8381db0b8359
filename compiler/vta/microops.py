"""Micro-op kernels: stored once in DRAM, kept in the micro-op buffer while they fit.

Kernels are appended to one DRAM area and never overwritten, so that a launch may use more of them than the buffer holds
(the TVM runtime breaks there: VTA spec 8.2). Within a launch a kernel that is still resident is not loaded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.vta.tokens import Work
from vta_hw.spec import isa
from vta_hw.spec.isa import MemoryType, Module


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
        self._owner: list[bytes | None] = [None] * depth  # of each micro-op of the buffer
        self._next = 0

    @property
    def area(self) -> NDArray[np.uint32]:
        """All kernels, as they lie in DRAM."""
        return np.concatenate([np.zeros(0, np.uint32), *self._area])

    def forget(self) -> None:
        """A launch begins: the buffer holds nothing that may be relied on."""
        self._resident.clear()
        self._owner = [None] * self.depth
        self._next = 0

    def place_all(self, kernels: Sequence[NDArray[np.uint32]]) -> list[Residence] | None:
        """Make room for different kernels at once, or None if they do not fit together."""
        if sum(map(len, kernels)) > self.depth:
            return None
        missing = [kernel for kernel in kernels if kernel.tobytes() not in self._resident]
        if self._next + sum(map(len, missing)) > self.depth:
            self.forget()
        placed = [self.place(kernel) for kernel in kernels]
        if any(kernel.tobytes() not in self._resident for kernel in kernels):
            # One that was there already had to make room for another.
            self.forget()
            placed = [self.place(kernel) for kernel in kernels]
        return placed

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
        for evicted in set(self._owner[begin:end]):
            if evicted is not None:
                first, last = self._resident.pop(evicted)
                self._owner[first:last] = [None] * (last - first)
        self._owner[begin:end] = [key] * length
        self._resident[key] = (begin, end)
        self._next = end
        return Residence(begin, self._stored[key])


def place_kernels(works: Sequence[Work], uops: MicroOps, area: int) -> list[Work]:
    """Give the micro-ops of every instruction a place in the buffer, and load them.

    area: the element of DRAM at which the area of kernels begins. All are loaded before the first instruction if the
    buffer holds them together, because the compute unit waits for each load; otherwise where they are needed.
    """
    kernels = {work.kernel.tobytes(): work.kernel for work in works if work.kernel is not None}
    together = uops.place_all(list(kernels.values()))
    placed = [] if together is None else _loads(together, list(kernels.values()), area)
    begins = {} if together is None else {key: one.begin for key, one in zip(kernels, together, strict=True)}
    for work in works:
        if work.kernel is None:
            placed.append(work)
            continue
        key = work.kernel.tobytes()
        if together is None:
            residence = uops.place(work.kernel)
            placed += _loads([residence], [work.kernel], area)
            begins[key] = residence.begin
        assert isinstance(work.insn, isa.Gemm | isa.GemmOverwrite | isa.Alu)
        insn = replace(work.insn, uop_bgn=begins[key], uop_end=begins[key] + len(work.kernel))
        placed.append(Work(insn, work.module, reads=work.reads, writes=work.writes))
    return placed


def _loads(residences: Sequence[Residence], kernels: Sequence[NDArray[np.uint32]], area: int) -> list[Work]:
    """LOADs of what is not in the buffer yet: one for all that is next to each other there and in DRAM."""
    return [
        Work(
            isa.Load(
                memory_type=MemoryType.UOP, sram_base=begin, dram_base=area + source, y_size=1, x_size=n, x_stride=n
            ),
            Module.COMPUTE,
        )
        for begin, source, n in _runs(residences, kernels)
    ]


def _runs(residences: Sequence[Residence], kernels: Sequence[NDArray[np.uint32]]) -> Iterator[tuple[int, int, int]]:
    """First micro-op in the buffer and in DRAM, and length."""
    run: tuple[int, int, int] | None = None
    for residence, kernel in zip(residences, kernels, strict=True):
        if residence.load_from is None:
            continue
        if run is not None and (run[0] + run[2], run[1] + run[2]) == (residence.begin, residence.load_from):
            run = (run[0], run[1], run[2] + len(kernel))
            continue
        if run is not None:
            yield run
        run = (residence.begin, residence.load_from, len(kernel))
    if run is not None:
        yield run
