"""Which nests compute a hardware instruction, and which only look as if."""

from __future__ import annotations

import pytest

from compiler.tensor.affine import affine
from compiler.tensor.ir import (
    Alloc,
    Binary,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Proc,
    Scope,
    Select,
    Store,
    Unary,
    UnaryOp,
    Var,
    both,
    cast,
    le,
    lt,
    maximum,
    minimum,
    nest,
)
from compiler.tensor.unify import IMMEDIATE, INSIDE, unify
from compiler.vta.instructions import InstructionSet
from vta_hw.spec.config import VTAConfig

I8, I32 = DType.INT8, DType.INT32
B, C = 2, 4
"""Rows and columns of a tile of the machine declared here; its weights are C x C."""

ACC = Buffer.of("dst", I32, (B, C), Scope.ACC)
SRC = Buffer.of("src", I32, (B, C), Scope.ACC)
INP = Buffer.of("inp", I8, (B, C), Scope.INP)
WGT = Buffer.of("wgt", I8, (C, C), Scope.WGT)
FN, FO, FI = Var("n"), Var("o"), Var("i")


def declare(loops: list[tuple[str, int | Expr]], to: Buffer, value: Expr) -> Proc:
    return Proc("insn", (), (nest(loops, Store(to, (FN, FO), value)),))


PLANE: list[tuple[str, int | Expr]] = [("n", B), ("o", C)]
GEMM = declare([*PLANE, ("i", C)], ACC, ACC[FN, FO] + cast(I32, Load(INP, (FN, FI))) * cast(I32, Load(WGT, (FO, FI))))
ADD = declare(PLANE, ACC, ACC[FN, FO] + SRC[FN, FO])
MAX_IMM = declare(PLANE, ACC, maximum(ACC[FN, FO], IMMEDIATE[()]))
SHR_IMM = declare(PLANE, ACC, ACC[FN, FO] >> IMMEDIATE[()])
RESET = declare(PLANE, ACC, Const(0, I32))
DRAM = Buffer.of("src", I8, (B, C))
LOAD = declare(PLANE, INP, Load(DRAM, (FN, FO)))
LOAD_PAD = declare(PLANE, INP, Select(INSIDE[()], Load(DRAM, (FN, FO)), Const(0, I8)))

P, N, O_, I_ = Var("p"), Var("nn"), Var("oo"), Var("ii")
A = Buffer.of("A", I32, (3, B, C), Scope.ACC)
A2 = Buffer.of("A2", I32, (3, B, C), Scope.ACC)
X = Buffer.of("X", I8, (3, B, C), Scope.INP)
W = Buffer.of("W", I8, (3, C, C), Scope.WGT)
D = Buffer.of("D", I8, (3, B, C))


def tile(value: Expr, to: Buffer = A, at: tuple[Expr, ...] = (P, N, O_), last: int | None = None) -> For:
    loops: list[tuple[str, int | Expr]] = [("p", 3), ("nn", B), ("oo", C)]
    return nest([*loops, ("ii", last)] if last else loops, Store(to, at, value))


def product(x: Expr, w: Expr) -> Expr:
    return cast(I32, x) * cast(I32, w)


def gemm(value: Expr) -> For:
    return tile(value, last=C)


OWN = A[P, N, O_]
DOT = product(X[P, N, I_], W[P, O_, I_])


# -- what matches


@pytest.mark.parametrize("value", [OWN + DOT, DOT + OWN, OWN + product(W[P, O_, I_], X[P, N, I_])])
def test_gemm_in_any_order_of_operands(value: Expr) -> None:
    match = unify(GEMM, gemm(value))
    assert match is not None
    assert {name: operand.buffer for name, operand in match.operands.items()} == {"dst": A, "inp": X, "wgt": W}
    assert all(operand.tile == (affine(P),) for operand in match.operands.values())
    assert [loop.var.name for loop in match.loops] == ["p"]
    assert (match.guards, match.immediate, match.inside) == ((), None, ())


def test_tiles_may_be_traversed_in_any_order() -> None:
    loops: list[tuple[str, int | Expr]] = [("p", 3), ("ii", C), ("oo", C), ("nn", B)]
    assert unify(GEMM, nest(loops, Store(A, (P, N, O_), OWN + DOT))) is not None


def test_place_and_repetition_of_a_tile() -> None:
    big = Buffer.of("A", I32, (4, 9, B, C), Scope.ACC)
    at: tuple[Expr, ...] = (Var("q"), P * 2 + Var("r") + 1, N, O_)
    loops: list[tuple[str, int | Expr]] = [("q", 4), ("p", 3), ("r", minimum(P + 1, 2)), ("nn", B), ("oo", C)]
    match = unify(RESET, nest(loops, Store(big, at, Const(0, I32))))
    assert match is not None
    assert [loop.var.name for loop in match.loops] == ["q", "p", "r"]
    assert match.operands["dst"].tile == (affine(Var("q")), affine(P * 2 + Var("r") + 1))


def test_register_and_immediate() -> None:
    register = unify(ADD, tile(A2[P, N, O_] + OWN))
    assert register is not None
    assert (register.operands["dst"].buffer, register.operands["src"].buffer) == (A, A2)
    immediate = unify(MAX_IMM, tile(maximum(Const(-7, I32), OWN)))
    assert immediate is not None
    assert immediate.immediate == -7


def test_guards_on_what_is_repeated() -> None:
    loop = nest([("p", 3)], If(both(le(1, P), lt(P, 3)), (nest(PLANE_LOOPS, Store(A, (P, N, O_), Const(0, I32))),)))
    match = unify(RESET, loop)
    assert match is not None
    assert match.guards == (le(1, P), lt(P, 3))


PLANE_LOOPS: list[tuple[str, int | Expr]] = [("nn", B), ("oo", C)]


def test_padding() -> None:
    inside = both(le(0, P - 1), lt(P - 1, 3))
    padded = Select(inside, Load(D, (P - 1, N, O_)), Const(0, I8))
    match = unify(LOAD_PAD, tile(padded, X))
    assert match is not None
    assert match.inside == (le(0, P - 1), lt(P - 1, 3))
    assert unify(LOAD, tile(padded, X)) is None
    assert unify(LOAD_PAD, tile(Load(D, (P, N, O_)), X)) is None
    assert unify(LOAD, tile(Load(D, (P, N, O_)), X)) is not None


def test_one_row_needs_no_loop() -> None:
    row = Buffer.of("dst", I32, (1, C), Scope.ACC)
    reset = Proc("reset", (), (nest([("n", 1), ("o", C)], Store(row, (FN, FO), Const(0, I32))),))
    rows = Buffer.of("A", I32, (3, 1, C), Scope.ACC)
    assert unify(reset, nest([("p", 3), ("oo", C)], Store(rows, (P, Const(0), O_), Const(0, I32)))) is not None
    assert unify(reset, nest([("p", 3), ("nn", 1), ("oo", C)], Store(rows, (P, N, O_), Const(0, I32)))) is not None
    assert unify(RESET, nest([("p", 3), ("oo", C)], Store(A, (P, Const(0), O_), Const(0, I32)))) is None


def test_kinds_and_mapping_do_not_matter() -> None:
    loop = For(P, Const(3), (Mapped("old", tile(Const(0, I32)).body),), LoopKind.VTHREAD)
    assert unify(RESET, loop) is not None


def test_unplaced_disregards_memory_and_padding() -> None:
    here = [Buffer.of(b.name, b.type, b.static_shape, Scope.LOCAL) for b in (A, X, W)]
    a, x, w = here
    read = Select(lt(P, 2), Load(x, (P, N, I_)), Const(0, I8))
    loop = nest([("p", 3), *PLANE_LOOPS, ("ii", C)], Store(a, (P, N, O_), a[P, N, O_] + product(read, w[P, O_, I_])))
    assert unify(GEMM, loop) is None
    match = unify(GEMM, loop, unplaced=True)
    assert match is not None
    assert match.operands["inp"].buffer == x


# -- what does not


def moved(buffer: Buffer, scope: Scope) -> Buffer:
    return Buffer.of(buffer.name, buffer.type, buffer.static_shape, scope)


def typed(buffer: Buffer, dtype: DType) -> Buffer:
    return Buffer.of(buffer.name, dtype, buffer.static_shape, buffer.scope)


REFUSED: dict[str, tuple[Proc, For]] = {
    "wrong scope of the result": (RESET, tile(Const(0, I32), moved(A, Scope.LOCAL))),
    "wrong scope of an operand": (GEMM, gemm(OWN + product(moved(X, Scope.WGT)[P, N, I_], W[P, O_, I_]))),
    "wrong type of an operand": (
        GEMM,
        gemm(OWN + product(typed(X, DType.INT16)[P, N, I_], W[P, O_, I_])),
    ),
    "wrong type of the result": (
        RESET,
        tile(Const(0, DType.INT16), typed(A, DType.INT16)),
    ),
    "another constant": (RESET, tile(Const(1, I32))),
    "another operation": (ADD, tile(OWN * A2[P, N, O_])),
    "operands that do not commute": (SHR_IMM, tile(Const(3, I32) >> OWN)),
    "a register for an immediate": (MAX_IMM, tile(maximum(OWN, A2[P, N, O_]))),
    "an immediate for a register": (ADD, tile(OWN + 3)),
    "no accumulation": (GEMM, gemm(DOT)),
    "another accumulator": (GEMM, gemm(A2[P, N, O_] + DOT)),
    "another place of the accumulator": (GEMM, gemm(A[2 - P, N, O_] + DOT)),
    "permuted indices of the result": (
        RESET,
        tile(Const(0, I32), Buffer.of("A", I32, (3, C, B), Scope.ACC), (P, O_, N)),
    ),
    "transposed weights": (GEMM, gemm(OWN + product(X[P, N, I_], W[P, I_, O_]))),
    "rows of one operand in columns of another": (ADD, tile(OWN + Buffer.of("S", I32, (3, C, B), Scope.ACC)[P, O_, N])),
    "a tile that is not whole": (
        RESET,
        nest([("p", 3), ("nn", B), ("oo", C - 1)], Store(A, (P, N, O_), Const(0, I32))),
    ),
    "a ragged tile": (
        RESET,
        nest([("p", 3), ("nn", B), ("oo", minimum(P + 2, C))], Store(A, (P, N, O_), Const(0, I32))),
    ),
    "a shifted tile": (
        RESET,
        nest([("p", 3), ("nn", B), ("oo", C)], Store(A, (P, N, O_ * -1 + 3), Const(0, I32))),
    ),
    "a tile loop that is not innermost": (
        RESET,
        nest([("nn", B), ("oo", C), ("p", 3)], Store(A, (P, N, O_), Const(0, I32))),
    ),
    "a tile chosen by a tile loop": (RESET, tile(Const(0, I32), at=(N, N, O_))),
    "a tile chosen by part of a tile loop": (RESET, tile(Const(0, I32), at=(O_ // 2, N, O_))),
    "a tile chosen by an extremum of a tile loop": (RESET, tile(Const(0, I32), at=(minimum(O_, P), N, O_))),
    "a tile chosen by memory": (RESET, tile(Const(0, I32), at=(cast(DType.INT64, A2[P, 0, 0]) % 3, N, O_))),
    "a diagonal of the weights": (
        GEMM,
        nest([("p", 3), *PLANE_LOOPS], Store(A, (P, N, O_), OWN + product(X[P, N, O_], W[P, O_, O_]))),
    ),
    "a guard on the tile": (
        RESET,
        nest([("p", 3), *PLANE_LOOPS], If(lt(O_, 2), (Store(A, (P, N, O_), Const(0, I32)),))),
    ),
    "a guard on memory": (
        RESET,
        nest(
            [("p", 3), *PLANE_LOOPS], If(lt(0, cast(DType.INT64, A2[P, 0, 0])), (Store(A, (P, N, O_), Const(0, I32)),))
        ),
    ),
    "padding within the tile": (LOAD_PAD, tile(Select(lt(O_, 2), Load(D, (P, N, O_)), Const(0, I8)), X)),
    "padding with another constant": (LOAD_PAD, tile(Select(lt(P, 2), Load(D, (P, N, O_)), Const(1, I8)), X)),
    "a conversion": (LOAD, tile(cast(I8, A[P, N, O_]), X)),
    "a missing conversion": (LOAD, tile(cast(I32, Load(D, (P, N, O_))), A)),
    "another function": (
        declare(PLANE, Buffer.of("dst", DType.FLOAT32, (B, C)), Unary(UnaryOp.RINT, Const(1.0, DType.FLOAT32))),
        tile(
            Unary(UnaryOp.BITCAST, Const(1, I32)),
            Buffer.of("F", DType.FLOAT32, (3, B, C)),
        ),
    ),
    "two statements": (
        RESET,
        For(P, Const(3), (tile(Const(0, I32)), nest([("q", 2)], Store(A, (P, P, P), Const(0, I32))))),
    ),
    "an allocation between": (RESET, For(P, Const(3), (Alloc(A2, tile(Const(0, I32)).body),))),
    "too few dimensions": (RESET, nest([("oo", C)], Store(Buffer.of("A", I32, (C,), Scope.ACC), (O_,), Const(0, I32)))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_match(name: str) -> None:
    instruction, loop = REFUSED[name]
    assert unify(instruction, loop) is None


def test_a_diagonal_plane() -> None:
    square = Buffer.of("dst", I32, (C, C), Scope.ACC)
    reset = Proc("reset", (), (nest([("n", C), ("o", C)], Store(square, (FN, FO), Const(0, I32))),))
    actual = Buffer.of("A", I32, (3, C, C), Scope.ACC)
    assert unify(reset, nest([("p", 3), ("oo", C)], Store(actual, (P, O_, O_), Const(0, I32)))) is None


def test_float_operands_do_not_commute() -> None:
    """The minimum of a number and a NaN is its second operand."""
    f, g = (Buffer.of(name, DType.FLOAT32, (C,)) for name in "fg")
    h, k = (Buffer.of(name, DType.FLOAT32, (3, C)) for name in "hk")
    least = Proc("least", (), (nest([("o", C)], Store(f, (FO,), minimum(f[(FO,)], g[(FO,)]))),))

    def of(value: Expr) -> For:
        return nest([("p", 3), ("oo", C)], Store(h, (P, O_), value))

    assert unify(least, of(minimum(h[P, O_], k[P, O_]))) is not None
    assert unify(least, of(minimum(k[P, O_], h[P, O_]))) is None


def test_one_immediate_only() -> None:
    twice = declare(PLANE, ACC, minimum(maximum(ACC[FN, FO], IMMEDIATE[()]), IMMEDIATE[()]))
    assert unify(twice, tile(minimum(maximum(OWN, 5), 5))) is not None
    assert unify(twice, tile(minimum(maximum(OWN, -5), 5))) is None


def test_a_failed_order_of_operands_leaves_nothing_behind() -> None:
    """The first attempt binds inp to A2's tile before it fails on the other operand."""
    formal = declare(PLANE, ACC, SRC[FN, FO] * IMMEDIATE[()] + ACC[FN, FO])
    match = unify(formal, tile(OWN + A2[P, N, O_] * 9))
    assert match is not None
    assert (match.immediate, match.operands["src"].buffer) == (9, A2)


# -- the real instruction set


@pytest.mark.parametrize("config", [VTAConfig(), VTAConfig(log_batch=1), VTAConfig(log_batch=4)])
def test_every_declaration_matches_itself_and_no_other(config: VTAConfig) -> None:
    """As it stands in a program: with other names, a place and a repetition."""
    instructions = InstructionSet(config).all
    for one in instructions:
        matching = [other.name for other in instructions if unify(other.meaning, _placed(one.meaning)) is not None]
        assert one.name in matching
        assert matching == [one.name], matching


def _placed(meaning: Proc) -> For:
    """The nest of a declaration as it occurs in a program: one more dimension, loops of other names."""
    (loop,) = meaning.body
    assert isinstance(loop, For)

    def expr(e: Expr) -> Expr:
        match e:
            case Var(name):
                return Var(f"actual.{name}")
            case Load(buffer=buffer) if buffer == IMMEDIATE:
                return Const(42, I32)
            case Load(buffer=buffer) if buffer == INSIDE:
                return lt(Var("actual.p"), 2)
            case Load():
                return Load(_leading(e.buffer), (Var("actual.p"), *(expr(i) for i in e.index)))
            case Binary():
                return Binary(e.op, expr(e.a), expr(e.b))
            case Select():
                return Select(expr(e.cond), expr(e.a), expr(e.b))
            case _ if hasattr(e, "a"):
                return cast(e.dtype, expr(e.a))
            case _:
                return e

    def stmt(s: For | Store) -> For | Store:
        if isinstance(s, Store):
            return Store(_leading(s.buffer), (Var("actual.p"), *(expr(i) for i in s.index)), expr(s.value))
        (inner,) = s.body
        assert isinstance(inner, For | Store)
        return For(Var(f"actual.{s.var.name}"), s.extent, (stmt(inner),))

    return For(Var("actual.p"), Const(3), (stmt(loop),))


def _leading(buffer: Buffer) -> Buffer:
    return Buffer(f"actual.{buffer.name}", buffer.type, (Const(3), *buffer.shape), buffer.scope)
