"""Procedures to JSON and back, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compiler.tensor.ir import Alloc, Buffer, Const, DType, Proc, Store, Unary, UnaryOp, Var, nest
from compiler.tensor.serial import SerialError, digest, from_json, to_json
from tests.compiler.tensor.random_procs import random_proc

X = Buffer.of("x", DType.FLOAT32, (2, 3))
HALF = Proc("half", (X,), (nest([("i", 3)], Store(X, (Const(1), Var("i")), Const(0.5, DType.FLOAT32))),))


@pytest.mark.parametrize("seed", range(30))
def test_round_trip(seed: int) -> None:
    proc = random_proc(np.random.default_rng(seed))
    text = json.dumps(to_json(proc))
    again = from_json(json.loads(text))
    assert again == proc
    assert digest(again) == digest(proc)


def test_copies_survive_and_are_left_out_if_there_is_one() -> None:
    t = Buffer.of("t", DType.FLOAT32, (3,))
    for copies in (1, 2):
        proc = Proc("p", (X,), (Alloc(t, HALF.body, copies),))
        value = to_json(proc)
        assert from_json(value) == proc
        assert value["body"][0][3:] == [copies][: copies - 1]
    for wrong in (0, True, "2", 1 << 20):
        value["body"][0][3] = wrong
        with pytest.raises(SerialError, match=r"^Copies of a buffer must be an integer from 1 to 65536, not "):
            from_json(value)


def test_limits_survive_and_are_left_out_if_there_are_none() -> None:
    for limits in (None, (-3, 5)):
        x = replace(X, type=DType.INT8, limits=limits)
        value = to_json(Proc("p", (x,), ()))
        assert from_json(value).params == (x,)
        assert value["params"][0][4:] == ([] if limits is None else [[-3, 5]])
    for wrong in (0, [1], [True, 5], [2, 1], ["0", 1]):
        value["params"][0][4] = wrong
        sentence = r"^Limits of a buffer must be \[lowest, highest\], not .* \(at params/0\)$"
        with pytest.raises(SerialError, match=sentence):
            from_json(value)


def test_floats_survive() -> None:
    for value in (0.1, -0.0, float("inf"), -float("inf"), 1e-45, 3):
        proc = Proc("p", (X,), (Store(X, (Const(0), Const(0)), Const(value, DType.FLOAT32)),))
        text = json.dumps(to_json(proc), allow_nan=False)
        stored = from_json(json.loads(text)).body[0]
        assert isinstance(stored, Store)
        assert repr(stored.value) == repr(Const(value, DType.FLOAT32))


def test_the_largest_integers_survive() -> None:
    y = Buffer.of("y", DType.UINT64, (1,))
    proc = Proc("p", (y,), (Store(y, (Const(0),), Const((1 << 64) - 1, DType.UINT64)),))
    json_form = to_json(proc)
    assert "18446744073709551615" in json.dumps(json_form)
    assert from_json(json_form) == proc


def test_the_digest_is_that_of_the_content() -> None:
    assert digest(HALF) == digest(copy.deepcopy(HALF))
    assert digest(HALF) != digest(HALF.with_body(HALF.body * 2))
    assert len(digest(HALF)) == 64


def test_json_form() -> None:
    assert to_json(HALF) == {
        "format": 1,
        "name": "half",
        "params": [["x", "float32", [2, 3], "dram"]],
        "body": [["for", "i", 3, "serial", [["store", "x", [1, ["var", "i"]], ["const", "float32", 0.5]]]]],
    }


def changed(path: list[Any], value: Any) -> Any:
    """The JSON of HALF with the item at `path` replaced."""
    root = json.loads(json.dumps(to_json(HALF)))
    at = root
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return root


def deep(levels: int) -> Any:
    expr: Any = 0
    for _ in range(levels):
        expr = ["+", expr, 0]
    return expr


def nested(levels: int) -> Any:
    body: Any = []
    for _ in range(levels):
        body = [["mapped", "m", body]]
    return body


STORE = ["body", 0, 4, 0]
VALUE = [*STORE, 3]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "Procedure must have format, name, params and body, not be None (at the root)"),
        ([], "Procedure must have format, name, params and body, not be a list of 0 (at the root)"),
        (changed(["format"], 2), "Format must be 1, not 2 (at format)"),
        (changed(["name"], 5), "Name must be a string, not 5 (at name)"),
        (changed(["params"], "x"), "Item must be a list of at most 1000, not 'x' (at params)"),
        (changed(["params", 0], ["x"]), "Item must be [name, type, shape, scope], not a list of 1 (at params/0)"),
        (
            changed(["params", 0, 1], "int4"),
            (
                "DType must be one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, "
                "float32, float64, not 'int4' (at params/0)"
            ),
        ),
        (
            changed(["params", 0, 3], []),
            "Scope must be one of dram, local, inp, wgt, acc, not a list of 0 (at params/0)",
        ),
        (
            changed(["params"], [["x", "int8", [2], "dram"]] * 2),
            "Name of a buffer must be unique, not 'x' again (at params/1)",
        ),
        (
            changed(["body", 0], []),
            "Statement must be a store, prefetch, for, if, alloc or mapped, not nothing (at body/0)",
        ),
        (
            changed(["body", 0], ["while", 1]),
            "Statement must be a store, prefetch, for, if, alloc or mapped, not 'while' with 1 operands (at body/0)",
        ),
        (
            changed(["body", 0, 3], "fast"),
            "LoopKind must be one of serial, unrolled, vectorized, parallel, vthread, not 'fast' (at body/0)",
        ),
        (changed([*STORE, 1], "z"), "Buffer must be declared before its use, not 'z' (at body/0/4/0)"),
        (changed([*STORE, 2], [0] * 17), "Item must be a list of at most 16, not a list of 17 (at body/0/4/0/2)"),
        (changed(VALUE, []), "Expression must be one of the IR's, not nothing (at body/0/4/0/3)"),
        (
            changed(VALUE, ["pow", 1, 2]),
            "Expression must be one of the IR's, not 'pow' with 2 operands (at body/0/4/0/3)",
        ),
        (changed(VALUE, ["const", "int8", True]), "Constant must be a number, not True (at body/0/4/0/3)"),
        (
            changed(VALUE, 2**70),
            (
                "Procedure must keep the rules of the IR: Constant of int64 must be in "
                "-9223372036854775808..9223372036854775807, not 1180591620717411303424 "
                "(in half: x[1, i] = 1180591620717411303424)"
            ),
        ),
        (
            changed(["name"], "a\nb"),
            (
                "Procedure must keep the rules of the IR: Name of a procedure must be 1 to 200 printable characters, "
                "not 'a\\nb' (in the parameters of a\\nb)"
            ),
        ),
        (changed(["body"], nested(66)), "Statements must be nested at most 64 deep (at body" + "/0/2" * 65 + ")"),
        (
            changed(["body"], [["mapped", "m", []]] * 200_001),
            "Item must be a list of at most 200000, not a list of 200001 (at body)",
        ),
        (
            changed(["body"], [["mapped", "m", []]] * 200_000),
            "Procedure must have at most 200000 nodes (at body/199997)",
        ),
    ],
)
def test_what_is_no_procedure_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(SerialError) as error:
        from_json(value)
    assert str(error.value) == sentence


def test_deep_expressions_are_refused() -> None:
    with pytest.raises(SerialError, match="Expressions must be at most 100 deep"):
        from_json(changed(VALUE, deep(5000)))


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    2**63,
    1e300,
    "",
    "x",
    "i",
    "for",
    "inf",
    [],
    [[]],
    {},
    {"a": 1},
    ["var", "i"],
    ["load", "x", [0, 0]],
    ["+", 1, ["const", "int8", 1]],
    ["cast", "bool", 1],
    ["rint", 1],
    ["<", 1, 2],
)


def mutate(rng: np.random.Generator, value: Any) -> Any:
    """`value` with one item anywhere replaced, removed, doubled, or exchanged with its neighbour."""
    if not isinstance(value, list | dict) or not value or rng.integers(6) == 0:
        return JUNK[rng.integers(len(JUNK))]
    if isinstance(value, dict):
        key = list(value)[rng.integers(len(value))]
        return {**value, key: mutate(rng, value[key])}
    at, kind = int(rng.integers(len(value))), int(rng.integers(12))
    if kind == 0:
        return value[:at] + value[at + 1 :]
    if kind == 1:
        return value[:at] + value[at : at + 1] + value[at:]
    if kind == 2:
        return value[:at] + value[at : at + 2][::-1] + value[at + 2 :]
    return [*value[:at], mutate(rng, value[at]), *value[at + 1 :]]


@pytest.mark.parametrize("seed", range(60))
def test_damage_gives_a_serial_error_or_a_verified_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = json.loads(json.dumps(to_json(random_proc(rng))))
    for _ in range(10):
        damaged = mutate(rng, original)
        try:
            proc = from_json(damaged)
        except SerialError:
            continue
        assert from_json(to_json(proc)) == proc


def test_what_is_not_of_the_ir_is_not_written() -> None:
    from compiler.tensor.ir import Expr, Stmt

    with pytest.raises(SerialError, match="Statement must be one of the IR's"):
        to_json(Proc("p", (), (Stmt(),)))
    with pytest.raises(SerialError, match="Expression must be one of the IR's"):
        to_json(Proc("p", (X,), (Store(X, (Const(0), Const(0)), Unary(UnaryOp.RINT, Expr())),)))
