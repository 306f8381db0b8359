"""The compiled memory: against the model in Python, and its own leaps over many cycles against single ones."""

from __future__ import annotations

import copy
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.vta_sim.cycle.mirror import Mirror
from tests.vta_sim.rtl.master import BUS_BYTES, Master, address, write_words
from tests.vta_sim.rtl.memory_traffic import ERRORS, READ_AT, WRITE_AT, enqueue, fill, random_timing
from vta_sim.cycle.dram import FOREVER
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import Answer, AxiMemory, Shown
from vta_sim.timing import MemoryTiming


class Pair:
    """The model in Python and the compiled memory, which must answer alike."""

    def __init__(self, timing: MemoryTiming) -> None:
        self.model = AxiMemory(fill(Memory()), bus_bytes=BUS_BYTES, max_beats=16, timing=timing, errors=ERRORS)
        self.mirror = Mirror(timing, errors=ERRORS)

    @property
    def idle(self) -> bool:
        return self.model.idle

    def step(self, shown: Shown) -> Answer:
        answer = self.model.step(shown)
        if answer.r is not None:
            answer = answer._replace(r=answer.r._replace(data=0))
        assert self.mirror.step(shown) == answer
        return answer


@pytest.mark.parametrize("seed", range(100))
def test_without_stalls_it_is_the_memory_model_cycle_by_cycle(seed: int) -> None:
    rng = random.Random(seed)
    port: Any = Pair(random_timing(rng))
    master = Master(port, pause=rng.choice([0, 0.3, 0.8]), seed=seed)
    enqueue(master, rng, 20)
    master.run()
    assert len(master.written) == 20
    assert sum(word.last for _, word in master.read) == 20


class Leaper(Mirror):
    """In each cycle in which a leap is allowed it is tried on a copy, against as many single cycles."""

    leaps = 0

    def step(self, shown: Shown) -> Answer:
        answer = self.answer()
        still = not (shown.ar is not None and answer.ar_ready) and not (shown.aw is not None and answer.aw_ready)
        last = shown.w is not None and shown.w.last
        if still and shown.r_ready and shown.b_ready and not last:
            self._leap(shown, answer)
        return super().step(shown)

    def _leap(self, shown: Shown, answer: Answer) -> None:
        w_valid = shown.w is not None
        cycles = min(self.steady(w_valid), 100)
        before = copy.deepcopy(self.dram)
        for length in {1, cycles // 2, cycles} if cycles else ():
            if length:
                self.skip(w_valid, length)
                leapt, self.dram = self.dram, copy.deepcopy(before)
                for _ in range(length):
                    assert self.answer() == answer
                    super().step(shown)
                for mine, other in zip(leapt, self.dram, strict=True):
                    assert np.array_equal(mine, other)
                self.dram = copy.deepcopy(before)
        self.leaps += cycles > 0


@pytest.mark.parametrize("seed", range(60))
def test_a_leap_is_as_many_cycles(seed: int) -> None:
    rng = random.Random(seed)
    port: Any = Leaper(random_timing(rng), errors=ERRORS if seed % 2 else None)
    master = Master(port, pause=rng.choice([0, 0, 0.3]), seed=seed)
    enqueue(master, rng, 20)
    for _ in range(600):
        master.step()
    assert port.leaps > 20


def counted(timing: MemoryTiming, *, reads: int, writes: int) -> tuple[int, int]:
    """(cycles, calls) of bursts of 16 words, when every leap is made that there is."""
    memory = Mirror(timing)
    master = Master(memory)  # type: ignore[arg-type]  # a stand-in with the methods that are used
    master.ar += [address(READ_AT, 16)] * reads
    master.aw += [address(WRITE_AT, 16)] * writes
    master.w += write_words(bytes(128)) * writes
    calls = 0
    while master.ar or master.aw or master.w or memory.steady(False) != FOREVER:
        answer = memory.answer()
        word = master.w[0] if master.w else None
        taken = [bool(queue) and ready for queue, ready in ((master.ar, answer.ar_ready), (master.aw, answer.aw_ready))]
        cycles = 0 if any(taken) or (word and word.last) else memory.steady(word is not None)
        calls += 1
        assert calls < 1000
        if not cycles:
            master.step()
            continue
        assert cycles < FOREVER
        for _ in range(cycles if word and answer.w_ready else 0):
            master.w.popleft()
        memory.skip(word is not None, cycles)
        master.cycle += cycles
        master.answer = memory.answer()
    return master.cycle, calls


def test_a_stream_of_words_is_few_leaps() -> None:
    """Of a burst of 16 words: its first 15, its last, and its address."""
    cycles, calls = counted(MemoryTiming(latency=30), reads=20, writes=0)
    assert cycles == 1 + 1 + 30 + 20 * 16
    assert calls <= 20 * 3 + 2
    cycles, calls = counted(MemoryTiming(latency=30), reads=0, writes=20)
    assert cycles == 1 + 20 * 16 + 30 + 1
    assert calls <= 20 * 4 + 2


@pytest.mark.parametrize("stalls", [0.01, 0.5])
def test_there_are_no_leaps_over_stalls(stalls: float) -> None:
    memory = Mirror(MemoryTiming(stalls=stalls))
    for _ in range(10):
        memory.step(Shown())
        assert memory.steady(False) == 0


def test_a_memory_at_rest_rests_for_ever_but_in_its_first_cycle() -> None:
    memory = Mirror(MemoryTiming())
    assert memory.steady(False) == 0
    memory.step(Shown())
    assert memory.steady(False) == FOREVER


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_channels_pause_as_often_as_they_should_and_independently(seed: int) -> None:
    memory = Mirror(MemoryTiming(stalls=0.25, seed=seed))
    cycles = 8000
    seen: Counter[tuple[bool, ...]] = Counter()
    memory.step(Shown())
    for _ in range(cycles):
        answer = memory.step(Shown())
        seen[answer.ar_ready, answer.aw_ready, answer.w_ready] += 1
    for ready, count in seen.items():
        expected = cycles * np.prod([0.75 if channel else 0.25 for channel in ready])
        assert abs(count - expected) < 5 * np.sqrt(expected)
    assert len(seen) == 8


def test_seeds_differ_and_repeat() -> None:
    def pattern(seed: int) -> list[bool]:
        memory = Mirror(MemoryTiming(stalls=0.5, seed=seed))
        return [memory.step(Shown()).ar_ready for _ in range(100)]

    assert pattern(0) == pattern(0)
    assert len({tuple(pattern(seed)) for seed in range(20)}) == 20


def test_interleaving_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Interleaved answers must be left to Amaranth's simulator, not asked of"):
        Mirror(MemoryTiming(interleave=True))
