"""What a piece of IR touches, and when iterations are apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.tensor.affine import Range, evaluate
from compiler.tensor.analysis import (
    Access,
    PaddedRead,
    accesses,
    by_buffer,
    conflicts,
    find_loop,
    innermost,
    loops_of,
    only_reductions,
    padded_read,
    reduction,
    separated,
    stores,
)
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
    Mapped,
    Proc,
    Select,
    Store,
    Var,
    both,
    cast,
    le,
    lt,
    nest,
)
from tests.compiler.tensor.test_affine import linear, points, ranges

X = Buffer.of("x", DType.INT32, (8, 8))
Y = Buffer.of("y", DType.INT32, (8,))
T = Buffer.of("t", DType.INT32, (8,))
I1, J = Var("i"), Var("j")
ONE = Const(1, DType.INT32)


def test_accesses_name_buffer_place_and_loops() -> None:
    body = (nest([("i", 4), ("j", 3)], Store(Y, (I1,), Y[(I1,)] + X[I1, J])),)
    outer, inner = Range("i", Const(4)), Range("j", Const(3))
    assert list(accesses(body)) == [
        Access(Y, (I1,), False, (outer, inner)),
        Access(X, (I1, J), False, (outer, inner)),
        Access(Y, (I1,), True, (outer, inner)),
    ]


def test_accesses_see_conditions_and_indices_but_not_private_buffers() -> None:
    where = cast(DType.INT64, T[(I1,)])
    guarded = If(Compare(CompareOp.LT, X[0, 0], ONE), (Store(Y, (where,), ONE),))
    body = (Alloc(T, (Mapped("m", (nest([("i", 4)], Store(T, (I1,), ONE), guarded),)),)),)
    assert [(a.buffer.name, a.write) for a in accesses(body)] == [("x", False), ("y", True)]
    outside = [(a.buffer.name, a.write) for a in accesses(body[0].body)]
    assert outside == [("t", True), ("x", False), ("t", False), ("y", True)]


def test_conflicts_are_accesses_to_what_is_written() -> None:
    body = (nest([("i", 4)], Store(Y, (I1,), Y[(I1,)] + X[I1, 0])),)
    assert set(by_buffer(accesses(body))) == {"x", "y"}
    assert set(conflicts(accesses(body))) == {"y"}


def test_loops_in_program_order() -> None:
    inner = If(lt(I1, 2), (Alloc(T, (Mapped("m", (nest([("j", 3)], Store(Y, (J,), ONE)),)),)),))
    proc = Proc("p", (X, Y), (nest([("i", 4)], inner), nest([("k", 2)], Store(Y, (Var("k"),), ONE))))
    assert [site.loop.var.name for site in loops_of(proc.body)] == ["i", "j", "k"]
    site = find_loop(proc, "j")
    assert site is not None
    assert site.outer == (Range("i", Const(4)),)
    assert find_loop(proc, "nowhere") is None
    assert [store.index for store in stores(proc.body)] == [(J,), (Var("k"),)]


# -- separated


def touch(index: Expr, *loops: tuple[str, int], write: bool = True) -> Access:
    return Access(Y, (index,), write, tuple(Range(name, Const(extent)) for name, extent in loops))


OUTER = [Range("o", Const(3)), Range("i", Const(4))]


@pytest.mark.parametrize(
    ("touched", "apart"),
    [
        ([touch(I1)], True),
        ([touch(I1 * -1 + 7)], True),
        ([touch(I1 * 3 + J, ("j", 3))], True),
        ([touch(I1 * 3 + J, ("j", 4))], False),
        ([touch(I1 + Var("o"))], True),
        ([touch(I1 + Var("o")), touch(I1)], False),
        ([touch(J, ("j", 4))], False),
        ([touch(I1), touch(I1 + 1, write=False)], False),
        ([touch(I1 * 2), touch(I1 * 2 + 1, write=False)], True),
        ([touch(I1 * 2), touch(I1, write=False)], False),
        ([touch(I1), touch(Const(0), write=False)], False),
        ([touch(I1 // 2)], False),
        ([touch(I1 * 2 - Var("o") * 2), touch(I1 * 2 - Var("o") * 2 + 1)], True),
    ],
)
def test_separated(touched: list[Access], apart: bool) -> None:
    assert separated(touched, "i", OUTER) is apart


def test_separated_counts_loops_inside_as_running() -> None:
    """With j inside of i the iterations (0, 1) and (1, 0) meet; with j outside of i they are not compared."""
    touched = [Access(Y, (I1 + J,), True, ())]
    i, j = Range("i", Const(4)), Range("j", Const(3))
    assert not separated(touched, "i", [i, j])
    assert separated(touched, "i", [j, i])


def test_one_dimension_is_enough() -> None:
    touched = [Access(X, (J, I1), True, (Range("j", Const(3)),)), Access(X, (Const(0), I1), False, ())]
    assert separated(touched, "i", OUTER)


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_separated_iterations_touch_nothing_in_common(r: random.Random) -> None:
    loops = ranges(r)
    outer, rest = loops[:2], loops[2:]
    var = r.choice(["i", "j"])
    position = ["i", "j"].index(var)
    touched = []
    for _ in range(r.randint(1, 2)):
        index = linear(r, ["i", "j", "k"]) if r.randrange(3) else Var(var) * r.choice((2, 3, 5)) + linear(r, ["k"])
        touched.append(Access(Y, (index,), True, tuple(rest)))
    if not separated(touched, var, outer):
        return
    owners: dict[tuple[tuple[int, ...], int], int] = {}
    for values in points(loops):
        still = tuple(values[loop.name] for loop in outer[:position])
        for access in touched:
            element = still, evaluate(access.index[0], values)
            assert owners.setdefault(element, values[var]) == values[var]


# -- reductions


def own(index: Expr = I1) -> Load:
    return Load(Y, (index,))


@pytest.mark.parametrize(
    ("value", "operation"),
    [
        (own() + X[I1, J], BinaryOp.ADD),
        (X[I1, J] + own(), BinaryOp.ADD),
        (Binary(BinaryOp.MAX, own(), X[I1, J]), BinaryOp.MAX),
        (own() * X[I1, J], BinaryOp.MUL),
        (own() - X[I1, J], None),
        (own() >> X[I1, J], None),
        (own(J) + X[I1, J], None),
        (own() + own(), None),
        (own() + X[I1, J] * own(J), None),
        (X[I1, J], None),
        ((own() + X[I1, J]) + ONE, None),
    ],
)
def test_reduction(value: Expr, operation: BinaryOp | None) -> None:
    assert reduction(Store(Y, (I1,), value)) is operation


def test_float_sums_are_no_reduction() -> None:
    f = Buffer.of("f", DType.FLOAT32, (8,))
    assert reduction(Store(f, (I1,), f[(I1,)] + Const(1.0, DType.FLOAT32))) is None


@pytest.mark.parametrize(
    ("values", "only"),
    [
        ([own() + ONE], True),
        ([own() + ONE, own() + X[I1, J]], True),
        ([own() + ONE, Binary(BinaryOp.MAX, own(), ONE)], False),
        ([own() + ONE, ONE], False),
        ([own() + ONE, own(Const(3)) + ONE], False),
        ([], False),
    ],
)
def test_only_reductions(values: list[Expr], only: bool) -> None:
    assert only_reductions(tuple(Store(Y, (I1,), value) for value in values), "y") is only


def test_a_read_elsewhere_is_not_only_reductions() -> None:
    sum_ = Store(Y, (I1,), own() + ONE)
    assert not only_reductions((sum_, Store(T, (I1,), own())), "y")
    assert not only_reductions((If(Compare(CompareOp.LT, own(), ONE), (sum_,)),), "y")


# -- forms


def test_padded_read() -> None:
    inside, load, zero = both(le(0, I1 - 1), lt(I1 - 1, 8)), Load(Y, (I1 - 1,)), Const(0, DType.INT32)
    assert padded_read(Select(inside, load, zero)) == PaddedRead(load, (le(0, I1 - 1), lt(I1 - 1, 8)), zero)
    assert padded_read(Select(inside, load, X[0, 0])) is None
    assert padded_read(Select(inside, load + ONE, zero)) is None
    assert padded_read(load) is None


def test_innermost_of_a_perfect_nest() -> None:
    store = Store(Y, (I1,), ONE)
    j = For(J, Const(3), (If(both(lt(J, 2), lt(I1, 3)), (store,)),))
    i = For(I1, Const(4), (Mapped("m", (j,)),))
    assert innermost(i) == ([i, j], (lt(J, 2), lt(I1, 3)), store)
    assert innermost(store) == ([], (), store)
    assert innermost(For(I1, Const(4), (store, store))) is None
    assert innermost(For(I1, Const(4), (Alloc(T, (store,)),))) is None
