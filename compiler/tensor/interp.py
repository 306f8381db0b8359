"""Reference interpreter: what a `Proc` means, said as plainly as possible.

Every expression and statement becomes a closure over an environment (the list of loop variable values), so a nest is
walked once and then runs at about 2 microseconds per innermost store. Integers are Python ints, wrapped after each
operation; floats are numpy scalars, whose arithmetic rounds once to their precision.

Where `ir.py` leaves room, this file decides, and every back end agrees with it:

* float ``MIN`` and ``MAX`` give the second operand unless the first is strictly smaller (greater), so a NaN on the left
  or on either side of a comparison yields the second operand; comparisons with NaN are false;
* float to integer saturates, and NaN gives 0;
* ``FLOORDIV`` rounds towards minus infinity and ``MOD`` takes the sign of the divisor;
* both operands of ``AND`` and ``OR`` are evaluated; only `Select` and `If` are lazy;
* an extent and the shape of an `Alloc` are evaluated once, on entry; an allocated extent below zero counts as zero.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.tensor.arguments import Signature
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
    Kind,
    Load,
    Mapped,
    Prefetch,
    Proc,
    Select,
    Stmt,
    Store,
    Unary,
    UnaryOp,
    Var,
)
from compiler.tensor.traverse import walk

Env = list[int]
Eval = Callable[[Env], Any]  # gives int, bool or np.float32 by the expression's dtype
Exec = Callable[[Env], None]

POISON_BYTE = 0xA5  # fills allocated buffers: large negative integers, a tiny negative float


class InterpError(CompileError):
    """A procedure breaks a rule of `ir.py` while it runs."""


def run(proc: Proc, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Execute `proc` on `arrays`, one per parameter in order, in place.

    Raises ArgumentError for an array that does not fit its parameter, and InterpError naming buffer and index, or
    operator and operand, of the first broken rule; what was stored until then stays.
    """
    Signature.of(proc).check(arrays)
    machine = _Machine(proc)
    for buffer, array in zip(proc.params, arrays, strict=True):
        _check_limits(buffer, array)
        machine.bind(buffer, array)
    program = machine.body(proc.body)
    with np.errstate(all="ignore"):
        program([0] * len(machine.slots))


def _check_limits(buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
    if buffer.limits is not None and array.size:
        (low, high), least, most = buffer.limits, int(array.min()), int(array.max())
        if least < low or most > high:
            raise InterpError(f"Buffer {buffer.name} must hold {low}..{high}, as it says, not {least}..{most}")


def wrapper(dtype: DType) -> Callable[[int], int]:
    """The function that keeps the low bits of an integer as a number of `dtype`, two's complement if that is signed."""
    (low, high), mask = dtype.limits, (1 << dtype.bits) - 1
    return lambda value: value if low <= value <= high else ((value - low) & mask) + low


def _divisor(value: int) -> int:
    if value == 0:
        raise InterpError("Divisor must not be 0")
    return value


def _amount(value: int, bits: int) -> int:
    if not 0 <= value < bits:
        raise InterpError(f"Shift amount must be in 0..{bits - 1}, not {value}")
    return value


def _to_integer(dtype: DType) -> Callable[[Any], int]:
    low, high = dtype.limits

    def convert(value: Any) -> int:
        if np.isnan(value):
            return 0
        return low if value <= low else high if value >= high else int(value)

    return convert


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """``a * b + c``, rounded once.

    The product is exact in float64; the sum is rounded to odd there, after which rounding to float32 errs no more
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
    """
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)  # of the sum, exactly (Knuth's TwoSum)
    if error != 0 and math.isfinite(total) and int(math.frexp(total)[0] * 2.0**53) % 2 == 0:
        total = math.nextafter(total, math.copysign(math.inf, error))
    return np.float32(total)


_FLOAT: dict[BinaryOp, Callable[[Any, Any], Any]] = {
    BinaryOp.ADD: operator.add,
    BinaryOp.SUB: operator.sub,
    BinaryOp.MUL: operator.mul,
    BinaryOp.DIV: operator.truediv,
    BinaryOp.MIN: lambda a, b: a if a < b else b,
    BinaryOp.MAX: lambda a, b: a if a > b else b,
}

# Which integer operators can leave the range of their type, and so wrap.
_WRAPPING: dict[BinaryOp, Callable[[Eval, Eval, Callable[[int], int]], Eval]] = {
    BinaryOp.ADD: lambda a, b, wrapped: lambda env: wrapped(a(env) + b(env)),
    BinaryOp.SUB: lambda a, b, wrapped: lambda env: wrapped(a(env) - b(env)),
    BinaryOp.MUL: lambda a, b, wrapped: lambda env: wrapped(a(env) * b(env)),
    BinaryOp.FLOORDIV: lambda a, b, wrapped: lambda env: wrapped(a(env) // _divisor(b(env))),
}

_INTEGER: dict[BinaryOp, Callable[[int, int], int]] = {
    BinaryOp.MOD: lambda a, b: a % _divisor(b),
    BinaryOp.MIN: min,
    BinaryOp.MAX: max,
}

_BOOL: dict[BinaryOp, Callable[[Any, Any], bool]] = {
    BinaryOp.AND: lambda a, b: a and b,
    BinaryOp.OR: lambda a, b: a or b,
}

_PLAIN: dict[Kind, Mapping[BinaryOp, Callable[[Any, Any], Any]]] = {
    Kind.BOOL: _BOOL,
    Kind.SIGNED: _INTEGER,
    Kind.UNSIGNED: _INTEGER,
    Kind.FLOAT: _FLOAT,
}
"""Operators whose results fit their type."""

_COMPARE: dict[CompareOp, Callable[[Any, Any], bool]] = {
    CompareOp.LT: lambda a, b: bool(a < b),
    CompareOp.LE: lambda a, b: bool(a <= b),
    CompareOp.EQ: lambda a, b: bool(a == b),
}


def scalar(dtype: DType, value: int | float) -> Any:
    """A constant as the interpreter holds it."""
    if dtype.is_float:
        return dtype.numpy.type(value)
    return bool(value) if dtype is DType.BOOL else wrapper(dtype)(int(value))


def _binary(op: BinaryOp, dtype: DType, a: Eval, b: Eval) -> Eval:
    """``a op b`` on values of `dtype`. Raises InterpError for an operator the type does not have."""
    if dtype.is_integer:
        wrapped, bits = wrapper(dtype), dtype.bits
        if op in _WRAPPING:
            return _WRAPPING[op](a, b, wrapped)
        if op is BinaryOp.SHR:
            return lambda env: a(env) >> _amount(b(env), bits)
        if op is BinaryOp.SHL:
            return lambda env: wrapped(a(env) << _amount(b(env), bits))
    table = _PLAIN[dtype.kind]
    if op not in table:
        raise InterpError(f"Operator {op.value!r} must not be used on {dtype.value}")
    function = table[op]
    return lambda env: function(a(env), b(env))


class _Machine:
    """Compiles a tree to closures. `data` and `shapes` hold flat storage and present shape of buffers by name."""

    def __init__(self, proc: Proc) -> None:
        self.slots = {stmt.var.name: n for n, stmt in enumerate(s for s in walk(proc.body) if isinstance(s, For))}
        self.data: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def bind(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
        flat = array.reshape(-1)
        # A memoryview gives and takes Python ints, faster than numpy; floats stay numpy scalars.
        self.data[buffer.name] = flat if buffer.type.is_float else flat.data
        self.shapes[buffer.name] = array.shape

    # -- expressions

    def expr(self, expr: Expr) -> Eval:
        match expr:
            case Var():
                return operator.itemgetter(self.slots[expr.name])
            case Const():
                value = scalar(expr.type, expr.value)
                return lambda env: value
            case Unary():
                return self.unary(expr)
            case Binary():
                return _binary(expr.op, expr.dtype, self.expr(expr.a), self.expr(expr.b))
            case Fma():
                a, b, c = self.expr(expr.a), self.expr(expr.b), self.expr(expr.c)
                return lambda env: fma(a(env), b(env), c(env))
            case Compare():
                compare, a, b = _COMPARE[expr.op], self.expr(expr.a), self.expr(expr.b)
                return lambda env: compare(a(env), b(env))
            case Select():
                cond, a, b = self.expr(expr.cond), self.expr(expr.a), self.expr(expr.b)
                return lambda env: a(env) if cond(env) else b(env)
            case Cast():
                return self.cast(expr)
            case Load():
                return self.load(expr)
            case _:
                raise InterpError(f"Expression must be one of the IR's, not {expr!r}")

    def unary(self, expr: Unary) -> Eval:
        a = self.expr(expr.a)
        if expr.op is UnaryOp.RINT:
            return lambda env: np.rint(a(env))
        if expr.op is UnaryOp.SQRT:
            return lambda env: np.sqrt(a(env))
        if expr.op is UnaryOp.BITS:
            return lambda env: int(np.float32(a(env)).view(np.int32))
        return lambda env: np.int32(a(env)).view(np.float32)

    def cast(self, expr: Cast) -> Eval:
        a, source, target = self.expr(expr.a), expr.a.dtype, expr.type
        if target is DType.BOOL:
            raise InterpError("Cast must not be to bool, compare instead")
        convert: Callable[[Any], Any]
        if source is target:
            return a
        if target.is_float:  # from numpy's scalar, so that it rounds once
            number, result = source.numpy.type, target.numpy
            return lambda env: number(a(env)).astype(result)
        if source.is_float:
            convert = _to_integer(target)
        elif source is DType.BOOL:
            convert = int
        else:
            convert = wrapper(target)
        return lambda env: convert(a(env))

    def load(self, expr: Load) -> Eval:
        name, offset, data = expr.buffer.name, self.offset(expr.buffer, expr.index), self.data
        return lambda env: data[name][offset(env)]

    def offset(self, buffer: Buffer, index: tuple[Expr, ...]) -> Eval:
        """Row-major position of the element at `index`, checked in every dimension."""
        name, shapes, positions = buffer.name, self.shapes, [self.expr(i) for i in index]
        if all(isinstance(extent, Const) for extent in buffer.shape):  # the common case, and worth half of all time
            pairs = list(zip(positions, buffer.static_shape, strict=True))

            def static_offset(env: Env) -> int:
                offset = 0
                for position, extent in pairs:
                    i = position(env)
                    if not 0 <= i < extent:
                        raise _out_of_range(name, [position(env) for position in positions], buffer.static_shape)
                    offset = offset * extent + i
                return offset

            return static_offset

        def dynamic_offset(env: Env) -> int:
            offset, shape = 0, shapes[name]
            for position, extent in zip(positions, shape, strict=True):
                i = position(env)
                if not 0 <= i < extent:
                    raise _out_of_range(name, [position(env) for position in positions], shape)
                offset = offset * extent + i
            return offset

        return dynamic_offset

    # -- statements

    def body(self, body: Body) -> Exec:
        stmts = [self.stmt(stmt) for stmt in body]
        if len(stmts) == 1:
            return stmts[0]

        def run_all(env: Env) -> None:
            for stmt in stmts:
                stmt(env)

        return run_all

    def stmt(self, stmt: Stmt) -> Exec:
        match stmt:
            case Store():
                return self.store(stmt)
            case Prefetch():
                return lambda env: None
            case For():
                return self.loop(stmt)
            case If():
                cond, then = self.expr(stmt.cond), self.body(stmt.body)
                return lambda env: then(env) if cond(env) else None
            case Alloc():
                return self.alloc(stmt)
            case Mapped():
                return self.body(stmt.body)
            case _:
                raise InterpError(f"Statement must be one of the IR's, not {stmt!r}")

    def store(self, stmt: Store) -> Exec:
        name, offset, data = stmt.buffer.name, self.offset(stmt.buffer, stmt.index), self.data
        value = self.expr(stmt.value)

        def store(env: Env) -> None:
            data[name][offset(env)] = value(env)

        return store

    def loop(self, stmt: For) -> Exec:
        slot, extent, body = self.slots[stmt.var.name], self.expr(stmt.extent), self.body(stmt.body)

        def loop(env: Env) -> None:
            for i in range(extent(env)):
                env[slot] = i
                body(env)

        return loop

    def alloc(self, stmt: Alloc) -> Exec:
        buffer, shape, body = stmt.buffer, [self.expr(extent) for extent in stmt.buffer.shape], self.body(stmt.body)

        def alloc(env: Env) -> None:
            extents = tuple(max(extent(env), 0) for extent in shape)
            nbytes = math.prod(extents) * buffer.type.numpy.itemsize
            array = np.full(nbytes, POISON_BYTE, np.uint8).view(buffer.type.numpy)
            self.bind(buffer, array.reshape(extents))
            body(env)

        return alloc


def _out_of_range(name: str, index: list[int], shape: tuple[int, ...]) -> InterpError:
    position = next(n for n, (i, extent) in enumerate(zip(index, shape, strict=True)) if not 0 <= i < extent)
    rule = f"Index {position} of {name} must be in 0..{shape[position] - 1}"
    return InterpError(f"{rule}, not {index[position]} (index {tuple(index)})")
