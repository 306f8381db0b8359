"""Intervals of index and integer expressions: lowest and highest value over all executions.

Sound for wrapping arithmetic: where a result might leave the range of its type, the whole range of the type is given.
"""

from __future__ import annotations

from collections.abc import Mapping

from compiler.tensor.ir import Binary, BinaryOp, Cast, Compare, CompareOp, Const, DType, Expr, Select, Var, constant

Interval = tuple[int, int]


def type_interval(dtype: DType) -> Interval:
    """All values of an integer type; of a float, what a cast to the widest integer can give."""
    return DType.INT64.limits if dtype.is_float else dtype.limits


def interval(expr: Expr, variables: Mapping[str, Interval]) -> Interval:
    """Values of an integer or boolean `expr` for loop variables within `variables`; unknown ones may have any value."""
    full = type_interval(expr.dtype)
    match expr:
        case Var():
            return variables.get(expr.name, full)
        case Const() if isinstance(expr.value, int):
            low = high = constant(expr)
        case Binary() if expr.dtype.is_integer:
            known = _binary(expr.op, interval(expr.a, variables), interval(expr.b, variables))
            if known is None:
                return full
            low, high = known
        case Compare() if not expr.a.dtype.is_float:
            low, high = _compared(expr.op, interval(expr.a, variables), interval(expr.b, variables))
        case Binary(BinaryOp.AND):
            (a0, a1), (b0, b1) = interval(expr.a, variables), interval(expr.b, variables)
            low, high = min(a0, b0), min(a1, b1)
        case Select():
            (a0, a1), (b0, b1) = interval(expr.a, variables), interval(expr.b, variables)
            low, high = min(a0, b0), max(a1, b1)
        case Cast() if not expr.type.is_float and not expr.a.dtype.is_float:
            low, high = interval(expr.a, variables)
        case _:
            return full
    return (low, high) if full[0] <= low and high <= full[1] else full


def _compared(op: CompareOp, a: Interval, b: Interval) -> Interval:
    """(0, 1) where both may be, else what the comparison is."""
    (a0, a1), (b0, b1) = a, b
    match op:
        case CompareOp.LT:
            return int(a1 < b0), int(a0 < b1)
        case CompareOp.LE:
            return int(a1 <= b0), int(a0 <= b1)
        case CompareOp.EQ:
            return int(a0 == a1 == b0 == b1), int(a0 <= b1 and b0 <= a1)


def _binary(op: BinaryOp, a: Interval, b: Interval) -> Interval | None:
    (a0, a1), (b0, b1) = a, b
    match op:
        case BinaryOp.ADD:
            return a0 + b0, a1 + b1
        case BinaryOp.SUB:
            return a0 - b1, a1 - b0
        case BinaryOp.MUL:
            corners = (a0 * b0, a0 * b1, a1 * b0, a1 * b1)
            return min(corners), max(corners)
        case BinaryOp.MIN:
            return min(a0, b0), min(a1, b1)
        case BinaryOp.MAX:
            return max(a0, b0), max(a1, b1)
        case BinaryOp.FLOORDIV if b0 > 0:
            return min(a0 // b0, a0 // b1), max(a1 // b0, a1 // b1)
        case BinaryOp.MOD if b0 > 0:
            inside = b0 == b1 and a0 // b0 == a1 // b0
            return (a0 % b0, a1 % b0) if inside else (0, b1 - 1)
        case BinaryOp.SHR if b0 >= 0 and b1 < 64:
            return min(a0 >> b0, a0 >> b1), max(a1 >> b0, a1 >> b1)
        case _:
            return None


def loop_interval(extent: Expr, variables: Mapping[str, Interval]) -> Interval:
    """Values of the variable of a loop with `extent`, if it runs at all (else the upper bound is below the lower)."""
    return 0, interval(extent, variables)[1] - 1
