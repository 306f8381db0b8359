"""Definitions of ops that move elements and compute nothing, of row-major tensors of any rank and type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.tensor.ir import (
    Buffer,
    Const,
    DType,
    Expr,
    Proc,
    Select,
    Stmt,
    Store,
    Var,
    both,
    cast,
    le,
    lt,
    maximum,
    minimum,
    nest,
)

Shape = tuple[int, ...]
Index = tuple[Expr, ...]


def over(name: str, shape: Shape, body: Callable[[Index], Sequence[Stmt]]) -> Stmt:
    """Loops over the elements of a tensor, around what `body` makes of their index; a scalar has one element."""
    index = tuple(Var(f"{name}{axis}") for axis in range(len(shape)))
    loops = [(var.name, extent) for var, extent in zip(index, shape, strict=True)]
    return nest(loops or [(name, 1)], *body(index))


def _moved(name: str, dtype: DType, source: Shape, target: Shape, value: Callable[[Buffer, Index], Expr]) -> Proc:
    x, y = Buffer.of("X", dtype, source), Buffer.of("Y", dtype, target)
    return Proc(name, (x, y), (over("i", target, lambda i: (Store(y, i, value(x, i)),)),))


def transpose(name: str, dtype: DType, source: Shape, order: tuple[int, ...]) -> Proc:
    """Dimension k of Y is dimension ``order[k]`` of X."""
    target = tuple(source[axis] for axis in order)
    return _moved(name, dtype, source, target, lambda x, i: x[tuple(i[order.index(axis)] for axis in range(len(i)))])


def strided_slice(
    name: str, dtype: DType, source: Shape, target: Shape, starts: tuple[int, ...], steps: tuple[int, ...]
) -> Proc:
    """Element i of Y is element ``starts + i * steps`` of X."""

    def value(x: Buffer, index: Index) -> Expr:
        return x[tuple(i * step + start for i, start, step in zip(index, starts, steps, strict=True))]

    return _moved(name, dtype, source, target, value)


def expand(name: str, dtype: DType, source: Shape, target: Shape) -> Proc:
    """X repeated along the dimensions in which it has one element, or which it has not."""
    return _moved(name, dtype, source, target, lambda x, i: x[broadcast_index(source, i)])


def broadcast_index(shape: Shape, index: Index) -> Index:
    """The element of a tensor of `shape` that stands at `index` of the larger one it is broadcast to."""
    last = index[len(index) - len(shape) :]
    return tuple(Const(0) if extent == 1 else i for i, extent in zip(last, shape, strict=True))


def pad(name: str, dtype: DType, source: Shape, before: tuple[int, ...], target: Shape, value: float) -> Proc:
    """X at ``before`` in a Y that holds `value` elsewhere."""

    def element(x: Buffer, index: Index) -> Expr:
        at = tuple(i - start for i, start in zip(index, before, strict=True))
        conditions: list[Expr] = []
        for i, start, extent, whole in zip(at, before, source, target, strict=True):
            conditions += [le(0, i)] if start else []
            conditions += [lt(i, extent)] if start + extent < whole else []
        if dtype is DType.FLOAT16:  # which has no constants
            fill: Expr = cast(dtype, Const(float(value), DType.FLOAT32))
        else:
            fill = Const(float(value) if dtype.is_float else int(value), dtype)
        return Select(both(*conditions), x[at], fill) if conditions else x[at]

    return _moved(name, dtype, source, target, element)


def concat(name: str, dtype: DType, sources: Sequence[Shape], axis: int) -> Proc:
    """X0, X1, ... behind each other along `axis`."""
    inputs = [Buffer.of(f"X{k}", dtype, shape) for k, shape in enumerate(sources)]
    total = sum(shape[axis] for shape in sources)
    y = Buffer.of("Y", dtype, (*sources[0][:axis], total, *sources[0][axis + 1 :]))
    body: list[Stmt] = []
    start = 0
    for k, x in enumerate(inputs):

        def copy(i: Index, x: Buffer = x, start: int = start) -> Sequence[Stmt]:
            return (Store(y, (*i[:axis], i[axis] + start, *i[axis + 1 :]), x[i]),)

        body.append(over(f"x{k}.i", sources[k], copy))
        start += sources[k][axis]
    return Proc(name, (*inputs, y), tuple(body))


def repeat(name: str, dtype: DType, source: tuple[int, int, int, int], factors: tuple[int, int]) -> Proc:
    """Each pixel of X [N,C,H,W] becomes ``factors`` rows and columns of Y [N, C, H, rows, W, columns]."""
    n, c, h, w = source
    target = n, c, h, factors[0], w, factors[1]
    return _moved(name, dtype, source, target, lambda x, i: x[i[0], i[1], i[2], i[4]])


def interleave(name: str, dtype: DType, source: Shape, target: Shape, starts: tuple[int, int]) -> Proc:
    """Y [N,G,C,H,W] of X [N,G,F0,F1,C,H,W], whose F0 rows and F1 columns of images become pixels beside each other."""
    down, right = source[2:4]

    def value(x: Buffer, index: Index) -> Expr:
        n, g, c, row, column = index
        p, q = row + starts[0], column + starts[1]
        return x[n, g, p % down, q % right, c, p // down, q // right]

    return _moved(name, dtype, source, target, value)


def take(name: str, dtype: DType, source: Shape, axis: int, count: int) -> Proc:
    """``Y[..., i, ...] = X[..., K[i], ...]`` along `axis`, for K int32 [count], whose elements are limited to X."""
    k = Buffer.of("K", DType.INT32, (count,))
    x = Buffer.of("X", dtype, source)
    target = (*source[:axis], count, *source[axis + 1 :])
    y = Buffer.of("Y", dtype, target)

    def copy(i: Index) -> Sequence[Stmt]:
        at = limited(k[(i[axis],)], source[axis])
        return (Store(y, i, x[(*i[:axis], at, *i[axis + 1 :])]),)

    return Proc(name, (x, k, y), (over("i", target, copy),))


def limited(index: Expr, extent: int) -> Expr:
    """An index that was read, within 0..extent-1 whatever it is."""
    return minimum(maximum(cast(DType.INT64, index), 0), extent - 1)


def collapsed(target: Shape, operands: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """The same broadcast in as few dimensions as possible: neighbours that every operand has, or lacks, are joined."""
    full = [(1,) * (len(target) - len(shape)) + shape for shape in operands]
    kept: list[tuple[int, tuple[bool, ...]]] = []
    for axis, extent in enumerate(target):
        if extent == 1:
            continue
        has = tuple(shape[axis] != 1 for shape in full)
        if kept and kept[-1][1] == has:
            kept[-1] = (kept[-1][0] * extent, has)
        else:
            kept.append((extent, has))
    result = tuple(extent for extent, _ in kept)
    shapes = [tuple(extent if has[k] else 1 for extent, has in kept) for k in range(len(operands))]
    return (result, shapes) if result else ((1,), [(1,)] * len(operands))
