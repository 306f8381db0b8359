"""What narrow, set_scope and stage make of a small procedure, and what they refuse, word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.tensor.interp import run
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
    Proc,
    Scope,
    Select,
    Store,
    both,
    cast,
    le,
    lt,
    minimum,
    nest,
)
from compiler.tensor.schedule import Schedule
from tests.compiler.tensor.fuzz_schedule import answer
from tests.compiler.tensor.test_schedule import (
    I1,
    I2,
    J2,
    LOOPS,
    J,
    K,
    T,
    V,
    X,
    Y,
    applied,
    copy,
    make,
    produce_consume,
    refused,
)

# -- narrow and set_scope


def test_narrow() -> None:
    s = make(produce_consume((I2, J2)))
    s.merge("i", "i2")
    assert applied(s, lambda s: s.narrow("t", "i")) == (
        "for i in 4:\n"
        "  alloc t: int32[1, 3] local:\n"
        "    for j in 3:\n"
        "      t[0, j] = x[i, j]\n"
        "    for j2 in 3:\n"
        "      y[i, j2] = t[0, j2]"
    )


def test_narrow_to_a_ragged_tile() -> None:
    s = make(produce_consume((I2, J2)))
    s.split("i", 3, "io", "ii")
    s.split("i2", 3, "io2", "ii2")
    s.merge("io", "io2")
    text = applied(s, lambda s: s.narrow("t", "io"))
    assert text.splitlines()[:2] == ["for io in 2:", "  alloc t: int32[min(3, io * -3 + 4), 3] local:"]


def flowing() -> Alloc:
    """The sums of the diagonals, each handed on from iteration to iteration of two loops."""
    first = If(Compare(CompareOp.EQ, J, Const(0)), (Store(T, (I1 + J, Const(0)), X[I1, J]),))
    second = If(lt(0, J), (Store(Y, (I1, J), T[I1 + J, 0]),))
    start = nest([("k", 8)], Store(T, (K, Const(1)), Const(0, DType.INT32)))
    return Alloc(T, (nest([("i", 4), ("j", 3)], start, first, second),))


@pytest.mark.parametrize(
    ("stmt", "arguments", "sentence"),
    [
        (produce_consume((I2, J2)), ("t", "i"), "buffer 't' must be used inside loop 'i', and only there"),
        (produce_consume((I2, J2)), ("x", "i"), "buffer must be allocated in the procedure, 'x' is not"),
        (produce_consume((I2, J2)), ("t", "k"), "loop must be one of i, j, i2, j2, not 'k'"),
        (flowing(), ("t", "i"), "iterations of loop 'i' must not share elements of 't'"),
        (
            nest([("k", 4)], produce_consume((I2, J2))),
            ("t", "k"),
            "buffer 't' must be used inside loop 'k', and only there",
        ),
    ],
)
def test_narrow_refuses(stmt: Alloc, arguments: tuple[str, str], sentence: str) -> None:
    assert refused(make(stmt), lambda s: s.narrow(*arguments)) == sentence


def test_narrow_refuses_a_value_that_flows_between_iterations_of_two_loops() -> None:
    """Each loop alone touches elements apart, both together do not: (1, 0) reads what (0, 1) has written."""
    write = If(Compare(CompareOp.EQ, I1, Const(0)), (Store(T, (I1 + J, Const(0)), X[I1, J]),))
    read = If(lt(0, I1), (If(lt(J, 2), (Store(Y, (I1, J), T[I1 + J, 0]),)),))
    s = make(Alloc(T, (For(I1, Const(2), (For(J, Const(3), (write, read)),)),)))
    assert answer(s.proc, 0) is not None
    assert refused(s, lambda s: s.narrow("t", "j")) == "iterations of loop 'i' must not share elements of 't'"


def test_narrow_refuses_different_regions() -> None:
    body: Body = (Store(T, (I1, I1), X[I1, 0]), Store(Y, (I1, Const(0)), T[I1, I1] + X[I1, 1]))
    body = (*body, nest([("j", 2)], Store(T, (I1, J), X[I1, J])))
    sentence = refused(make(Alloc(T, (For(I1, Const(4), body),))), lambda s: s.narrow("t", "i"))
    assert sentence == "all accesses to t must cover one region"


def test_narrow_covers_places_that_are_known() -> None:
    body: Body = (Store(T, (I1, Const(1)), X[I1, 0]), Store(T, (I1, Const(3)), X[I1, 1]))
    s = make(Alloc(T, (For(I1, Const(4), (*body, Store(Y, (I1, Const(0)), T[I1, 1] + T[I1, 3]))),)))
    assert applied(s, lambda s: s.narrow("t", "i")) == (
        "for i in 4:\n"
        "  alloc t: int32[1, 3] local:\n"
        "    t[0, 0] = x[i, 0]\n"
        "    t[0, 2] = x[i, 1]\n"
        "    y[i, 0] = t[0, 0] + t[0, 2]"
    )


def test_narrow_refuses_places_that_only_inner_loops_know() -> None:
    body: Body = (nest([("j", 4)], Store(T, (I1, J // 2), X[I1, J])),)
    sentence = refused(make(Alloc(T, (For(I1, Const(4), body),))), lambda s: s.narrow("t", "i"))
    assert sentence == "indices of t must be affine in the loops they vary with, not j // 2"


def test_set_scope() -> None:
    s = make(produce_consume((I2, J2)))
    assert applied(s, lambda s: s.set_scope("t", Scope.ACC)).startswith("alloc t: int32[8, 8] acc:")
    sentence = refused(make(copy()), lambda s: s.set_scope("x", Scope.ACC))
    assert sentence == "buffer must be allocated in the procedure, 'x' is not"


def test_rotate() -> None:
    s = make(produce_consume((I2, J2)))
    assert applied(s, lambda s: s.rotate("t", 3)).startswith("alloc t: int32[8, 8] local 3 copies:")
    assert refused(make(copy()), lambda s: s.rotate("x", 2)) == "buffer must be allocated in the procedure, 'x' is not"
    sentence = refused(make(produce_consume((I2, J2))), lambda s: s.rotate("t", 0))
    assert sentence == "copies of 't' must be at least 1, not 0"


# -- stage


def test_stage() -> None:
    assert applied(make(copy()), lambda s: s.stage("x", "i", Scope.INP, "row")) == (
        "for i in 4:\n"
        "  alloc row: int32[1, 3] inp:\n"
        "    for row.0 in 1:\n"
        "      for row.1 in 3:\n"
        "        row[row.0, row.1] = x[i + row.0, row.1]\n"
        "    for j in 3:\n"
        "      y[i, j] = row[0, j]"
    )


def test_stage_the_whole_procedure() -> None:
    text = applied(make(copy()), lambda s: s.stage("x", None, Scope.LOCAL, "c"))
    assert text.startswith("alloc c: int32[4, 3] local:")


def test_stage_converts() -> None:
    loop = nest([("i", 8)], Store(Y, (I1, Const(0)), cast(DType.INT32, V[(I1,)])))
    assert applied(make(loop), lambda s: s.stage("v", None, Scope.ACC, "w", DType.INT32)) == (
        "alloc w: int32[8] acc:\n  for w.0 in 8:\n    w[w.0] = int32(v[w.0])\n  for i in 8:\n    y[i, 0] = w[i]"
    )


def padded(index: Expr, *conditions: Expr, fill: int = 0) -> For:
    read = Select(both(*conditions), Load(V, (index,)), Const(fill, DType.INT8))
    return nest([("i", 4), ("j", 3)], Store(Y, (I1, J), cast(DType.INT32, read)))


AT = I1 + J - 1


def test_stage_takes_padding_over() -> None:
    s = make(padded(AT, le(0, AT), lt(AT, 16)))
    assert applied(s, lambda s: s.stage("v", "i", Scope.LOCAL, "w")) == (
        "for i in 4:\n"
        "  alloc w: int8[3] local:\n"
        "    for w.0 in 3:\n"
        "      w[w.0] = v[i + w.0 + -1] if 0 <= i + w.0 + -1 and i + w.0 + -1 < 16 else 0i8\n"
        "    for j in 3:\n"
        "      y[i, j] = int32(w[j])"
    )


def test_stage_cuts_at_the_edges_what_guards_keep_from_being_read() -> None:
    guarded = If(both(le(0, AT), lt(AT, 4)), (Store(Y, (I1, J), cast(DType.INT32, V[(AT,)])),))
    s = make(nest([("i", 4), ("j", 3)], guarded))
    text = applied(s, lambda s: s.stage("v", "i", Scope.LOCAL, "w"))
    assert "alloc w: int8[min(3, i + 2)] local:" in text
    assert "w[w.0] = v[max(i + -1, 0) + w.0]" in text


def test_stage_of_a_single_element() -> None:
    s, one = Buffer.of("s", DType.INT32, ()), Buffer.of("o", DType.INT32, (4,))
    proc = Proc("p", (s, one), (nest([("i", 4)], Store(one, (I1,), s[()])),))
    text = applied(Schedule(proc), lambda schedule: schedule.stage("s", "i", Scope.LOCAL, "c"))
    assert text == "for i in 4:\n  alloc c: int32[] local:\n    c[] = s[]\n    o[i] = c[]"


def test_stage_of_a_ragged_temporary() -> None:
    s = make(produce_consume((I2, J2)))
    s.split("i", 3, "io", "ii")
    s.split("i2", 3, "io2", "ii2")
    s.merge("io", "io2")
    s.narrow("t", "io")
    text = applied(s, lambda s: s.stage("t", "ii2", Scope.LOCAL, "row"))
    assert "alloc row: int32[1, 3] local:" in text


GATHERED = minimum(Cast(DType.INT64, X[I1, 0]) % 16, 15)


@pytest.mark.parametrize(
    ("loop", "arguments", "sentence"),
    [
        (copy(), ("x", "k", Scope.LOCAL, "c"), "loop must be one of i, j, not 'k'"),
        (copy(), ("v", "i", Scope.LOCAL, "c"), "buffer 'v' must be read and not written in 'i'"),
        (copy(), ("y", "i", Scope.LOCAL, "c"), "buffer 'y' must be read and not written in 'i'"),
        (copy(), ("y", None, Scope.LOCAL, "c"), "buffer 'y' must be read and not written in 'p'"),
        (
            nest(LOOPS, Store(Y, (I1, J), Y[I1, J] + 1)),
            ("y", "i", Scope.LOCAL, "c"),
            "buffer 'y' must be read and not written in 'i'",
        ),
        (copy(), ("x", "i", Scope.LOCAL, "y"), "new buffer name must not be in use, 'y' is"),
        (
            copy(loops=[("c.0", 2), ("i", 4), ("j", 3)]),
            ("x", "i", Scope.LOCAL, "c"),
            "new loop name must not be in use, 'c.0' is",
        ),
        (
            nest(LOOPS, Store(Y, (I1, J), X[I1, J] + X[I1 + 1, J])),
            ("x", "i", Scope.LOCAL, "c"),
            "all accesses to x must cover one region",
        ),
        (
            nest(LOOPS, Store(Y, (I1, J), cast(DType.INT32, V[(I1,)]) + X[I1, J])),
            ("x", "i", Scope.LOCAL, "c", DType.INT8),
            "every read of 'x' must be cast to int8",
        ),
        (
            nest(LOOPS, Store(Y, (I1, J), X[I1, J // 2])),
            ("x", "i", Scope.LOCAL, "c"),
            "indices of x must be affine in the loops they vary with, not j // 2",
        ),
        (
            nest(LOOPS, Store(Y, (I1, J), cast(DType.INT32, V[(GATHERED,)]))),
            ("v", "i", Scope.LOCAL, "c"),
            "indices of v must be affine in the loops they vary with, not min(int64(x[i, 0]) % 16, 15)",
        ),
        (
            nest(LOOPS, Store(Y, (I1, J), Select(le(0, AT), Load(X, (I1, AT)), cast(DType.INT32, I1)))),
            ("x", "i", Scope.LOCAL, "c"),
            "padding of 'x' must be a constant, not int32(i)",
        ),
        (
            padded(AT, le(0, AT), lt(AT, J + 1)),
            ("v", "i", Scope.LOCAL, "c"),
            "condition of a padded read must compare one of its indices with a constant, not i + j - 1 < j + 1",
        ),
        (
            padded(AT, le(1, I1 + J), lt(AT, 16)),
            ("v", "i", Scope.LOCAL, "c"),
            "condition of a padded read must compare one of its indices with a constant, not 1 <= i + j",
        ),
        (
            padded(AT, Binary(BinaryOp.AND, Compare(CompareOp.LT, X[I1, J], Const(3, DType.INT32)), le(0, AT))),
            ("v", "i", Scope.LOCAL, "c"),
            "condition of a padded read must compare one of its indices with a constant, not x[i, j] < 3i32",
        ),
    ],
)
def test_stage_refuses(loop: For, arguments: tuple[str, str | None, Scope, str], sentence: str) -> None:
    assert refused(make(loop), lambda s: s.stage(*arguments)) == sentence


def test_stage_refuses_reads_padded_in_different_ways() -> None:
    read = Select(le(0, AT), Load(V, (AT,)), Const(0, DType.INT8))
    s = make(nest(LOOPS, Store(Y, (I1, J), cast(DType.INT32, read + V[(I1,)]))))
    assert refused(s, lambda s: s.stage("v", "i", Scope.LOCAL, "c")) == "all reads of 'v' must be padded alike"


def test_stage_refuses_a_padded_read_that_another_guard_keeps_inside() -> None:
    """The copy has no such guard: it would read y[-1, ...]."""
    read = Select(lt(AT, 3), Load(X, (AT, AT)), Const(0, DType.INT32))
    s = make(nest(LOOPS, If(le(0, AT), (Store(Y, (I1, J), read),))))
    sentence = refused(s, lambda s: s.stage("x", "i", Scope.LOCAL, "c"))
    assert sentence == "padded reads of 'x' must compare every index that may leave it"


def test_stage_refuses_a_padded_diagonal() -> None:
    read = Select(both(le(0, AT), lt(AT, 8)), Load(X, (AT, AT)), Const(0, DType.INT32))
    sentence = refused(make(nest(LOOPS, Store(Y, (I1, J), read))), lambda s: s.stage("x", "i", Scope.LOCAL, "c"))
    assert sentence == "padded reads of 'x' must compare every index that may leave it"


def test_stage_keeps_the_padding() -> None:
    s = make(padded(AT, le(0, AT), lt(AT, 16), fill=-128))
    assert "-128i8" in applied(s, lambda s: s.stage("v", "i", Scope.LOCAL, "c")).split("y[")[0]


@pytest.mark.parametrize("fill", [-0.0, -math.inf])
def test_stage_keeps_padding_to_the_last_bit(fill: float) -> None:
    f, g = (Buffer.of(name, DType.FLOAT32, (4,)) for name in "fg")
    read = Select(le(0, I1 - 1), Load(f, (I1 - 1,)), Const(fill, DType.FLOAT32))
    s = Schedule(Proc("p", (f, g), (nest([("i", 4)], Store(g, (I1,), read)),)))
    s.stage("f", None, Scope.LOCAL, "c")
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    run(s.proc, [x, y])
    assert y.tobytes() == np.array([fill, 1, 1, 1], np.float32).tobytes()


def test_stage_refuses_two_zeros() -> None:
    f, g = (Buffer.of(name, DType.FLOAT32, (4,)) for name in "fg")
    reads = [Select(le(0, I1 - 1), Load(f, (I1 - 1,)), Const(zero, DType.FLOAT32)) for zero in (0.0, -0.0)]
    s = Schedule(Proc("p", (f, g), (nest([("i", 4)], Store(g, (I1,), reads[0] + reads[1])),)))
    assert refused(s, lambda s: s.stage("f", None, Scope.LOCAL, "c")) == "all reads of 'f' must be padded alike"
