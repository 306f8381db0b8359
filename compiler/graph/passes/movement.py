"""Reshapes and transposes out of the way.

What a chain of them does is one rearrangement, kept as the places that the elements come from. So it does not matter
how an exporter wrote it: chains that do the same are the same, and those that do nothing go.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Array, Graph, Node
from compiler.graph.ops.along import Normalize, Reduce
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, FakeQuantize, Pointwise, Relu
from compiler.graph.ops.move import ChannelTranspose, Rearrange, Slice, Take, Transpose
from compiler.graph.ops.pool import GlobalAveragePool
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite
from compiler.tensor.define_float import Reduction

Ints = NDArray[np.int64]
Shape = tuple[int, ...]
AlongAxis = Softmax | Normalize | Reduce
Moving = Reshape | Transpose | ChannelTranspose | Rearrange

_TILE = 16
"""Channels of a tile of the default machine: parts of a convolution should fill tiles."""

_MOST_DIMENSIONS = 5
"""Of tensors for which all orders of their dimensions are tried."""


@dataclass(frozen=True, kw_only=True)
class SinkMovements(Pass):
    """Reshapes and transposes move behind what works element by element or along an axis, and join.

    Afterwards no `Flatten` is left, no reshape and no transpose that does nothing, and what a convolution computes is
    worked on as the [N,C,H,W] that it computed, as far as ops allow. Exchanges of channels and positions are
    `ChannelTranspose`, what takes reshapes and a transpose `Rearrange`. Not handled: what exchanges images, operands
    that are broadcast and not constant.
    """

    name: ClassVar[str] = "sink-movements"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, partial(_sink, _Known({})))


@dataclass(frozen=True)
class _Known:
    """Values that are there already, by source and rearrangement."""

    values: dict[tuple[str, Shape, bytes], str]


@dataclass(frozen=True)
class _Path:
    """A value as a rearrangement of another: `index`, of its shape, is where in the flattened source an element is."""

    source: str
    index: Ints

    def back(self, array: Array, shape: Shape) -> Array:
        """An array in the shape of the value as it would lie in a source of that shape."""
        result = np.empty(array.size, array.dtype)
        result[self.index.ravel()] = array.ravel()
        return result.reshape(shape)


def _path(rewriter: Rewriter, name: str) -> _Path:
    moves = []
    while (producer := rewriter.producer(name)) is not None and isinstance(producer.op, Moving):
        moves.append(producer.op)
        name = producer.inputs[0]
    shape = rewriter.type(name).shape
    index: Array = np.arange(math.prod(shape)).reshape(shape)
    for op in reversed(moves):
        index = op.reference(index)
    return _Path(name, index)


def _sink(known: _Known, rewriter: Rewriter, node: Node) -> str | None:
    match node.op:
        case Flatten() | Reshape() | Transpose() | ChannelTranspose() | Rearrange():
            path = _path(rewriter, node.inputs[0])
            return _rearranged(known, rewriter, node, path.source, node.op.reference(path.index), output=node.output)
        case Take() | Slice():
            return _part_of_convolution(known, rewriter, node)
        case Softmax() | Normalize() | Reduce():
            return _sink_along(known, rewriter, node, node.op)
        case Relu() | Clip() | FakeQuantize() | Add() | Pointwise():
            return _before_cut(rewriter, node) or _sink_elementwise(known, rewriter, node)
        case BatchNorm():
            return _before_cut(rewriter, node) or _sink_batch_norm(known, rewriter, node)
        case _:
            return None


def _rearranged(
    known: _Known, rewriter: Rewriter, node: Node, source: str, index: Ints, *, output: str | None = None
) -> str | None:
    """The value with these elements of the source, in as few nodes as it takes; None where images change places."""
    shape = rewriter.type(source).shape
    if index.shape == shape and _moves_nothing(index):
        return source
    key = source, index.shape, index.tobytes()
    if key not in known.values:
        op = _movement(shape, index)
        if op is None:
            return None
        like = node if isinstance(node.op, Moving | Flatten) else replace(node, name=f"{node.name}.{op.kind}")
        known.values[key] = rewriter.emit(op, (source,), like=like, output=output)
    return known.values[key]


def _moves_nothing(index: Ints) -> bool:
    return bool((index.ravel() == np.arange(index.size)).all())


def _movement(shape: Shape, index: Ints) -> Moving | None:
    """The op that makes `index` of a source of that shape."""
    if _moves_nothing(index):
        return Reshape(shape=index.shape)
    places = np.arange(index.size).reshape(shape)
    if len(shape) == len(index.shape) == 4 and index.shape[2] == 1 and shape[1] % index.shape[3] == 0:
        exchange = ChannelTranspose(groups=shape[1] // index.shape[3])
        if np.array_equal(exchange.reference(places), index):
            return exchange
    if len(shape) <= _MOST_DIMENSIONS and sorted(shape) == sorted(index.shape):
        for order in itertools.permutations(range(len(shape))):
            if np.array_equal(places.transpose(order), index):
                return Transpose(order=order)
    first = _one_image(shape, index) if shape else None
    axes = None if first is None else _axes(first.ravel())
    if axes is None:
        return None
    split = sorted(range(len(axes)), key=lambda k: -axes[k].stride)
    order = (0, *(1 + split.index(k) for k in range(len(axes))))
    op = Rearrange(split=(shape[0], *(axes[k].extent for k in split)), order=order, shape=index.shape)
    return op if np.array_equal(op.reference(places), index) else None  # it might go backwards


def _one_image(shape: Shape, index: Ints) -> Ints | None:
    """The places of the first image, flat; None if not every image, of the first dimension, is moved like it."""
    images = index.reshape(shape[0], -1)
    expected = images[0] + np.arange(shape[0])[:, None] * images.shape[1]
    inside = images[0].max(initial=0) < images.shape[1]
    return images[0] if inside and np.array_equal(images, expected) else None


@dataclass(frozen=True)
class _Axis:
    """`extent` elements, `stride` apart."""

    extent: int
    stride: int


def _axes(places: Ints) -> list[_Axis] | None:
    """The nested axes, outermost first, that go forwards through the places from the first one on, if any do."""
    axes: list[_Axis] = []
    while len(places) > 1:
        steps = np.diff(places)
        others = np.flatnonzero(steps != steps[0])
        extent = int(others[0]) + 1 if len(others) else len(places)
        if steps[0] < 1 or len(places) % extent:
            return None
        rows = places.reshape(-1, extent)
        if (rows != rows[:, :1] + np.arange(extent) * steps[0]).any():
            return None
        axes.append(_Axis(extent, int(steps[0])))
        places = rows[:, 0]
    return axes[::-1]


def _part_of_convolution(known: _Known, rewriter: Rewriter, node: Node) -> str | None:
    """Some of the channels of a convolution, all of whose readers take some, are a convolution with fewer."""
    path = _path(rewriter, node.inputs[0])
    conv = rewriter.producer(path.source)
    if conv is None or not isinstance(conv.op, Conv) or conv.op.groups > 1:
        return None
    parameters = [rewriter.array(name) for name in conv.inputs[1:]]
    batch, channels, *size = rewriter.type(path.source).shape
    whole = batch, channels, math.prod(size)
    if any(array is None for array in parameters) or not _is_taken_apart(rewriter.source, path.source, whole):
        return None
    index = node.op.reference(path.index)
    image, channel, position = np.unravel_index(index, whole)
    chosen = np.unique(channel)
    if not len(np.unique(index)) == index.size == batch * len(chosen) * whole[2]:
        return None
    key = path.source, (len(chosen),), chosen.tobytes()
    if key not in known.values:
        fewer = []
        for name, array in zip(conv.inputs[1:], parameters, strict=True):
            scale = rewriter.weight_scale(name)
            if array is not None:
                part = None if scale is None else scale[chosen]
                fewer.append(rewriter.constant(array[chosen], f"{name}.part", scale=part))
        known.values[key] = rewriter.emit(conv.op, (conv.inputs[0], *fewer), like=replace(conv, name=node.name))
    place = image, np.searchsorted(chosen, channel), position
    moved = np.ravel_multi_index(place, (batch, len(chosen), whole[2])).reshape(index.shape)
    return _rearranged(known, rewriter, node, known.values[key], moved, output=node.output)


def _is_taken_apart(graph: Graph, value: str, whole: Shape) -> bool:
    """Whether all that reads the value takes a part of its channels, and the parts are convolutions worth having.

    They must not overlap, nor together take many more tiles of channels than the whole.
    """
    parts = _parts(graph, value, np.arange(math.prod(whole)).reshape(graph.types[value].shape))
    if not parts:
        return False
    chosen = [np.unique(np.unravel_index(part, whole)[1]) for part in parts]
    together = sum(map(len, chosen))
    tiles = sum(-(-len(part) // _TILE) for part in chosen)
    return together == len(np.unique(np.concatenate(chosen))) and tiles <= -(-whole[1] // _TILE) + 1


def _parts(graph: Graph, value: str, index: Ints) -> list[Ints]:
    """The places that each reader takes, however the value is moved before; none if something reads all of it."""
    readers = [node for node in graph.nodes if value in node.inputs]
    if value in graph.outputs or not all(isinstance(node.op, Take | Slice | Moving) for node in readers):
        return []
    found: list[Ints] = []
    for node in readers:
        moved = node.op.reference(index)
        inner = [moved] if isinstance(node.op, Take | Slice) else _parts(graph, node.output, moved)
        if not inner:
            return []
        found += inner
    return found


def _sink_elementwise(known: _Known, rewriter: Rewriter, node: Node) -> str | None:
    """op(p(x), y) is p(op(x, p backwards of y))."""
    shape = node.op.infer([rewriter.type(name) for name in node.inputs]).shape
    computed = [name for name in node.inputs if rewriter.array(name) is None]
    if not computed or any(rewriter.type(name).shape != shape for name in computed):
        return None
    paths = {name: _path(rewriter, name) for name in computed}
    best = max(computed, key=lambda name: (_is_image(rewriter, paths[name].source), paths[name].source != name))
    path = paths[best]
    if path.source == best:
        return None
    source = rewriter.type(path.source).shape
    inputs: list[str] = []
    for name in node.inputs:
        constant = rewriter.array(name)
        if constant is None:
            places = path.back(paths[name].index, source)
            value = _rearranged(known, rewriter, node, paths[name].source, places)
            if value is None:
                return None
        elif constant.size == 1:
            value = name
        else:
            array = _without_repetition(path.back(np.broadcast_to(constant, shape), source))
            value = rewriter.constant(array, f"{name}.moved")
        inputs.append(value)
    result = rewriter.emit(node.op, tuple(inputs), like=node)
    return _rearranged(known, rewriter, node, result, path.index, output=node.output)


def _is_image(rewriter: Rewriter, name: str) -> bool:
    """Whether the value is computed as [N,C,H,W], as convolutions do."""
    return rewriter.producer(name) is not None and len(rewriter.type(name).shape) == 4


def _without_repetition(array: Array) -> Array:
    """The smallest array that broadcasts to this one."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        array = first if (array == first).all() else array
    return array


def _before_cut(rewriter: Rewriter, node: Node) -> str | None:
    """op(cut(x), y) is cut(op(x, y)), where rows and columns are cut, y is the same for all and little is cut off."""
    computed = [name for name in node.inputs if rewriter.array(name) is None]
    cut = rewriter.producer(computed[0]) if len(computed) == 1 else None
    if cut is None or not isinstance(cut.op, Slice) or not all(map(rewriter.only_used_here, (cut.output, *cut.inputs))):
        return None
    whole, left = rewriter.type(cut.inputs[0]).shape, cut.op.shape
    kept = rewriter.source.types[node.output].shape == left and whole[:2] == left[:2] and len(whole) == 4
    kept = kept and cut.op.steps[:2] == (1, 1)
    constants = [array for name in node.inputs if (array := rewriter.array(name)) is not None]
    alike = isinstance(node.op, BatchNorm) or all(set(array.shape[-2:]) <= {1} for array in constants)
    if not (kept and alike) or 2 * math.prod(left) < math.prod(whole):
        return None
    inputs = tuple(cut.inputs[0] if name == computed[0] else name for name in node.inputs)
    value = rewriter.emit(node.op, inputs, like=node)
    return rewriter.emit(cut.op, (value,), like=cut, output=node.output)


def _sink_batch_norm(known: _Known, rewriter: Rewriter, node: Node) -> str | None:
    """Behind what keeps the elements of each channel together in one, or takes them from several."""
    path = _path(rewriter, node.inputs[0])
    source = rewriter.type(path.source).shape
    if path.source == node.inputs[0]:
        return None
    inputs = node.inputs[1:]
    parameters = [rewriter.array(name) for name in inputs]
    if not _moves_nothing(path.index) or source[:2] != path.index.shape[:2]:
        channels = _channels(path, source)
        if channels is None or any(array is None for array in parameters):
            return None
        inputs = tuple(
            rewriter.constant(array[channels], f"{name}.moved")
            for name, array in zip(inputs, parameters, strict=True)
            if array is not None
        )
    value = rewriter.emit(node.op, (path.source, *inputs), like=node)
    return _rearranged(known, rewriter, node, value, path.index, output=node.output)


def _channels(path: _Path, source: Shape) -> Ints | None:
    """The channel of the value to which each of the source belongs, if each belongs to one."""
    if not len(source) == len(path.index.shape) == 4:
        return None
    own = np.broadcast_to(np.arange(path.index.shape[1]).reshape(1, -1, 1, 1), path.index.shape)
    channel = path.back(own, source)
    first: Ints = channel[0, :, 0, 0]
    return first if (channel == first.reshape(1, -1, 1, 1)).all() else None


def _sink_along(known: _Known, rewriter: Rewriter, node: Node, op: AlongAxis) -> str | None:
    """An op along an axis works along the place of that axis in the source, split so that it has one."""
    path = _path(rewriter, node.inputs[0])
    if path.source == node.inputs[0]:
        return None
    shape = path.index.shape
    first, last = _range(op, len(shape))
    source = rewriter.type(path.source).shape
    split = _split(source, path.index, first, last)
    if split is None:
        return None
    whole, axis = split
    if whole == shape and _moves_nothing(path.index):
        return None
    value = path.source if source == whole else rewriter.emit(Reshape(shape=whole), (path.source,), like=node)
    index = path.index
    if isinstance(op, Reduce):
        index = _reduced(index, first, last, whole, axis)
        pools = op.reduction is Reduction.MEAN and axis == 2 and len(source) == 4
        if pools and whole == (*source[:2], math.prod(source[2:])):
            result = rewriter.emit(GlobalAveragePool(), (path.source,), like=node)
            return _rearranged(known, rewriter, node, result, index, output=node.output)
    result = rewriter.emit(_along(op, axis), (value,), like=node)
    return _rearranged(known, rewriter, node, result, index, output=node.output)


def _reduced(index: Ints, first: int, last: int, whole: Shape, axis: int) -> Ints:
    """Places in a source of shape `whole`, when its `axis`, and dimensions from first to last, have one element."""
    shape = index.shape
    kept = index.reshape(*shape[:first], -1, *shape[last:]).take([0], first)
    at = [0 * place if d == axis else place for d, place in enumerate(np.unravel_index(kept, whole))]
    small = tuple(1 if d == axis else extent for d, extent in enumerate(whole))
    ones = (1,) * (last - first)
    places: Ints = np.ravel_multi_index(tuple(at), small).reshape(*shape[:first], *ones, *shape[last:])
    return places


def _range(op: AlongAxis, rank: int) -> tuple[int, int]:
    if isinstance(op, Softmax):
        return op.axis % rank, op.axis % rank + 1
    return op.first, op.last


def _along(op: AlongAxis, axis: int) -> AlongAxis:
    if isinstance(op, Softmax):
        return replace(op, axis=axis)
    return replace(op, first=axis, last=axis + 1)


def _split(source: Shape, index: Ints, first: int, last: int) -> tuple[Shape, int] | None:
    """(shape of the source, axis of it) in which the dimensions from first to last of the index are one axis."""
    outer = math.prod(index.shape[:first])
    if not source or outer % source[0] or _one_image(source, index) is None:
        return None
    image = index.reshape(source[0], outer // source[0], -1, math.prod(index.shape[last:]))[0]
    lines = image[:, 0, 0], image[0, :, 0], image[0, 0, :]
    if (image != lines[0][:, None, None] + lines[1][:, None] + lines[2] - 2 * image[0, 0, 0]).any():
        return None
    parts = [_axes(line) for line in lines]
    if any(part is None for part in parts):
        return None
    before, along, behind = (part or [] for part in parts)
    if len(along) != 1:
        return None
    axes = sorted([*before, *along, *behind], key=lambda axis: -axis.stride)
    return (source[0], *(axis.extent for axis in axes)), 1 + _position(axes, along[0])


def _position(axes: Sequence[_Axis], wanted: _Axis) -> int:
    return next(k for k, axis in enumerate(axes) if axis is wanted)
