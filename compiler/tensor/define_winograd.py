"""The definition of 3x3 convolutions by minimal filtering (`minimal`), on images in blocks of channels.

Both what a tile of results reads and the kernel are transformed to points, at each of which a convolution is one
product for each channel; the sums of these over the channels are transformed to results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

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


def conv2d(name: str, source: Weighted, y: Tiled, bounds: Bounds, tiling: Tiling, *, residual: bool = False) -> Proc:
    """``Y = clip(sum of X * W + B + R, lo, hi)`` of a 3x3 kernel and stride 1; X has blocks as wide as Y's.

    Parameters: X; W float32 [blocks_y, points, blocks_x, c, c], of `transform_weights`; B float32 [blocks, subs, n, c];
    R like Y if there is a residual; Y. Strips are copied with zeros around the image; what lies beyond Y is dropped.
    """
    x, window, scheme = source.x, source.window, tiling.scheme
    m, size, points = scheme.outputs, scheme.size, scheme.points
    top, left, *_ = window.padding
    height, width, c = tiling.rows * m + KERNEL - 1, tiling.columns * m + KERNEL - 1, x.c
    front = (x.batches, tiling.strips)
    buffer_x, buffer_y, r = x.buffer("X"), y.buffer("Y"), y.buffer("R")
    w = Buffer.of("W", DType.FLOAT32, (y.blocks, points, x.blocks, c, y.c))
    b = Buffer.of("B", DType.FLOAT32, (y.blocks, y.subs, y.n, y.c))

    def local(name: str, *shape: int) -> Buffer:
        return Buffer.of(name, DType.FLOAT32, shape, Scope.LOCAL)

    p = local("P", *front, x.blocks, height, width, c)
    v = local("V", *front, points, x.blocks, tiling.tiles, c)
    a, sums = (local(each, *front, y.blocks, points, tiling.tiles, y.c) for each in ("A", "M"))

    def over(name: str, loops: Sequence[tuple[str, int]], body: Callable[[Index], Body]) -> For:
        named = [("no", x.batches), ("strip", tiling.strips), *loops]
        index: Index = {axis: Var(f"{name}.{axis}") for axis, _ in named}
        return nest([(f"{name}.{axis}", extent) for axis, extent in named], *body(index))

    def pad(i: Index) -> Body:
        row, column = i["strip"] * (tiling.rows * m) + i["row"] - top, i["column"] - left
        inside = both(le(0, row), lt(row, x.height), le(0, column), lt(column, x.width))
        read = Select(inside, buffer_x[i["no"], i["ci"], row, column, 0, 0, i["c"]], f32(0.0))
        return (Store(p, (i["no"], i["strip"], i["ci"], i["row"], i["column"], i["c"]), read),)

    def transform(i: Index) -> Body:
        tile = i["row"] * tiling.columns + i["column"]

        def read(row: Expr | int, column: Expr) -> Expr:
            return p[i["no"], i["strip"], i["ci"], i["row"] * m + row, i["column"] * m + column, i["c"]]

        def write(row: Expr, column: int, value: Expr) -> Stmt:
            return Store(v, (i["no"], i["strip"], row * size + column, i["ci"], tile, i["c"]), value)

        return _both_ways("input", scheme.data, _by_parity, read, write)

    def at(i: Index) -> tuple[Expr, ...]:
        return tuple(i[axis] for axis in ("no", "strip", "co", "point", "tile", "c"))

    def multiply(i: Index) -> Body:
        read = v[i["no"], i["strip"], i["point"], i["ci"], i["tile"], i["i"]]
        return (Store(a, at(i), Fma(read, w[i["co"], i["point"], i["ci"], i["i"], i["c"]], a[at(i)])),)

    def result(i: Index) -> Body:
        tile = i["row"] * tiling.columns + i["column"]

        def read(row: Expr | int, column: Expr) -> Expr:
            return sums[i["no"], i["strip"], i["co"], column + row * size, tile, i["c"]]

        def write(row: Expr, column: int, value: Expr) -> Stmt:
            y_row, y_column = (i["strip"] * tiling.rows + i["row"]) * m + row, i["column"] * m + column
            at_y = (i["no"], i["co"], y_row, y_column, Const(0), Const(0), i["c"])
            value = value + b[i["co"], 0, 0, i["c"]]
            stored = Store(buffer_y, at_y, bounds.of(value + r[at_y] if residual else value))
            ends = []
            if tiling.strips * tiling.rows * m > y.height:
                ends.append(lt(y_row, y.height))
            if (tiling.columns - 1) * m + column >= y.width:
                ends.append(lt(y_column, y.width))
            return If(both(*ends), (stored,)) if ends else stored

        return _both_ways("output", scheme.result, _by_pairs, read, write)

    products = [("co", y.blocks), ("point", points), ("tile", tiling.tiles)]
    grid = [("row", tiling.rows), ("column", tiling.columns), ("c", c)]
    body = [
        over("pad", [("ci", x.blocks), ("row", height), ("column", width), ("c", c)], pad),
        over("input", [("ci", x.blocks), *grid], transform),
        over("zero", [*products, ("c", y.c)], lambda i: (Store(a, at(i), f32(0.0)),)),
        over("dot", [*products, ("ci", x.blocks), ("i", c), ("c", y.c)], multiply),
        over("keep", [*products, ("c", y.c)], lambda i: (Store(sums, at(i), a[at(i)]),)),
        over("output", [("co", y.blocks), *grid], result),
    ]
    params = (buffer_x, w, b, *([r] if residual else []), buffer_y)
    return Proc(name, params, tiles.allocate([p, v, a, sums], body))
