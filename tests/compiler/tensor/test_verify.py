"""The verifier: what programs need proven is proven, and every refusal has its sentence."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.tensor.interp import InterpError, run
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
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
    LoopKind,
    Mapped,
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
    nest,
)
from compiler.tensor.verify import VerifyError, verify
from tests.compiler.tensor.random_procs import random_array, random_proc

X = Buffer.of("x", DType.INT8, (56,))
Y = Buffer.of("y", DType.INT8, (8, 7))
T = Buffer.of("t", DType.INT32, (56,))
ZERO = Const(0, DType.INT8)
HALF = Cast(DType.FLOAT16, Const(0.5, DType.FLOAT32))
N, J, K = Var("i"), Var("j"), Var("k")


def clear(index: Expr) -> Store:
    return Store(X, (index,), ZERO)


def wide(index: Expr) -> Expr:
    return Cast(DType.INT64, T[index,])


def in_proc(*body: Stmt) -> Proc:
    return Proc("p", (X, Y, T), body)


LOW, HIGH = maximum(N * 8 - 1, 0), minimum(N * 8 + 9, 56)
ROWS = Buffer("rows", DType.INT8, (HIGH - LOW,), Scope.LOCAL)

PROVEN = {
    "a tile at the edge": nest([("i", 6), ("j", minimum(Const(10), 56 - N * 10))], clear(N * 10 + J)),
    "a guard": nest([("i", 6), ("j", 10)], If(lt(N * 10 + J, 56), (clear(N * 10 + J),))),
    "a guard on another side": nest([("i", 6), ("j", 10)], If(le(N * 10 + J + 1, 56), (clear(N * 10 + J),))),
    "a guard by equality": nest([("i", 99)], If(Compare(CompareOp.EQ, N, Const(3)), (clear(N),))),
    "quotient and remainder": nest([("i", 56)], Store(Y, (N // 7, N % 7), ZERO)),
    "fused and split again": nest([("i", 8), ("j", 7)], clear((N * 7 + J) // 7 * 7 + (N * 7 + J) % 7)),
    "padding": nest(
        [("i", 56), ("j", 3)],
        Store(X, (N,), Select(both(le(0, N + J - 1), lt(N + J - 1, 56)), Y[(N + J - 1) // 7, (N + J - 1) % 7], ZERO)),
    ),
    "the other side of a select": nest([("i", 99)], Store(X, (Const(0),), Select(le(56, N), ZERO, X[N,]))),
    "neither of two": nest(
        [("i", 99)],
        Store(X, (Const(0),), Select(Binary(BinaryOp.OR, lt(55, N), lt(N, 0)), ZERO, X[N,])),
    ),
    "a staged window": nest(
        [("i", 7)],
        Alloc(
            ROWS,
            (
                nest([("j", HIGH - LOW)], Store(ROWS, (J,), X[LOW + J,])),
                nest(
                    [("k", 8), ("m", 3)],
                    If(
                        both(le(0, N * 8 + K + Var("m") - 1), lt(N * 8 + K + Var("m") - 1, 56)),
                        (Store(X, (N * 8 + K,), ROWS[N * 8 + K + Var("m") - 1 - LOW,]),),
                    ),
                ),
            ),
        ),
    ),
    "a triangle": nest([("i", 8), ("j", N + 1)], clear(N * 7 - J + J * 8 - J * 7)),
    "a clamped value from memory": nest([("i", 56)], clear(minimum(maximum(wide(N), 0), 55))),
    "a guarded value from memory": nest([("i", 56)], If(both(le(0, wide(N)), lt(wide(N), 56)), (clear(wide(N)),))),
    "a chosen index": nest([("i", 99)], clear(Select(lt(N, 50), N, Const(7)))),
    "minimum of forms": nest([("i", 9), ("j", 9)], clear(minimum(N + J * 8, 55 - N))),
    "unreachable code": nest([("i", 9)], If(lt(Const(3), 3), (clear(N + 99),))),
    "a loop that never runs": nest([("i", 0)], clear(N + 99)),
    "a divisor in a guard": nest([("i", 9)], If(lt(0, N), (Store(X, (N,), Cast(DType.INT8, Const(55) // N)),))),
    "a shift": nest([("i", 8)], Store(X, (N,), Binary(BinaryOp.SHR, X[N,], Cast(DType.INT8, N)))),
}


@pytest.mark.parametrize("name", PROVEN)
def test_proven(name: str) -> None:
    verify(in_proc(PROVEN[name]))


def test_nothing_proven_goes_wrong() -> None:
    """Verified procedures run in the interpreter, which checks every access, without complaint."""
    rng = np.random.default_rng(0)
    for stmt in PROVEN.values():
        proc = in_proc(stmt)
        run(proc, [random_array(rng, buffer) for buffer in proc.params])


@pytest.mark.parametrize("seed", range(40))
def test_random_procedures_are_proven(seed: int) -> None:
    verify(random_proc(np.random.default_rng(seed)))


@pytest.mark.parametrize("seed", range(150))
def test_proofs_are_sound(seed: int) -> None:
    """Random index expressions: what is proven holds for all values, tried one by one."""
    rng = np.random.default_rng(seed)
    loops = [(var, int(rng.integers(1, 6))) for var in (N, J)]

    def index(depth: int) -> Expr:
        kind = int(rng.integers(0, 9)) if depth else 9
        a, b = (index(depth - 1), index(depth - 1)) if depth else (N, J)
        divisor = Const(int(rng.integers(1, 6)))
        match kind:
            case 0 | 1:
                return a + b
            case 2:
                return a - b
            case 3:
                return a * int(rng.integers(-2, 4))
            case 4:
                return Binary(BinaryOp.FLOORDIV, a, divisor)
            case 5:
                return Binary(BinaryOp.MOD, a, divisor)
            case 6:
                return minimum(a, b)
            case 7:
                return maximum(a, b)
            case 8:
                return Select(lt(a, b), b, a)
            case _:
                return (N, J, Const(int(rng.integers(-3, 8))))[rng.integers(3)]

    small = Buffer.of("small", DType.INT8, (int(rng.integers(1, 12)),))
    expr, limit = index(3), index(1)
    guarded = If(lt(index(2), limit), (If(le(limit, Const(4)), (Store(small, (expr,), ZERO),)),))
    body = nest([(loops[0][0].name, loops[0][1]), (loops[1][0].name, minimum(Const(loops[1][1]), N + 1))], guarded)
    proc = Proc("p", (small,), (body,))
    try:
        verify(proc)
    except VerifyError:
        return
    run(proc, [np.zeros(small.static_shape, np.int8)])


def test_the_random_proofs_are_not_all_refused() -> None:
    """Of the procedures that cannot go wrong, as trying shows, nearly all are proven."""
    rng = np.random.default_rng(5)
    proven = right = 0
    for _ in range(300):
        a, b, c, d = (int(n) for n in rng.integers(-3, 4, 4))
        expr = minimum(N * a + J * b, maximum(N * c, d - J)) + int(rng.integers(0, 12))
        proc = Proc("p", (Y, X), (nest([("i", 5), ("j", 8 - N)], Store(X, (expr,), ZERO)),))
        try:
            run(proc, [np.zeros((8, 7), np.int8), np.zeros(56, np.int8)])
        except InterpError:
            with pytest.raises(VerifyError):
                verify(proc)
            continue
        right += 1
        try:
            verify(proc)
        except VerifyError:
            continue
        proven += 1
    assert right > 100
    assert proven > right * 0.95


BIG = Buffer.of("big", DType.INT32, (1 << 20, 1 << 20))
DEEP: Expr = N
for _ in range(100):
    DEEP = Binary(BinaryOp.SUB, DEEP, N)
NESTED: Stmt = clear(Const(0))
for _ in range(64):
    NESTED = Mapped("m", (NESTED,))


class Strange(Stmt, Expr):
    """Neither a statement nor an expression of the IR."""


def value(expr: Expr) -> Stmt:
    return Store(Buffer.of("x", DType.INT8, (56,)), (Const(0),), expr)


def flag(cond: Expr) -> Stmt:
    return If(cond, ())


INDEX = "Index 0 of x must be proven to lie in 0 <= i < 56"

REFUSED: list[tuple[Stmt, str]] = [
    (clear(Const(56)), f"{INDEX}, not 56 (in p: x[56] = 0i8)"),
    (nest([("i", 56)], clear(N - 1)), f"{INDEX}, not i - 1 (in p: x[i - 1] = 0i8)"),
    (
        nest([("i", 8), ("j", 8)], Store(Y, (N, J), ZERO)),
        "Index 1 of y must be proven to lie in 0 <= i < 7, not j (in p: y[i, j] = 0i8)",
    ),
    (clear(wide(Const(0))), f"{INDEX}, not int64(t[0]) (in p: x[int64(t[0])] = 0i8)"),
    # The product may wrap, and so the quotient is not i * 2.
    (
        nest([("i", 32)], clear((N * 2**60) // 2**59)),
        (
            f"{INDEX}, not i * 1152921504606846976 // 576460752303423488"
            " (in p: x[i * 1152921504606846976 // 576460752303423488] = 0i8)"
        ),
    ),
    # The store changes what the guard saw.
    (
        If(
            both(le(0, wide(Const(0))), lt(wide(Const(0)), 56)),
            (Store(T, (Const(0),), Const(99, DType.INT32)), clear(wide(Const(0)))),
        ),
        f"{INDEX}, not int64(t[0]) (in p: x[int64(t[0])] = 0i8)",
    ),
    (
        value(Binary(BinaryOp.FLOORDIV, ZERO, ZERO)),
        "Divisor must be proven to be at least 1, not 0i8 (in p: x[0] = 0i8 // 0i8)",
    ),
    (
        value(Binary(BinaryOp.MOD, ZERO, X[0,])),
        "Divisor must be proven to be at least 1, not x[0] (in p: x[0] = 0i8 % x[0])",
    ),
    (value(ZERO >> 8), "Shift amount must be proven to lie in 0..7, not 8i8 (in p: x[0] = 0i8 >> 8i8)"),
    (nest([("i", 2)], nest([("i", 2)], clear(N))), "Name of a loop must be unique, not 'i' again (in p: for i in 2:)"),
    (Alloc(X, ()), "Name of a buffer must be unique, not 'x' again (in p: alloc x: int8[56]:)"),
    (For(Var(""), Const(1), ()), "Name of a loop must be 1 to 200 printable characters, not '' (in p: for  in 1:)"),
    (Mapped("", ()), "Instruction of a mapped nest must be 1 to 200 printable characters, not '' (in p: mapped :)"),
    (clear(N), "Loop variable must be that of an enclosing loop, not i (in p: x[i] = 0i8)"),
    (
        Store(Buffer.of("z", DType.INT8, (1,)), (Const(0),), ZERO),
        "Buffer must be a parameter or allocated around its use, not z (in p: z[0] = 0i8)",
    ),
    (
        Store(Buffer.of("x", DType.INT8, (57,)), (Const(0),), ZERO),
        "Buffer x must be used as it was declared (in p: x[0] = 0i8)",
    ),
    (Store(X, (), ZERO), "Index of x must have 1 positions, not 0 (in p: x[] = 0i8)"),
    (Store(X, (Const(0, DType.INT32),), ZERO), "Index 0 of x must be int64, not int32 (in p: x[0i32] = 0i8)"),
    (value(Const(1, DType.INT16)), "Stored value must be int8, not int16 (in p: x[0] = 1i16)"),
    (For(N, Const(1, DType.INT32), ()), "Extent must be int64, not int32 (in p: for i in 1i32:)"),
    (For(N, wide(Const(0)), ()), "Extent must not read memory, as does int64(t[0]) (in p: for i in int64(t[0]):)"),
    (
        Alloc(Buffer("a", DType.INT8, (wide(Const(0)),)), ()),
        "Shape must not read memory, as does int64(t[0]) (in p: alloc a: int8[int64(t[0])]:)",
    ),
    (
        Alloc(Buffer("a", DType.INT8, (Const(1, DType.INT8),)), ()),
        "Shape must be int64, not int8 (in p: alloc a: int8[1i8]:)",
    ),
    (
        Alloc(BIG, ()),
        (
            "Buffer big must take at most 68719476736 bytes, not 4398046511104"
            " (in p: alloc big: int32[1048576, 1048576]:)"
        ),
    ),
    (flag(ZERO), "Condition must be bool, not int8 (in p: if 0i8:)"),
    (value(Select(ZERO, ZERO, ZERO)), "Condition must be bool, not int8 (in p: x[0] = 0i8 if 0i8 else 0i8)"),
    (
        value(Select(lt(0, 1), ZERO, Const(0))),
        "Operands of a select must have one type, not int8 and int64 (in p: x[0] = 0i8 if 0 < 1 else 0)",
    ),
    (
        value(Binary(BinaryOp.ADD, ZERO, Const(0))),
        "Operands of + must have one type, not int8 and int64 (in p: x[0] = 0i8 + 0)",
    ),
    (value(Binary(BinaryOp.DIV, ZERO, ZERO)), "Operator / must not be used on int8 (in p: x[0] = 0i8 / 0i8)"),
    (
        flag(Binary(BinaryOp.ADD, lt(0, 1), lt(0, 1))),
        "Operator + must not be used on bool (in p: if (0 < 1) + (0 < 1):)",
    ),
    (
        flag(Compare(CompareOp.EQ, Const(0), ZERO)),
        "Operands of == must have one type, not int64 and int8 (in p: if 0 == 0i8:)",
    ),
    (
        flag(Compare(CompareOp.LT, lt(0, 1), lt(0, 1))),
        "Operands of < must be numbers, not bool (in p: if (0 < 1) < (0 < 1):)",
    ),
    (flag(Cast(DType.BOOL, ZERO)), "Cast must not be to bool, compare instead (in p: if bool(0i8):)"),
    (
        value(Cast(DType.FLOAT16, ZERO)),
        "Cast of float16 must be to or from float32, not from int8 to float16 (in p: x[0] = float16(0i8))",
    ),
    (
        flag(Compare(CompareOp.LT, HALF, HALF)),
        "Operands of < must not be float16, which is only stored (in p: if float16(0.5f32) < float16(0.5f32):)",
    ),
    (
        value(Binary(BinaryOp.ADD, HALF, HALF)),
        "Operands of + must not be float16, which is only stored (in p: x[0] = float16(0.5f32) + float16(0.5f32))",
    ),
    (value(Const(0.5, DType.FLOAT16)), "Constant must not be float16, which is only stored (in p: x[0] = 0.5f16)"),
    (value(Unary(UnaryOp.RINT, ZERO)), "Operand of rint must be float32, not int8 (in p: x[0] = rint(0i8))"),
    (value(Unary(UnaryOp.BITCAST, ZERO)), "Operand of bitcast must be int32, not int8 (in p: x[0] = bitcast(0i8))"),
    (value(Const(128, DType.INT8)), "Constant of int8 must be in -128..127, not 128 (in p: x[0] = 128i8)"),
    (value(Const(0.5, DType.INT8)), "Constant of int8 must be in -128..127, not 0.5 (in p: x[0] = 0.5i8)"),
    (flag(Const(2, DType.BOOL)), "Constant of bool must be in 0..1, not 2 (in p: if true:)"),
    (
        value(Cast(DType.INT8, Const(1 << 128, DType.FLOAT32))),
        (f"Constant of float32 must be a number below 2**128 (in p: x[0] = int8({1 << 128}f32))"),
    ),
    (NESTED, "Statements must be nested at most 64 deep (in p: x[0] = 0i8)"),
    (nest([("i", 1)], Strange()), "Statement must be one of the IR's, not a Strange"),
    (value(Strange()), "Expression must be one of the IR's, not a Strange"),
]


@pytest.mark.parametrize(("stmt", "sentence"), REFUSED)
def test_refused(stmt: Stmt, sentence: str) -> None:
    with pytest.raises(VerifyError) as error:
        verify(in_proc(stmt))
    assert str(error.value).startswith(sentence)
    assert str(error.value) == sentence or "Strange" in sentence


def test_deep_expressions_are_refused() -> None:
    with pytest.raises(VerifyError, match=r"^Expressions must be at most 100 deep \(in p: x\[i - i - .*\.\.\.\)$"):
        verify(in_proc(nest([("i", 1)], clear(DEEP))))


def test_memory_of_all_buffers_is_bounded() -> None:
    half = 1 << 35
    buffers = [Buffer.of(name, DType.INT8, (half,)) for name in "abc"]
    allocs = tuple(Alloc(buffer, ()) for buffer in buffers)
    verify(in_proc(*allocs[:2]))
    with pytest.raises(VerifyError) as error:
        verify(in_proc(*allocs))
    sentence = "Allocated buffers must take at most 68719476736 bytes together (in p: alloc c: int8[34359738368]:)"
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("buffer", "sentence"),
    [
        (
            Buffer("a", DType.INT8, (Const(-1),)),
            "Shape of parameter a must be constants of at least 0, not -1 (in the parameters of p)",
        ),
        (
            Buffer("a", DType.INT8, (N + 1,)),
            "Shape of parameter a must be constants of at least 0, not i + 1 (in the parameters of p)",
        ),
        (
            Buffer("a", DType.INT8, (), limits=(0, 128)),
            "Limits of buffer a must be integers of its type, int8, not (0, 128) (in the parameters of p)",
        ),
        (
            Buffer("a", DType.FLOAT32, (), limits=(0, 1)),
            "Limits of buffer a must be integers of its type, float32, not (0, 1) (in the parameters of p)",
        ),
        (BIG, "Buffer big must take at most 68719476736 bytes, not 4398046511104 (in the parameters of p)"),
        (
            Buffer("a\n", DType.INT8, ()),
            "Name of a buffer must be 1 to 200 printable characters, not 'a\\n' (in the parameters of p)",
        ),
    ],
)
def test_parameters(buffer: Buffer, sentence: str) -> None:
    with pytest.raises(VerifyError) as error:
        verify(Proc("p", (buffer,), ()))
    assert str(error.value) == sentence


def test_the_name_of_a_procedure() -> None:
    with pytest.raises(VerifyError) as error:
        verify(Proc("", (), ()))
    assert str(error.value) == (
        "Name of a procedure must be 1 to 200 printable characters, not '' (in the parameters of )"
    )


def test_a_proof_that_would_take_too_long_is_given_up() -> None:
    """Many coupled guards: the answer comes soon, and it is a refusal."""
    names = [Var(f"v{n}") for n in range(24)]
    rng = np.random.default_rng(3)
    guards = []
    for _ in range(40):
        form: Expr = Const(int(rng.integers(0, 9)))
        for var in names:
            form = form + var * int(rng.integers(-9, 10))
        guards.append(le(0, form))
    total: Expr = Const(0)
    for var in names:
        total = total + var
    inner = If(both(*guards), (clear(total),))
    with pytest.raises(VerifyError, match="must be proven"):
        verify(in_proc(nest([(var.name, 9) for var in names], inner)))


def test_kinds_and_mapped_nests_pass() -> None:
    loops = tuple(For(Var(kind.value), Const(2), (Mapped("gemm", (clear(Const(1)),)),), kind) for kind in LoopKind)
    verify(in_proc(*loops))
    assert isinstance(X[0,], Load)


def test_limits_prove_no_index() -> None:
    """They are promises of whoever fills a buffer, who may be anybody."""
    x = Buffer("x", DType.INT64, (Const(1),), limits=(0, 3))
    y = Buffer.of("y", DType.INT8, (4,))
    proc = Proc("p", (x, y), (Store(y, (x[(Const(0),)],), Const(1, DType.INT8)),))
    with pytest.raises(VerifyError):
        verify(proc)
