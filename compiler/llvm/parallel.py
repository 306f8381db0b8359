"""Which loops of a scheduled procedure several threads share.

That does not depend on how many there are: the code is the same for all, and so is the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compiler.tensor.ir import Alloc, Const, For, LoopKind, Proc, constant
from compiler.tensor.schedule import Schedule, ScheduleError
from compiler.tensor.traverse import walk

ENOUGH = 64
"""Iterations of which each thread has about as many as every other, if there are a few threads."""


def share_loops(s: Schedule) -> None:
    """Make the outermost loops of each nest one parallel loop with enough iterations, where these are independent.

    The innermost loop stays as it is if there are others around it, for the sake of its vectors.
    """
    for nest in list(_nests(s.proc)):
        shared: list[str] = []
        count = 1
        for loop in _shareable(nest):
            if count >= ENOUGH:
                break
            try:
                s.set_kind(loop.var.name, LoopKind.PARALLEL)
            except ScheduleError:  # a sum, or steps that follow from each other
                break
            shared.append(loop.var.name)
            count *= constant(loop.extent)
        for inner in shared[1:]:
            fused = f"{shared[0]}+{inner}"
            s.fuse(shared[0], inner, fused)
            shared[0] = fused


def _nests(proc: Proc) -> Iterator[For]:
    """The loops that lie in no other, behind nothing but allocations."""
    body = proc.body
    while len(body) == 1 and isinstance(body[0], Alloc):
        body = body[0].body
    yield from (stmt for stmt in body if isinstance(stmt, For))


def _shareable(nest: For) -> list[For]:
    """The loops of the perfect nest at `nest`, outermost first, that may be shared."""
    loops = [nest]
    while len(loops[-1].body) == 1 and isinstance(inner := loops[-1].body[0], For):
        loops.append(inner)
    if len(loops) > 1 and not any(isinstance(stmt, For) for stmt in walk(loops[-1].body)):
        loops.pop()
    return list(itertools.takewhile(_is_plain, loops))


def _is_plain(loop: For) -> bool:
    return loop.kind is LoopKind.SERIAL and isinstance(loop.extent, Const) and constant(loop.extent) > 0
