"""The one tensor-IR definition of each op, from which the schedules of every target start.

Tensors of the quantised network are stored in tiles (`tiles`). An op is a sequence of perfect loop nests over the tiles
of its result, some with reduction loops inside, each holding one statement that some machine executes as it stands.
That is all a schedule needs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.tensor import tiles
from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    binary,
    both,
    cast,
    le,
    lt,
    maximum,
    minimum,
)
from compiler.tensor.tiles import Index, Pair, Tiled, Weighted, Window


@dataclass(frozen=True, kw_only=True)
class Requantize:
    """``clip((((acc >> pre_shift) * m[channel]) + b[channel] + ...) >> shift, low, high)``.

    Without a `multiplier` the factor m is left out.
    """

    shift: int
    low: int
    high: int
    pre_shift: int = 0
    multiplier: bool = True


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """What an extended machine's REQUANT does (decision 0006), with zero point 0; bits: of the result.

    ``clip(round((acc + bias) * factor / 2**shift))``, halves away from zero, down to 0 if `relu`. Bias and scale
    (``factor | shift << 24``) of a channel are neighbours in a parameter.
    """

    relu: bool
    bits: int = 8

    def value(self, acc: Expr, bias: Expr, scale: Expr) -> Expr:
        """The int32 result; every operand is int32."""
        total = cast(DType.INT64, acc + bias)
        factor = cast(DType.INT64, scale % (1 << 24))
        shift = cast(DType.INT64, (scale >> 24) % 64)
        product = total * factor
        zero, one = Const(0), Const(1)
        negative = lt(product, zero)
        # One bit is kept for the rounding, so that no sum leaves 64 bits.
        last = minimum(shift, one)
        magnitude = maximum(product, Binary(BinaryOp.SUB, zero, product))
        rounded = ((magnitude >> maximum(shift - 1, zero)) + last) >> last
        signed = Select(negative, Binary(BinaryOp.SUB, zero, rounded), rounded)
        high = (1 << (self.bits - 1)) - 1
        return cast(DType.INT32, minimum(maximum(signed, 0 if self.relu else -high - 1), high))


def _fill(name: str, a: Buffer, y: Tiled, value: int) -> For:
    return tiles.over(name, y, lambda i: Store(a, tiles.at(i), Const(value, a.type)))


def _copy(name: str, to: Buffer, source: Buffer, y: Tiled) -> For:
    return tiles.over(name, y, lambda i: Store(to, tiles.at(i), cast(to.type, source[tiles.at(i)])))


def _clip(a: Buffer, y: Tiled, shift: int, low: int, high: int) -> list[For]:
    steps = [tiles.update("shift", a, y, lambda v, _: v >> shift)] if shift else []
    return [
        *steps,
        tiles.update("high", a, y, lambda v, _: minimum(v, high)),
        tiles.update("low", a, y, lambda v, _: maximum(v, low)),
    ]


def _local(name: str, y: Tiled) -> Buffer:
    return Buffer.of(name, DType.INT32, y.shape, Scope.LOCAL)


def _product(name: str, term: Weighted, buffer_x: Buffer, buffer_w: str, a: Buffer, y: Tiled) -> tuple[Buffer, For]:
    """The weights, and ``a += the sum of their products with buffer_x``.

    Weights are [blocks_y, subs_y, blocks_x, subs_x, KH, KW, c_y, c_x], with one for blocks_x if `blockwise`. Axes of
    the sum have its name before theirs, unless it is ``dot``, which every op with weights has.
    """
    x, window, blockwise = term.x, term.window, term.blockwise
    kh, kw = window.kernel
    ci, t, ky, kx = (axis if name == "dot" else f"{name}_{axis}" for axis in ("ci", "t", "ky", "kx"))
    w = Buffer.of(buffer_w, term.weight, (y.blocks, y.subs, 1 if blockwise else x.blocks, x.subs, kh, kw, y.c, x.c))

    def multiply(i: Index) -> Stmt:
        row, column = window.row(i["oh"], i[ky]), window.column(i["ow"], i[kx])
        block, chunk = (i["co"], Const(0)) if blockwise else (i[ci], i[ci])
        read: Expr = buffer_x[i["no"], block, row, column, i[t], i["n"], i["i"]]
        if inside := window.inside(x, i["oh"], i["ow"], i[ky], i[kx]):
            read = Select(both(*inside), read, Const(0, x.dtype))
        weights = w[i["co"], i["s"], chunk, i[t], i[ky], i[kx], i["c"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, weights))

    blocks = [] if blockwise else [(ci, x.blocks)]
    return w, tiles.over(name, y, multiply, [*blocks, (t, x.subs), (ky, kh), (kx, kw), ("i", x.c)])


def _residual(residual: Weighted, multiplier: int, a: Buffer, y: Tiled) -> tuple[tuple[Buffer, Buffer], list[For]]:
    """R and its weights D, and the nests that put ``R * D * multiplier`` into an accumulator that is zero."""
    r = residual.x.buffer("R")
    d, product = _product("residual", residual, r, "D", a, y)
    scale = [tiles.update("residual.scale", a, y, lambda v, _: v * multiplier)] if multiplier != 1 else []
    return (r, d), [product, *scale]


def _columns(x: Tiled, y: Tiled, a: Buffer) -> tuple[tuple[Buffer, Buffer], For]:
    """X and W, tensors of the same tiles, and ``a += the sum of their products`` over the channels.

    c_y positions of W by c_x channels, as they follow each other in memory, are a tile of weights.
    """
    buffer_x = x.buffer("X")
    w = Buffer.of("W", x.dtype, (x.batches, x.blocks, y.blocks, y.c, x.c))

    def multiply(i: Index) -> Stmt:
        read = buffer_x[i["no"], i["ci"], i["oh"], i["ow"], i["s"], i["n"], i["i"]]
        weights = w[i["no"], i["ci"], i["co"], i["c"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, weights))

    return (buffer_x, w), tiles.over("dot", y, multiply, [("ci", x.blocks), ("i", x.c)])


def matmul(name: str, x: Tiled, y: Tiled, requantize: Requantize, multiplier: int, bias: int) -> Proc:
    """``Y = clip((((sum over channels of X * W) >> pre_shift) * multiplier + bias) >> shift)``, both activations.

    Parameters: X; W [batches, blocks_x, blocks_y, c_y, c_x], each position of which makes a channel of Y; Y.
    """
    a, buffer_y = _local("A", y), y.buffer("Y")
    factors, product = _columns(x, y, a)
    body = [_fill("init", a, y, 0), product]
    if requantize.pre_shift:
        body.append(tiles.update("preshift", a, y, lambda v, _: v >> requantize.pre_shift))
    if multiplier != 1:
        body.append(tiles.update("scale", a, y, lambda v, _: v * multiplier))
    if bias:
        body.append(tiles.update("bias", a, y, lambda v, _: v + bias))
    body += [*_clip(a, y, requantize.shift, requantize.low, requantize.high), _copy("store", buffer_y, a, y)]
    return Proc(name, (*factors, buffer_y), tiles.allocate([a], body))


def rescaled_matmul(name: str, x: Tiled, y: Tiled, rescale: Rescale) -> Proc:
    """`matmul` with the requantisation of an extended machine.

    Parameters: X and W as there; P int32 [1, 1, 2, n, c_y], bias and scale of every channel; Y.
    """
    a, buffer_y = _local("A", y), y.buffer("Y")
    factors, product = _columns(x, y, a)
    p = Buffer.of("P", DType.INT32, (1, 1, 2, y.n, y.c))

    def value(v: Expr, i: Index) -> Expr:
        return rescale.value(v, p[0, 0, 0, i["n"], i["c"]], p[0, 0, 1, i["n"], i["c"]])

    body = [_fill("init", a, y, 0), product, tiles.update("requant", a, y, value), _copy("store", buffer_y, a, y)]
    return Proc(name, (*factors, p, buffer_y), tiles.allocate([a], body))


def transpose(name: str, y: Tiled) -> Proc:
    """Y is W with channels and positions exchanged: tiles of W times unit vectors, which gives its columns.

    Parameters: X [c, c], the unit vectors; W [batches, height of Y, blocks of Y, c, c], tiles of positions by channels;
    Y, as high as W has blocks of channels and one block wide.
    """
    a, buffer_y = _local("A", y), y.buffer("Y")
    x = Buffer.of("X", y.dtype, (y.width, y.n, y.c))
    w = Buffer.of("W", y.dtype, (y.batches, y.height, y.blocks, y.c, y.c))

    def multiply(i: Index) -> Stmt:
        weights = w[i["no"], i["oh"], i["co"], i["c"], i["i"]]
        read = x[i["ow"], i["n"], i["i"]]
        return Store(a, tiles.at(i), a[tiles.at(i)] + cast(DType.INT32, read) * cast(DType.INT32, weights))

    body = [_fill("init", a, y, 0), tiles.over("dot", y, multiply, [("i", y.c)]), _copy("store", buffer_y, a, y)]
    return Proc(name, (x, w, buffer_y), tiles.allocate([a], body))


def gather_channels(name: str, parts: Sequence[Weighted], y: Tiled) -> Proc:
    """Y is the sum of the parts, tensors of as many pixels, each times weights: with ones, any choice of channels.

    Parameters: X0, X1, ...; W0, W1, ... like W of `conv2d`; Y.
    """
    a, buffer_y = _local("A", y), y.buffer("Y")
    inputs = [part.x.buffer(f"X{k}") for k, part in enumerate(parts)]
    names = [*(f"part{k}" for k in range(1, len(parts))), "dot"]
    products = [
        _product(axes, part, x, f"W{k}", a, y)
        for k, (axes, part, x) in enumerate(zip(names, parts, inputs, strict=True))
    ]
    body = [_fill("init", a, y, 0), *(nest for _, nest in products), _copy("store", buffer_y, a, y)]
    return Proc(name, (*inputs, *(weights for weights, _ in products), buffer_y), tiles.allocate([a], body))


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
        batches=x.batches * x.blocks, blocks=x.height, height=rows, width=x.width, subs=columns * y.subs, n=y.n, c=y.c,
        dtype=y.dtype,
    )
    a, buffer_y = _local("A", pixels), pixels.buffer("Y")
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
    body = [_fill("init", a, pixels, 0), tiles.over("dot", pixels, multiply, taps)]
    for k, side in enumerate(up.sides):
        body += _corrected(f"side{k}", a, pixels, side)
    if up.shift:
        body.append(tiles.update("bias", a, pixels, lambda v, _: v + (1 << (up.shift - 1))))
        body.append(tiles.update("shift", a, pixels, lambda v, _: v >> up.shift))
    return Proc(name, (buffer_x, w, buffer_y), tiles.allocate([a], [*body, _copy("store", buffer_y, a, pixels)]))


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


def conv2d(
    name: str,
    source: Weighted,
    y: Tiled,
    requantize: Requantize,
    *,
    residual: Weighted | Tiled | None = None,
    residual_multiplier: int = 1,
) -> Proc:
    """2-D convolution with requantisation and, optionally, a residual input; a dense layer is the 1x1 case.

    Parameters of the procedure: X; W [blocks_y, subs_y, blocks_x, subs_x, KH, KW, c_y, c_x], with one for blocks_x if
    `source` is blockwise; M (with a multiplier) and B int32 [blocks_y, subs_y, n, c_y], each channel repeated over the
    batch rows; with a residual R, and its weights D like W if it has any; Y. With weights ``R * D * multiplier`` is
    added before the products, without, R is like Y and ``R * multiplier`` is added after the factors.
    """
    buffer_x, buffer_y, a = source.x.buffer("X"), y.buffer("Y"), _local("A", y)
    w, product = _product("dot", source, buffer_x, "W", a, y)
    addends, terms = _residual(residual, residual_multiplier, a, y) if isinstance(residual, Weighted) else ((), [])
    body = [_fill("init", a, y, 0), *terms, product]
    channel = (y.blocks, y.subs, y.n, y.c)
    m, b = Buffer.of("M", DType.INT32, channel), Buffer.of("B", DType.INT32, channel)
    if requantize.pre_shift:
        body.append(tiles.update("preshift", a, y, lambda v, _: v >> requantize.pre_shift))
    if requantize.multiplier:
        body.append(tiles.update("scale", a, y, lambda v, i: v * tiles.per_channel(m, i)))
    body.append(tiles.update("bias", a, y, lambda v, i: v + tiles.per_channel(b, i)))
    allocated, params = [a], [buffer_x, w, *([m] if requantize.multiplier else []), b, *addends]
    if isinstance(residual, Tiled):
        r, t = residual.buffer("R"), _local("T", y)
        allocated.append(t)
        params.append(r)
        body += _scaled("residual", t, r, y, residual_multiplier)
        body.append(tiles.update("add", a, y, lambda v, i: v + t[tiles.at(i)]))
    body += [*_clip(a, y, requantize.shift, requantize.low, requantize.high), _copy("store", buffer_y, a, y)]
    return Proc(name, (*params, buffer_y), tiles.allocate(allocated, body))


def rescaled_conv2d(
    name: str,
    source: Weighted,
    y: Tiled,
    rescale: Rescale,
    *,
    residual: Weighted | None = None,
    residual_multiplier: int = 1,
    multiplier: int = 1,
) -> Proc:
    """2-D convolution with the requantisation of an extended machine and, optionally, a residual input.

    Parameters: X and W as in `conv2d`; P int32 [blocks_y, subs_y, 2, n, c_y], the bias and the scale of each channel;
    with a residual R, and its weights D like W; Y. The residual is ``residual_multiplier`` times the product of both.
    The sum of all products is multiplied by `multiplier` before the bias is added.
    """
    buffer_x, buffer_y, a = source.x.buffer("X"), y.buffer("Y"), _local("A", y)
    w, product = _product("dot", source, buffer_x, "W", a, y)
    p = Buffer.of("P", DType.INT32, (y.blocks, y.subs, 2, y.n, y.c))
    addends, terms = _residual(residual, residual_multiplier, a, y) if residual is not None else ((), [])
    body = [_fill("init", a, y, 0), *terms, product, *_step("scale", a, y, BinaryOp.MUL, multiplier)]
    params = [buffer_x, w, p, *addends]

    def parameter(which: int, i: Index) -> Expr:
        return p[i["co"], i["s"], which, i["n"], i["c"]]

    body.append(tiles.update("requant", a, y, lambda v, i: rescale.value(v, parameter(0, i), parameter(1, i))))
    body.append(_copy("store", buffer_y, a, y))
    return Proc(name, (*params, buffer_y), tiles.allocate([a], body))


def _scaled(name: str, to: Buffer, source: Buffer, y: Tiled, multiplier: Number) -> list[For]:
    """``to = source * multiplier``, as the load and the operation that a machine has for it."""
    return [_copy(name, to, source, y), *_step(f"{name}.scale", to, y, BinaryOp.MUL, multiplier)]


def exact_conv2d(
    name: str, source: Weighted, y: Tiled, *, fine: int, shift: int, low: int, high: int, residual: bool = False
) -> Proc:
    """2-D convolution of which a is the sum of products, brought to least..most:
    ``clip((a * m + ((a * n) >> fine) + b + R * r) >> shift, low, high)``.

    Parameters: X and W as in `conv2d`; P int32 [blocks_y, subs_y, 5 or 6, n, c_y], of each channel least, most, m, n, b
    and, with a residual, r; then R, like Y; Y.
    """
    buffer_x, buffer_y, a, t = source.x.buffer("X"), y.buffer("Y"), _local("A", y), _local("T", y)
    w, product = _product("dot", source, buffer_x, "W", a, y)
    p = Buffer.of("P", DType.INT32, (y.blocks, y.subs, 6 if residual else 5, y.n, y.c))
    r = [y.buffer("R")] if residual else []

    def step(name: str, to: Buffer, op: BinaryOp, which: int) -> For:
        return tiles.update(name, to, y, lambda v, i: binary(op, v, p[i["co"], i["s"], which, i["n"], i["c"]]))

    body = [
        _fill("init", a, y, 0),
        product,
        step("least", a, BinaryOp.MAX, 0),
        step("most", a, BinaryOp.MIN, 1),
        _fill("fine.init", t, y, 0),
        tiles.update("fine.copy", t, y, lambda v, i: v + a[tiles.at(i)]),
        step("fine.scale", t, BinaryOp.MUL, 3),
        *([tiles.update("fine.shift", t, y, lambda v, _: v >> fine)] if fine else []),
        step("scale", a, BinaryOp.MUL, 2),
        tiles.update("add", a, y, lambda v, i: v + t[tiles.at(i)]),
        step("bias", a, BinaryOp.ADD, 4),
    ]
    for each in r:
        body += [_copy("residual", t, each, y), step("residual.scale", t, BinaryOp.MUL, 5)]
        body.append(tiles.update("residual.add", a, y, lambda v, i: v + t[tiles.at(i)]))
    body += [*_clip(a, y, shift, low, high), _copy("store", buffer_y, a, y)]
    return Proc(name, (buffer_x, w, p, *r, buffer_y), tiles.allocate([a, t], body))


@dataclass(frozen=True)
class _Wide:
    """A number that is no immediate: which tile of a parameter has it in every element."""

    buffer: Buffer
    position: int


Number = int | _Wide


def _step(name: str, a: Buffer, y: Tiled, op: BinaryOp, number: Number) -> list[For]:
    """``a = a op number``, nothing where that is `a`."""
    if isinstance(number, _Wide):
        at, p = number.position, number.buffer
        return [tiles.update(name, a, y, lambda v, i: binary(op, v, p[at, i["n"], i["c"]]))]
    neutral = 1 if op is BinaryOp.MUL else 0
    return [] if number == neutral else [tiles.update(name, a, y, lambda v, _: binary(op, v, Const(number, a.type)))]


def _numbers(numbers: Sequence[int], y: Tiled, *, wide: bool) -> tuple[list[Number], list[Buffer]]:
    """The numbers as immediates, or else as tiles of the parameter P int32 [numbers, n, c], and that parameter."""
    if not wide:
        return list(numbers), []
    p = Buffer.of("P", DType.INT32, (len(numbers), y.n, y.c))
    return [_Wide(p, position) for position in range(len(numbers))], [p]


def add(
    name: str, y: Tiled, multipliers: tuple[int, ...], bias: int, shift: int, low: int, high: int, *, wide: bool = False
) -> Proc:
    """``Y = clip((sum of X_k * multipliers[k] + bias) >> shift, low, high)`` for one or two inputs X0, X1 like Y.

    Parameters: X0, X1; if `wide` P int32 [multipliers + 1, n, c], each of the multipliers and the bias in a tile; Y.
    """
    inputs = [y.buffer(f"X{k}") for k in range(len(multipliers))]
    terms = [_local(f"T{k}", y) for k in range(len(multipliers))]
    total, (numbers, parameter) = terms[0], _numbers((*multipliers, bias), y, wide=wide)
    body: list[For] = []
    for k, term in enumerate(terms):
        body += _scaled(f"term{k}", term, inputs[k], y, numbers[k])
    for k, term in enumerate(terms[1:], start=1):
        body.append(tiles.update(f"add{k}", total, y, lambda v, i, term=term: v + term[tiles.at(i)]))  # type: ignore[misc]  # mypy takes the default for a second argument
    buffer_y = y.buffer("Y")
    body += _step("bias", total, y, BinaryOp.ADD, numbers[-1])
    body += [*_clip(total, y, shift, low, high), _copy("store", buffer_y, total, y)]
    return Proc(name, (*inputs, *parameter, buffer_y), tiles.allocate(terms, body))


def multiply(
    name: str, x: Tiled, y: Tiled, multiplier: int, bias: int, shift: int, low: int, high: int, *, wide: bool = False
) -> Proc:
    """``Y = clip((X0 * X1 * multiplier + bias) >> shift, low, high)`` for X0 like Y, and X1 like it or of one pixel.

    Parameters: X0, X1; if `wide` P int32 [2, n, c], the multiplier and the bias; Y.
    """
    buffers, t, buffer_y = (y.buffer("X0"), x.buffer("X1")), _local("T", y), y.buffer("Y")
    (scale, offset), parameter = _numbers((multiplier, bias), y, wide=wide)

    def factor(i: Index) -> Expr:
        row, column = (Const(0) if size == 1 else i[axis] for axis, size in (("oh", x.height), ("ow", x.width)))
        return cast(DType.INT32, buffers[1][i["no"], i["co"], row, column, i["s"], i["n"], i["c"]])

    body = [_copy("term", t, buffers[0], y), tiles.update("multiply", t, y, lambda v, i: v * factor(i))]
    body += [*_step("scale", t, y, BinaryOp.MUL, scale), *_step("bias", t, y, BinaryOp.ADD, offset)]
    body += [*_clip(t, y, shift, low, high), _copy("store", buffer_y, t, y)]
    return Proc(name, (*buffers, *parameter, buffer_y), tiles.allocate([t], body))


def _pool(x: Tiled, y: Tiled, window: Window, a: Buffer, combine: Callable[[Expr, Expr], Expr]) -> For:
    """``a = combine(a, tap)`` for every tap of the window that lies in the input."""
    source = x.buffer("X")

    def statement(i: Index) -> Stmt:
        row, column = window.row(i["oh"], i["ky"]), window.column(i["ow"], i["kx"])
        tap = cast(DType.INT32, source[i["no"], i["co"], row, column, i["s"], i["n"], i["c"]])
        store = Store(a, tiles.at(i), combine(a[tiles.at(i)], tap))
        inside = window.inside(x, i["oh"], i["ow"], i["ky"], i["kx"])
        return If(both(*inside), (store,)) if inside else store

    return tiles.over("pool", y, statement, [("ky", window.kernel[0]), ("kx", window.kernel[1])])


def max_pool2d(name: str, x: Tiled, y: Tiled, window: Window) -> Proc:
    """Maximum over the taps that lie in X. Parameters: X, Y with equal blocks and tiles."""
    a, buffer_y = _local("A", y), y.buffer("Y")
    lowest = -(1 << (x.dtype.bits - 1))
    body = [_fill("init", a, y, lowest), _pool(x, y, window, a, maximum), _copy("store", buffer_y, a, y)]
    return Proc(name, (x.buffer("X"), buffer_y), tiles.allocate([a], body))


def avg_pool2d(
    name: str, x: Tiled, y: Tiled, window: Window, multiplier: int | None, bias: int, shift: int, low: int, high: int,
    *, wide: bool = False,
) -> Proc:
    """``clip((sum of taps in X * multiplier + bias) >> shift, low, high)``.

    Parameters: X; without `multiplier` M int32 [OH, OW, n, c], one for each output position, repeated over the tile; if
    `wide` P int32 [1 or 2, n, c], the bias behind the multiplier that there is; Y.
    """
    a, buffer_y = _local("A", y), y.buffer("Y")
    m = Buffer.of("M", DType.INT32, (y.height, y.width, y.n, y.c))
    given = [] if multiplier is None else [multiplier]
    numbers, parameter = _numbers((*given, bias), y, wide=wide)
    body = [_fill("init", a, y, 0), _pool(x, y, window, a, lambda v, tap: v + tap)]
    if multiplier is None:
        body.append(tiles.update("scale", a, y, lambda v, i: v * m[i["oh"], i["ow"], i["n"], i["c"]]))
    else:
        body += _step("scale", a, y, BinaryOp.MUL, numbers[0])
    body += _step("bias", a, y, BinaryOp.ADD, numbers[-1])
    body += [*_clip(a, y, shift, low, high), _copy("store", buffer_y, a, y)]
    params = (x.buffer("X"), *([m] if multiplier is None else []), *parameter, buffer_y)
    return Proc(name, params, tiles.allocate([a], body))
