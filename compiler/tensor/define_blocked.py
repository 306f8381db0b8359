"""Definitions of float ops on images in blocks of channels, ``[N, C/c, H, W, 1, 1, c]`` of `tiles`.

A block of `c` channels of one pixel is a vector of a CPU. Sums of products begin with the bias, sums of windows with
zero, and products are added by `Fma`, in the order of the loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from compiler.tensor import tiles
from compiler.tensor.functions import div, f32
from compiler.tensor.ir import (
    Buffer,
    Const,
    DType,
    Expr,
    Fma,
    For,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    both,
    maximum,
    minimum,
)
from compiler.tensor.tiles import Index, Tiled, Weighted, Window


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Bounds of a result; infinite ones are none."""

    lo: float = -math.inf
    hi: float = math.inf

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

    outer, inner = ([], []) if blockwise else ([("ci", x.blocks)], [("i", x.c)])
    body = [
        tiles.over("bias", y, lambda i: Store(a, tiles.at(i), tiles.per_channel(b, i))),
        tiles.over("dot", y, multiply, [*outer, *_taps(window), *inner]),
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
