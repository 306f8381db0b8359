"""Procedures as schedules leave them, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.llvm.jit import compile_proc
from compiler.tensor import interp
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    If,
    LoopKind,
    Mapped,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    Unary,
    UnaryOp,
    Var,
    both,
    cast,
    le,
    lt,
    maximum,
    minimum,
    nest,
)
from tests.compiler.llvm.guarded import guarded
from tests.compiler.llvm.one import generate

I32, F32 = DType.INT32, DType.FLOAT32
VECTOR, UNROLLED = LoopKind.VECTORIZED, LoopKind.UNROLLED


def call(proc: Proc, *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Run on copies between canaries; gives the last argument."""
    guards = [guarded(array) for array in arrays]
    compile_proc(proc)(*(guard.array for guard in guards))
    assert all(guard.is_intact for guard in guards)
    return guards[-1].array


def loops(kind: LoopKind, var: Var, extent: int | Expr, *body: Stmt) -> For:
    return For(var, extent if isinstance(extent, Expr) else Const(extent), body, kind)


def convolution(data: np.ndarray[Any, Any], weight: np.ndarray[Any, Any], pad: int) -> np.ndarray[Any, Any]:
    """NCHW reference in int32."""
    wide = np.pad(data.astype(np.int32), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, weight.shape[2:], (2, 3))
    return np.einsum(  # type: ignore[no-any-return]  # einsum promises less than it gives
        "nirckl,oikl->norc", windows, weight.astype(np.int32)
    )


@pytest.mark.parametrize("tile", [1, 3])
def test_packed_convolution_in_register_tiles(tile: int) -> None:
    """[N, C/16, H, W, 16] with padding, the sum in an allocated tile, output channels in lanes."""
    height, width, blocks, c = 5, 9, 2, 16
    x = Buffer.of("x", DType.INT8, (1, blocks, height, width, c))
    w = Buffer.of("w", DType.INT8, (blocks, blocks, 3, 3, c, c))
    y = Buffer.of("y", DType.INT8, (1, blocks, height, width, c))
    acc = Buffer.of("acc", I32, (tile, c), Scope.LOCAL)
    co, oh, ow, ci, kh, kw, i, t, o = (Var(n) for n in ["co", "oh", "ow", "ci", "kh", "kw", "i", "t", "o"])
    t1, o1, t2, o2 = (Var(n) for n in ["t1", "o1", "t2", "o2"])
    row, column = oh + kh - 1, ow * tile + t + kw - 1
    inside = both(le(0, row), lt(row, height), le(0, column), lt(column, width))
    pixel = Select(inside, x[0, ci, row, column, i], Const(0, DType.INT8))
    product = cast(I32, pixel) * cast(I32, w[co, ci, kh, kw, i, o])
    clear = loops(UNROLLED, t1, tile, loops(VECTOR, o1, c, Store(acc, (t1, o1), Const(0, I32))))
    multiply = nest(
        [("ci", blocks), ("kh", 3), ("kw", 3), ("i", c)],
        loops(UNROLLED, t, tile, loops(VECTOR, o, c, Store(acc, (t, o), acc[t, o] + product))),
    )
    clipped = cast(DType.INT8, maximum(minimum((acc[t2, o2] + 64) >> 7, 127), -128))
    where = (Const(0), co, oh, ow * tile + t2, o2)
    finish = loops(UNROLLED, t2, tile, loops(VECTOR, o2, c, Store(y, where, clipped)))
    body = nest([("co", blocks), ("oh", height), ("ow", width // tile)], Alloc(acc, (clear, multiply, finish)))
    proc = Proc("conv", (x, w, y), (body,))

    rng = np.random.default_rng(1)
    data = rng.integers(-128, 128, (1, blocks * c, height, width), np.int8)
    weight = rng.integers(-128, 128, (blocks * c, blocks * c, 3, 3), np.int8)
    packed = data.reshape(1, blocks, c, height, width).transpose(0, 1, 3, 4, 2).copy()
    packed_weight = weight.reshape(blocks, c, blocks, c, 3, 3).transpose(0, 2, 4, 5, 3, 1).copy()
    result = call(proc, packed, packed_weight, np.zeros_like(packed))
    expected = np.clip((convolution(data, weight, 1) + 64) >> 7, -128, 127).astype(np.int8)
    assert np.array_equal(result.transpose(0, 1, 4, 2, 3).reshape(expected.shape), expected)


@pytest.mark.parametrize("kind", [LoopKind.SERIAL, VECTOR])
@pytest.mark.parametrize("columns", [1, 5, 16, 24, 37])
def test_matmul(kind: LoopKind, columns: int) -> None:
    a, b = Buffer.of("a", DType.INT16, (7, 11)), Buffer.of("b", DType.INT16, (11, columns))
    y = Buffer.of("y", I32, (7, columns))
    m, k, n = Var("m"), Var("k"), Var("n")
    product = cast(I32, a[m, k]) * cast(I32, b[k, n])
    body = nest([("m", 7), ("k", 11)], Mapped("gemm", (loops(kind, n, columns, Store(y, (m, n), y[m, n] + product)),)))
    rng = np.random.default_rng(2)
    left, right = (rng.integers(-(2**15), 2**15, s, np.int16) for s in ((7, 11), (11, columns)))
    result = call(Proc("matmul", (a, b, y), (body,)), left, right, np.zeros((7, columns), np.int32))
    with np.errstate(over="ignore"):
        assert np.array_equal(result, left.astype(np.int32) @ right.astype(np.int32))


def exponential(x: Expr) -> Expr:
    """exp by 2**n * polynomial, for what is at most 0: the form the host's softmax has."""
    scaled = x * Const(1.4426950408889634, F32)
    n = Unary(UnaryOp.RINT, maximum(scaled, Const(-126.0, F32)))
    r = (maximum(scaled, Const(-126.0, F32)) - n) * Const(0.6931471805599453, F32)
    series: Expr = Const(1 / 720, F32)
    for c in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        series = series * r + Const(c, F32)
    power = Unary(UnaryOp.BITCAST, (Cast(I32, n) + 127) * (1 << 23))
    return series * power


@pytest.mark.parametrize("kind", [LoopKind.SERIAL, VECTOR])
def test_softmax(kind: LoopKind) -> None:
    rows, columns = 3, 21
    x, y = Buffer.of("x", F32, (rows, columns)), Buffer.of("y", F32, (rows, columns))
    state = Buffer.of("state", F32, (2,), Scope.LOCAL)
    r, c0, c1, c2, c3 = (Var(n) for n in ["r", "c0", "c1", "c2", "c3"])
    top, total = state[0,], state[1,]
    body = nest(
        [("r", rows)],
        Alloc(
            state,
            (
                Store(state, (Const(0),), Const(-np.inf, F32)),
                Store(state, (Const(1),), Const(0.0, F32)),
                nest([("c0", columns)], Store(state, (Const(0),), maximum(x[r, c0], top))),
                loops(kind, c1, columns, Store(y, (r, c1), exponential(x[r, c1] - top))),
                nest([("c2", columns)], Store(state, (Const(1),), total + y[r, c2])),
                loops(kind, c3, columns, Store(y, (r, c3), Binary(BinaryOp.DIV, y[r, c3], total))),
            ),
        ),
    )
    data = (np.random.default_rng(3).standard_normal((rows, columns)) * 20).astype(np.float32)
    result = call(Proc("softmax", (x, y), (body,)), data, np.zeros_like(data))
    expected = np.exp(data - data.max(axis=1, keepdims=True), dtype=np.float64)
    np.testing.assert_allclose(result, expected / expected.sum(axis=1, keepdims=True), rtol=2e-5, atol=1e-37)


def test_relayout_with_odd_sizes() -> None:
    """NCHW to NCHW16c: channels beyond the end become 0; a strided read in every lane, under a mask."""
    channels, pixels = 21, 7
    x, y = Buffer.of("x", DType.INT8, (channels, pixels)), Buffer.of("y", DType.INT8, (2, pixels, 16))
    b, p, c = Var("b"), Var("p"), Var("c")
    value = Select(lt(b * 16 + c, channels), x[b * 16 + c, p], Const(0, DType.INT8))
    body = nest([("b", 2), ("p", pixels)], loops(VECTOR, c, 16, Store(y, (b, p, c), value)))
    data = np.random.default_rng(4).integers(-128, 128, (channels, pixels), np.int8)
    result = call(Proc("pack", (x, y), (body,)), data, np.full((2, pixels, 16), 7, np.int8))
    padded = np.pad(data, ((0, 11), (0, 0)))
    assert np.array_equal(result, padded.reshape(2, 16, pixels).transpose(0, 2, 1))


def test_tiles_at_the_edge_have_dynamic_extents_and_shapes() -> None:
    size, step = 53, 20
    x, y = Buffer.of("x", I32, (size,)), Buffer.of("y", I32, (size,))
    o, i, j = Var("o"), Var("i"), Var("j")
    width = minimum(Const(step), size - o * step)
    local = Buffer("local", I32, (Const(2), width), Scope.LOCAL)
    fill = loops(VECTOR, i, width, Store(local, (Const(0), i), x[o * step + i,]))
    drain = loops(VECTOR, j, width, Store(y, (o * step + width - 1 - j,), local[0, j] * 3))
    body = nest([("o", 3)], Alloc(local, (fill, drain)))
    data = np.arange(size, dtype=np.int32)
    result = call(Proc("tiles", (x, y), (body,)), data, np.zeros_like(data))
    expected = np.concatenate([part[::-1] * 3 for part in np.split(data, [20, 40])])
    assert np.array_equal(result, expected)


def test_large_buffers_are_scratch() -> None:
    rows, columns = 300, 400
    x, y = Buffer.of("x", I32, (columns,)), Buffer.of("y", I32, (columns,))
    large = Buffer.of("large", I32, (rows, columns), Scope.LOCAL)
    r, c, r2, c2 = (Var(n) for n in ("r", "c", "r2", "c2"))
    fill = nest([("r", rows)], loops(VECTOR, c, columns, Store(large, (r, c), x[c,] + cast(I32, r))))
    total = nest([("r2", rows)], loops(VECTOR, c2, columns, Store(y, (c2,), y[c2,] + large[r2, c2])))
    proc = Proc("scratch", (x, y), (Alloc(large, (fill, total)),))
    assert generate(proc).scratch == (rows * columns * 4,)
    data = np.arange(columns, dtype=np.int32)
    result = call(proc, data, np.zeros_like(data))
    assert np.array_equal(result, data * rows + sum(range(rows)))


def test_a_guard_that_differs_by_lane() -> None:
    x, y = Buffer.of("x", DType.INT8, (40,)), Buffer.of("y", I32, (40,))
    i = Var("i")
    body = loops(VECTOR, i, 40, If(lt(cast(DType.INT64, x[i,]), 0), (Store(y, (i,), Const(-1, I32)),)))
    data = np.random.default_rng(5).integers(-128, 128, 40, np.int8)
    result = call(Proc("guard", (x, y), (body,)), data, np.arange(40, dtype=np.int32))
    assert np.array_equal(result, np.where(data < 0, -1, np.arange(40)))


@pytest.mark.parametrize("statement", [False, True])
def test_a_condition_that_lanes_share_is_no_part_of_their_mask(statement: bool) -> None:
    """LLVM would read all of the upper half, where the mask says that nothing is, on a processor with AVX2."""
    x, y = Buffer.of("x", F32, (1, 4)), Buffer.of("y", F32, (3, 16))
    o, c = Var("o"), Var("c")
    inside = both(lt(o, 1), lt(c, 4))
    if statement:
        body: Stmt = If(inside, (Store(y, (o, c), x[o, c]),))
    else:
        body = Store(y, (o, c), Select(inside, x[o, c], Const(7.0, F32)))
    proc = Proc("shared", (x, y), (nest([("o", 3)], loops(VECTOR, c, 16, body)),))
    data = np.arange(4, dtype=np.float32).reshape(1, 4)
    expected = np.full((3, 16), 7, np.float32)
    expected[0, :4] = data
    assert np.array_equal(call(proc, data, np.full((3, 16), 7, np.float32)), expected)
    text = generate(proc).text
    assert "and <16 x i1>" not in text
    assert "call <16 x float> @llvm.masked.load" in text


def test_nothing_to_do() -> None:
    x = Buffer.of("x", I32, (0, 4))
    body = nest([("i", 0), ("j", 4)], Store(x, (Var("i"), Var("j")), Const(1, I32)))
    assert call(Proc("empty", (x,), (body,)), np.zeros((0, 4), np.int32)).size == 0
    scalar = Buffer.of("s", I32, ())
    assert call(Proc("one", (scalar,), (Store(scalar, (), Const(5, I32)),)), np.zeros((), np.int32)) == 5


@pytest.mark.parametrize("order", [(BinaryOp.MIN, BinaryOp.MAX), (BinaryOp.MAX, BinaryOp.MIN)])
@pytest.mark.parametrize(
    ("dtype", "limits"), [(DType.INT8, (-128.0, 127.0)), (DType.UINT8, (0.0, 255.0)), (I32, (-9.0, 9.0))]
)
def test_floats_that_are_clipped_are_converted_at_once(
    order: tuple[BinaryOp, BinaryOp], dtype: DType, limits: tuple[float, float]
) -> None:
    """NaN, the infinities and all that is beyond go to the limits as the interpreter has it, without `fptosi.sat`."""
    x, y, i = Buffer.of("x", F32, (37,)), Buffer.of("y", dtype, (37,)), Var("i")
    ends = dict(zip((BinaryOp.MAX, BinaryOp.MIN), limits, strict=True))
    value: Expr = x[i,]
    for op in reversed(order):
        value = Binary(op, value, Const(ends[op], F32))
    proc = Proc("clip", (x, y), (loops(VECTOR, i, 37, Store(y, (i,), Cast(dtype, value))),))
    assert ".sat." not in generate(proc).text
    edges = [np.nan, np.inf, -np.inf, 0.0, -0.0, 127.5, -128.5, 300.0, -300.0, 3e38, 0.99, -0.99]
    values = np.array([*edges, *np.linspace(-260, 260, 25)], np.float32)
    expected = np.zeros(37, dtype.numpy)
    interp.run(proc, [values, expected])
    assert np.array_equal(call(proc, values, np.zeros(37, dtype.numpy)), expected)


@pytest.mark.parametrize("dtype", [I32, DType.UINT32])
@pytest.mark.parametrize("largest_inside", [True, False])
def test_limits_are_the_floats_that_they_become(dtype: DType, largest_inside: bool) -> None:
    """The largest integers of 32 bits are no floats of 32: those next to them are beyond the type."""
    x, y, i = Buffer.of("x", F32, (16,)), Buffer.of("y", dtype, (16,)), Var("i")
    low, high = (float(limit) for limit in dtype.limits)
    ends = (BinaryOp.MAX, low), (BinaryOp.MIN, high)
    value: Expr = x[i,]
    for op, end in ends if largest_inside else reversed(ends):
        value = Binary(op, value, Const(end, F32))
    proc = Proc("clip", (x, y), (loops(VECTOR, i, 16, Store(y, (i,), Cast(dtype, value))),))
    edges = [0, 1, -1, 1e10, -1e10, np.nan, np.inf, -np.inf, 2.0**31, 2.0**32, 3e9, -3e9, 0.5, -0.5, 127.5, 2147483520]
    values, expected = np.array(edges, np.float32), np.zeros(16, dtype.numpy)
    interp.run(proc, [values, expected])
    assert np.array_equal(call(proc, values, np.zeros(16, dtype.numpy)), expected)


def test_what_may_leave_the_type_is_converted_with_care() -> None:
    x, y, i = Buffer.of("x", F32, (4,)), Buffer.of("y", DType.INT8, (4,)), Var("i")
    for value in (x[i,], minimum(x[i,], Const(9.0, F32)), minimum(maximum(x[i,], Const(-9.0, F32)), Const(200.0, F32))):
        nest_of = loops(VECTOR, i, 4, Store(y, (i,), Cast(DType.INT8, value)))
        assert ".sat." in generate(Proc("cast", (x, y), (nest_of,))).text
