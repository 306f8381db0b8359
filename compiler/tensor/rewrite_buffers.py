"""The rewrites behind the schedule primitives on buffers: pure functions on procedures, with their legality checks."""

from __future__ import annotations

from dataclasses import replace

from compiler.tensor.affine import simplify
from compiler.tensor.analysis import accesses, padded_read, separated
from compiler.tensor.ir import (
    Alloc,
    Body,
    Buffer,
    Cast,
    Compare,
    Const,
    DType,
    Expr,
    Load,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    Var,
    both,
    cast,
    constant,
    nest,
)
from compiler.tensor.legality import (
    Box,
    IllegalRewrite,
    Padding,
    alloc_of,
    box_of,
    check_new_buffer,
    check_new_loops,
    loops_around,
    may_leave,
    padding_of,
    range_of,
    site_of,
)
from compiler.tensor.rewriting import redirect, replace_loop
from compiler.tensor.traverse import map_body, rebind


def set_scope(proc: Proc, buffer: str, scope: Scope) -> Proc:
    alloc_of(proc, buffer)

    def at(stmt: Stmt) -> Body | None:
        if isinstance(stmt, Alloc) and stmt.buffer.name == buffer:
            buffer_there = replace(stmt.buffer, scope=scope)
            return (replace(stmt, buffer=buffer_there, body=map_body(stmt.body, None, at)),)
        return None

    return proc.with_body(rebind(map_body(proc.body, None, at)))


def rotate(proc: Proc, buffer: str, copies: int) -> Proc:
    alloc_of(proc, buffer)
    if copies < 1:
        raise IllegalRewrite(f"copies of {buffer!r} must be at least 1, not {copies}")

    def at(stmt: Stmt) -> Body | None:
        if isinstance(stmt, Alloc) and stmt.buffer.name == buffer:
            return (replace(stmt, copies=copies),)
        return None

    return proc.with_body(map_body(proc.body, None, at))


def narrow(proc: Proc, buffer: str, loop: str) -> Proc:
    alloc = alloc_of(proc, buffer)
    site = site_of(proc, loop)
    inside = list(accesses(site.loop.body))
    touched = [access for access in inside if access.buffer.name == buffer]
    everywhere = [access for access in accesses(alloc.body) if access.buffer.name == buffer]
    if not touched or len(touched) != len(everywhere):
        raise IllegalRewrite(f"buffer {buffer!r} must be used inside loop {loop!r}, and only there")
    allocated_at = {r.name for r in loops_around(proc, buffer)}
    outer = (*site.outer, range_of(site.loop))
    for crossed in outer:
        if (
            crossed.name not in allocated_at
            and crossed.extent != Const(1)
            and not separated(touched, crossed.name, outer)
        ):
            raise IllegalRewrite(f"iterations of loop {crossed.name!r} must not share elements of {buffer!r}")
    box = box_of(touched, outer, [False] * len(alloc.buffer.shape))
    small = replace(alloc.buffer, shape=tuple(size for _, size in box))
    body = redirect(site.loop.body, buffer, small, [origin for origin, _ in box])

    def drop(stmt: Stmt) -> Body | None:
        return stmt.body if stmt is alloc else None

    without = map_body(proc.body, None, drop)
    return proc.with_body(replace_loop(without, loop, lambda stmt: (replace(stmt, body=_live_range(body, small)),)))


def stage(proc: Proc, buffer: str, loop: str | None, scope: Scope, name: str, dtype: DType | None) -> Proc:
    site = site_of(proc, loop) if loop is not None else None
    body = site.loop.body if site else proc.body
    outer = (*site.outer, range_of(site.loop)) if site else ()
    touched = [access for access in accesses(body) if access.buffer.name == buffer]
    if not touched or any(access.write for access in touched):
        raise IllegalRewrite(f"buffer {buffer!r} must be read and not written in {loop or proc.name!r}")
    source, padding, fill = padding_of(body, buffer)
    rank = len(source.shape)
    check_new_buffer(proc, name)
    check_new_loops(proc, *(f"{name}.{axis}" for axis in range(rank)))
    leaving = [may_leave(touched, axis, outer, padding) for axis in range(rank)]
    if padding and any(leaving):
        raise IllegalRewrite(f"padded reads of {buffer!r} must compare every index that may leave it")
    box = box_of(touched, outer, leaving)
    limits = _limits_of_copy(source, fill if padding else None) if dtype in (None, source.type) else None
    staged = Buffer(name, dtype or source.type, tuple(size for _, size in box), scope, limits)
    copy = _copy(source, staged, box, padding, fill)
    reading = redirect(_unpadded(body, buffer, dtype), buffer, staged, [origin for origin, _ in box])
    new_body = _live_range(reading, staged, (copy,))
    if site is None:
        return proc.with_body(new_body)
    return proc.with_body(replace_loop(proc.body, site.loop.var.name, lambda stmt: (replace(stmt, body=new_body),)))


def _copy(source: Buffer, staged: Buffer, box: Box, padding: Padding, fill: Const) -> Stmt:
    """``staged = source`` in `box`, with `fill` where the conditions of `padding` do not hold."""
    axes = [Var(f"{staged.name}.{axis}") for axis in range(len(box))]
    at = tuple(simplify(origin + axis) for (origin, _), axis in zip(box, axes, strict=True))
    value: Expr = Load(source, at)
    if padding:
        conditions = [
            Compare(c.op, _rebase(c.a, at[axis]), _rebase(c.b, at[axis])) for axis, cs in padding.items() for c in cs
        ]
        value = Select(both(*conditions), value, fill)
    store = Store(staged, tuple(axes), cast(staged.type, value))
    loops = [(axis.name, size) for axis, (_, size) in zip(axes, box, strict=True)]
    return nest(loops, store) if loops else store


def _limits_of_copy(source: Buffer, fill: Const | None) -> tuple[int, int] | None:
    """Of what `source` holds, and what stands in the padding."""
    if source.limits is None or fill is None:
        return source.limits
    return min(source.limits[0], constant(fill)), max(source.limits[1], constant(fill))


def _live_range(body: Body, buffer: Buffer, before: Body = ()) -> Body:
    """Allocate `buffer` around the statements of `body` from its first use to its last, and run `before` just ahead."""
    used = [k for k, stmt in enumerate(body) if any(access.buffer.name == buffer.name for access in accesses((stmt,)))]
    first, last = used[0], used[-1] + 1
    only = body[first]
    if last - first == 1 and isinstance(only, Alloc):
        return (*body[:first], replace(only, body=_live_range(only.body, buffer, before)), *body[last:])
    return (*body[:first], Alloc(buffer, (*before, *body[first:last])), *body[last:])


def _rebase(expr: Expr, index: Expr) -> Expr:
    return expr if isinstance(expr, Const) else index


def _unpadded(body: Body, buffer: str, dtype: DType | None) -> Body:
    """Drop the padding of reads, and the cast to `dtype` around them, which the copy takes over."""

    def visit(expr: Expr) -> Expr | None:
        inner = expr.a if dtype is not None and isinstance(expr, Cast) and expr.type is dtype else expr
        read = padded_read(inner)
        load = read.load if read is not None else inner
        if not (isinstance(load, Load) and load.buffer.name == buffer):
            return None
        if dtype is not None and load.dtype is not dtype and inner is expr:
            raise IllegalRewrite(f"every read of {buffer!r} must be cast to {dtype.value}")
        return load

    return map_body(body, visit)
