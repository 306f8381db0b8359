"""Definitions of float ops: element by element, along axes, products, windows. Row-major tensors, of float32 where no
type is given.

Sums are in float32, in the order of the loops, from zero.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.tensor.define_move import Index, Shape, broadcast_index, collapsed, limited, over
from compiler.tensor.functions import div, f32, number
from compiler.tensor.functions import sub as difference
from compiler.tensor.ir import (
    Alloc,
    Body,
    Buffer,
    Const,
    DType,
    Expr,
    If,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    Unary,
    UnaryOp,
    Var,
    both,
    le,
    lt,
    maximum,
    minimum,
    nest,
)
from compiler.tensor.share import computed_once
from compiler.tensor.tiles import Window

Pair = tuple[int, int]
Shape4 = tuple[int, int, int, int]

_ZERO: Index = (Const(0),)


class Reduction(enum.Enum):
    """What is made of the elements along some axes."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    MIN = "min"


def pointwise(
    name: str, dtype: DType, operands: Sequence[Shape], target: Shape, build: Callable[[Sequence[Expr]], Expr]
) -> Proc:
    """``Y = build(X0, X1, ...)`` element by element; operands are broadcast to `target`."""
    shape, shapes = collapsed(target, operands)
    inputs = [Buffer.of(f"X{k}", dtype, each) for k, each in enumerate(shapes)]
    y = Buffer.of("Y", dtype, shape)

    def statement(i: Index) -> Sequence[Stmt]:
        value = build([x[broadcast_index(each, i)] for x, each in zip(inputs, shapes, strict=True)])
        return computed_once(Store(y, i, value))

    return Proc(name, (*inputs, y), (over("i", shape, statement),))


@dataclass(frozen=True)
class Along:
    """A tensor as [outer, length, inner], to work along `length`."""

    outer: int
    length: int
    inner: int

    @staticmethod
    def of(shape: Shape, first: int, last: int) -> Along:
        """Along the dimensions from `first` to `last`, not included."""
        return Along(math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:]))

    @property
    def shape(self) -> Shape:
        return self.outer, self.length, self.inner


def _scalars(*names: str, dtype: DType = DType.FLOAT32) -> list[Buffer]:
    return [Buffer.of(name, dtype, (1,), Scope.LOCAL) for name in names]


def _allocated(buffers: Sequence[Buffer], body: Body) -> Body:
    for buffer in reversed(buffers):
        body = (Alloc(buffer, body),)
    return body


def _combine(reduction: Reduction, total: Expr, value: Expr) -> Expr:
    match reduction:
        case Reduction.MAX:
            return maximum(total, value)
        case Reduction.MIN:
            return minimum(total, value)
        case _:
            return total + value


def neutral(reduction: Reduction, dtype: DType) -> Const:
    """What a reduction begins with."""
    low, high = (-math.inf, math.inf) if dtype.is_float else dtype.limits
    return {Reduction.MAX: Const(low, dtype), Reduction.MIN: Const(high, dtype)}.get(reduction, number(0, dtype))


def reduce(name: str, along: Along, reduction: Reduction, dtype: DType = DType.FLOAT32) -> Proc:
    """X [outer, length, inner] to Y [outer, inner]; means are of floats."""
    x, y = Buffer.of("X", dtype, along.shape), Buffer.of("Y", dtype, (along.outer, along.inner))
    (total,) = _scalars("total", dtype=dtype)
    o, k, i = Var("o"), Var("k"), Var("i")
    value = total[_ZERO]
    steps: Body = (
        Store(total, _ZERO, neutral(reduction, dtype)),
        nest([("k", along.length)], Store(total, _ZERO, _combine(reduction, value, x[o, k, i]))),
        Store(y, (o, i), div(value, number(along.length, dtype)) if reduction is Reduction.MEAN else value),
    )
    return Proc(name, (x, y), (nest([("o", along.outer), ("i", along.inner)], *_allocated([total], steps)),))


def normalize(name: str, along: Along, epsilon: float) -> Proc:
    """X to Y, both [outer, length, inner]: ``(x - mean) / sqrt(variance + epsilon)`` along `length`."""
    x, y = (Buffer.of(each, DType.FLOAT32, along.shape) for each in "XY")
    scalars = _scalars("total", "mean", "squares", "deviation")
    total, mean, squares, deviation = scalars
    o, i = Var("o"), Var("i")
    at = [(o, Var(f"k{step}"), i) for step in range(3)]
    length = f32(along.length)

    def centred(step: int) -> Expr:
        return difference(x[at[step]], mean[_ZERO])

    steps: Body = (
        Store(total, _ZERO, f32(0.0)),
        nest([("k0", along.length)], Store(total, _ZERO, total[_ZERO] + x[at[0]])),
        Store(mean, _ZERO, div(total[_ZERO], length)),
        Store(squares, _ZERO, f32(0.0)),
        nest([("k1", along.length)], Store(squares, _ZERO, squares[_ZERO] + centred(1) * centred(1))),
        Store(deviation, _ZERO, Unary(UnaryOp.SQRT, div(squares[_ZERO], length) + f32(epsilon))),
        nest([("k2", along.length)], Store(y, at[2], div(centred(2), deviation[_ZERO]))),
    )
    return Proc(name, (x, y), (nest([("o", along.outer), ("i", along.inner)], *_allocated(scalars, steps)),))


def matmul_columns(name: str, x: tuple[int, int, int], rows: int, scale: float) -> Proc:
    """W [B, K, rows], transposed, times X [B, K, M], times a number, to Y [B, rows, M]."""
    batch, inner, columns = x
    buffer_x, w = Buffer.of("X", DType.FLOAT32, x), Buffer.of("W", DType.FLOAT32, (batch, inner, rows))
    y = Buffer.of("Y", DType.FLOAT32, (batch, rows, columns))
    b, o, k = (Var(axis) for axis in ("b", "o", "k"))

    def along(name: str, value: Callable[[Expr, Expr], Expr], *outer: tuple[str, int]) -> Stmt:
        """Each element of a row becomes ``value(column, element)``."""
        m = Var(name)
        return nest([*outer, (name, columns)], Store(y, (b, o, m), value(m, y[b, o, m])))

    body = [
        along("m0", lambda m, total: f32(0.0)),
        along("m1", lambda m, total: total + w[b, k, o] * buffer_x[b, k, m], ("k", inner)),
    ]
    if scale != 1:
        body.append(along("m2", lambda m, total: total * f32(scale)))
    return Proc(name, (buffer_x, w, y), (nest([("b", batch), ("o", rows)], *body),))


@dataclass(frozen=True)
class Windowed:
    """A window over X [N,C,H,W]: the element under each tap, and the conditions for it to lie inside."""

    shape: Shape4
    window: Window

    def tap(self, x: Buffer, channel: Expr) -> tuple[Expr, list[Expr]]:
        """For loops n, h, w, ky and kx."""
        n, h, w, ky, kx = (Var(axis) for axis in ("n", "h", "w", "ky", "kx"))
        row, column = self.window.row(h, ky), self.window.column(w, kx)
        top, left, bottom, right = self.window.padding
        conditions: list[Expr] = []
        if top or bottom:
            conditions += [le(0, row), lt(row, self.shape[2])]
        if left or right:
            conditions += [le(0, column), lt(column, self.shape[3])]
        return x[n, channel, row, column], conditions

    @property
    def taps(self) -> list[tuple[str, int]]:
        return [("ky", self.window.kernel[0]), ("kx", self.window.kernel[1])]


def conv2d(name: str, source: Windowed, w: Shape4, y: Shape4, groups: int, *, bias: bool) -> Proc:
    """X [N,C,H,W], W [O,C/groups,KH,KW], B [O] if there is a bias, to Y [N,O,OH,OW]."""
    x, weights = Buffer.of("X", DType.FLOAT32, source.shape), Buffer.of("W", DType.FLOAT32, w)
    b, buffer_y = Buffer.of("B", DType.FLOAT32, (w[0],)), Buffer.of("Y", DType.FLOAT32, y)
    o, ci, at = Var("o"), Var("ci"), (Var("n"), Var("o"), Var("h"), Var("w"))
    channel = ci if groups == 1 else (o // (w[0] // groups)) * w[1] + ci
    read, conditions = source.tap(x, channel)
    if conditions:
        read = Select(both(*conditions), read, f32(0.0))
    (total,) = _scalars("total")
    product = Store(total, _ZERO, total[_ZERO] + read * weights[o, ci, Var("ky"), Var("kx")])
    steps: Body = (
        Store(total, _ZERO, f32(0.0)),
        nest([("ci", w[1]), *source.taps], product),
        Store(buffer_y, at, total[_ZERO] + b[(o,)] if bias else total[_ZERO]),
    )
    loops = list(zip(("n", "o", "h", "w"), y, strict=True))
    params = (x, weights, *([b] if bias else []), buffer_y)
    return Proc(name, params, (nest(loops, *_allocated([total], steps)),))


def max_pool(name: str, source: Windowed, y: Shape4, dtype: DType) -> Proc:
    """The largest element of X under each window."""
    return _pool(name, source, y, Reduction.MAX, dtype)


def average_pool(name: str, source: Windowed, y: Shape4) -> Proc:
    """The sum of the elements of X under each window divided by M [OH,OW]."""
    return _pool(name, source, y, Reduction.MEAN, DType.FLOAT32)


def _pool(name: str, source: Windowed, y: Shape4, reduction: Reduction, dtype: DType) -> Proc:
    x, buffer_y = Buffer.of("X", dtype, source.shape), Buffer.of("Y", dtype, y)
    m = Buffer.of("M", DType.FLOAT32, y[2:])
    at = (Var("n"), Var("o"), Var("h"), Var("w"))
    read, conditions = source.tap(x, Var("o"))
    (total,) = _scalars("total", dtype=dtype)
    value = total[_ZERO]
    update: Stmt = Store(total, _ZERO, _combine(reduction, value, read))
    if conditions:
        update = If(both(*conditions), (update,))
    is_mean = reduction is Reduction.MEAN
    steps: Body = (
        Store(total, _ZERO, neutral(reduction, dtype)),
        nest(source.taps, update),
        Store(buffer_y, at, div(value, m[at[2:]]) if is_mean else value),
    )
    loops = list(zip(("n", "o", "h", "w"), y, strict=True))
    params = (x, m, buffer_y) if is_mean else (x, buffer_y)
    return Proc(name, params, (nest(loops, *_allocated([total], steps)),))


def resample(name: str, along: Along, count: int, taps: int) -> Proc:
    """X [outer, length, inner] to Y [outer, count, inner]: ``Y[o, j, i] = sum over t of V[j, t] * X[o, K[j, t], i]``.

    K int32 and V float32, [count, taps]; indices are limited to X.
    """
    x = Buffer.of("X", DType.FLOAT32, along.shape)
    k, v = Buffer.of("K", DType.INT32, (count, taps)), Buffer.of("V", DType.FLOAT32, (count, taps))
    y = Buffer.of("Y", DType.FLOAT32, (along.outer, count, along.inner))
    o, j, i, t = (Var(axis) for axis in ("o", "j", "i", "t"))
    (total,) = _scalars("total")
    element = x[o, limited(k[j, t], along.length), i]
    steps: Body = (
        Store(total, _ZERO, f32(0.0)),
        nest([("t", taps)], Store(total, _ZERO, total[_ZERO] + v[j, t] * element)),
        Store(y, (o, j, i), total[_ZERO]),
    )
    loops: list[tuple[str, int | Expr]] = [("o", along.outer), ("j", count), ("i", along.inner)]
    return Proc(name, (x, k, v, y), (nest(loops, *_allocated([total], steps)),))
