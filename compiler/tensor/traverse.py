"""Walking and rewriting of tensor IR: the only places that know what every node contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from compiler.tensor.ir import (
    Alloc,
    Binary,
    Body,
    Buffer,
    Cast,
    Compare,
    Expr,
    For,
    If,
    Load,
    Mapped,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    binary,
    cast,
)


def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Unary() | Cast():
            return (expr.a,)
        case Binary() | Compare():
            return (expr.a, expr.b)
        case Select():
            return (expr.cond, expr.a, expr.b)
        case Load():
            return expr.index
        case _:
            return ()


def walk_expr(expr: Expr) -> Iterator[Expr]:
    """`expr` and all below it, parents first."""
    yield expr
    for child in children(expr):
        yield from walk_expr(child)


def stmt_body(stmt: Stmt) -> Body:
    return stmt.body if isinstance(stmt, For | If | Alloc | Mapped) else ()


def stmt_exprs(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions of the statement itself, not of its body."""
    match stmt:
        case Store():
            return (*stmt.index, stmt.value)
        case For():
            return (stmt.extent,)
        case If():
            return (stmt.cond,)
        case Alloc():
            return stmt.buffer.shape
        case _:
            return ()


def walk(body: Body) -> Iterator[Stmt]:
    """All statements, parents first, in program order."""
    for stmt in body:
        yield stmt
        yield from walk(stmt_body(stmt))


def map_expr(expr: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite top-down: where `f` gives an expression it replaces the node whole; None descends."""
    if (new := f(expr)) is not None:
        return new
    old = children(expr)
    parts = tuple(map_expr(child, f) for child in old)
    if all(part is child for part, child in zip(parts, old, strict=True)):
        return expr
    match expr:
        case Unary():
            return Unary(expr.op, *parts)
        case Binary():
            return binary(expr.op, *parts)
        case Compare():
            return Compare(expr.op, *parts)
        case Select():
            return Select(*parts)
        case Cast():
            return cast(expr.type, *parts)
        case Load():
            return Load(expr.buffer, parts)
        case _:
            return expr


def map_body(body: Body, f: Callable[[Expr], Expr | None], g: Callable[[Stmt], Body | None] = lambda _: None) -> Body:
    """Rewrite top-down: where `g` gives statements they replace the statement whole; expressions go by `f`."""
    out: list[Stmt] = []
    for stmt in body:
        if (new := g(stmt)) is not None:
            out.extend(new)
            continue
        match stmt:
            case Store():
                index = tuple(map_expr(i, f) for i in stmt.index)
                out.append(Store(stmt.buffer, index, map_expr(stmt.value, f)))
            case For():
                out.append(replace(stmt, extent=map_expr(stmt.extent, f), body=map_body(stmt.body, f, g)))
            case If():
                out.append(If(map_expr(stmt.cond, f), map_body(stmt.body, f, g)))
            case Alloc():
                shape = tuple(map_expr(extent, f) for extent in stmt.buffer.shape)
                out.append(replace(stmt, buffer=replace(stmt.buffer, shape=shape), body=map_body(stmt.body, f, g)))
            case Mapped():
                out.append(Mapped(stmt.instruction, map_body(stmt.body, f, g)))
            case _:
                raise TypeError(f"Statement must be one of the IR's, not {stmt!r}")
    return tuple(out)


def substitute(body: Body, values: dict[str, Expr]) -> Body:
    """Replace loop variables by expressions, in buffer shapes of loads and stores too."""

    def replace_var(expr: Expr) -> Expr | None:
        return values.get(expr.name) if isinstance(expr, Var) else None

    return rebind(map_body(body, replace_var))


def rebind(body: Body, buffers: dict[str, Buffer] | None = None) -> Body:
    """Make every load and store refer to the buffer object its `Alloc` (or `buffers`) declares."""
    known = dict(buffers or {})
    for stmt in walk(body):
        if isinstance(stmt, Alloc):
            known[stmt.buffer.name] = stmt.buffer

    def load(expr: Expr) -> Expr | None:
        if isinstance(expr, Load):
            return Load(known.get(expr.buffer.name, expr.buffer), tuple(map_expr(i, load) for i in expr.index))
        return None

    def store(stmt: Stmt) -> Body | None:
        if isinstance(stmt, Store):
            index = tuple(map_expr(i, load) for i in stmt.index)
            return (Store(known.get(stmt.buffer.name, stmt.buffer), index, map_expr(stmt.value, load)),)
        return None

    return map_body(body, load, store)
