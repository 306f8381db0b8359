"""Writes the recorded streams of tests/vta_sim/data: `python -m tests.vta_sim.spec_model.fixtures`.

Each looks like what another compiler might hand over, and each leans on something that a careful reader of the
specification may still get wrong. The model executes them; nobody else's answer is in the files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.vta_sim.spec_model import pipeline
from tests.vta_sim.spec_model.dram import PAGE
from tests.vta_sim.spec_model.generate import Generator, RandomProgram
from tests.vta_sim.spec_model.layout import ModelConfig
from tests.vta_sim.spec_model.machine import Machine
from tests.vta_sim.spec_model.stream import Stream

DATA = Path(__file__).parent.parent / "data"


DEFAULT = ModelConfig()
NARROW = ModelConfig(
    log_inp_width=2,
    log_wgt_width=2,
    log_batch=1,
    log_block_in=3,
    log_block_out=3,
    log_uop_buff=8,
    log_inp_buff=8,
    log_wgt_buff=9,
    log_acc_buff=11,
)
WIDE = ModelConfig(
    log_inp_width=4,
    log_wgt_width=3,
    log_block_in=5,
    log_block_out=2,
    log_uop_buff=10,
    log_inp_buff=10,
    log_wgt_buff=10,
    log_acc_buff=9,
)
BATCHED = ModelConfig(log_batch=2, log_block_in=3, log_block_out=3, log_inp_buff=16, log_wgt_buff=16, log_acc_buff=18)
TINY = ModelConfig(
    log_batch=2,
    log_block_in=1,
    log_block_out=4,
    log_uop_buff=6,
    log_inp_buff=6,
    log_wgt_buff=7,
    log_acc_buff=10,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make one stream."""

    name: str
    seed: int
    length: int
    pages: int = 7
    tokens_before: tuple[int, ...] = (0, 0, 0, 0)
    drain: bool = True
    config: ModelConfig = DEFAULT


RECIPES = (
    Recipe(name="default_short", seed=1, length=20),
    Recipe(name="default_long", seed=2, length=300, pages=10),
    Recipe(name="tokens_before", seed=3, length=40, tokens_before=(2, 1, 3, 1)),
    Recipe(name="tokens_left", seed=4, length=40, tokens_before=(1, 0, 2, 0), drain=False),
    Recipe(name="batch4_block8", seed=5, length=80, config=BATCHED),
    Recipe(name="int4_batch2", seed=6, length=80, config=NARROW),
    Recipe(name="int16_block32x4", seed=7, length=80, config=WIDE),
    Recipe(name="tiny_buffers", seed=8, length=120, config=TINY),
)


def record(program: RandomProgram) -> Stream:
    """The stream of a launch: pages that never held anything and are not stored to stay out of it."""
    machine = Machine(program.config, program.dram.copy())
    left = pipeline.run(machine, program.words, tokens=program.tokens_before)
    numbers = sorted(machine.dram.pages)
    return Stream(
        insns=program.words,
        page_addr=np.array(numbers, np.uint64) * np.uint64(PAGE),
        before=np.stack([program.dram.read(number * PAGE, PAGE) for number in numbers]),
        after=np.stack([machine.dram.pages[number] for number in numbers]),
        vta_config=dict(program.config.to_tvm()),
        tokens_before=program.tokens_before,
        tokens_after=left.tokens,
        counts={},
    )


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for recipe in RECIPES:
        generator = Generator(
            random.Random(recipe.seed), recipe.config, tokens_before=recipe.tokens_before, pages=recipe.pages
        )
        stream = record(generator.generate(recipe.length, drain=recipe.drain))
        path = DATA / f"{recipe.name}.npz"
        stream.save(path)
        changed = int((stream.before != stream.after).any(axis=1).sum())
        print(f"{path.name}: {len(stream.insns)} instructions, {changed} pages changed, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
