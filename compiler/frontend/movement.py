"""ONNX operators that move elements. Semantics: the ONNX operator specification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode
from compiler.frontend.tensors import check_shape
from compiler.graph.ops.elementwise import Identity
from compiler.graph.ops.move import Concat, Expand, Pad, Slice, Take, Transpose
from compiler.graph.ops.shape import Reshape

_MOST_PARTS: Final = 1024


def _axis(node: OnnxNode, rank: int, default: int | None) -> int:
    if default is None and "axis" not in node.attributes:
        raise FrontendError("attribute 'axis' must be given")
    return node.attributes.integer("axis", default or 0, low=-rank, high=max(rank - 1, 0)) % max(rank, 1)


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in the order given. Raises FrontendError when one is out of range or given twice."""
    result = tuple(axis % rank for axis in axes if -rank <= axis < rank)
    if len(set(result)) != len(axes):
        raise FrontendError(f"axes must be different and in {-rank}..{rank - 1}, not {tuple(axes)}")
    return result


def _concat(importer: Importer, node: OnnxNode) -> None:
    node.require(1, _MOST_PARTS)
    axis = _axis(node, len(importer.shape(node, 0)), None)
    values = tuple(importer.value(node, position) for position in range(len(node.inputs)))
    importer.emit(node, Concat(axis=axis) if len(values) > 1 else Identity(), values)


def _slice(importer: Importer, node: OnnxNode) -> None:
    node.require(3, 5)
    shape = importer.shape(node, 0)
    starts, ends = importer.integers(node, 1), importer.integers(node, 2)
    axes = axes_of(importer.integers(node, 3), len(shape)) if node.has(3) else tuple(range(len(starts)))
    steps = importer.integers(node, 4) if node.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(axes) > len(shape):
        raise FrontendError(f"starts, ends, axes and steps must be one for each of {len(axes)} axes")
    if 0 in steps:
        raise FrontendError(f"steps must not be 0, not {steps}")
    whole = {axis: range(extent) for axis, extent in enumerate(shape)}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        whole[axis] = range(shape[axis])[slice(start, end, step)]
    parts = [whole[axis] for axis in range(len(shape))]
    if any(len(part) == 0 for part in parts):
        raise FrontendError(f"slice must have an element, not none of {list(shape)}")
    op = Slice(
        starts=tuple(part.start for part in parts),
        steps=tuple(part.step for part in parts),
        shape=tuple(len(part) for part in parts),
    )
    importer.emit(node, op, (importer.value(node, 0),))


def _split(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 2)
    shape = importer.shape(node, 0)
    axis = _axis(node, len(shape), 0)
    count = node.attributes.integer("num_outputs", len(node.outputs), low=1, high=_MOST_PARTS)
    if node.has(1):
        sizes = importer.integers(node, 1)
    else:
        most = -(-shape[axis] // count)
        sizes = tuple(min(most, shape[axis] - k * most) for k in range(count))
    if sum(sizes) != shape[axis] or min(sizes) < 1 or len(sizes) != len(node.outputs):
        raise FrontendError(f"parts must be {len(node.outputs)} of together {shape[axis]} elements, not {sizes}")
    value, start = importer.value(node, 0), 0
    for position, size in enumerate(sizes):
        starts = tuple(start if k == axis else 0 for k in range(len(shape)))
        part = tuple(size if k == axis else extent for k, extent in enumerate(shape))
        importer.emit(node, Slice(starts=starts, steps=(1,) * len(shape), shape=part), (value,), position=position)
        start += size


def _pad(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 4)
    shape = importer.shape(node, 0)
    mode = node.attributes.string("mode", "constant")
    pads = importer.integers(node, 1)
    axes = axes_of(importer.integers(node, 3), len(shape)) if node.has(3) else tuple(range(len(shape)))
    if len(pads) != 2 * len(axes):
        raise FrontendError(f"pads must have two for each of {len(axes)} axes, not be {pads}")
    before, after = [0] * len(shape), [0] * len(shape)
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[k + len(axes)]
    check_shape(tuple(a + n + b for a, n, b in zip(before, shape, after, strict=True)), least=1)
    value, name = _padding(importer, node), importer.value(node, 0)
    if mode == "constant":
        name = _cropped(importer, node, name, before, after)
        op = Pad(before=tuple(max(n, 0) for n in before), after=tuple(max(n, 0) for n in after), value=value)
        importer.emit(node, op, (name,))
        return
    if mode not in ("edge", "reflect", "wrap"):
        raise FrontendError(f"attribute 'mode' must be constant, edge, reflect or wrap, not {mode!r}")
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            at = np.arange(-low, shape[axis] + high)
            indices = tuple(int(k) for k in _mirrored(at, shape[axis], mode))
            name = importer.emit(node, Take(axis=axis, indices=indices), (name,), last=False)
    importer.emit(node, Identity(), (name,))


def _padding(importer: Importer, node: OnnxNode) -> float:
    """The number around what is padded: 0 unless it is given, or that which the integer stands for among integers."""
    encoding = importer.encoding(node.inputs[0])
    if not node.has(2):
        return 0.0 if encoding is None else encoding.real(0.0)
    array = importer.static(node, 2)
    if array.size != 1 or (encoding is not None and array.dtype.kind != encoding.dtype.kind):
        what = "number" if encoding is None else f"integer, {encoding.dtype.name}"
        raise FrontendError(f"padding must be one {what}, not {array.tolist()!r:.40}")
    number: float = array.item()
    return number if encoding is None else encoding.real(float(number))


def _cropped(importer: Importer, node: OnnxNode, name: str, before: list[int], after: list[int]) -> str:
    """The value without what negative padding takes away."""
    if min((*before, *after), default=0) >= 0:
        return name
    shape = importer.shape_of(name)
    starts = tuple(max(-n, 0) for n in before)
    sizes = tuple(n + min(a, 0) + min(b, 0) for n, a, b in zip(shape, before, after, strict=True))
    if min(sizes) < 1:
        raise FrontendError(f"pads must leave an element of {list(shape)}, not take {before} and {after}")
    op = Slice(starts=starts, steps=(1,) * len(shape), shape=sizes)
    return importer.emit(node, op, (name,), last=False)


def _mirrored(at: NDArray[np.int64], extent: int, mode: str) -> NDArray[np.int64]:
    """The elements of a line of `extent` that stand at positions outside it too."""
    if mode == "edge":
        return np.clip(at, 0, extent - 1)
    if mode == "wrap" or extent == 1:
        return at % extent
    period = 2 * (extent - 1)
    return np.minimum(at % period, period - at % period)


def _transpose(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    rank = len(importer.shape(node, 0))
    order = node.attributes.integers("perm") or tuple(reversed(range(rank)))
    importer.emit(node, Transpose(order=order), (importer.value(node, 0),))


def _expand(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    wanted = importer.integers(node, 1)
    check_shape(wanted, least=1)
    try:
        shape = np.broadcast_shapes(importer.shape(node, 0), wanted)
    except ValueError:
        raise FrontendError(
            f"shape must be one that {list(importer.shape(node, 0))} broadcasts with, not {wanted}"
        ) from None
    importer.emit(node, Expand(shape=shape), (importer.value(node, 0),))


def _tile(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    shape, counts = importer.shape(node, 0), importer.integers(node, 1)
    if len(counts) != len(shape) or min(counts, default=1) < 1:
        raise FrontendError(f"repeats must be 1 or more for each of {len(shape)} axes, not {counts}")
    check_shape(tuple(extent * count for extent, count in zip(shape, counts, strict=True)))
    value = importer.value(node, 0)
    for axis, count in enumerate(counts):
        if count > 1:
            op = Take(axis=axis, indices=tuple(range(shape[axis])) * count)
            value = importer.emit(node, op, (value,), last=False)
    importer.emit(node, Identity(), (value,))


def _gather(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    shape, index = importer.shape(node, 0), importer.static(node, 1)
    axis = _axis(node, len(shape), 0)
    if index.dtype.kind not in "iu" or index.size == 0:
        raise FrontendError(f"indices must be integers, not {index.dtype}{list(index.shape)}")
    if index.min() < -shape[axis] or index.max() >= shape[axis]:
        raise FrontendError(f"indices must be {-shape[axis]}..{shape[axis] - 1}, not {index.min()}..{index.max()}")
    check_shape((*shape[:axis], *index.shape, *shape[axis + 1 :]), least=1)
    op = Take(axis=axis, indices=tuple(int(k) % shape[axis] for k in index.reshape(-1)))
    taken = importer.emit(node, op, (importer.value(node, 0),), last=index.ndim == 1)
    if index.ndim != 1:
        importer.emit(node, Reshape(shape=(*shape[:axis], *index.shape, *shape[axis + 1 :])), (taken,))


def _blocks(importer: Importer, node: OnnxNode) -> tuple[int, int, int, int, int]:
    """N, C, H, W, and the attribute `blocksize`."""
    shape = importer.shape(node, 0)
    if len(shape) != 4:
        raise FrontendError(f"input must have rank 4, not shape {list(shape)}")
    size = node.attributes.integer("blocksize", 0, low=1, high=4096)
    return shape[0], shape[1], shape[2], shape[3], size


def _depth_to_space(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    n, c, h, w, size = _blocks(importer, node)
    mode = node.attributes.string("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise FrontendError(f"attribute 'mode' must be DCR or CRD, not {mode!r}")
    if c % (size * size):
        raise FrontendError(f"channels must be a multiple of {size * size}, not {c}")
    left = c // (size * size)
    split = (n, size, size, left, h, w) if mode == "DCR" else (n, left, size, size, h, w)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    _regroup(importer, node, split, order, (n, left, h * size, w * size))


def _space_to_depth(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    n, c, h, w, size = _blocks(importer, node)
    mode = node.attributes.string("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise FrontendError(f"attribute 'mode' must be DCR or CRD, not {mode!r}")
    if h % size or w % size:
        raise FrontendError(f"height and width must be multiples of {size}, not {h} and {w}")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    _regroup(
        importer, node, (n, c, h // size, size, w // size, size), order, (n, c * size * size, h // size, w // size)
    )


def _regroup(
    importer: Importer, node: OnnxNode, split: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Reshape, transpose, reshape."""
    value = importer.emit(node, Reshape(shape=split), (importer.value(node, 0),), last=False)
    value = importer.emit(node, Transpose(order=order), (value,), last=False)
    assert math.prod(split) == math.prod(shape)
    importer.emit(node, Reshape(shape=shape), (value,))


MOVEMENT: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        "Concat": _concat,
        "DepthToSpace": _depth_to_space,
        "Expand": _expand,
        "Gather": _gather,
        "Pad": _pad,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Tile": _tile,
        "Transpose": _transpose,
    }
)
