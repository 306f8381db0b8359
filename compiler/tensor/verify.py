"""The rules of the tensor IR, checked.

A verified procedure has a meaning and can be compiled and run even if its author is not trusted: every access is within
its buffer, no division is by zero, no shift leaves its range, and the memory it needs is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from compiler.errors import CompileError
from compiler.tensor.arguments import written
from compiler.tensor.interval import Interval, interval, loop_interval
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
from compiler.tensor.printer import format_expr, format_stmt
from compiler.tensor.prove import Facts, Prover
from compiler.tensor.traverse import children, walk_expr

MAX_STATEMENT_DEPTH = 64
MAX_EXPRESSION_DEPTH = 100
MAX_NAME = 200
MAX_BYTES = 1 << 36
"""Of one buffer, and of all allocated buffers together."""

_INTEGER_OPS = frozenset(BinaryOp) - {BinaryOp.DIV, BinaryOp.AND, BinaryOp.OR}
_OPS: Mapping[Kind, frozenset[BinaryOp]] = {
    Kind.BOOL: frozenset({BinaryOp.AND, BinaryOp.OR}),
    Kind.SIGNED: _INTEGER_OPS,
    Kind.UNSIGNED: _INTEGER_OPS,
    Kind.FLOAT: frozenset({BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.DIV, BinaryOp.MIN, BinaryOp.MAX}),
}
_UNARY_OPERAND = {op: DType.INT32 if op is UnaryOp.BITCAST else DType.FLOAT32 for op in UnaryOp}


class VerifyError(CompileError):
    """A procedure breaks a rule of the IR. The message names the procedure, the statement and the rule."""


def verify(proc: Proc) -> None:
    """Raise VerifyError unless `proc` keeps every rule of `compiler.tensor.ir`."""
    _Verifier(proc).run()


class _BrokenRule(Exception):
    """The sentence; `_Verifier.stmt` adds where."""


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise _BrokenRule(sentence)


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """What holds where a statement or expression stands."""

    ranges: Mapping[str, Interval] = field(default_factory=dict)
    buffers: Mapping[str, Buffer] = field(default_factory=dict)
    facts: Facts = ()
    depth: int = 0

    def where(self, facts: Facts) -> _Scope:
        return replace(self, facts=(*self.facts, *facts))


class _Verifier:
    def __init__(self, proc: Proc) -> None:
        self.proc = proc
        self.names: set[str] = set()
        self.allocated = 0
        self.prover = Prover(frozenset(buffer.name for buffer in proc.params) - written(proc))

    def run(self) -> None:
        try:
            _require_name("Name of a procedure", self.proc.name)
            for buffer in self.proc.params:
                self.declare("buffer", buffer.name)
                self.parameter(buffer)
        except _BrokenRule as broken:
            raise VerifyError(f"{broken} (in the parameters of {ascii(self.proc.name)[1:-1]})") from None
        self.body(_Scope(buffers={buffer.name: buffer for buffer in self.proc.params}), self.proc.body)

    def declare(self, kind: str, name: str) -> None:
        _require_name(f"Name of a {kind}", name)
        key = f"{kind} {name}"
        _require(key not in self.names, f"Name of a {kind} must be unique, not {name!r} again")
        self.names.add(key)

    def parameter(self, buffer: Buffer) -> None:
        _require_limits(buffer)
        for extent in buffer.shape:
            fits = isinstance(extent, Const) and isinstance(extent.value, int) and extent.dtype is DType.INT64
            text = f"Shape of parameter {buffer.name} must be constants of at least 0, not {format_expr(extent)}"
            _require(fits and extent.value >= 0, text)  # type: ignore[attr-defined]  # `fits` says it is a Const
        _require_size(buffer, math.prod(buffer.static_shape) * buffer.type.numpy.itemsize)

    # -- statements

    def body(self, at: _Scope, body: Body) -> None:
        for stmt in body:
            try:
                inner = self.stmt(replace(at, depth=at.depth + 1), stmt)
            except _BrokenRule as broken:
                raise VerifyError(f"{broken} (in {self.proc.name}: {_shortened(stmt)})") from None
            if isinstance(stmt, For | If | Alloc | Mapped):
                self.body(inner, stmt.body)

    def stmt(self, at: _Scope, stmt: Stmt) -> _Scope:
        """Check a statement itself; gives the scope of its body."""
        _require(at.depth <= MAX_STATEMENT_DEPTH, f"Statements must be nested at most {MAX_STATEMENT_DEPTH} deep")
        match stmt:
            case Store():
                self.expression(at, stmt.value)
                self.access(at, stmt.buffer, stmt.index)
                _require_type("Stored value", stmt.value, stmt.buffer.type)
                return at
            case Prefetch():
                self.access(at, stmt.buffer, stmt.index)
                return at
            case For():
                self.expression(at, stmt.extent)
                _require_type("Extent", stmt.extent, DType.INT64)
                _require_no_load("Extent", stmt.extent)
                self.declare("loop", stmt.var.name)
                ranges = {**at.ranges, stmt.var.name: loop_interval(stmt.extent, at.ranges)}
                facts = self.prover.loop_facts(stmt.var, stmt.extent, ranges)
                return replace(at, ranges=ranges).where(facts)
            case If():
                self.expression(at, stmt.cond)
                _require_type("Condition", stmt.cond, DType.BOOL)
                return at.where(self.prover.facts(stmt.cond, at.ranges))
            case Alloc():
                self.alloc(at, stmt.buffer)
                return replace(at, buffers={**at.buffers, stmt.buffer.name: stmt.buffer})
            case Mapped():
                _require_name("Instruction of a mapped nest", stmt.instruction)
                return at
            case _:
                raise _BrokenRule(f"Statement must be one of the IR's, not a {type(stmt).__name__}")

    def alloc(self, at: _Scope, buffer: Buffer) -> None:
        self.declare("buffer", buffer.name)
        _require_limits(buffer)
        for extent in buffer.shape:
            self.expression(at, extent)
            _require_type("Shape", extent, DType.INT64)
            _require_no_load("Shape", extent)
        extents = [max(interval(extent, at.ranges)[1], 0) for extent in buffer.shape]
        nbytes = math.prod(extents) * buffer.type.numpy.itemsize
        _require_size(buffer, nbytes)
        self.allocated += nbytes
        _require(self.allocated <= MAX_BYTES, f"Allocated buffers must take at most {MAX_BYTES} bytes together")

    # -- expressions

    def expression(self, at: _Scope, expr: Expr) -> None:
        _require(_depth_within(expr, MAX_EXPRESSION_DEPTH), f"Expressions must be at most {MAX_EXPRESSION_DEPTH} deep")
        self.expr(at, expr)

    def expr(self, at: _Scope, expr: Expr) -> None:
        if isinstance(expr, Select):
            self.select(at, expr)
            return
        if isinstance(expr, Load):
            self.access(at, expr.buffer, expr.index)
            return
        for child in children(expr):
            self.expr(at, child)
        match expr:
            case Var():
                _require(expr.name in at.ranges, f"Loop variable must be that of an enclosing loop, not {expr.name}")
            case Const():
                _check_const(expr)
            case Unary():
                _require_type(f"Operand of {expr.op.value}", expr.a, _UNARY_OPERAND[expr.op])
            case Binary():
                self.binary(at, expr)
            case Fma():
                for each in (expr.a, expr.b, expr.c):
                    _require_type("Operand of fma", each, DType.FLOAT32)
            case Compare():
                _require_alike(f"Operands of {expr.op.value}", expr.a, expr.b)
                _require_arithmetic(f"Operands of {expr.op.value}", expr.a.dtype)
                ordered = expr.op is CompareOp.EQ or expr.a.dtype is not DType.BOOL
                _require(ordered, f"Operands of {expr.op.value} must be numbers, not bool")
            case Cast():
                _require(expr.type is not DType.BOOL, "Cast must not be to bool, compare instead")
                pair = {expr.type, expr.a.dtype}
                text = f"Cast of float16 must be to or from float32, not from {expr.a.dtype.value} to {expr.type.value}"
                _require(DType.FLOAT16 not in pair or pair <= {DType.FLOAT16, DType.FLOAT32}, text)
            case _:
                raise _BrokenRule(f"Expression must be one of the IR's, not a {type(expr).__name__}")

    def binary(self, at: _Scope, expr: Binary) -> None:
        _require_alike(f"Operands of {expr.op.value}", expr.a, expr.b)
        dtype = expr.dtype
        _require_arithmetic(f"Operands of {expr.op.value}", dtype)
        _require(expr.op in _OPS[dtype.kind], f"Operator {expr.op.value} must not be used on {dtype.value}")
        if expr.op in (BinaryOp.FLOORDIV, BinaryOp.MOD):
            proven = self.prover.at_least(Const(1), expr.b, at.facts, at.ranges)
            _require(proven, f"Divisor must be proven to be at least 1, not {format_expr(expr.b)}")
        elif expr.op in (BinaryOp.SHR, BinaryOp.SHL):
            proven = self.within(at, expr.b, Const(dtype.bits))
            text = f"Shift amount must be proven to lie in 0..{dtype.bits - 1}, not {format_expr(expr.b)}"
            _require(proven, text)

    def select(self, at: _Scope, expr: Select) -> None:
        self.expr(at, expr.cond)
        _require_type("Condition", expr.cond, DType.BOOL)
        self.expr(at.where(self.prover.facts(expr.cond, at.ranges)), expr.a)
        self.expr(at.where(self.prover.negated_facts(expr.cond, at.ranges)), expr.b)
        _require_alike("Operands of a select", expr.a, expr.b)

    def access(self, at: _Scope, buffer: Buffer, index: tuple[Expr, ...]) -> None:
        name = buffer.name
        _require(name in at.buffers, f"Buffer must be a parameter or allocated around its use, not {name}")
        _require(buffer == at.buffers[name], f"Buffer {name} must be used as it was declared")
        rank = len(buffer.shape)
        _require(len(index) == rank, f"Index of {buffer.name} must have {rank} positions, not {len(index)}")
        for position, (expr, extent) in enumerate(zip(index, buffer.shape, strict=True)):
            self.expression(at, expr)
            _require_type(f"Index {position} of {buffer.name}", expr, DType.INT64)
            claim = f"Index {position} of {buffer.name} must be proven to lie in 0 <= i < {format_expr(extent)}"
            _require(self.within(at, expr, extent), f"{claim}, not {format_expr(expr)}")

    def within(self, at: _Scope, expr: Expr, extent: Expr) -> bool:
        """Whether ``0 <= expr < extent`` is proven."""
        last = Binary(BinaryOp.SUB, extent, Const(1))
        return self.prover.at_least(Const(0), expr, at.facts, at.ranges) and self.prover.at_least(
            expr, last, at.facts, at.ranges
        )


def _require_name(what: str, name: str) -> None:
    holds = 0 < len(name) <= MAX_NAME and name.isprintable()
    _require(holds, f"{what} must be 1 to {MAX_NAME} printable characters, not {name[:MAX_NAME]!a}")


def _require_type(what: str, expr: Expr, dtype: DType) -> None:
    _require(expr.dtype is dtype, f"{what} must be {dtype.value}, not {expr.dtype.value}")


def _require_alike(what: str, a: Expr, b: Expr) -> None:
    _require(a.dtype is b.dtype, f"{what} must have one type, not {a.dtype.value} and {b.dtype.value}")


def _require_arithmetic(what: str, dtype: DType) -> None:
    _require(dtype is not DType.FLOAT16, f"{what} must not be float16, which is only stored")


def _require_no_load(what: str, expr: Expr) -> None:
    reads = any(isinstance(node, Load) for node in walk_expr(expr))
    _require(not reads, f"{what} must not read memory, as does {format_expr(expr)}")


def _require_limits(buffer: Buffer) -> None:
    if buffer.limits is not None:
        low, high = buffer.limits if buffer.type.is_integer else (1, 0)
        least, most = buffer.type.limits
        text = f"Limits of buffer {buffer.name} must be integers of its type, {buffer.type.value}, not {buffer.limits}"
        _require(least <= low <= high <= most, text)


def _require_size(buffer: Buffer, nbytes: int) -> None:
    _require(nbytes <= MAX_BYTES, f"Buffer {buffer.name} must take at most {MAX_BYTES} bytes, not {nbytes}")


def _check_const(const: Const) -> None:
    value, dtype = const.value, const.type
    _require_arithmetic("Constant", dtype)
    if dtype.is_float:
        fits = isinstance(value, float) or abs(value) < 1 << 128
        _require(fits, f"Constant of {dtype.value} must be a number below 2**128")
        return
    low, high = dtype.limits
    fits = isinstance(value, int) and low <= value <= high
    _require(fits, f"Constant of {dtype.value} must be in {low}..{high}, not {value!r}")


def _depth_within(expr: Expr, depth: int) -> bool:
    return depth > 0 and all(_depth_within(child, depth - 1) for child in children(expr))


def _shortened(stmt: Stmt) -> str:
    text = format_stmt(stmt)
    return text if len(text) <= 200 else text[:197] + "..."
