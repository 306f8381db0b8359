"""Small ONNX models for the tests of the importer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Shape = Sequence[int | str | None]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]] | None = None,
    opset: int = 20,
    dtype: type[np.generic] = np.float32,
) -> onnx.ModelProto:
    """A model with inputs and outputs of one type; nothing is checked."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def single(
    op: str,
    shape: Shape,
    constants: Sequence[NDArray[Any] | None] = (),
    *,
    opset: int = 20,
    dtype: type[np.generic] = np.float32,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node `n`: input x, then constants c1, c2, ... (None: absent), result y."""
    names = [f"c{k}" if array is not None else "" for k, array in enumerate(constants, start=1)]
    known = {name: array for name, array in zip(names, constants, strict=True) if array is not None}
    node = helper.make_node(op, ["x", *names], ["y"], name="n", **attributes)
    return model([node], {"x": shape}, ["y"], known, opset, dtype)


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def residual_network() -> onnx.ModelProto:
    """Every kind of field that a damaged file can hit: initialisers, attributes of all types, a constant node."""
    constants = {
        "w1": floats(4, 1, 3, 3), "b1": floats(4, seed=1), "w2": floats(4, 4, 3, 3, seed=2), "w3": floats(3, 4, seed=3),
        "b3": floats(3, seed=4), "s": floats(4, seed=5), "t": floats(4, seed=6), "v": np.abs(floats(4, seed=7)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="body", auto_pad="SAME_UPPER"),
        helper.make_node("BatchNormalization", ["c2", "s", "t", "t", "v"], ["n2"], name="norm", epsilon=1e-3),
        helper.make_node("Add", ["n2", "r1"], ["a"], name="add"),
        helper.make_node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], name="mean"),
        helper.make_node("Constant", [], ["shape"], name="shape", value_ints=[0, -1]),
        helper.make_node("Reshape", ["g", "shape"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["l"], name="dense", transB=1, alpha=0.5),
        helper.make_node("Softmax", ["l"], ["y"], name="softmax", axis=-1),
    ]
    return model(nodes, {"x": ["N", 1, 8, 8]}, ["y"], constants)
