"""Regular structures, as arrays of multipliers are, and such as are only nearly regular.

A compiler that finds equal lanes and makes a loop of them must notice the one that is not equal.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from amaranth.hdl import Cat, Mux, Shape, Signal, Value
from amaranth.lib.memory import Memory

from tests.vta_sim.rtl.netlist.random_scope import Piece, Scope


def _lanes(rng: random.Random) -> int:
    return rng.choice([2, 3, 4, 7, 8, 8, 9, 12, 16, 16, 24, 33])


def _lane_shape(rng: random.Random) -> Shape:
    return Shape(rng.choice([1, 4, 8, 8, 12, 16, 16, 24, 32, 32, 48, 64]), rng.random() < 0.5)


def _odd(rng: random.Random, lanes: int) -> int | None:
    """The lane that shall differ from the others, if one shall."""
    return rng.choice([None, rng.randrange(lanes), 0, lanes - 1])


def _order(rng: random.Random, lanes: int) -> list[int]:
    """From which lane each takes its operand: in a way that is affine, nearly so, or not."""
    numbers = list(range(lanes))
    choice = rng.randrange(8)
    if choice == 0:
        rng.shuffle(numbers)
    elif choice == 1:
        one, other = rng.randrange(lanes), rng.randrange(lanes)
        numbers[one], numbers[other] = numbers[other], numbers[one]
    elif choice == 2:
        numbers = numbers[::-1]
    elif choice == 3:
        begin = rng.randrange(lanes)
        numbers = numbers[begin:] + numbers[:begin]
    elif choice == 4:
        numbers = [number // 2 for number in numbers]
    elif choice == 5:
        numbers = [number % max(1, lanes // 4) for number in numbers]
    elif choice == 6:
        numbers = [rng.randrange(lanes)] * lanes
    return numbers


def _row(scope: Scope, lanes: int, shape: Shape, *, packed: bool) -> list[Value]:
    """Registers of operands, one each or one for all, loaded from expressions now and then."""
    m, values, rng = scope.module, scope.values, scope.rng
    if packed:
        whole = scope.register(Shape(lanes * shape.width))
        with m.If(values.bit()):
            m.d.sync += whole.eq(Cat(*(values.any(1) for _ in range(3)), whole))
        parts = [whole[k * shape.width : (k + 1) * shape.width] for k in range(lanes)]
        return [part.as_signed() if shape.signed else part for part in parts]
    row = [scope.register(shape) for _ in range(lanes)]
    with m.If(values.bit()):
        m.d.sync += [signal.eq(values.any(1)) for signal in row[:2]]
        m.d.sync += [signal.eq(before) for before, signal in zip(row, row[2:], strict=False)]
    if rng.random() < 0.5:
        m.d.sync += rng.choice(row).eq(values.any(1))
    return list(row)


def multiply_accumulate(scope: Scope) -> None:
    """Lanes of acc += a * b; in one of them something differs."""
    rng, m = scope.rng, scope.module
    lanes, shape = _lanes(rng), _lane_shape(rng)
    left = _row(scope, lanes, shape, packed=rng.random() < 0.5)
    right = _row(scope, lanes, _lane_shape(rng), packed=rng.random() < 0.5)
    wide = Shape(rng.choice([16, 32, 32, 33, 64]), True)
    odd, kind = _odd(rng, lanes), rng.choice(["shape", "init", "operation", "operand", "enable", "reset", "none"])
    order = _order(rng, lanes)
    inits = _inits(rng, lanes)
    enable, other = scope.bit(), scope.bit()
    clear = scope.bit() if rng.random() < 0.5 else None
    shared = lanes if rng.random() < 0.6 else rng.randrange(lanes)
    for lane in range(lanes):
        differs = kind if lane == odd else "none"
        acc = scope.register(
            Shape(wide.width + 1, False) if differs == "shape" else wide,
            init=5 if differs == "init" else inits[lane],
            reset_less=differs == "reset",
        )
        one, two = left[lane], right[0 if differs == "operand" else order[lane]]
        product = one + two if differs == "operation" else one * two
        with m.If((other if differs == "enable" else enable) if lane < shared else other):
            m.d.sync += acc.eq((0 if clear is None else Mux(clear, 0, acc)) + product)


def _inits(rng: random.Random, lanes: int) -> list[int]:
    """Reset values of the lanes: all equal, rising, or of no order."""
    choice = rng.randrange(4)
    if choice < 2:
        return [0 if choice else 3] * lanes
    return list(range(lanes)) if choice == 2 else [rng.randrange(100) for _ in range(lanes)]


def adder_tree(scope: Scope) -> None:
    """Pairs are added, and pairs of the sums, with or without registers in between."""
    rng, m = scope.rng, scope.module
    lanes, shape = rng.choice([4, 8, 16, 32]), _lane_shape(rng)
    level = _row(scope, lanes, shape, packed=rng.random() < 0.5)
    enable = scope.bit() if rng.random() < 0.5 else None
    while len(level) > 1:
        odd = _odd(rng, len(level) // 2)
        sums = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
        if odd is not None and rng.random() < 0.5:
            sums[odd] = level[2 * odd] - level[2 * odd + 1]
        if rng.random() < 0.7:
            stage = [scope.register(total.shape(), init=0, reset_less=bool(rng.randrange(2))) for total in sums]
            adds = [register.eq(total) for register, total in zip(stage, sums, strict=True)]
            if enable is None:
                m.d.sync += adds
            else:
                with m.If(enable):
                    m.d.sync += adds
            level = list(stage)
        else:
            level = sums
    scope.drive(Shape(48, shape.signed), level[0])


def shift_register(scope: Scope) -> None:
    """A line of registers in which values move, with a tap or a gap somewhere."""
    rng, m, values = scope.rng, scope.module, scope.values
    lanes, shape = _lanes(rng), _lane_shape(rng)
    line = [scope.register(shape, init=0 if shape.signed else rng.randrange(2)) for _ in range(lanes)]
    odd = _odd(rng, lanes)
    backwards = rng.random() < 0.3
    order = line[::-1] if backwards else line
    with m.If(values.bit()):
        m.d.sync += order[0].eq(values.any())
        for number in range(1, lanes):
            source = order[number - 1]
            m.d.sync += order[number].eq(~source if number == odd else source)
    if rng.random() < 0.5:
        with m.If(values.bit()):
            m.d.sync += [signal.eq(values.of(len(signal), 1) if k == odd else 0) for k, signal in enumerate(line)]
    scope.drive(shape, line[-1] ^ line[rng.randrange(lanes)])


def permutation(scope: Scope) -> None:
    """Lanes exchange their values, one or more at a time, as in a packed word or among registers."""
    rng, m, values = scope.rng, scope.module, scope.values
    lanes, shape = _lanes(rng), _lane_shape(rng)
    row = _row(scope, lanes, shape, packed=rng.random() < 0.5)
    order = _order(rng, lanes)
    if rng.random() < 0.5:
        packed = scope.register(Shape(lanes * shape.width))
        moved = Cat(*(row[place] for place in order))
        m.d.sync += packed.eq(Mux(values.bit(), moved, packed.rotate_left(shape.width * rng.randint(0, 2))))
        scope.drive(Shape(lanes * shape.width), packed ^ moved)
        return
    # Among themselves: none may see the new value of another.
    cycle = [scope.register(shape, init=-(number % 2) if shape.signed else number % 2) for number in range(lanes)]
    with m.If(values.bit()):
        m.d.sync += [signal.eq(source) for signal, source in zip(cycle, row, strict=True)]
    with m.Else():
        m.d.sync += [signal.eq(cycle[place]) for signal, place in zip(cycle, order, strict=True)]


def packed_lanes(scope: Scope) -> None:
    """One wide register of which each lane is updated by itself."""
    rng, m = scope.rng, scope.module
    lanes, width = _lanes(rng), rng.choice([1, 5, 8, 8, 13, 16, 32, 64])
    word = scope.register(Shape(lanes * width))
    strobes = scope.operand(Shape(lanes))
    shared = rng.random() < 0.5
    condition = scope.bit()
    operand = scope.operand(Shape(width))
    odd, order = _odd(rng, lanes), _order(rng, lanes)
    for lane in range(lanes):
        part, source = (word[k * width : (k + 1) * width] for k in (lane, order[lane]))
        with m.If(condition if shared else strobes[lane]):
            m.d.sync += part.eq(source - operand if lane == odd else source + operand)


def saturating_lanes(scope: Scope) -> None:
    """Lanes that shift, clip and pack, as requantisation does."""
    rng, m, values = scope.rng, scope.module, scope.values
    lanes = _lanes(rng)
    row = _row(scope, lanes, Shape(rng.choice([24, 32]), True), packed=rng.random() < 0.5)
    distance = scope.operand(Shape(rng.choice([3, 5])))
    low, high = (scope.operand(Shape(8, True)) for _ in range(2))
    odd = _odd(rng, lanes)
    clipped: list[Value] = []
    for lane, value in enumerate(row):
        moved = value >> distance if lane != odd else value >> 3
        at_least = Mux(moved < low, low, moved)
        clipped.append(Mux(at_least > high, high, at_least)[:8])
    out = scope.register(Shape(8 * lanes))
    with m.If(values.bit()):
        m.d.sync += out.eq(Cat(*clipped))


def counters(scope: Scope) -> None:
    """Counters with an event each, of one width or nearly."""
    rng, m, values = scope.rng, scope.module, scope.values
    lanes = _lanes(rng)
    events = scope.operand(Shape(lanes))
    odd, width = _odd(rng, lanes), rng.choice([8, 16, 32, 64])
    running = scope.bit()
    row: list[Signal] = []
    for lane in range(lanes):
        count = scope.register(Shape(width + (lane == odd)), init=0, reset_less=False)
        row.append(count)
        with m.If(running):
            m.d.sync += count.eq(count + events[lane] * (3 if lane == odd else 1))
    if rng.random() < 0.5:
        with m.If(values.bit()):
            m.d.sync += [count.eq(0) for count in row]


def memory_lanes(scope: Scope) -> None:
    """Rows of lanes in a memory, of which each is computed and written by itself, perhaps from the row that is read."""
    rng, m, values = scope.rng, scope.module, scope.values
    lanes, width = rng.choice([2, 4, 8, 16, 16, 32]), rng.choice([8, 8, 16, 32, 32, 64])
    depth = rng.choice([2, 4, 5, 8])
    block = Memory(shape=lanes * width, depth=depth, init=[])
    name = f"m{len(scope.design.memories)}"
    m.submodules[name] = block
    scope.design.memories[scope.path + name] = block.data
    granule = rng.choice([width, width, 2 * width, lanes * width])
    writer = block.write_port(granularity=granule)
    reader = block.read_port(transparent_for=[writer] if rng.random() < 0.5 else [])
    row = _row(scope, lanes, Shape(width, rng.random() < 0.5), packed=rng.random() < 0.5)
    narrow = scope.operand(Shape(8 * lanes))
    mode, odd, order = scope.bit(), _odd(rng, lanes), _order(rng, lanes)
    accumulates = rng.random() < 0.5
    parts: list[Value] = []
    for lane in range(lanes):
        old = Value.cast(reader.data)[lane * width : (lane + 1) * width]
        source = row[order[lane]]
        wide = old + source if accumulates and lane != odd else source
        small = narrow[8 * lane : 8 * lane + 8].as_signed()
        parts.append(Cat(Mux(mode, small, wide.as_signed()))[:width])
    m.d.comb += [
        reader.addr.eq(values.index(depth)),
        writer.addr.eq(values.index(depth)),
        writer.data.eq(Cat(*parts)),
        writer.en.eq(values.of(len(writer.en)) if rng.random() < 0.5 else scope.bit().replicate(len(writer.en))),
    ]
    scope.drive(Shape(lanes * width), Value.cast(reader.data))


STRUCTURES: Final[Sequence[Piece]] = (
    multiply_accumulate,
    multiply_accumulate,
    adder_tree,
    shift_register,
    permutation,
    packed_lanes,
    saturating_lanes,
    counters,
    memory_lanes,
    memory_lanes,
)
