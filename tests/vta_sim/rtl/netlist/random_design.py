"""Random designs with one clock: whatever Amaranth lets one write, and what a compiler may be too clever about.

A design is made of pieces, each with a seed of its own, so that one in which something is wrong can be cut down.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from amaranth.hdl import (
    Array,
    Cat,
    Const,
    Elaboratable,
    EnableInserter,
    Module,
    ResetInserter,
    ResetSignal,
    Shape,
    Signal,
    Value,
)
from amaranth.lib.memory import Memory, WritePort

from tests.vta_sim.rtl.netlist.random_scope import Piece, RandomDesign, Scope
from tests.vta_sim.rtl.netlist.random_structures import STRUCTURES
from tests.vta_sim.rtl.netlist.random_values import (
    random_number,
    random_pattern,
    random_shape,
    random_width,
    target,
)

WIDEST_ROW: Final = 2048


def assign(scope: Scope, domain: str, signals: Sequence[Signal], depth: int = 2) -> None:
    """A few statements, nested at most `depth` deep, that assign some of the signals or parts of them."""
    rng, m, values = scope.rng, scope.module, scope.values
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        choice = rng.random()
        if depth == 0 or choice < 0.5:
            m.d[domain] += target(values, signals).eq(values.any(2))
        elif choice < 0.8:
            with m.If(values.bit()):
                assign(scope, domain, signals, depth - 1)
            for _ in range(rng.choice([0, 0, 1, 2])):
                with m.Elif(values.bit()):
                    assign(scope, domain, signals, depth - 1)
            if rng.random() < 0.5:
                with m.Else():
                    assign(scope, domain, signals, depth - 1)
        else:
            test = values.of(rng.choice([1, 2, 3, 3, 8, 70]), 2)
            with m.Switch(test):
                for _ in range(rng.randint(1, 5)):
                    patterns = (random_pattern(rng, len(test), care=3) for _ in range(rng.randint(1, 2)))
                    with m.Case(*patterns):
                        assign(scope, domain, signals, depth - 1)
                if rng.random() < 0.5:
                    with m.Default():
                        assign(scope, domain, signals, depth - 1)


def wires(scope: Scope) -> None:
    """Some combinational signals, assigned together."""
    signals = [scope.wire(random_shape(scope.rng)) for _ in range(scope.rng.randint(1, 3))]
    for signal in signals:
        scope.module.d.comb += (signal if scope.rng.random() < 0.7 else signal[:1]).eq(scope.values.any(2))
    assign(scope, "comb", signals)
    scope.pool += signals


def registers(scope: Scope) -> None:
    """Some registers, assigned together."""
    signals = [scope.register(random_shape(scope.rng)) for _ in range(scope.rng.randint(1, 4))]
    for signal in signals:
        scope.module.d.sync += (signal if scope.rng.random() < 0.7 else signal[:1]).eq(scope.values.any())
    assign(scope, "sync", signals)


def gated(scope: Scope) -> None:
    """Registers that hold unless they are enabled; one or the other changes without, or has a second enable."""
    rng, m, values = scope.rng, scope.module, scope.values
    signals = [scope.register(random_shape(rng)) for _ in range(rng.randint(2, 6))]
    with m.If(values.bit()):
        for signal in signals:
            m.d.sync += signal.eq(values.any(2))
        with m.If(values.bit()):
            m.d.sync += signals[0].eq(values.any(2))
    if rng.random() < 0.5:
        m.d.sync += target(values, signals[1:]).eq(values.any(2))
    if rng.random() < 0.5:
        with m.If(values.bit()):
            m.d.sync += signals[-1].eq(signals[0])


def chain(scope: Scope) -> None:
    """A signal whose upper bits depend on its lower ones."""
    rng, values = scope.rng, scope.values
    width = rng.randint(2, 12)
    part = rng.choice([1, 1, 3, 8])
    signal = scope.wire(Shape(width * part))
    order = list(range(width))
    if rng.random() < 0.5:
        rng.shuffle(order)
    done: list[Value] = []
    for place in order:
        own = Cat(*rng.sample(done, min(len(done), 2)))
        scope.module.d.comb += signal[place * part : (place + 1) * part].eq(own + values.of(part, 1))
        done.append(signal[place * part : (place + 1) * part])
    scope.pool.append(signal)


def state_machine(scope: Scope) -> None:
    """An FSM with statements in its states."""
    rng, m, values = scope.rng, scope.module, scope.values
    names = [f"S{number}" for number in range(rng.randint(2, 7))]
    own, out = scope.register(random_shape(rng)), scope.wire(random_shape(rng))
    m.d.sync += own[0].eq(values.bit())
    m.d.comb += out.eq(values.any(1))
    label = f"f{len(scope.design.registers)}"
    with m.FSM(init=rng.choice(names), name=label) as fsm:
        for name in names:
            with m.State(name):
                assign(scope, "sync", [own], 1)
                if rng.random() < 0.5:
                    assign(scope, "comb", [out], 1)
                for _ in range(rng.randint(1, 2)):
                    with m.If(values.bit()):
                        m.next = rng.choice(names)
    scope.design.registers[f"{scope.path}{label}_state"] = fsm.state
    scope.pool += [out, fsm.ongoing(rng.choice(names))]


def memory(scope: Scope) -> None:
    """A memory with ports of all kinds."""
    rng, m, values = scope.rng, scope.module, scope.values
    width = rng.choice(
        [random_width(rng), random_width(rng), 8 * rng.randint(1, 16), rng.choice([256, 512, WIDEST_ROW])]
    )
    depth = rng.choice([1, 2, 3, 4, 5, 7, 8, 13, 16, 33])
    init = [random_number(rng, width) for _ in range(rng.choice([0, depth, rng.randint(0, depth)]))]
    block = Memory(shape=width, depth=depth, init=init)
    name = f"m{len(scope.design.memories)}"
    scope.module.submodules[name] = block
    scope.design.memories[scope.path + name] = block.data
    granularities = [None, None, *(part for part in (1, 2, 4, 8, 32, 64) if width % part == 0 and width // part <= 64)]
    writers: list[WritePort] = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        port = block.write_port(granularity=rng.choice(granularities))
        writers.append(port)
        enables = values.any() if rng.random() < 0.7 else Const(-1, Shape(1, True))
        m.d.comb += [
            port.addr.eq(values.index(depth)),
            port.data.eq(values.any(2)),
            port.en.eq(enables if rng.random() < 0.7 else values.bit().replicate(len(port.en))),
        ]
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.4:
            reader = block.read_port(domain="comb")
        else:
            reader = block.read_port(transparent_for=[port for port in writers if rng.random() < 0.5])
            if rng.random() < 0.6:
                # Amaranth's simulator resets the data of a port that does not read, which no hardware does.
                m.d.comb += reader.en.eq(values.bit() | ResetSignal("sync"))
        m.d.comb += reader.addr.eq(values.index(depth))
        scope.pool.append(Value.cast(reader.data))


def register_file(scope: Scope) -> None:
    """Registers that an address chooses, for writing and for reading."""
    rng, m, values = scope.rng, scope.module, scope.values
    shape = random_shape(rng)
    file = [scope.register(shape) for _ in range(rng.choice([3, 4, 8, 11]))]
    rows = Array(file)
    with m.If(values.bit()):
        m.d.sync += rows[values.index(len(file))].eq(values.any(2))
    for row in file:
        if rng.random() < 0.1:
            m.d.sync += row.eq(values.any(2))
    if rng.random() < 0.5:
        m.d.sync += rows[values.index(len(file))].eq(values.of(len(file[0])))
    scope.drive(shape, Value.cast(rows[values.index(len(file))]))


def submodule(scope: Scope) -> None:
    """A module with pieces of its own, perhaps with an enable or another reset."""
    rng = scope.rng
    inner = Module()
    name = f"s{scope.design.blocks}"
    scope.design.blocks += 1
    nested = Scope(scope.design, inner, rng, scope.pool, f"{scope.path}{name}.", scope.depth + 1)
    control = rng.choice([None, EnableInserter, ResetInserter])
    # See `memory`: a port that does not read is not to be looked at during a reset.
    always = ResetSignal("sync") if control is EnableInserter else Const(0, 1)
    condition = scope.drive(Shape(1), scope.values.bit() | always) if control else None
    for _ in range(rng.randint(1, 3)):
        rng.choice(pieces_at(nested.depth))(nested)
    block: Elaboratable = inner if control is None else control(condition)(inner)
    scope.module.submodules[name] = block


def pieces_at(depth: int) -> Sequence[Piece]:
    """What a module is made of that has `depth` modules around it."""
    deeper = [submodule] * 4 if depth < 2 else []
    return [
        *[wires] * 4,
        *[registers] * 3,
        gated,
        gated,
        chain,
        state_machine,
        memory,
        memory,
        register_file,
        *deeper,
        *STRUCTURES,
    ]


def random_design(seed: int, *, pieces: Sequence[int] | None = None) -> RandomDesign:
    """The design of a seed; equal arguments give equal designs. pieces: those of its pieces to have (default all)."""
    rng = random.Random(seed)
    design = RandomDesign(module=Module())
    pool: list[Value] = []
    for number in range(rng.randint(2, 6)):
        shape = Shape(1) if number == 0 else random_shape(rng)
        signal = Signal(shape, name=f"i{number}")
        design.inputs[signal.name] = signal
        pool.append(signal)
    for number in range(piece_count(seed)):
        scope = Scope(design, design.module, random.Random(f"{seed}/{number}"), pool)
        kind = scope.rng.choice(pieces_at(0))
        if pieces is None or number in pieces:
            kind(scope)
    _add_outputs(Scope(design, design.module, random.Random(f"{seed}/outputs"), pool))
    return design


def piece_count(seed: int) -> int:
    """How many pieces the design of a seed has."""
    return random.Random(f"{seed}/count").randint(1, 6)


def _add_outputs(scope: Scope) -> None:
    """Ports: expressions, and a register that is one."""
    design, rng = scope.design, scope.rng
    for number in range(rng.randint(1, 4)):
        shape = random_shape(rng)
        output = design.outputs[f"o{number}"] = Signal(shape, name=f"o{number}")
        if number == 0:
            scope.module.d.sync += output.eq(scope.values.any())
        else:
            scope.module.d.comb += output.eq(scope.values.any())
