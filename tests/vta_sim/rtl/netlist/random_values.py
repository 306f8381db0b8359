"""Random expressions of Amaranth, with every operator that there is for values of any width."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from amaranth.hdl import Array, Cat, Const, Mux, Shape, Signal, Value

WIDEST: Final = 130
"""Bits of the widest signal and of the widest operand."""

_MOST_SHIFT_BITS: Final = 6
"""Bits of a variable distance to the left: each doubles the width of the result."""


def random_width(rng: random.Random) -> int:
    """Bits of a signal: often few, often next to the size of a machine word."""
    first, last = rng.choice([(1, 1), (1, 8), (1, 8), (2, 40), (30, 34), (62, 66), (1, WIDEST)])
    return rng.randint(first, last)


def random_shape(rng: random.Random) -> Shape:
    return Shape(random_width(rng), rng.random() < 0.3)


def random_number(rng: random.Random, width: int) -> int:
    """An unsigned number of `width` bits, often at an end of a range."""
    top = (1 << width) - 1
    corners = [0, 1, 2, top, top - 1, top >> 1, (top >> 1) + 1, rng.randrange(16)]
    number = rng.choice(corners) if rng.random() < 0.5 else rng.getrandbits(width) if width else 0
    return number & top


def random_const(rng: random.Random, width: int | None = None) -> Const:
    shape = random_shape(rng) if width is None else Shape(width, rng.random() < 0.3)
    number = random_number(rng, shape.width)
    return Const(number - (number >> (shape.width - 1) << shape.width) if shape.signed and number else number, shape)


def random_init(rng: random.Random, shape: Shape) -> int:
    """A value that a signal of the shape can start with."""
    number = random_number(rng, shape.width)
    return number - (number >> (shape.width - 1) << shape.width) if shape.signed and shape.width else number


class Values:
    """Expressions over `pool`, to which whoever uses this adds signals as they come to be."""

    def __init__(self, rng: random.Random, pool: list[Value]) -> None:
        self.rng = rng
        self.pool = pool

    def any(self, depth: int = 3) -> Value:
        """An expression of any shape of at most `WIDEST` bits."""
        if depth == 0 or self.rng.random() < 0.15:
            return self._leaf()
        value = Value.cast(self.rng.choice(_KINDS)(self, depth - 1))
        return self._narrowed(value)

    def of(self, width: int, depth: int = 3) -> Value:
        """An expression of `width` bits."""
        value = self.any(depth)
        if len(value) < width:
            value = Cat(value, self.any(depth - 1) if depth else self._leaf())
        if len(value) < width:
            filler = Cat(value, random_const(self.rng, width - len(value)))
            value = filler[:width]
        begin = self.rng.randint(0, len(value) - width)
        value = value[begin : begin + width]
        return value.as_signed() if width and self.rng.random() < 0.3 else value

    def bit(self, depth: int = 2) -> Value:
        """A condition, neither hardly ever true nor hardly ever false."""
        choice = self.rng.randrange(4)
        if choice == 0:
            return self.of(1, depth).as_unsigned()
        if choice == 1:
            return self.any(depth).xor()
        if choice == 2:
            value = self.of(self.rng.randint(1, 3), depth)
            return value.matches(random_pattern(self.rng, len(value), care=2))
        return self.rng.choice(_COMPARISONS)(self.any(depth), self.any(depth))

    def index(self, count: int, depth: int = 2) -> Value:
        """An index into `count` things, now and then behind the last."""
        return self.of(max(1, (count - 1).bit_length() + (self.rng.random() < 0.2)), depth).as_unsigned()

    def _leaf(self) -> Value:
        if self.rng.random() < 0.1:
            return random_const(self.rng)
        # Inputs change most; with what came last, paths become long.
        some = self.rng.choice([self.pool[:6], self.pool[-6:], self.pool])
        return self._narrowed(self.rng.choice(some))

    def _narrowed(self, value: Value) -> Value:
        if len(value) <= WIDEST:
            return value
        begin = self.rng.randint(0, len(value) - WIDEST)
        return value[begin : begin + self.rng.randint(1, WIDEST)]


def random_pattern(rng: random.Random, width: int, *, care: int = 6) -> str:
    """A pattern of `width` bits, of which at most `care` must be what it says, or all."""
    if width and rng.random() < 0.3:
        return f"{random_number(rng, width):0{width}b}"
    cared = set(rng.sample(range(width), min(width, rng.randint(1, care)))) if width else set()
    return "".join(rng.choice("01") if place in cared else "-" for place in range(width))


def _unary(values: Values, depth: int) -> Value:
    operations: Sequence[Callable[[Value], Value]] = (
        lambda a: ~a,
        lambda a: -a,
        abs,
        lambda a: a.bool(),
        lambda a: a.all(),
        lambda a: a.any(),
        lambda a: a.xor(),
        lambda a: a.as_unsigned(),
        lambda a: a.as_signed() if len(a) else a,
    )
    return values.rng.choice(operations)(values.any(depth))


_COMPARISONS: Final[Sequence[Callable[[Value, Value], Value]]] = (
    lambda a, b: a == b,
    lambda a, b: a != b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
)

_ARITHMETIC: Final[Sequence[Callable[[Value, Value], Value]]] = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a & b,
    lambda a, b: a | b,
    lambda a, b: a ^ b,
)


def _arithmetic(values: Values, depth: int) -> Value:
    return values.rng.choice(_ARITHMETIC)(values.any(depth), values.any(depth))


def _comparison(values: Values, depth: int) -> Value:
    return values.rng.choice(_COMPARISONS)(values.any(depth), values.any(depth))


def _equal_after_all(values: Values, depth: int) -> Value:
    """A comparison that is often true."""
    value = values.any(depth)
    return value == (value & values.any(depth))


def _division(values: Values, depth: int) -> Value:
    dividend, divisor = values.any(depth).as_unsigned(), values.any(depth).as_unsigned()
    if values.rng.random() < 0.5:
        divisor = divisor[: values.rng.randint(0, 4)]
    return dividend // divisor if values.rng.random() < 0.5 else dividend % divisor


def _shift(values: Values, depth: int) -> Value:
    value, rng = values.any(depth), values.rng
    choice = rng.randrange(6)
    if choice == 0:
        return value << values.of(rng.randint(0, _MOST_SHIFT_BITS), depth).as_unsigned()
    if choice == 1:
        return value >> values.any(depth).as_unsigned()
    if choice == 2:
        return value >> values.of(rng.randint(0, 7), depth).as_unsigned()
    distance = rng.randint(0, len(value) + 2)
    if choice == 3:
        return value.shift_left(distance) if rng.random() < 0.5 else value.shift_right(distance)
    return value.rotate_left(distance) if rng.random() < 0.5 else value.rotate_right(distance)


def _mux(values: Values, depth: int) -> Value:
    return Mux(
        values.any(depth) if values.rng.random() < 0.3 else values.bit(depth), values.any(depth), values.any(depth)
    )


def _part(values: Values, depth: int) -> Value:
    value, rng = values.any(depth), values.rng
    # Beyond the end of an inverted value Amaranth's simulator reads ones, where the netlist has zeros; beyond that of a
    # computed signed one not always its sign.
    if not isinstance(value, Signal):
        value = Cat(value)
    offset = values.of(rng.randint(1, 8), depth).as_unsigned()
    width = rng.randint(0, min(len(value) + 3, 70))
    return value.bit_select(offset, width) if rng.random() < 0.5 else value.word_select(offset, max(1, width))


def _slice(values: Values, depth: int) -> Value:
    value, rng = values.any(depth), values.rng
    begin = rng.randint(0, len(value))
    end = rng.randint(begin, len(value))
    step = rng.choice([1, 1, 1, 2, 3, -1])
    return value[begin:end] if step == 1 else value[::step]


def _cat(values: Values, depth: int) -> Value:
    return Cat(*(values.any(depth) for _ in range(values.rng.randint(0, 4))))


def _replicate(values: Values, depth: int) -> Value:
    value = values.any(depth)
    return value.replicate(values.rng.randint(0, max(1, min(12, 2 * WIDEST // max(1, len(value))))))


def _match(values: Values, depth: int) -> Value:
    value = values.of(values.rng.randint(1, 70), depth)
    return value.matches(*(random_pattern(values.rng, len(value), care=3) for _ in range(values.rng.randint(0, 3))))


def _array(values: Values, depth: int) -> Value:
    count = values.rng.randint(1, 5)
    items: Any = Array([values.any(depth) for _ in range(count)])
    return Value.cast(items[values.index(count, depth)])


_KINDS: Final[Sequence[Callable[[Values, int], Value]]] = (
    _unary,
    _unary,
    _arithmetic,
    _arithmetic,
    _arithmetic,
    _comparison,
    _equal_after_all,
    _division,
    _shift,
    _shift,
    _mux,
    _mux,
    _part,
    _slice,
    _cat,
    _replicate,
    _match,
    _array,
)


def target(values: Values, signals: Sequence[Signal]) -> Value:
    """Something that can be assigned: one of the signals, parts of it, several, or one that an index chooses."""
    rng, signal = values.rng, values.rng.choice(signals)
    choice = rng.randrange(10)
    if choice < 4:
        return signal
    if choice < 6:
        begin = rng.randint(0, len(signal) - 1)
        return signal[begin : rng.randint(begin + 1, len(signal))]
    if choice == 6:
        return signal.bit_select(values.of(rng.randint(1, 7), 2).as_unsigned(), rng.randint(1, len(signal)))
    if choice == 7:
        return signal.word_select(values.of(rng.randint(1, 4), 2).as_unsigned(), rng.randint(1, len(signal)))
    others = rng.sample(signals, rng.randint(1, len(signals)))
    if choice == 8:
        return Cat(*others)
    items: Any = Array(others)
    return Value.cast(items[values.index(len(others))])
