"""Random programs behind random memories, for two simulators that count cycles.

Most are correct, and must leave the same in every memory. Some are damaged: one has token flags that were flipped, so
that it may wait for ever or race; one reads or writes where memory answers with errors. Of these the registers must
agree, but what a race leaves, or an error, is not compared.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.rtl.machines import MACHINES, Case
from tests.vta_sim.rtl.random_cases import LENGTHS, QUEUE_DEPTHS, SIZE, draw
from tests.vta_sim.spec_model.generate import Size
from vta_hw.spec.config import VTAConfig
from vta_sim.rtl.axi_memory import DECERR, SLVERR
from vta_sim.timing import MemoryTiming

ARENAS: Final = (0x0010_0000, 0x2000_0000, 0xFFF0_0000)
"""Where the memory of a program may begin; its instructions lie 64 pages below."""
_INSN_BYTES: Final = 64 * 4096

ERRORS: Final[Mapping[range, int]] = {
    bad: code
    for arena in ARENAS
    for bad, code in (
        (range(arena + 0x1800, arena + 0x1900), SLVERR),
        (range(arena + 0x3004, arena + 0x3005), DECERR),
        (range(arena + 0x5000, arena + 0x6000), SLVERR),
        # An instruction that long programs have.
        (range(arena - _INSN_BYTES + 16 * 30, arena - _INSN_BYTES + 16 * 31), DECERR),
    )
}
"""Where the memory of the machine `WITH_ERRORS` answers with errors."""

WITH_ERRORS: Final = "tiny, with errors"
TIMED_MACHINES: Final[Mapping[str, VTAConfig]] = {**MACHINES, WITH_ERRORS: MACHINES["tiny"]}

LARGE: Final = Size(micro_ops=300, transfer_bytes=4096)
LARGE_LENGTHS: Final = (5, 12, 25, 40)


@dataclass(frozen=True, kw_only=True)
class TimedCase:
    """A case, the errors of its memory, and whether its results can be told in advance."""

    case: Case
    errors: Mapping[range, int]
    has_results: bool


def timed_case(machine: str, seed: int, *, small: bool = False) -> TimedCase:
    """The case of a seed on one of `TIMED_MACHINES`; small: for Amaranth's simulator, too."""
    rng = random.Random(f"{machine}, {seed}")
    size, lengths = rng.choice([(SIZE, LENGTHS), (LARGE, LARGE_LENGTHS)])
    if small:
        size, lengths = SIZE, LENGTHS
    config = TIMED_MACHINES[machine]
    queue_depth = QUEUE_DEPTHS.get(machine, 512)
    case = draw(machine, config, seed, queue_depth=queue_depth, size=size, lengths=lengths)
    case = replace(case, timing=random_timing(rng, config.bus_bits // 8))
    if machine == WITH_ERRORS:
        return TimedCase(case=case, errors=ERRORS, has_results=False)
    if rng.random() < 0.15:
        launches = tuple(_flipped(rng, words) for words in case.launches)
        return TimedCase(case=replace(case, launches=launches), errors={}, has_results=False)
    return TimedCase(case=case, errors={}, has_results=True)


def random_timing(rng: random.Random, bus_bytes: int) -> MemoryTiming:
    """Any that a compiled memory on such a bus can have."""
    widths = [None, None, *(1 << log for log in range(bus_bytes.bit_length()))]
    return MemoryTiming(
        latency=rng.choice([0, 1, 2, 3, rng.randint(4, 40), rng.randint(4, 100)]),
        outstanding=rng.choice([1, 2, 3, 4, 8, 16, 16, rng.randint(1, 32)]),
        read_bytes=rng.choice(widths),
        write_bytes=rng.choice(widths),
        shared_bus=rng.random() < 0.4,
        stalls=rng.choice([0.0, 0.0, 0.0, 0.05, 0.3, 0.6]),
        seed=rng.getrandbits(32),
    )


def _flipped(rng: random.Random, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A program, uint64 [N][2], with one or two token flags flipped, which are the bits 3 to 6 of an instruction."""
    words = words.copy()
    for _ in range(rng.randint(1, 2)):
        words[rng.randrange(len(words)), 0] ^= np.uint64(1 << rng.randint(3, 6))
    return words
