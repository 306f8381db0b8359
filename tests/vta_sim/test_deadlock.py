"""A program that deadlocks stops every engine with the same diagnosis, and those with time say since when."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vta.programs import vta_program
from tests.vta.streams import code
from tests.vta_sim.rtl.machines import INSN_AT, MACHINES, TINY, simulator
from vta.api import CompiledProgram
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Module
from vta_hw.spec.program import Layer, Tokens
from vta_sim.cycle.engine import CycleSimulator
from vta_sim.deadlock import Wait
from vta_sim.errors import Deadlock
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.memory import Memory
from vta_sim.rtl.compiled import CompiledSimulator
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming

NO_TOKENS = Tokens()
NO_DELAY = MemoryTiming()

ALL_WAIT = """
load.inp push_next
load.uop pop_prev pop_next
load.inp pop_next
store.out pop_prev
finish
"""
RING = "load.inp pop_next push_next\nload.uop pop_prev push_prev\nfinish"
AFTER_WORK = """
load.uop y_size=1 x_size=1 x_stride=1
alu.add uop_end=1 iter_out=1 iter_in=50 use_imm push_next
store.out y_size=1 x_size=4 x_stride=4 pop_prev push_prev
alu.add uop_end=1 iter_out=1 iter_in=1 use_imm pop_next
alu.add uop_end=1 iter_out=1 iter_in=1 use_imm pop_next
load.inp pop_next
finish pop_prev
"""


def words_of(source: str, config: VTAConfig) -> NDArray[np.uint64]:
    return ISA(config).encode_program(assemble(source, config)[0])


def on_functional(source: str, config: VTAConfig, tokens: Tokens = NO_TOKENS) -> Deadlock:
    words, memory = words_of(source, config), Memory()
    memory.write(INSN_AT, words)
    with pytest.raises(Deadlock) as caught:
        FunctionalSimulator(config, memory=memory).launch(INSN_AT, len(words), tokens=tokens)
    return caught.value


def on_amaranth(source: str, config: VTAConfig, tokens: Tokens = NO_TOKENS) -> Deadlock:
    return on_timed(simulator(config), source, tokens)


@functools.lru_cache(maxsize=1)
def cycles(config: VTAConfig) -> CycleSimulator:
    return CycleSimulator(config)


@functools.lru_cache(maxsize=1)
def compiled(config: VTAConfig) -> CompiledSimulator:
    return CompiledSimulator(config)


def on_timed(
    machine: AmaranthSimulator | CompiledSimulator | CycleSimulator,
    source: str,
    tokens: Tokens,
    timing: MemoryTiming = NO_DELAY,
) -> Deadlock:
    words, memory = words_of(source, machine.config), Memory()
    memory.write(INSN_AT, words)
    machine.reset(memory=memory, timing=timing)
    with pytest.raises(Deadlock) as caught:
        machine.launch(INSN_AT, len(words), tokens=tokens)
    return caught.value


def test_the_diagnosis_names_units_instructions_queues() -> None:
    error = on_functional(ALL_WAIT, TINY)
    assert error.waits == (
        Wait(insn=1, disassembly="load.uop pop_prev pop_next", module=Module.COMPUTE, queues=("s2g",)),
        Wait(insn=2, disassembly="load.inp pop_next", module=Module.LOAD, queues=("g2l",)),
        Wait(insn=3, disassembly="store.out pop_prev", module=Module.STORE, queues=("g2s",)),
    )
    assert str(error) == (
        "Instruction 1 (load.uop pop_prev pop_next): every token that is waited for must come, but "
        "instruction 1 (load.uop pop_prev pop_next) waits for a token of s2g, "
        "instruction 2 (load.inp pop_next) waits for a token of g2l, "
        "instruction 3 (store.out pop_prev) waits for a token of g2s"
    )
    assert (error.insn, error.disassembly) == (1, "load.uop pop_prev pop_next")


@pytest.mark.parametrize("machine", ["overlap", "tiny"])
@pytest.mark.parametrize("source", [ALL_WAIT, RING, AFTER_WORK], ids=["all wait", "ring", "after work"])
@pytest.mark.parametrize("tokens", [NO_TOKENS, Tokens(g2s=1)], ids=["no tokens", "a token"])
def test_every_engine_gives_the_same_diagnosis(machine: str, source: str, tokens: Tokens) -> None:
    config = MACHINES[machine]
    expected, timed = on_functional(source, config, tokens), on_amaranth(source, config, tokens)
    assert tuple(replace(wait, since=None) for wait in timed.waits) == expected.waits
    assert all(wait.since is not None for wait in timed.waits)
    if machine == "tiny":
        for other in (compiled(config), cycles(config)):
            assert on_timed(other, source, tokens).waits == timed.waits


@pytest.mark.parametrize("latency", [0, 7, 100])
def test_all_engines_with_a_clock_agree_since_when(latency: int) -> None:
    timing = MemoryTiming(latency=latency)
    for source in (ALL_WAIT, RING, AFTER_WORK):
        expected = on_timed(simulator(TINY), source, NO_TOKENS, timing)
        for other in (compiled(TINY), cycles(TINY)):
            found = on_timed(other, source, NO_TOKENS, timing)
            assert found.waits == expected.waits
            assert str(found) == str(expected)


def test_since_is_when_the_last_wait_of_the_unit_began() -> None:
    """Whoever waits once waits in all cycles that its counter has; whoever waited before does not."""
    error = on_amaranth(AFTER_WORK, TINY)
    report = simulator(TINY).report()
    since = {wait.module: wait.since for wait in error.waits}
    assert since.keys() == {Module.LOAD, Module.COMPUTE}
    assert since[Module.LOAD] == report.cycles - report.counters["load_wait_token"]
    assert since[Module.COMPUTE] is not None
    # Compute has also waited for the store, before: twice for s2g, with an instruction in between.
    assert report.cycles - report.counters["compute_wait_store"] < since[Module.COMPUTE] < report.cycles
    assert str(error) == (
        "Instruction 4 (alu.add uop_end=1 iter_out=1 iter_in=1 use_imm pop_next): every token that is waited for must "
        "come, but instruction 4 (alu.add uop_end=1 iter_out=1 iter_in=1 use_imm pop_next) waits since cycle "
        f"{since[Module.COMPUTE]} for a token of s2g, instruction 5 (load.inp pop_next) waits since cycle "
        f"{since[Module.LOAD]} for a token of g2l"
    )


def test_two_launches_are_told_apart() -> None:
    first = on_amaranth(ALL_WAIT, TINY)
    machine = simulator(TINY)
    with pytest.raises(Deadlock) as caught:
        machine.launch(INSN_AT, len(words_of(ALL_WAIT, TINY)))
    assert caught.value.waits == first.waits


@pytest.mark.parametrize("engine", ["functional", "amaranth"])
def test_the_layer_is_named_where_the_program_knows_it(engine: str) -> None:
    config = VTAConfig()
    program = vta_program(config)
    stuck = code(config, "load.uop\nload.uop pop_prev\nload.inp pop_next\nload.uop\nload.uop\nfinish")
    layers = (Layer(name="conv", insn_begin=1, insn_end=2), Layer(name="pool", insn_begin=3, insn_end=4))
    compiled = CompiledProgram(replace(program, insns=stuck, layers=layers))
    with pytest.raises(Deadlock) as caught:
        compiled.run(np.zeros((2, 16, 1, 1), np.float32), engine)
    assert [(wait.insn, wait.layer) for wait in caught.value.waits] == [(1, "conv"), (2, None)]
    assert "instruction 1 (load.uop pop_prev) of layer conv waits" in str(caught.value)
