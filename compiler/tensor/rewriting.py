"""What the rewrites of loops and of buffers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from compiler.tensor.affine import affine, simplify
from compiler.tensor.ir import (
    Alloc,
    Body,
    Buffer,
    Cast,
    Compare,
    DType,
    Expr,
    For,
    If,
    Load,
    Mapped,
    Prefetch,
    Stmt,
    Store,
)
from compiler.tensor.traverse import map_body, map_expr, walk_expr, with_body


def replace_loop(body: Body, loop: str, new: Callable[[For], Body]) -> Body:
    """`body` with the statements of `new` for the one loop of that name; all else is shared, not copied."""
    for place, stmt in enumerate(body):
        if isinstance(stmt, For) and stmt.var.name == loop:
            return (*body[:place], *new(stmt), *body[place + 1 :])
        if isinstance(stmt, For | If | Alloc | Mapped):
            inner = replace_loop(stmt.body, loop, new)
            if inner is not stmt.body:
                return (*body[:place], with_body(stmt, inner), *body[place + 1 :])
    return body


def _reads_data(expr: Expr) -> bool:
    return any(isinstance(node, Load | Cast) for node in walk_expr(expr))


def simplified(body: Body) -> Body:
    """Bring indices, extents and conditions to canonical form."""

    def canonical(expr: Expr) -> Expr | None:
        if isinstance(expr, Load):
            return Load(expr.buffer, tuple(simplify(i) for i in expr.index))
        # Data wraps, unlike indices, and is left as it is.
        if isinstance(expr, Compare) and expr.a.dtype is DType.INT64 and not _reads_data(expr):
            return Compare(expr.op, simplify(expr.a), simplify(expr.b))
        return None

    def statement(stmt: Stmt) -> Body | None:
        match stmt:
            case Store():
                index = tuple(simplify(i) for i in stmt.index)
                return (Store(stmt.buffer, index, map_expr(stmt.value, canonical)),)
            case Prefetch():
                return (Prefetch(stmt.buffer, tuple(simplify(i) for i in stmt.index)),)
            case For():
                return (replace(stmt, extent=simplify(stmt.extent), body=simplified(stmt.body)),)
            case _:
                return None

    return map_body(body, canonical, statement)


def redirect(body: Body, old: str, new: Buffer, origins: Sequence[Expr]) -> Body:
    """Redirect accesses from `old` to `new`, whose element 0 is the element `origins` of `old`."""

    def shift(index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple((affine(i) - affine(origin)).expr for i, origin in zip(index, origins, strict=True))

    def load(expr: Expr) -> Expr | None:
        if isinstance(expr, Load) and expr.buffer.name == old:
            return Load(new, shift(expr.index))
        return None

    def store(stmt: Stmt) -> Body | None:
        if isinstance(stmt, Store) and stmt.buffer.name == old:
            return (Store(new, shift(stmt.index), map_expr(stmt.value, load)),)
        if isinstance(stmt, Prefetch) and stmt.buffer.name == old:
            return (Prefetch(new, shift(stmt.index)),)
        return None

    return map_body(body, load, store)
