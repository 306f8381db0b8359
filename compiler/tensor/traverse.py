"""Walking and rewriting of tensor IR: the only places that know what every node contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

from compiler.tensor.ir import (
    Alloc,
    Binary,
    Body,
    Buffer,
    Cast,
    Compare,
    Const,
    Expr,
    Fma,
    For,
    If,
    Load,
    Mapped,
    Prefetch,
    Select,
    Stmt,
    Store,
    Unary,
    Var,
    binary,
    cast,
)

_CHILDREN: dict[type[Expr], Callable[[Any], tuple[Expr, ...]]] = {
    Unary: lambda expr: (expr.a,),
    Cast: lambda expr: (expr.a,),
    Binary: attrgetter("a", "b"),
    Compare: attrgetter("a", "b"),
    Select: attrgetter("cond", "a", "b"),
    Fma: attrgetter("a", "b", "c"),
    Load: attrgetter("index"),
}
"""The operands of expressions that have some; in a table, because nothing is asked of expressions more often."""


def children(expr: Expr) -> tuple[Expr, ...]:
    of = _CHILDREN.get(type(expr))
    return () if of is None else of(expr)


def walk_expr(expr: Expr) -> Iterator[Expr]:
    """`expr` and all below it, parents first."""
    waiting = [expr]
    while waiting:
        node = waiting.pop()
        yield node
        if (of := _CHILDREN.get(type(node))) is not None:
            waiting += reversed(of(node))


def stmt_body(stmt: Stmt) -> Body:
    # Nothing is asked more often: one look instead of a question for each kind of statement.
    body: Body = getattr(stmt, "body", ())
    return body


def with_body(stmt: For | If | Alloc | Mapped, body: Body) -> Stmt:
    """The statement around another body."""
    match stmt:
        case For():  # the most frequent; `replace` takes several times as long
            return For(stmt.var, stmt.extent, body, stmt.kind)
        case _:
            return replace(stmt, body=body)


def stmt_exprs(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions of the statement itself, not of its body."""
    match stmt:
        case Store():
            return (*stmt.index, stmt.value)
        case Prefetch():
            return stmt.index
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
    waiting = [*reversed(body)]
    while waiting:
        stmt = waiting.pop()
        yield stmt
        waiting += reversed(stmt_body(stmt))


def map_expr(expr: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite top-down: where `f` gives an expression it replaces the node whole; None descends.

    What does not change is the same object afterwards.
    """
    if (new := f(expr)) is not None:
        return new
    match expr:
        case Var() | Const():
            return expr
        case Binary():
            a, b = map_expr(expr.a, f), map_expr(expr.b, f)
            return expr if a is expr.a and b is expr.b else binary(expr.op, a, b)
        case Load():
            index = _map_all(expr.index, f)
            return expr if index is expr.index else Load(expr.buffer, index)
        case Cast():
            a = map_expr(expr.a, f)
            return expr if a is expr.a else cast(expr.type, a)
        case Compare():
            a, b = map_expr(expr.a, f), map_expr(expr.b, f)
            return expr if a is expr.a and b is expr.b else Compare(expr.op, a, b)
        case Select():
            cond, a, b = map_expr(expr.cond, f), map_expr(expr.a, f), map_expr(expr.b, f)
            return expr if cond is expr.cond and a is expr.a and b is expr.b else Select(cond, a, b)
        case Unary():
            a = map_expr(expr.a, f)
            return expr if a is expr.a else Unary(expr.op, a)
        case Fma():
            a, b, c = map_expr(expr.a, f), map_expr(expr.b, f), map_expr(expr.c, f)
            return expr if a is expr.a and b is expr.b and c is expr.c else Fma(a, b, c)
        case _:
            return expr


def _map_all(old: tuple[Expr, ...], f: Callable[[Expr], Expr | None]) -> tuple[Expr, ...]:
    """Every expression rewritten; the same tuple if none changes."""
    parts = tuple([map_expr(expr, f) for expr in old])
    return old if all(part is expr for part, expr in zip(parts, old, strict=True)) else parts


def map_body(
    body: Body, f: Callable[[Expr], Expr | None] | None, g: Callable[[Stmt], Body | None] = lambda _: None
) -> Body:
    """Rewrite top-down: where `g` gives statements they replace the statement whole; expressions go by `f`, if any.

    What does not change is the same object afterwards.
    """
    out: list[Stmt] = []
    for stmt in body:
        if (new := g(stmt)) is not None:
            out.extend(new)
            continue
        out.append(_map_stmt(stmt, f, g))
    same = len(out) == len(body) and all(new is old for new, old in zip(out, body, strict=True))
    return body if same else tuple(out)


def _map_stmt(stmt: Stmt, f: Callable[[Expr], Expr | None] | None, g: Callable[[Stmt], Body | None]) -> Stmt:
    match stmt:
        case Store():
            if f is None:
                return stmt
            index, value = _map_all(stmt.index, f), map_expr(stmt.value, f)
            return stmt if index is stmt.index and value is stmt.value else Store(stmt.buffer, index, value)
        case Prefetch():
            index = stmt.index if f is None else _map_all(stmt.index, f)
            return stmt if index is stmt.index else Prefetch(stmt.buffer, index)
        case For():
            extent = stmt.extent if f is None else map_expr(stmt.extent, f)
            inner = map_body(stmt.body, f, g)
            same = extent is stmt.extent and inner is stmt.body
            return stmt if same else For(stmt.var, extent, inner, stmt.kind)
        case If():
            cond = stmt.cond if f is None else map_expr(stmt.cond, f)
            inner = map_body(stmt.body, f, g)
            return stmt if cond is stmt.cond and inner is stmt.body else If(cond, inner)
        case Alloc():
            shape = stmt.buffer.shape if f is None else _map_all(stmt.buffer.shape, f)
            inner = map_body(stmt.body, f, g)
            if shape is stmt.buffer.shape:
                return stmt if inner is stmt.body else with_body(stmt, inner)
            return replace(stmt, buffer=replace(stmt.buffer, shape=shape), body=inner)
        case Mapped():
            inner = map_body(stmt.body, f, g)
            return stmt if inner is stmt.body else Mapped(stmt.instruction, inner)
        case _:
            raise TypeError(f"Statement must be one of the IR's, not {stmt!r}")


def substitute(body: Body, values: dict[str, Expr]) -> Body:
    """Replace loop variables by expressions, in buffer shapes of loads and stores too."""

    def replace_var(expr: Expr) -> Expr | None:
        return values.get(expr.name) if isinstance(expr, Var) else None

    new = map_body(body, replace_var)
    shapes = {stmt.buffer.name: stmt.buffer for stmt in walk(body) if isinstance(stmt, Alloc)}
    moved = any(stmt.buffer is not shapes[stmt.buffer.name] for stmt in walk(new) if isinstance(stmt, Alloc))
    return rebind(new) if moved else new


def rebind(body: Body, buffers: dict[str, Buffer] | None = None) -> Body:
    """Make every load and store refer to the buffer object its `Alloc` (or `buffers`) declares."""
    known = dict(buffers or {})
    for stmt in walk(body):
        if isinstance(stmt, Alloc):
            known[stmt.buffer.name] = stmt.buffer

    def load(expr: Expr) -> Expr | None:
        if isinstance(expr, Load) and known.get(expr.buffer.name, expr.buffer) is not expr.buffer:
            return Load(known[expr.buffer.name], _map_all(expr.index, load))
        return None

    def store(stmt: Stmt) -> Body | None:
        if isinstance(stmt, Prefetch) and known.get(stmt.buffer.name, stmt.buffer) is not stmt.buffer:
            return (Prefetch(known[stmt.buffer.name], _map_all(stmt.index, load)),)
        if isinstance(stmt, Store) and known.get(stmt.buffer.name, stmt.buffer) is not stmt.buffer:
            return (Store(known[stmt.buffer.name], _map_all(stmt.index, load), map_expr(stmt.value, load)),)
        return None

    return map_body(body, load, store)
