"""The arithmetic of the engine as LLVM vector code: products of tiles, and element-wise operations on tiles.

numba's own vectoriser does not find these forms. A dot product of 16-bit pairs, written as sign extension, multiply,
and addition of even and odd lanes, is one instruction on x86 (vpmaddwd, or vpdpwssd with the addition) and a short
sequence elsewhere. Sums wrap modulo 2**32, as the accumulator does (VTA spec 3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils

from vta_hw.spec.isa import AluOp
from vta_sim._jit import intrinsic

VECTOR_LANES: Final = 16
"""int32 scalars of one ALU vector; accumulator tiles are padded to a multiple of it."""

_I16: Final = ir.IntType(16)
_I32: Final = ir.IntType(32)
_I64: Final = ir.IntType(64)


def _element(context: Any, builder: Any, signature: Any, args: Any, which: int, index: Any) -> Any:
    """Pointer to element `index` of the array argument number `which`."""
    array = cgutils.create_struct_proxy(signature.args[which])(context, builder, args[which])
    return builder.gep(array.data, [index])


def _load(builder: Any, pointer: Any, vector: Any) -> Any:
    """Load a vector from an address that is aligned to its scalars only."""
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=vector.element.width // 8)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    vector = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _pair_products(builder: Any, inputs: Any, weights: Any, lanes: int) -> Any:
    """Multiply two <2 * lanes x i16> vectors and add neighbours: <lanes x i32>."""
    wide = ir.VectorType(_I32, 2 * lanes)
    index = ir.VectorType(_I32, lanes)
    # 2**15 * 2**15 fits int32; the sum of two such products may wrap, and must.
    products = builder.mul(builder.sext(inputs, wide), builder.sext(weights, wide), flags=["nsw"])
    undefined = ir.Constant(wide, ir.Undefined)
    even = builder.shuffle_vector(products, undefined, ir.Constant(index, list(range(0, 2 * lanes, 2))))
    odd = builder.shuffle_vector(products, undefined, ir.Constant(index, list(range(1, 2 * lanes, 2))))
    return builder.add(even, odd)


def _dot(builder: Any, source: Any, weights: list[Any], lanes: int) -> Any:
    """Sum of products of the input pairs at `source` with the weight vectors, as a tree to keep the chain short."""
    pairs = ir.VectorType(_I16, 2 * lanes)
    sums = []
    for number, weight in enumerate(weights):
        pair = builder.gep(source, [_I64(2 * number)])
        scalar = builder.load(builder.bitcast(pair, _I32.as_pointer()), align=2)
        sums.append(_pair_products(builder, builder.bitcast(_splat(builder, scalar, lanes), pairs), weight, lanes))
    while len(sums) > 1:
        sums = [builder.add(left, right) for left, right in zip(sums[::2], sums[1::2], strict=True)]
    return sums[0]


def make_panel(lanes: int, pairs: int) -> Callable[..., None]:
    """Return a compiled loop nest over tiles that share one weight block.

    The function takes acc (int32 [*]), inp and wgt (int16 [*]), the index of the first scalar in each, and three
    loops, outermost first, as (trips, step of the acc index, step of the inp index). For each trip it adds to `lanes`
    accumulators the dot products of 2 * `pairs` inputs with the block, stored as [pairs][lanes][2]. The weights stay
    in registers throughout. `pairs` must be a power of two.
    """

    @intrinsic
    def panel(
        typing_context: Any, acc: Any, inp: Any, wgt: Any, a: Any, i: Any, w: Any,
        n2: Any, a2: Any, i2: Any, n1: Any, a1: Any, i1: Any, n0: Any, a0: Any, i0: Any,
    ) -> Any:  # fmt: skip
        del typing_context, a, i, w, n2, a2, i2, n1, a1, i1, n0, a0, i0

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            accumulators, inputs, block = (
                _element(context, builder, signature, args, which, args[3 + which]) for which in range(3)
            )
            vector = ir.VectorType(_I16, 2 * lanes)
            offsets = [_I64(number * 2 * lanes) for number in range(pairs)]
            weights = [_load(builder, builder.gep(block, [offset]), vector) for offset in offsets]

            def nest(loops: Any, target: Any, source: Any) -> None:
                if not loops:
                    old = _load(builder, target, ir.VectorType(_I32, lanes))
                    new = builder.add(old, _dot(builder, source, weights, lanes))
                    builder.store(new, builder.bitcast(target, new.type.as_pointer()), align=4)
                    return
                trips, acc_step, inp_step = loops[:3]
                with cgutils.for_range(builder, trips) as loop:
                    next_target = builder.gep(target, [builder.mul(loop.index, acc_step)])
                    nest(loops[3:], next_target, builder.gep(source, [builder.mul(loop.index, inp_step)]))

            nest(args[6:], accumulators, inputs)
            return context.get_dummy_value()

        return types.void(acc, inp, wgt, *[types.int64] * 12), generate

    return panel


def _residues(builder: Any, vectors: list[Any]) -> list[Any]:
    """Split the sequence that lies in n vectors into its n residue classes modulo n, n being a power of two."""
    if len(vectors) == 1:
        return vectors
    lanes = vectors[0].type.count
    index = ir.VectorType(_I32, lanes)
    halves = []
    for first in (0, 1):
        chosen = ir.Constant(index, list(range(first, 2 * lanes, 2)))
        joined = zip(vectors[::2], vectors[1::2], strict=True)
        halves.append(_residues(builder, [builder.shuffle_vector(a, b, chosen) for a, b in joined]))
    return [vector for even_and_odd in zip(*halves, strict=True) for vector in even_and_odd]


def make_transpose(lanes: int) -> Callable[..., None]:
    """Return a compiled transposition of one block of `lanes` rows and `lanes` / 2 columns.

    The function takes an int32 array, the index of the block's first element and the step from row to row, and the
    array and index where the columns go, one after the other. `lanes` must be a power of two.
    """

    @intrinsic
    def transpose(typing_context: Any, source: Any, s: Any, step: Any, target: Any, t: Any) -> Any:
        del typing_context, s, step, t

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            begin = _element(context, builder, signature, args, 0, args[1])
            row = ir.VectorType(_I32, lanes // 2)
            offsets = [builder.mul(args[2], _I64(number)) for number in range(lanes)]
            rows = [_load(builder, builder.gep(begin, [offset]), row) for offset in offsets]
            both = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
            joined = [builder.shuffle_vector(a, b, both) for a, b in zip(rows[::2], rows[1::2], strict=True)]
            end = _element(context, builder, signature, args, 3, args[4])
            for number, column in enumerate(_residues(builder, joined)):
                pointer = builder.gep(end, [_I64(number * lanes)])
                builder.store(column, builder.bitcast(pointer, column.type.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(source, types.int64, types.int64, target, types.int64), generate

    return transpose


def _shift(builder: Any, x: Any, y: Any) -> Any:
    """VTA spec 11.4: y >= 0 shifts right arithmetically by y[4:0], y < 0 shifts left by (-y)[4:0]."""
    low_bits = ir.Constant(y.type, [31] * y.type.count)
    zero = ir.Constant(y.type, [0] * y.type.count)
    right = builder.ashr(x, builder.and_(y, low_bits))
    left = builder.shl(x, builder.and_(builder.sub(zero, y), low_bits))
    return builder.select(builder.icmp_signed("<", y, zero), left, right)


def _operate(builder: Any, operation: AluOp, x: Any, y: Any) -> Any:
    match operation:
        case AluOp.MIN:
            return builder.select(builder.icmp_signed("<", x, y), x, y)
        case AluOp.MAX:
            return builder.select(builder.icmp_signed(">", x, y), x, y)
        case AluOp.ADD:
            return builder.add(x, y)
        case AluOp.SHR:
            return _shift(builder, x, y)
        case AluOp.MUL:
            return builder.mul(x, y)
        case AluOp.REQUANT:
            raise ValueError("REQUANT must be made by make_requantise: it has two operands besides x")


def make_elementwise(operation: AluOp) -> Callable[..., None]:
    """Return a compiled loop over tiles: acc[d] = operation(acc[d], acc[s]), one tile after the other.

    The function takes acc (int32 [*]), the indices d and s of the first scalars, the number of tiles, the steps of d
    and s from tile to tile, and the vectors of a tile. A tile is read after the tile before it was written.
    """

    @intrinsic
    def elementwise(
        typing_context: Any, acc: Any, d: Any, s: Any, tiles: Any, d_step: Any, s_step: Any, vectors: Any
    ) -> Any:
        del typing_context, d, s, tiles, d_step, s_step, vectors

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = _element(context, builder, signature, args, 0, args[1])
            source = _element(context, builder, signature, args, 0, args[2])
            vector = ir.VectorType(_I32, VECTOR_LANES)
            with cgutils.for_range(builder, args[3]) as tile:
                row = builder.gep(target, [builder.mul(tile.index, args[4])])
                other = builder.gep(source, [builder.mul(tile.index, args[5])])
                with cgutils.for_range(builder, args[6]) as part:
                    offset = builder.mul(part.index, _I64(VECTOR_LANES))
                    pointer = builder.gep(row, [offset])
                    y = _load(builder, builder.gep(other, [offset]), vector)
                    result = _operate(builder, operation, _load(builder, pointer, vector), y)
                    builder.store(result, builder.bitcast(pointer, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(acc, *[types.int64] * 6), generate

    return elementwise


def _rounded_product(builder: Any, x: Any, parameters: Any) -> Any:
    """Decision 0006: x times parameters[23:0], over 2 ** parameters[29:24], to nearest, halves away from zero."""

    def splat(value: int) -> Any:
        return ir.Constant(wide, [value] * x.type.count)

    wide = ir.VectorType(_I64, x.type.count)
    word = builder.zext(parameters, wide)
    shift = builder.and_(builder.lshr(word, splat(24)), splat(63))
    # |product| is at most 2**31 * (2**24 - 1), half of the divisor at most 2**62: the sum fits int64.
    product = builder.mul(builder.sext(x, wide), builder.and_(word, splat((1 << 24) - 1)))
    negative = builder.icmp_signed("<", product, splat(0))
    magnitude = builder.select(negative, builder.neg(product), product)
    half = builder.lshr(builder.shl(splat(1), shift), splat(1))
    rounded = builder.lshr(builder.add(magnitude, half), shift)
    return builder.select(negative, builder.neg(rounded), rounded)


def make_requantise() -> Callable[..., None]:
    """Return a compiled loop over one tile: acc[d] = clip(zero + round((acc[d] + acc[b]) * scale of acc[q])).

    The function takes acc (int32 [*]), the indices d, b and q of the first scalars, the vectors of a tile, and the
    zero point, the lowest and the highest result.
    """

    @intrinsic
    def requantise(
        typing_context: Any, acc: Any, d: Any, b: Any, q: Any, vectors: Any, zero_point: Any, low: Any, high: Any
    ) -> Any:
        del typing_context, d, b, q, vectors, zero_point, low, high

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            tiles = [_element(context, builder, signature, args, 0, args[which]) for which in (1, 2, 3)]
            vector = ir.VectorType(_I32, VECTOR_LANES)
            zero, lowest, highest = (_splat(builder, args[which], VECTOR_LANES) for which in (5, 6, 7))
            with cgutils.for_range(builder, args[4]) as part:
                offset = builder.mul(part.index, _I64(VECTOR_LANES))
                pointers = [builder.gep(tile, [offset]) for tile in tiles]
                x, bias, parameters = (_load(builder, pointer, vector) for pointer in pointers)
                result = builder.add(_rounded_product(builder, builder.add(x, bias), parameters), zero)
                result = builder.select(builder.icmp_signed("<", result, lowest), lowest, result)
                result = builder.select(builder.icmp_signed(">", result, highest), highest, result)
                result = builder.trunc(result, vector)
                builder.store(result, builder.bitcast(pointers[0], vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(acc, *[types.int64] * 7), generate

    return requantise
