"""Casts of the tensor IR as LLVM instructions, on scalars and on vectors alike.

Those between float16 and float32 are integer arithmetic on the bits, for not every processor has instructions for them.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.llvm.emitter import Emitter, Value, literal, llvm_type, mangled
from compiler.llvm.operators import binary, compare, select, unary
from compiler.tensor.ir import BinaryOp, CompareOp, DType, Kind, UnaryOp

_FROM_FLOAT = {Kind.SIGNED: "fptosi.sat", Kind.UNSIGNED: "fptoui.sat"}
_TO_FLOAT = {Kind.BOOL: "uitofp", Kind.SIGNED: "sitofp", Kind.UNSIGNED: "uitofp"}
_EXTEND = {Kind.BOOL: "zext", Kind.SIGNED: "sext", Kind.UNSIGNED: "zext", Kind.FLOAT: "fpext"}

_EXTRA = 13
"""Bits that the mantissa of a float32 has more than that of a float16."""
_REBIAS = (127 - 15) << 23
"""Between the exponents of the two, in the bits of a float32."""
_INFINITY_16, _INFINITY_32 = 0x7C00, 0x7F800000
_NAN_16 = 0x7E00
_HALF = 126 << 23
_LEAST_NORMAL, _TOO_LARGE = (127 - 14) << 23, (127 + 16) << 23
"""Of float16, as bits of a float32."""


def cast(e: Emitter, dtype: DType, a: Value) -> Value:
    """`a` as `dtype`, which is not bool."""
    if a.dtype is dtype:
        return a
    if a.dtype is DType.FLOAT16:
        return _widened(e, a)
    if dtype is DType.FLOAT16:
        return _narrowed(e, a)
    if dtype.is_integer and dtype.bits == a.dtype.bits and a.dtype.is_integer:  # LLVM's integers have no sign
        return replace(a, dtype=dtype)
    if dtype.is_integer and a.dtype.is_float:
        suffix = f"{mangled(dtype, a.lanes)}.{mangled(a.dtype, a.lanes)}"
        return e.call(dtype, a.lanes, f"{_FROM_FLOAT[dtype.kind]}.{suffix}", a.argument)
    if dtype.is_float and not a.dtype.is_float:
        instruction = _TO_FLOAT[a.dtype.kind]
    elif dtype.bits > a.dtype.bits:
        instruction = _EXTEND[a.dtype.kind]
    else:
        instruction = "fptrunc" if dtype.is_float else "trunc"
    return e.value(dtype, a.lanes, f"{instruction} {a.typed} to {llvm_type(dtype, a.lanes)}")


def cast_clipped(e: Emitter, dtype: DType, a: Value) -> Value:
    """A float that is within a type of up to 32 bits, as that: one instruction of most processors, where `cast` has to
    see what leaves it."""
    wide = DType.INT32 if dtype.kind is Kind.SIGNED or dtype.bits < DType.INT32.bits else DType.UINT32
    instruction = "fptosi" if wide is DType.INT32 else "fptoui"
    whole = e.value(wide, a.lanes, f"{instruction} {a.typed} to {llvm_type(wide, a.lanes)}")
    return cast(e, dtype, whole)


def _number(value: int) -> Value:
    return literal(DType.UINT32, value)


def _widened(e: Emitter, a: Value) -> Value:
    """float16 to float32, exactly."""
    bits = cast(e, DType.UINT32, replace(a, dtype=DType.UINT16))
    sign = binary(e, BinaryOp.SHL, binary(e, BinaryOp.SHR, bits, _number(15)), _number(31))
    size = binary(e, BinaryOp.SHL, binary(e, BinaryOp.MOD, bits, _number(1 << 15)), _number(_EXTRA))
    # A product with a power of two, for it makes normal numbers of those that are not.
    scaled = binary(e, BinaryOp.MUL, unary(e, UnaryOp.BITCAST, size), literal(DType.FLOAT32, 2.0**112))
    finite = compare(e, CompareOp.LT, size, _number(_INFINITY_16 << _EXTRA))
    whole = cast(e, DType.UINT32, unary(e, UnaryOp.BITS, scaled))
    special = binary(e, BinaryOp.ADD, size, _number(2 * _REBIAS))
    result = binary(e, BinaryOp.ADD, select(e, finite, whole, special), sign)
    return unary(e, UnaryOp.BITCAST, result)


def _narrowed(e: Emitter, a: Value) -> Value:
    """float32 to float16, to the nearest, ties to even."""
    bits = cast(e, DType.UINT32, unary(e, UnaryOp.BITS, a))
    sign = binary(e, BinaryOp.SHL, binary(e, BinaryOp.SHR, bits, _number(31)), _number(15))
    size = binary(e, BinaryOp.MOD, bits, _number(1 << 31))
    odd = binary(e, BinaryOp.MOD, binary(e, BinaryOp.SHR, size, _number(_EXTRA)), _number(2))
    up = binary(e, BinaryOp.ADD, odd, _number((1 << (_EXTRA - 1)) - 1))
    rebiased = binary(e, BinaryOp.SUB, binary(e, BinaryOp.ADD, size, up), _number(_REBIAS))
    normal = binary(e, BinaryOp.SHR, rebiased, _number(_EXTRA))
    # The least float16 is a unit in the last place of 0.5.
    moved = binary(e, BinaryOp.ADD, unary(e, UnaryOp.BITCAST, size), literal(DType.FLOAT32, 0.5))
    small = binary(e, BinaryOp.SUB, cast(e, DType.UINT32, unary(e, UnaryOp.BITS, moved)), _number(_HALF))
    result = select(e, compare(e, CompareOp.LT, size, _number(_LEAST_NORMAL)), small, normal)
    special = select(e, compare(e, CompareOp.LE, size, _number(_INFINITY_32)), _number(_INFINITY_16), _number(_NAN_16))
    result = select(e, compare(e, CompareOp.LT, size, _number(_TOO_LARGE)), result, special)
    return replace(cast(e, DType.UINT16, binary(e, BinaryOp.ADD, result, sign)), dtype=DType.FLOAT16)
