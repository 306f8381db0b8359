"""Which loops marked `VECTORIZED` become vector code, with how many lanes, and how addresses move from lane to lane."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    For,
    Load,
    Store,
    Unary,
    Var,
    constant,
)
from compiler.tensor.traverse import children, stmt_exprs, walk, walk_expr

VECTOR_BYTES = 64
"""Bytes of the widest operand in one vector; LLVM splits it for machines with narrower registers."""


def step(expr: Expr, var: str, private: frozenset[str] = frozenset()) -> int | None:
    """How much `expr` grows when `var` grows by one, if always the same. Buffers in `private` differ by lane."""
    match expr:
        case Var():
            return int(expr.name == var)
        case Binary(BinaryOp.ADD | BinaryOp.SUB, a, b) if expr.dtype.is_integer:
            left, right = step(a, var, private), step(b, var, private)
            if left is None or right is None:
                return None
            return left + right if expr.op is BinaryOp.ADD else left - right
        case Binary(BinaryOp.MUL, a, Const() as b) | Binary(BinaryOp.MUL, Const() as b, a) if expr.dtype.is_integer:
            inner = step(a, var, private)
            return None if inner is None else inner * constant(b)
        case Load() if expr.buffer.name in private:
            return None
        case _:
            return 0 if all(step(child, var, private) == 0 for child in children(expr)) else None


def element_step(buffer: Buffer, index: tuple[Expr, ...], var: str, private: frozenset[str], lanes: int) -> int | None:
    """Elements between the addresses of neighbouring lanes. A private buffer holds its `lanes` copies innermost."""
    total, stride = 0, 1
    known = True
    for position, extent in zip(reversed(index), reversed(buffer.shape), strict=True):
        inner = step(position, var, private)
        if inner is None or (inner and not known):
            return None
        total += inner * stride
        known = known and isinstance(extent, Const)
        stride *= constant(extent) if known else 0
    return total * lanes + 1 if buffer.name in private else total


def allocated(loop: For) -> frozenset[str]:
    """Buffers of which each iteration has its own."""
    return frozenset(stmt.buffer.name for stmt in walk(loop.body) if isinstance(stmt, Alloc))


def lane_count(loop: For) -> int:
    """Lanes of the vector code for `loop`, or 1 if it has to run as a scalar loop.

    Vector code needs: inner extents and shapes that do not depend on the loop, no store that every iteration makes to
    one place, and at least one access to neighbouring elements.
    """
    var, private = loop.var.name, allocated(loop)
    steps: set[int | None] = set()
    for stmt in walk(loop.body):
        if isinstance(stmt, For | Alloc) and any(step(expr, var, private) != 0 for expr in stmt_exprs(stmt)):
            return 1
        if isinstance(stmt, Store):
            moved = element_step(stmt.buffer, stmt.index, var, private, 1)
            if moved == 0:
                return 1
            if stmt.buffer.name not in private:
                steps.add(moved)
    for load in (expr for expr in _expressions(loop) if isinstance(expr, Load)):
        if load.buffer.name not in private:
            steps.add(element_step(load.buffer, load.index, var, private, 1))
    return _fitting(loop.extent, VECTOR_BYTES // _widest(loop)) if 1 in steps else 1


def _expressions(loop: For) -> Iterator[Expr]:
    for stmt in walk(loop.body):
        for expr in stmt_exprs(stmt):
            yield from walk_expr(expr)


def _widest(loop: For) -> int:
    """Bytes of the widest value that is computed, index arithmetic aside."""
    dtypes: list[DType] = []
    for stmt in walk(loop.body):
        if isinstance(stmt, Store):
            dtypes.append(stmt.buffer.type)
            dtypes += [e.dtype for e in walk_expr(stmt.value) if isinstance(e, Load | Cast | Unary)]
    return max((dtype.bits + 7) // 8 for dtype in dtypes) if dtypes else 1


def _fitting(extent: Expr, most: int) -> int:
    """The power of two up to `most` that leaves no remainder, unless that is much less than `most`."""
    if not isinstance(extent, Const):
        return most
    trips = constant(extent)
    lanes = most
    while lanes > max(trips, 1):
        lanes //= 2
    exact = lanes
    while exact > 1 and trips % exact:
        exact //= 2
    return exact if exact * 2 >= lanes else lanes
