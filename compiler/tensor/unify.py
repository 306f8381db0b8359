"""Unification of a loop nest with the declaration of a hardware instruction.

A declaration is a small procedure over one tile: loops over the tile, one store. A nest computes it when its store has
the same form, every buffer lies in the memory that the declaration names, and the trailing dimensions of every access
are the tile, indexed by the nest's own tile loops. What remains of the indices addresses tiles, and the loops left over
repeat the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.tensor.affine import Affine, affine, variables
from compiler.tensor.analysis import innermost
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
    For,
    Load,
    Proc,
    Scope,
    Select,
    Store,
    Unary,
    Var,
    conjuncts,
    constant,
)
from compiler.tensor.traverse import walk_expr

IMMEDIATE = Buffer.of("imm", DType.INT32, (), Scope.LOCAL)
"""In a declaration, stands for any integer constant of 16 bits and a sign, as instructions have room for."""

INSIDE = Buffer.of("inside", DType.BOOL, (), Scope.LOCAL)
"""In a declaration, stands for any condition: which elements are data and which are padding."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tile of `buffer`; `tile` gives its place in each of the leading dimensions."""

    buffer: Buffer
    tile: tuple[Affine, ...]


@dataclass(slots=True)
class Match:
    """How a nest computes an instruction."""

    operands: dict[str, Operand] = field(default_factory=dict)
    loops: list[For] = field(default_factory=list)
    """The loops that repeat the instruction, outermost first."""
    guards: tuple[Expr, ...] = ()
    immediate: int | None = None
    inside: tuple[Expr, ...] = ()


def unify(instruction: Proc, loop: For, *, unplaced: bool = False) -> Match | None:
    """Match the perfect nest at `loop` with `instruction`, or None.

    `unplaced` disregards where buffers lie and that reads are padded, both of which staging will settle.
    """
    found = innermost(loop)
    declared = innermost(instruction.body[0])
    if found is None or declared is None:
        return None
    loops, guards, store = found
    formal_loops, _, formal = declared
    attempt = _Unifier({one.var.name: constant(one.extent) for one in formal_loops}, unplaced)
    attempt.match.guards = guards
    if not (attempt.store(formal, store) and attempt.check_tile_loops(loops)):
        return None
    return attempt.match


class _Unifier:
    def __init__(self, tile: dict[str, int], unplaced: bool) -> None:
        self.tile = tile
        self.unplaced = unplaced
        self.vars: dict[str, str] = {}
        self.match = Match()

    def store(self, formal: Store, actual: Store) -> bool:
        return self._access(Load(formal.buffer, formal.index), Load(actual.buffer, actual.index)) and self._expr(
            formal.value, actual.value
        )

    def check_tile_loops(self, loops: list[For]) -> bool:
        """The innermost loops run over exactly one tile; the others choose the tile and repeat the instruction."""
        bound = set(self.vars.values())
        if len(bound) != len(self.vars):
            return False  # a diagonal
        repeat, tile = loops[: len(loops) - len(bound)], loops[len(loops) - len(bound) :]
        if {loop.var.name for loop in tile} != bound:
            return False
        extents = {loop.var.name: loop.extent for loop in tile}
        for formal, extent in self.tile.items():
            if extents.get(self.vars.get(formal, ""), Const(1)) != Const(extent):
                return False
        self.match.loops = repeat
        places = [form.expr for operand in self.match.operands.values() for form in operand.tile]
        return all(_is_fixed(expr, bound) for expr in (*places, *self.match.guards, *self.match.inside))

    def _expr(self, formal: Expr, actual: Expr) -> bool:
        match formal, actual:
            case (Load(buffer=buffer) | Cast(a=Load(buffer=buffer))), _ if buffer == IMMEDIATE:
                return self._immediate(actual)
            case Load(), Load():
                return self._access(formal, actual)
            case Load(), Select() if self.unplaced:
                return self._expr(formal, actual.a)
            case Const(), Const():
                return formal == actual
            case Cast(), Cast():
                return formal.type is actual.type and self._expr(formal.a, actual.a)
            case Unary(), Unary():
                return formal.op is actual.op and self._expr(formal.a, actual.a)
            case Compare(), Compare():
                return formal.op is actual.op and self._expr(formal.a, actual.a) and self._expr(formal.b, actual.b)
            case Fma(), Fma():
                return self._all((formal.a, formal.b, formal.c), (actual.a, actual.b, actual.c))
            case Select(), Select() if formal.cond.__class__ is Compare:
                return self._all((formal.cond, formal.a, formal.b), (actual.cond, actual.a, actual.b))
            case Select(cond=Load(buffer=buffer)), Select() if buffer == INSIDE:
                self.match.inside = conjuncts(actual.cond)
                return self._expr(formal.a, actual.a) and self._expr(formal.b, actual.b)
            case Binary(), Binary() if formal.op is actual.op:
                if self._both(formal, actual.a, actual.b):
                    return True
                commutes = formal.op in (BinaryOp.ADD, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
                return commutes and formal.dtype.is_integer and self._both(formal, actual.b, actual.a)
            case _:
                return False

    def _all(self, formals: Sequence[Expr], actuals: Sequence[Expr]) -> bool:
        return all(self._expr(formal, actual) for formal, actual in zip(formals, actuals, strict=True))

    def _both(self, formal: Binary, a: Expr, b: Expr) -> bool:
        saved = dict(self.vars), dict(self.match.operands), self.match.immediate, self.match.inside
        if self._expr(formal.a, a) and self._expr(formal.b, b):
            return True
        self.vars, self.match.operands, self.match.immediate, self.match.inside = saved
        return False

    def _immediate(self, actual: Expr) -> bool:
        if not (isinstance(actual, Const) and isinstance(actual.value, int) and -(1 << 15) <= actual.value < 1 << 15):
            return False
        if self.match.immediate not in (None, actual.value):
            return False
        self.match.immediate = actual.value
        return True

    def _access(self, formal: Load, actual: Load) -> bool:
        declared, buffer = formal.buffer, actual.buffer
        if declared.type is not buffer.type or not (self.unplaced or declared.scope is buffer.scope):
            return False
        rank = len(declared.shape)
        lead = len(buffer.shape) - rank
        if lead < 0 or buffer.shape[lead:] != declared.shape:
            return False
        for formal_index, actual_index in zip(formal.index, actual.index[lead:], strict=True):
            # A constant counts the elements of an operand that consists of several.
            if isinstance(formal_index, Const) and formal_index == actual_index:
                continue
            if not (isinstance(formal_index, Var) and self._tile_var(formal_index, actual_index)):
                return False
        operand = Operand(buffer, tuple(affine(index) for index in actual.index[:lead]))
        return self.match.operands.setdefault(declared.name, operand) == operand

    def _tile_var(self, formal: Var, actual: Expr) -> bool:
        if self.tile[formal.name] == 1 and isinstance(actual, Const):
            return constant(actual) == 0
        return isinstance(actual, Var) and self.vars.setdefault(formal.name, actual.name) == actual.name


def _is_fixed(expr: Expr, tile: set[str]) -> bool:
    """Whether `expr` has one value for the whole tile, known from loop variables alone."""
    return not variables(expr) & tile and not any(isinstance(node, Load) for node in walk_expr(expr))
