"""What a random design is written with: a module, names, and the signals that there are so far."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from amaranth.hdl import MemoryData, Module, Shape, Signal, Value

from tests.vta_sim.rtl.netlist.random_values import Values, random_init


@dataclass(kw_only=True)
class RandomDesign:
    """A design, and what can be seen of it.

    inputs, outputs: ports by name. registers, observed (combinational signals) and memories: by hierarchical name.
    blocks: submodules so far.
    """

    module: Module
    inputs: dict[str, Signal] = field(default_factory=dict)
    outputs: dict[str, Signal] = field(default_factory=dict)
    registers: dict[str, Signal] = field(default_factory=dict)
    observed: dict[str, Signal] = field(default_factory=dict)
    memories: dict[str, MemoryData] = field(default_factory=dict)
    blocks: int = 0

    @property
    def ports(self) -> list[Signal]:
        return [*self.inputs.values(), *self.outputs.values()]

    @property
    def visible(self) -> dict[str, Signal]:
        """Everything that can be compared in each cycle."""
        return self.outputs | self.registers | self.observed


@dataclass
class Scope:
    """A module that is being written.

    path: what the hierarchical names of its signals begin with. pool: of what expressions are made. depth: modules
    around it.
    """

    design: RandomDesign
    module: Module
    rng: random.Random
    pool: list[Value]
    path: str = ""
    depth: int = 0

    @property
    def values(self) -> Values:
        return Values(self.rng, self.pool)

    def wire(self, shape: Shape) -> Signal:
        """A combinational signal; whoever assigns it adds it to the pool."""
        name = f"w{len(self.design.observed)}"
        signal = Signal(shape, name=name, init=random_init(self.rng, shape))
        self.design.observed[self.path + name] = signal
        return signal

    def register(self, shape: Shape, *, init: int | None = None, reset_less: bool | None = None) -> Signal:
        """A register, at once in the pool; somebody must assign it."""
        name = f"r{len(self.design.registers)}"
        signal = Signal(
            shape,
            name=name,
            init=random_init(self.rng, shape) if init is None else init,
            reset_less=self.rng.random() < 0.25 if reset_less is None else reset_less,
        )
        self.design.registers[self.path + name] = signal
        self.pool.append(signal)
        return signal

    def drive(self, shape: Shape, value: Value) -> Signal:
        """A wire with a value."""
        wire = self.wire(shape)
        self.module.d.comb += wire.eq(value)
        self.pool.append(wire)
        return wire

    def bit(self) -> Signal:
        """A wire with a condition."""
        return self.drive(Shape(1), self.values.bit())

    def operand(self, shape: Shape, depth: int = 2) -> Signal:
        """A wire with an expression."""
        return self.drive(shape, self.values.of(shape.width, depth))


Piece = Callable[[Scope], None]
