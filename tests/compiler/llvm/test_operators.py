"""Every operator on every type it has, in scalar and in vector code, against the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.llvm.jit import compile_proc
from compiler.tensor.interp import run
from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Fma,
    For,
    LoopKind,
    Proc,
    Store,
    Unary,
    UnaryOp,
    Var,
    maximum,
)

INTEGERS = tuple(dtype for dtype in DType if dtype.is_integer)
FLOATS = (DType.FLOAT32, DType.FLOAT64)
BITS = {16: np.uint16, 32: np.uint32, 64: np.uint64}
ARITHMETIC = (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
COUNT = 259  # leaves a scalar rest for every number of lanes


def samples(dtype: DType, seed: int) -> np.ndarray[Any, Any]:
    """Every pair of extreme values (with the other seed), and random ones."""
    rng = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, COUNT).astype(np.bool_)
    if dtype.is_float:
        values = [0, -0.0, 1, -1.5, 2.5, np.inf, -np.inf, np.nan, 1e-45, 3e38, 2.0**31, -(2.0**63)]
        with np.errstate(over="ignore"):
            edges = np.array(values).astype(dtype.numpy)
        rest = rng.integers(0, 2**dtype.bits, COUNT, dtype=BITS[dtype.bits]).view(dtype.numpy)
        rest[::2] = (rng.standard_normal(len(rest[::2])) * 100).astype(dtype.numpy)
    else:
        low, high = dtype.limits
        edges = np.array([low, low + 1, max(low, -1), 0, 1, 7, high - 1, high], dtype.numpy)
        rest = rng.integers(low, high, COUNT, dtype=dtype.value, endpoint=True)
    pairs = edges.repeat(len(edges)) if seed else np.tile(edges, len(edges))
    return np.concatenate([pairs, rest])[:COUNT]


def check(dtype: DType, result: DType, function: Any) -> None:
    """Compare ``z = function(x, y)`` for all samples; a NaN may have any sign and payload."""
    x, y = Buffer.of("x", dtype, (COUNT,)), Buffer.of("y", dtype, (COUNT,))
    z = Buffer.of("z", result, (2, COUNT))
    loops = []
    for row, kind in enumerate((LoopKind.VECTORIZED, LoopKind.SERIAL)):
        i = Var(kind.value)
        store = Store(z, (Const(row), i), function(x[i,], y[i,]))
        loops.append(For(i, Const(COUNT), (store,), kind))
    proc = Proc("operator", (x, y, z), tuple(loops))
    a, b = samples(dtype, 0), samples(dtype, 1)
    expected, found = (np.zeros((2, COUNT), result.numpy) for _ in "ef")
    run(proc, [a, b, expected])
    compile_proc(proc)(a, b, found)
    if result.is_float:
        expected_bits, found_bits = (array.view(BITS[result.bits]) for array in (expected, found))
        different = (expected_bits != found_bits) & ~(np.isnan(expected) & np.isnan(found))
    else:
        different = expected != found
    assert not different.any()


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_arithmetic(op: BinaryOp, dtype: DType) -> None:
    check(dtype, dtype, lambda a, b: Binary(op, a, b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_division_of_floats(dtype: DType) -> None:
    check(dtype, dtype, lambda a, b: Binary(BinaryOp.DIV, a, b))


@pytest.mark.parametrize("op", [BinaryOp.FLOORDIV, BinaryOp.MOD])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_division_of_integers(op: BinaryOp, dtype: DType) -> None:
    check(dtype, dtype, lambda a, b: Binary(op, a, maximum(b, 1)))
    for divisor in (1, 3, 8, 127):
        check(dtype, dtype, lambda a, b, divisor=divisor: Binary(op, a, Const(divisor, dtype)))


@pytest.mark.parametrize("op", [BinaryOp.SHL, BinaryOp.SHR])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts(op: BinaryOp, dtype: DType) -> None:
    check(dtype, dtype, lambda a, b: Binary(op, a, Const(dtype.bits - 1, dtype)))
    check(dtype, dtype, lambda a, b: Binary(op, a, Binary(BinaryOp.MOD, b, Const(dtype.bits - 1, dtype))))


@pytest.mark.parametrize("op", [BinaryOp.AND, BinaryOp.OR])
def test_logic(op: BinaryOp) -> None:
    check(DType.BOOL, DType.BOOL, lambda a, b: Binary(op, a, b))
    check(DType.BOOL, DType.BOOL, lambda a, b: Compare(CompareOp.EQ, a, b))


@pytest.mark.parametrize("op", tuple(CompareOp))
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_comparison(op: CompareOp, dtype: DType) -> None:
    check(dtype, DType.BOOL, lambda a, b: Compare(op, a, b))


@pytest.mark.parametrize("target", [*INTEGERS, *FLOATS])
def test_casts(target: DType) -> None:
    for source in DType:
        if source is not DType.FLOAT16:
            check(source, target, lambda a, b: Cast(target, a))


def test_every_float16_is_widened_and_what_lies_between_two_is_narrowed() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        exact = halves.astype(np.float32)
    between = (exact.view(np.uint32)[:, None] + np.array([-1, 0, 1, 4095, 4096, 4097], np.int64)).astype(np.uint32)
    singles = np.concatenate(
        [between.reshape(-1).view(np.float32), np.array([65519.99, 65520, 1e-8, 3e38], np.float32)]
    )
    for source, target, values in ((DType.FLOAT16, DType.FLOAT32, halves), (DType.FLOAT32, DType.FLOAT16, singles)):
        x, y = (Buffer.of(name, dtype, values.shape) for name, dtype in (("x", source), ("y", target)))
        i = Var("i")
        store = Store(y, (i,), Cast(target, x[i,]))
        found = np.zeros(values.shape, target.numpy)
        compile_proc(Proc("cast", (x, y), (For(i, Const(len(values)), (store,), LoopKind.VECTORIZED),)))(values, found)
        with np.errstate(all="ignore"):
            expected = values.astype(target.numpy)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_unary() -> None:
    check(DType.FLOAT32, DType.FLOAT32, lambda a, b: Unary(UnaryOp.RINT, a))
    check(DType.INT32, DType.FLOAT32, lambda a, b: Unary(UnaryOp.BITCAST, a))


def test_fma() -> None:
    check(DType.FLOAT32, DType.FLOAT32, lambda a, b: Fma(a, b, Binary(BinaryOp.SUB, b, a)))
    check(DType.FLOAT32, DType.FLOAT32, lambda a, b: Fma(a, Const(1 / 3, DType.FLOAT32), a * b))


def test_products_and_sums_are_not_contracted() -> None:
    """A fused multiply-add would round once where the IR rounds twice."""

    def function(a: Expr, b: Expr) -> Expr:
        return a * b + Binary(BinaryOp.SUB, Binary(BinaryOp.MUL, a, Const(0.1, DType.FLOAT32)), b * b)

    check(DType.FLOAT32, DType.FLOAT32, function)
