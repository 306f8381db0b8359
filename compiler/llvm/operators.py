"""Operators of the tensor IR as LLVM instructions, on scalars and on vectors alike.

The meaning is that of `compiler.tensor.interp`; divisors are positive, which `compiler.tensor.verify` has proven.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.llvm.emitter import Emitter, Value, literal, llvm_type, mangled
from compiler.tensor.ir import BinaryOp, CompareOp, Const, DType, Kind, UnaryOp
from compiler.tensor.ir import binary as fold

_INTEGER = {BinaryOp.ADD: "add", BinaryOp.SUB: "sub", BinaryOp.MUL: "mul", BinaryOp.SHL: "shl"}
_INSTRUCTION = {
    Kind.BOOL: {BinaryOp.AND: "and", BinaryOp.OR: "or"},
    Kind.SIGNED: {**_INTEGER, BinaryOp.SHR: "ashr"},
    Kind.UNSIGNED: {**_INTEGER, BinaryOp.SHR: "lshr"},
    Kind.FLOAT: {BinaryOp.ADD: "fadd", BinaryOp.SUB: "fsub", BinaryOp.MUL: "fmul", BinaryOp.DIV: "fdiv"},
}
_INTRINSIC = {
    Kind.SIGNED: {BinaryOp.MIN: "smin", BinaryOp.MAX: "smax"},
    Kind.UNSIGNED: {BinaryOp.MIN: "umin", BinaryOp.MAX: "umax"},
}
_FLOAT_CHOICE = {BinaryOp.MIN: "olt", BinaryOp.MAX: "ogt"}
_PREDICATE = {
    Kind.BOOL: {CompareOp.EQ: "icmp eq"},
    Kind.SIGNED: {CompareOp.LT: "icmp slt", CompareOp.LE: "icmp sle", CompareOp.EQ: "icmp eq"},
    Kind.UNSIGNED: {CompareOp.LT: "icmp ult", CompareOp.LE: "icmp ule", CompareOp.EQ: "icmp eq"},
    Kind.FLOAT: {CompareOp.LT: "fcmp olt", CompareOp.LE: "fcmp ole", CompareOp.EQ: "fcmp oeq"},
}


def splat(e: Emitter, a: Value, lanes: int) -> Value:
    """`a` in every lane, if it is not a vector already."""
    if a.lanes == lanes:
        return a
    if a.is_literal:
        return Value(f"splat ({a.typed})", a.dtype, lanes)
    type = llvm_type(a.dtype, lanes)
    first = e.value(a.dtype, lanes, f"insertelement {type} poison, {a.typed}, i64 0")
    return e.value(a.dtype, lanes, f"shufflevector {type} {first.text}, {type} poison, <{lanes} x i32> zeroinitializer")


def unify(e: Emitter, *values: Value) -> list[Value]:
    """Scalars next to a vector become vectors."""
    lanes = max(value.lanes for value in values)
    return [splat(e, value, lanes) for value in values]


def binary(e: Emitter, op: BinaryOp, a: Value, b: Value) -> Value:
    if a.dtype is DType.INT64 and a.is_scalar_literal and b.is_scalar_literal:
        folded = fold(op, Const(int(a.text)), Const(int(b.text)))
        if isinstance(folded, Const):
            return literal(DType.INT64, folded.value)
    if op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
        return _divide(e, op, a, b)
    a, b = unify(e, a, b)
    dtype, lanes = a.dtype, a.lanes
    if dtype.is_integer and op in _INTRINSIC[dtype.kind]:
        return e.call(dtype, lanes, f"{_INTRINSIC[dtype.kind][op]}.{mangled(dtype, lanes)}", a.argument, b.argument)
    if dtype.is_float and op in _FLOAT_CHOICE:
        return select(e, e.value(DType.BOOL, lanes, f"fcmp {_FLOAT_CHOICE[op]} {a.typed}, {b.text}"), a, b)
    return e.value(dtype, lanes, f"{_INSTRUCTION[dtype.kind][op]} {a.typed}, {b.text}")


def _divide(e: Emitter, op: BinaryOp, a: Value, b: Value) -> Value:
    """Quotient rounded down or its remainder, for a positive divisor."""
    dtype = a.dtype
    if b.is_literal and b.lanes == 1 and (divisor := int(b.text)) & (divisor - 1) == 0:
        if op is BinaryOp.MOD:
            a, mask = unify(e, a, literal(dtype, divisor - 1))
            return e.value(dtype, a.lanes, f"and {a.typed}, {mask.text}")
        return binary(e, BinaryOp.SHR, a, literal(dtype, divisor.bit_length() - 1))
    a, b, zero = unify(e, a, b, literal(dtype, 0))
    if dtype.kind is Kind.UNSIGNED:
        return e.value(dtype, a.lanes, f"{'urem' if op is BinaryOp.MOD else 'udiv'} {a.typed}, {b.text}")
    remainder = e.value(dtype, a.lanes, f"srem {a.typed}, {b.text}")
    negative = e.value(DType.BOOL, a.lanes, f"icmp slt {remainder.typed}, {zero.text}")
    if op is BinaryOp.MOD:
        correction = select(e, negative, b, zero)
        return e.value(dtype, a.lanes, f"add {remainder.typed}, {correction.text}")
    quotient = e.value(dtype, a.lanes, f"sdiv {a.typed}, {b.text}")
    minus_one = e.value(dtype, a.lanes, f"sext {negative.typed} to {a.type}")
    return e.value(dtype, a.lanes, f"add {quotient.typed}, {minus_one.text}")


def fma(e: Emitter, *operands: Value) -> Value:
    a, b, c = unify(e, *operands)
    return e.call(a.dtype, a.lanes, f"fma.{mangled(a.dtype, a.lanes)}", a.argument, b.argument, c.argument)


def compare(e: Emitter, op: CompareOp, a: Value, b: Value) -> Value:
    a, b = unify(e, a, b)
    return e.value(DType.BOOL, a.lanes, f"{_PREDICATE[a.dtype.kind][op]} {a.typed}, {b.text}")


def select(e: Emitter, cond: Value, a: Value, b: Value) -> Value:
    """Both operands are evaluated; a scalar condition chooses whole vectors."""
    lanes = max(cond.lanes, a.lanes, b.lanes)
    a, b = splat(e, a, lanes), splat(e, b, lanes)
    return e.value(a.dtype, lanes, f"select {cond.typed}, {a.typed}, {b.typed}")


def chosen(e: Emitter, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """Lanes of two vectors of one width, those of the second behind those of the first; any for one below zero."""
    mask = ", ".join(f"i32 {lane}" if lane >= 0 else "i32 poison" for lane in lanes)
    return e.value(a.dtype, len(lanes), f"shufflevector {a.typed}, {b.typed}, <{len(lanes)} x i32> <{mask}>")


def joined(e: Emitter, parts: Sequence[Value]) -> Value:
    """Vectors of one width, a power of two of them, behind each other."""
    parts = list(parts)
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [chosen(e, a, b, range(2 * a.lanes)) for a, b in pairs]
    return parts[0]


def unary(e: Emitter, op: UnaryOp, a: Value) -> Value:
    if op is UnaryOp.BITCAST:
        return e.value(DType.FLOAT32, a.lanes, f"bitcast {a.typed} to {llvm_type(DType.FLOAT32, a.lanes)}")
    if op is UnaryOp.BITS:
        return e.value(DType.INT32, a.lanes, f"bitcast {a.typed} to {llvm_type(DType.INT32, a.lanes)}")
    intrinsic = "sqrt" if op is UnaryOp.SQRT else "roundeven"
    return e.call(DType.FLOAT32, a.lanes, f"{intrinsic}.{mangled(DType.FLOAT32, a.lanes)}", a.argument)


def conjunction(e: Emitter, a: Value | None, b: Value) -> Value:
    return b if a is None else binary(e, BinaryOp.AND, a, b)


def negation(e: Emitter, a: Value) -> Value:
    a, true = unify(e, a, literal(DType.BOOL, True))
    return e.value(DType.BOOL, a.lanes, f"xor {a.typed}, {true.text}")


def any_lane(e: Emitter, mask: Value) -> Value:
    """Whether `mask`, a scalar or a vector, holds anywhere."""
    if mask.lanes == 1:
        return mask
    return e.call(DType.BOOL, 1, f"vector.reduce.or.{mangled(DType.BOOL, mask.lanes)}", mask.argument)
