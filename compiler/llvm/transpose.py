"""Stores that go along the other of two loops than what they read: blocks of vectors that are exchanged in registers.

Such a nest is marked by two loops `VECTORIZED` directly in each other. Each iteration of the outer one makes a vector
of the inner one's; the stores are vectors of the outer one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.llvm import operators
from compiler.llvm.emitter import Emitter, Value
from compiler.llvm.lanes import VECTOR_BYTES, element_step
from compiler.llvm.target import Target
from compiler.tensor.affine import variables
from compiler.tensor.ir import Const, Expr, For, Load, LoopKind, Store, constant
from compiler.tensor.traverse import walk_expr


@dataclass(frozen=True, kw_only=True)
class Transposition:
    """`store` in the iterations of two loops: neighbours in `rows` are so where it is stored, those in `columns` where
    it is read. As many rows as columns, or fewer, whose columns then follow each other where they are stored."""

    rows: str
    columns: str
    height: int
    width: int
    store: Store


def transposition(loop: For) -> Transposition | None:
    """What two vectorised loops in each other are, if they are one that registers can do."""
    match loop.body:
        case (For(kind=LoopKind.VECTORIZED, body=(Store() as store,)) as inner,):
            pass
        case _:
            return None
    constant_extents = isinstance(loop.extent, Const) and isinstance(inner.extent, Const)
    if loop.kind is not LoopKind.VECTORIZED or not constant_extents:
        return None
    rows, columns, height, width = loop.var.name, inner.var.name, constant(loop.extent), constant(inner.extent)
    most = VECTOR_BYTES // store.buffer.type.numpy.itemsize
    powers = all(1 < size <= most and size & (size - 1) == 0 for size in (height, width))
    if not powers or not is_along(store, rows) or reads_itself(store) or columns not in variables_of(store):
        return None
    if height == width or (height < width and is_behind(store, columns, height)):
        return Transposition(rows=rows, columns=columns, height=height, width=width, store=store)
    return None


def is_along(store: Store, var: str) -> bool:
    """Whether neighbours in `var` are neighbours where they are stored."""
    return element_step(store.buffer, store.index, var, frozenset(), 1) == 1


def is_behind(store: Store, var: str, elements: int) -> bool:
    """Whether neighbours in `var` are so many elements apart where they are stored."""
    return element_step(store.buffer, store.index, var, frozenset(), 1) == elements


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


def exchanged(e: Emitter, rows: Sequence[Value], target: Target) -> list[Value]:
    """Vectors of the first lanes of all `rows`, of the second ones, and so on: as many as there are lanes."""
    together = _WIDEST // (rows[0].dtype.bits * len(rows))
    if target.has("avx512vbmi") and rows[0].dtype.bits == 8 and 1 < together < len(rows):
        return _exchanged_together(e, rows, together)
    return _exchanged_by_squares(e, rows)


_WIDEST = 512
"""Bits of a register in which any bytes of two others can be put in any order."""


def _exchanged_together(e: Emitter, rows: Sequence[Value], together: int) -> list[Value]:
    """By way of vectors of several rows, and of several of the results."""
    size = len(rows)
    lanes = size * together
    wide = [operators.joined(e, rows[n : n + together]) for n in range(0, size, together)]
    out = []
    for first in range(0, size, together):
        # Of each lane of the result, the row that it is in and its place in the vector of that.
        sources = [(row // together, row % together * size + first + k) for k in range(together) for row in range(size)]
        parts = {n: wide[n] for n in range(len(wide))}
        places = [(n, lane) for n, lane in sources]
        while len(parts) > 1:
            merged = {}
            for n in range(0, len(parts), 2):
                mask = [lane + lanes * (at - n) if at in (n, n + 1) else -1 for at, lane in places]
                merged[n // 2] = operators.chosen(e, parts[n], parts[n + 1], mask)
            places = [(at // 2, lane) for lane, (at, _) in enumerate(places)]
            parts = merged
        ends = (range(k * size, (k + 1) * size) for k in range(together))
        out += [operators.chosen(e, parts[0], parts[0], each) for each in ends]
    return out


def interleaved(e: Emitter, rows: Sequence[Value]) -> Value:
    """The first lanes of all `rows`, then the second ones, and so on, in one vector."""
    width, whole = rows[0].lanes, operators.joined(e, rows)
    places = [row * width + column for column in range(width) for row in range(len(rows))]
    return operators.chosen(e, whole, whole, places)


def _exchanged_by_squares(e: Emitter, rows: Sequence[Value]) -> list[Value]:
    """Squares of lanes change places with their neighbours, larger ones first (Eklundh, "A Fast Computer Method for
    Matrix Transposing", 1972); each step is a choice of lanes from two vectors."""
    size, out = len(rows), list(rows)
    distance = size // 2
    while distance:
        for n in (n for n in range(size) if not n & distance):
            a, b = out[n], out[n + distance]
            first = [lane if not lane & distance else size + lane - distance for lane in range(size)]
            second = [lane + distance if not lane & distance else size + lane for lane in range(size)]
            out[n], out[n + distance] = operators.chosen(e, a, b, first), operators.chosen(e, a, b, second)
        distance //= 2
    return out
