"""Each operator against the reference evaluator that comes with onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from tests.compiler.frontend.models import floats, model, residual_network, single

X = (2, 4, 7, 6)
AXES = np.array([2, 3], np.int64)

CASES: dict[str, onnx.ModelProto] = {
    "conv": single("Conv", X, [floats(5, 4, 3, 3), floats(5)], pads=[1, 1, 1, 1]),
    "conv, no bias, kernel named": single("Conv", X, [floats(5, 4, 3, 2)], kernel_shape=[3, 2]),
    "conv, stride and dilation": single(
        "Conv", X, [floats(5, 4, 3, 3)], strides=[2, 1], dilations=[2, 1], pads=[2, 0, 1, 3]
    ),
    "conv, groups": single("Conv", X, [floats(6, 2, 3, 3)], group=2),
    "conv, depthwise": single("Conv", X, [floats(4, 1, 3, 3), floats(4)], group=4),
    "conv, same upper": single("Conv", X, [floats(5, 4, 4, 4)], auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv, same lower": single("Conv", X, [floats(5, 4, 4, 4)], auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv, valid": single("Conv", X, [floats(5, 4, 2, 2)], auto_pad="VALID"),
    "conv, opset 13": single("Conv", X, [floats(5, 4, 3, 3)], opset=13),
    "gemm": single("Gemm", (2, 4), [floats(4, 3), floats(3)]),
    "gemm, transposed and scaled": single("Gemm", (2, 4), [floats(3, 4), floats(1, 3)], transB=1, alpha=0.5, beta=-2.0),
    "gemm, one bias": single("Gemm", (2, 4), [floats(4, 3), floats(1)]),
    "gemm, no bias": single("Gemm", (2, 4), [floats(4, 3)]),
    "matmul": single("MatMul", (2, 4), [floats(4, 3)]),
    "add a bias": single("Add", X, [floats(4, 1, 1)]),
    "add a number": single("Add", X, [floats()]),
    "relu": single("Relu", X),
    "clip": single("Clip", X, [np.float32(-0.5).reshape(()), np.float32(0.5).reshape(())]),
    "clip above only": single("Clip", X, [None, np.float32(0.5).reshape(())]),
    "batch norm": single("BatchNormalization", X, [floats(4), floats(4, seed=1), floats(4, seed=2), floats(4) ** 2]),
    "max pool": single("MaxPool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max pool, dilated": single("MaxPool", X, kernel_shape=[2, 2], dilations=[2, 3]),
    "max pool, rounded up": single("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "max pool, rounded up beyond": single("MaxPool", (1, 1, 4, 4), kernel_shape=[1, 1], strides=[3, 3], ceil_mode=1),
    "average pool": single("AveragePool", X, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]),
    "average pool, padding counts": single(
        "AveragePool", X, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "average pool, rounded up": single("AveragePool", X, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "global average pool": single("GlobalAveragePool", X),
    "mean over the image": single("ReduceMean", X, [AXES]),
    "mean over the image, squeezed": single("ReduceMean", X, [AXES], keepdims=0),
    "mean over the image, opset 13": single("ReduceMean", X, axes=[-1, -2], opset=13),
    "flatten": single("Flatten", X),
    "flatten at 2": single("Flatten", X, axis=2),
    "flatten at -1": single("Flatten", X, axis=-1),
    "reshape": single("Reshape", X, [np.array([0, -1, 6], np.int64)]),
    "squeeze": single("Squeeze", (2, 3, 1, 1), [AXES]),
    "squeeze all": single("Squeeze", (2, 1, 3, 1)),
    "unsqueeze": single("Unsqueeze", (2, 3), [AXES]),
    "softmax": single("Softmax", (2, 5)),
    "softmax over channels": single("Softmax", X, axis=1),
    "identity": single("Identity", X),
    "dropout": single("Dropout", X, [np.float32(0.5).reshape(())]),
    "network": residual_network(),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_the_onnx_reference(name: str) -> None:
    proto = CASES[name]
    graph = load_onnx(proto.SerializeToString(), batch=2 if name == "network" else None)
    x = floats(*graph.inputs[0].type.shape, seed=9)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    actual = evaluate(graph, {"x": x})["y"]
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_add_of_two_activations() -> None:
    proto = model([helper.make_node("Add", ["x", "z"], ["y"])], {"x": X, "z": X}, ["y"])
    x, z = floats(*X), floats(*X, seed=1)
    np.testing.assert_array_equal(evaluate(load_onnx(proto), {"x": x, "z": z})["y"], x + z)


def test_constant_nodes_of_every_kind() -> None:
    def constant(name: str, **value: Any) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], **value)

    nodes = [
        constant("lo", value_float=-0.5),
        constant("hi", value=onnx.numpy_helper.from_array(np.float32(0.25).reshape(()))),
        constant("bias", value_floats=[1.0, 2.0]),
        constant("axes", value_ints=[2, 3]),
        helper.make_node("Clip", ["x", "lo", "hi"], ["c"]),
        helper.make_node("Squeeze", ["c", "axes"], ["s"]),
        helper.make_node("Add", ["s", "bias"], ["y"]),
    ]
    x = floats(3, 2, 1, 1)
    graph = load_onnx(model(nodes, {"x": (3, 2, 1, 1)}, ["y"]))
    expected = np.clip(x[:, :, 0, 0], -0.5, 0.25) + np.array([1, 2], np.float32)
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], expected)


def test_shape_arithmetic_is_evaluated() -> None:
    """The form in which older exporters write a flatten with an open batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["dims", "zero"], ["n"], axis=0),
        helper.make_node("Constant", [], ["axis0"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["n", "axis0"], ["n1"]),
        helper.make_node("Cast", ["n1"], ["n2"], to=onnx.TensorProto.INT64),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["n2", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    graph = load_onnx(model(nodes, {"x": ["N", 2, 3, 4]}, ["y"]), batch=5)
    assert graph.types["y"].shape == (5, 24)
    assert len(graph.nodes) == 1


def test_weights_may_be_float16_or_double() -> None:
    w = floats(5, 4, 3, 3).astype(np.float16)
    for kind in (np.float16, np.float64):
        graph = load_onnx(single("Conv", X, [w.astype(kind)]))
        np.testing.assert_array_equal(graph.constants["c1"], w.astype(np.float32))


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_the_larger_or_smaller_of_one_number_is_a_clip(op: str, shape: tuple[int, ...]) -> None:
    proto = single(op, (2, 3, 4, 5), [np.full(shape, 0.25, np.float32)])
    assert [node.op.kind for node in load_onnx(proto).nodes] == ["clip"]
    x = floats(2, 3, 4, 5)
    exact = np.maximum(x, 0.25) if op == "Max" else np.minimum(x, 0.25)
    np.testing.assert_array_equal(evaluate(load_onnx(proto), {"x": x})["y"], exact)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 1, 1, 1)])
def test_of_other_constants_it_is_a_function(shape: tuple[int, ...]) -> None:
    proto = single("Max", (2, 3, 4, 5), [np.full(shape, 0.25, np.float32)])
    assert [node.op.kind for node in load_onnx(proto).nodes] == ["pointwise"]
