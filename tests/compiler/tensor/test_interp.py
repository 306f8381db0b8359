"""The reference interpreter against numpy, and every refusal."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from compiler.tensor.arguments import ArgumentError
from compiler.tensor.interp import InterpError, fma, run
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    If,
    Mapped,
    Proc,
    Select,
    Store,
    Unary,
    UnaryOp,
    Var,
    cast,
    lt,
    minimum,
    nest,
)

INTEGERS = tuple(dtype for dtype in DType if dtype.is_integer)


def apply(op: BinaryOp, dtype: DType, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``a op b`` element by element, through a procedure."""
    buffers = [Buffer.of(name, dtype, a.shape) for name in "xyz"]
    i = Var("i")
    store = Store(buffers[2], (i,), Binary(op, buffers[0][i,], buffers[1][i,]))
    result = np.zeros_like(a)
    run(Proc("apply", tuple(buffers), (nest([("i", a.size)], store),)), [a, b, result])
    return result


def evaluate(expr: Expr) -> Any:
    """The value of an expression without variables."""
    out = Buffer.of("out", expr.dtype, (1,))
    result = np.zeros(1, expr.dtype.numpy)
    run(Proc("evaluate", (out,), (Store(out, (Const(0),), expr),)), [result])
    return result[0]


def test_fma_is_the_float_nearest_to_the_exact_result() -> None:
    rng = np.random.default_rng(3)
    for _ in range(3000):
        a, b, c = (np.float32(rng.integers(-(1 << 24), 1 << 24) * 2.0 ** rng.integers(-30, 30)) for _ in range(3))
        if rng.integers(2):
            product = np.float32(float(a) * float(b))
            c = np.float32(np.spacing(product) * rng.choice((0.5, -0.5, 2.0**-30)))
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        found = fma(a, b, c)
        neighbours = [np.nextafter(found, np.float32(side)) for side in (-np.inf, np.inf)]
        error = abs(Fraction(float(found)) - exact)
        assert all(error <= abs(Fraction(float(other)) - exact) for other in neighbours)


@pytest.mark.parametrize("sign", [1, -1])
def test_fma_rounds_once(sign: int) -> None:
    """The float64 nearest to the sum lies half-way between two floats, the sum does not."""
    a, b, c = np.float32(24929 * sign), np.float32(673), np.float32(2.0**-40 * sign)
    assert np.float32(float(a) * float(b) + float(c)) == 16777216 * sign
    assert fma(a, b, c) == 16777218 * sign
    assert fma(a, b, -c) == 16777216 * sign


def test_fma_of_what_is_no_number() -> None:
    inf = np.float32(np.inf)
    with np.errstate(all="ignore"):
        assert fma(inf, np.float32(2), np.float32(1)) == inf
        assert np.isnan(fma(inf, np.float32(0), np.float32(1)))
        assert np.isnan(fma(inf, np.float32(1), -inf))
        assert fma(np.float32(3e38), np.float32(2), np.float32(0)) == inf


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_arithmetic_wraps_like_numpy(dtype: DType) -> None:
    rng = np.random.default_rng(1)
    low, high = dtype.limits
    edges = np.array([low, low + 1, max(low, -1), 0, 1, high - 1, high], dtype.numpy)
    a, b = (
        np.concatenate([x, rng.integers(low, high, 50, dtype=dtype.value)])
        for x in (edges.repeat(7), np.tile(edges, 7))
    )
    for op, expected in (
        (BinaryOp.ADD, a + b),
        (BinaryOp.SUB, a - b),
        (BinaryOp.MUL, a * b),
        (BinaryOp.MIN, np.minimum(a, b)),
        (BinaryOp.MAX, np.maximum(a, b)),
    ):
        assert np.array_equal(apply(op, dtype, a, b), expected), op
    amount = (b & (dtype.bits - 1)).astype(dtype.numpy)
    assert np.array_equal(apply(BinaryOp.SHR, dtype, a, amount), a >> amount)
    assert np.array_equal(apply(BinaryOp.SHL, dtype, a, amount), a << amount)
    divisor = np.maximum(b, dtype.numpy.type(1))
    assert np.array_equal(apply(BinaryOp.FLOORDIV, dtype, a, divisor), a // divisor)
    assert np.array_equal(apply(BinaryOp.MOD, dtype, a, divisor), a % divisor)


def test_float_arithmetic_rounds_once() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32)
    b = rng.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32)
    b[:150] = rng.standard_normal(150).astype(np.float32)
    with np.errstate(all="ignore"):
        for op, expected in (
            (BinaryOp.ADD, a + b),
            (BinaryOp.SUB, a - b),
            (BinaryOp.MUL, a * b),
            (BinaryOp.DIV, a / b),
            (BinaryOp.MIN, np.where(a < b, a, b)),
            (BinaryOp.MAX, np.where(a > b, a, b)),
        ):
            assert np.array_equal(apply(op, DType.FLOAT32, a, b), expected, equal_nan=True), op


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (-1.9, DType.INT8, -1),
        (300.0, DType.INT8, 127),
        (-1e30, DType.INT64, -(2**63)),
        (float("nan"), DType.INT32, 0),
        (float("inf"), DType.INT16, 32767),
        (2147483520.0, DType.INT32, 2147483520),
    ],
)
def test_float_to_integer_truncates_and_saturates(value: float, dtype: DType, expected: int) -> None:
    assert evaluate(Cast(dtype, Const(value, DType.FLOAT32))) == expected


def test_casts() -> None:
    assert evaluate(Cast(DType.INT8, Const(0x1FF, DType.INT32))) == -1
    assert evaluate(Cast(DType.INT32, Const(-3, DType.INT8))) == -3
    assert evaluate(Cast(DType.INT32, Compare(CompareOp.EQ, Const(1), Const(1)))) == 1
    # Rounding first to double would give 2**60 + 2**37.
    assert evaluate(Cast(DType.FLOAT32, Const(2**60 + 2**36 + 1))) == np.float32(2**60 + 2**37)
    assert evaluate(Cast(DType.FLOAT32, Const(2**24 + 1, DType.INT32))) == np.float32(2**24)


def test_unary() -> None:
    assert [evaluate(Unary(UnaryOp.RINT, Const(x, DType.FLOAT32))) for x in (0.5, 1.5, -2.5, 2.6)] == [0, 2, -2, 3]
    assert evaluate(Unary(UnaryOp.BITCAST, Const(0x3FC00000, DType.INT32))) == 1.5


def test_select_does_not_evaluate_the_other_operand() -> None:
    x, y = Buffer.of("x", DType.INT32, (3,)), Buffer.of("y", DType.INT32, (5,))
    i = Var("i")
    body = nest([("i", 5)], Store(y, (i,), Select(lt(i, 3), x[i,], Const(9, DType.INT32))))
    result = np.zeros(5, np.int32)
    run(Proc("pad", (x, y), (body,)), [np.array([1, 2, 3], np.int32), result])
    assert result.tolist() == [1, 2, 3, 9, 9]


def test_allocations_are_poisoned_and_may_have_dynamic_shapes() -> None:
    out = Buffer.of("out", DType.INT32, (3, 4))
    i, j = Var("i"), Var("j")
    local = Buffer("local", DType.INT16, (minimum(Const(4) - i * 2, 3), Const(2)))
    body = nest(
        [("i", 3)],
        Alloc(local, (nest([("j", local.shape[0])], Store(out, (i, j), cast(DType.INT32, local[j, 1]))),)),
    )
    result = np.zeros((3, 4), np.int32)
    run(Proc("poison", (out,), (body,)), [result])
    poison = np.frombuffer(b"\xa5\xa5", np.int16)[0]
    assert result.tolist() == [[poison] * 3 + [0], [poison] * 2 + [0] * 2, [0] * 4]


def test_convolution_with_guard_and_mapped_block() -> None:
    rng = np.random.default_rng(3)
    x, w, y = (
        Buffer.of("x", DType.INT8, (2, 6, 6)),
        Buffer.of("w", DType.INT8, (3, 2, 3, 3)),
        Buffer.of("y", DType.INT32, (3, 4, 4)),
    )
    o, r, c, i, p, q = (Var(v) for v in "orcipq")
    product = cast(DType.INT32, x[i, r + p, c + q]) * cast(DType.INT32, w[o, i, p, q])
    proc = Proc(
        "conv",
        (x, w, y),
        (
            nest(
                [("o", 3), ("r", 4), ("c", 4), ("i", 2), ("p", 3), ("q", 3)],
                If(lt(Const(-1), c), (Mapped("gemm", (Store(y, (o, r, c), y[o, r, c] + product),)),)),
            ),
        ),
    )
    data, weight = rng.integers(-128, 128, (2, 6, 6), np.int8), rng.integers(-128, 128, (3, 2, 3, 3), np.int8)
    result = np.zeros((3, 4, 4), np.int32)
    run(proc, [data, weight, result])
    windows = np.lib.stride_tricks.sliding_window_view(data.astype(np.int32), (3, 3), (1, 2))
    assert np.array_equal(result, np.einsum("ircpq,oipq->orc", windows, weight.astype(np.int32)))


X = Buffer.of("x", DType.INT8, (2, 3))


def copy(index: Expr) -> Proc:
    return Proc("copy", (X,), (nest([("i", 3)], Store(X, (Const(1), index), Const(0, DType.INT8))),))


def test_an_index_out_of_range_is_named() -> None:
    with pytest.raises(InterpError) as error:
        run(copy(Var("i") + 1), [np.zeros((2, 3), np.int8)])
    assert str(error.value) == "Index 1 of x must be in 0..2, not 3 (index (1, 3))"
    with pytest.raises(InterpError) as error:
        run(copy(cast(DType.INT64, X[Var("i") - 1, 0])), [np.zeros((2, 3), np.int8)])
    assert str(error.value) == "Index 0 of x must be in 0..1, not -1 (index (-1, 0))"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ([], "Arguments of copy must be 1 arrays, not 0"),
        ([np.zeros((2, 3), np.int16)], "Argument x of copy must be int8 of shape (2, 3), not int16 of shape (2, 3)"),
        ([np.zeros((3, 2), np.int8)], "Argument x of copy must be int8 of shape (2, 3), not int8 of shape (3, 2)"),
        ([np.zeros((3, 2), np.int8).T], "Argument x of copy must be C-contiguous and aligned, not of strides (1, 2)"),
    ],
)
def test_arguments_are_checked(arrays: list[np.ndarray[Any, Any]], sentence: str) -> None:
    with pytest.raises(ArgumentError) as error:
        run(copy(Var("i")), arrays)
    assert str(error.value) == sentence


def test_a_written_argument_must_be_writeable() -> None:
    array = np.zeros((2, 3), np.int8)
    array.flags.writeable = False
    with pytest.raises(ArgumentError) as error:
        run(copy(Var("i")), [array])
    assert str(error.value) == "Argument x of copy must be writeable, because the procedure stores to it"


@pytest.mark.parametrize(
    ("expr", "sentence"),
    [
        (Binary(BinaryOp.FLOORDIV, Const(1, DType.INT8), Const(0, DType.INT8)), "Divisor must not be 0"),
        (Binary(BinaryOp.MOD, Const(1, DType.INT8), Const(0, DType.INT8)), "Divisor must not be 0"),
        (Const(1, DType.INT8) >> 8, "Shift amount must be in 0..7, not 8"),
        (Binary(BinaryOp.SHL, Const(1, DType.INT8), Const(-1, DType.INT8)), "Shift amount must be in 0..7, not -1"),
        (Binary(BinaryOp.DIV, Const(1, DType.INT8), Const(1, DType.INT8)), "Operator '/' must not be used on int8"),
        (
            Binary(BinaryOp.SHR, Const(1.0, DType.FLOAT32), Const(1.0, DType.FLOAT32)),
            "Operator '>>' must not be used on float32",
        ),
        (Cast(DType.BOOL, Const(1)), "Cast must not be to bool, compare instead"),
    ],
)
def test_what_has_no_meaning_is_refused(expr: Expr, sentence: str) -> None:
    with pytest.raises(InterpError) as error:
        evaluate(expr)
    assert str(error.value) == sentence
