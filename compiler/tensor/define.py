"""The one tensor-IR definition of each op, from which the schedules of every target start.

Tensors of the quantised network are stored in tiles (`tiles`). An op is a sequence of perfect loop nests over the tiles
of its result, some with reduction loops inside, each holding one statement that some machine executes as it stands.
That is all a schedule needs to know.
"""

from __future__ import annotations

from collections.abc import Callable
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
    Select,
    Stmt,
    Store,
    binary,
    both,
    cast,
    lt,
    maximum,
    minimum,
)
from compiler.tensor.tiles import Index, Loaded, Number, Tiled, Weighted, Window


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
    """What an extended machine's REQUANT does (decision 0006); bits: of the result.

    ``clip(round((acc + bias) * factor / 2**shift) + zero_point)``, halves away from zero, down to 0 if `relu`, which
    goes with a zero point of 0. Bias and scale (``factor | shift << 24``) of a channel are neighbours in a parameter.
    """

    relu: bool
    bits: int = 8
    zero_point: int = 0

    def value(self, acc: Expr, bias: Expr, scale: Expr) -> Expr:
        """The int32 result; every operand is int32."""
        return requantised(acc, bias, scale, self.zero_point, relu=self.relu, bits=self.bits)


def requantised(acc: Expr, bias: Expr, scale: Expr, zero_point: Expr | int, *, relu: bool, bits: int) -> Expr:
    """The value of a `Rescale`, int32, of int32 operands; zero_point: int64, or a number."""
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
    signed = Select(negative, Binary(BinaryOp.SUB, zero, rounded), rounded) + zero_point
    high = (1 << (bits - 1)) - 1
    return cast(DType.INT32, minimum(maximum(signed, 0 if relu else -high - 1), high))


def _to_even(a: Buffer, y: Tiled, shift: int) -> tuple[Buffer, list[For]]:
    """A temporary, and what added to `a` makes ``a >> shift`` round to nearest, halves to even.

    That is ``(1 << (shift - 1)) - 1 + lsb(a >> shift)``; with the next integer's lowest bit, made the sign of a number,
    it takes operations that a machine has.
    """
    t = tiles.local("E", y)
    return t, [
        tiles.fill("even.init", t, y, 0),
        tiles.update("even.copy", t, y, lambda v, i: v + a[tiles.at(i)]),
        tiles.update("even.next", t, y, lambda v, _: v + (1 << shift)),
        tiles.update("even.floor", t, y, lambda v, _: v >> shift),
        *tiles.step("even.left16", t, y, BinaryOp.MUL, 1 << 16),
        *tiles.step("even.left31", t, y, BinaryOp.MUL, 1 << 15),
        tiles.update("even.spread", t, y, lambda v, _: v >> 31),
        tiles.update("even.half", a, y, lambda v, _: v + (1 << (shift - 1))),
        tiles.update("even.add", a, y, lambda v, i: v + t[tiles.at(i)]),
    ]


def _clip(a: Buffer, y: Tiled, shift: int, low: int, high: int) -> list[For]:
    steps = [tiles.update("shift", a, y, lambda v, _: v >> shift)] if shift else []
    return [
        *steps,
        tiles.update("high", a, y, lambda v, _: minimum(v, high)),
        tiles.update("low", a, y, lambda v, _: maximum(v, low)),
    ]


def _residual(residual: Weighted, multiplier: int, a: Buffer, y: Tiled) -> tuple[tuple[Buffer, Buffer], list[For]]:
    """R and its weights D, and the nests that put ``R * D * multiplier`` into an accumulator that is zero."""
    r = residual.x.buffer("R")
    d, product = tiles.product("residual", residual, r, "D", a, y)
    return (r, d), [product, *tiles.step("residual.scale", a, y, BinaryOp.MUL, multiplier)]


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
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    factors, product = _columns(x, y, a)
    body = [tiles.fill("init", a, y, 0), product]
    if requantize.pre_shift:
        body.append(tiles.update("preshift", a, y, lambda v, _: v >> requantize.pre_shift))
    if multiplier != 1:
        body.append(tiles.update("scale", a, y, lambda v, _: v * multiplier))
    if bias:
        body.append(tiles.update("bias", a, y, lambda v, _: v + bias))
    body += [*_clip(a, y, requantize.shift, requantize.low, requantize.high), tiles.copy("store", buffer_y, a, y)]
    return Proc(name, (*factors, buffer_y), tiles.allocate([a], body))


def rescaled_matmul(name: str, x: Tiled, y: Tiled, rescale: Rescale) -> Proc:
    """`matmul` with the requantisation of an extended machine.

    Parameters: X and W as there; P int32 [1, 1, 2, n, c_y], bias and scale of every channel; Y.
    """
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    factors, product = _columns(x, y, a)
    p, requant = _rescaled(a, y, rescale)
    body = [tiles.fill("init", a, y, 0), product, requant, tiles.copy("store", buffer_y, a, y)]
    return Proc(name, (*factors, p, buffer_y), tiles.allocate([a], body))


def _rescaled(a: Buffer, y: Tiled, rescale: Rescale) -> tuple[Buffer, For]:
    """Bias and scale that all channels share, a parameter int32 [1, 1, 2, n, c_y], and the nest that applies them."""
    p = Buffer.of("P", DType.INT32, (1, 1, 2, y.n, y.c))

    def value(v: Expr, i: Index) -> Expr:
        return rescale.value(v, p[0, 0, 0, i["n"], i["c"]], p[0, 0, 1, i["n"], i["c"]])

    return p, tiles.update("requant", a, y, value)


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

    Parameters of the procedure: X; W as `tiles.product` has it, and S behind it if X is `tiles.Raised`; M (with a
    multiplier) and B int32 [blocks_y, subs_y, n, c_y], each channel repeated over the batch rows; with a residual R,
    and its weights D like W if it has any; Y. With weights ``R * D * multiplier`` is added before the products,
    without, R is like Y and ``R * multiplier`` is added after the factors.
    """
    buffer_x, buffer_y, a = source.x.buffer("X"), y.buffer("Y"), tiles.local("A", y)
    dot = tiles.summed(source, buffer_x, a, y)
    addends, terms = _residual(residual, residual_multiplier, a, y) if isinstance(residual, Weighted) else ((), [])
    body = [*dot.before, tiles.fill("init", a, y, 0), *terms, *dot.nests]
    channel = (y.blocks, y.subs, y.n, y.c)
    m, b = Buffer.of("M", DType.INT32, channel), Buffer.of("B", DType.INT32, channel)
    if requantize.pre_shift:
        body.append(tiles.update("preshift", a, y, lambda v, _: v >> requantize.pre_shift))
    if requantize.multiplier:
        body.append(tiles.update("scale", a, y, lambda v, i: v * tiles.per_channel(m, i)))
    body.append(tiles.update("bias", a, y, lambda v, i: v + tiles.per_channel(b, i)))
    allocated = [a, *dot.allocated]
    params = [buffer_x, *dot.parameters, *([m] if requantize.multiplier else []), b, *addends]
    if isinstance(residual, Tiled):
        r, t = residual.buffer("R"), tiles.local("T", y)
        allocated.append(t)
        params.append(r)
        body += _scaled("residual", t, r, y, residual_multiplier)
        body.append(tiles.update("add", a, y, lambda v, i: v + t[tiles.at(i)]))
    body += [*_clip(a, y, requantize.shift, requantize.low, requantize.high), tiles.copy("store", buffer_y, a, y)]
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
    buffer_x, buffer_y, a = source.x.buffer("X"), y.buffer("Y"), tiles.local("A", y)
    dot = tiles.summed(source, buffer_x, a, y)
    p = Buffer.of("P", DType.INT32, (y.blocks, y.subs, 2, y.n, y.c))
    addends, terms = _residual(residual, residual_multiplier, a, y) if residual is not None else ((), [])
    scaled = tiles.step("scale", a, y, BinaryOp.MUL, multiplier)
    body = [*dot.before, tiles.fill("init", a, y, 0), *terms, *dot.nests, *scaled]
    params = [buffer_x, *dot.parameters, p, *addends]

    def parameter(which: int, i: Index) -> Expr:
        return p[i["co"], i["s"], which, i["n"], i["c"]]

    body.append(tiles.update("requant", a, y, lambda v, i: rescale.value(v, parameter(0, i), parameter(1, i))))
    body.append(tiles.copy("store", buffer_y, a, y))
    return Proc(name, (*params, buffer_y), tiles.allocate([a, *dot.allocated], body))


def _scaled(
    name: str, to: Buffer, source: Buffer, y: Tiled, multiplier: Number, zero_point: int = 0
) -> list[For]:
    """``to = (source - zero_point) * multiplier``, as the load and the operations that a machine has for it."""
    return [
        tiles.copy(name, to, source, y),
        *tiles.step(f"{name}.zero", to, y, BinaryOp.ADD, -zero_point),
        *tiles.step(f"{name}.scale", to, y, BinaryOp.MUL, multiplier),
    ]


def exact_conv2d(
    name: str, source: Weighted, y: Tiled, *, fine: int, shift: int, low: int, high: int, residual: bool = False
) -> Proc:
    """2-D convolution of which a is the sum of products, brought to least..most:
    ``clip((a * m + ((a * n) >> fine) + b + R * r) >> shift, low, high)``.

    Parameters: X and W as in `conv2d`; P int32 [blocks_y, subs_y, 5 or 6, n, c_y], of each channel least, most, m, n, b
    and, with a residual, r; then R, like Y; Y.
    """
    buffer_x, buffer_y, a, t = source.x.buffer("X"), y.buffer("Y"), tiles.local("A", y), tiles.local("T", y)
    dot = tiles.summed(source, buffer_x, a, y)
    p = Buffer.of("P", DType.INT32, (y.blocks, y.subs, 6 if residual else 5, y.n, y.c))
    r = [y.buffer("R")] if residual else []

    def step(name: str, to: Buffer, op: BinaryOp, which: int) -> For:
        (nest,) = tiles.step(name, to, y, op, Loaded(p, lambda i: (i["co"], i["s"], Const(which), i["n"], i["c"])))
        return nest

    body = [
        *dot.before,
        tiles.fill("init", a, y, 0),
        *dot.nests,
        step("least", a, BinaryOp.MAX, 0),
        step("most", a, BinaryOp.MIN, 1),
        tiles.fill("fine.init", t, y, 0),
        tiles.update("fine.copy", t, y, lambda v, i: v + a[tiles.at(i)]),
        step("fine.scale", t, BinaryOp.MUL, 3),
        *([tiles.update("fine.shift", t, y, lambda v, _: v >> fine)] if fine else []),
        step("scale", a, BinaryOp.MUL, 2),
        tiles.update("add", a, y, lambda v, i: v + t[tiles.at(i)]),
        step("bias", a, BinaryOp.ADD, 4),
    ]
    for each in r:
        body += [tiles.copy("residual", t, each, y), step("residual.scale", t, BinaryOp.MUL, 5)]
        body.append(tiles.update("residual.add", a, y, lambda v, i: v + t[tiles.at(i)]))
    body += [*_clip(a, y, shift, low, high), tiles.copy("store", buffer_y, a, y)]
    params = (buffer_x, *dot.parameters, p, *r, buffer_y)
    return Proc(name, params, tiles.allocate([a, t, *dot.allocated], body))


def combine(
    name: str,
    y: Tiled,
    multipliers: tuple[int | None, ...],
    bias: int,
    shift: int,
    low: int,
    high: int,
    *,
    by: BinaryOp = BinaryOp.ADD,
    zero_points: tuple[int, ...] = (),
    even: bool = False,
    wide: bool = False,
) -> Proc:
    """``Y = clip((sum of X_k * multipliers[k] + bias) >> shift, low, high)`` for one or two inputs X0, X1 like Y.

    even: the quotient is rounded, halves to even, instead of cut.

    by: what joins the terms, the sum or the larger or smaller of both. zero_points: taken off the inputs. A multiplier
    of None is a parameter behind the inputs: M int32 [blocks, subs, n, c], one for each channel, repeated over the
    batch rows. If `wide`, for what is no immediate, the others and the bias are tiles of a last parameter P int32
    [numbers, n, c].
    """
    numbers, parameters = tiles.numbers([*(m for m in multipliers if m is not None), bias], y, wide=wide)
    *given, offset = numbers
    factors = tuple(None if m is None else given.pop(0) for m in multipliers)
    params, terms, body = _joined(y, factors, by, zero_points)
    body += tiles.step("bias", terms[0], y, BinaryOp.ADD, offset)
    if even:
        t, steps = _to_even(terms[0], y, shift)
        terms.append(t)
        body += steps
    buffer_y = y.buffer("Y")
    body += [*_clip(terms[0], y, shift, low, high), tiles.copy("store", buffer_y, terms[0], y)]
    return Proc(name, (*params, *parameters, buffer_y), tiles.allocate(terms, body))


def rescaled_add(name: str, y: Tiled, multipliers: tuple[int, ...], rescale: Rescale) -> Proc:
    """The sum of `combine` with the requantisation of an extended machine.

    Parameters: X0, X1; P int32 [1, 1, 2, n, c_y], bias and scale of every channel; Y.
    """
    params, terms, body = _joined(y, multipliers, BinaryOp.ADD)
    p, requant = _rescaled(terms[0], y, rescale)
    buffer_y = y.buffer("Y")
    body += [requant, tiles.copy("store", buffer_y, terms[0], y)]
    return Proc(name, (*params, p, buffer_y), tiles.allocate(terms, body))


def _joined(
    y: Tiled, multipliers: tuple[Number | None, ...], by: BinaryOp, zero_points: tuple[int, ...] = ()
) -> tuple[list[Buffer], list[Buffer], list[For]]:
    """The inputs and M, as many temporaries as inputs, and the nests that leave the joined products in the first."""
    inputs = [y.buffer(f"X{k}") for k in range(len(multipliers))]
    terms = [tiles.local(f"T{k}", y) for k in range(len(multipliers))]
    m = Buffer.of("M", DType.INT32, (y.blocks, y.subs, y.n, y.c))
    body: list[For] = []
    for k, multiplier in enumerate(multipliers):
        factor = Loaded(m, tiles.channel) if multiplier is None else multiplier
        zero_point = zero_points[k] if zero_points else 0
        body += _scaled(f"term{k}", terms[k], inputs[k], y, factor, zero_point)
    for k, term in enumerate(terms[1:], start=1):
        step = f"{by.name.lower()}{k}"
        body.append(tiles.update(step, terms[0], y, lambda v, i, term=term: binary(by, v, term[tiles.at(i)])))  # type: ignore[misc]  # mypy takes the default for a second argument
    return [*inputs, *([m] if None in multipliers else [])], terms, body


def multiply(
    name: str,
    x: Tiled,
    y: Tiled,
    multiplier: int,
    bias: int,
    shift: int,
    low: int,
    high: int,
    *,
    zero_points: tuple[int, int] = (0, 0),
    wide: bool = False,
) -> Proc:
    """``Y = clip((X0 * X1 * multiplier + bias) >> shift, low, high)`` for X0 like Y, and X1 like it or of one pixel.

    zero_points: taken off the inputs. Parameters: X0, X1; if `wide` P int32 [2, n, c], the multiplier and the bias; Y.
    """
    buffers, terms, body = _elementwise_product(x, y, zero_points)
    t = terms[0]
    (scale, offset), parameters = tiles.numbers([multiplier, bias], y, wide=wide)
    body += [*tiles.step("scale", t, y, BinaryOp.MUL, scale), *tiles.step("bias", t, y, BinaryOp.ADD, offset)]
    buffer_y = y.buffer("Y")
    body += [*_clip(t, y, shift, low, high), tiles.copy("store", buffer_y, t, y)]
    return Proc(name, (*buffers, *parameters, buffer_y), tiles.allocate(terms, body))


def rescaled_multiply(
    name: str, x: Tiled, y: Tiled, rescale: Rescale, *, zero_points: tuple[int, int] = (0, 0)
) -> Proc:
    """`multiply` with the requantisation of an extended machine.

    Parameters: X0, X1; P int32 [1, 1, 2, n, c_y], bias and scale of every channel; Y.
    """
    buffers, terms, body = _elementwise_product(x, y, zero_points)
    t = terms[0]
    p, requant = _rescaled(t, y, rescale)
    buffer_y = y.buffer("Y")
    body += [requant, tiles.copy("store", buffer_y, t, y)]
    return Proc(name, (*buffers, p, buffer_y), tiles.allocate(terms, body))


def _elementwise_product(
    x: Tiled, y: Tiled, zero_points: tuple[int, int]
) -> tuple[tuple[Buffer, Buffer], list[Buffer], list[For]]:
    """X0 like Y, X1 like `x`, temporaries, and the nests that leave the product in the first of these.

    ``(X0 - z0) * (X1 - z1)`` is ``(X0 - z0) * X1 - (X0 - z0) * z1``, so that X1 is a mere operand of an operation.
    """
    buffers, terms = (y.buffer("X0"), x.buffer("X1")), [tiles.local("T", y)]

    def factor(i: Index) -> Expr:
        row, column = (Const(0) if size == 1 else i[axis] for axis, size in (("oh", x.height), ("ow", x.width)))
        return cast(DType.INT32, buffers[1][i["no"], i["co"], row, column, i["s"], i["n"], i["c"]])

    t, (z0, z1) = terms[0], zero_points
    body = [
        *_scaled("term", t, buffers[0], y, 1, z0),
        tiles.update("multiply", t, y, lambda v, i: v * factor(i)),
    ]
    if z1:
        rest = tiles.local("Z", y)
        terms.append(rest)
        body += _scaled("rest", rest, buffers[0], y, -z1, z0)
        body.append(tiles.update("add", t, y, lambda v, i: v + rest[tiles.at(i)]))
    return buffers, terms, body


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
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    lowest = -(1 << (x.dtype.bits - 1))
    body = [tiles.fill("init", a, y, lowest), _pool(x, y, window, a, maximum), tiles.copy("store", buffer_y, a, y)]
    return Proc(name, (x.buffer("X"), buffer_y), tiles.allocate([a], body))


def avg_pool2d(
    name: str, x: Tiled, y: Tiled, window: Window, multiplier: int | None, bias: int, shift: int, low: int, high: int,
    *, even: bool = False, wide: bool = False,
) -> Proc:
    """``clip((sum of taps in X * multiplier + bias) >> shift, low, high)``, `even` as in `combine`.

    Parameters: X; without `multiplier` M int32 [OH, OW, n, c], one for each output position, repeated over the tile; if
    `wide` P int32 [1 or 2, n, c], the bias behind the multiplier that there is; Y.
    """
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    m = Buffer.of("M", DType.INT32, (y.height, y.width, y.n, y.c))
    numbers, parameters = tiles.numbers([*([] if multiplier is None else [multiplier]), bias], y, wide=wide)
    body = [tiles.fill("init", a, y, 0), _pool(x, y, window, a, lambda v, tap: v + tap)]
    factor = Loaded(m, lambda i: (i["oh"], i["ow"], i["n"], i["c"])) if multiplier is None else numbers[0]
    body += [*tiles.step("scale", a, y, BinaryOp.MUL, factor), *tiles.step("bias", a, y, BinaryOp.ADD, numbers[-1])]
    allocated = [a]
    if even:
        t, steps = _to_even(a, y, shift)
        allocated.append(t)
        body += steps
    body += [*_clip(a, y, shift, low, high), tiles.copy("store", buffer_y, a, y)]
    params = (x.buffer("X"), *([m] if multiplier is None else []), *parameters, buffer_y)
    return Proc(name, params, tiles.allocate(allocated, body))


def rescaled_avg_pool2d(name: str, x: Tiled, y: Tiled, window: Window, rescale: Rescale, *, factors: bool) -> Proc:
    """`avg_pool2d` with the requantisation of an extended machine, which follows the factors, if there are any.

    Parameters: X; with factors M int32 [OH, OW, n, c]; P int32 [1, 1, 2, n, c_y], bias and scale of every channel; Y.
    """
    a, buffer_y = tiles.local("A", y), y.buffer("Y")
    p, requant = _rescaled(a, y, rescale)
    body = [tiles.fill("init", a, y, 0), _pool(x, y, window, a, lambda v, tap: v + tap)]
    m = Buffer.of("M", DType.INT32, (y.height, y.width, y.n, y.c))
    if factors:
        body.append(tiles.update("scale", a, y, lambda v, i: v * m[i["oh"], i["ow"], i["n"], i["c"]]))
    body += [requant, tiles.copy("store", buffer_y, a, y)]
    return Proc(name, (x.buffer("X"), *([m] if factors else []), p, buffer_y), tiles.allocate([a], body))
