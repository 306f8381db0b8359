"""When a rewrite keeps the meaning. Every check raises `IllegalRewrite` with the rule that would be broken."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.tensor.affine import Range, affine, bounds, symbolic_box, variables
from compiler.tensor.analysis import (
    Access,
    Site,
    accesses,
    conflicts,
    find_loop,
    loops_of,
    only_reductions,
    padded_read,
    separated,
)
from compiler.tensor.ir import (
    Alloc,
    Body,
    Buffer,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Proc,
    Store,
    constant,
)
from compiler.tensor.printer import format_expr
from compiler.tensor.traverse import map_body, walk, walk_expr


class IllegalRewrite(Exception):
    """The rewrite would change the meaning, or names something that does not exist; the message says the rule."""


def site_of(proc: Proc, loop: str) -> Site:
    site = find_loop(proc, loop)
    if site is None:
        names = ", ".join(site.loop.var.name for site in loops_of(proc.body))
        raise IllegalRewrite(f"loop must be one of {names}, not {loop!r}")
    return site


def sites_of(proc: Proc, loops: Sequence[str]) -> list[Site]:
    """The loops of these names, in this order."""
    found = {site.loop.var.name: site for site in loops_of(proc.body)}
    return [found[loop] if loop in found else site_of(proc, loop) for loop in loops]


def range_of(loop: For) -> Range:
    return Range(loop.var.name, loop.extent)


def alloc_of(proc: Proc, buffer: str) -> Alloc:
    for stmt in walk(proc.body):
        if isinstance(stmt, Alloc) and stmt.buffer.name == buffer:
            return stmt
    raise IllegalRewrite(f"buffer must be allocated in the procedure, {buffer!r} is not")


def loops_around(proc: Proc, buffer: str) -> tuple[Range, ...]:
    """The loops around the allocation of `buffer`, outermost first."""

    def visit(body: Body, outer: tuple[Range, ...]) -> tuple[Range, ...] | None:
        for stmt in body:
            match stmt:
                case Alloc() if stmt.buffer.name == buffer:
                    return outer
                case For():
                    found = visit(stmt.body, (*outer, range_of(stmt)))
                case If() | Alloc() | Mapped():
                    found = visit(stmt.body, outer)
                case _:
                    found = None
            if found is not None:
                return found
        return None

    return visit(proc.body, ()) or ()


def check_new_loops(proc: Proc, *names: str) -> None:
    taken = {stmt.var.name for stmt in walk(proc.body) if isinstance(stmt, For)}
    for name in names:
        if name in taken:
            raise IllegalRewrite(f"new loop name must not be in use, {name!r} is")
        taken.add(name)


def check_new_buffer(proc: Proc, name: str) -> None:
    taken = {stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Alloc)}
    if name in taken or any(buffer.name == name for buffer in proc.params):
        raise IllegalRewrite(f"new buffer name must not be in use, {name!r} is")


def check_independent(body: Body, loop: str, kind: LoopKind, loops: Sequence[Range]) -> None:
    """The iterations of `loop`, one of `loops` around `body`, are independent if its `kind` says so."""
    if kind in (LoopKind.SERIAL, LoopKind.UNROLLED):
        return
    for buffer, touched in conflicts(accesses(body)).items():
        if not separated(touched, loop, loops):
            raise IllegalRewrite(f"iterations of {kind.value} loop {loop!r} must be independent, they share {buffer}")


def check_order(first: Site, old: Sequence[For], new: Sequence[For], body: Body) -> None:
    """The loops around `body`, outermost `first`, may change from the `old` order to the `new` one.

    Two iterations that conflict keep their order unless the outermost loops that tell them apart, in the old order and
    in the new one, change places. A loop is free in an order if it never is the outermost that tells conflicts apart.
    """
    before = (*first.outer, *(range_of(loop) for loop in old))
    after = (*first.outer, *(range_of(loop) for loop in new))
    place = {loop.var.name: k for k, loop in enumerate(new)}
    names = [loop.var.name for loop in old]
    swapped = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :] if place[a] > place[b]]
    for buffer, touched in conflicts(accesses(body)).items():
        if only_reductions(body, buffer):
            continue
        free_before = {a for a in {a for a, _ in swapped} if separated(touched, a, before)}
        free_after = {b for b in {b for _, b in swapped} if separated(touched, b, after)}
        for a, b in swapped:
            if a not in free_before and b not in free_after:
                raise IllegalRewrite(f"loops {a!r} and {b!r} must not both carry a dependence, they do on {buffer}")
    for loop in {loop.var.name: loop for a, b in swapped for loop in new if loop.var.name == b}.values():
        check_independent(body, loop.var.name, loop.kind, after)


Box = list[tuple[Expr, Expr]]


def box_of(touched: Sequence[Access], outer: tuple[Range, ...], clip: Sequence[bool]) -> Box:
    """Origin and size, for each dimension, of what all accesses touch.

    They must agree on both, but for places that are known: these are covered together.
    """
    boxes: list[Box] = []
    known = {loop.name for loop in outer}
    for access in touched:
        box = []
        for index, limit, cut in zip(access.index, access.buffer.shape, clip, strict=True):
            try:
                origin, size = symbolic_box(index, outer, access.loops, limit if cut else None)
            except ValueError:
                raise _unbounded(access, index) from None
            if (variables(origin) | variables(size)) - known or _reads(origin) or _reads(size):
                raise _unbounded(access, index)
            box.append((origin, size))
        boxes.append(box)
    together = [_cover(parts) for parts in zip(*boxes, strict=True)]
    whole = [part for part in together if part is not None]
    if len(whole) < len(together):
        raise IllegalRewrite(f"all accesses to {touched[0].buffer.name} must cover one region")
    return whole


def _cover(parts: Sequence[tuple[Expr, Expr]]) -> tuple[Expr, Expr] | None:
    """One interval for all, if they are the same or constant."""
    if all(part == parts[0] for part in parts):
        return parts[0]
    if not all(isinstance(expr, Const) for part in parts for expr in part):
        return None
    begin = min(constant(origin) for origin, _ in parts)
    return Const(begin), Const(max(constant(origin) + constant(size) for origin, size in parts) - begin)


def _unbounded(access: Access, index: Expr) -> IllegalRewrite:
    text = format_expr(index)
    return IllegalRewrite(f"indices of {access.buffer.name} must be affine in the loops they vary with, not {text}")


def _reads(expr: Expr) -> bool:
    return any(isinstance(node, Load) for node in walk_expr(expr))


Padding = dict[int, list[Compare]]
"""By axis, the conditions under which an index is used, each a comparison of the index with a constant."""


def may_leave(touched: Sequence[Access], axis: int, outer: tuple[Range, ...], padding: Padding) -> bool:
    """Whether an index might be outside of the buffer where the conditions of `padding` hold."""
    for access in touched:
        loops, index = (*outer, *access.loops), affine(access.index[axis])
        try:
            low, high = bounds(index, loops)
            room, _ = bounds(affine(access.buffer.shape[axis]) - index, loops)
            smallest, _ = bounds(access.buffer.shape[axis], loops)
        except ValueError:
            raise _unbounded(access, access.index[axis]) from None
        least, most = _limits(padding.get(axis, []))
        if max(low, least) < 0 or (room < 1 and min(high, most) >= smallest):
            return True
    return False


def _limits(conditions: Sequence[Compare]) -> tuple[int, int]:
    """The range of an index that `conditions` admit."""
    low, high = -(1 << 62), 1 << 62
    for condition in conditions:
        strict = 1 if condition.op is CompareOp.LT else 0
        if isinstance(condition.a, Const):
            low = max(low, constant(condition.a) + strict)
        if isinstance(condition.b, Const):
            high = min(high, constant(condition.b) - strict)
        if condition.op is CompareOp.EQ:
            value = constant(condition.a if isinstance(condition.a, Const) else condition.b)
            low, high = max(low, value), min(high, value)
    return low, high


def padding_of(body: Body, buffer: str) -> tuple[Buffer, Padding, Const]:
    """The buffer, the conditions of the padded reads of it, and the padding. All reads must be padded alike."""
    found: list[tuple[Buffer, Padding, Const]] = []

    def visit(expr: Expr) -> Expr | None:
        read = padded_read(expr)
        if read is not None and read.load.buffer.name == buffer:
            if not isinstance(read.fill, Const):
                raise IllegalRewrite(f"padding of {buffer!r} must be a constant, not {format_expr(read.fill)}")
            found.append((read.load.buffer, _by_axis(read.load, read.inside), read.fill))
            return expr
        if isinstance(expr, Load) and expr.buffer.name == buffer:
            found.append((expr.buffer, {}, Const(0, expr.dtype)))
        return None

    map_body(body, visit)
    if any(repr(one) != repr(found[0]) for one in found):  # 0.0 and -0.0 are equal
        raise IllegalRewrite(f"all reads of {buffer!r} must be padded alike")
    return found[0]


def _by_axis(load: Load, conditions: tuple[Expr, ...]) -> Padding:
    by_axis: Padding = {}
    forms = [affine(index) for index in load.index]
    for condition in conditions:
        if not (isinstance(condition, Compare) and condition.a.dtype is DType.INT64):
            raise _not_on_index(condition)
        subject, other = condition.a, condition.b
        if isinstance(subject, Const):
            subject, other = other, subject
        if not isinstance(other, Const) or affine(subject) not in forms:
            raise _not_on_index(condition)
        by_axis.setdefault(forms.index(affine(subject)), []).append(condition)
    return by_axis


def _not_on_index(condition: Expr) -> IllegalRewrite:
    rule = "condition of a padded read must compare one of its indices with a constant"
    return IllegalRewrite(f"{rule}, not {format_expr(condition)}")


def check_written_once(store: Store, loops: Sequence[Range], outer: Sequence[Range]) -> None:
    """No two iterations of `loops` around `store`, within `outer`, write one element, and its place is not read."""
    write = [Access(store.buffer, store.index, True, ())]
    around = (*outer, *loops)
    apart = all(loop.extent == Const(1) or separated(write, loop.name, around) for loop in loops)
    if not apart or any(access.buffer.name == store.buffer.name for access in accesses((store,)) if not access.write):
        raise IllegalRewrite(f"nest must write each element of {store.buffer.name} once")
