"""The compiled memory behind the interface of `AxiMemory`, for tests that go cycle by cycle."""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np
from numpy.typing import NDArray

from vta_sim.cycle.dram import Answer, Dram, clock, look, new_dram, skip, steady
from vta_sim.rtl import axi_memory
from vta_sim.rtl.axi_memory import ReadWord, Response, Shown
from vta_sim.timing import MemoryTiming


@numba.njit
def _look(dram: Dram) -> Answer:
    return look(dram)


@numba.njit
def _clock(dram: Dram, shown: NDArray[np.int64]) -> None:
    ar, aw, rest = shown[:4], shown[4:8], shown[8:]
    answer = look(dram)
    clock(dram, answer, ar[0], ar[1], ar[2], ar[3], aw[0], aw[1], aw[2], aw[3], rest[0], rest[1], rest[2], rest[3])


@numba.njit
def _steady(dram: Dram, w_valid: int) -> int:
    return steady(dram, look(dram), w_valid)


@numba.njit
def _skip(dram: Dram, w_valid: int, cycles: int) -> None:
    skip(dram, look(dram), w_valid, cycles)


class Mirror:
    """`vta_sim.cycle.dram`, stepped like `AxiMemory`; words that are read have no data."""

    def __init__(self, timing: MemoryTiming, *, bus_bytes: int = 8, errors: Mapping[range, int] | None = None) -> None:
        self.dram = new_dram(timing, bus_bytes, errors)

    def step(self, shown: Shown) -> axi_memory.Answer:
        """What the memory shows in the next cycle."""
        _clock(self.dram, np.array(_numbers(shown), np.int64))
        return self.answer()

    def answer(self) -> axi_memory.Answer:
        """What the memory shows in this cycle."""
        answer = _look(self.dram)
        return axi_memory.Answer(
            bool(answer.ar_ready),
            bool(answer.aw_ready),
            bool(answer.w_ready),
            ReadWord(0, answer.r_resp, answer.r_last, answer.r_id) if answer.r_valid else None,
            Response(answer.b_resp, answer.b_id) if answer.b_valid else None,
        )

    def steady(self, w_valid: bool) -> int:
        return int(_steady(self.dram, int(w_valid)))

    def skip(self, w_valid: bool, cycles: int) -> None:
        _skip(self.dram, int(w_valid), cycles)


def _numbers(shown: Shown) -> list[int]:
    numbers = []
    for address in (shown.ar, shown.aw):
        numbers += [0, 0, 0, 0] if address is None else [1, address.addr, address.len, address.id]
    word = [0, 0] if shown.w is None else [1, shown.w.last]
    return [*numbers, *word, int(shown.r_ready), int(shown.b_ready)]
