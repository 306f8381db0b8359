"""The definition of 3x3 convolutions by minimal filtering (`minimal`), on images in blocks of channels.

Both what a tile of results reads and the kernel are transformed to points, at each of which a convolution is one
product for each channel; the sums of these over the channels are transformed to results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from compiler.tensor import tiles
from compiler.tensor.define_blocked import Bounds
from compiler.tensor.functions import f32
from compiler.tensor.ir import (
    Alloc,
    Body,
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
    Var,
    both,
    le,
    lt,
    nest,
)
from compiler.tensor.minimal import KERNEL, Matrix, Row, Tiling
from compiler.tensor.tiles import Index, Tiled, Weighted

NESTS = ("pad", "input", "zero", "dot", "keep", "output")
"""The loop nests of the definition, in this order."""


def _chain(terms: Sequence[tuple[Fraction, Expr]]) -> Expr:
    """The sum of the products, each of which but the first is rounded with its sum."""
    (first, value), *rest = sorted(terms, key=lambda term: term[0] != 1)
    total = value if first == 1 else f32(float(first)) * value
    for factor, value in rest:
        if factor == 1:
            total = total + value
        elif factor == -1:
            total = total - value
        else:
            total = Fma(f32(float(factor)), value, total)
    return total


def _by_parity(row: Row, column: Sequence[Expr]) -> Expr:
    """A row of `data`, in sums of even and of odd powers, which a place and its negative share."""
    even, odd = ([(f, column[k]) for k, f in enumerate(row) if f and k % 2 == parity] for parity in (0, 1))
    if not (even and odd):
        return _chain(even or odd)
    if odd[0][0] > 0:
        return _chain(even) + _chain(odd)
    return _chain(even) - _chain([(-factor, value) for factor, value in odd])


def _by_pairs(row: Row, column: Sequence[Expr]) -> Expr:
    """A row of `result`: of the values at a place and at its negative, it has the sum or the difference."""
    first, *places, last = row
    terms = [(first, column[0])] if first else []
    for k in range(0, len(places), 2):
        a, b = column[k + 1], column[k + 2]
        terms.append((places[k], a + b if places[k] == places[k + 1] else a - b))
    return _chain([*terms, (last, column[-1])] if last else terms)


def _both_ways(
    name: str,
    matrix: Matrix,
    combine: Callable[[Row, Sequence[Expr]], Expr],
    read: Callable[[Expr | int, Expr], Expr],
    write: Callable[[Expr, int, Expr], Stmt],
) -> Body:
    """``matrix @ tile @ matrix^T``: the columns of the tile are transformed into a local buffer, then its rows."""
    size = len(matrix[0])
    t = Buffer.of(f"{name}.half", DType.FLOAT32, (len(matrix), size), Scope.LOCAL)
    across, down = Var(f"{name}.across"), Var(f"{name}.down")
    column, row = [read(n, across) for n in range(size)], [t[down, n] for n in range(size)]
    columns = [Store(t, (Const(n), across), combine(each, column)) for n, each in enumerate(matrix)]
    rows = [write(down, n, combine(each, row)) for n, each in enumerate(matrix)]
    return (Alloc(t, (nest([(across.name, size)], *columns), nest([(down.name, len(matrix))], *rows))),)


@dataclass(frozen=True)
class _Definition:
    """The buffers of a convolution from `source` to `y`, and what each of its nests does at its loops."""

    source: Weighted
    y: Tiled
    bounds: Bounds
    tiling: Tiling
    residual: bool

    @property
    def front(self) -> tuple[int, int]:
        """Images, and strips of each: what the temporaries have first."""
        return self.source.x.batches, self.tiling.strips

    @property
    def strip(self) -> tuple[int, int]:
        """Rows and columns of pixels that a strip reads."""
        m = self.tiling.scheme.outputs
        return self.tiling.rows * m + KERNEL - 1, self.tiling.columns * m + KERNEL - 1

    def local(self, name: str, *shape: int) -> Buffer:
        return Buffer.of(name, DType.FLOAT32, (*self.front, *shape), Scope.LOCAL)

    @cached_property
    def x(self) -> Buffer:
        return self.source.x.buffer("X")

    @cached_property
    def w(self) -> Buffer:
        shape = (self.y.blocks, self.tiling.scheme.points, self.source.x.blocks, self.source.x.c, self.y.c)
        return Buffer.of("W", DType.FLOAT32, shape)

    @cached_property
    def b(self) -> Buffer:
        return Buffer.of("B", DType.FLOAT32, (self.y.blocks, self.y.subs, self.y.n, self.y.c))

    @cached_property
    def r(self) -> Buffer:
        return self.y.buffer("R")

    @cached_property
    def result(self) -> Buffer:
        return self.y.buffer("Y")

    @cached_property
    def padded(self) -> Buffer:
        return self.local("P", self.source.x.blocks, *self.strip, self.source.x.c)

    @cached_property
    def points(self) -> Buffer:
        """The input at the points."""
        x = self.source.x
        return self.local("V", self.tiling.scheme.points, x.blocks, self.tiling.tiles, x.c)

    def _sums(self, name: str) -> Buffer:
        return self.local(name, self.y.blocks, self.tiling.scheme.points, self.tiling.tiles, self.y.c)

    @cached_property
    def a(self) -> Buffer:
        """The sums that registers hold."""
        return self._sums("A")

    @cached_property
    def sums(self) -> Buffer:
        return self._sums("M")

    def over(self, name: str, loops: Sequence[tuple[str, int]], body: Callable[[Index], Body]) -> For:
        named = [*zip(("no", "strip"), self.front, strict=True), *loops]
        index: Index = {axis: Var(f"{name}.{axis}") for axis, _ in named}
        return nest([(f"{name}.{axis}", extent) for axis, extent in named], *body(index))

    def tile(self, i: Index) -> Expr:
        return i["row"] * self.tiling.columns + i["column"]

    def at(self, i: Index) -> tuple[Expr, ...]:
        """Where a sum is."""
        return tuple(i[axis] for axis in ("no", "strip", "co", "point", "tile", "c"))

    def pad(self, i: Index) -> Body:
        x = self.source.x
        top, left, *_ = self.source.window.padding
        row = i["strip"] * (self.tiling.rows * self.tiling.scheme.outputs) + i["row"] - top
        column = i["column"] - left
        inside = both(le(0, row), lt(row, x.height), le(0, column), lt(column, x.width))
        read = Select(inside, self.x[i["no"], i["ci"], row, column, 0, 0, i["c"]], f32(0.0))
        return (Store(self.padded, (i["no"], i["strip"], i["ci"], i["row"], i["column"], i["c"]), read),)

    def transform(self, i: Index) -> Body:
        scheme, tile = self.tiling.scheme, self.tile(i)

        def read(row: Expr | int, column: Expr) -> Expr:
            pixel = i["row"] * scheme.outputs + row, i["column"] * scheme.outputs + column
            return self.padded[i["no"], i["strip"], i["ci"], *pixel, i["c"]]

        def write(row: Expr, column: int, value: Expr) -> Stmt:
            return Store(self.points, (i["no"], i["strip"], row * scheme.size + column, i["ci"], tile, i["c"]), value)

        return _both_ways("input", scheme.data, _by_parity, read, write)

    def zero(self, i: Index) -> Body:
        return (Store(self.a, self.at(i), f32(0.0)),)

    def multiply(self, i: Index) -> Body:
        read = self.points[i["no"], i["strip"], i["point"], i["ci"], i["tile"], i["i"]]
        weight = self.w[i["co"], i["point"], i["ci"], i["i"], i["c"]]
        return (Store(self.a, self.at(i), Fma(read, weight, self.a[self.at(i)])),)

    def keep(self, i: Index) -> Body:
        return (Store(self.sums, self.at(i), self.a[self.at(i)]),)

    def output(self, i: Index) -> Body:
        scheme, tile = self.tiling.scheme, self.tile(i)
        m = scheme.outputs

        def read(row: Expr | int, column: Expr) -> Expr:
            return self.sums[i["no"], i["strip"], i["co"], column + row * scheme.size, tile, i["c"]]

        def write(row: Expr, column: int, value: Expr) -> Stmt:
            y_row, y_column = (i["strip"] * self.tiling.rows + i["row"]) * m + row, i["column"] * m + column
            at_y = (i["no"], i["co"], y_row, y_column, Const(0), Const(0), i["c"])
            value = value + self.b[i["co"], 0, 0, i["c"]]
            stored = Store(self.result, at_y, self.bounds.of(value + self.r[at_y] if self.residual else value))
            ends = []
            if self.tiling.strips * self.tiling.rows * m > self.y.height:
                ends.append(lt(y_row, self.y.height))
            if (self.tiling.columns - 1) * m + column >= self.y.width:
                ends.append(lt(y_column, self.y.width))
            return If(both(*ends), (stored,)) if ends else stored

        return _both_ways("output", scheme.result, _by_pairs, read, write)


def conv2d(name: str, source: Weighted, y: Tiled, bounds: Bounds, tiling: Tiling, *, residual: bool = False) -> Proc:
    """``Y = clip(sum of X * W + B + R, lo, hi)`` of a 3x3 kernel and stride 1; X has blocks as wide as Y's.

    Parameters: X; W float32 [blocks_y, points, blocks_x, c, c], of `transform_weights`; B float32 [blocks, subs, n, c];
    R like Y if there is a residual; Y. Strips are copied with zeros around the image; what lies beyond Y is dropped.
    """
    d = _Definition(source, y, bounds, tiling, residual)
    x, (height, width) = source.x, d.strip
    products = [("co", y.blocks), ("point", tiling.scheme.points), ("tile", tiling.tiles)]
    grid = [("row", tiling.rows), ("column", tiling.columns), ("c", x.c)]
    body = [
        d.over("pad", [("ci", x.blocks), ("row", height), ("column", width), ("c", x.c)], d.pad),
        d.over("input", [("ci", x.blocks), *grid], d.transform),
        d.over("zero", [*products, ("c", y.c)], d.zero),
        d.over("dot", [*products, ("ci", x.blocks), ("i", x.c), ("c", y.c)], d.multiply),
        d.over("keep", [*products, ("c", y.c)], d.keep),
        d.over("output", [("co", y.blocks), *grid], d.output),
    ]
    params = (d.x, d.w, d.b, *([d.r] if residual else []), d.result)
    return Proc(name, params, tiles.allocate([d.padded, d.points, d.a, d.sums], body))
