"""A procedure cut where its threads have to wait for each other.

A section is either one parallel loop, whose iterations the threads share, or what the first thread does alone. It is a
procedure of its own, so that no value is kept in a register from one section to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from compiler.tensor.ir import Alloc, Body, Buffer, Const, For, Load, LoopKind, Prefetch, Proc, Stmt, Store
from compiler.tensor.traverse import stmt_exprs, walk, walk_expr


@dataclass(frozen=True, kw_only=True)
class Section:
    """proc: its parameters are the buffers of the whole that it uses. is_parallel: its body is one parallel loop."""

    proc: Proc
    is_parallel: bool


@dataclass(frozen=True, kw_only=True)
class Sections:
    """What runs one after the other. shared: buffers that the procedure allocates, and several sections use."""

    shared: tuple[Buffer, ...]
    parts: tuple[Section, ...]


def sections(proc: Proc) -> Sections:
    """The sections of `proc`; one without parallel loops outside of all other loops is one section, and so is one with
    buffers around them whose size has to be computed."""
    shared: list[Buffer] = []
    body = proc.body
    while len(body) == 1 and isinstance(body[0], Alloc):
        shared.append(body[0].buffer)
        body = body[0].body
    sized = all(isinstance(extent, Const) for buffer in shared for extent in buffer.shape)
    if not sized or not any(map(_is_parallel, body)):
        return Sections(shared=(), parts=(Section(proc=proc, is_parallel=False),))
    buffers = (*proc.params, *shared)
    return Sections(shared=tuple(shared), parts=tuple(_parts(proc.name, buffers, body)))


def _parts(name: str, buffers: tuple[Buffer, ...], body: Body) -> Iterator[Section]:
    for is_parallel, group in itertools.groupby(body, _is_parallel):
        for part in ((stmt,) for stmt in group) if is_parallel else (tuple(group),):
            used = _used(part)
            params = tuple(buffer for buffer in buffers if buffer.name in used)
            yield Section(proc=Proc(name, params, part), is_parallel=is_parallel)


def _is_parallel(stmt: Stmt) -> bool:
    return isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL


def _used(body: Body) -> set[str]:
    names = {stmt.buffer.name for stmt in walk(body) if isinstance(stmt, Store | Prefetch)}
    expressions = (expr for stmt in walk(body) for expr in stmt_exprs(stmt))
    return names | {node.buffer.name for expr in expressions for node in walk_expr(expr) if isinstance(node, Load)}
