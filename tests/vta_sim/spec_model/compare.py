"""Runs a program on the toolkit's functional simulator and lists what differs from the model.

The only module here that imports the toolkit, and only through its public interface.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout, pipeline
from tests.vta_sim.spec_model.dram import PAGE, Dram
from tests.vta_sim.spec_model.generate import ANY_SIZE, Generator, RandomProgram, Size, random_config
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT, ModelConfig
from tests.vta_sim.spec_model.machine import Machine
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.functional.report import Report
from vta_sim.memory import Memory

PADS = {
    UOP: MemoryType.UOP,
    WGT: MemoryType.WGT,
    INP: MemoryType.INP,
    ACC: MemoryType.ACC,
    OUT: MemoryType.OUT,
}


def toolkit_config(config: ModelConfig) -> VTAConfig:
    return VTAConfig.from_json(dict(config.to_tvm()))


def toolkit_memory(dram: Dram) -> Memory:
    memory = Memory()
    for number, page in dram.pages.items():
        memory.write(number * PAGE, page)
    return memory


def write_words(memory: Memory, address: int, words: NDArray[np.uint64]) -> None:
    memory.write(address, np.ascontiguousarray(words, "<u8").view(np.uint8).reshape(-1))


def launch(simulator: FunctionalSimulator, program: RandomProgram) -> Report:
    """Put the instructions of `program` below its arena and run them."""
    write_words(simulator.memory, program.insn_address, program.words)
    names = {UOP: "uop", INP: "inp", WGT: "wgt", ACC: "acc", OUT: "out"}
    return simulator.launch(
        program.insn_address,
        len(program.words),
        bases=Bases(**{names[memory]: base for memory, base in program.bases.items()}),
        tokens=as_tokens(program.tokens_before),
        allow_leftover_tokens=True,
    )


def as_tokens(counts: tuple[int, ...]) -> Tokens:
    return Tokens(**dict(zip(pipeline.QUEUES, counts, strict=True)))


def differences(
    machine: Machine, left: pipeline.Result, simulator: FunctionalSimulator, report: Report
) -> Iterator[str]:
    """Sentences on DRAM, scratchpads, tokens and statistics; nothing when the two agree."""
    for number, page in sorted(machine.dram.pages.items()):
        if not np.array_equal(simulator.memory.read(number * PAGE, PAGE), page):
            bad = np.flatnonzero(simulator.memory.read(number * PAGE, PAGE) != page)
            yield f"DRAM page {number * PAGE:#x} differs in {len(bad)} bytes, first at offset {bad[0]}"
    for memory, name in PADS.items():
        mine, theirs = machine.pads[memory].reshape(-1), scratchpad(simulator, memory)
        if memory == UOP:
            mine = mine & 0xFFFFFFFF
        if not np.array_equal(mine, theirs):
            bad = np.flatnonzero(mine != theirs)
            size = int(np.prod(machine.config.shape(memory), dtype=np.int64))
            element, scalar = divmod(int(bad[0]), size)
            yield (
                f"{name.name} differs in {len(bad)} scalars, first in element {element} at {scalar}: "
                f"model {mine[bad[0]]}, toolkit {theirs[bad[0]]}"
            )
    if as_tokens(left.tokens) != report.tokens_left:
        yield f"tokens left: model {left.tokens}, toolkit {report.tokens_left}"
    for counter, value in dataclasses.asdict(left.statistics).items():
        if getattr(report.counters, counter) != value:
            yield f"{counter}: model {value}, toolkit {getattr(report.counters, counter)}"


def scratchpad(simulator: FunctionalSimulator, memory: int) -> NDArray[np.int64]:
    """All scalars of a scratchpad; micro-ops are unsigned words."""
    return np.asarray(simulator.scratchpad(PADS[memory])).reshape(-1).astype(np.int64)


def model_config(config: VTAConfig) -> ModelConfig:
    """What the model knows of a configuration: all that programs depend on, and the address width."""
    return ModelConfig.from_tvm(config.to_dict())


def random_program(
    seed: int,
    *,
    config: VTAConfig | None = None,
    length: int | None = None,
    size: Size = ANY_SIZE,
    balanced: bool = False,
) -> RandomProgram:
    """The program of a seed: contents, tokens, base registers and whatever is not given follow from it.

    config: the machine, or None to draw one. length: instructions, or None to draw it, besides the four loads at the
    beginning and those that move tokens or load what a REQUANT needs. size: limits of each instruction. balanced:
    whether there are no tokens before and none left.
    """
    rng = random.Random(seed)
    machine = random_config(rng) if config is None else model_config(config)
    before = tuple(rng.choice([0, 0, 1, 3]) for _ in range(4)) if rng.random() < 0.3 else (0, 0, 0, 0)
    generator = Generator(
        rng,
        machine,
        tokens_before=(0, 0, 0, 0) if balanced else before,
        with_bases=rng.random() < 0.3,
        size=size,
    )
    drawn = rng.choice([5, 12, 25, 40, 80])
    return generator.generate(drawn if length is None else length, drain=rng.random() < 0.8 or balanced)


def check(seed: int) -> list[str]:
    """Differences between the model and the toolkit on one random program."""
    return check_program(random_program(seed), seed)


def check_program(program: RandomProgram, seed: int) -> list[str]:
    """Differences between the model, which follows an order drawn from `seed`, and the toolkit."""
    machine = Machine(program.config, program.dram.copy())
    left = pipeline.run(
        machine, program.words, tokens=program.tokens_before, bases=program.bases, order=random.Random(seed)
    )
    simulator = FunctionalSimulator(toolkit_config(program.config), memory=toolkit_memory(program.dram))
    try:
        report = launch(simulator, program)
    except Exception as error:  # noqa: BLE001  a crash is a difference like any other; the fuzzer prints its seed
        return [f"the toolkit raised {type(error).__name__}: {error}"]
    return list(differences(machine, left, simulator, report))


def summary(program: RandomProgram) -> str:
    config = program.config
    shape = f"{config.batch}x{config.block_in}x{config.block_out}"
    isa = ", extended" if config.extended else ""
    return f"{len(program.words)} instructions on {shape}, {config.bits(layout.INP)}/{config.bits(WGT)} bit{isa}"
