"""The text of procedures."""

from __future__ import annotations

import pytest

from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    If,
    LoopKind,
    Mapped,
    Prefetch,
    Proc,
    Scope,
    Select,
    Store,
    Unary,
    UnaryOp,
    Var,
    cast,
    lt,
    maximum,
    minimum,
)
from compiler.tensor.printer import format_expr, format_proc

GOLDEN = """\
proc relu(x: int8[4, 16], y: int8[4, 16]):
  for i in 4 parallel:
    alloc row: int32[min(16, 20 - i)] acc:
      for j in min(16, 20 - i) vectorized:
        row[j] = max(int32(x[i, j]), 0i32)
      mapped store:
        for k in 16:
          if k < 8 and not_more(k):
            prefetch x[min(i + 1, 3), k]
            y[i, k] = int8(row[k])
"""


def test_a_procedure() -> None:
    x, y = (Buffer.of(name, DType.INT8, (4, 16)) for name in "xy")
    i, j, k = Var("i"), Var("j"), Var("k")
    width = minimum(Const(16), Const(20) - i)
    row = Buffer("row", DType.INT32, (width,), Scope.ACC)
    fill = Store(row, (j,), maximum(cast(DType.INT32, x[i, j]), 0))
    copied = (Prefetch(x, (minimum(i + 1, 3), k)), Store(y, (i, k), cast(DType.INT8, row[k,])))
    copy = If(Binary(BinaryOp.AND, lt(k, 8), lt(k, 9)), copied)
    body = (For(j, width, (fill,), LoopKind.VECTORIZED), Mapped("store", (For(k, Const(16), (copy,)),)))
    proc = Proc("relu", (x, y), (For(i, Const(4), (Alloc(row, body),), LoopKind.PARALLEL),))
    assert format_proc(proc) == GOLDEN.replace("not_more(k)", "k < 9")


A, B, C = Var("a"), Var("b"), Var("c")


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ((A + B) * C, "(a + b) * c"),
        (A + B * C, "a + b * c"),
        (A - (B - C), "a - (b - c)"),
        (A - B - C, "a - b - c"),
        ((A + B) >> C, "a + b >> c"),
        (A + (B >> C), "a + (b >> c)"),
        (A // B % C, "a // b % c"),
        (A // (B % C), "a // (b % c)"),
        (Select(lt(A, B), A, Select(lt(B, C), B, C)), "a if a < b else b if b < c else c"),
        (Select(lt(A, B), A, B) + C, "(a if a < b else b) + c"),
        (Binary(BinaryOp.AND, Binary(BinaryOp.OR, lt(A, B), lt(B, C)), lt(A, C)), "(a < b or b < c) and a < c"),
        (Compare(CompareOp.EQ, lt(A, B), lt(B, C)), "(a < b) == (b < c)"),
        (Unary(UnaryOp.RINT, Const(0.5, DType.FLOAT32)), "rint(0.5f32)"),
        (Unary(UnaryOp.BITCAST, cast(DType.INT32, A)), "bitcast(int32(a))"),
        (Const(True, DType.BOOL), "true"),
        (Const(-3, DType.INT8), "-3i8"),
        (A * -3, "a * -3"),
    ],
)
def test_parentheses_stand_where_they_must(expr: Expr, text: str) -> None:
    assert format_expr(expr) == text
