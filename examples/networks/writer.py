"""A small writer of ONNX models: every call adds a node and gives the name of its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
OPSET = 20


class Writer:
    """A model in the making: one input ``x`` of any number of images [C, H, W], or rows of channels [T, C].

    weights: arrays by name, as a checkpoint has them; those that are missing are drawn from `seed`, so that activations
    keep their size from layer to layer.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], *, seed: int = 0, weights: Mapping[str, Array] | None = None
    ) -> None:
        self.name, self.shape = name, shape
        rows = len(shape) == 2
        self.channels = {"x": shape[1] if rows else shape[0]}
        self.size = {"x": shape[0] if rows else shape[1]}
        self._random = np.random.default_rng(seed)
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Any node of one result, which has as many channels as its first input."""
        output = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        self.channels[output], self.size[output] = self.channels[inputs[0]], self.size[inputs[0]]
        return output

    def constant(self, array: NDArray[Any], name: str) -> str:
        self._constants[name] = array.astype(np.float32)
        return name

    def number(self, value: float, name: str) -> str:
        return self.constant(np.array(value), name)

    def extents(self, extents: tuple[int, ...]) -> str:
        """A constant for Reshape."""
        name = "x".join(map(str, extents))
        self._constants[name] = np.array(extents, np.int64)
        return name

    def weight(self, name: str, drawn: NDArray[np.float64]) -> str:
        """A constant of the checkpoint, or else the one that was drawn."""
        if self._weights is None:
            return self.constant(drawn, name)
        if name not in self._weights or self._weights[name].shape != drawn.shape:
            raise ValueError(f"Checkpoint must have {name!r} of shape {drawn.shape}")
        return self.constant(self._weights[name], name)

    def conv(
        self, x: str, outs: int, kernel: int, name: str, *, stride: int = 1, groups: int = 1, same: bool = False
    ) -> str:
        """Convolution without bias. same: padded as TensorFlow does, more at the bottom and right, else evenly."""
        ins, size = self.channels[x] // groups, self.size[x]
        w = self._random.normal(0, (2 / (ins * kernel * kernel)) ** 0.5, (outs, ins, kernel, kernel))
        before = after = kernel // 2
        if same:
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before, after = total // 2, total - total // 2
        y = self.node(
            "Conv",
            x,
            self.weight(f"{name}.weight", w),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[before, before, after, after],
            group=groups,
        )
        self.channels[y], self.size[y] = outs, (size + before + after - kernel) // stride + 1
        return y

    def batch_norm(self, x: str, name: str, *, gain: float = 1.0, epsilon: float = 1e-5) -> str:
        channels, draw = self.channels[x], self._random
        drawn = {
            "weight": draw.uniform(0.7, 1.3, channels) * gain,
            "bias": draw.normal(0, 0.1, channels),
            "running_mean": draw.normal(0, 0.1, channels),
            "running_var": draw.uniform(0.8, 1.2, channels),
        }
        parameters = [self.weight(f"{name}.{key}", value) for key, value in drawn.items()]
        return self.node("BatchNormalization", x, *parameters, epsilon=epsilon)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def relu6(self, x: str) -> str:
        limits = [self.number(value, name) for name, value in (("zero", 0.0), ("six", 6.0))]
        return self.node("Clip", x, *limits)

    def layer_norm(self, x: str, name: str) -> str:
        """Normalisation of each row, with a scale and a bias for each channel."""
        channels, draw = self.channels[x], self._random
        drawn = {"weight": draw.uniform(0.7, 1.3, channels), "bias": draw.normal(0, 0.1, channels)}
        parameters = [self.weight(f"{name}.{key}", value) for key, value in drawn.items()]
        return self.node("LayerNormalization", x, *parameters, axis=-1)

    def linear(self, x: str, outs: int, name: str) -> str:
        """Each row of channels times weights, plus a bias."""
        ins = self.channels[x]
        y = self.node("MatMul", x, self.weight(f"{name}.weight", self._random.normal(0, ins**-0.5, (ins, outs))))
        y = self.node("Add", y, self.weight(f"{name}.bias", self._random.normal(0, 0.1, outs)))
        self.channels[y] = outs
        return y

    def classifier(self, x: str, classes: int, name: str) -> str:
        """Global average, a dense layer with a bias, softmax."""
        ins = self.channels[x]
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        w = self.weight(f"{name}.weight", self._random.normal(0, ins**-0.5, (classes, ins)))
        b = self.weight(f"{name}.bias", self._random.normal(0, 0.1, classes))
        return self.node("Softmax", self.node("Gemm", flat, w, b, transB=1), axis=1)

    def model(self, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """The model that computes `output` [N, *shape]."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *shape])],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        onnx.checker.check_model(model)
        return model
