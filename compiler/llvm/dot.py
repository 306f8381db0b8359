"""Products of neighbouring bytes that processors sum in one instruction, found in a schedule's loops.

A loop over the lanes of int32 sums, `VECTORIZED`, around one over the `NEIGHBOURS` bytes of each lane, `UNROLLED`::

    for c: for i: A[..., c] = A[..., c] + int32(X[..., i]) * int32(W[..., c, i])

All lanes read the same bytes of X. What processors have for it differs in the bytes that X may hold; what has nothing
for them computes the same in several steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.llvm import operators
from compiler.llvm.conversions import cast
from compiler.llvm.emitter import Emitter, Value, literal
from compiler.llvm.lanes import element_step
from compiler.llvm.target import Target
from compiler.tensor.ir import Binary, BinaryOp, Cast, Const, DType, For, Load, LoopKind, Store, constant

NEIGHBOURS = 4
_LANES = (4, 8, 16)
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class DotProduct:
    """`sums` of `lanes` int32 += the products of the `shared` bytes and each lane's own `weights`."""

    lane: str
    byte: str
    lanes: int
    sums: Load
    shared: Load
    weights: Load

    @property
    def limits(self) -> tuple[int, int]:
        """What the shared bytes are within."""
        return self.shared.buffer.limits or self.shared.dtype.limits


def dot_product(loop: For) -> DotProduct | None:
    """What two loops compute, if it is that."""
    match loop:
        case For(
            kind=LoopKind.VECTORIZED,
            extent=Const(),
            body=(For(kind=LoopKind.UNROLLED, extent=Const(value=4), body=(Store() as store,)) as inner,),
        ):
            pass
        case _:
            return None
    sums = Load(store.buffer, store.index)
    match store.value:
        case Binary(
            BinaryOp.ADD,
            Load() as before,
            Binary(BinaryOp.MUL, Cast(DType.INT32, Load() as shared), Cast(DType.INT32, Load() as weights)),
        ) if before == sums:
            pass
        case _:
            return None
    lane, byte = loop.var.name, inner.var.name
    steps = {
        "sums": (_step(sums, lane), _step(sums, byte)),
        "shared": (_step(shared, lane), _step(shared, byte)),
        "weights": (_step(weights, lane), _step(weights, byte)),
    }
    fits = steps == {"sums": (1, 0), "shared": (0, 1), "weights": (NEIGHBOURS, 1)}
    bytes_ = shared.dtype in (DType.INT8, DType.UINT8) and weights.dtype is DType.INT8
    lanes = constant(loop.extent)
    if not fits or not bytes_ or sums.dtype is not DType.INT32 or lanes not in _LANES:
        return None
    return DotProduct(lane=lane, byte=byte, lanes=lanes, sums=sums, shared=shared, weights=weights)


def _step(load: Load, var: str) -> int | None:
    return element_step(load.buffer, load.index, var, _NONE, 1)


def add_products(e: Emitter, dot: DotProduct, sums: Value, shared: Value, weights: Value, target: Target) -> Value:
    """The sums with the products added. shared: int32 of four bytes; weights: int8 of `NEIGHBOURS` for each sum."""
    low, high = dot.limits
    step: Callable[[Emitter, Value, Value, Value], Value]
    if low >= 0 and target.has("avx512vnni") and dot.lanes % 16 == 0:
        step, width = _vnni("512"), 16
    elif low >= 0 and (target.has("avxvnni") or (target.has("avx512vnni") and target.has("avx512vl"))):
        step, width = _vnni("256"), 8
    elif low >= 0 and high <= _MOST_EXACT and target.has("avx2"):
        step, width = _saturating_pairs, 8
    elif target.has("avx2"):
        step, width = _pairs(dot.shared.dtype), 8
    elif dot.shared.dtype is DType.INT8 and target.has("dotprod"):
        step, width = _neon("sdot"), 4
    elif low >= 0 and target.has("i8mm"):
        step, width = _neon("usdot"), 4
    else:
        return _one_by_one(e, dot, sums, shared, weights)
    if dot.lanes % width:
        return _one_by_one(e, dot, sums, shared, weights)
    each = _as_bytes(e, operators.splat(e, shared, width))
    parts = []
    for first in range(0, dot.lanes, width):
        part = _lanes(e, sums, range(first, first + width))
        parts.append(step(e, part, each, _lanes(e, weights, range(first * NEIGHBOURS, (first + width) * NEIGHBOURS))))
    return operators.joined(e, parts)


_MOST_EXACT = 127
"""Of the shared bytes, so that two products with weights of at least -128 fit 16 bits."""


def _vnni(bits: str) -> Callable[[Emitter, Value, Value, Value], Value]:
    def step(e: Emitter, sums: Value, shared: Value, weights: Value) -> Value:
        operands = (each.argument for each in (sums, shared, weights))
        return e.call(DType.INT32, sums.lanes, f"x86.avx512.vpdpbusd.{bits}", *operands)

    return step


def _neon(name: str) -> Callable[[Emitter, Value, Value, Value], Value]:
    def step(e: Emitter, sums: Value, shared: Value, weights: Value) -> Value:
        operands = (each.argument for each in (sums, shared, weights))
        return e.call(DType.INT32, sums.lanes, f"aarch64.neon.{name}.v4i32.v16i8", *operands)

    return step


def _saturating_pairs(e: Emitter, sums: Value, shared: Value, weights: Value) -> Value:
    """By way of sums of two products in 16 bits, which nothing must leave."""
    pairs = e.call(DType.INT16, 16, "x86.avx2.pmadd.ub.sw", shared.argument, weights.argument)
    ones = operators.splat(e, literal(DType.INT16, 1), 16)
    fours = e.call(DType.INT32, 8, "x86.avx2.pmadd.wd", pairs.argument, ones.argument)
    return operators.binary(e, BinaryOp.ADD, sums, fours)


def _pairs(dtype: DType) -> Callable[[Emitter, Value, Value, Value], Value]:
    """By way of products of 16 bits, of the even bytes and of the odd ones, of which two are summed in 32."""

    def step(e: Emitter, sums: Value, shared: Value, weights: Value) -> Value:
        for x, w in zip(_halves(e, shared, dtype), _halves(e, weights, DType.INT8), strict=True):
            twos = e.call(DType.INT32, sums.lanes, "x86.avx2.pmadd.wd", x.argument, w.argument)
            sums = operators.binary(e, BinaryOp.ADD, sums, twos)
        return sums

    return step


def _halves(e: Emitter, a: Value, dtype: DType) -> tuple[Value, Value]:
    """The even bytes, and the odd ones, as numbers of 16 bits where each pair was."""
    lanes = a.lanes // 2
    wide = DType.INT16 if dtype is DType.INT8 else DType.UINT16
    pairs = e.value(wide, lanes, f"bitcast {a.typed} to <{lanes} x i16>")
    eight = literal(wide, 8)
    even = operators.binary(e, BinaryOp.SHR, operators.binary(e, BinaryOp.SHL, pairs, eight), eight)
    return even, operators.binary(e, BinaryOp.SHR, pairs, eight)


def _one_by_one(e: Emitter, dot: DotProduct, sums: Value, shared: Value, weights: Value) -> Value:
    each = _as_bytes(e, shared)
    for k in range(NEIGHBOURS):
        byte = e.value(dot.shared.dtype, 1, f"extractelement {each.typed}, i64 {k}")
        x = operators.splat(e, cast(e, DType.INT32, byte), dot.lanes)
        w = cast(e, DType.INT32, _lanes(e, weights, range(k, NEIGHBOURS * dot.lanes, NEIGHBOURS)))
        sums = operators.binary(e, BinaryOp.ADD, sums, operators.binary(e, BinaryOp.MUL, x, w))
    return sums


def _as_bytes(e: Emitter, a: Value) -> Value:
    lanes = a.lanes * NEIGHBOURS
    return e.value(DType.INT8, lanes, f"bitcast {a.typed} to <{lanes} x i8>")


def _lanes(e: Emitter, a: Value, lanes: Sequence[int]) -> Value:
    """Some of the lanes of a vector."""
    if list(lanes) == list(range(a.lanes)):
        return a
    return operators.chosen(e, a, a, lanes)
