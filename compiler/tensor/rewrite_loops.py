"""The rewrites behind the schedule primitives on loops: pure functions on procedures, with their legality checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from compiler.tensor.affine import affine, simplify, variables
from compiler.tensor.analysis import Site, accesses, conflicts, innermost, separated
from compiler.tensor.interval import Interval, interval, loop_interval
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Const,
    Expr,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Prefetch,
    Proc,
    Select,
    Stmt,
    Store,
    Var,
    both,
    conjuncts,
    constant,
    minimum,
)
from compiler.tensor.legality import (
    IllegalRewrite,
    check_independent,
    check_new_buffer,
    check_new_loops,
    check_order,
    check_written_once,
    range_of,
    site_of,
    sites_of,
)
from compiler.tensor.printer import format_expr
from compiler.tensor.rewriting import redirect, replace_loop, simplified
from compiler.tensor.traverse import map_body, map_expr, rebind, substitute, walk, with_body
from compiler.tensor.unify import unify


def split(proc: Proc, loop: str, factor: int, outer: str, inner: str) -> Proc:
    site = site_of(proc, loop)
    if not isinstance(site.loop.extent, Const):
        raise IllegalRewrite(f"extent of loop {loop!r} must be constant, not {format_expr(site.loop.extent)}")
    if factor < 1:
        raise IllegalRewrite(f"factor must be at least 1, not {factor}")
    check_new_loops(proc, outer, inner)
    extent = constant(site.loop.extent)
    whole = extent % factor == 0
    origin = Var(outer) * factor
    inner_extent: Expr = Const(factor) if whole else minimum(Const(factor), simplify(Const(extent) - origin))

    def new(stmt: For) -> Body:
        body = simplified(substitute(stmt.body, {loop: origin + Var(inner)}))
        return (For(Var(outer), Const(-(-extent // factor)), (For(Var(inner), inner_extent, body),), stmt.kind),)

    return proc.with_body(replace_loop(proc.body, loop, new))


def cut(proc: Proc, loop: str, first: int, new: str) -> Proc:
    site = site_of(proc, loop)
    if not isinstance(site.loop.extent, Const):
        raise IllegalRewrite(f"extent of loop {loop!r} must be constant, not {format_expr(site.loop.extent)}")
    extent = constant(site.loop.extent)
    if not 0 < first < extent:
        raise IllegalRewrite(f"loop {loop!r} must be cut in 1..{extent - 1}, not at {first}")
    inside = [site.loop, *(stmt for stmt in walk(site.loop.body) if isinstance(stmt, For))]
    buffers = [stmt.buffer for stmt in walk(site.loop.body) if isinstance(stmt, Alloc)]
    check_new_loops(proc, *(one.var.name + new for one in inside))
    for buffer in buffers:
        check_new_buffer(proc, buffer.name + new)
    rest = _renamed((replace(site.loop, extent=Const(extent - first)),), new)
    (rest_loop,) = rest
    assert isinstance(rest_loop, For)
    moved = substitute(rest_loop.body, {rest_loop.var.name: rest_loop.var + first})
    halves = (replace(site.loop, extent=Const(first)), replace(rest_loop, body=moved))
    ranges = {r.name: loop_interval(r.extent, {}) for r in site.outer}
    return proc.with_body(replace_loop(proc.body, loop, lambda _: rebind(_within_ranges(halves, ranges))))


def _renamed(body: Body, suffix: str) -> Body:
    """A copy whose loops and allocated buffers have names of their own."""
    loops = {stmt.var.name: Var(stmt.var.name + suffix) for stmt in walk(body) if isinstance(stmt, For)}

    def at(stmt: Stmt) -> Body | None:
        match stmt:
            case For():
                return (replace(stmt, var=loops[stmt.var.name], body=map_body(stmt.body, None, at)),)
            case Alloc():
                buffer = replace(stmt.buffer, name=stmt.buffer.name + suffix)
                inner = redirect(stmt.body, stmt.buffer.name, buffer, [Const(0)] * len(buffer.shape))
                return (replace(stmt, buffer=buffer, body=map_body(inner, None, at)),)
            case _:
                return None

    return substitute(map_body(body, None, at), dict(loops))


def _within_ranges(body: Body, ranges: Mapping[str, Interval]) -> Body:
    """Extents and shapes that are the smaller of two, and conditions, where the loops around say which."""
    out: list[Stmt] = []
    for stmt in body:
        match stmt:
            case For():
                extent = _smaller(simplify(stmt.extent), ranges)
                inside = {**ranges, stmt.var.name: loop_interval(extent, ranges)}
                out.append(replace(stmt, extent=extent, body=_within_ranges(stmt.body, inside)))
            case Alloc():
                shape = tuple(_smaller(simplify(extent), ranges) for extent in stmt.buffer.shape)
                inner = _within_ranges(stmt.body, ranges)
                out.append(replace(stmt, buffer=replace(stmt.buffer, shape=shape), body=inner))
            case If():
                cond = _undecided(stmt.cond, ranges)
                if cond is not None:
                    out.append(If(cond, _within_ranges(stmt.body, ranges)))
                elif interval(stmt.cond, ranges) == _TRUE:
                    out += _within_ranges(stmt.body, ranges)
            case Mapped():
                out.append(with_body(stmt, _within_ranges(stmt.body, ranges)))
            case Store():
                out.append(Store(stmt.buffer, stmt.index, map_expr(stmt.value, partial(_chosen, ranges=ranges))))
            case _:
                out.append(stmt)
    return tuple(out)


_TRUE: Interval = (1, 1)
_FALSE: Interval = (0, 0)


def _chosen(expr: Expr, ranges: Mapping[str, Interval]) -> Expr | None:
    """A choice of which is known how it ends, or between conditions of which some are."""
    if not isinstance(expr, Select):
        return None
    cond = _undecided(expr.cond, ranges)
    if cond is None:
        side = expr.a if interval(expr.cond, ranges) == _TRUE else expr.b
        return map_expr(side, partial(_chosen, ranges=ranges))
    return None if cond is expr.cond else map_expr(Select(cond, expr.a, expr.b), partial(_chosen, ranges=ranges))


def _undecided(cond: Expr, ranges: Mapping[str, Interval]) -> Expr | None:
    """What is left of a conjunction without what always holds; None if that is nothing, or if it never holds."""
    if interval(cond, ranges) in (_TRUE, _FALSE):
        return None
    left = [each for each in conjuncts(cond) if interval(each, ranges) != _TRUE]
    return cond if len(left) == len(conjuncts(cond)) else both(*left)


def _smaller(expr: Expr, ranges: Mapping[str, Interval]) -> Expr:
    if not (isinstance(expr, Binary) and expr.op is BinaryOp.MIN):
        return expr
    (a0, a1), (b0, b1) = interval(expr.a, ranges), interval(expr.b, ranges)
    if a1 <= b0:
        return Const(a0) if a0 == a1 else expr.a
    if b1 <= a0:
        return Const(b0) if b0 == b1 else expr.b
    return expr


def _nest_below(site: Site, names: set[str]) -> tuple[list[For], Body]:
    """The loops of `names`, which must be directly nested from `site` on, and what is inside them."""
    loops, stmt = [site.loop], site.loop
    while len(loops) < len(names):
        (inner,) = stmt.body if len(stmt.body) == 1 else (None,)
        if not isinstance(inner, For) or inner.var.name not in names:
            missing = ", ".join(sorted(names - {loop.var.name for loop in loops}))
            raise IllegalRewrite(f"loops must form a perfect nest; {missing} do not directly follow {stmt.var.name}")
        loops.append(inner)
        stmt = inner
    return loops, stmt.body


def reorder(proc: Proc, *names: str) -> Proc:
    if len(set(names)) != len(names) or not names:
        raise IllegalRewrite(f"loops must be named once each, not {names!r}")
    sites = sites_of(proc, names)
    first = min(sites, key=lambda site: len(site.outer))
    loops, body = _nest_below(first, set(names))
    by_name = {loop.var.name: loop for loop in loops}
    for position, name in enumerate(names):
        if set(names[position + 1 :]) & variables(by_name[name].extent):
            raise IllegalRewrite(f"extent of loop {name!r} must not use a loop that moves inside it")
    check_order(first, loops, [by_name[name] for name in names], body)
    inner = body
    for name in reversed(names):
        inner = (replace(by_name[name], body=inner),)
    return proc.with_body(replace_loop(proc.body, first.loop.var.name, lambda _: inner))


def fuse(proc: Proc, outer: str, inner: str, fused: str) -> Proc:
    site = site_of(proc, outer)
    loops, body = _nest_below(site, {outer, inner})
    if [loop.var.name for loop in loops] != [outer, inner]:
        raise IllegalRewrite(f"loop {inner!r} must be directly inside {outer!r}")
    check_new_loops(proc, fused)
    if loops[0].kind is not loops[1].kind:
        raise IllegalRewrite(f"loops {outer!r} and {inner!r} must have one kind")
    if not all(isinstance(loop.extent, Const) and constant(loop.extent) > 0 for loop in loops):
        raise IllegalRewrite(f"extents of loops {outer!r} and {inner!r} must be constants of at least 1")
    extent = constant(loops[1].extent)
    count = constant(loops[0].extent) * extent
    values: dict[str, Expr] = {outer: Var(fused) // extent, inner: Var(fused) % extent}

    def new(stmt: For) -> Body:
        return (For(Var(fused), Const(count), substitute(body, values), stmt.kind),)

    return proc.with_body(replace_loop(proc.body, outer, new))


def merge(proc: Proc, first: str, *others: str) -> Proc:
    site, *following = sites_of(proc, (first, *others))
    bodies = list(site.loop.body)
    for other in following:
        if affine(site.loop.extent) != affine(other.loop.extent) or site.loop.kind is not other.loop.kind:
            raise IllegalRewrite(f"loops {first!r} and {other.loop.var.name!r} must have one extent and kind")
        bodies += substitute(other.loop.body, {other.loop.var.name: site.loop.var})
    outer = (*site.outer, range_of(site.loop))
    for buffer, touched in conflicts(accesses(tuple(bodies))).items():
        if site.loop.extent != Const(1) and not separated(touched, first, outer):
            names = " and ".join(repr(name) for name in (first, *others))
            raise IllegalRewrite(f"iterations of {names} must touch {buffer} apart from each other")
    merged = replace(site.loop, body=tuple(bodies))

    def rewrite(body: Body) -> Body:
        for place, stmt in enumerate(body):
            if stmt is site.loop:
                for expected, found in zip_longest(following, body[place + 1 : place + 1 + len(following)]):
                    if found is not expected.loop:
                        raise IllegalRewrite(f"loop {expected.loop.var.name!r} must directly follow {first!r}")
                return (*body[:place], merged, *body[place + 1 + len(following) :])
            if isinstance(stmt, For | If | Alloc | Mapped):
                inner = rewrite(stmt.body)
                if inner is not stmt.body:
                    return (*body[:place], with_body(stmt, inner), *body[place + 1 :])
        return body

    return proc.with_body(rewrite(proc.body))


def set_kind(proc: Proc, loop: str, kind: LoopKind) -> Proc:
    site = site_of(proc, loop)
    check_independent(site.loop.body, loop, kind, (*site.outer, range_of(site.loop)))
    if kind is LoopKind.UNROLLED and not isinstance(site.loop.extent, Const):
        raise IllegalRewrite(f"extent of unrolled loop {loop!r} must be constant")
    return proc.with_body(replace_loop(proc.body, loop, lambda stmt: (replace(stmt, kind=kind),)))


def prefetch(proc: Proc, buffer: str, ahead: str, at: str, line: int) -> Proc:
    site, inner = site_of(proc, ahead), site_of(proc, at)
    around = [loop.name for loop in inner.outer]
    if ahead not in around:
        raise IllegalRewrite(f"loop {at!r} must be inside loop {ahead!r}")
    if line < 1:
        raise IllegalRewrite(f"line must be at least 1 element, not {line}")
    reads = [access for access in accesses(inner.loop.body) if access.buffer.name == buffer and not access.write]
    if len({read.index for read in reads}) != 1:
        raise IllegalRewrite(f"buffer {buffer!r} must be read at one place in loop {at!r}")
    read = reads[0]
    used = set().union(*map(variables, read.index))
    if ahead not in used:
        raise IllegalRewrite(f"what is read of {buffer!r} must change with loop {ahead!r}")
    again = [loop for loop in (*inner.outer[around.index(ahead) + 1 :], range_of(inner.loop)) if loop.name not in used]
    dimension = {name: n for n, index in reversed(list(enumerate(read.index))) for name in variables(index)}
    parts = sorted((loop for loop in read.loops if loop.name in used), key=lambda loop: dimension[loop.name])
    extents = [loop.extent for loop in (range_of(site.loop), *again, *parts)]
    if not all(isinstance(extent, Const) and constant(extent) > 0 for extent in extents):
        raise IllegalRewrite(f"loops that read {buffer!r} must have constant extents of at least 1")
    if not all(isinstance(extent, Const) for extent in read.buffer.shape):
        raise IllegalRewrite(f"shape of buffer {buffer!r} must be constant")
    shape = read.buffer.static_shape
    apart = {loop.name: math.prod(shape[dimension[loop.name] + 1 :]) for loop in parts}
    steps = {name: max(1, line // elements) for name, elements in apart.items()}  # of iterations, to the next line
    sizes = [-(-constant(loop.extent) // steps[loop.name]) for loop in parts]
    lines, turns = math.prod(sizes), math.prod(constant(loop.extent) for loop in again)
    at_once = -(-lines // turns)
    turn: Expr = Const(0)
    for loop in again:
        turn = turn * constant(loop.extent) + Var(loop.name)
    number = f"{buffer}.ahead"
    check_new_loops(proc, number)
    left = minimum(turn * at_once + Var(number), lines - 1)
    values: dict[str, Expr] = {ahead: minimum(Var(ahead) + 1, constant(site.loop.extent) - 1)}
    for loop, size in zip(reversed(parts), reversed(sizes), strict=True):
        values[loop.name] = left % size * steps[loop.name] if size > 1 else Const(0)
        left = left // size if size > 1 else left
    hint: Body = (Prefetch(read.buffer, read.index),)
    hint = (For(Var(number), Const(at_once), substitute(hint, values), LoopKind.UNROLLED),)
    return proc.with_body(replace_loop(proc.body, at, lambda stmt: (replace(stmt, body=(*hint, *stmt.body)),)))


def split_fill(proc: Proc, loop: str, new: str) -> Proc:
    site = site_of(proc, loop)
    found = innermost(site.loop)
    if found is None or not isinstance(found[2].value, Const) or found[1] or not found[2].value.type.is_integer:
        raise IllegalRewrite(f"nest at {loop!r} must fill a buffer with a constant integer")
    loops, _, store = found
    check_written_once(store, [range_of(one) for one in loops], site.outer)
    check_new_loops(proc, *(one.var.name + new for one in loops))
    value = store.value
    assert isinstance(value, Const)
    zero = Store(store.buffer, store.index, Const(0, value.type))
    own = Load(store.buffer, store.index)
    added: Body = (Store(store.buffer, store.index, Binary(BinaryOp.ADD, own, value)),)
    renamed = {one.var.name: Var(one.var.name + new) for one in loops}
    for one in reversed(loops):
        added = (For(renamed[one.var.name], one.extent, added),)
    second = substitute(added, dict(renamed))
    zeroed: Body = (zero,)
    for one in reversed(loops):
        zeroed = (replace(one, body=zeroed),)
    return proc.with_body(replace_loop(proc.body, loop, lambda _: (*zeroed, *second)))


def drop_unit_loops(proc: Proc) -> Proc:
    def at(stmt: Stmt) -> Body | None:
        if isinstance(stmt, For) and stmt.extent == Const(1):
            return map_body(substitute(stmt.body, {stmt.var.name: Const(0)}), None, at)
        return None

    return proc.with_body(simplified(map_body(proc.body, None, at)))


def map_on(proc: Proc, loop: str, instruction: Proc) -> Proc:
    if unify(instruction, site_of(proc, loop).loop) is None:
        raise IllegalRewrite(f"loop {loop!r} must compute what {instruction.name} does")
    return mark(proc, loop, instruction.name)


def mark(proc: Proc, loop: str, instruction: str) -> Proc:
    site_of(proc, loop)
    return proc.with_body(replace_loop(proc.body, loop, lambda stmt: (Mapped(instruction, (stmt,)),)))
