"""Random procedures to schedule: small nests over shared buffers, rich in dependences that a rewrite can break.

`random_procs` covers the whole IR, to compare back ends; here indices are those that schedules reason about (affine,
padded, ragged, strided, overlapping between iterations), extents come from few numbers so that nests can merge, and
buffers are few so that nests meet in them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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
    For,
    If,
    Load,
    Mapped,
    Proc,
    Select,
    Stmt,
    Store,
    Var,
    both,
    cast,
    le,
    lt,
    maximum,
    minimum,
)

REDUCTIONS = (BinaryOp.ADD, BinaryOp.ADD, BinaryOp.MIN, BinaryOp.MAX, BinaryOp.MUL)
OPERATIONS = (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
TYPES = (DType.INT8, DType.INT8, DType.INT32, DType.INT32, DType.INT32, DType.FLOAT32)

Loops = tuple[tuple[Var, int], ...]
"""Loop variables around a place, outermost first, with the greatest value of each."""


@dataclass
class Maker:
    """Makes one procedure out of the choices of `r`."""

    r: random.Random
    palette: tuple[int, ...] = (2, 3)
    inputs: list[Buffer] = field(default_factory=list)
    outputs: list[Buffer] = field(default_factory=list)
    names: int = 0

    def chance(self, percent: int) -> bool:
        return self.r.randrange(100) < percent

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def buffer(self, prefix: str, rank: int | None = None) -> Buffer:
        shape = tuple(self.r.randint(4, 7) for _ in range(rank if rank is not None else self.r.randint(1, 2)))
        return Buffer.of(self.fresh(prefix), self.r.choice(TYPES), shape)

    # -- indices

    def index(self, loops: Loops, extent: int) -> Expr:
        """A position that lies in ``0..extent - 1`` for all values of `loops`."""
        kind = self.r.randrange(20)
        if kind == 0:
            return Const(self.r.randrange(extent)) if self.chance(70) else self.gathered(loops, extent)
        if kind == 1 and loops:
            var, last = self.r.choice(loops)
            return minimum(var * self.r.randint(1, 3), extent - 1) if self.chance(50) else maximum(var - 1, 0)
        if kind == 2 and loops:
            var, last = self.r.choice(loops)
            return (var // 2 if self.chance(50) else var % 2) if last < extent else var % extent
        if kind == 3 and loops:
            var, last = self.r.choice(loops)
            if last < extent:
                return extent - 1 - var
        return self.linear(loops, extent)

    def gathered(self, loops: Loops, extent: int) -> Expr:
        """A position that memory tells."""
        table = self.r.choice([*self.inputs, *self.outputs])
        where = tuple(self.linear(loops, limit) for limit in table.static_shape)
        return minimum(maximum(Cast(DType.INT64, Load(table, where)), 0), extent - 1)

    def linear(self, loops: Loops, extent: int) -> Expr:
        room = extent - 1
        expr: Expr = Const(0)
        candidates = list(loops[::-1])
        if self.chance(40):
            self.r.shuffle(candidates)
        for var, last in candidates[: self.r.choice((1, 1, 1, 2, 2, 3))]:
            factor = self.r.choice((1, 1, 1, 2, 3))
            if factor * last <= room:
                room -= factor * last
                expr = expr + var * factor
        return expr + (self.r.randint(0, room) if self.chance(30) else 0)

    def position(self, loops: Loops, buffer: Buffer) -> tuple[Expr, ...]:
        return tuple(self.index(loops, extent) for extent in buffer.static_shape)

    # -- values

    def read(self, loops: Loops, buffer: Buffer, at: tuple[Expr, ...] | None = None) -> Expr:
        if at is not None and self.chance(75):
            return Load(buffer, at)
        return self.padded(loops, buffer) if loops and self.chance(25) else Load(buffer, self.position(loops, buffer))

    def padded(self, loops: Loops, buffer: Buffer) -> Expr:
        """A read that leaves the buffer at some positions, where a constant stands for the element."""
        shift = self.r.randint(-2, 2)
        index = [self.linear(loops, extent) + shift for extent in buffer.static_shape]
        if len(index) == 2 and self.chance(15):
            index = [index[0], index[0]]
        guarded = index if self.chance(80) else index[:1]
        conditions: list[Expr] = []
        for position, extent in zip(guarded, buffer.static_shape, strict=False):
            conditions += [le(0, position), lt(position, extent)]
        for position, extent in zip(index[len(guarded) :], buffer.static_shape[len(guarded) :], strict=True):
            index[1] = minimum(maximum(position, 0), extent - 1)
        if self.chance(10):
            conditions.append(self.comparison(loops))
        if self.chance(10):
            conditions.append(lt(index[0], self.r.choice(loops)[0]))
        fill = Const(
            0 if self.chance(90) else self.r.choice((3, -0.0 if buffer.type is DType.FLOAT32 else 1)), buffer.type
        )
        return Select(both(*conditions), Load(buffer, tuple(index)), fill)

    def comparison(self, loops: Loops) -> Expr:
        if not loops:
            return lt(0, 1)
        var, last = self.r.choice(loops)
        other = self.r.choice(loops)[0]
        limit: Expr = Const(self.r.randint(0, last))
        make: Callable[[Expr | int, Expr | int], Expr] = self.r.choice((lt, le))
        kind = self.r.randrange(5)
        if kind == 0:
            return Compare(CompareOp.EQ, var, limit)
        if kind == 1:
            return make(var, other)
        if kind == 2:
            return make(limit, var + other)
        return make(var, limit) if kind == 3 else make(limit, var)

    def value(self, loops: Loops, dtype: DType, sources: Sequence[Expr]) -> Expr:
        """An expression of `dtype` over some of `sources`."""
        result: Expr | None = None
        for source in sources:
            term = cast(dtype, source)
            if self.chance(15):
                term = term * self.r.randint(-3, 3)
            result = term if result is None else Binary(self.r.choice(OPERATIONS), result, term)
        if result is None or self.chance(10):
            some: Expr = Const(self.r.randint(-9, 9), dtype)
            if loops and self.chance(60):
                some = Cast(dtype, self.r.choice(loops)[0] * self.r.randint(1, 9))
            result = some if result is None else Binary(BinaryOp.ADD, result, some)
        return result

    def update(self, loops: Loops, target: Buffer, at: tuple[Expr, ...], value: Expr) -> Stmt:
        """``target[at] = value``, or a reduction into it."""
        if self.chance(35):
            own = Load(target, at)
            operands = (own, value) if self.chance(80) else (value, own)
            value = Binary(self.r.choice(REDUCTIONS), *operands)
        store: Stmt = Store(target, at, value)
        if self.chance(15):
            conditions = [self.comparison(loops) for _ in range(self.r.randint(1, 2))]
            store = If(both(*conditions), (store,))
        return store

    # -- statements

    def nest(self, loops: Loops, depth: int, leaf: Callable[[Loops], Body]) -> For:
        """`depth` more loops around what `leaf` makes."""
        opened: list[tuple[Var, Expr]] = []
        for _ in range(depth):
            most = self.r.choice(self.palette)
            extent: Expr = Const(most)
            outer = (*loops, *((var, 0) for var, _ in opened))
            if outer and self.chance(8):
                extent = minimum(extent, self.r.randint(2, 4) - self.r.choice(outer)[0])
            if self.chance(2):
                most, extent = 1, Const(self.r.choice((0, -1, 1)))
            var = Var(self.fresh("i"))
            opened.append((var, extent))
            loops = (*loops, (var, most - 1))
        body = leaf(loops)
        for var, extent in reversed(opened):
            body = (For(var, extent, body),)
        (loop,) = body
        assert isinstance(loop, For)
        return loop

    def fill(self, loops: Loops, target: Buffer) -> Stmt:
        """A nest that writes all of `target`."""
        opened = tuple((Var(self.fresh("f")), extent) for extent in target.static_shape)
        inner = (*loops, *((var, extent - 1) for var, extent in opened))
        value: Expr = Const(self.r.choice((0, 0, 1, -5)), target.type)
        if self.chance(40):
            value = self.value(inner, target.type, [])
        stmt: Stmt = Store(target, tuple(var for var, _ in opened), value)
        for var, extent in reversed(opened):
            stmt = For(var, Const(extent), (stmt,))
        return stmt

    def sources(self, loops: Loops, written: Sequence[Buffer]) -> list[Expr]:
        pool = [*self.inputs, *written, *written, *self.outputs]
        return [self.read(loops, self.r.choice(pool)) for _ in range(self.r.choice((0, 1, 1, 1, 2)))]

    def leaf(self, written: Sequence[Buffer]) -> Callable[[Loops], Body]:
        def make(loops: Loops) -> Body:
            return tuple(self.statement(loops, written) for _ in range(self.r.choice((1, 1, 1, 2))))

        return make

    def statement(self, loops: Loops, written: Sequence[Buffer]) -> Stmt:
        target = self.r.choice([*written, *self.outputs, *self.outputs])
        value = self.value(loops, target.type, self.sources(loops, written))
        return self.update(loops, target, self.position(loops, target), value)

    def block(self, loops: Loops, written: Sequence[Buffer], depth: int) -> Body:
        kind = self.r.randrange(10)
        if depth and kind < 4:
            return self.temporary(loops, written, depth)
        if depth and kind < 6:
            return (self.nest(loops, self.r.randint(1, 2), lambda inner: self.block(inner, written, depth - 1)),)
        if depth and kind == 7 and self.chance(30):
            return (Mapped("block", self.block(loops, written, depth - 1)),)
        if kind == 6 and loops:
            return (If(self.comparison(loops), self.block(loops, written, depth)),)
        nests = [self.nest(loops, self.r.randint(1, 3), self.leaf(written)) for _ in range(self.r.randint(1, 3))]
        return tuple(nests)

    def temporary(self, loops: Loops, written: Sequence[Buffer], depth: int) -> Body:
        """A temporary that is filled, or written and read at one place in every iteration, or used at random."""
        temp = self.buffer("t")
        kind = self.r.randrange(5)
        body: Body
        if kind == 0:
            body = (self.fill(loops, temp), *self.block(loops, [*written, temp], depth - 1))
        elif kind == 1:
            body = self.block(loops, [*written, temp], depth - 1)
        else:
            body = self.pipeline(loops, [temp, *(self.buffer("t") for _ in range(self.r.randint(0, 1)))], written)
            return body
        return (Alloc(temp, body),)

    def pipeline(self, loops: Loops, temps: list[Buffer], written: Sequence[Buffer]) -> Body:
        """Nests with the same outer loops, each of which reads mostly what those before it wrote, in the same place."""
        chain = [*temps, self.r.choice(self.outputs)]
        extents = [self.r.choice(self.palette) for _ in range(self.r.randint(1, 2))]
        shared = self.chance(35)
        outer: Loops = tuple((Var(self.fresh("p")), extent - 1) for extent in extents) if shared else ()
        stages: list[Stmt] = []
        places: list[tuple[Buffer, Callable[[Loops], tuple[Expr, ...]]]] = []
        for target in chain:
            own = outer or tuple((Var(self.fresh("p")), extent - 1) for extent in extents)
            stages += self.stage(own, shared, target, places, (*loops, *own), written)
        body: Body = tuple(stages)
        if shared:
            for var, last in reversed(outer):
                body = (For(var, Const(last + 1), body),)
        for temp in reversed(temps):
            body = (Alloc(temp, body),)
        return body

    def stage(
        self,
        own: Loops,
        shared: bool,
        target: Buffer,
        places: list[tuple[Buffer, Callable[[Loops], tuple[Expr, ...]]]],
        around: Loops,
        written: Sequence[Buffer],
    ) -> list[Stmt]:
        seed = self.r.getrandbits(32)

        def place(loops: Loops) -> tuple[Expr, ...]:
            """The same functions of the loops, by position, every time."""
            return replace(self, r=random.Random(seed)).position(loops, target)

        inner = ((Var(self.fresh("q")), self.r.choice(self.palette) - 1),) if self.chance(35) else ()
        in_loops = (*own, *inner) if self.chance(50) else own
        before = [self.read(around, buffer, at(own)) for buffer, at in places if self.chance(80)]
        sources = before or self.sources((*around, *inner), written)
        update = self.update((*around, *inner), target, place(in_loops), self.value(around, target.type, sources))
        for var, last in reversed(inner):
            update = For(var, Const(last + 1), (update,))
        if in_loops == own:
            places.append((target, place))
        if not shared:
            for var, last in reversed(own):
                update = For(var, Const(last + 1), (update,))
        return [update]


def random_proc(r: random.Random) -> Proc:
    """A procedure that may read what no statement has written; see `fuzz_schedule.defined`."""
    maker = Maker(r)
    maker.palette = tuple(r.sample((2, 3, 4), 2))
    maker.inputs = [Buffer.of("x", DType.INT8, (5, 6)), Buffer.of("z", DType.INT32, (7,))]
    maker.outputs = [Buffer.of("y", DType.INT32, (6, 5)), Buffer.of("w", r.choice((DType.INT8, DType.FLOAT32)), (6,))]
    body: Body = ()
    for _ in range(r.randint(1, 2)):
        body += maker.block((), [], r.randint(1, 2))
    return Proc("p", (*maker.inputs, *maker.outputs), body)
