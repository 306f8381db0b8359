"""What exporters make causal masks of: computed constants, infinite numbers, choices with a known condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

import vta
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from tests.compiler.frontend.models import floats, model

node = helper.make_node
TOKENS = np.array([16, 16], np.int64)
CONSTANTS: dict[str, NDArray[Any]] = {
    "tokens": TOKENS,
    "whole": np.array([1, 1, 16, 16], np.int64),
    "all": np.array([1, 4, 1, 1], np.int64),
    "first": np.array(0, np.int64),
    "next": np.array(1, np.int64),
    "count": np.array(16, np.int64),
    "front": np.array([0], np.int64),
    "back": np.array([1], np.int64),
    "one": np.array(1, np.float32),
    "none": np.array(0, np.float32),
    "least": np.array(np.finfo(np.float32).min),
    "inf": np.array(-np.inf, np.float32),
}
MINUS = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [-np.inf])
MASKS: dict[str, list[onnx.NodeProto]] = {
    "triangle": [
        node("ConstantOfShape", ["tokens"], ["full"], value=MINUS), node("Trilu", ["full", "next"], ["mask"], upper=1),
        node("Add", ["scores", "mask"], ["masked"]),
    ],
    "positions": [
        node("Range", ["first", "count", "next"], ["at"]),
        node("Unsqueeze", ["at", "front"], ["keys"]), node("Unsqueeze", ["at", "back"], ["queries"]),
        node("LessOrEqual", ["keys", "queries"], ["seen"]), node("Expand", ["seen", "whole"], ["seen4"]),
        node("Where", ["seen4", "none", "least"], ["mask"]), node("Add", ["mask", "scores"], ["masked"]),
    ],
    "choice": [
        node("ConstantOfShape", ["whole"], ["zeros"]), node("Add", ["zeros", "one"], ["ones"]),
        node("Trilu", ["ones"], ["lower"], upper=0), node("Cast", ["lower"], ["bool"], to=onnx.TensorProto.BOOL),
        node("Tile", ["bool", "all"], ["seen"]), node("Where", ["seen", "scores", "inf"], ["masked"]),
    ],
}  # fmt: skip


def attention(kind: str) -> onnx.ModelProto:
    nodes = [
        node("Transpose", ["x"], ["keys_of_x"], perm=[0, 1, 3, 2]), node("MatMul", ["x", "keys_of_x"], ["scores"]),
        *MASKS[kind], node("Softmax", ["masked"], ["shares"], axis=-1), node("MatMul", ["shares", "x"], ["y"]),
    ]  # fmt: skip
    return model(nodes, {"x": (1, 4, 16, 16)}, ["y"], CONSTANTS)


@pytest.mark.parametrize("kind", MASKS)
def test_causal_attention(kind: str) -> None:
    proto, x = attention(kind), floats(1, 4, 16, 16) / 2
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(load_onnx(proto), {"x": x})["y"], expected, rtol=1e-5, atol=1e-6)
    found = vta.compile(proto, calibration=x).run(x)
    assert np.abs(found - expected).max() < 0.05


CONDITION = np.random.default_rng(1).random((4, 1, 6)) < 0.5
CHOICES: dict[str, list[onnx.NodeProto]] = {
    "a number elsewhere": [node("Where", ["condition", "x", "number"], ["y"])],
    "other numbers there": [node("Where", ["condition", "others", "x"], ["y"])],
    "what is infinite or no number stays": [node("Log", ["x"], ["n"]), node("Where", ["condition", "n", "x"], ["y"])],
    "a condition that is computed": [
        node("Cast", ["x"], ["c"], to=onnx.TensorProto.BOOL), node("Where", ["c", "others", "x"], ["y"]),
    ],
    "two that are computed": [node("Neg", ["x"], ["n"]), node("Where", ["condition", "n", "x"], ["y"])],
    "upper triangle": [node("Trilu", ["x"], ["y"])],
    "lower triangle, further down": [node("Trilu", ["x", "below"], ["y"], upper=0)],
    "again and again": [node("Tile", ["x", "counts"], ["y"])],
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_and_repetitions_of_what_is_computed(name: str) -> None:
    constants = {
        "condition": CONDITION, "number": np.array(7.5, np.float32), "others": floats(2, 1, 5, 1, seed=2),
        "below": np.array(-2, np.int64), "counts": np.array([1, 2, 1, 3], np.int64),
    }  # fmt: skip
    proto, x = model(CHOICES[name], {"x": (2, 4, 5, 6)}, ["y"], constants), floats(2, 4, 5, 6)
    x[0, 0, :2] = 0
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    found = evaluate(load_onnx(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # a logarithm is among them
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


@pytest.mark.parametrize("op", ["Add", "Where"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_masks_of_infinite_numbers(op: str, dtype: type[np.floating[Any]]) -> None:
    constants = {"k": np.array([[True, False, True, True]]), "i": np.array(-np.inf, dtype)}
    nodes = [node("Where", ["k", "x", "i"], ["y"]) if op == "Where" else node("Add", ["x", "i"], ["y"])]
    imported = load_onnx(model(nodes, {"x": (1, 4)}, ["y"], constants, dtype=dtype))
    (mask,) = [array for array in imported.constants.values() if array.dtype == np.float32 and array.min() < -2]
    assert mask == np.finfo(np.float32).min


def test_whole_numbers_beyond_float64_are_chosen_exactly() -> None:
    x = np.array([[(1 << 62) + 1, -(1 << 63)], [(1 << 63) - 1, 5]], np.int64)
    proto = model([node("Trilu", ["x"], ["y"])], {"x": (2, 2)}, ["y"], dtype=np.int64)
    np.testing.assert_array_equal(evaluate(load_onnx(proto), {"x": x})["y"], np.triu(x))
