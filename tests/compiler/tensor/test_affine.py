"""Affine forms and bounds against enumeration."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.tensor.affine import (
    Affine,
    Range,
    affine,
    bounds,
    evaluate,
    simplify,
    symbolic_bounds,
    symbolic_box,
    variables,
)
from compiler.tensor.ir import Binary, BinaryOp, Buffer, Const, DType, Expr, Load, Var, maximum, minimum
from compiler.tensor.printer import format_expr

I1, J, K = Var("i"), Var("j"), Var("k")
NAMES = ("i", "j", "k")
Values = dict[str, int]
RANDOM = st.randoms(use_true_random=False)


def linear(r: random.Random, names: list[str]) -> Expr:
    expr: Expr = Const(r.randint(-9, 9))
    for name in r.sample(names, r.randint(0, len(names))):
        expr = expr + Var(name) * r.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    return expr


def extremal(r: random.Random, names: list[str], depth: int = 2) -> Expr:
    """Sums and multiples of linear expressions, minima and maxima."""
    if depth == 0 or r.randrange(3) == 0:
        return linear(r, names)
    a, b = (extremal(r, names, depth - 1) for _ in "ab")
    kind = r.randrange(5)
    if kind == 0:
        return a * r.randint(-3, 3)
    return (minimum, maximum, lambda a, b: a + b, lambda a, b: a - b)[kind - 1](a, b)


def anything(r: random.Random, names: list[str], depth: int = 3) -> Expr:
    """Any index expression, as someone might build the tree: not folded."""
    if depth == 0 or r.randrange(4) == 0:
        return Var(r.choice(names)) if r.randrange(3) else Const(r.randint(-9, 9))
    op = r.choice(("ADD", "SUB", "MUL", "FLOORDIV", "MOD", "MIN", "MAX", "ADD", "SUB", "MIN", "MAX"))
    a = anything(r, names, depth - 1)
    b = Const(r.randint(1, 7)) if op in ("FLOORDIV", "MOD") else anything(r, names, depth - 1)
    return Binary(BinaryOp[op], a, b)


def ranges(r: random.Random, names: tuple[str, ...] = NAMES) -> list[Range]:
    """Loops whose extents use the loops around them; some do not run at all."""
    found: list[Range] = []
    for name in names:
        extent: Expr = Const(r.choice((1, 2, 3, 4, 5)))
        if found and r.randrange(2):
            extent = minimum(extent, linear(r, [loop.name for loop in found]))
        if found and r.randrange(4) == 0:
            extent = maximum(extent, linear(r, [loop.name for loop in found]) - 3)
        found.append(Range(name, extent))
    return found


def points(loops: list[Range], known: Values | None = None) -> Iterator[Values]:
    values = dict(known or {})
    if not loops:
        yield values
        return
    for value in range(evaluate(loops[0].extent, values)):
        yield from points(loops[1:], {**values, loops[0].name: value})


@given(RANDOM)
def test_simplify_keeps_the_value(r: random.Random) -> None:
    expr = anything(r, list(NAMES))
    values = [{name: r.randint(-20, 20) for name in NAMES} for _ in range(20)]
    short = simplify(expr)
    assert [evaluate(short, one) for one in values] == [evaluate(expr, one) for one in values], format_expr(expr)


@given(RANDOM)
def test_arithmetic_of_forms(r: random.Random) -> None:
    a, b, factor = anything(r, list(NAMES)), anything(r, list(NAMES)), r.randint(-3, 3)
    values = {name: r.randint(-20, 20) for name in NAMES}
    x, y = evaluate(a, values), evaluate(b, values)
    assert evaluate((affine(a) + affine(b)).expr, values) == x + y
    assert evaluate((affine(a) - affine(b)).expr, values) == x - y
    assert evaluate(affine(a).scale(factor).expr, values) == x * factor
    assert all(affine(a).terms.values())


@settings(max_examples=200)
@given(RANDOM)
def test_bounds_hold(r: random.Random) -> None:
    loops = ranges(r)
    make = r.choice((linear, extremal, anything))
    expr = make(r, list(NAMES))
    found = [evaluate(expr, values) for values in points(loops)]
    low, high = bounds(expr, loops)
    assert all(low <= value <= high for value in found), format_expr(expr)


@given(RANDOM)
def test_bounds_are_reached_by_affine_expressions(r: random.Random) -> None:
    loops = [Range(name, Const(r.randint(1, 5))) for name in NAMES]
    expr = linear(r, list(NAMES))
    found = [evaluate(expr, values) for values in points(loops)]
    assert bounds(expr, loops) == (min(found), max(found))


@given(RANDOM)
def test_symbolic_bounds_hold(r: random.Random) -> None:
    loops = ranges(r)
    outer, inner = loops[:1], loops[1:]
    expr = extremal(r, list(NAMES)) if r.randrange(2) else linear(r, list(NAMES))
    low, high = symbolic_bounds(expr, inner)
    if (variables(low) | variables(high)) - {"i"}:
        return  # a minimum or maximum of inner loops, which has no closed form
    for known in points(outer):
        for values in points(inner, known):
            assert evaluate(low, known) <= evaluate(expr, values) <= evaluate(high, known)


@settings(max_examples=300)
@given(RANDOM)
def test_symbolic_box_covers(r: random.Random) -> None:
    """Every value, or with a limit every value in ``0..limit - 1``, is in the box, which does not leave the limit."""
    loops = ranges(r)
    cut = r.randint(1, 2)
    outer, inner = loops[:cut], loops[cut:]
    expr = extremal(r, list(NAMES)) if r.randrange(3) == 0 else linear(r, list(NAMES))
    limit = Const(r.randint(1, 9)) if r.randrange(2) else None
    try:
        origin, size = symbolic_box(expr, outer, inner, limit)
    except ValueError:
        return
    if (variables(origin) | variables(size)) - {loop.name for loop in outer}:
        return
    for known in points(outer):
        first, count = evaluate(origin, known), evaluate(size, known)
        for values in points(inner, known):
            value = evaluate(expr, values)
            if limit is None or 0 <= value < limit.value:
                assert first <= value < first + count, format_expr(expr)
        if limit is not None and count > 0:
            assert first >= 0
            assert first + count <= evaluate(limit, {})


@given(RANDOM)
def test_symbolic_box_is_tight_for_affine_expressions(r: random.Random) -> None:
    outer, inner = [Range("i", Const(3))], [Range("j", Const(r.randint(1, 4))), Range("k", Const(r.randint(1, 4)))]
    expr = linear(r, list(NAMES))
    origin, size = symbolic_box(expr, outer, inner)
    for known in points(outer):
        found = [evaluate(expr, values) for values in points(inner, known)]
        assert (evaluate(origin, known), evaluate(size, known)) == (min(found), max(found) - min(found) + 1)


def test_box_of_a_ragged_tile() -> None:
    """Rows of 7 in tiles of 3, a window of 3 around each: the sizes that a copy of the window needs."""
    tile = Range("i", minimum(Const(3), 7 - K * 3))
    origin, size = symbolic_box(K * 3 + I1 + J - 1, [Range("k", Const(3))], [tile, Range("j", Const(3))], Const(7))
    boxes = [(evaluate(origin, {"k": k}), evaluate(size, {"k": k})) for k in range(3)]
    assert boxes == [(0, 4), (2, 5), (5, 2)]


def test_one_value_is_one_wide() -> None:
    expr = minimum(maximum(I1 - 2, 0), 5)
    assert symbolic_box(expr, [Range("i", Const(9))], [Range("j", Const(4))]) == (simplify(expr), Const(1))


def test_common_parts_of_extrema_cancel() -> None:
    assert simplify(minimum(I1 + 3, I1 + 5)) == I1 + 3
    assert simplify(maximum(I1 * 2, 4 + I1 * 2)) == I1 * 2 + 4
    assert variables(simplify(minimum(I1 + J, I1 + 7) - I1)) == {"j"}


def test_parts_of_a_form() -> None:
    form = affine(I1 * 3 + J + 5)
    assert (form.const, form.coefficient("i"), form.coefficient("k")) == (5, 3, 0)
    assert form.without(["i"]) == affine(J + 5)
    assert form.only(["i"]) == affine(I1 * 3)
    assert form.is_linear
    assert not affine(I1 // 2 + J).is_linear
    assert affine(I1 - I1) == Affine(0, {})
    assert variables(I1 * J + 2) == {"i", "j"}


def test_bounds_need_loops() -> None:
    with pytest.raises(ValueError, match=r"^Index term must be bounded by loops, not Var\(name='j'\)$"):
        bounds(I1 + J, [Range("i", Const(3))])
    with pytest.raises(ValueError, match=r"^Index term must be bounded by loops, not Binary\(op=<BinaryOp.SHR"):
        bounds(Binary(BinaryOp.SHR, I1, Const(1)), [Range("i", Const(3))])


def test_evaluate_refuses_memory() -> None:
    table = Buffer.of("t", DType.INT64, (4,))
    rule = "^Index expression must be made of constants, variables and operations, not Load"
    with pytest.raises(TypeError, match=rule):
        evaluate(Load(table, (I1,)), {"i": 0})


DIVISIONS = [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1)]


@pytest.mark.parametrize(("a", "b", "quotient", "rest"), DIVISIONS)
def test_division_rounds_down(a: int, b: int, quotient: int, rest: int) -> None:
    assert evaluate(Binary(BinaryOp.FLOORDIV, I1, Const(b)), {"i": a}) == quotient
    assert evaluate(Binary(BinaryOp.MOD, I1, Const(b)), {"i": a}) == rest
