"""Programs that went wrong somewhere: bits flipped, fields at their limits, instructions swapped or replaced by noise.

Model and toolkit must stop at the same instruction for the same reason, or both reach the same end. Without tokens
that order everything the answer depends on who goes first: both let the earliest instruction of those that can run go.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from tests.vta_sim.spec_model import compare, layout, pipeline
from tests.vta_sim.spec_model.generate import RandomProgram
from tests.vta_sim.spec_model.layout import Fields, ModelConfig
from tests.vta_sim.spec_model.machine import Machine, ModelError
from vta_sim.errors import Deadlock, MissingFinish, OutOfRange, SimulationError, UnknownOpcode
from vta_sim.functional.engine import FunctionalSimulator

MAX_STEPS = 20_000
"""A damaged trip count may ask for billions of micro-ops."""
ERRORS: dict[str, type[SimulationError]] = {
    "out of range": OutOfRange,
    "deadlock": Deadlock,
    "unknown opcode": UnknownOpcode,
    "unknown memory type": UnknownOpcode,
    "unknown ALU operation": UnknownOpcode,
}


def check_damaged(seed: int) -> list[str]:
    """Differences between the model and the toolkit on the program of a seed, damaged."""
    program = damaged(seed)
    machine = Machine(program.config, program.dram.copy())
    machine.dram.write(program.insn_address, program.words.view(np.uint8).reshape(-1))  # a LOAD may now hit them
    left: pipeline.Result | None = None
    mine: tuple[type[SimulationError], int | None] | None = None
    try:
        left = pipeline.run(machine, program.words, tokens=program.tokens_before, bases=program.bases)
    except ModelError as error:
        mine = (ERRORS[error.kind], error.index)
    if left is not None and layout.FINISH not in (program.words[:, 0] & 7).tolist():
        mine = (MissingFinish, None)
    simulator = FunctionalSimulator(
        compare.toolkit_config(program.config), memory=compare.toolkit_memory(program.dram)
    )
    try:
        report = compare.launch(simulator, program)
    except SimulationError as error:
        return [] if mine == (type(error), error.insn) else [f"model {mine}, toolkit {type(error)}: {error}"]
    if mine is not None or left is None:
        return [f"model {mine}, toolkit nothing to complain of"]
    return list(compare.differences(machine, left, simulator, report))


def damaged(seed: int) -> RandomProgram:
    rng = random.Random(seed)
    program = compare.random_program(seed)
    insns = layout.from_words(program.words)
    for _ in range(rng.choice([1, 1, 2, 4])):
        _damage(rng, program.config, insns)
    for index, insn in enumerate(insns):
        if _steps(layout.decode(program.config, insn)) > MAX_STEPS:
            insns[index] = layout.encode(program.config, layout.LOAD)
    return dataclasses.replace(program, words=layout.to_words(insns))


def _damage(rng: random.Random, config: ModelConfig, insns: list[int]) -> None:
    index = rng.randrange(len(insns))
    match rng.randrange(5):
        case 0:
            insns[index] = rng.getrandbits(128)
        case 1:
            insns[index] ^= 1 << rng.randrange(128)
        case 2:
            insns[index] ^= 1 << rng.randrange(10)  # opcode, flags, memory type
        case 3:
            bit, width = rng.choice(list(layout.slots_of(config, insns[index] & 7).values()))
            ones = (1 << width) - 1
            insns[index] = insns[index] & ~(ones << bit) | rng.choice([0, ones, rng.getrandbits(width)]) << bit
        case _:
            other = rng.randrange(len(insns))
            insns[index], insns[other] = insns[other], insns[index]


def _steps(insn: Fields) -> int:
    if "iter_out" not in insn:
        return 0
    return insn["iter_out"] * insn["iter_in"] * max(insn["uop_end"] - insn["uop_bgn"], 0)
