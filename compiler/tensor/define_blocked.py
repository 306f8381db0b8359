"""Definitions of float ops on images in blocks of channels, ``[N, C/c, H, W, 1, 1, c]`` of `tiles`, and of products of
matrices, whose columns are in blocks while they are summed.

A block of `c` channels of one pixel is a vector of a CPU. Sums of products begin with the bias, sums of windows with
zero, and products are added by `Fma`, in the order of the loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from compiler.tensor import tiles
from compiler.tensor.define_move import Shape
from compiler.tensor.functions import div, f32
from compiler.tensor.ir import (
    Buffer,
    Const,
    DType,
    Expr,
    Fma,
    For,
    If,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    both,
    lt,
    maximum,
    minimum,
)
from compiler.tensor.tiles import Index, Tiled, Weighted, Window


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Bounds of a result; infinite ones are none."""

    lo: float = -math.inf
    hi: float = math.inf

    def of(self, value: Expr) -> Expr:
        """The value, within the bounds."""
        if self.lo != -math.inf:
            value = maximum(value, f32(self.lo))
        return minimum(value, f32(self.hi)) if self.hi != math.inf else value

    def steps(self, a: Buffer, y: Tiled) -> list[For]:
        steps: list[tuple[str, Callable[[Expr], Expr]]] = []
        if self.lo != -math.inf:
            steps.append(("low", lambda v: maximum(v, f32(self.lo))))
        if self.hi != math.inf:
            steps.append(("high", lambda v: minimum(v, f32(self.hi))))
        return [_step(name, a, y, value) for name, value in steps]


def _step(name: str, a: Buffer, y: Tiled, value: Callable[[Expr], Expr]) -> For:
    return tiles.update(name, a, y, lambda v, _: value(v))


def _sums(y: Tiled) -> Buffer:
    return Buffer.of("A", DType.FLOAT32, y.shape, Scope.LOCAL)


def _read(source: Weighted, x: Buffer, i: Index, block: Expr, channel: Expr, fill: float = 0.0) -> Expr:
    """The element of X under a tap, `fill` in the padding."""
    window = source.window
    row, column = window.row(i["oh"], i["ky"]), window.column(i["ow"], i["kx"])
    read: Expr = x[i["no"], block, row, column, i["s"], i["n"], channel]
    inside = window.inside(source.x, i["oh"], i["ow"], i["ky"], i["kx"])
    return Select(both(*inside), read, f32(fill)) if inside else read


def _taps(window: Window) -> list[tuple[str, int]]:
    return [("ky", window.kernel[0]), ("kx", window.kernel[1])]


def _terms(source: Weighted) -> list[tuple[str, int]]:
    """The loops of a sum. Neighbouring taps of a row of a row-major image read the same pixels, which LLVM would keep
    in registers that the sums need: there the rows come last."""
    taps = _taps(source.window)
    if source.blockwise:
        return taps
    return [("ci", source.x.blocks), *(reversed(taps) if source.x.c == 1 else taps), ("i", source.x.c)]


def conv2d(name: str, source: Weighted, y: Tiled, bounds: Bounds, *, residual: bool = False) -> Proc:
    """``Y = clip(sum of X * W + B + R, lo, hi)``; X may have blocks of another width than Y.

    Parameters: X; W float32 [blocks_y, blocks_x, KH, KW, c_x, c_y], with one block for blocks_x and one channel for c_x
    if each channel of Y reads that of X at its own place (`source.blockwise`); B float32 [blocks, subs, n, c]; R like Y
    if there is a residual; Y.
    """
    x, window, blockwise = source.x, source.window, source.blockwise
    a, buffer_x, buffer_y, r = _sums(y), x.buffer("X"), y.buffer("Y"), y.buffer("R")
    blocks, depth = (1, 1) if blockwise else (x.blocks, x.c)
    w = Buffer.of("W", DType.FLOAT32, (y.blocks, blocks, *window.kernel, depth, y.c))
    b = Buffer.of("B", DType.FLOAT32, (y.blocks, y.subs, y.n, y.c))

    def multiply(i: Index) -> Stmt:
        read = _read(source, buffer_x, i, *((i["co"], i["c"]) if blockwise else (i["ci"], i["i"])))
        chunk, k = (Const(0), Const(0)) if blockwise else (i["ci"], i["i"])
        weights = w[i["co"], chunk, i["ky"], i["kx"], k, i["c"]]
        return Store(a, tiles.at(i), Fma(read, weights, a[tiles.at(i)]))

    terms = _terms(source)
    body = [
        tiles.over("bias", y, lambda i: Store(a, tiles.at(i), tiles.per_channel(b, i))),
        tiles.over("dot", y, multiply, terms),
    ]
    if residual:
        body.append(tiles.update("residual", a, y, lambda v, i: v + r[tiles.at(i)]))
    params = (buffer_x, w, b, *([r] if residual else []), buffer_y)
    return Proc(name, params, tiles.allocate([a], [*body, *bounds.steps(a, y), tiles.copy("store", buffer_y, a, y)]))


def max_pool2d(name: str, source: Weighted, y: Tiled) -> Proc:
    """The largest element of X under each window. Parameters: X, Y."""
    a, x, buffer_y = _sums(y), source.x.buffer("X"), y.buffer("Y")

    def larger(i: Index) -> Stmt:
        return Store(a, tiles.at(i), maximum(a[tiles.at(i)], _read(source, x, i, i["co"], i["c"], -math.inf)))

    pool = tiles.over("pool", y, larger, _taps(source.window))
    return Proc(
        name,
        (x, buffer_y),
        tiles.allocate([a], [tiles.fill("init", a, y, -math.inf), pool, tiles.copy("store", buffer_y, a, y)]),
    )


def average_pool2d(name: str, source: Weighted, y: Tiled) -> Proc:
    """The sum of the elements of X under each window, divided by M. Parameters: X, M float32 [OH, OW], Y."""
    a, x, buffer_y = _sums(y), source.x.buffer("X"), y.buffer("Y")
    m = Buffer.of("M", DType.FLOAT32, (y.height, y.width))

    def add(i: Index) -> Stmt:
        return Store(a, tiles.at(i), a[tiles.at(i)] + _read(source, x, i, i["co"], i["c"]))

    body = [
        tiles.fill("init", a, y, 0.0),
        tiles.over("pool", y, add, _taps(source.window)),
        tiles.update("mean", a, y, lambda v, i: div(v, m[i["oh"], i["ow"]])),
    ]
    return Proc(name, (x, m, buffer_y), tiles.allocate([a], [*body, tiles.copy("store", buffer_y, a, y)]))


BLOCK = 16
"""Columns of a product of matrices that are summed together, and terms of the sums that lie together."""
FEW_ROWS = 8
"""Rows from which on it pays to rearrange the matrices first."""


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """X [a..., M, K] times B [b..., K, N], or a transposed B [b..., N, K], for each of `batch`, to which a and b
    broadcast.

    packed: B is a parameter W [N/16, K/16 * 16, 16], whose columns are in blocks, with zeros where they end.
    """

    rows: int
    inner: int
    columns: int
    batch: Shape = ()
    a: Shape = ()
    b: Shape = ()
    packed: bool = False
    transposed: bool = False
    bias: bool = False

    @property
    def padded(self) -> int:
        """K up to whole blocks."""
        return -(-self.inner // BLOCK) * BLOCK


def matmul(name: str, m: Matrices) -> Proc:
    """Y [*batch, M, N] is the product, in the order of K, on top of the bias if there is one.

    Parameters: X; B or W; the bias C [N]; Y. Rows are the pixels of an image, and columns its channels. A
    matrix that is read many times is rearranged first, so that what is read together lies together (Goto and van de
    Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008).
    """
    count = math.prod(m.batch)
    y = Tiled(
        batches=count, blocks=-(-m.columns // BLOCK), height=1, width=m.rows, n=1, c=BLOCK, dtype=DType.FLOAT32
    )
    sums = _sums(y)
    left = Buffer.of("X", DType.FLOAT32, (math.prod(m.a), m.rows, m.inner))
    inner = (m.columns, m.inner) if m.transposed else (m.inner, m.columns)
    right = Buffer.of("B", DType.FLOAT32, (math.prod(m.b), *inner))
    bias = Buffer.of("C", DType.FLOAT32, (m.columns,))
    result = Buffer.of("Y", DType.FLOAT32, (count, m.rows, m.columns))
    before: list[For] = []
    allocated = [sums]

    def within(value: Expr, *pairs: tuple[Expr, int]) -> Expr:
        """Zero behind the end of what is no whole number of blocks."""
        ends = [lt(at, end) for at, end in pairs if end % BLOCK]
        return Select(both(*ends), value, f32(0.0)) if ends else value

    def read_b(front: Expr, k: Expr, column: Expr) -> Expr:
        return right[(front, column, k)] if m.transposed else right[front, k, column]

    many = m.rows >= FEW_ROWS
    if many:
        p = replace(y, batches=math.prod(m.a), blocks=m.padded // BLOCK)
        rows = replace(p.buffer("P"), scope=Scope.LOCAL)
        allocated.append(rows)

        def pack_rows(i: Index) -> Stmt:
            k = i["co"] * BLOCK + i["c"]
            return Store(rows, tiles.at(i), within(left[i["no"], i["ow"], k], (k, m.inner)))

        before.append(tiles.over("rows", p, pack_rows))
    if many and not m.packed:
        q = replace(y, batches=math.prod(m.b), width=m.padded)
        columns = replace(q.buffer("Q"), scope=Scope.LOCAL)
        allocated.append(columns)

        def pack_columns(i: Index) -> Stmt:
            column = i["co"] * BLOCK + i["c"]
            value = within(read_b(i["no"], i["ow"], column), (i["ow"], m.inner), (column, m.columns))
            return Store(columns, tiles.at(i), value)

        before.append(tiles.over("columns", q, pack_columns))

    def multiply(i: Index) -> Stmt:
        k = i["ci"] * BLOCK + i["i"] if many else i["i"]
        at_a, at_b = (_front(i["no"], m.batch, each) for each in (m.a, m.b))
        row = rows[at_a, i["ci"], 0, i["ow"], 0, 0, i["i"]] if many else left[at_a, i["ow"], k]
        if m.packed:
            column: Expr = w[i["co"], k, i["c"]]
        elif many:
            column = columns[at_b, i["co"], 0, k, 0, 0, i["c"]]
        else:
            column = read_b(at_b, k, i["co"] * BLOCK + i["c"])
        added = Store(sums, tiles.at(i), Fma(row, column, sums[tiles.at(i)]))
        return added if many or m.packed else inside(i, added)

    def inside(i: Index, stmt: Stmt) -> Stmt:
        """Only for columns that there are."""
        return If(lt(i["co"] * BLOCK + i["c"], m.columns), (stmt,)) if m.columns % BLOCK else stmt

    def store(i: Index) -> Stmt:
        return inside(i, Store(result, (i["no"], i["ow"], i["co"] * BLOCK + i["c"]), sums[tiles.at(i)]))

    def begin(i: Index) -> Stmt:
        column = i["co"] * BLOCK + i["c"]
        return Store(sums, tiles.at(i), within(bias[(column,)], (column, m.columns)))

    w = Buffer.of("W", DType.FLOAT32, (y.blocks, m.padded, BLOCK))
    first = tiles.over("bias", y, begin) if m.bias else tiles.fill("init", sums, y, 0.0)
    terms = [("ci", m.padded // BLOCK), ("i", BLOCK)] if many else [("i", m.inner)]
    body = [*before, first, tiles.over("dot", y, multiply, terms), tiles.over("store", y, store)]
    params = (left, w if m.packed else right, *([bias] if m.bias else []), result)
    return Proc(name, params, tiles.allocate(allocated, body))


def _front(at: Expr, batch: Shape, own: Shape) -> Expr:
    """Where a matrix is among its own, of number `at` of the batch that they broadcast to."""
    if math.prod(own) == 1:
        return Const(0)
    if math.prod(own) == math.prod(batch):
        return at
    place: Expr = Const(0)
    stride, step = 1, 1
    for extent, each in zip(reversed(batch), reversed((1,) * (len(batch) - len(own)) + own), strict=True):
        if each > 1:
            place = place + (at // step) % extent * stride
            stride *= each
        step *= extent
    return place
