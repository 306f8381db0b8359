"""Which loops become vector code, and what the code looks like."""

from __future__ import annotations

import pytest

from compiler.llvm.lanes import element_step, lane_count, step
from compiler.tensor.ir import (
    Alloc,
    Body,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    LoopKind,
    Proc,
    Stmt,
    Store,
    Var,
    cast,
    minimum,
    nest,
)
from tests.compiler.llvm.one import generate

N, J = Var("i"), Var("j")
X = Buffer.of("x", DType.INT8, (8, 256))
Y = Buffer.of("y", DType.INT32, (8, 256))
LOCAL = Buffer.of("local", DType.INT32, (4,))


def vector(extent: int | Expr, *body: Stmt) -> For:
    return For(N, extent if isinstance(extent, Expr) else Const(extent), body, LoopKind.VECTORIZED)


def copy(extent: int | Expr) -> For:
    return vector(extent, Store(Y, (Const(0), N), cast(DType.INT32, X[0, N])))


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (N, 1),
        (J, 0),
        (N * 3 + J - N, 2),
        (J - N, -1),
        (N * J, None),
        (N // 2, None),
        (J // 2 + N, 1),
        (minimum(N, J), None),
        (cast(DType.INT64, X[J, 0]), 0),
        (cast(DType.INT64, X[J, N]), None),
        (cast(DType.INT64, LOCAL[0,]), None),
    ],
)
def test_steps(expr: Expr, expected: int | None) -> None:
    assert step(expr, "i", frozenset({"local"})) == expected


def test_steps_between_elements() -> None:
    dynamic = Buffer("d", DType.INT8, (Const(4), J))
    private = frozenset({"local"})
    assert element_step(X, (J, N), "i", private, 16) == 1
    assert element_step(X, (N, J), "i", private, 16) == 256
    assert element_step(X, (N, N * 2), "i", private, 16) == 258
    assert element_step(X, (J, J), "i", private, 16) == 0
    assert element_step(dynamic, (J, N), "i", private, 16) == 1
    assert element_step(dynamic, (N, J), "i", private, 16) is None
    assert element_step(LOCAL, (J,), "i", private, 16) == 1
    assert element_step(LOCAL, (N,), "i", private, 16) == 17


@pytest.mark.parametrize(
    ("loop", "lanes"),
    [
        (copy(16), 16),
        (copy(256), 16),
        (copy(8), 8),
        (copy(24), 8),  # three times 8 rather than 16 and 8 scalar
        (copy(19), 16),
        (copy(1), 1),
        (copy(J), 16),
        (vector(256, Store(X, (Const(0), N), X[1, N])), 64),
        (vector(16, Store(Y, (Const(0), Const(0)), cast(DType.INT32, X[0, N]))), 1),  # all store to one place
        (vector(16, For(J, N, (Store(Y, (J, N), Const(0, DType.INT32)),))), 1),  # an inner extent differs
        (vector(16, Store(Y, (Const(0), N * 2), cast(DType.INT32, X[0, N * 2]))), 1),  # nothing is contiguous
        (vector(16, Alloc(LOCAL, (Store(LOCAL, (Const(0),), Const(0, DType.INT32)), *copy(1).body))), 16),
        (vector(16, Alloc(Buffer("d", DType.INT32, (N,)), copy(1).body)), 1),
    ],
)
def test_lane_counts(loop: For, lanes: int) -> None:
    assert lane_count(loop) == lanes


def text(*body: Stmt) -> str:
    return generate(Proc("p", (X, Y), body)).text


def test_vector_code_of_a_whole_number_of_vectors_is_straight() -> None:
    assert text(copy(16)) == (
        "define void @tensor_procedure(ptr noalias nonnull readonly align 1 dereferenceable(2048) %arg0, "
        "ptr noalias nonnull align 4 dereferenceable(8192) %arg1) nounwind {\n"
        "start:\n"
        "  %v1 = add <16 x i64> splat (i64 0), <i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7, "
        "i64 8, i64 9, i64 10, i64 11, i64 12, i64 13, i64 14, i64 15>\n"
        "  %p2 = getelementptr inbounds i8, ptr %arg0, i64 0\n"
        "  %v3 = load <16 x i8>, ptr %p2, align 1\n"
        "  %v4 = sext <16 x i8> %v3 to <16 x i32>\n"
        "  %p5 = getelementptr inbounds i32, ptr %arg1, i64 0\n"
        "  store <16 x i32> %v4, ptr %p5, align 4\n"
        "  ret void\n"
        "}\n"
    )


def test_the_rest_is_a_scalar_loop_left_alone() -> None:
    rest = text(copy(19))
    assert "store <16 x i32>" in rest
    assert "store i32" in rest
    assert '!{!"llvm.loop.vectorize.enable", i1 false}' in rest


def test_unrolled_loops_are_written_out_with_constant_places() -> None:
    body: Body = (Store(Y, (J, J), Const(1, DType.INT32)),)
    unrolled = text(For(J, Const(4), body, LoopKind.UNROLLED))
    places = [f"getelementptr inbounds i32, ptr %arg1, i64 {n * 257}\n" for n in range(4)]
    assert all(place in unrolled for place in places)
    assert "br " not in unrolled
    assert "phi" in text(nest([("i", 2)], For(J, N, body, LoopKind.UNROLLED)))  # its extent is not known


def test_copies_of_an_unrolled_body_share_one_buffer() -> None:
    once = Alloc(LOCAL, (Store(LOCAL, (Const(0),), Const(0, DType.INT32)),))
    assert text(For(J, Const(4), (once,), LoopKind.UNROLLED)).count("alloca") == 1


def test_small_buffers_are_on_the_stack_within_a_limit() -> None:
    buffers = [Buffer.of(f"b{n}", DType.INT8, (60_000,)) for n in range(6)]
    body: tuple[Stmt, ...] = ()
    for buffer in buffers:
        body = (Alloc(buffer, (Store(buffer, (Const(0),), Const(0, DType.INT8)), *body)),)
    module = generate(Proc("p", (), body))
    assert module.text.count("alloca [60000 x i8], align 64") == 4
    assert module.scratch == (60_000, 60_000)
