"""The random programs of the differential tests: three hundred, short enough for Amaranth's simulator."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np

from tests.vta_sim.rtl.machines import MACHINES, Case, execute
from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.generate import RandomProgram, Size
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.timing import MemoryTiming

PROGRAMS = dict.fromkeys(MACHINES, 22) | {"default": 14}
"""How many for each machine; the default one is the largest and slowest."""

QUEUE_DEPTHS = {"bus 512, batch 2": 4, "scratchpads of two elements": 2}
"""Machines whose instruction queues are always full."""

SIZE = Size(micro_ops=30, transfer_bytes=256)
LENGTHS = (5, 8, 12)
"""Instructions of a program, besides those that every one has."""


def random_cases() -> Iterator[Case]:
    """All of them."""
    for machine, count in PROGRAMS.items():
        yield from (random_case(machine, number) for number in range(count))


def random_case(machine: str, number: int) -> Case:
    """One of the programs of a machine."""
    return _of_seed(machine, _seeds(machine)[number])


@functools.cache
def _seeds(machine: str) -> Sequence[int]:
    """Seeds whose programs compute something that can differ."""
    seeds = itertools.count(1000 * list(MACHINES).index(machine))
    good = (seed for seed in seeds if _computes(_of_seed(machine, seed)))
    return tuple(itertools.islice(good, PROGRAMS[machine]))


def _of_seed(machine: str, seed: int) -> Case:
    return draw(machine, MACHINES[machine], seed, queue_depth=QUEUE_DEPTHS.get(machine, 512))


def _computes(case: Case) -> bool:
    """Whether GEMM, ALU and STORE all have work, and OUT is not zero in the end."""
    simulator = FunctionalSimulator(case.config, memory=compare.toolkit_memory(case.dram))
    counters = [report.counters for report in execute(case, simulator)]
    names = ("gemm_counter", "alu_counter", "out_store_nbytes")
    work = all(any(getattr(counted, name) for counted in counters) for name in names)
    return work and bool(simulator.scratchpad(MemoryType.OUT).any())


def draw(
    machine: str,
    config: VTAConfig,
    seed: int,
    *,
    queue_depth: int,
    size: Size = SIZE,
    lengths: Sequence[int] = LENGTHS,
) -> Case:
    """The program of a seed, with a memory and a division into launches that follow from it, too."""
    rng = random.Random(seed)
    program = compare.random_program(seed, config=config, length=rng.choice(lengths), size=size)
    return Case(
        name=f"{machine}, seed {seed}",
        config=config,
        dram=program.dram,
        launches=_launches(rng, program),
        insn_address=program.insn_address,
        bases=program.bases,
        tokens_before=program.tokens_before,
        timing=_timing(rng, seed),
        queue_depth=queue_depth,
        random=True,
    )


def _launches(rng: random.Random, program: RandomProgram) -> tuple[np.ndarray, ...]:
    """The program, or two halves of it of which the first ends with another FINISH."""
    if rng.random() < 0.75:
        return (program.words,)
    cut = rng.randrange(1, len(program.words))
    finish = layout.to_words([layout.encode(program.config, layout.FINISH)])
    return np.vstack([program.words[:cut], finish]), program.words[cut:]


def _timing(rng: random.Random, seed: int) -> MemoryTiming:
    return MemoryTiming(
        latency=rng.choice([0, 0, 1, 2, 5, 17, 40, 100]),
        outstanding=rng.choice([16, 16, 3, 1]),
        stalls=rng.choice([0.0, 0.0, 0.2, 0.5]),
        interleave=rng.random() < 0.5,
        seed=seed,
    )
