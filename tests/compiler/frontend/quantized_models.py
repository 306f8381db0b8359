"""Quantised models: one convolution in both forms, and small networks, quantised by onnxruntime, with its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.compiler.frontend.models import floats, model

Constants = dict[str, NDArray[Any]]
X = (1, 4, 6, 6)
"""Of the convolution."""
SHAPE = (1, 3, 12, 12)
"""Of the networks."""
node = helper.make_node


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def integers(*shape: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


SCALES: Constants = {
    "sx": f32(0.02),
    "sy": f32(0.5),
    "sz": f32(0.04),
    "z": np.array(0, np.int8),
    "w": integers(5, 4, 3, 3),
    "sw": f32(0.01, 0.02, 0.03, 0.004, 0.005),
    "zw": np.zeros(5, np.int8),
    "b": integers(5, seed=1).astype(np.int32) * 9,
}
"""Of an activation before and after a convolution and of its result's reader; its weights and bias."""

QUANTIZE = node("QuantizeLinear", ["x", "sx", "z"], ["xq"], name="in")
DEQUANTIZE = node("DequantizeLinear", ["yq", "sy", "z"], ["y"], name="out")


def qdq(middle: Sequence[onnx.NodeProto], constants: Constants | None = None) -> onnx.ModelProto:
    """A model that quantises x to xq, and makes y of yq."""
    return model([QUANTIZE, *middle, DEQUANTIZE], {"x": X}, ["y"], {**SCALES, **(constants or {})}, opset=21)


def dequantized_conv(**attributes: Any) -> onnx.ModelProto:
    middle = [
        node("DequantizeLinear", ["xq", "sx", "z"], ["xf"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wf"], axis=0),
        node("DequantizeLinear", ["b", "sb"], ["bf"], axis=0),
        node("Conv", ["xf", "wf", "bf"], ["c"], name="conv", **attributes),
        node("QuantizeLinear", ["c", "sy", "z"], ["yq"], name="after"),
    ]
    return qdq(middle, {"sb": SCALES["sx"] * SCALES["sw"]})


def integer_conv(**attributes: Any) -> onnx.ModelProto:
    operands = ["xq", "sx", "z", "w", "sw", "zw", "sy", "z", "b"]
    return qdq([node("QLinearConv", operands, ["yq"], name="conv", **attributes)])


def weights(*shape: int, seed: int) -> NDArray[np.float32]:
    return floats(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:])))


def residual() -> onnx.ModelProto:
    """Convolutions with ReLU, an addition of two branches, pools, dense layers."""
    constants = {
        "w1": weights(16, 3, 3, 3, seed=1),
        "b1": floats(16, seed=2) / 4,
        "w2": weights(16, 16, 3, 3, seed=3),
        "b2": floats(16, seed=4) / 4,
        "w3": weights(24, 16, 3, 3, seed=5),
        "w4": weights(24, 16, 1, 1, seed=6),
        "w5": weights(10, 24, seed=7),
        "b5": floats(10, seed=8),
        "w6": weights(10, 5, seed=9).copy(),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="body", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["a"], name="add"),
        node("Relu", ["a"], ["r2"], name="relu2"),
        node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w3"], ["c3"], name="left", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Conv", ["p", "w4"], ["c4"], name="right", strides=[2, 2]),
        node("Add", ["c3", "c4"], ["s"], name="sum"),
        node("GlobalAveragePool", ["s"], ["g"], name="mean"),
        node("Flatten", ["g"], ["f"], name="flat"),
        node("Gemm", ["f", "w5", "b5"], ["d"], name="dense", transB=1),
        node("MatMul", ["d", "w6"], ["y"], name="last"),
    ]
    return model(nodes, {"x": SHAPE}, ["y"], constants, opset=21)


def separable() -> onnx.ModelProto:
    """Depthwise convolutions with ReLU6, a mean of windows, branches side by side, a gate of each channel."""
    constants = {
        "w1": weights(16, 3, 3, 3, seed=1) * 4,
        "b1": floats(16, seed=2),
        "w2": weights(16, 1, 3, 3, seed=3) * 2,
        "w3": weights(8, 16, 1, 1, seed=4),
        "b3": floats(8, seed=5) / 4,
        "w4": weights(8, 16, 3, 3, seed=6),
        "wg": weights(16, 16, 1, 1, seed=7),
        "w5": weights(10, 16, 1, 1, seed=8),
        "zero": np.float32(0).reshape(()),
        "six": np.float32(6).reshape(()),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        node("Clip", ["c1", "zero", "six"], ["r1"], name="relu6"),
        node("Conv", ["r1", "w2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=16, strides=[2, 2]),
        node("Clip", ["c2", "zero", "six"], ["r2"], name="relu6b"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], name="one"),
        node("Conv", ["r2", "w4"], ["c4"], name="two", pads=[1, 1, 1, 1]),
        node("Concat", ["c3", "c4"], ["both"], name="concat", axis=1),
        node("AveragePool", ["both"], ["v"], name="mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["v"], ["g"], name="squeeze"),
        node("Conv", ["g", "wg"], ["e"], name="excite"),
        node("Sigmoid", ["e"], ["gate"], name="gate"),
        node("Mul", ["v", "gate"], ["m"], name="scale"),
        node("Conv", ["m", "w5"], ["y"], name="last"),
    ]
    return model(nodes, {"x": SHAPE}, ["y"], constants, opset=21)


def bent() -> onnx.ModelProto:
    """Convolutions with activations that are bent lines, a gate of each channel, and the larger of two activations."""
    constants = {
        "w1": weights(16, 3, 3, 3, seed=1) * 2,
        "b1": floats(16, seed=2) / 4,
        "w2": weights(16, 16, 3, 3, seed=3) * 2,
        "w3": weights(16, 16, 3, 3, seed=4) * 2,
        "slopes": floats(16, 1, 1, seed=8) / 4,
        "w4": weights(16, 16, 1, 1, seed=5) * 2,
        "w5": weights(10, 16, 1, 1, seed=6),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c1"], ["l"], name="leaky", alpha=0.1),
        node("Conv", ["l", "w2"], ["c2"], name="two", pads=[1, 1, 1, 1]),
        node("HardSwish", ["c2"], ["h"], name="swish"),
        node("Conv", ["h", "w3"], ["c3"], name="three", pads=[1, 1, 1, 1]),
        node("PRelu", ["c3", "slopes"], ["p"], name="prelu"),
        node("GlobalAveragePool", ["p"], ["g"], name="squeeze"),
        node("Conv", ["g", "w4"], ["e"], name="excite"),
        node("HardSigmoid", ["e"], ["gate"], name="gate"),
        node("Mul", ["p", "gate"], ["m"], name="scale"),
        node("Max", ["m", "h"], ["larger"], name="larger"),
        node("Conv", ["larger", "w5"], ["y"], name="last"),
    ]
    return model(nodes, {"x": SHAPE}, ["y"], constants, opset=21)


NETWORKS = {"residual": residual, "separable": separable, "bent": bent}


def quantized(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    operators: bool = False,
    unsigned: bool = False,
    images: NDArray[np.float32] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """By onnxruntime, symmetric in int8 unless `options` say otherwise; operators: in QOperator form, else in QDQ.

    unsigned: activations in uint8, with zero points. images: what to calibrate with, one by one.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            (value,) = proto.graph.input
            shape = [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]
            arrays = [floats(*shape, seed=100 + k) for k in range(4)] if images is None else images[:, None]
            self._inputs: Iterator[dict[str, Any]] = iter([{value.name: array} for array in arrays])

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self._inputs, None)

    source, result = folder / "float.onnx", folder / "quantized.onnx"
    proto.ir_version = 10  # of which every onnxruntime that has opset 21 knows
    onnx.save(proto, source)
    quantize_static(
        source,
        result,
        Reader(),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        **{
            "activation_type": QuantType.QUInt8 if unsigned else QuantType.QInt8,
            "weight_type": QuantType.QInt8,
            "per_channel": True,
            "extra_options": {"ActivationSymmetric": not unsigned, "WeightSymmetric": True},
            **options,
        },
    )
    return onnx.load(result)


def with_all_outputs(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The model with every quantised activation as an output, in reals; and the step of each."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    opened = onnx.ModelProto()
    opened.CopyFrom(proto)
    steps = {
        node.output[0]: float(constants[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants
    }
    for name in steps.keys() - {value.name for value in proto.graph.output}:
        opened.graph.output.add(name=name)
    return opened, steps


def run(proto: onnx.ModelProto, x: NDArray[np.float32], *, whole: bool = False) -> dict[str, NDArray[Any]]:
    """The outputs that onnxruntime computes, image by image unless `whole`.

    Each operator by itself: fused ones round elsewhere, and integers of some CPUs saturate.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    (value,) = session.get_inputs()
    parts = [session.run(names, {value.name: part}) for part in ([x] if whole else x[:, None])]
    return {name: np.concatenate([part[k] for part in parts]) for k, name in enumerate(names)}
