"""Everything linear becomes a convolution with a bias: the one linear op of the accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Graph, Node
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, BatchNorm, Pointwise
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite


@dataclass(frozen=True, kw_only=True)
class DenseToConv(Pass):
    """A dense layer becomes a convolution whose kernel covers its input, behind a reshape where it has to be.

    Afterwards no `Dense` with constant weights is left. Behind a flatten of [N,C,H,W] the kernel is HxW, else 1x1.
    """

    name: ClassVar[str] = "dense-to-conv"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _dense)


def _dense(rewriter: Rewriter, node: Node) -> str | None:
    if not isinstance(node.op, Dense) or (weight := rewriter.array(node.inputs[1])) is None:
        return None
    batch, ins = rewriter.type(node.inputs[0]).shape
    producer = rewriter.producer(node.inputs[0])
    source = node.inputs[0]
    if producer is not None and isinstance(producer.op, Flatten | Reshape):
        source = producer.inputs[0]
    if len(shape := rewriter.type(source).shape) != 4 or shape[0] != batch:
        source = rewriter.emit(Reshape(shape=(batch, ins, 1, 1)), (node.inputs[0],), like=node)
    shaped, scale = weight.reshape(-1, *rewriter.type(source).shape[1:]), rewriter.weight_scale(node.inputs[1])
    kernel = rewriter.constant(shaped, f"{node.inputs[1]}.kernel", scale=scale)
    result = rewriter.emit(Conv(), (source, kernel, *node.inputs[2:]), like=node)
    return rewriter.emit(Reshape(shape=(batch, len(weight))), (result,), like=node, output=node.output)


@dataclass(frozen=True, kw_only=True)
class FoldAffine(Pass):
    """Batch normalisation and the addition of a constant per channel go into the convolution before them.

    So do products with such a constant, quotients and differences. Where there is no convolution, or it has other
    readers, they become a 1x1 convolution with one group per channel. Afterwards no `BatchNorm` of rank 4 with constant
    parameters is left, and no `Add` of a constant per channel.
    """

    name: ClassVar[str] = "fold-affine"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _affine)


def _affine(rewriter: Rewriter, node: Node) -> str | None:
    if len(rewriter.type(node.inputs[0]).shape) != 4 and len(rewriter.type(node.inputs[-1]).shape) != 4:
        return None
    match node.op:
        case BatchNorm():
            arrays = [array for name in node.inputs[1:] if (array := rewriter.array(name)) is not None]
            if len(arrays) < 4 or len(rewriter.type(node.inputs[0]).shape) != 4:
                return None
            factor, offset = node.op.affine(*arrays)
            return _scale_and_add(rewriter, node, node.inputs[0], factor, offset)
        case Add():
            for value, other in (node.inputs, node.inputs[::-1]):
                if rewriter.array(value) is None and (bias := _channel_vector(rewriter, value, other)) is not None:
                    return _scale_and_add(rewriter, node, value, np.ones_like(bias), bias)
        case Pointwise() if node.op.function in _AFFINE and len(node.inputs) == 2:
            value, other = node.inputs
            if rewriter.array(value) is not None and node.op.function in ("multiply", "add"):
                value, other = other, value
            vector = _channel_vector(rewriter, value, other)
            if rewriter.array(value) is None and vector is not None:
                return _scale_and_add(rewriter, node, value, *_AFFINE[node.op.function](vector))
    return None


def _one(like: Array) -> Array:
    return np.ones_like(like)


_AFFINE: Final[Mapping[str, Callable[[Array], tuple[Array, Array]]]] = MappingProxyType(
    {
        "add": lambda c: (_one(c), c),
        "divide": lambda c: (1 / c, 0 * c),
        "multiply": lambda c: (c, 0 * c),
        "subtract": lambda c: (_one(c), -c),
    }
)
"""(factor, offset) of functions of a value and a constant."""


def _channel_vector(rewriter: Rewriter, value: str, other: str) -> Array | None:
    """`other` as float64 [C] if it is a constant that broadcasts over the [N,C,H,W] `value` along C only."""
    array, shape = rewriter.array(other), rewriter.type(value).shape
    if array is None or len(shape) != 4 or array.ndim > 4:
        return None
    padded = (1,) * (4 - array.ndim) + array.shape
    if padded not in ((1, 1, 1, 1), (1, shape[1], 1, 1)):
        return None
    return np.array(np.broadcast_to(array.reshape(padded[1]), shape[1]), np.float64)


def _scale_and_add(rewriter: Rewriter, node: Node, value: str, factor: Array, offset: Array) -> str:
    """value * factor + offset per channel, as a convolution that computes `value` where that is possible."""
    producer = rewriter.producer(value)
    if producer is not None and isinstance(producer.op, Conv) and rewriter.only_used_here(value):
        parameters = [array for name in producer.inputs[1:] if (array := rewriter.array(name)) is not None]
        if len(parameters) == len(producer.inputs) - 1:
            bias = parameters[1] * factor + offset if len(parameters) == 2 else offset
            weight: Array = parameters[0] * factor.reshape(-1, 1, 1, 1)
            scale = rewriter.weight_scale(producer.inputs[1])
            if scale is not None:
                scale = np.where(factor == 0, scale, scale * np.abs(factor)).astype(np.float32)
            return _conv(rewriter, node, producer.op, producer.inputs[0], weight, bias, scale)
    channels = len(factor)
    return _conv(rewriter, node, Conv(groups=channels), value, factor.reshape(channels, 1, 1, 1), offset)


def _conv(
    rewriter: Rewriter, node: Node, op: Conv, x: str, weight: Array, bias: Array, scale: Array | None = None
) -> str:
    w = rewriter.constant(_float32(node, weight), f"{node.output}.weight", scale=scale)
    b = rewriter.constant(_float32(node, bias), f"{node.output}.bias")
    return rewriter.emit(op, (x, w, b), like=node, output=node.output)


def _float32(node: Node, array: Array) -> Array:
    """Raises GraphError when the product of two layers' weights is not finite in float32."""
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise GraphError(f"Node {node.name!r} must have finite weights when folded into one convolution")
    return single
