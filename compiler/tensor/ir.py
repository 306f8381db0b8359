"""Loop-level tensor IR: procedures over buffers, from which every back end starts.

A `Proc` is a list of loop nests over `Buffer`s. It says *what* is computed in an order; schedules (`schedule.py`)
rewrite the order without changing the answer, and `interp.py` defines what that answer is.

Rules, checked by `verify.py`:

* loop variables are `int64`, count from 0 and have unique names within a procedure, and so have buffers;
* an extent may use outer loop variables; an extent of zero or less means no iteration;
* integer arithmetic wraps at the width of its type; ``SHR`` is arithmetic, of unsigned integers logical, with an amount
  in ``0..bits-1``;
* float arithmetic is IEEE of the precision of its type, one rounding per operation: nothing is contracted, `Fma` says
  where a product and a sum round as one; float16 is only stored, and cast to and from float32;
* an allocated buffer holds undefined values until written and lives for one execution of its `Alloc`;
* every index is within the shape of its buffer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np


class Kind(enum.Enum):
    """What scalars are, and so which operators they have; by numpy's letter."""

    BOOL = "b"
    SIGNED = "i"
    UNSIGNED = "u"
    FLOAT = "f"


class DType(enum.Enum):
    """Scalar type, by numpy's name. Index arithmetic (loop variables, extents, indices) is `INT64`.

    numpy: the type of an element in an array. limits: lowest and highest value of what is no float.
    """

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"

    numpy: np.dtype[np.generic]
    kind: Kind
    bits: int
    is_integer: bool
    is_float: bool
    limits: tuple[int, int]

    def __init__(self, name: str) -> None:
        self.numpy = np.dtype(name)
        self.kind = Kind(self.numpy.kind)
        self.bits = 1 if self.kind is Kind.BOOL else self.numpy.itemsize * 8
        self.is_integer = self.kind in (Kind.SIGNED, Kind.UNSIGNED)
        self.is_float = self.kind is Kind.FLOAT
        half = 1 << (self.bits - 1)
        self.limits = (-half, half - 1) if self.kind is Kind.SIGNED else (0, 2 * half - 1)


NUMBERS = tuple(dtype for dtype in DType if dtype.kind is not Kind.BOOL and dtype is not DType.FLOAT16)
"""The types with arithmetic."""


class Scope(enum.Enum):
    """Where a buffer lives. `INP`, `WGT` and `ACC` are VTA scratchpads; other targets treat them as `LOCAL`."""

    DRAM = "dram"
    LOCAL = "local"
    INP = "inp"
    WGT = "wgt"
    ACC = "acc"


class LoopKind(enum.Enum):
    """How a loop runs. All kinds but `SERIAL` and `UNROLLED` assert that the iterations are independent.

    `VTHREAD` iterations own private copies of the buffers allocated inside and may be interleaved statement by
    statement, which hides latency on a machine with decoupled load, compute and store (TVM's virtual threads, OSDI
    2018).
    """

    SERIAL = "serial"
    UNROLLED = "unrolled"
    VECTORIZED = "vectorized"
    PARALLEL = "parallel"
    VTHREAD = "vthread"


class BinaryOp(enum.Enum):
    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    FLOORDIV = "//"
    MOD = "%"
    MIN = "min"
    MAX = "max"
    SHR = ">>"
    SHL = "<<"
    AND = "and"
    OR = "or"


class UnaryOp(enum.Enum):
    """`RINT` rounds float32 to the nearest integral float32, ties to even; `SQRT` is the float32 nearest to the square
    root; `BITCAST` reads an int32 as float32 bits, `BITS` those of a float32 as an int32."""

    RINT = "rint"
    SQRT = "sqrt"
    BITCAST = "bitcast"
    BITS = "bits"


class CompareOp(enum.Enum):
    LT = "<"
    LE = "<="
    EQ = "=="


class Expr:
    """Base of expressions. Operators build nodes and fold integer constants; ``==`` is structural equality."""

    __slots__ = ()

    @property
    def dtype(self) -> DType:
        raise TypeError(f"{type(self).__name__} has no dtype")

    def __add__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.ADD, self, wrap(other, self.dtype))

    def __radd__(self, other: int) -> Expr:
        return binary(BinaryOp.ADD, wrap(other, self.dtype), self)

    def __sub__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.SUB, self, wrap(other, self.dtype))

    def __rsub__(self, other: int) -> Expr:
        return binary(BinaryOp.SUB, wrap(other, self.dtype), self)

    def __mul__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.MUL, self, wrap(other, self.dtype))

    def __rmul__(self, other: int) -> Expr:
        return binary(BinaryOp.MUL, wrap(other, self.dtype), self)

    def __floordiv__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.FLOORDIV, self, wrap(other, self.dtype))

    def __mod__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.MOD, self, wrap(other, self.dtype))

    def __rshift__(self, other: Expr | int) -> Expr:
        return binary(BinaryOp.SHR, self, wrap(other, self.dtype))


@dataclass(frozen=True, slots=True)
class Var(Expr):
    """A loop variable, `INT64`."""

    name: str

    @property
    def dtype(self) -> DType:
        return DType.INT64


@dataclass(frozen=True, slots=True)
class Const(Expr):
    value: int | float
    type: DType = DType.INT64

    @property
    def dtype(self) -> DType:
        return self.type


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    op: UnaryOp
    a: Expr

    @property
    def dtype(self) -> DType:
        return DType.INT32 if self.op is UnaryOp.BITS else DType.FLOAT32


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """Both operands and the result have one type; `AND` and `OR` are on `BOOL`, `DIV` on floats."""

    op: BinaryOp
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return self.a.dtype


@dataclass(frozen=True, slots=True)
class Fma(Expr):
    """``a * b + c`` in float32, rounded once."""

    a: Expr
    b: Expr
    c: Expr

    @property
    def dtype(self) -> DType:
        return DType.FLOAT32


@dataclass(frozen=True, slots=True)
class Compare(Expr):
    op: CompareOp
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL


@dataclass(frozen=True, slots=True)
class Select(Expr):
    """`a` where `cond` holds, else `b`; the operand not chosen is not evaluated, so it may be out of range."""

    cond: Expr
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return self.a.dtype


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """Integer to narrower integer keeps the low bits; to wider extends the sign, of unsigned ones with zeros; to one of
    the same width reads the bits anew; float to integer truncates."""

    type: DType
    a: Expr

    @property
    def dtype(self) -> DType:
        return self.type


@dataclass(frozen=True, slots=True)
class Buffer:
    """A dense row-major array. Parameters have a constant shape, an `Alloc`'s may use outer loop variables.

    limits: lowest and highest integer that it holds, which whoever fills it promises; None: any of its type. No proof
    that an index is within a shape relies on them.
    """

    name: str
    type: DType
    shape: tuple[Expr, ...]
    scope: Scope = Scope.DRAM
    limits: tuple[int, int] | None = None

    @staticmethod
    def of(
        name: str,
        type: DType,
        shape: tuple[int, ...],
        scope: Scope = Scope.DRAM,
        limits: tuple[int, int] | None = None,
    ) -> Buffer:
        return Buffer(name, type, tuple(Const(extent) for extent in shape), scope, limits)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """Shape as integers. Raises TypeError if an extent depends on a loop variable."""
        return tuple(constant(extent) for extent in self.shape)

    def __getitem__(self, index: tuple[Expr | int, ...]) -> Load:
        return Load(self, tuple(wrap(i, DType.INT64) for i in index))


@dataclass(frozen=True, slots=True)
class Load(Expr):
    buffer: Buffer
    index: tuple[Expr, ...]

    @property
    def dtype(self) -> DType:
        return self.buffer.type


class Stmt:
    """Base of statements."""

    __slots__ = ()


Body = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    """``buffer[index] = value``. A reduction is a store whose value reads the same element."""

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Prefetch(Stmt):
    """A hint that ``buffer[index]``, and what lies in its cache line, will be read soon. It changes no value."""

    buffer: Buffer
    index: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class For(Stmt):
    var: Var
    extent: Expr
    body: Body
    kind: LoopKind = LoopKind.SERIAL


@dataclass(frozen=True, slots=True)
class If(Stmt):
    cond: Expr
    body: Body


@dataclass(frozen=True, slots=True)
class Alloc(Stmt):
    """`buffer` exists within `body`. Executions of the statement use `copies` places in turn.

    So what comes next can be loaded while the last is still read. It changes no value.
    """

    buffer: Buffer
    body: Body
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Mapped(Stmt):
    """A loop nest that one kind of hardware instruction executes; `body` stays its meaning for every other back end."""

    instruction: str
    body: Body


@dataclass(frozen=True, slots=True)
class Proc:
    name: str
    params: tuple[Buffer, ...]
    body: Body

    def with_body(self, body: Body) -> Proc:
        return replace(self, body=body)


def wrap(value: Expr | int | float, dtype: DType) -> Expr:
    return value if isinstance(value, Expr) else Const(value, dtype)


def constant(expr: Expr) -> int:
    """The value of a constant integer expression. Raises TypeError otherwise."""
    if isinstance(expr, Const) and isinstance(expr.value, int):
        return expr.value
    raise TypeError(f"Expression must be a constant integer, not {expr!r}")


_FOLD: dict[BinaryOp, Callable[[int, int], int]] = {
    BinaryOp.ADD: lambda a, b: a + b,
    BinaryOp.SUB: lambda a, b: a - b,
    BinaryOp.MUL: lambda a, b: a * b,
    BinaryOp.FLOORDIV: lambda a, b: a // b,
    BinaryOp.MOD: lambda a, b: a % b,
    BinaryOp.MIN: min,
    BinaryOp.MAX: max,
}


def fold(op: BinaryOp, a: int, b: int) -> int:
    """``a op b`` of index arithmetic, exactly."""
    return _FOLD[op](a, b)


_NEUTRAL = {BinaryOp.ADD: Const(0), BinaryOp.SUB: Const(0), BinaryOp.MUL: Const(1)}


def binary(op: BinaryOp, a: Expr, b: Expr) -> Expr:
    """``a op b``, folded when both are index constants or one is a neutral element of index arithmetic."""
    if a.dtype is DType.INT64:
        if isinstance(a, Const) and isinstance(b, Const) and op in _FOLD:
            return Const(fold(op, constant(a), constant(b)))
        neutral = _NEUTRAL.get(op)
        if neutral is not None and b == neutral:
            return a
        if neutral is not None and a == neutral and op is not BinaryOp.SUB:
            return b
    return Binary(op, a, b)


def minimum(a: Expr, b: Expr | int) -> Expr:
    return binary(BinaryOp.MIN, a, wrap(b, a.dtype))


def maximum(a: Expr, b: Expr | int) -> Expr:
    return binary(BinaryOp.MAX, a, wrap(b, a.dtype))


def cast(dtype: DType, a: Expr) -> Expr:
    return a if a.dtype is dtype else Cast(dtype, a)


def lt(a: Expr | int, b: Expr | int) -> Expr:
    return Compare(CompareOp.LT, wrap(a, DType.INT64), wrap(b, DType.INT64))


def le(a: Expr | int, b: Expr | int) -> Expr:
    return Compare(CompareOp.LE, wrap(a, DType.INT64), wrap(b, DType.INT64))


def both(*conditions: Expr) -> Expr:
    """Conjunction of one or more conditions."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = Binary(BinaryOp.AND, result, condition)
    return result


def conjuncts(cond: Expr) -> tuple[Expr, ...]:
    """The conditions whose conjunction `cond` is."""
    if isinstance(cond, Binary) and cond.op is BinaryOp.AND:
        return conjuncts(cond.a) + conjuncts(cond.b)
    return (cond,)


def nest(loops: Sequence[tuple[str, int | Expr]], *body: Stmt) -> For:
    """Serial loops ``(name, extent)``, outermost first, around `body`."""
    inner: Body = body
    for name, extent in reversed(loops):
        inner = (For(Var(name), wrap(extent, DType.INT64), inner),)
    (outer,) = inner
    assert isinstance(outer, For)
    return outer
