"""A design compiled and in Amaranth's simulator, with the same inputs in every cycle."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from amaranth.hdl import Cat, ClockDomain, Module, Signal, Value
from amaranth.sim import Simulator, SimulatorContext

from tests.vta_sim.rtl.netlist.random_scope import RandomDesign
from tests.vta_sim.rtl.netlist.random_values import random_number
from vta_sim.rtl.netlist import compile_design

RESET: Final = "rst"
_PERIOD: Final = 1e-6


class Step(NamedTuple):
    """What inputs are set to, and for how many clock edges they are kept."""

    inputs: Mapping[str, int]
    edges: int


class Trace(NamedTuple):
    """What a simulator showed.

    values: of every visible signal, by name, before the first step's edges, and then after each step with the inputs
    of the next. rows: of every memory at the end.
    """

    values: Sequence[Mapping[str, int]]
    rows: Mapping[str, Sequence[int]]


def stimulus(design: RandomDesign, seed: int, steps: int) -> list[Step]:
    """Random inputs, which now and then stay; in some designs a reset now and then, of the domain."""
    rng = random.Random(seed)
    # Not in all, because a compiler may make code of its own for cycles with a reset.
    resets = 0.08 if rng.random() < 0.4 else 0.0
    widths = {name: len(signal) for name, signal in design.inputs.items()} | {RESET: 1}
    inputs = dict.fromkeys(widths, 0)
    result = []
    for _ in range(steps):
        for name, width in widths.items():
            if rng.random() < 0.7:
                inputs[name] = random_number(rng, width)
        inputs[RESET] = int(rng.random() < resets)
        result.append(Step(dict(inputs), rng.choice([1, 1, 1, 2, 5])))
    return result


def amaranth_trace(design: RandomDesign, steps: Sequence[Step]) -> Trace:
    """The trace of Amaranth's own simulator. The design cannot be used again."""
    m = Module()
    m.domains.sync = sync = ClockDomain("sync")
    m.submodules.design = design.module
    inputs = [*design.inputs.values(), sync.rst]
    names = [*design.inputs, RESET]
    pins, shown = Cat(*inputs), Cat(*design.visible.values())
    values: list[Mapping[str, int]] = []
    rows: dict[str, list[int]] = {}

    async def bench(ctx: SimulatorContext) -> None:
        for step in steps:
            ctx.set(pins, _packed([step.inputs[name] for name in names], inputs))
            values.append(_unpacked(ctx.get(shown), design.visible))
            for _ in range(step.edges):
                await ctx.tick()
        values.append(_unpacked(ctx.get(shown), design.visible))
        for name, data in design.memories.items():
            rows[name] = [int(ctx.get(Value.cast(data[row]))) for row in range(data.depth)]

    simulator = Simulator(m)
    simulator.add_clock(_PERIOD)
    simulator.add_testbench(bench)
    simulator.run()
    return Trace(values, rows)


def _packed(values: Sequence[int], signals: Sequence[Signal]) -> int:
    word = 0
    for value, signal in zip(reversed(values), reversed(signals), strict=True):
        word = word << len(signal) | value
    return word


def _unpacked(word: int, signals: Mapping[str, Signal]) -> dict[str, int]:
    values = {}
    for name, signal in signals.items():
        values[name] = word & ((1 << len(signal)) - 1)
        word >>= len(signal)
    return values


def compiled_trace(design: RandomDesign, steps: Sequence[Step]) -> Trace:
    """The trace of the compiled design. The design cannot be used again."""
    simulator = compile_design(design.module, ports=design.ports, observe=list(design.observed)).simulator()
    values = []
    for step in steps:
        for name, value in step.inputs.items():
            simulator.poke(name, value)
        values.append({name: simulator.peek(name) for name in design.visible})
        simulator.run(step.edges)
    values.append({name: simulator.peek(name) for name in design.visible})
    rows = {}
    for name in design.memories:
        memory = simulator.memory(name)
        rows[name] = [memory[row] for row in range(len(memory))]
    return Trace(values, rows)


def differences(make: Callable[[], RandomDesign], *, seed: int, steps: int) -> Iterator[str]:
    """What the two show differently in the first step in which they do, and in memories at the end.

    make: gives the same design each time.
    """
    design = make()
    inputs = stimulus(design, seed, steps)
    expected, actual = amaranth_trace(design, inputs), compiled_trace(make(), inputs)
    for number, (wanted, shown) in enumerate(zip(expected.values, actual.values, strict=True)):
        differing = [name for name in wanted if wanted[name] != shown[name]]
        if differing:
            yield from (f"step {number}: {name} must be {wanted[name]:#x}, not {shown[name]:#x}" for name in differing)
            return
    for name, wanted_rows in expected.rows.items():
        for row, (wanted_row, shown_row) in enumerate(zip(wanted_rows, actual.rows[name], strict=True)):
            if wanted_row != shown_row:
                yield f"row {row} of {name} must be {wanted_row:#x} at the end, not {shown_row:#x}"
