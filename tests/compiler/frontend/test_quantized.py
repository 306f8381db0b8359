"""Quantised models as they are imported: both forms, what is refused, and that integers and scales survive."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from compiler.errors import FrontendError
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.ops.elementwise import FakeQuantize
from compiler.graph.passes.pipeline import prepare
from tests.compiler.frontend.models import floats, model
from tests.compiler.frontend.quantized_models import (
    DEQUANTIZE,
    QUANTIZE,
    SCALES,
    Constants,
    X,
    dequantized_conv,
    f32,
    integer_conv,
    integers,
    qdq,
    run,
)
from vta_hw.spec.config import preset

node = helper.make_node


def test_a_pair_is_a_fake_quantisation() -> None:
    proto = qdq([node("Identity", ["xq"], ["yq"])], {"sy": f32(0.02)})
    graph = load_onnx(proto)
    ops = [each.op for each in graph.nodes if isinstance(each.op, FakeQuantize)]
    assert ops == [FakeQuantize(scale=float(np.float32(0.02)), lo=-128, hi=127)]
    x = floats(*X) * 3
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("zero", [0, 3, 128])
def test_every_zero_point_is_read(dtype: type, zero: int) -> None:
    if zero > np.iinfo(dtype).max:
        zero = -zero
    proto = qdq([node("Identity", ["xq"], ["yq"])], {"sy": f32(0.02), "z": np.array(zero, dtype)})
    x = floats(*X) * 3
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(load_onnx(proto), {"x": x})["y"], expected, rtol=1e-6)


def test_weights_keep_their_integers_and_scales_to_the_quantiser() -> None:
    graph = prepare(load_onnx(dequantized_conv()), preset("sim"))
    (name,) = graph.weight_scales
    np.testing.assert_array_equal(graph.weight_scales[name], SCALES["sw"])
    np.testing.assert_array_equal(
        np.rint(graph.constants[name] / SCALES["sw"].reshape(-1, 1, 1, 1)), SCALES["w"].astype(np.float32)
    )


ROWS = integers(3, 144)
DENSE: dict[str, tuple[list[onnx.NodeProto], NDArray[Any], NDArray[np.float32]]] = {
    "gemm": ([node("Gemm", ["f", "v"], ["d"], transB=1, alpha=0.5)], ROWS, f32(0.1, 0.2, 0.3)),
    "gemm of columns": ([node("Gemm", ["f", "v"], ["d"])], ROWS.T, f32(0.1, 0.2, 0.3)),
    "matmul": ([node("MatMul", ["f", "v"], ["d"])], ROWS.T, f32(0.1, 0.2, 0.3)),
    "matmul of rank 3": ([node("MatMul", ["f", "v"], ["d"])], ROWS.T[None], f32(0.1, 0.2, 0.3)),
    "matmul of rank 3 by rank 2": (
        [node("Reshape", ["f", "row"], ["r"]), node("MatMul", ["r", "v"], ["d"])], ROWS.T, f32(0.1, 0.2, 0.3),
    ),
    "one scale": ([node("MatMul", ["f", "v"], ["d"])], ROWS.T, f32(0.1)),
    "line": (
        [
            node("Reshape", ["f", "line"], ["l"]), node("Conv", ["l", "v"], ["k"]), node("Flatten", ["k"], ["d"]),
        ],
        integers(3, 36, 4), f32(0.1, 0.2, 0.3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DENSE)
def test_weights_of_dense_layers_too(name: str) -> None:
    nodes, weights, scale = DENSE[name]
    columns = weights.shape[-2:] == (144, 3)
    middle = [
        node("DequantizeLinear", ["xq", "sx"], ["xf"]), node("Flatten", ["xf"], ["f"]),
        node("DequantizeLinear", ["wq", "sv"], ["v"], axis=weights.ndim - 1 if columns else 0), *nodes,
        node("QuantizeLinear", ["d", "sy", "z"], ["yq"]),
    ]  # fmt: skip
    shapes = {"line": np.array([1, 36, 4], np.int64), "row": np.array([1, 1, 144], np.int64)}
    graph = prepare(load_onnx(qdq(middle, {"wq": weights, "sv": scale, **shapes})), preset("sim"))
    ((kept, scales),) = graph.weight_scales.items()
    expected = np.broadcast_to(scale * np.float32(0.5) if name == "gemm" else scale, 3)
    np.testing.assert_allclose(scales, expected, rtol=1e-7)
    stored = (weights.reshape(144, 3).T if columns else weights).reshape(graph.constants[kept].shape)
    np.testing.assert_array_equal(np.rint(graph.constants[kept] / scales.reshape(-1, 1, 1, 1)), stored)


def test_scale_and_offset_behind_a_convolution_keep_the_integers() -> None:
    names = ["scale", "shift", "mean", "variance"]
    proto = dequantized_conv()
    proto.graph.node[4].output[0] = "k"
    proto.graph.node.insert(5, node("BatchNormalization", ["k", *names], ["c"]))
    for k, name in enumerate(names):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.abs(floats(5, seed=k)) + 0.1, name))
    graph = prepare(load_onnx(proto), preset("sim"))
    ((name, scale),) = graph.weight_scales.items()
    steps = graph.constants[name] / scale.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(steps, SCALES["w"], atol=1e-4)


@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 1]}])
def test_operators_of_integers_are_the_pairs_they_stand_for(attributes: dict[str, Any]) -> None:
    x, one, two = floats(*X), dequantized_conv(**attributes), integer_conv(**attributes)
    answers = [evaluate(load_onnx(proto), {"x": x})["y"] for proto in (one, two)]
    np.testing.assert_array_equal(answers[0], answers[1])
    for proto in (one, two):
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
        assert np.abs(answers[0] - expected).max() < 0.51


def test_product_of_integer_matrices() -> None:
    middle = [
        node("Flatten", ["xq"], ["f"]),
        node("QLinearMatMul", ["f", "sx", "z", "v", "sv", "z", "sy", "z"], ["yq"], name="product"),
    ]
    proto = qdq(middle, {"v": ROWS.T, "sv": f32(0.01)})
    x = floats(*X)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    graph = load_onnx(proto)
    assert list(graph.weight_scales)
    assert np.abs(evaluate(graph, {"x": x})["y"] - expected).max() < 0.51


def test_integers_are_moved_as_the_reals_are() -> None:
    def moved(x: str, y: str) -> list[onnx.NodeProto]:
        return [
            node("MaxPool", [x], ["p"], kernel_shape=[2, 2]), node("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]),
            node("Shape", ["t"], ["shape"]), node("Split", ["t"], ["one", "two"], axis=3, num_outputs=2),
            node("Concat", ["two", "one"], ["c"], axis=3), node("Reshape", ["c", "shape"], [y]),
        ]  # fmt: skip

    reals = [node("DequantizeLinear", ["xq", "sx", "z"], ["xf"]), *moved("xf", "y")]
    x = floats(*X)
    (expected,) = ReferenceEvaluator(through(*reals)).run(None, {"x": x})
    graph = load_onnx(qdq(moved("xq", "yq"), {"sy": f32(0.02)}))
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], expected)


@pytest.mark.parametrize("padding", ["", "five"])
def test_integers_are_padded_and_repeated_as_they_are(padding: str) -> None:
    """By zero, which stands for another number, or by what is given."""
    middle = [
        node("Pad", ["xq", "pads", padding], ["p"]), node("Resize", ["p", "", "", "size"], ["yq"], mode="nearest"),
    ]  # fmt: skip
    pads, size = np.array([0, 0, 1, 0, 0, 1, 0, 2], np.int64), np.array([1, 5, 14, 8], np.int64)
    constants = {"sy": f32(0.02), "z": np.array(3, np.int8), "five": np.array(5, np.int8), "pads": pads, "size": size}
    proto, x = qdq(middle, constants), floats(*X)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(load_onnx(proto), {"x": x})["y"], expected, rtol=1e-6)


@pytest.mark.parametrize(("axis", "block", "scale"), [(1, 0, (1, 6)), (0, 0, (4,)), (1, 4, (4, 2)), (-1, 3, (4, 2))])
def test_constants_dequantised_along_an_axis_and_in_blocks(axis: int, block: int, scale: tuple[int, ...]) -> None:
    given, zero = np.abs(floats(*scale)) + 0.1, integers(*scale)
    if 1 in scale:
        given, zero = given.reshape(-1), zero.reshape(-1)
    nodes = [
        node("DequantizeLinear", ["q", "s", "zero"], ["k"], axis=axis, block_size=block),
        node("Add", ["x", "k"], ["y"]),
    ]
    constants: Constants = {"q": integers(4, 6), "s": given, "zero": zero}
    proto = model(nodes, {"x": (4, 6)}, ["y"], constants, opset=21)
    x = floats(4, 6)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(load_onnx(proto), {"x": x})["y"], expected, rtol=1e-6)


def through(*nodes: onnx.NodeProto, **constants: NDArray[Any]) -> onnx.ModelProto:
    """The quantised x, the nodes that make y of it, other constants."""
    return model([QUANTIZE, *nodes], {"x": X}, ["y"], {**SCALES, **constants}, opset=21)


def quantize(*inputs: str, **attributes: Any) -> onnx.NodeProto:
    return node("QuantizeLinear", ["x", *inputs], ["q"], name="n", **attributes)


def conv(operands: str, **constants: NDArray[Any]) -> onnx.ModelProto:
    names = [name.strip() for name in operands.split(",")]
    return through(node("QLinearConv", names, ["q"], name="n"), node("Identity", ["x"], ["y"]), **constants)


REFUSALS = {
    "Node 'n' (QuantizeLinear): scale must be positive, not -1.0": through(quantize("s"), s=f32(-1.0)),
    "Node 'n' (QuantizeLinear): scale must have finite values only": through(quantize("s"), s=f32(np.nan)),
    "Node 'n' (QuantizeLinear): zero points must be 4, one for each scale, not 1": through(
        quantize("s", "z"), s=f32(1, 2, 3, 4)
    ),
    "Node 'n' (QuantizeLinear): input 1 must be a constant, not the computed 'x'": through(quantize("x")),
    "Node 'n' (QuantizeLinear): zero point must be an integer of 8 or 16 bits, not int32": through(
        quantize("sx", "s"), s=np.array(0, np.int32)
    ),
    "Node 'n' (QuantizeLinear): attribute 'output_dtype' must be an integer of 8 or 16 bits, not FLOAT8E4M3FN": through(
        quantize("sx", output_dtype=TensorProto.FLOAT8E4M3FN)
    ),
    "Node 'n' (QuantizeLinear): attribute 'precision' must be FLOAT, not FLOAT16": through(
        quantize("sx", precision=TensorProto.FLOAT16)
    ),
    "Node 'n' (QuantizeLinear): must read 'xq' through a DequantizeLinear, since that is quantised": through(
        node("QuantizeLinear", ["xq", "sx"], ["q"], name="n")
    ),
    "Node 'n' (DequantizeLinear): input 0 must be read as it was quantised, as 0.02 times int8 less 0, "
    "not 0.5 times int8 less 0": through(node("DequantizeLinear", ["xq", "sy", "z"], ["y"], name="n")),
    "Node 'n' (DequantizeLinear): input 0 must be integers, not float32": through(
        node("DequantizeLinear", ["sw", "sx"], ["k"], name="n")
    ),
    "Node 'n' (DequantizeLinear): attribute 'output_dtype' must be FLOAT, not FLOAT16": through(
        node("DequantizeLinear", ["w", "sx"], ["k"], name="n", output_dtype=TensorProto.FLOAT16)
    ),
    "Node 'n' (DequantizeLinear): scale must have 4 values, one for each slice, not [5]": through(
        node("DequantizeLinear", ["w", "sw"], ["k"], name="n")
    ),
    "Node 'n' (DequantizeLinear): attribute 'axis' must be -4..3, not 4": through(
        node("DequantizeLinear", ["w", "sw"], ["k"], name="n", axis=4)
    ),
    "Node 'n' (DequantizeLinear): scale must have one value for each block, [5, 2, 3, 3], not [5]": through(
        node("DequantizeLinear", ["w", "sw"], ["k"], name="n", block_size=2)
    ),
    "Node 'n' (DequantizeLinear): zero points must be 5 of int8, not 1 of int8": through(
        node("DequantizeLinear", ["w", "sw", "z"], ["k"], name="n", axis=0)
    ),
    "Node 'n' (Conv): must read 'xq' through a DequantizeLinear, since that is quantised": through(
        node("Conv", ["xq", "w"], ["y"], name="n")
    ),
    "Node 'n' (Concat): must read integers of one scale and zero point, not 0.02 times int8 less 0 "
    "and 0.5 times int8 less 0": through(
        node("QuantizeLinear", ["x", "sy", "z"], ["q"]), node("Concat", ["xq", "q"], ["c"], name="n", axis=1)
    ),
    "Node 'n' (Pad): padding must be one integer, int8, not 0.019999999552965164": through(
        node("Pad", ["xq", "pads", "sx"], ["p"], name="n"), pads=np.zeros(8, np.int64)
    ),
    "Node 'n' (Resize): integers must be moved alone, as mode nearest does, not by linear of half_pixel": through(
        node("Resize", ["xq", "", "", "size"], ["p"], name="n", mode="linear"), size=np.array([1, 4, 9, 9], np.int64)
    ),
    "Node 'n' (QLinearConv): must have input 6, not only ['xq', 'sx', 'z', 'w', 'sw', 'zw']": conv(
        "xq, sx, z, w, sw, zw"
    ),
    "Node 'n' (QLinearConv): input 0 must be integers, not float32": conv("x, sx, z, w, sw, zw, sy, z"),
    "Node 'n' (QLinearConv): scale must be one number for all of an activation, not [4]": conv(
        "xq, sx, z, w, sw, zw, s, z", s=f32(1, 2, 3, 4)
    ),
    "Node 'n' (QLinearConv): bias must be int32, not int8": conv("xq, sx, z, w, sw, zw, sy, z, zw"),
    "Node 'n' (QLinearConv): bias must have a value for each of 5 scales, not 3": conv(
        "xq, sx, z, w, sw, zw, sy, z, b3", b3=np.zeros(3, np.int32)
    ),
    "Node 'n' (com.microsoft.QLinearGlobalAveragePool): attribute 'channels_last' must be 0..0, not 1": through(
        node(
            "QLinearGlobalAveragePool",
            ["xq", "sx", "z", "sy", "z"],
            ["y"],
            name="n",
            domain="com.microsoft",
            channels_last=1,
        )
    ),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusal(sentence: str) -> None:
    with pytest.raises(FrontendError) as caught:
        load_onnx(REFUSALS[sentence])
    assert str(caught.value) == sentence


ROW: Constants = {
    **SCALES,
    "v": integers(5, 16),
    "columns": integers(16, 5),
    "sv": f32(0.01),
    "zv": np.zeros(5, np.int8),
}
IMAGE, ROWS_OF_X = (1, 8, 6, 6), (3, 16)
OPERATORS: dict[str, tuple[tuple[int, ...], str, str, dict[str, Any]]] = {
    "QGemm, rows": (ROWS_OF_X, "QGemm", "xq sx z v sw zv b sy z", {"transB": 1}),
    "QGemm, scaled": (ROWS_OF_X, "QGemm", "xq sx z v sw zv b sy z", {"transB": 1, "alpha": 0.5}),
    "QGemm, columns": (ROWS_OF_X, "QGemm", "xq sx z columns sw zv b sy z", {}),
    "QGemm, no bias": (ROWS_OF_X, "QGemm", "xq sx z columns sv z - sy z", {}),
    "QLinearAdd": (ROWS_OF_X, "QLinearAdd", "xq sx z xq sx z sy z", {}),
    "QLinearAveragePool": (IMAGE, "QLinearAveragePool", "xq sx z sy z", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "QLinearConcat": (IMAGE, "QLinearConcat", "sy z xq sx z xq sx z", {"axis": 1}),
    "QLinearGlobalAveragePool": (IMAGE, "QLinearGlobalAveragePool", "xq sx z sy z", {"channels_last": 0}),
    "QLinearLeakyRelu": (IMAGE, "QLinearLeakyRelu", "xq sx z sy z", {"alpha": 0.2}),
    "QLinearMul": (ROWS_OF_X, "QLinearMul", "xq sx z xq sx z sy z", {}),
    "QLinearSigmoid": (IMAGE, "QLinearSigmoid", "xq sx z sy z", {}),
    "QLinearSoftmax": (ROWS_OF_X, "QLinearSoftmax", "xq sx z sy z", {"axis": -1, "opset": 13}),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_contributed_operators_are_what_onnxruntime_computes(name: str) -> None:
    """But for ties, which means of windows often are."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    shape, op, operands, attributes = OPERATORS[name]
    inputs = ["" if operand == "-" else operand for operand in operands.split()]
    scale = 0.5 if "Gemm" in op else 0.01
    middle = [QUANTIZE, node(op, inputs, ["yq"], name="n", domain="com.microsoft", **attributes), DEQUANTIZE]
    proto = model(middle, {"x": shape}, ["y"], {**ROW, "sy": f32(scale)}, opset=21)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.ir_version = 10
    x = floats(*shape)
    off = np.abs(evaluate(load_onnx(proto), {"x": x})["y"] - run(proto, x, whole=True)["y"]) / scale
    assert off.max() < (1.01 if op == "QLinearAveragePool" else 0.01)
    assert (off > 0.5).mean() < 0.1


def test_contributed_operators_are_those_of_their_domain_alone() -> None:
    operands = ["xq", "sx", "z", "xq", "sx", "z", "sy", "z"]
    with pytest.raises(FrontendError, match=r"^Node 'n' \(QLinearAdd\): operator must be one of Abs, Add"):
        load_onnx(through(node("QLinearAdd", operands, ["y"], name="n")))
