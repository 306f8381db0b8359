"""Procedures as JSON values, for program files and as keys of caches.

An expression is an integer (a constant index) or a list whose first item says what it is; so is a statement::

    ["const", "int8", 5]   ["var", "i"]   ["load", "x", [index...]]   ["cast", "int32", a]   ["select", cond, a, b]
    ["+", a, b] and the other operators by their value in `ir.py`
    ["store", "x", [index...], value]   ["prefetch", "x", [index...]]
    ["for", "i", extent, "serial", [stmt...]]   ["if", cond, [stmt...]]
    ["alloc", buffer, [stmt...]]   ["mapped", "gemm", [stmt...]]

A buffer is ``["x", "int8", [extent...], "dram"]``, with its limits ``["x", "int8", [extent...], "dram", [low, high]]``.

Files come from strangers: what is read is checked item by item, bounded, and verified.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from typing import Any, TypeVar

from compiler.errors import CompileError
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
)
from compiler.tensor.verify import MAX_EXPRESSION_DEPTH, MAX_STATEMENT_DEPTH, VerifyError, verify

FORMAT = 1
MAX_NODES = 200_000
MAX_RANK = 16
MAX_COPIES = 1 << 16

Json = Any
"""None, bool, int, float, str, and lists and string-keyed dicts of such."""


class SerialError(CompileError):
    """A JSON value is not a procedure. The message says where: a path of positions from the root."""


def to_json(proc: Proc) -> dict[str, Json]:
    """The procedure as a JSON value."""
    return {
        "format": FORMAT,
        "name": proc.name,
        "params": [_write_buffer(buffer) for buffer in proc.params],
        "body": _write_body(proc.body),
    }


def digest(proc: Proc) -> str:
    """Hexadecimal key of the procedure's content: equal for equal procedures, whenever and wherever computed."""
    text = json.dumps(to_json(proc), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def from_json(value: Json) -> Proc:
    """The procedure that `to_json` made `value` of, verified. Any other value raises SerialError and nothing else."""
    proc = _Reader().proc(value)
    try:
        verify(proc)
    except VerifyError as error:
        raise SerialError(f"Procedure must keep the rules of the IR: {error}") from error
    return proc


# -- writing


def _write_buffer(buffer: Buffer) -> Json:
    limits = [] if buffer.limits is None else [list(buffer.limits)]
    return [buffer.name, buffer.type.value, [_write(extent) for extent in buffer.shape], buffer.scope.value, *limits]


def _write_body(body: Body) -> list[Json]:
    return [_write_stmt(stmt) for stmt in body]


def _write_stmt(stmt: Stmt) -> Json:
    match stmt:
        case Store():
            return ["store", stmt.buffer.name, [_write(i) for i in stmt.index], _write(stmt.value)]
        case Prefetch():
            return ["prefetch", stmt.buffer.name, [_write(i) for i in stmt.index]]
        case For():
            return ["for", stmt.var.name, _write(stmt.extent), stmt.kind.value, _write_body(stmt.body)]
        case If():
            return ["if", _write(stmt.cond), _write_body(stmt.body)]
        case Alloc():
            copies = [] if stmt.copies == 1 else [stmt.copies]
            return ["alloc", _write_buffer(stmt.buffer), _write_body(stmt.body), *copies]
        case Mapped():
            return ["mapped", stmt.instruction, _write_body(stmt.body)]
        case _:
            raise SerialError(f"Statement must be one of the IR's, not {stmt!r}")


def _write(expr: Expr) -> Json:
    match expr:
        case Var():
            return ["var", expr.name]
        case Const():
            return _write_const(expr)
        case Unary():
            return [expr.op.value, _write(expr.a)]
        case Binary() | Compare():
            return [expr.op.value, _write(expr.a), _write(expr.b)]
        case Fma():
            return ["fma", _write(expr.a), _write(expr.b), _write(expr.c)]
        case Select():
            return ["select", _write(expr.cond), _write(expr.a), _write(expr.b)]
        case Cast():
            return ["cast", expr.type.value, _write(expr.a)]
        case Load():
            return ["load", expr.buffer.name, [_write(i) for i in expr.index]]
        case _:
            raise SerialError(f"Expression must be one of the IR's, not {expr!r}")


_MOST = (1 << 63) - 1


def _write_const(const: Const) -> Json:
    if const.type is DType.INT64:
        return const.value
    value: Json = const.value
    beyond = value > _MOST if isinstance(value, int) else not math.isfinite(value)
    if beyond:
        value = str(value)  # JSON has no infinity, and a program file no integers beyond 64 bits with a sign
    return ["const", const.type.value, int(value) if const.type is DType.BOOL else value]


# -- reading

_MOST_DIGITS = 20
E = TypeVar("E", bound=enum.Enum)

_UNARY = {op.value: op for op in UnaryOp}
_BINARY = {op.value: op for op in BinaryOp}
_COMPARE = {op.value: op for op in CompareOp}
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

Path = tuple[int | str, ...]


def _refuse(path: Path, sentence: str) -> SerialError:
    return SerialError(f"{sentence} (at {'/'.join(map(str, path)) or 'the root'})")


def _text(value: Json, path: Path) -> str:
    if not isinstance(value, str):
        raise _refuse(path, f"Name must be a string, not {_kind(value)}")
    return value


def _copies(value: Json, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COPIES:
        raise _refuse(path, f"Copies of a buffer must be an integer from 1 to {MAX_COPIES}, not {_kind(value)}")
    return value


def _limits(value: Json, path: Path) -> tuple[int, int]:
    match value:
        case [int() as low, int() as high] if not isinstance(low, bool) and not isinstance(high, bool) and low <= high:
            return low, high
        case _:
            raise _refuse(path, f"Limits of a buffer must be [lowest, highest], not {_kind(value)}")


def _list(value: Json, path: Path, limit: int = MAX_NODES) -> list[Json]:
    if not isinstance(value, list) or len(value) > limit:
        raise _refuse(path, f"Item must be a list of at most {limit}, not {_kind(value)}")
    return value


def _member(kind: type[E], value: Json, path: Path) -> E:
    for member in kind:
        if isinstance(value, str) and member.value == value:
            return member
    raise _refuse(path, f"{kind.__name__} must be one of {', '.join(str(m.value) for m in kind)}, not {_kind(value)}")


def _kind(value: Json) -> str:
    """What a wrong item is, in few words."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = ascii(value) if not isinstance(value, int) or value.bit_length() < 128 else "a huge integer"
    return text if len(text) <= 60 else text[:57] + "..."


class _Reader:
    """Builds expressions and statements, counting them; buffers are found by name in what is declared so far."""

    def __init__(self) -> None:
        self.nodes = 0
        self.buffers: dict[str, Buffer] = {}

    def proc(self, value: Json) -> Proc:
        if not isinstance(value, dict) or set(value) != {"format", "name", "params", "body"}:
            raise _refuse((), f"Procedure must have format, name, params and body, not be {_kind(value)}")
        if value["format"] != FORMAT or isinstance(value["format"], bool):
            raise _refuse(("format",), f"Format must be {FORMAT}, not {_kind(value['format'])}")
        params = tuple(
            self.buffer(item, ("params", n)) for n, item in enumerate(_list(value["params"], ("params",), 1000))
        )
        return Proc(_text(value["name"], ("name",)), params, self.body(value["body"], ("body",), 1))

    def count(self, path: Path) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _refuse(path, f"Procedure must have at most {MAX_NODES} nodes")

    def items(self, value: Json, path: Path, *names: str) -> list[Json]:
        """The items of a list that must have one for each of `names`."""
        found = _list(value, path)
        if len(found) != len(names):
            raise _refuse(path, f"Item must be [{', '.join(names)}], not a list of {len(found)}")
        return found

    def buffer(self, value: Json, path: Path) -> Buffer:
        self.count(path)
        limits = None
        if isinstance(value, list) and len(value) == 5:
            *value, last = value
            limits = _limits(last, path)
        name, dtype, shape, scope = self.items(value, path, "name", "type", "shape", "scope")
        buffer = Buffer(
            _text(name, path), _member(DType, dtype, path), self.exprs(shape, path), _member(Scope, scope, path), limits
        )
        if buffer.name in self.buffers:
            raise _refuse(path, f"Name of a buffer must be unique, not {_kind(name)} again")
        self.buffers[buffer.name] = buffer
        return buffer

    def known(self, value: Json, path: Path) -> Buffer:
        name = _text(value, path)
        if name not in self.buffers:
            raise _refuse(path, f"Buffer must be declared before its use, not {_kind(name)}")
        return self.buffers[name]

    # -- statements

    def body(self, value: Json, path: Path, depth: int) -> Body:
        if depth > MAX_STATEMENT_DEPTH + 1:
            raise _refuse(path, f"Statements must be nested at most {MAX_STATEMENT_DEPTH} deep")
        return tuple(self.stmt(item, (*path, n), depth) for n, item in enumerate(_list(value, path)))

    def stmt(self, value: Json, path: Path, depth: int) -> Stmt:
        self.count(path)
        match _list(value, path):
            case ["store", buffer, index, stored]:
                return Store(self.known(buffer, path), self.exprs(index, (*path, 2)), self.expr(stored, (*path, 3)))
            case ["prefetch", buffer, index]:
                return Prefetch(self.known(buffer, path), self.exprs(index, (*path, 2)))
            case ["for", var, extent, kind, body]:
                loop = self.expr(extent, (*path, 2))
                inner = self.body(body, (*path, 4), depth + 1)
                return For(Var(_text(var, path)), loop, inner, _member(LoopKind, kind, path))
            case ["if", cond, body]:
                return If(self.expr(cond, (*path, 1)), self.body(body, (*path, 2), depth + 1))
            case ["alloc", buffer, body, *copies] if len(copies) <= 1:
                places = _copies(copies[0], path) if copies else 1
                return Alloc(self.buffer(buffer, (*path, 1)), self.body(body, (*path, 2), depth + 1), places)
            case ["mapped", instruction, body]:
                return Mapped(_text(instruction, path), self.body(body, (*path, 2), depth + 1))
            case other:
                head = f"{_kind(other[0])} with {len(other) - 1} operands" if other else "nothing"
                raise _refuse(path, f"Statement must be a store, prefetch, for, if, alloc or mapped, not {head}")

    # -- expressions

    def exprs(self, value: Json, path: Path) -> tuple[Expr, ...]:
        return tuple(self.expr(item, (*path, n)) for n, item in enumerate(_list(value, path, MAX_RANK)))

    def expr(self, value: Json, path: Path, depth: int = 1) -> Expr:
        self.count(path)
        if depth > MAX_EXPRESSION_DEPTH:
            raise _refuse(path[:20], f"Expressions must be at most {MAX_EXPRESSION_DEPTH} deep")
        if isinstance(value, int) and not isinstance(value, bool):
            return Const(value)

        def operand(n: int) -> Expr:
            return self.expr(value[n], (*path, n), depth + 1)

        match _list(value, path):
            case ["var", name]:
                return Var(_text(name, path))
            case ["const", dtype, number]:
                return self.const(_member(DType, dtype, path), number, path)
            case ["load", buffer, index]:
                positions = enumerate(_list(index, path, MAX_RANK))
                where = tuple(self.expr(item, (*path, 2, n), depth + 1) for n, item in positions)
                return Load(self.known(buffer, path), where)
            case ["cast", dtype, _]:
                return Cast(_member(DType, dtype, path), operand(2))
            case ["fma", _, _, _]:
                return Fma(operand(1), operand(2), operand(3))
            case ["select", _, _, _]:
                return Select(operand(1), operand(2), operand(3))
            case [str() as op, _] if op in _UNARY:
                return Unary(_UNARY[op], operand(1))
            case [str() as op, _, _] if op in _BINARY:
                return Binary(_BINARY[op], operand(1), operand(2))
            case [str() as op, _, _] if op in _COMPARE:
                return Compare(_COMPARE[op], operand(1), operand(2))
            case other:
                head = f"{_kind(other[0])} with {len(other) - 1} operands" if other else "nothing"
                raise _refuse(path, f"Expression must be one of the IR's, not {head}")

    def const(self, dtype: DType, number: Json, path: Path) -> Const:
        if isinstance(number, str) and number in _NOT_FINITE:
            number = _NOT_FINITE[number]
        if dtype is DType.UINT64 and isinstance(number, str) and number.isascii() and number.isdecimal():
            number = int(number[:_MOST_DIGITS])
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise _refuse(path, f"Constant must be a number, not {_kind(number)}")
        return Const(number, dtype)
