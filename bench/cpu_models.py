"""What `bench/cpu.py` times: convolutions in floats and in integers, products of matrices, and quantised networks."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compiler.graph.ir import Graph, Node, TensorType, Value
from compiler.graph.layout import Layout
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.relayout import Relayout
from compiler.tensor.ir import DType

Array = NDArray[Any]
OPSET, IR_VERSION = 17, 9


@dataclass(frozen=True)
class Layer:
    """A convolution of `size` by `size` pixels, square in everything, with padding that keeps the size at stride 1."""

    size: int
    ins: int
    outs: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        return f"{self.size}x{self.size} {self.ins}->{self.outs} {self.kernel}x{self.kernel} /{self.stride}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Of an ONNX node."""
        return {
            "kernel_shape": [self.kernel] * 2,
            "strides": [self.stride] * 2,
            "pads": [self.kernel // 2] * 4,
        }

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return 1, self.ins, self.size, self.size


RESNET18 = tuple(
    Layer(*sizes)
    for sizes in (
        (224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 128, 3, 2), (56, 64, 128, 1, 2), (28, 128, 128, 3, 1),
        (28, 128, 256, 3, 2), (28, 128, 256, 1, 2), (14, 256, 256, 3, 1), (14, 256, 512, 3, 2), (14, 256, 512, 1, 2),
        (7, 512, 512, 3, 1),
    )
)  # fmt: skip
"""The distinct convolutions of ResNet-18."""


def random_layers(count: int, seed: int) -> list[Layer]:
    """Convolutions of other sizes: odd numbers of pixels, channels that fill no block, kernels up to 5."""
    r = random.Random(seed)
    layers: list[Layer] = []
    while len(layers) < count:
        size, ins, outs = r.randint(5, 90), r.randint(8, 300), r.randint(8, 300)
        layer = Layer(size, ins, outs, r.choice((1, 3, 3, 5)), r.choice((1, 1, 2)))
        macs = ins * outs * layer.kernel**2 * (size // layer.stride) ** 2
        if 1e6 < macs < 1e8:
            layers.append(layer)
    return layers


def _model(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], dtype: int, **constants: Array) -> Any:
    y = helper.make_tensor_value_info("y", dtype, None)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layer", inputs, [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def convolution(layer: Layer) -> onnx.ModelProto:
    """With bias and ReLU, in float32."""
    taps = layer.ins * layer.kernel**2
    shape = layer.outs, layer.ins, layer.kernel, layer.kernel
    w = np.random.default_rng(0).normal(0, math.sqrt(2 / taps), shape).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], **layer.attributes)
    nodes = [conv, helper.make_node("Relu", ["c"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.shape)
    return _model(nodes, [x], TensorProto.FLOAT, w=w, b=np.zeros(layer.outs, np.float32))


def _weights(layer: Layer) -> Array:
    shape = layer.outs, layer.ins, layer.kernel, layer.kernel
    return np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)


def qlinear_convolution(layer: Layer, activations: type[np.generic]) -> onnx.ModelProto:
    """Of int8 weights and uint8 or int8 activations, row-major integers in and out, for onnxruntime."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(activations))
    names = ["x", "x_scale", "zero", "w", "w_scale", "w_zero", "y_scale", "zero", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], **layer.attributes)
    return _model(
        [node],
        [helper.make_tensor_value_info("x", dtype, layer.shape)],
        dtype,
        x_scale=np.float32(0.02),
        zero=np.array(0, activations),
        w=_weights(layer),
        w_scale=np.full(layer.outs, 0.001, np.float32),
        w_zero=np.zeros(layer.outs, np.int8),
        y_scale=np.float32(0.05),
        b=np.zeros(layer.outs, np.int32),
    )


def integer_convolution(layer: Layer) -> Graph:
    """The same for our own compiler: row-major int8 in and out, a factor and a shift behind the sums."""
    x = Value(name="x", type=TensorType(layer.shape, DType.INT8))
    stride, padding = (layer.stride,) * 2, (layer.kernel // 2,) * 4
    op = QConv2d(stride=stride, padding=padding, pre_shift=4, shift=12, lo=0, hi=127)
    constants = {
        "w": _weights(layer),
        "m": np.full(layer.outs, 5, np.int32),
        "b": np.full(layer.outs, 1 << 11, np.int32),
    }
    nodes = (
        Node(op=op, inputs=("x", "w", "m", "b"), output="blocks", name="conv"),
        Node(op=Relayout(), inputs=("blocks",), output="y", name="rows"),
    )
    layouts = {"y": Layout(1, 1)}
    return Graph(name="layer", inputs=(x,), outputs=("y",), nodes=nodes, constants=constants, layouts=layouts)


def product(size: int) -> onnx.ModelProto:
    """Of two float32 matrices that are both given with each run."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xb"]
    return _model([helper.make_node("MatMul", ["x", "b"], ["y"])], inputs, TensorProto.FLOAT)


def quantised_for_onnxruntime(model: onnx.ModelProto, samples: dict[str, Array]) -> bytes:
    """By onnxruntime's own quantiser: QDQ, uint8 activations, int8 weights by channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left: Iterator[dict[str, Array]] = iter([samples])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "quantised.onnx")
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()
