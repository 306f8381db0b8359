"""The schedule of an op on a CPU: the same definition as everywhere, cut for caches and vector units.

All nests run row by row of the output, so that temporaries stay in cache; padding is resolved into a local copy of the
rows that one output row reads; the channels of a tile are a vector.
"""

from __future__ import annotations

from compiler.tensor.analysis import innermost, loops_of, padded_read
from compiler.tensor.ir import Alloc, Body, For, LoopKind, Proc, Scope, Var
from compiler.tensor.schedule import Schedule, ScheduleError
from compiler.tensor.tiles import AXES
from compiler.tensor.traverse import stmt_exprs, walk, walk_expr

_ROWS = ("no", "co", "oh")


def schedule(proc: Proc) -> Schedule:
    """Schedule `proc`, one of `compiler.tensor.define`; any other procedure stays as it is."""
    s = Schedule(proc)
    nests = _nests(proc.body)
    if not nests or not all(_is_tiled(nest) for nest in nests):
        return s
    for nest in nests:
        _dot_product_inside(s, nest)
    for axis in _ROWS:
        s.merge(*(_loop(nest, axis) for nest in nests))
    row = _loop(nests[0], _ROWS[-1])
    for nest in nests:
        for buffer in sorted(_padded(nest)):
            s.stage(buffer, row, Scope.LOCAL, f"{buffer}.rows")
    for stmt in walk(proc.body):
        if isinstance(stmt, Alloc):
            s.narrow(stmt.buffer.name, row)
    s.drop_unit_loops()
    _vectorize(s)
    return s


def _nests(body: Body) -> list[For]:
    while len(body) == 1 and isinstance(body[0], Alloc):
        body = body[0].body
    return [stmt for stmt in body if isinstance(stmt, For)]


def _is_tiled(nest: For) -> bool:
    found = innermost(nest)
    return found is not None and len(found[2].index) == len(AXES) and all(isinstance(i, Var) for i in found[2].index)


def _loop(nest: For, axis: str) -> str:
    found = innermost(nest)
    assert found is not None
    index = found[2].index[AXES.index(axis)]
    assert isinstance(index, Var)
    return index.name


def _padded(nest: For) -> set[str]:
    """Buffers that the nest reads with padding."""
    reads = (padded_read(e) for stmt in walk((nest,)) for expr in stmt_exprs(stmt) for e in walk_expr(expr))
    return {read.load.buffer.name for read in reads if read is not None}


def _dot_product_inside(s: Schedule, nest: For) -> None:
    """Run the reduction of each output element in one go, so that its sum stays in a register."""
    found = innermost(nest)
    assert found is not None
    output = [_loop(nest, axis) for axis in AXES]
    reduced = [loop.var.name for loop in found[0] if loop.var.name not in output]
    if reduced and not found[1]:
        s.reorder(*output, *reduced)


def _vectorize(s: Schedule) -> None:
    """Make the innermost loop of every elementwise nest a vector; reductions are left to the optimiser."""
    for site in list(loops_of(s.proc.body)):
        if any(isinstance(stmt, For) for stmt in walk(site.loop.body)):
            continue
        try:
            s.set_kind(site.loop.var.name, LoopKind.VECTORIZED)
        except ScheduleError:
            continue  # a dot product: its iterations share the accumulator
