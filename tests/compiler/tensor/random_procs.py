"""Random verified procedures, to compare the back ends with the interpreter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Fma,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Prefetch,
    Proc,
    Scope,
    Select,
    Stmt,
    Store,
    Unary,
    UnaryOp,
    Var,
    both,
    le,
    lt,
    maximum,
    minimum,
)

NUMBERS = (DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FLOAT32)
INTEGER_OPS = (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
ZERO = Const(0)
T = TypeVar("T")


@dataclass(frozen=True)
class Scope_:
    """Loop variables around a place with the greatest value of each, and the buffers that can be read there."""

    loops: tuple[tuple[Var, int], ...] = ()
    readable: tuple[Buffer, ...] = ()
    parallel: frozenset[str] = frozenset()


@dataclass
class Generator:
    """One random procedure. Iterations of vectorised loops are independent by construction: every store into a buffer
    from outside such a loop uses the loop's variable, alone in its position, and buffers stored to are not read."""

    rng: np.random.Generator
    names: int = 0
    outputs: list[Buffer] = field(default_factory=list)

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, percent: int) -> bool:
        return bool(self.rng.integers(100) < percent)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    # -- expressions

    def dtype(self) -> DType:
        return self.pick((*NUMBERS, DType.INT8, DType.INT32, DType.FLOAT32, DType.BOOL))

    def expr(self, at: Scope_, dtype: DType, depth: int) -> Expr:
        if dtype is DType.BOOL:
            return self.condition(at, depth)
        if depth <= 0 or self.chance(15):
            return self.leaf(at, dtype)
        kind = self.integer(0, 9)
        a, b = (self.expr(at, dtype, depth - 1) for _ in "ab")
        if kind <= 4:
            return self.operation(dtype, a, b)
        if kind <= 6:
            return self.cast(at, dtype, depth)
        if kind <= 7:
            return Select(self.condition(at, depth - 1), a, b)
        if dtype is DType.FLOAT32:
            if kind == 8:
                return Fma(a, b, self.expr(at, dtype, depth - 1)) if self.integer(0, 1) else Unary(UnaryOp.RINT, a)
            return Unary(UnaryOp.BITCAST, self.expr(at, DType.INT32, depth - 1))
        return self.operation(dtype, a, b)

    def cast(self, at: Scope_, dtype: DType, depth: int) -> Expr:
        source = self.pick([t for t in (*NUMBERS, DType.BOOL) if t is not dtype])
        return Cast(dtype, self.expr(at, source, depth - 1))

    def operation(self, dtype: DType, a: Expr, b: Expr) -> Expr:
        if dtype is DType.FLOAT32:
            return Binary(self.pick((*INTEGER_OPS, BinaryOp.DIV)), a, b)
        kind = self.integer(0, 7)
        if kind == 0:
            divisor = Const(self.pick((1, 2, 3, 7, 16, 100)), dtype)
            return Binary(self.pick((BinaryOp.FLOORDIV, BinaryOp.MOD)), a, divisor)
        if kind == 1:  # a divisor that varies
            return Binary(self.pick((BinaryOp.FLOORDIV, BinaryOp.MOD)), a, maximum(b, 1))
        if kind == 2:
            return Binary(self.pick((BinaryOp.SHR, BinaryOp.SHL)), a, Const(self.integer(0, dtype.bits - 1), dtype))
        if kind == 3:
            return Binary(
                self.pick((BinaryOp.SHR, BinaryOp.SHL)), a, Binary(BinaryOp.MOD, b, Const(dtype.bits - 1, dtype))
            )
        return Binary(self.pick(INTEGER_OPS), a, b)

    def leaf(self, at: Scope_, dtype: DType) -> Expr:
        fitting = [buffer for buffer in at.readable if buffer.type is dtype]
        if fitting and self.chance(65):
            return self.load(at, self.pick(fitting))
        if dtype is DType.INT64 and at.loops and self.chance(50):
            return self.pick(at.loops)[0]
        if dtype is DType.FLOAT32:
            return Const(self.pick((0.0, -0.0, 1.5, -3.25, 1e30, -1e-40, 0.1, float("inf"))), dtype)
        top = 1 << (dtype.bits - 1)
        return Const(self.pick((0, 1, -1, 2, top - 1, -top, self.integer(-100, 100))), dtype)

    def condition(self, at: Scope_, depth: int) -> Expr:
        kind = self.integer(0, 5)
        if kind <= 1 and at.loops:
            var, last = self.pick(at.loops)
            return self.pick((lt, le))(var, self.integer(0, last + 1))
        if kind == 2 and depth > 0:
            parts = self.condition(at, depth - 1), self.condition(at, depth - 1)
            return Binary(self.pick((BinaryOp.AND, BinaryOp.OR)), *parts)
        flags = [buffer for buffer in at.readable if buffer.type is DType.BOOL]
        if kind == 3 and flags:
            return self.load(at, self.pick(flags))
        dtype = self.pick(NUMBERS)
        sides = (self.expr(at, dtype, depth - 1) for _ in "ab")
        return Compare(self.pick(tuple(CompareOp)), *sides)

    # -- memory

    def load(self, at: Scope_, buffer: Buffer) -> Expr:
        if len(buffer.shape) == 1 and self.chance(20):
            return self.padded(at, buffer)
        return Load(buffer, tuple(self.index(at, extent) for extent in buffer.static_shape))

    def index(self, at: Scope_, extent: int) -> Expr:
        """A position below `extent`, in one of the ways that programs write them."""
        fitting = [(var, last) for var, last in at.loops if last < extent]
        kind = self.integer(0, 7)
        if fitting and kind <= 3:
            var, last = self.pick(fitting)
            return var + self.integer(0, extent - 1 - last) if kind else extent - 1 - var
        if at.loops and kind <= 5:
            var, last = self.pick(at.loops)
            factor = self.integer(1, 3)
            position = Binary(BinaryOp.MUL, var, Const(factor))
            return Binary(BinaryOp.MOD, position, Const(extent)) if kind == 4 else minimum(position, extent - 1)
        tables = [buffer for buffer in at.readable if buffer.type is DType.INT32 and len(buffer.shape) == 1]
        if tables and kind == 6:
            (most,) = (table := self.pick(tables)).static_shape
            where = minimum(at.loops[-1][0], most - 1) if at.loops else ZERO
            return minimum(maximum(Cast(DType.INT64, table[where,]), 0), extent - 1)
        return Const(self.integer(0, extent - 1))

    def padded(self, at: Scope_, buffer: Buffer) -> Expr:
        """An element, or a constant where the index leaves the buffer."""
        (extent,) = buffer.static_shape
        position: Expr = Const(self.integer(-1, extent))
        for var, _ in at.loops:
            position = position + var if self.chance(50) else position - var if self.chance(30) else position
        inside = both(le(0, position), lt(position, extent))
        other = Compare(CompareOp.EQ, ZERO, ZERO) if buffer.type is DType.BOOL else Const(1, buffer.type)
        return Select(inside, Load(buffer, (position,)), other)

    # -- statements

    def body(self, at: Scope_, depth: int) -> Body:
        return tuple(self.stmt(at, depth) for _ in range(self.integer(1, 2)))

    def stmt(self, at: Scope_, depth: int) -> Stmt:
        kind = self.integer(0, 10)
        if kind == 10 and at.readable:
            buffer = self.pick(at.readable)
            return Prefetch(buffer, tuple(self.index(at, extent) for extent in buffer.static_shape))
        if depth <= 0 or kind <= 1 or kind == 10:
            return self.store(at)
        if kind <= 5:
            return self.loop(at, depth)
        if kind <= 6:
            return If(self.condition(at, 2), self.body(at, depth - 1))
        if kind <= 8:
            return self.alloc(at, depth)
        return Mapped("block", self.body(at, depth - 1))

    def loop(self, at: Scope_, depth: int) -> Stmt:
        var = Var(self.name("i"))
        budget = 3000 // math.prod(last + 1 for _, last in at.loops)
        most = self.pick([extent for extent in (1, 2, 3, 4, 7, 8, 16, 19, 33, 70) if extent <= max(budget, 1)])
        extent: Expr = Const(most)
        if at.loops and self.chance(40):
            outer, last = self.pick(at.loops)
            extent = self.pick(
                (minimum(extent, last + 1 - outer), minimum(extent, outer * 3 - 1), minimum(extent, outer + 1))
            )
        kind = self.pick((LoopKind.SERIAL, LoopKind.VECTORIZED, LoopKind.VECTORIZED, *LoopKind))
        parallel = at.parallel if kind in (LoopKind.SERIAL, LoopKind.UNROLLED) else at.parallel | {var.name}
        inner = Scope_((*at.loops, (var, most - 1)), at.readable, parallel)
        return For(var, extent, self.body(inner, depth - 1), kind)

    def store(self, at: Scope_) -> Stmt:
        """To a new output of which each loop around, if parallel, owns a slice."""
        dtype = self.dtype()
        index: list[Expr] = []
        shape: list[int] = []
        for var, last in at.loops:
            if var.name in at.parallel or self.chance(60):
                slack = self.integer(0, 2)
                index.append(var + self.integer(0, slack))
                shape.append(last + 1 + slack)
        order = self.rng.permutation(len(index))
        out = Buffer.of(self.name("out"), dtype, tuple(shape[k] for k in order))
        self.outputs.append(out)
        where = tuple(index[k] for k in order)
        value = self.expr(at, dtype, 3)
        if dtype is not DType.BOOL and self.chance(40):
            value = Binary(BinaryOp.ADD, Load(out, where), value)
        return Store(out, where, value)

    def alloc(self, at: Scope_, depth: int) -> Stmt:
        """A local buffer, filled first and then readable; or an accumulator with a dynamic shape."""
        if self.chance(50) and at.loops:
            return self.accumulator(at)
        dtype = self.dtype()
        shape = tuple(self.integer(1, 9) for _ in range(self.integer(1, 2)))
        local = Buffer.of(self.name("local"), dtype, shape, self.pick(tuple(Scope)))
        loops = tuple((Var(self.name("k")), extent) for extent in shape)
        filling = Scope_((*at.loops, *((var, extent - 1) for var, extent in loops)), at.readable, at.parallel)
        fill: Stmt = Store(local, tuple(var for var, _ in loops), self.expr(filling, dtype, 2))
        for var, extent in reversed(loops):
            fill = For(var, Const(extent), (fill,), self.pick((LoopKind.SERIAL, LoopKind.VECTORIZED)))
        inner = Scope_(at.loops, (*at.readable, local), at.parallel)
        return Alloc(local, (fill, *self.body(inner, depth - 1)))

    def accumulator(self, at: Scope_) -> Stmt:
        dtype = self.pick(NUMBERS)
        outer, last = self.pick(at.loops)
        extent = minimum(Const(self.integer(1, 20)), outer + 1)
        local = Buffer(self.name("sum"), dtype, (extent, Const(2)), Scope.ACC)
        j, k, m = (Var(self.name(p)) for p in "jkm")
        clear = For(j, extent, (Store(local, (j, ZERO), Const(1, dtype)),), LoopKind.VECTORIZED)
        inner = Scope_((*at.loops, (k, 4), (m, last)), at.readable, at.parallel)
        add = Store(local, (m, ZERO), Binary(BinaryOp.ADD, local[m, 0], self.expr(inner, dtype, 2)))
        accumulate = For(k, Const(5), (For(m, extent, (add,), LoopKind.VECTORIZED),))
        result = self.store(Scope_(at.loops, at.readable, at.parallel))
        assert isinstance(result, Store)
        if result.buffer.type is dtype:
            result = Store(result.buffer, result.index, local[0, 0])
        return Alloc(local, (clear, accumulate, result))


def random_proc(rng: np.random.Generator) -> Proc:
    """A procedure of a few nests that passes the verifier, whose vectorised iterations are independent."""
    generator = Generator(rng)
    inputs = [
        Buffer.of(f"in{n}", dtype, tuple(generator.integer(1, 20) for _ in range(generator.integer(1, 3))))
        for n, dtype in enumerate((*NUMBERS, DType.BOOL))
    ]
    inputs.append(Buffer.of("table", DType.INT32, (11,)))
    body = generator.body(Scope_(readable=tuple(inputs)), 4)
    return Proc("random", (*inputs, *generator.outputs), body)


def random_array(rng: np.random.Generator, buffer: Buffer) -> np.ndarray[Any, Any]:
    """Contents for a parameter: small and extreme values, and for floats every kind of number."""
    shape, dtype = buffer.static_shape, buffer.type
    if dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float:
        bits = np.asarray(rng.integers(0, 2**dtype.bits, shape, dtype=f"uint{dtype.bits}")).view(dtype.numpy)
        numbers = np.asarray(rng.standard_normal(shape)).astype(dtype.numpy) * dtype.numpy.type(50)
        return np.where(rng.integers(0, 4, shape) == 0, bits, numbers)
    top = 1 << (dtype.bits - 1)
    full = rng.integers(-top, top - 1, shape, dtype=np.int64, endpoint=True)
    values = np.where(rng.integers(0, 2, shape) == 0, full, rng.integers(-9, 10, shape)).astype(dtype.numpy)
    return values if buffer.limits is None else np.clip(values, *buffer.limits)
