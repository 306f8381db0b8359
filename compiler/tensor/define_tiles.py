"""Definitions of ops that move pixels and channels of tensors in tiles, or make pixels between them.

Tiles go through the multipliers of the accelerator: what is moved is a product with weights that choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from compiler.tensor import tiles
from compiler.tensor.ir import (
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Proc,
    Select,
    Stmt,
    Store,
    both,
    cast,
    le,
    lt,
)
from compiler.tensor.tiles import Index, Pair, Tiled, Weighted


def transpose(name: str, y: Tiled) -> Proc:
    """Y is W with channels and positions exchanged: tiles of W times unit vectors, which gives its columns.

    Parameters: X [c, c], the unit vectors; W [batches, height of Y, blocks of Y, c, c], tiles of positions by channels;
    Y, as high as W has blocks of channels and one block wide.
    """
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    x = Buffer.of("X", y.dtype, (y.width, y.n, y.c))
    w = Buffer.of("W", y.dtype, (y.batches, y.height, y.blocks, y.c, y.c))

    def multiply(i: Index) -> Stmt:
        weights = w[i["no"], i["oh"], i["co"], i["c"], i["i"]]
        read = x[i["ow"], i["n"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, weights))

    body = [
        tiles.fill("init", a, y, 0),
        tiles.over("dot", y, multiply, [("i", y.c)]),
        tiles.copy("store", buffer_y, a, y),
    ]
    return Proc(name, (x, w, buffer_y), tiles.allocate([a], body))


def gather_channels(name: str, parts: Sequence[Weighted], y: Tiled) -> Proc:
    """Y is the sum of the parts, tensors of as many pixels, each times weights: with ones, any choice of channels.

    Parameters: X0, X1, ...; W0, W1, ... like W of `conv2d`; Y.
    """
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    inputs = [part.x.buffer(f"X{k}") for k, part in enumerate(parts)]
    names = [*(f"part{k}" for k in range(1, len(parts))), "dot"]
    products = [
        tiles.product(axes, part, x, f"W{k}", a, y)
        for k, (axes, part, x) in enumerate(zip(names, parts, inputs, strict=True))
    ]
    body = [tiles.fill("init", a, y, 0), *(nest for _, nest in products), tiles.copy("store", buffer_y, a, y)]
    return Proc(name, (*inputs, *(weights for weights, _ in products), buffer_y), tiles.allocate([a], body))


@dataclass(frozen=True, kw_only=True)
class Line:
    """Places along an axis: ``first + step * k``."""

    first: int = 0
    step: int = 1

    def at(self, k: Expr) -> Expr:
        return k * self.step + self.first if self.step else Const(self.first)

    def leaves(self, count: int, extent: int) -> bool:
        """Whether some of the first `count` places are not in 0..extent-1."""
        ends = self.first, self.first + self.step * (count - 1)
        return min(ends) < 0 or max(ends) >= extent


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A box of a result, `size` rows and columns of pixels, from tensor number `x`; zero where they lie outside of it.

    source: rows and columns of x, in which those of the box are, or with `transposed` its columns and rows. target:
    those of the result. blocks: those of channels of x that the blocks of the result are, or, if `summed` is more than
    one, at which the blocks begin that they are sums over.
    """

    size: Pair
    x: int = 0
    source: tuple[Line, Line] = (Line(), Line())
    target: tuple[Line, Line] = (Line(), Line())
    transposed: bool = False
    blocks: Line = Line()
    summed: int = 1


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A box of a result, `size` rows and columns of pixels from row and column `first` on, of one number."""

    size: Pair
    first: Pair
    value: int


def move(
    name: str, xs: Sequence[Tiled], boxes: Sequence[Moved], y: Tiled, weights: Buffer, filled: Sequence[Filled] = ()
) -> Proc:
    """Pixels of tensors at other places of Y. The boxes do not overlap; each is a sequence of nests of its own.

    Parameters: X0, X1, ...; `weights`, [boxes, blocks_y, subs_y, summed, subs_x, c_y, c_x] of ones and zeros, with 1
    for boxes and blocks that share them; Y.
    """
    inputs, buffer_y = [x.buffer(f"X{k}") for k, x in enumerate(xs)], y.buffer("Y")
    body: list[Stmt] = []
    for k, moved in enumerate(boxes):
        box = replace(y, height=moved.size[0], width=moved.size[1])
        a = tiles.local(f"A{k}", box)
        nests = [
            tiles.fill(f"init{k}", a, box, 0),
            _moved(k, moved, xs[moved.x], inputs[moved.x], weights, a, box),
            tiles.over(f"store{k}", box, partial(_stored, buffer_y, a, moved.target)),
        ]
        body += tiles.allocate([a], nests)
    for k, each in enumerate(filled):
        box = replace(y, height=each.size[0], width=each.size[1])
        a = tiles.local(f"F{k}", box)
        target = Line(first=each.first[0]), Line(first=each.first[1])
        store = tiles.over(f"filled{k}", box, partial(_stored, buffer_y, a, target))
        body += tiles.allocate([a], [tiles.fill(f"fill{k}", a, box, each.value), store])
    return Proc(name, (*inputs, weights, buffer_y), tuple(body))


def _moved(k: int, moved: Moved, x: Tiled, buffer_x: Buffer, w: Buffer, a: Buffer, box: Tiled) -> For:
    boxes, blocks_y, *_ = w.static_shape

    def multiply(i: Index) -> Stmt:
        down, across = (i["ow"], i["oh"]) if moved.transposed else (i["oh"], i["ow"])
        at = moved.source[0].at(down), moved.source[1].at(across)
        chunk = i.get("ci", Const(0))
        block = moved.blocks.at(i["co"]) + chunk
        read: Expr = buffer_x[i["no"], block, *at, i["t"], i["n"], i["i"]]
        inside: list[Expr] = []
        counts = moved.size[::-1] if moved.transposed else moved.size
        for line, place, count, extent in zip(moved.source, at, counts, (x.height, x.width), strict=True):
            inside += [le(0, place), lt(place, extent)] if line.leaves(count, extent) else []
        if inside:
            read = Select(both(*inside), read, Const(0, x.dtype))
        row = i["co"] if blocks_y > 1 else Const(0)
        tile = w[k if boxes > 1 else 0, row, i["s"], chunk, i["t"], i["c"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, tile))

    blocks = [("ci", moved.summed)] if moved.summed > 1 else []
    return tiles.over(f"dot{k}", box, multiply, [*blocks, ("t", x.subs), ("i", x.c)])


def _stored(buffer_y: Buffer, a: Buffer, target: tuple[Line, Line], i: Index) -> Stmt:
    at = target[0].at(i["oh"]), target[1].at(i["ow"])
    return Store(buffer_y, (i["no"], i["co"], *at, *tiles.at(i)[4:]), cast(buffer_y.type, a[tiles.at(i)]))


@dataclass(frozen=True, kw_only=True)
class Side:
    """Pixels on a side of an image, where weights of a sum meet padding instead of the outermost pixel once more.

    at: (axis, value) of the loops that lead to these pixels. Their sums times `numerator / denominator` are whole.
    """

    at: tuple[tuple[str, int], ...]
    numerator: int
    denominator: int


@dataclass(frozen=True, kw_only=True)
class Upsampling:
    """Each pixel becomes `factors` of them, rows and columns, each the sum of `taps` pixels times weights, >> `shift`.

    The sum of phase p along an axis begins ``p * advance - padding`` pixels behind the pixel. It is rounded, halves
    upwards, and before that corrected on the `sides`.
    """

    factors: Pair
    taps: Pair = (1, 1)
    advances: Pair = (0, 0)
    padding: Pair = (0, 0)
    shift: int = 0
    sides: tuple[Side, ...] = ()


SIDE_SHIFT = 14
"""Quotients on sides are products with numbers of that many bits behind the point: exact for sums of 8-bit numbers."""


def upsample(name: str, x: Tiled, y: Tiled, up: Upsampling, weight: DType) -> Proc:
    """Y has `up.factors` times the rows and columns of X.

    Parameters: X [batches * blocks, height, width, subs_x, n, c_x]; W [rows, columns * subs_y, subs_x, *taps, c_y,
    c_x], of which rows and columns are the factors; Y [batches * blocks, height, rows, width, columns * subs_y, n,
    c_y], which is how its bytes lie. co and ow count the pixels of X, oh and s those that become of one.
    """
    rows, columns = up.factors
    pixels = Tiled(
        batches=x.batches * x.blocks,
        blocks=x.height,
        height=rows,
        width=x.width,
        subs=columns * y.subs,
        n=y.n,
        c=y.c,
        dtype=y.dtype,
    )
    a, buffer_y = tiles.local("A", pixels), pixels.buffer("Y")
    buffer_x = Buffer.of("X", x.dtype, (pixels.batches, x.height, x.width, x.subs, x.n, x.c))
    w = Buffer.of("W", weight, (rows, pixels.subs, x.subs, *up.taps, y.c, x.c))

    def multiply(i: Index) -> Stmt:
        at, inside = [], []
        for axis, phase, tap, k, extent in (("co", "oh", "ky", 0, x.height), ("ow", "s", "kx", 1, x.width)):
            first = i[axis] + i[phase] * up.advances[k] if up.advances[k] else i[axis]
            at.append(first + i[tap] - up.padding[k])
            inside += [le(0, at[k]), lt(at[k], extent)] if up.padding[k] else []
        read: Expr = buffer_x[i["no"], at[0], at[1], i["t"], i["n"], i["i"]]
        if inside:
            read = Select(both(*inside), read, Const(0, x.dtype))
        weights = w[i["oh"], i["s"], i["t"], i["ky"], i["kx"], i["c"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, weights))

    taps = [("t", x.subs), ("ky", up.taps[0]), ("kx", up.taps[1]), ("i", x.c)]
    body = [tiles.fill("init", a, pixels, 0), tiles.over("dot", pixels, multiply, taps)]
    for k, side in enumerate(up.sides):
        body += _corrected(f"side{k}", a, pixels, side)
    if up.shift:
        body.append(tiles.update("bias", a, pixels, lambda v, _: v + (1 << (up.shift - 1))))
        body.append(tiles.update("shift", a, pixels, lambda v, _: v >> up.shift))
    return Proc(name, (buffer_x, w, buffer_y), tiles.allocate([a], [*body, tiles.copy("store", buffer_y, a, pixels)]))


def _corrected(name: str, a: Buffer, y: Tiled, side: Side) -> list[For]:
    """``a = a * numerator / denominator`` for pixels of a side, where the quotient is whole."""
    factor = round((side.numerator << SIDE_SHIFT) / side.denominator)
    steps: list[tuple[str, Callable[[Expr], Expr]]] = [
        ("scale", lambda v: v * factor),
        ("half", lambda v: v + (1 << (SIDE_SHIFT - 1))),
        ("shift", lambda v: v >> SIDE_SHIFT),
    ]

    def nest_of(step: str, value: Callable[[Expr], Expr]) -> For:
        def statement(i: Index) -> Stmt:
            conditions = [condition for axis, at in side.at for condition in (le(at, i[axis]), le(i[axis], at))]
            return If(both(*conditions), (Store(a, tiles.at(i), value(a[tiles.at(i)])),))

        return tiles.over(f"{name}.{step}", y, statement)

    return [nest_of(*step) for step in steps]
