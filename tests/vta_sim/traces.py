"""Launches that trace well: a program by hand with its samples, and the spans of samples found cycle by cycle."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.vta.streams import code
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import ISA, Module, module_of
from vta_sim.trace import COUNTERS
from vta_sim.trace_build import SAMPLED

TINY = preset("tiny")

SOURCE = """
load.uop y_size=1 x_size=1
load.inp y_size=1 x_size=1
load.wgt y_size=1 x_size=1 push_next
gemm uop_end=1 iter_out=1 iter_in=2 pop_prev
alu.add uop_end=1 iter_out=1 iter_in=2 use_imm push_next
gemm uop_end=1 iter_out=1 iter_in=0
store.out y_size=1 x_size=1 pop_prev push_prev
load.acc y_size=1 x_size=1 pop_next
finish
"""


def words(source: str = SOURCE, config: VTAConfig = TINY) -> NDArray[np.uint64]:
    """uint64 [N][2]."""
    return np.frombuffer(code(config, source), "<u8").reshape(-1, 2)


def bits(*names: str) -> int:
    """A sample in which these are 1."""
    return sum(1 << SAMPLED.index(name) for name in names)


def drawn(seed: int, cycles: int) -> list[int]:
    """A sample for each cycle, at random but no more strobes than `SOURCE` has instructions for."""
    rng = random.Random(seed)
    left = {
        "dispatch": 9,
        "next_gemm": 1,
        "next_alu": 1,
        "loaded": 2,
        **{f"{what}_{unit}": count for what in ("begin", "end") for unit, count in _COUNTS.items()},
    }
    begun = dict.fromkeys(_COUNTS, 0)
    samples = []
    previous = 0
    for _ in range(cycles):
        sample = bits(*(name for name in COUNTERS if rng.random() < 0.4)) if rng.random() < 0.5 else previous
        previous = sample
        for name in [*left]:
            what, _, unit = name.partition("_")
            may = what != "end" or left[name] > left[f"begin_{unit}"]
            if left[name] and may and rng.random() < 0.3:
                left[name] -= 1
                begun[unit] = begun.get(unit, 0) + 1
                sample |= bits(name)
        samples.append(sample)
    return samples


_COUNTS = {"load": 2, "compute": 6, "store": 1}


def changes_of(samples: Sequence[int]) -> NDArray[np.int64]:
    """The changes, int64 [K][2], of a sample for each cycle."""
    rows = [(k, sample) for k, sample in enumerate(samples) if k == 0 or sample != samples[k - 1]]
    return np.array(rows, np.int64).reshape(-1, 2)


def owners(samples: Sequence[int], config: VTAConfig = TINY) -> Iterator[tuple[int, str, int]]:
    """(cycle, counter, instruction) of every bit of a counter in the samples of `SOURCE`: the slow and obvious way."""
    insns = ISA(config).decode_program(words().tobytes())
    of_unit = {m.name.lower(): [k for k, insn in enumerate(insns) if module_of(insn) is m] for m in Module}
    done = dict.fromkeys(SAMPLED, 0)

    def owner(counter: str) -> int:
        unit, _, what = counter.partition("_")
        match unit, what:
            case (("load" | "store"), ("busy" | "wait_memory")):
                return nth(of_unit[unit], done[f"end_{unit}"])
            case (("load" | "store" | "compute"), ("wait_token" | "wait_load" | "wait_store")):
                return nth(of_unit[unit], done[f"begin_{unit}"])
            case "gemm", _:
                return nth([3], done["next_gemm"] - 1)
            case "alu", _:
                return nth([4], done["next_alu"] - 1)
            case "compute", "load_busy":
                return nth([0, 7], done["loaded"])
            case "fetch", _:
                return nth(range(9), done["dispatch"])
        return -1

    for cycle, sample in enumerate(samples):
        yield from ((cycle, counter, owner(counter)) for counter in COUNTERS if sample & bits(counter))
        for name in SAMPLED:
            done[name] += sample >> SAMPLED.index(name) & 1


def nth(places: Sequence[int], number: int) -> int:
    """The place of that number, -1 if there is none."""
    return places[number] if 0 <= number < len(places) else -1
