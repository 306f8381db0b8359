"""Procedures as text, to read and to compare.

::

    proc relu(x: int8[4, 16], y: int8[4, 16]):
      for i in 4 parallel:
        alloc row: int32[16] local:
          for j in 16 vectorized:
            row[j] = max(int32(x[i, j]), 0i32)
          for k in 16:
            if k < 8:
              y[i, k] = int8(row[k])

Constants of the index type are bare, others carry their type: ``1i8``, ``0.5f32``, ``true``. ``int8(...)`` is a cast.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Cast,
    Compare,
    Const,
    DType,
    Expr,
    Fma,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Prefetch,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
)

_SUFFIX = {dtype: f"{dtype.kind.value}{dtype.bits}" for dtype in DType} | {DType.INT64: ""}

# Python's precedence, so that the text means what it seems to.
_PRECEDENCE = {
    BinaryOp.OR: 1,
    BinaryOp.AND: 2,
    BinaryOp.SHL: 4,
    BinaryOp.SHR: 4,
    BinaryOp.ADD: 5,
    BinaryOp.SUB: 5,
    BinaryOp.MUL: 6,
    BinaryOp.DIV: 6,
    BinaryOp.FLOORDIV: 6,
    BinaryOp.MOD: 6,
}
_COMPARISON = 3


def format_proc(proc: Proc) -> str:
    """The whole procedure, one statement a line, ending in a newline."""
    params = ", ".join(_buffer(buffer) for buffer in proc.params)
    lines = [f"proc {proc.name}({params}):", *_body(proc.body, "  ")]
    return "\n".join(lines) + "\n"


def format_stmt(stmt: Stmt) -> str:
    """The first line of a statement, without what is inside it."""
    match stmt:
        case Store():
            return f"{stmt.buffer.name}[{_list(stmt.index)}] = {format_expr(stmt.value)}"
        case Prefetch():
            return f"prefetch {stmt.buffer.name}[{_list(stmt.index)}]"
        case For():
            kind = "" if stmt.kind is LoopKind.SERIAL else f" {stmt.kind.value}"
            return f"for {stmt.var.name} in {format_expr(stmt.extent)}{kind}:"
        case If():
            return f"if {format_expr(stmt.cond)}:"
        case Alloc():
            copies = "" if stmt.copies == 1 else f" {stmt.copies} copies"
            return f"alloc {_buffer(stmt.buffer)}{copies}:"
        case Mapped():
            return f"mapped {stmt.instruction}:"
        case _:
            return repr(stmt)


def format_expr(expr: Expr) -> str:
    """One expression, with no more parentheses than its meaning needs."""
    return _expr(expr, 0)


def _body(body: Body, indent: str) -> Iterator[str]:
    for stmt in body:
        yield indent + format_stmt(stmt)
        if isinstance(stmt, For | If | Alloc | Mapped):
            yield from _body(stmt.body, indent + "  ")


def _buffer(buffer: Buffer) -> str:
    scope = "" if buffer.scope is Scope.DRAM else f" {buffer.scope.value}"
    limits = "" if buffer.limits is None else f" in {buffer.limits[0]}..{buffer.limits[1]}"
    return f"{buffer.name}: {buffer.type.value}[{_list(buffer.shape)}]{scope}{limits}"


def _list(exprs: tuple[Expr, ...]) -> str:
    return ", ".join(format_expr(expr) for expr in exprs)


def _const(const: Const) -> str:
    if const.type is DType.BOOL:
        return "true" if const.value else "false"
    return f"{const.value}{_SUFFIX[const.type]}"


def _expr(expr: Expr, outer: int) -> str:
    """`expr` as an operand of an operator with precedence `outer`."""
    match expr:
        case Var():
            return expr.name
        case Const():
            return _const(expr)
        case Unary():
            return f"{expr.op.value}({format_expr(expr.a)})"
        case Cast():
            return f"{expr.type.value}({format_expr(expr.a)})"
        case Fma():
            return f"fma({_list((expr.a, expr.b, expr.c))})"
        case Load():
            return f"{expr.buffer.name}[{_list(expr.index)}]"
        case Binary(BinaryOp.MIN | BinaryOp.MAX):
            return f"{expr.op.value}({format_expr(expr.a)}, {format_expr(expr.b)})"
        case Binary():
            inner = _PRECEDENCE[expr.op]
            text = f"{_expr(expr.a, inner)} {expr.op.value} {_expr(expr.b, inner + 1)}"
        case Compare():
            inner = _COMPARISON
            text = f"{_expr(expr.a, inner + 1)} {expr.op.value} {_expr(expr.b, inner + 1)}"
        case Select():
            inner = 0
            text = f"{_expr(expr.a, 1)} if {_expr(expr.cond, 1)} else {_expr(expr.b, 0)}"
        case _:
            return repr(expr)
    return f"({text})" if inner < outer else text
