"""The schedule of conversions and changes of layout: nests that read along one loop and store along another."""

from __future__ import annotations

from compiler.llvm.transpose import is_along, is_behind, reads_along, reads_itself
from compiler.tensor.affine import variables
from compiler.tensor.analysis import innermost
from compiler.tensor.interval import interval, loop_interval
from compiler.tensor.ir import Alloc, Body, Const, Expr, For, LoopKind, Select, Store, constant
from compiler.tensor.schedule import Schedule
from compiler.tensor.traverse import walk_expr

SQUARE = 16
"""Lanes, and vectors, that are exchanged at a time: a block of channels."""
FEW = (2, 4, 8)
"""Rows that are put between each other, where they fill what is stored: the channels of an image."""
_Nest = tuple[list[For], tuple[Expr, ...], Store]


def exchange(s: Schedule) -> None:
    """Exchange squares of two loops in registers, in every nest where that can be; all else stays as it is."""
    for nest in _nests(s.proc.body):
        _exchange(s, nest)


def _nests(body: Body) -> list[_Nest]:
    """The perfect nests of constant extents, within allocations too."""
    found: list[_Nest] = []
    for stmt in body:
        if isinstance(stmt, Alloc):
            found += _nests(stmt.body)
        elif (nest := innermost(stmt)) is not None and all(isinstance(loop.extent, Const) for loop in nest[0]):
            found.append(nest)
    return found


def _exchange(s: Schedule, nest: _Nest) -> None:
    loops, guards, store = nest
    extents = {loop.var.name: constant(loop.extent) for loop in loops if constant(loop.extent) > 1}
    rows = [name for name in extents if is_along(store, name) and not reads_along(store, name)]
    columns = [name for name in extents if reads_along(store, name) and not is_along(store, name)]
    if len(rows) != 1 or len(columns) != 1 or extents[columns[0]] < SQUARE or reads_itself(store):
        return
    squared = (*columns, *rows)
    height = extents[rows[0]]
    few = height in FEW and is_behind(store, columns[0], height)
    conditions = [*guards, *(e.cond for e in walk_expr(store.value) if isinstance(e, Select))]
    if few:
        if guards or any(variables(cond) & extents.keys() - set(rows) for cond in conditions):
            return
    elif height < SQUARE or not _always(s, loops, conditions, squared):
        return
    outer = [loop.var.name for loop in loops if loop.var.name not in squared]
    inner = []
    for name in squared:
        if extents[name] == SQUARE or (few and name in rows):
            inner.append(name)
            continue
        s.split(name, SQUARE, f"{name}.square", f"{name}.lane")
        outer.append(f"{name}.square")
        inner.append(f"{name}.lane")
    s.reorder(*outer, *reversed(inner))
    for name in squared:
        if extents[name] % SQUARE and name not in inner:
            s.cut(f"{name}.square", extents[name] // SQUARE, f".rest{squared.index(name)}")
    for name in inner:
        s.set_kind(name, LoopKind.VECTORIZED)


def _always(s: Schedule, loops: list[For], conditions: list[Expr], squared: tuple[str, ...]) -> bool:
    """Make the conditions hold in the whole nest, by giving the iterations of one other loop at the end, where they may
    not, a nest of their own. Whether that can be."""
    ranges = {loop.var.name: loop_interval(loop.extent, {}) for loop in loops}
    deciding = set().union(*(variables(cond) for cond in conditions)) - set(squared)
    if not conditions:
        return True
    if len(deciding) != 1:
        return False
    (name,) = deciding
    _, last = ranges[name]
    holds = [n for n in range(last + 1) if all(interval(c, {**ranges, name: (0, n)}) == (1, 1) for c in conditions)]
    if not holds:
        return False
    if len(holds) <= last:
        s.reorder(name, *(other for other in ranges if other != name))
        s.cut(name, len(holds), ".edge")
    return True
