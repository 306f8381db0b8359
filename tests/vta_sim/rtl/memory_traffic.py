"""Random bursts and random timings, for memories that are compared cycle by cycle."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from tests.vta_sim.rtl.master import Master, address, write_words
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import DECERR, SLVERR
from vta_sim.timing import MemoryTiming

READ_AT: Final = 0x1000
WRITE_AT: Final = 0x2000
REGION_BYTES: Final = 0x1000

ERRORS: Final[Mapping[range, int]] = {
    range(READ_AT + 0x100, READ_AT + 0x111): SLVERR,
    range(READ_AT + 0x110, READ_AT + 0x118): DECERR,
    range(WRITE_AT + 0x13, WRITE_AT + 0x14): DECERR,
    range(WRITE_AT + 0x38, WRITE_AT + 0x60): SLVERR,
}
"""Ranges that begin and end within words, and two that meet in one."""


def random_timing(rng: random.Random, *, stalls: float = 0.0) -> MemoryTiming:
    """Any but an interleaved one, for a bus of eight bytes."""
    return MemoryTiming(
        latency=rng.choice([0, 0, 1, 2, 5, 17, 40]),
        outstanding=rng.choice([1, 2, 3, 16, 32]),
        read_bytes=rng.choice([None, None, 1, 2, 4, 8]),
        write_bytes=rng.choice([None, None, 1, 2, 4, 8]),
        shared_bus=rng.random() < 0.5,
        stalls=stalls,
        seed=rng.getrandbits(16),
    )


def fill(memory: Memory) -> Memory:
    """Random bytes in both regions, the same ones always."""
    memory.write(READ_AT, random.Random(1).randbytes(WRITE_AT + REGION_BYTES - READ_AT))
    return memory


def enqueue(master: Master, rng: random.Random, bursts: int) -> None:
    """Bursts that read one region and write the other."""
    for _ in range(bursts):
        beats = rng.randint(1, 16)
        master.ar.append(address(READ_AT + 8 * rng.randrange(0, REGION_BYTES // 8 - 16), beats, rng.randrange(3)))
        beats = rng.randint(1, 16)
        # Many go where they overlap each other and the errors.
        place = rng.randrange(0, rng.choice([16, REGION_BYTES // 8 - 16]))
        master.aw.append(address(WRITE_AT + 8 * place, beats, rng.randrange(3)))
        master.w += write_words(rng.randbytes(8 * beats), rng.choice([0xFF, 0xFF, rng.getrandbits(8)]))
