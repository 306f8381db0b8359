"""Definitions of the ops that surround the quantised network: conversions, changes of layout, softmax.

Logical tensors are row-major [N, C, H, W]; packed ones [ceil(N/n), ceil(C/c), H, W, n, c], with zeros where padding is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.tensor.functions import converted, div
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
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

Shape4 = tuple[int, int, int, int]
Tile = tuple[int, int]
"""n, c of a packed tensor"""
_ROW_MAJOR = (1, 1)


@dataclass(frozen=True, kw_only=True)
class ExpConstants:
    """The float32 constants of ``exp32``, which `compiler.graph.ops.softmax` defines step by step."""

    least: float
    log2_e: float
    ln2_high: float
    ln2_low: float
    coefficients: tuple[float, ...]
    exponent_bias: int
    mantissa_bits: int


def _f32(value: float) -> Const:
    return Const(float(value), DType.FLOAT32)


def _packed_shape(shape: Shape4, tile: Tile) -> tuple[int, ...]:
    batch, channels, height, width = shape
    n, c = tile
    return (-(-batch // n), -(-channels // c), height, width, n, c)


_PACKED = ("no", "co", "h", "w", "n", "c")


@dataclass(frozen=True)
class _Packed:
    """The loops over a packed tensor, and the logical element that each iteration stands for."""

    prefix: str
    shape: Shape4
    tile: Tile

    def var(self, axis: str) -> Var:
        return Var(self.prefix + axis)

    @property
    def index(self) -> tuple[Expr, ...]:
        return tuple(self.var(axis) for axis in _PACKED)

    @property
    def logical(self) -> tuple[Expr, ...]:
        image = self.var("no") * self.tile[0] + self.var("n")
        channel = self.var("co") * self.tile[1] + self.var("c")
        return image, channel, self.var("h"), self.var("w")

    @property
    def inside(self) -> Expr | None:
        """The condition for the element to be data and not padding; None if there is no padding."""
        conditions = []
        for value, extent, step in zip(self.logical[:2], self.shape[:2], self.tile, strict=True):
            if extent % step:
                conditions.append(lt(value, extent))
        return both(*conditions) if conditions else None

    def nest(self, *body: Stmt) -> For:
        extents = _packed_shape(self.shape, self.tile)
        return nest([(self.prefix + axis, extent) for axis, extent in zip(_PACKED, extents, strict=True)], *body)

    def guarded(self, store: Store) -> For:
        return self.nest(store if self.inside is None else If(self.inside, (store,)))

    def selected(self, value: Expr) -> Expr:
        return value if self.inside is None else Select(self.inside, value, Const(0, value.dtype))


def quantize(
    name: str, shape: Shape4, tile: Tile, *, inverse_scale: float, low: int, high: int, dtype: DType = DType.INT8,
    scale: float | None = None, zero_point: int = 0,
) -> Proc:
    """X float32 [N,C,H,W] to Y packed: ``clip(rint(x * inverse_scale) + zero_point, low, high)``, padding zero.

    scale: what is divided by instead.
    """
    x = Buffer.of("X", DType.FLOAT32, shape)
    y = Buffer.of("Y", dtype, _packed_shape(shape, tile))
    packed = _Packed("", shape, tile)
    value = Load(x, packed.logical)
    scaled = value * _f32(inverse_scale) if scale is None else div(value, _f32(scale))
    rounded: Expr = Unary(UnaryOp.RINT, scaled)
    rounded = rounded + _f32(zero_point) if zero_point else rounded
    clipped = minimum(maximum(rounded, _f32(low)), _f32(high))
    store = Store(y, packed.index, packed.selected(cast(dtype, clipped)))
    return Proc(name, (x, y), (packed.nest(store),))


def dequantize(
    name: str, shape: Shape4, tile: Tile, *, scale: float, zero_point: int = 0, dtype: DType = DType.INT8
) -> Proc:
    """X packed to Y float32 [N,C,H,W]: ``float32(x - zero_point) * scale``."""
    x = Buffer.of("X", dtype, _packed_shape(shape, tile))
    y = Buffer.of("Y", DType.FLOAT32, shape)
    packed = _Packed("", shape, tile)
    steps = cast(DType.FLOAT32, Load(x, packed.index))
    value = (steps + _f32(-zero_point) if zero_point else steps) * _f32(scale)
    return Proc(name, (x, y), (packed.guarded(Store(y, packed.logical, value)),))


def relayout(name: str, shape: Shape4, source: Tile, target: Tile, *, dtype: DType = DType.INT8) -> Proc:
    """X packed by `source` to Y packed by `target`; padding becomes zero.

    If neither is row-major, which is a tile of 1x1, by way of that. X and Y have the pixels of an image in one row.
    """
    batch, channels, height, width = shape
    flat = batch, channels, 1, height * width
    x, y = (Buffer.of(n, dtype, _packed_shape(flat, tile)) for n, tile in (("X", source), ("Y", target)))
    if target == _ROW_MAJOR:
        unpack = _Packed("", flat, source)
        return Proc(name, (x, y), (unpack.guarded(Store(y, (*unpack.logical, Const(0), Const(0)), x[unpack.index])),))
    if source == _ROW_MAJOR:
        pack = _Packed("", flat, target)
        return Proc(name, (x, y), (pack.nest(Store(y, pack.index, pack.selected(x[(*pack.logical, 0, 0)]))),))
    logical = Buffer.of("L", dtype, flat, Scope.LOCAL)
    unpack, pack = _Packed("from.", flat, source), _Packed("to.", flat, target)
    body: Body = (
        unpack.guarded(Store(logical, unpack.logical, Load(x, unpack.index))),
        pack.nest(Store(y, pack.index, pack.selected(Load(logical, pack.logical)))),
    )
    return Proc(name, (x, y), (Alloc(logical, body),))


def unfold(
    name: str,
    shape: Shape4,
    source: Tile,
    target: Tile,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    origin: tuple[int, int],
    size: tuple[int, int],
    dtype: DType = DType.INT8,
    value: int = 0,
) -> Proc:
    """X [N,C,H,W] packed by `source` to Y [N, KH*KW*C, *size] packed by `target`: windows of X as channels.

    Outside of X is `value`, in channels that fill up a tile zero.

    The element of Y at channel ``(i*KW + j)*C + c`` and pixel (u, v) is that of X at channel c, row
    ``u*stride[0] - origin[0] + i`` and column ``v*stride[1] - origin[1] + j``.
    """
    batch, channels, height, width = shape
    unfolded = batch, kernel[0] * kernel[1] * channels, *size
    x = Buffer.of("X", dtype, _packed_shape(shape, source))
    y = Buffer.of("Y", dtype, _packed_shape(unfolded, target))
    blank = _Packed("blank.", unfolded, target)
    i, j, c, b, u, v = (Var(axis) for axis in ("i", "j", "c", "b", "u", "v"))
    row, column = u * stride[0] + i - origin[0], v * stride[1] + j - origin[1]
    channel = (i * kernel[1] + j) * channels + c
    read = x[b // source[0], c // source[1], row, column, b % source[0], c % source[1]]
    inside = both(le(0, row), lt(row, height), le(0, column), lt(column, width))
    place = b // target[0], channel // target[1], u, v, b % target[0], channel % target[1]
    loops = [("i", kernel[0]), ("j", kernel[1]), ("c", channels), ("b", batch), ("u", size[0]), ("v", size[1])]
    copy = nest(loops, Store(y, place, Select(inside, read, Const(value, dtype))))
    return Proc(name, (x, y), (blank.nest(Store(y, blank.index, Const(0, dtype))), copy))


def pack_nibbles(name: str, elements: int) -> Proc:
    """X int8 [elements] of values -8 to 7 to Y, two to a byte, the first in the low half; `elements` is even."""
    x, y = Buffer.of("X", DType.INT8, (elements,)), Buffer.of("Y", DType.INT8, (elements // 2,))
    low, high = (cast(DType.INT32, Load(x, (Var("i") * 2 + k,))) for k in range(2))
    store = Store(y, (Var("i"),), cast(DType.INT8, low % 16 + high * 16))
    return Proc(name, (x, y), (nest([("i", elements // 2)], store),))


def unpack_nibbles(name: str, elements: int) -> Proc:
    """The inverse of `pack_nibbles`."""
    x, y = Buffer.of("X", DType.INT8, (elements // 2,)), Buffer.of("Y", DType.INT8, (elements,))
    byte = x[(Var("i"),)]
    stores = [Store(y, (Var("i") * 2 + k,), value >> 4) for k, value in enumerate((byte * 16, byte))]
    return Proc(name, (x, y), (nest([("i", elements // 2)], *stores),))


def copy(name: str, elements: int, dtype: DType) -> Proc:
    """X to Y, the same elements in the same order: a reshape."""
    x, y = Buffer.of("X", dtype, (elements,)), Buffer.of("Y", dtype, (elements,))
    return Proc(name, (x, y), (nest([("i", elements)], Store(y, (Var("i"),), x[(Var("i"),)])),))


def convert(name: str, elements: int, source: DType, target: DType) -> Proc:
    """X to Y, the same elements as another type."""
    x, y = Buffer.of("X", source, (elements,)), Buffer.of("Y", target, (elements,))
    store = Store(y, (Var("i"),), converted(x[(Var("i"),)], target))
    return Proc(name, (x, y), (nest([("i", elements)], store),))


def clip(name: str, elements: int, low: float | None, high: float | None, inputs: int = 1) -> Proc:
    """Float X0, or X0 + X1, limited to low..high, to Y, all of one shape; None does not limit."""
    index = (Var("i"),)
    xs = [Buffer.of(f"X{k}", DType.FLOAT32, (elements,)) for k in range(inputs)]
    value: Expr = xs[0][index]
    for x in xs[1:]:
        value = value + x[index]
    if low is not None:
        value = maximum(value, _f32(low))
    if high is not None:
        value = minimum(value, _f32(high))
    y = Buffer.of("Y", DType.FLOAT32, (elements,))
    return Proc(name, (*xs, y), (nest([("i", elements)], Store(y, index, value)),))


def softmax(name: str, outer: int, length: int, inner: int, exp: ExpConstants) -> Proc:
    """X to Y, float32 [outer, length, inner], normalised along `length`; each rounding is as the graph op defines."""
    x, y = (Buffer.of(n, DType.FLOAT32, (outer, length, inner)) for n in "XY")
    largest, total = (Buffer.of(n, DType.FLOAT32, (1,), Scope.LOCAL) for n in ("largest", "total"))
    powers = Buffer.of("powers", DType.FLOAT32, (length,), Scope.LOCAL)
    o, i, zero = Var("o"), Var("i"), (Const(0),)
    at = [(o, Var(f"k{step}"), i) for step in range(3)]
    steps: Body = (
        Store(largest, zero, x[o, 0, i]),
        nest([("k0", length)], Store(largest, zero, maximum(Load(largest, zero), Load(x, at[0])))),
        Store(total, zero, _f32(0.0)),
        nest([("k1", length)], *_exp(Load(x, at[1]) - Load(largest, zero), powers, Var("k1"), exp, total)),
        nest(
            [("k2", length)],
            Store(y, at[2], Binary(BinaryOp.DIV, Load(powers, (Var("k2"),)), Load(total, zero))),
        ),
    )
    scratch: Body = steps
    for buffer in (powers, total, largest):
        scratch = (Alloc(buffer, scratch),)
    return Proc(name, (x, y), (nest([("o", outer), ("i", inner)], *scratch),))


def _exp(argument: Expr, powers: Buffer, k: Expr, exp: ExpConstants, total: Buffer) -> Sequence[Stmt]:
    """``powers[k] = exp32(argument); total += powers[k]``"""
    t, n, r, p = (Buffer.of(name, DType.FLOAT32, (1,), Scope.LOCAL) for name in ("t", "n", "r", "p"))
    zero = (Const(0),)
    at = {buffer.name: Load(buffer, zero) for buffer in (t, n, r, p)}
    exponent = (cast(DType.INT32, at["n"]) + exp.exponent_bias) * (1 << exp.mantissa_bits)
    body: list[Stmt] = [
        Store(t, zero, maximum(argument, _f32(exp.least))),
        Store(n, zero, Unary(UnaryOp.RINT, at["t"] * _f32(exp.log2_e))),
        Store(r, zero, (at["t"] - at["n"] * _f32(exp.ln2_high)) - at["n"] * _f32(exp.ln2_low)),
        Store(p, zero, _f32(exp.coefficients[-1])),
        *(Store(p, zero, at["p"] * at["r"] + _f32(c)) for c in exp.coefficients[-2::-1]),
        Store(powers, (k,), at["p"] * Unary(UnaryOp.BITCAST, exponent)),
        Store(total, zero, Load(total, zero) + Load(powers, (k,))),
    ]
    scratch: Body = tuple(body)
    for buffer in (p, r, n, t):
        scratch = (Alloc(buffer, scratch),)
    return scratch
