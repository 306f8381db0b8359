"""Stores that go along the other of two loops than what they read: blocks of vectors that are exchanged in registers.

Such a nest is marked by two loops `VECTORIZED` directly in each other. Each iteration of the outer one makes a vector
of the inner one's; the stores are vectors of the outer one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.llvm.emitter import Emitter, Value
from compiler.llvm.lanes import element_step
from compiler.tensor.affine import variables
from compiler.tensor.ir import Const, Expr, For, Load, LoopKind, Store, constant
from compiler.tensor.traverse import walk_expr


@dataclass(frozen=True, kw_only=True)
class Transposition:
    """`store` in the iterations of two loops of `size` each: neighbours in `rows` are so where it is stored, those in
    `columns` where it is read."""

    rows: str
    columns: str
    size: int
    store: Store


def transposition(loop: For) -> Transposition | None:
    """What two vectorised loops in each other are, if they are one that registers can do."""
    match loop.body:
        case (For(kind=LoopKind.VECTORIZED, body=(Store() as store,)) as inner,):
            pass
        case _:
            return None
    if loop.kind is not LoopKind.VECTORIZED or loop.extent != inner.extent or not isinstance(loop.extent, Const):
        return None
    rows, columns, size = loop.var.name, inner.var.name, constant(loop.extent)
    is_power = size > 1 and size & (size - 1) == 0
    if is_power and is_along(store, rows) and not reads_itself(store) and columns in variables_of(store):
        return Transposition(rows=rows, columns=columns, size=size, store=store)
    return None


def is_along(store: Store, var: str) -> bool:
    """Whether neighbours in `var` are neighbours where they are stored."""
    return element_step(store.buffer, store.index, var, frozenset(), 1) == 1


def reads_along(store: Store, var: str) -> bool:
    """Whether what is read in `var` lies side by side, or is the same for all."""
    steps = {element_step(load.buffer, load.index, var, frozenset(), 1) for load in loads(store.value)}
    return 1 in steps and steps <= {0, 1}


def loads(expr: Expr) -> list[Load]:
    return [node for node in walk_expr(expr) if isinstance(node, Load)]


def reads_itself(store: Store) -> bool:
    return any(load.buffer.name == store.buffer.name for load in loads(store.value))


def variables_of(store: Store) -> set[str]:
    """Loop variables in the place of the store."""
    return set().union(*(variables(index) for index in store.index))


def exchanged(e: Emitter, rows: Sequence[Value]) -> list[Value]:
    """Vectors of the first lanes of all `rows`, of the second ones, and so on: as many as there are lanes.

    Squares of lanes change places with their neighbours, larger ones first (Eklundh, "A Fast Computer Method for Matrix
    Transposing", 1972); each step is a choice of lanes from two vectors.
    """
    size, out = len(rows), list(rows)
    distance = size // 2
    while distance:
        for n in (n for n in range(size) if not n & distance):
            a, b = out[n], out[n + distance]
            first = [lane if not lane & distance else size + lane - distance for lane in range(size)]
            second = [lane + distance if not lane & distance else size + lane for lane in range(size)]
            out[n], out[n + distance] = _chosen(e, a, b, first), _chosen(e, a, b, second)
        distance //= 2
    return out


def _chosen(e: Emitter, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    mask = ", ".join(f"i32 {lane}" for lane in lanes)
    return e.value(a.dtype, a.lanes, f"shufflevector {a.typed}, {b.typed}, <{len(lanes)} x i32> <{mask}>")
