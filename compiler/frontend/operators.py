"""How each ONNX operator becomes graph nodes. Semantics: the ONNX operator specification, opset 13 and later."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from compiler.errors import FrontendError
from compiler.frontend.importer import Importer, OnnxNode, as_float32
from compiler.frontend.windows import pool_window, read_window
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, Identity, Relu
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.ops.softmax import Softmax

Converter = Callable[[Importer, OnnxNode], None]


def _conv(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 3)
    weight = importer.weights(node, 1)
    if weight.ndim != 4:
        raise FrontendError(f"weight must have rank 4, not shape {list(weight.shape)}")
    groups = node.attributes.integer("group", 1, low=1)
    x = importer.value(node, 0)
    window = read_window(node, _activation(importer, node), (weight.shape[2], weight.shape[3]))
    op = Conv(stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups)
    parameters = (importer.value(node, position) for position in (1, 2) if node.has(position))
    importer.emit(node, op, (x, *parameters))


def _gemm(importer: Importer, node: OnnxNode) -> None:
    """alpha * x * w + beta * bias, alpha and beta folded into the constants."""
    node.require(2, 3)
    if node.attributes.integer("transA", 0):
        raise FrontendError("attribute 'transA' must be 0, not 1")
    alpha, beta = node.attributes.number("alpha", 1.0), node.attributes.number("beta", 1.0)
    transposed = bool(node.attributes.integer("transB", 0, low=0, high=1))
    weight = importer.weights(node, 1)
    if weight.ndim != 2:
        raise FrontendError(f"weight must have rank 2, not shape {list(weight.shape)}")
    scaled = weight.astype(np.float64) * alpha
    w = importer.constant(as_float32(scaled if transposed else scaled.T, "scaled weight"), f"{node.inputs[1]}.rows")
    parameters = [w]
    if node.has(2):
        bias = importer.weights(node, 2)
        outs = weight.shape[0] if transposed else weight.shape[1]
        if bias.shape not in ((), (1,), (outs,), (1, outs), (1, 1)):
            raise FrontendError(f"bias must have one value for each of {outs} outputs, not shape {list(bias.shape)}")
        full = np.broadcast_to(bias.reshape(-1), (outs,)).astype(np.float64) * beta
        parameters.append(importer.constant(as_float32(full, "scaled bias"), f"{node.inputs[2]}.scaled"))
    importer.emit(node, Dense(), (importer.value(node, 0), *parameters))


def _matmul(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    weight = importer.weights(node, 1)
    if weight.ndim != 2:
        raise FrontendError(f"weight must have rank 2, not shape {list(weight.shape)}")
    w = importer.constant(np.ascontiguousarray(weight.T), f"{node.inputs[1]}.rows")
    importer.emit(node, Dense(), (importer.value(node, 0), w))


def _add(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    importer.emit(node, Add(), (importer.value(node, 0), importer.value(node, 1)))


def _batch_norm(importer: Importer, node: OnnxNode) -> None:
    node.require(5, 5)
    node.attributes.number("momentum", 0.9)
    if node.attributes.integer("training_mode", 0):
        raise FrontendError("attribute 'training_mode' must be 0, not 1")
    epsilon = node.attributes.number("epsilon", 1e-5)
    if (importer.weights(node, 4).astype(np.float64) + epsilon).min(initial=1.0) <= 0:
        raise FrontendError("variance plus epsilon must be positive")
    importer.emit(node, BatchNorm(epsilon=epsilon), tuple(importer.value(node, position) for position in range(5)))


def _relu(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    importer.emit(node, Relu(), (importer.value(node, 0),))


def _clip(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 3)
    bounds = [-math.inf, math.inf]
    for position in (1, 2):
        if node.has(position):
            array = importer.static(node, position)
            if array.size != 1 or array.dtype.kind != "f" or np.isnan(array).any():
                raise FrontendError(f"input {position} must be one floating-point number, not {array.tolist()!r:.40}")
            bounds[position - 1] = float(array.reshape(()))
    importer.emit(node, Clip(lo=bounds[0], hi=bounds[1]), (importer.value(node, 0),))


def _max_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    node.attributes.integer("storage_order", 0)  # concerns only the indices, an output that is refused
    x = importer.value(node, 0)
    w, _ = pool_window(node, _activation(importer, node))
    op = MaxPool(kernel=w.kernel, stride=w.stride, padding=w.padding, dilation=w.dilation)
    importer.emit(node, op, (x,))


def _average_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    x = importer.value(node, 0)
    include = bool(node.attributes.integer("count_include_pad", 0, low=0, high=1))
    w, rounded_up = pool_window(node, _activation(importer, node))
    if w.dilation != (1, 1):
        raise FrontendError(f"attribute 'dilations' must be 1 in an average, not {w.dilation}")
    if include and rounded_up:
        raise FrontendError("attribute 'ceil_mode' must be 0 when padding counts and the last window is not whole")
    op = AveragePool(kernel=w.kernel, stride=w.stride, padding=w.padding, count_include_pad=include)
    importer.emit(node, op, (x,))


def _global_average_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    importer.emit(node, GlobalAveragePool(), (importer.value(node, 0),))


def _reduce_mean(importer: Importer, node: OnnxNode) -> None:
    """The mean over height and width, the only one there is a use for."""
    node.require(1, 2)
    keep = bool(node.attributes.integer("keepdims", 1, low=0, high=1))
    node.attributes.integer("noop_with_empty_axes", 0)
    axes = importer.integers(node, 1) if node.has(1) else node.attributes.integers("axes") or ()
    x = importer.value(node, 0)
    shape = _activation(importer, node)
    if sorted(axis % 4 if -4 <= axis < 4 else axis for axis in axes) != [2, 3]:
        raise FrontendError(f"axes must be the height and width of [N,C,H,W], 2 and 3, not {axes}")
    pooled = importer.emit(node, GlobalAveragePool(), (x,), last=keep)
    if not keep:
        importer.emit(node, Reshape(shape=shape[:2]), (pooled,))


def _flatten(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    x = importer.value(node, 0)
    shape = importer.shape(node, 0)
    axis = node.attributes.integer("axis", 1, low=-len(shape), high=len(shape))
    axis = axis + len(shape) if axis < 0 else axis
    if axis == 1:
        importer.emit(node, Flatten(), (x,))
    else:
        importer.emit(node, Reshape(shape=(math.prod(shape[:axis]), math.prod(shape[axis:]))), (x,))


def _softmax(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    importer.emit(node, Softmax(axis=node.attributes.integer("axis", -1)), (importer.value(node, 0),))


def _identity(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    if importer.is_static(node, 0):
        importer.add_static(node.outputs[0], importer.static(node, 0))
    else:
        importer.emit(node, Identity(), (importer.value(node, 0),))


def _dropout(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 3)
    node.attributes.integer("seed", 0, low=-(1 << 63), high=(1 << 63) - 1)
    if node.has(2) and importer.static(node, 2).any():
        raise FrontendError("input 'training_mode' must be false")
    importer.emit(node, Identity(), (importer.value(node, 0),))


def _activation(importer: Importer, node: OnnxNode) -> tuple[int, ...]:
    """Shape of the first input, [N,C,H,W]."""
    shape = importer.shape(node, 0)
    if len(shape) != 4:
        raise FrontendError(f"input must have rank 4, not shape {list(shape)}")
    return shape


COMPUTED: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        "Add": _add,
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Clip": _clip,
        "Conv": _conv,
        "Dropout": _dropout,
        "Flatten": _flatten,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_average_pool,
        "Identity": _identity,
        "MatMul": _matmul,
        "MaxPool": _max_pool,
        "ReduceMean": _reduce_mean,
        "Relu": _relu,
        "Softmax": _softmax,
    }
)
