"""Every operator at the widths where machine words end, with operands at the ends of their ranges, against Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final

import pytest
from amaranth.hdl import Array, Cat, Module, Mux, Shape, Signal, Value

from vta_sim.rtl.netlist import compile_design

WIDTHS: Final = (1, 7, 8, 31, 32, 33, 63, 64, 65, 128)
SIGNS: Final = {"unsigned": (False, False), "signed": (True, True), "mixed": (False, True), "reversed": (True, False)}

Numbers = Callable[[int, int], int]
Values = Callable[[Value, Value], Value]

BINARY: Final[Mapping[str, tuple[Values, Numbers]]] = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b),
    "and": (lambda a, b: a & b, lambda a, b: a & b),
    "or": (lambda a, b: a | b, lambda a, b: a | b),
    "xor": (lambda a, b: a ^ b, lambda a, b: a ^ b),
    "equal": (lambda a, b: a == b, lambda a, b: a == b),
    "not equal": (lambda a, b: a != b, lambda a, b: a != b),
    "less": (lambda a, b: a < b, lambda a, b: a < b),
    "at most": (lambda a, b: a <= b, lambda a, b: a <= b),
    "greater": (lambda a, b: a > b, lambda a, b: a > b),
    "at least": (lambda a, b: a >= b, lambda a, b: a >= b),
    "select": (lambda a, b: Mux(a, b, a), lambda a, b: b if a else a),
    "array": (lambda a, b: Value.cast(Array([a, b])[a[0]]), lambda a, b: (a, b)[a & 1]),
    "beyond an array": (lambda a, b: Value.cast(Array([a])[b[0]]), lambda a, b: (a, 0)[b & 1]),
}

UNARY: Final[Mapping[str, tuple[Callable[[Value], Value], Callable[[int, int], int]]]] = {
    "invert": (lambda a: ~a, lambda a, width: ~a),
    "negate": (lambda a: -a, lambda a, width: -a),
    "absolute": (abs, lambda a, width: abs(a)),
    "bool": (lambda a: a.bool(), lambda a, width: a != 0),
    "any": (lambda a: a.any(), lambda a, width: a != 0),
    "all": (lambda a: a.all(), lambda a, width: a & mask(width) == mask(width)),
    "parity": (lambda a: a.xor(), lambda a, width: (a & mask(width)).bit_count() & 1),
    "left by 3": (lambda a: a.shift_left(3), lambda a, width: a << 3),
    "right by 3": (lambda a: a.shift_right(3), lambda a, width: a >> 3),
    "rotate left by 5": (lambda a: a.rotate_left(5), lambda a, width: rotated(a, 5, width)),
    "rotate right by 5": (lambda a: a.rotate_right(5), lambda a, width: rotated(a, -5, width)),
    "replicate": (lambda a: a.replicate(3), lambda a, width: sum((a & mask(width)) << width * k for k in range(3))),
    "concatenate": (lambda a: Cat(a, 1, a[0]), lambda a, width: a & mask(width) | (1 | (a & 1) << 1) << width),
    "reverse": (lambda a: a[::-1], lambda a, width: int(f"{a & mask(width):0{width}b}"[::-1], 2)),
    "no bits": (lambda a: a[0:0].all(), lambda a, width: 1),
    "matches": (lambda a: a.matches("-" * (len(a) - 1) + "1"), lambda a, width: a & 1),
    "matches nothing": (lambda a: a.matches(), lambda a, width: 0),
}


def mask(width: int) -> int:
    return (1 << width) - 1


def rotated(value: int, distance: int, width: int) -> int:
    value, distance = value & mask(width), distance % width
    return (value << distance | value >> (width - distance)) & mask(width)


def corners(width: int, signed: bool) -> list[int]:
    """Values of a shape that lie at the ends of ranges, or have every other bit."""
    top = mask(width)
    patterns = {0, 1, 2 & top, top, top - 1, top >> 1, (top >> 1) + 1, int("01" * width, 2) & top}
    return sorted(pattern - (pattern >> (width - 1) << width) * signed for pattern in patterns)


def check(
    operands: Mapping[str, Shape],
    operations: Mapping[str, tuple[Callable[..., Value], Callable[..., int]]],
    *extra: int,
) -> None:
    """Compile all operations on signals of these shapes, and try every combination of corners."""
    m = Module()
    signals = [Signal(shape, name=name) for name, shape in operands.items()]
    outputs = {}
    for number, (name, (operation, _)) in enumerate(operations.items()):
        value = operation(*signals)
        outputs[name] = Signal(value.shape(), name=f"o{number}")
        m.d.comb += outputs[name].eq(value)
    simulator = compile_design(m, ports=[*signals, *outputs.values()]).simulator()
    for numbers in itertools.product(*(corners(shape.width, shape.signed) for shape in operands.values())):
        for signal, number in zip(signals, numbers, strict=True):
            simulator.poke(signal.name, number & mask(len(signal)))
        for name, (_, reference) in operations.items():
            output = outputs[name]
            wanted = reference(*numbers, *extra) & mask(len(output))
            assert simulator.peek(output.name) == wanted, (name, numbers)


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("width", WIDTHS)
def test_two_operands_of_one_width(width: int, signs: str) -> None:
    one, other = SIGNS[signs]
    check({"a": Shape(width, one), "b": Shape(width, other)}, BINARY)


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize(("narrow", "wide"), [(1, 8), (7, 64), (31, 33), (8, 65), (64, 128)])
def test_two_operands_of_different_widths(narrow: int, wide: int, signs: str) -> None:
    one, other = SIGNS[signs]
    check({"a": Shape(narrow, one), "b": Shape(wide, other)}, BINARY)
    check({"a": Shape(wide, one), "b": Shape(narrow, other)}, BINARY)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_one_operand(width: int, signed: bool) -> None:
    check({"a": Shape(width, signed)}, UNARY, width)


@pytest.mark.parametrize("widths", [*((width, width) for width in WIDTHS), (65, 3), (3, 65), (128, 64), (64, 1)])
def test_unsigned_division(widths: tuple[int, int]) -> None:
    """By zero both are zero."""
    divisions: Mapping[str, tuple[Values, Numbers]] = {
        "divide": (lambda a, b: a // b, lambda a, b: a // b if b else 0),
        "remainder": (lambda a, b: a % b, lambda a, b: a % b if b else 0),
    }
    check({"a": Shape(widths[0]), "b": Shape(widths[1])}, divisions)


@pytest.mark.parametrize("amount", [1, 3, 6, 7])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_shifts_by_a_variable(width: int, signed: bool, amount: int) -> None:
    """Also by more than there are bits."""
    shifts: dict[str, tuple[Values, Numbers]] = {"right": (lambda a, b: a >> b, lambda a, b: a >> b)}
    if amount <= 6:
        shifts["left"] = (lambda a, b: a << b, lambda a, b: a << b)
    check({"a": Shape(width, signed), "b": Shape(amount)}, shifts)


@pytest.mark.parametrize("width", [8, 64, 65])
def test_shift_by_a_wide_variable(width: int) -> None:
    check({"a": Shape(width, True), "b": Shape(66)}, {"right": (lambda a, b: a >> b, lambda a, b: a >> min(b, 200))})


def parts_of(part: int) -> dict[str, tuple[Values, Numbers]]:
    return {
        f"bits {part}": (lambda a, b: a.bit_select(b, part), lambda a, b: a >> b),
        f"word {part}": (lambda a, b: a.word_select(b, part), lambda a, b: a >> b * part),
    }


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_parts(width: int, signed: bool) -> None:
    """Parts that an offset chooses; beyond the end of an operand there are zeros, or its sign."""
    parts: dict[str, tuple[Values, Numbers]] = {}
    for part in {1, min(3, width), width}:
        parts |= parts_of(part)
    check({"a": Shape(width, signed), "b": Shape(8)}, parts)


@pytest.mark.parametrize("width", WIDTHS)
def test_assignment_of_parts(width: int) -> None:
    """What lies beyond the end is not assigned."""

    def part(a: Value, b: Value) -> Value:
        target = Signal(width)
        m.d.comb += [target.eq(a), target.bit_select(b, min(3, width)).eq(-1)]
        return target

    def word(a: Value, b: Value) -> Value:
        target = Signal(width)
        m.d.comb += [target.eq(a), target.word_select(b, min(3, width)).eq(0)]
        return target

    m = Module()
    a, b = Signal(width, name="a"), Signal(8, name="b")
    outputs = [Signal(width, name="part"), Signal(width, name="word")]
    m.d.comb += [outputs[0].eq(part(a, b)), outputs[1].eq(word(a, b))]
    simulator = compile_design(m, ports=[a, b, *outputs]).simulator()
    size = min(3, width)
    for value, offset in itertools.product(corners(width, False), [0, 1, 2, width - 1, width, width + 1, 255]):
        simulator.poke("a", value)
        simulator.poke("b", offset)
        assert simulator.peek("part") == (value | mask(size) << offset) & mask(width)
        assert simulator.peek("word") == value & ~(mask(size) << offset * size)
