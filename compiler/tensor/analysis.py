"""What a piece of tensor IR touches: accesses with their loops, and the independence of loop iterations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from compiler.tensor.affine import Affine, Range, affine, bounds
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Expr,
    For,
    If,
    Load,
    Mapped,
    Proc,
    Select,
    Stmt,
    Store,
    conjuncts,
)
from compiler.tensor.traverse import stmt_body, walk_expr


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write of one element, `loops` (outermost first) being the loops inside the analysed body around it."""

    buffer: Buffer
    index: tuple[Expr, ...]
    write: bool
    loops: tuple[Range, ...]


def accesses(body: Body, loops: tuple[Range, ...] = ()) -> Iterator[Access]:
    """Accesses to buffers that `body` does not itself allocate."""
    private: set[str] = set()
    waiting = [(stmt, loops) for stmt in reversed(body)]
    while waiting:
        stmt, around = waiting.pop()
        for expr in _reading(stmt):
            for node in walk_expr(expr):
                if isinstance(node, Load) and node.buffer.name not in private:
                    yield Access(node.buffer, node.index, False, around)
        match stmt:
            case Store():
                if stmt.buffer.name not in private:
                    yield Access(stmt.buffer, stmt.index, True, around)
                continue
            case For():
                around = (*around, Range(stmt.var.name, stmt.extent))
            case Alloc():
                private.add(stmt.buffer.name)
            case _:
                pass
        waiting += [(inner, around) for inner in reversed(stmt_body(stmt))]


def _reading(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions of a statement that may load: extents and shapes are made of loop variables."""
    match stmt:
        case Store():
            return (*stmt.index, stmt.value)
        case If():
            return (stmt.cond,)
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Site:
    """A loop and the loops around it, outermost first."""

    loop: For
    outer: tuple[Range, ...]


def loops_of(body: Body, outer: tuple[Range, ...] = ()) -> Iterator[Site]:
    """All loops, parents first, in program order."""
    waiting = [(stmt, outer) for stmt in reversed(body)]
    while waiting:
        stmt, around = waiting.pop()
        if isinstance(stmt, For):
            yield Site(stmt, around)
            around = (*around, Range(stmt.var.name, stmt.extent))
        waiting += [(inner, around) for inner in reversed(stmt_body(stmt))]


def find_loop(proc: Proc, name: str) -> Site | None:
    """The loop of that name, or None."""

    outer: list[For] = []

    def within(body: Body) -> For | None:
        for stmt in body:
            if isinstance(stmt, For):
                if stmt.var.name == name:
                    return stmt
                outer.append(stmt)
            if (inner := stmt_body(stmt)) and (found := within(inner)) is not None:
                return found
            if isinstance(stmt, For):
                outer.pop()
        return None

    found = within(proc.body)
    return None if found is None else Site(found, tuple(Range(loop.var.name, loop.extent) for loop in outer))


def separated(touched: Sequence[Access], var: str, outer: Sequence[Range]) -> bool:
    """Whether different iterations of `var` touch different elements in all of `touched`, accesses to one buffer.

    `outer` are the loops around what was analysed, outermost first, `var` among them; those outside of `var` stand
    still and those inside run.

    Sufficient condition: in some dimension every index is ``stride*var + rest`` with the same stride and the same outer
    variables, and all the rests together span less than one stride.
    """
    inside = [loop.name for loop in outer].index(var) + 1
    if inside < len(outer):
        touched = [replace(access, loops=(*outer[inside:], *access.loops)) for access in touched]
        outer = outer[:inside]
    return any(_separated_in(touched, var, outer, axis) for axis in range(len(touched[0].index)))


def _separated_in(touched: Sequence[Access], var: str, outer: Sequence[Range], axis: int) -> bool:
    stride: int | None = None
    base: Affine | None = None
    lows, highs = [], []
    for access in touched:
        form = affine(access.index[axis])
        names = [loop.name for loop in access.loops]
        coefficient = form.coefficient(var)
        outside = form.without([var, *names])
        if not form.is_linear or coefficient == 0 or coefficient != (stride or coefficient):
            return False
        if base is not None and outside.terms != base.terms:
            return False
        stride, base = coefficient, outside
        try:
            low, high = bounds(form.only(names), [*outer, *access.loops])
        except ValueError:
            return False
        lows.append(low + outside.const)
        highs.append(high + outside.const)
    return stride is not None and max(highs) - min(lows) < abs(stride)


_COMMUTATIVE = {BinaryOp.ADD, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX}


def reduction(store: Store) -> BinaryOp | None:
    """The operation if the store is ``b[i] = b[i] op value`` on integers, with op associative and commutative."""
    value = store.value
    own = Load(store.buffer, store.index)
    if not (isinstance(value, Binary) and value.op in _COMMUTATIVE and value.dtype.is_integer):
        return None
    for accumulator, operand in ((value.a, value.b), (value.b, value.a)):
        if accumulator == own and all(not _reads(node, store.buffer) for node in walk_expr(operand)):
            return value.op
    return None


def _reads(node: Expr, buffer: Buffer) -> bool:
    return isinstance(node, Load) and node.buffer.name == buffer.name


def stores(body: Body) -> Iterator[Store]:
    for stmt in body:
        match stmt:
            case Store():
                yield stmt
            case For() | If() | Alloc() | Mapped():
                yield from stores(stmt.body)
            case _:
                pass


def by_buffer(all_accesses: Iterable[Access]) -> dict[str, list[Access]]:
    grouped: dict[str, list[Access]] = {}
    for access in all_accesses:
        grouped.setdefault(access.buffer.name, []).append(access)
    return grouped


def conflicts(all_accesses: Iterable[Access]) -> dict[str, list[Access]]:
    """The accesses of every buffer that is written."""
    return {name: group for name, group in by_buffer(all_accesses).items() if any(a.write for a in group)}


def only_reductions(body: Body, buffer: str) -> bool:
    """Whether every access to `buffer` is by reductions of one kind, so that their order does not matter."""
    kinds = [reduction(store) for store in stores(body) if store.buffer.name == buffer]
    reads = sum(1 for access in accesses(body) if access.buffer.name == buffer and not access.write)
    return bool(kinds) and None not in kinds and len(set(kinds)) == 1 and reads == len(kinds)


@dataclass(frozen=True, slots=True)
class PaddedRead:
    """``Select(inside, load, fill)`` where `inside` restrains the load's own indices: a read of a padded tensor."""

    load: Load
    inside: tuple[Expr, ...]
    fill: Expr


def padded_read(expr: Expr) -> PaddedRead | None:
    if isinstance(expr, Select) and isinstance(expr.a, Load) and not any(True for _ in _loads(expr.b)):
        return PaddedRead(expr.a, conjuncts(expr.cond), expr.b)
    return None


def _loads(expr: Expr) -> Iterator[Load]:
    return (node for node in walk_expr(expr) if isinstance(node, Load))


def innermost(stmt: Stmt) -> tuple[list[For], tuple[Expr, ...], Store] | None:
    """Loops, guards and the store of a perfect nest with a single statement; None if it is not one."""
    loops: list[For] = []
    guards: list[Expr] = []
    while True:
        match stmt:
            case For(body=(inner,)):
                loops.append(stmt)
                stmt = inner
            case If(body=(inner,)):
                guards.extend(conjuncts(stmt.cond))
                stmt = inner
            case Mapped(body=(inner,)):
                stmt = inner
            case Store():
                return loops, tuple(guards), stmt
            case _:
                return None
