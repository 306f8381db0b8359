"""Element types other than float32: what comes in and goes out, and that the quantiser has none of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from compiler.errors import QuantizeError
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.passes.pipeline import prepare
from compiler.tensor.ir import DType
from tests.compiler.frontend.models import floats, model, single
from tests.compiler.frontend.quantized_models import QUANTIZE, SCALES, X, f32, integers
from vta_hw.spec.config import preset

node = helper.make_node


def assert_as_reference(proto: onnx.ModelProto, rtol: float = 0, **inputs: NDArray[Any]) -> None:
    graph = load_onnx(proto)
    found = evaluate(graph, inputs)
    for name, expected in zip(graph.outputs, ReferenceEvaluator(proto).run(None, inputs), strict=True):
        assert found[name].dtype == expected.dtype
        np.testing.assert_allclose(found[name], expected, rtol=rtol, atol=rtol, err_msg=name)


def test_a_network_in_float16_is_computed_in_float32() -> None:
    constants = {"w": floats(5, 4, 3, 3).astype(np.float16), "b": floats(5).astype(np.float16)}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node("Relu", ["c"], ["y"]),
        node("Cast", ["y"], ["z"], to=TensorProto.FLOAT16),
        node("Identity", ["b"], ["k"]),
    ]
    proto = model(nodes, {"x": X}, ["y", "z", "k"], constants, dtype=np.float16)
    graph = load_onnx(proto)
    assert {graph.types[each.output].dtype for each in graph.nodes} == {DType.FLOAT16, DType.FLOAT32}
    assert_as_reference(proto, 2e-3, x=floats(*X).astype(np.float16))


def test_a_cast_to_float16_rounds() -> None:
    nodes = [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    x = floats(64)
    (found,) = evaluate(load_onnx(model(nodes, {"x": (64,)}, ["y"])), {"x": x}).values()
    np.testing.assert_array_equal(found, x.astype(np.float16).astype(np.float32))


def test_doubles_keep_their_digits() -> None:
    c = np.array([1e-12, 1.0, 3.0, 1e300])
    assert_as_reference(single("Add", (2, 4), [c], dtype=np.float64), x=np.ones((2, 4)))


def test_integers_come_in_and_go_out() -> None:
    """As the model has them: before a DequantizeLinear, behind a QuantizeLinear, with one scale or several."""
    constants = {**SCALES, "s4": f32(0.1, 0.2, 0.3, 0.4), "z4": np.array([3, 0, -9, 1], np.int8)}
    nodes = [
        node("DequantizeLinear", ["x", "s4", "z4"], ["f"], axis=1),
        node("QuantizeLinear", ["f", "sx", "z"], ["one"]),
        node("QuantizeLinear", ["f", "s4", "z4"], ["several"], axis=1),
        node("DequantizeLinear", ["several", "s4", "z4"], ["back"], axis=1),
        node("Max", ["several", "several"], ["largest"]),
        node("QuantizeLinear", ["back", "s4", "z4"], ["again"], axis=1),
    ]
    outputs = ["one", "several", "largest", "again"]
    proto = model(nodes, {"x": X}, outputs, constants, 21, np.int8)
    assert_as_reference(proto, x=integers(*X))
    product = node("QLinearMatMul", ["x", "sx", "z", "m", "sx", "z", "sy", "z"], ["y"])
    assert_as_reference(
        model([product], {"x": (3, 4)}, ["y"], {**SCALES, "m": integers(4, 5)}, 21, np.int8), x=integers(3, 4)
    )


def test_constants_go_out_as_copies() -> None:
    c = floats(4)
    nodes = [node("Add", ["x", "c"], ["y"]), node("Shape", ["x"], ["s"])]
    graph = load_onnx(model(nodes, {"x": (2, 4)}, ["y", "c", "s", "c"], {"c": c}))
    x = floats(2, 4, seed=1)
    found = evaluate(graph, {"x": x})
    np.testing.assert_array_equal(found["c"], c)
    np.testing.assert_array_equal(found["y"], x + c)
    np.testing.assert_array_equal(found["s"], np.array([2, 4], np.int64))
    assert {"c", "s", "y"} == set(graph.producers)


@pytest.mark.parametrize(
    ("proto", "sentence"),
    [
        (single("Identity", X, dtype=np.int8), "Value 'x' must be float32 to be quantised, not int8[1,4,6,6]"),
        (single("Neg", X, dtype=np.float64), "Value 'x' must be float32 to be quantised, not float64[1,4,6,6]"),
        (
            model([QUANTIZE], {"x": X}, ["xq"], SCALES, 21),
            "Value 'xq' must be float32 to be quantised, not int8[1,4,6,6]",
        ),
    ],
)
def test_the_quantiser_refuses_other_types(proto: onnx.ModelProto, sentence: str) -> None:
    with pytest.raises(QuantizeError) as caught:
        prepare(load_onnx(proto), preset("sim"))
    assert str(caught.value) == sentence
