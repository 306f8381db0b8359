"""Expressions of the tensor IR as LLVM values, scalar or one value per lane.

Inside a vectorised loop, what differs by lane is a vector and all else stays scalar. A condition that differs by lane
becomes a mask: the loads below it read only where it holds, as `Select` and `If` promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from compiler.errors import LoweringError
from compiler.llvm import operators
from compiler.llvm.conversions import cast, cast_clipped
from compiler.llvm.emitter import Emitter, Value, literal, llvm_type, mangled, memory_dtype
from compiler.llvm.lanes import element_step
from compiler.tensor.interval import Interval
from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Compare,
    Const,
    DType,
    Expr,
    Fma,
    Load,
    Select,
    Unary,
    Var,
    both,
    conjuncts,
)
from compiler.tensor.traverse import walk_expr


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """The vectorised loop being emitted: its variable, that variable in lane 0, the buffers that each lane has."""

    var: str
    first: Value
    count: int
    private: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where an expression stands.

    mask: lanes in which it counts; None means all. It stays set where `lanes` is None to evaluate for lane 0 alone.
    steady: an address or a branch depends on it, so an undefined value read from memory must be one value in all uses.
    """

    variables: Mapping[str, Value]
    ranges: Mapping[str, Interval]
    lanes: Lanes | None = None
    mask: Value | None = None
    steady: bool = False

    def bind(self, var: str, value: Value, values: Interval) -> Context:
        return replace(self, variables={**self.variables, var: value}, ranges={**self.ranges, var: values})

    def lane_zero(self) -> Context:
        """The same place, for a value that all lanes share or that lane 0 stands for."""
        if self.lanes is None:
            return self
        return replace(self, variables={**self.variables, self.lanes.var: self.lanes.first}, lanes=None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a buffer is: `pointer` to `copies` interleaved copies of a row-major array with extents `shape`."""

    pointer: str
    shape: tuple[Value, ...]
    copies: int = 1
    allocated: bool = False


def is_risky(expr: Expr) -> bool:
    """Whether evaluating `expr` where it is not wanted could trap: it reads memory or divides by a variable."""
    return any(
        isinstance(node, Load)
        or (isinstance(node, Binary) and node.op in (BinaryOp.FLOORDIV, BinaryOp.MOD) and not isinstance(node.b, Const))
        for node in walk_expr(expr)
    )


def is_clipped(expr: Expr, dtype: DType) -> bool:
    """Whether a float is brought to what an integer type holds, which it then does as NaN too."""
    if not expr.dtype.is_float or not dtype.is_integer or dtype.bits > DType.INT32.bits:
        return False
    match expr:
        case Binary(BinaryOp.MIN, Binary(BinaryOp.MAX, _, Const() as low), Const() as high):
            pass
        case Binary(BinaryOp.MAX, Binary(BinaryOp.MIN, _, Const() as high), Const() as low):
            pass
        case _:
            return False
    least, most = dtype.limits
    # As the floats that they become: 2**31 - 1 is none of 32 bits.
    lowest, highest = (float(bound.type.numpy.type(bound.value)) for bound in (low, high))
    return least <= lowest <= highest <= most


class Expressions:
    """Emits expressions into `emitter`; `places` holds the buffers in scope."""

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter
        self.places: dict[str, Place] = {}

    def value(self, at: Context, expr: Expr) -> Value:
        match expr:
            case Var():
                return at.variables[expr.name]
            case Const():
                return literal(expr.type, expr.value)
            case Unary():
                return operators.unary(self.e, expr.op, self.value(at, expr.a))
            case Binary(BinaryOp.FLOORDIV | BinaryOp.MOD):
                return operators.binary(self.e, expr.op, self.value(at, expr.a), self.divisor(at, expr.b))
            case Binary():
                return operators.binary(self.e, expr.op, self.value(at, expr.a), self.value(at, expr.b))
            case Fma():
                return operators.fma(self.e, *(self.value(at, each) for each in (expr.a, expr.b, expr.c)))
            case Compare():
                return operators.compare(self.e, expr.op, self.value(at, expr.a), self.value(at, expr.b))
            case Select():
                return self.select(at, expr)
            case Cast() if is_clipped(expr.a, expr.type):
                return cast_clipped(self.e, expr.type, self.value(at, expr.a))
            case Cast():
                return cast(self.e, expr.type, self.value(at, expr.a))
            case Load():
                return self.load(at, expr)
            case _:
                raise LoweringError(f"Expression must be one of the IR's, not {expr!r}")

    def steady(self, at: Context, expr: Expr) -> Value:
        """A value on which an address or a branch depends."""
        return self.value(replace(at, steady=True), expr)

    def divisor(self, at: Context, expr: Expr) -> Value:
        """A divisor, made 1 where a mask hides the division, for there it may be zero."""
        value = self.steady(at, expr)
        if at.mask is None or isinstance(expr, Const):
            return value
        cond = at.mask if value.lanes > 1 else operators.any_lane(self.e, at.mask)
        return operators.select(self.e, cond, value, literal(value.dtype, 1))

    def varies(self, at: Context, expr: Expr) -> bool:
        """Whether the value may differ by lane."""
        lanes = at.lanes
        return lanes is not None and any(
            (isinstance(node, Var) and node.name == lanes.var)
            or (isinstance(node, Load) and node.buffer.name in lanes.private)
            for node in walk_expr(expr)
        )

    def apart(self, at: Context, cond: Expr) -> tuple[Expr, Expr] | None:
        """A conjunction as what all lanes share, which is a branch, and what differs by lane, a mask; None if it is not
        of both.

        In a mask of both, LLVM 22 takes the half of which the latter says that nothing is read as undefined where
        registers hold no more than a half, as those of AVX2 do, and reads all of it.
        """
        sides = conjuncts(cond)
        own = [side for side in sides if self.varies(at, side)]
        shared = [side for side in sides if not self.varies(at, side)]
        return (both(*shared), both(*own)) if shared and own else None

    def select(self, at: Context, expr: Select) -> Value:
        if (parts := self.apart(at, expr.cond)) is not None:
            shared, own = parts
            return self.select(at, Select(shared, Select(own, expr.a, expr.b), expr.b))
        cond = self.steady(at, expr.cond)
        if cond.lanes > 1:
            a = self.value(self.masked(at, cond), expr.a)
            b = self.value(self.masked(at, operators.negation(self.e, cond)), expr.b)
            return operators.select(self.e, cond, a, b)
        if not is_risky(expr.a) and not is_risky(expr.b):
            return operators.select(self.e, cond, self.value(at, expr.a), self.value(at, expr.b))
        lanes = at.lanes.count if at.lanes and (self.varies(at, expr.a) or self.varies(at, expr.b)) else 1

        def arm(side: Expr) -> Callable[[], Value]:
            return lambda: operators.splat(self.e, self.value(at, side), lanes)

        return self.choose(cond, arm(expr.a), arm(expr.b))

    def masked(self, at: Context, cond: Value) -> Context:
        """Where `cond` holds as well."""
        return replace(at, mask=operators.conjunction(self.e, at.mask, cond))

    def choose(self, cond: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """Emit both sides in blocks of their own, of which the scalar `cond` runs one."""
        e = self.e
        yes, no, join = e.name("then"), e.name("else"), e.name("join")
        e.branch_if(cond, yes, no)
        e.start(yes)
        a, a_end = then(), e.block
        e.branch(join)
        e.start(no)
        b, b_end = otherwise(), e.block
        e.branch(join)
        e.start(join)
        return e.value(a.dtype, a.lanes, f"phi {a.type} [ {a.text}, %{a_end} ], [ {b.text}, %{b_end} ]")

    # -- memory

    def load(self, at: Context, expr: Load) -> Value:
        place, dtype = self.places[expr.buffer.name], memory_dtype(expr.buffer.type)
        moved = self.moved(at, expr.buffer, expr.index)
        if moved == 0:
            raw = self._load_scalar(at.lane_zero(), expr, dtype)
        elif moved == 1:
            raw = self._load_vector(at, expr, dtype)
        else:
            raw = self._gather(at, expr, dtype, moved)
        if at.steady and place.allocated:
            raw = self.e.value(dtype, raw.lanes, f"freeze {raw.typed}")
        if dtype is expr.dtype:
            return raw
        zero = "0" if raw.lanes == 1 else "zeroinitializer"
        return self.e.value(DType.BOOL, raw.lanes, f"icmp ne {raw.typed}, {zero}")

    def moved(self, at: Context, buffer: Buffer, index: tuple[Expr, ...]) -> int | None:
        """Elements between neighbouring lanes' addresses; None if that is not constant."""
        if at.lanes is None:
            return 0
        return element_step(buffer, index, at.lanes.var, at.lanes.private, at.lanes.count)

    def offset(self, at: Context, buffer: Buffer, index: tuple[Expr, ...]) -> Value:
        """Elements from the start of the buffer, scalar or by lane."""
        place, e = self.places[buffer.name], self.e
        # A masked-off lane may be out of range, so that only unmasked positions are known not to wrap.
        flags = " nuw nsw" if at.mask is None else ""
        total = literal(DType.INT64, 0)
        for n, (expr, extent) in enumerate(zip(index, place.shape, strict=True)):
            position = self.steady(at, expr)
            if n and all(part.is_scalar_literal for part in (total, position, extent)):
                position = literal(DType.INT64, int(total.text) * int(extent.text) + int(position.text))
            elif n:
                scaled, position, extent = operators.unify(e, total, position, extent)
                product = e.value(DType.INT64, scaled.lanes, f"mul{flags} {scaled.typed}, {extent.text}")
                position = e.value(DType.INT64, scaled.lanes, f"add{flags} {product.typed}, {position.text}")
            total = position
        if place.copies > 1:
            total, copies = operators.unify(e, total, literal(DType.INT64, place.copies))
            total = e.value(DType.INT64, total.lanes, f"mul{flags} {total.typed}, {copies.text}")
        return total

    def bytes(self, at: Context, expr: Load, dtype: DType, lanes: int) -> Value:
        """What lies in memory from an element on."""
        pointer = self.address(at, expr.buffer, self.offset(at, expr.buffer, expr.index))
        return self.e.value(dtype, lanes, f"load {llvm_type(dtype, lanes)}, ptr {pointer}, align 1")

    def address(self, at: Context, buffer: Buffer, offset: Value) -> str:
        """Pointer, or vector of pointers, to the elements at `offset`."""
        inbounds = " inbounds" if at.mask is None else ""
        type = llvm_type(memory_dtype(buffer.type))
        return self.e.pointer(f"getelementptr{inbounds} {type}, ptr {self.places[buffer.name].pointer}, {offset.typed}")

    def addresses(
        self, at: Context, buffer: Buffer, index: tuple[Expr, ...], moved: int | None
    ) -> Callable[[int], str]:
        """The pointer of each lane, by lane number, for lanes that are all active."""
        assert at.lanes is not None
        e, type = self.e, llvm_type(memory_dtype(buffer.type))
        if moved is not None:
            first = self.address(at, buffer, self.offset(at.lane_zero(), buffer, index))
            return lambda lane: e.pointer(f"getelementptr inbounds {type}, ptr {first}, i64 {lane * moved}")
        offsets = self.lane_offsets(at, buffer, index)

        def one(lane: int) -> str:
            offset = e.value(DType.INT64, 1, f"extractelement {offsets.typed}, i64 {lane}")
            return self.address(at, buffer, offset)

        return one

    def lane_offsets(self, at: Context, buffer: Buffer, index: tuple[Expr, ...]) -> Value:
        """Vector of the lanes' offsets."""
        assert at.lanes is not None
        count = at.lanes.count
        offsets = operators.splat(self.e, self.offset(at, buffer, index), count)
        if self.places[buffer.name].copies == 1:
            return offsets
        return self.e.value(DType.INT64, count, f"add {offsets.typed}, {lane_numbers(count)}")

    def _load_scalar(self, at: Context, expr: Load, dtype: DType) -> Value:
        def read() -> Value:
            pointer = self.address(at, expr.buffer, self.offset(at, expr.buffer, expr.index))
            return self.e.value(dtype, 1, f"load {llvm_type(dtype)}, ptr {pointer}, align {dtype.bits // 8}")

        if at.mask is None:
            return read()
        return self.choose(operators.any_lane(self.e, at.mask), read, lambda: literal(dtype, 0))

    def _load_vector(self, at: Context, expr: Load, dtype: DType) -> Value:
        assert at.lanes is not None
        count, align = at.lanes.count, f"align {dtype.bits // 8}"
        pointer = self.address(at, expr.buffer, self.offset(at.lane_zero(), expr.buffer, expr.index))
        type = llvm_type(dtype, count)
        if at.mask is None:
            return self.e.value(dtype, count, f"load {type}, ptr {pointer}, {align}")
        mask = operators.splat(self.e, at.mask, count)
        intrinsic = f"masked.load.{mangled(dtype, count)}.p0"
        return self.e.call(
            dtype, count, intrinsic, ("ptr", f"{align} {pointer}"), mask.argument, (type, "zeroinitializer")
        )

    def _gather(self, at: Context, expr: Load, dtype: DType, moved: int | None) -> Value:
        assert at.lanes is not None
        count, align = at.lanes.count, f"align {dtype.bits // 8}"
        type = llvm_type(dtype, count)
        if at.mask is not None:
            pointers = self.address(at, expr.buffer, self.lane_offsets(at, expr.buffer, expr.index))
            mask = operators.splat(self.e, at.mask, count)
            intrinsic = f"masked.gather.{mangled(dtype, count)}.v{count}p0"
            where = (f"<{count} x ptr>", f"{align} {pointers}")
            return self.e.call(dtype, count, intrinsic, where, mask.argument, (type, "zeroinitializer"))
        pointer = self.addresses(at, expr.buffer, expr.index, moved)
        result = Value("poison", dtype, count)
        for lane in range(count):
            element = self.e.value(dtype, 1, f"load {llvm_type(dtype)}, ptr {pointer(lane)}, {align}")
            result = self.e.value(dtype, count, f"insertelement {result.typed}, {element.typed}, i64 {lane}")
        return result

    def store(self, at: Context, buffer: Buffer, index: tuple[Expr, ...], value: Value) -> None:
        """Store `value`, of `buffer`'s type, in every active lane."""
        value = self.stored(value)
        dtype = value.dtype
        align = f"align {dtype.bits // 8}"
        if at.lanes is None:
            self.e.emit(f"store {value.typed}, ptr {self.address(at, buffer, self.offset(at, buffer, index))}, {align}")
            return
        count = at.lanes.count
        value, moved = operators.splat(self.e, value, count), self.moved(at, buffer, index)
        if moved == 1:
            pointer = self.address(at, buffer, self.offset(at.lane_zero(), buffer, index))
            if at.mask is None:
                self.e.emit(f"store {value.typed}, ptr {pointer}, {align}")
                return
            where, intrinsic = ("ptr", f"{align} {pointer}"), f"masked.store.{mangled(dtype, count)}.p0"
        elif at.mask is None:
            destination = self.addresses(at, buffer, index, moved)
            for lane in range(count):
                element = self.e.value(dtype, 1, f"extractelement {value.typed}, i64 {lane}")
                self.e.emit(f"store {element.typed}, ptr {destination(lane)}, {align}")
            return
        else:
            pointers = self.address(at, buffer, self.lane_offsets(at, buffer, index))
            where = (f"<{count} x ptr>", f"{align} {pointers}")
            intrinsic = f"masked.scatter.{mangled(dtype, count)}.v{count}p0"
        self.e.call_void(intrinsic, value.argument, where, operators.splat(self.e, at.mask, count).argument)

    def stored(self, value: Value) -> Value:
        """A value as it is in memory."""
        return cast(self.e, DType.INT8, value) if value.dtype is DType.BOOL else value

    def prefetch(self, at: Context, buffer: Buffer, index: tuple[Expr, ...]) -> None:
        """Ask for the cache line of an element, of that of the first lane in a vector loop: for the second level."""
        scalar = at if at.lanes is None else at.lane_zero()
        pointer = self.address(scalar, buffer, self.offset(scalar, buffer, index))
        self.e.call_void("prefetch.p0", ("ptr", pointer), ("i32", "0"), ("i32", "2"), ("i32", "1"))


def lane_numbers(count: int) -> str:
    return "<" + ", ".join(f"i64 {lane}" for lane in range(count)) + ">"
