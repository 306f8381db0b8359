"""Everything linear becomes a convolution with a bias, and products of activations what is nearest to one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Graph, Node
from compiler.graph.ops.along import Normalize
from compiler.graph.ops.conv import ChannelMatMul, Conv, Dense, MatMul
from compiler.graph.ops.elementwise import Add, BatchNorm, Pointwise
from compiler.graph.ops.move import Transpose
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite


@dataclass(frozen=True, kw_only=True)
class MatMulToImages(Pass):
    """Products of matrices become products of images, [N,C,1,W], between reshapes and transposes.

    What a matrix sums over are the channels, its rows the positions. A product with constant weights becomes a 1x1
    convolution, a product of two activations a `ChannelMatMul` with a group for each of the matrices of an image.
    Dense layers that work on more rows than there are images are such products too. Left as they are: products of
    matrices that are broadcast, or cannot be divided among the images.
    """

    name: ClassVar[str] = "matmul-to-images"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _matmul)


def _matmul(rewriter: Rewriter, node: Node) -> str | None:
    images = next((value.type.shape[0] for value in rewriter.source.inputs if value.type.shape), 1)
    if isinstance(node.op, Dense):
        weight, rows = rewriter.array(node.inputs[1]), rewriter.type(node.inputs[0]).shape[0]
        if weight is None or rows == images or rows % images:
            return None
        scale = rewriter.weight_scale(node.inputs[1])
        return _rows_times_weights(rewriter, node, images, weight, node.inputs[2:], scale)
    if not isinstance(node.op, MatMul):
        return None
    a, b = (rewriter.type(name).shape for name in node.inputs)
    weight = rewriter.array(node.inputs[1])
    if weight is not None and weight.ndim == 2 and math.prod(a[:-1]) % images == 0:
        return _rows_times_weights(rewriter, node, images, weight.T, (), None)
    if a[:-2] != b[:-2] or weight is not None or math.prod(a[:-2]) % images:
        return None
    groups = math.prod(a[:-2]) // images
    (rows, inner), columns = a[-2:], b[-1]
    x = _moved(rewriter, node, node.inputs[0], (images, groups, rows, inner), (images, groups * inner, 1, rows))
    as_weights = replace(node, name=f"{node.name}.w")
    w = rewriter.emit(Reshape(shape=(images, groups * inner, 1, columns)), (node.inputs[1],), like=as_weights)
    value = rewriter.emit(ChannelMatMul(groups=groups), (x, w), like=node)
    return _moved(rewriter, node, value, (images, groups, columns, rows), (*a[:-1], columns), output=node.output)


def _rows_times_weights(
    rewriter: Rewriter, node: Node, images: int, weight: Array, bias: tuple[str, ...], scale: Array | None
) -> str:
    """Rows [...,I] times weights [O,I], of that scale if they are given as integers."""
    *front, ins = rewriter.type(node.inputs[0]).shape
    rows = math.prod(front) // images
    x = _moved(rewriter, node, node.inputs[0], (images, rows, ins), (images, ins, 1, rows))
    image = np.ascontiguousarray(weight).reshape(*weight.shape, 1, 1)
    w = rewriter.constant(image, f"{node.inputs[1]}.kernel", scale=scale)
    value = rewriter.emit(Conv(), (x, w, *bias), like=node)
    return _moved(rewriter, node, value, (images, len(weight), rows), (*front, len(weight)), output=node.output)


def _moved(
    rewriter: Rewriter, node: Node, value: str, split: tuple[int, ...], shape: tuple[int, ...],
    output: str | None = None,
) -> str:
    """The value, taken as `split`, with the last two dimensions exchanged, in another shape."""
    node = replace(node, name=f"{node.name}.{'x' if output is None else 'y'}")
    order = (*range(len(split) - 2), len(split) - 1, len(split) - 2)
    value = rewriter.emit(Reshape(shape=split), (value,), like=node)
    value = rewriter.emit(Transpose(order=order), (value,), like=node)
    return rewriter.emit(Reshape(shape=shape), (value,), like=node, output=output)


@dataclass(frozen=True, kw_only=True)
class DenseToConv(Pass):
    """A dense layer becomes a convolution whose kernel covers its input, behind a reshape where it has to be.

    Afterwards no `Dense` with constant weights is left. Behind a flatten of [N,C,H,W] the kernel is HxW, else 1x1.

    largest: images up to which it is done.
    """

    name: ClassVar[str] = "dense-to-conv"
    largest: int | None = None

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, partial(_dense, largest=self.largest))


def _dense(rewriter: Rewriter, node: Node, *, largest: int | None) -> str | None:
    if not isinstance(node.op, Dense) or (weight := rewriter.array(node.inputs[1])) is None:
        return None
    batch, ins = rewriter.type(node.inputs[0]).shape
    if largest is not None and batch > largest:
        return None
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

    So do products with such a constant, quotients and differences; a positive number goes into a `ChannelMatMul`. Where
    there is no convolution, or it has other readers, they become a 1x1 convolution with one group per channel, but not
    behind a `Normalize`, which the host computes. Afterwards no `BatchNorm` of rank 4 with constant parameters is left,
    and no `Add` of a constant per channel but there.

    alone: False leaves what goes into no convolution as it is.
    """

    name: ClassVar[str] = "fold-affine"
    alone: bool = True

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, partial(_affine, alone=self.alone))


def _affine(rewriter: Rewriter, node: Node, *, alone: bool) -> str | None:
    if len(rewriter.type(node.inputs[0]).shape) != 4 and len(rewriter.type(node.inputs[-1]).shape) != 4:
        return None
    match node.op:
        case BatchNorm():
            arrays = [array for name in node.inputs[1:] if (array := rewriter.array(name)) is not None]
            if len(arrays) < 4 or len(rewriter.type(node.inputs[0]).shape) != 4:
                return None
            factor, offset = node.op.affine(*arrays)
            return _scale_and_add(rewriter, node, node.inputs[0], factor, offset, alone=alone)
        case Add():
            for value, other in (node.inputs, node.inputs[::-1]):
                if rewriter.array(value) is None and (bias := _channel_vector(rewriter, value, other)) is not None:
                    return _scale_and_add(rewriter, node, value, np.ones_like(bias), bias, alone=alone)
        case Pointwise() if node.op.function in _AFFINE and len(node.inputs) == 2:
            value, other = node.inputs
            if rewriter.array(value) is not None and node.op.function in ("multiply", "add"):
                value, other = other, value
            vector = _channel_vector(rewriter, value, other)
            if rewriter.array(value) is None and vector is not None:
                return _scale_and_add(rewriter, node, value, *_AFFINE[node.op.function](vector), alone=alone)
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


def _scale_and_add(
    rewriter: Rewriter, node: Node, value: str, factor: Array, offset: Array, *, alone: bool
) -> str | None:
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
    if producer is not None and isinstance(producer.op, ChannelMatMul) and rewriter.only_used_here(value):
        number = float(np.float32(producer.op.scale * factor[0]))
        if (factor == factor[0]).all() and not offset.any() and number > 0:
            return rewriter.emit(replace(producer.op, scale=number), producer.inputs, like=producer, output=node.output)
    if not alone or (producer is not None and _normalizes(rewriter, producer)):
        return None
    channels = len(factor)
    return _conv(rewriter, node, Conv(groups=channels), value, factor.reshape(channels, 1, 1, 1), offset)


def _normalizes(rewriter: Rewriter, node: Node) -> bool:
    """Whether the node is a normalisation, or scales or shifts the result of one by constants."""
    while isinstance(node.op, Add | Pointwise):
        computed = [name for name in node.inputs if rewriter.array(name) is None]
        before = rewriter.producer(computed[0]) if len(computed) == 1 else None
        if before is None:
            return False
        node = before
    return isinstance(node.op, Normalize)


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
