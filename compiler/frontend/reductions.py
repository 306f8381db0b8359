"""ONNX operators that work along axes: reductions, normalisations, softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode
from compiler.frontend.movement import axes_of
from compiler.graph.ir import Op
from compiler.graph.ops.along import Normalize, Reduce
from compiler.graph.ops.elementwise import Add, Cast, Pointwise
from compiler.graph.ops.move import Transpose
from compiler.graph.ops.pool import GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.tensor.define_float import Reduction
from compiler.tensor.ir import DType

_REDUCTIONS: Final = MappingProxyType(
    {
        "ReduceL1": Reduction.SUM,
        "ReduceL2": Reduction.SUM,
        "ReduceLogSum": Reduction.SUM,
        "ReduceMax": Reduction.MAX,
        "ReduceMean": Reduction.MEAN,
        "ReduceMin": Reduction.MIN,
        "ReduceSum": Reduction.SUM,
        "ReduceSumSquare": Reduction.SUM,
    }
)
_BEFORE: Final = MappingProxyType({"ReduceL1": "abs", "ReduceL2": "square", "ReduceSumSquare": "square"})
_AFTER: Final = MappingProxyType({"ReduceL2": "sqrt", "ReduceLogSum": "log"})
"""Functions of the elements, and of their sum."""
_IMAGE_AXES: Final = (2, 3)


def _reduce(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 2)
    keep = bool(node.attributes.integer("keepdims", 1, low=0, high=1))
    noop = bool(node.attributes.integer("noop_with_empty_axes", 0, low=0, high=1))
    shape, value = importer.shape(node, 0), importer.value(node, 0)
    given = importer.integers(node, 1) if node.has(1) else node.attributes.integers("axes") or ()
    axes = tuple(sorted(axes_of(given, len(shape)))) if given or noop else tuple(range(len(shape)))
    kept = tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    result = kept if keep else tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    steps: list[Op] = [Pointwise(function=_BEFORE[node.op])] if node.op in _BEFORE else []
    is_bool = importer.dtype(node, 0) is DType.BOOL  # whose largest is true if any is
    if is_bool:
        steps.append(Cast(dtype=DType.UINT8))
    together = not axes or axes == tuple(range(axes[0], axes[-1] + 1))
    if axes:
        steps += _reduction(_REDUCTIONS[node.op], axes, len(shape), together=together)
    if result != kept or not together:
        steps.append(Reshape(shape=result))
    if node.op in _AFTER:
        steps.append(Pointwise(function=_AFTER[node.op]))
    if is_bool:
        steps.append(Cast(dtype=DType.BOOL))
    importer.emit_all(node, steps, value)


def _reduction(reduction: Reduction, axes: tuple[int, ...], rank: int, *, together: bool) -> list[Op]:
    """Along sorted axes; those that are not neighbours are brought together at the end."""
    if rank == 4 and axes == _IMAGE_AXES and reduction is Reduction.MEAN:
        return [GlobalAveragePool()]
    if together:
        return [Reduce(reduction=reduction, first=axes[0], last=axes[-1] + 1)]
    others = tuple(axis for axis in range(rank) if axis not in axes)
    return [Transpose(order=(*others, *axes)), Reduce(reduction=reduction, first=len(others), last=rank)]


def _global_average_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    rank = len(importer.shape(node, 0))
    value = importer.value(node, 0)
    op = GlobalAveragePool() if rank == 4 else Reduce(reduction=Reduction.MEAN, first=2, last=rank)
    importer.emit(node, op, (value,))


def _global_max_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    shape = importer.shape(node, 0)
    value = importer.value(node, 0)
    if len(shape) == 4:
        importer.emit(node, MaxPool(kernel=(shape[2], shape[3])), (value,))
    else:
        importer.emit(node, Reduce(reduction=Reduction.MAX, first=2, last=len(shape)), (value,))


def _layer_norm(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 3)
    shape, value = importer.shape(node, 0), importer.value(node, 0)
    rank = len(shape)
    axis = node.attributes.integer("axis", -1, low=-rank, high=rank - 1) % rank
    epsilon = node.attributes.number("epsilon", 1e-5)
    node.attributes.integer("stash_type", 1, low=1, high=1)
    normal = importer.emit(node, Normalize(first=axis, last=rank, epsilon=epsilon), (value,), last=False)
    _affine(importer, node, normal, importer.value(node, 1), importer.value(node, 2) if node.has(2) else None)
    if len(node.outputs) > 1:
        _statistics(importer, node, value, axis, rank, epsilon)


def _statistics(importer: Importer, node: OnnxNode, value: str, axis: int, rank: int, epsilon: float) -> None:
    """The mean, and one over the deviation, which the operator gives too."""
    over = Reduce(reduction=Reduction.MEAN, first=axis, last=rank)
    mean = importer.emit(node, over, (value,), last=bool(node.outputs[1]), position=min(1, len(node.outputs) - 1))
    if len(node.outputs) > 2 and node.outputs[2]:
        centred = importer.emit(node, Pointwise(function="subtract"), (value, mean), last=False)
        squares = importer.emit(node, Pointwise(function="multiply"), (centred, centred), last=False)
        variance = importer.emit(node, over, (squares,), last=False)
        small = importer.constant(np.array(epsilon, np.float32), f"{node.outputs[0]}.epsilon")
        total = importer.emit(node, Add(), (variance, small), last=False)
        importer.emit(node, Pointwise(function="power", parameters=(-0.5,)), (total,), position=2)


def _instance_norm(importer: Importer, node: OnnxNode) -> None:
    node.require(3, 3)
    shape = importer.shape(node, 0)
    if len(shape) < 3:
        raise FrontendError(f"input must have rank 3 or more, not shape {list(shape)}")
    epsilon = node.attributes.number("epsilon", 1e-5)
    op = Normalize(first=2, last=len(shape), epsilon=epsilon)
    normal = importer.emit(node, op, (importer.value(node, 0),), last=False)
    _affine(importer, node, normal, *_per_channel(importer, node, shape))


def _per_channel(importer: Importer, node: OnnxNode, shape: tuple[int, ...]) -> tuple[str, str]:
    """Scale and bias, inputs 1 and 2, [C], so that they broadcast over [N,C,...]."""
    op = Reshape(shape=(shape[1], *(1,) * (len(shape) - 2)))
    scale, bias = (importer.emit(node, op, (importer.value(node, k),), last=False) for k in (1, 2))
    return scale, bias


def _affine(importer: Importer, node: OnnxNode, normal: str, scale: str, bias: str | None) -> None:
    """normal * scale + bias, the result of the node."""
    scaled = importer.emit(node, Pointwise(function="multiply"), (normal, scale), last=bias is None)
    if bias is not None:
        importer.emit(node, Add(), (scaled, bias))


def _rms_norm(importer: Importer, node: OnnxNode) -> None:
    """x / sqrt(mean of squares + epsilon) * scale."""
    node.require(2, 2)
    shape, value = importer.shape(node, 0), importer.value(node, 0)
    axis = node.attributes.integer("axis", -1, low=-len(shape), high=len(shape) - 1) % len(shape)
    epsilon = node.attributes.number("epsilon", 1e-5)
    node.attributes.integer("stash_type", 1, low=1, high=1)
    squares = importer.emit(node, Pointwise(function="square"), (value,), last=False)
    over = Reduce(reduction=Reduction.MEAN, first=axis, last=len(shape))
    mean = importer.emit(node, over, (squares,), last=False)
    small = importer.constant(np.array(epsilon, np.float32), f"{node.outputs[0]}.epsilon")
    total = importer.emit(node, Add(), (mean, small), last=False)
    factor = importer.emit(node, Pointwise(function="power", parameters=(-0.5,)), (total,), last=False)
    importer.emit(node, Pointwise(function="multiply"), (value, factor, importer.value(node, 1)))


def _group_norm(importer: Importer, node: OnnxNode) -> None:
    """Each group of channels normalised by itself, then a scale and a bias for each channel."""
    node.require(3, 3)
    shape, value = importer.shape(node, 0), importer.value(node, 0)
    groups = node.attributes.integer("num_groups", 0, low=1)
    epsilon = node.attributes.number("epsilon", 1e-5)
    node.attributes.integer("stash_type", 1, low=1, high=1)
    if len(shape) < 2 or shape[1] % groups:
        raise FrontendError(f"groups must divide the channels of {list(shape)}, not be {groups}")
    if importer.shape(node, 1) != (shape[1],):
        raise FrontendError(f"scale must have one value for each of {shape[1]} channels, not {importer.shape(node, 1)}")
    grouped = Reshape(shape=(shape[0], groups, math.prod(shape[1:]) // groups))
    value = importer.emit(node, grouped, (value,), last=False)
    value = importer.emit(node, Normalize(first=2, last=3, epsilon=epsilon), (value,), last=False)
    value = importer.emit(node, Reshape(shape=shape), (value,), last=False)
    _affine(importer, node, value, *_per_channel(importer, node, shape))


def _log_softmax(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    rank, value = len(importer.shape(node, 0)), importer.value(node, 0)
    axis = node.attributes.integer("axis", -1, low=-rank, high=rank - 1) % rank
    largest = importer.emit(node, Reduce(reduction=Reduction.MAX, first=axis, last=axis + 1), (value,), last=False)
    below = importer.emit(node, Pointwise(function="subtract"), (value, largest), last=False)
    powers = importer.emit(node, Pointwise(function="exp"), (below,), last=False)
    total = importer.emit(node, Reduce(reduction=Reduction.SUM, first=axis, last=axis + 1), (powers,), last=False)
    log = importer.emit(node, Pointwise(function="log"), (total,), last=False)
    importer.emit(node, Pointwise(function="subtract"), (below, log))


def _softmax(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    importer.emit(node, Softmax(axis=node.attributes.integer("axis", -1)), (importer.value(node, 0),))


REDUCTIONS: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        **dict.fromkeys(_REDUCTIONS, _reduce),
        "GlobalAveragePool": _global_average_pool,
        "GlobalMaxPool": _global_max_pool,
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LayerNormalization": _layer_norm,
        "LogSoftmax": _log_softmax,
        "RMSNormalization": _rms_norm,
        "Softmax": _softmax,
    }
)
