"""Values used more than once are computed once, and are the same values."""

from __future__ import annotations

from textwrap import dedent

import numpy as np

from compiler.tensor.functions import FUNCTIONS, f32, less
from compiler.tensor.interp import run
from compiler.tensor.ir import Body, Buffer, DType, Expr, Load, Proc, Select, Store, Unary, UnaryOp, Var, nest
from compiler.tensor.printer import format_proc
from compiler.tensor.share import computed_once
from compiler.tensor.traverse import stmt_exprs, walk, walk_expr

X, Y = (Buffer.of(name, DType.FLOAT32, (5,)) for name in "xy")
AT = Var("i")
x = Load(X, (AT,))


def body(value: Expr) -> Body:
    return computed_once(Store(Y, (AT,), value))


def text(value: Expr) -> str:
    _, *lines = format_proc(Proc("f", (X, Y), body(value))).splitlines()
    return dedent("\n".join(lines))


def test_what_occurs_once_stays_where_it_is() -> None:
    assert text((x + f32(1.0)) * x) == "y[i] = (x[i] + 1.0f32) * x[i]"


def test_equal_values_are_one_even_as_different_objects() -> None:
    product = (x + f32(1.0)) * (Load(X, (AT,)) + f32(1.0))
    assert text(product + product) == (
        "alloc t0: float32[1] local:\n"
        "  t0[0] = x[i] + 1.0f32\n"
        "  alloc t1: float32[1] local:\n"
        "    t1[0] = t0[0] * t0[0]\n"
        "    y[i] = t1[0] + t1[0]"
    )


def test_zeros_of_different_sign_differ() -> None:
    assert text(Select(less(x, f32(1.0)), x * f32(0.0), x * f32(-0.0))).count("alloc") == 0


def test_nested_functions_grow_with_their_depth_alone() -> None:
    value: Expr = x
    sizes = []
    for _ in range(6):
        value = FUNCTIONS["general_power"].build(value, Unary(UnaryOp.SQRT, value))
        sizes.append(sum(1 for stmt in walk(body(value)) for expr in stmt_exprs(stmt) for _ in walk_expr(expr)))
    steps = np.diff(sizes)
    assert steps.max() <= 1.1 * steps.min()


def test_values_are_those_of_the_expression() -> None:
    value = FUNCTIONS["tanh"].build(x)
    given = np.array([-2.0, -0.0, 0.25, 1.0, np.inf], np.float32)
    results = []
    for statements in ((Store(Y, (AT,), value),), body(value)):
        result = np.zeros(5, np.float32)
        run(Proc("f", (X, Y), (nest([("i", 5)], *statements),)), (given, result))
        results.append(result.view(np.int32).tolist())
    assert results[0] == results[1]
