"""ONNX Resize: for each axis, which elements each new one is made of, and with which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode
from compiler.frontend.movement import axes_of
from compiler.frontend.tensors import check_shape
from compiler.graph.ops.along import Resample
from compiler.graph.ops.elementwise import Add, Identity, Pointwise
from compiler.graph.ops.move import Take

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_COORDINATES: Final = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
_NEAREST: Final = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_POLICIES: Final = ("stretch", "not_larger", "not_smaller")
_REACH: Final = MappingProxyType({"linear": 1, "cubic": 2})
"""How far the filter of each mode goes, in elements."""


@dataclass(frozen=True)
class _Line:
    """One axis: `size` elements become `count`, `scale` times as many. crop: first and last part of it that is read."""

    size: int
    count: int
    scale: float
    crop: tuple[float, float] = (0.0, 1.0)

    def coordinates(self, mode: str) -> Floats:
        """Where each new element lies among the old."""
        x = np.arange(self.count, dtype=np.float64)
        match mode:
            case "align_corners":
                last = self.scale * self.size - 1  # of the size asked for, which need not be whole
                return x * (self.size - 1) / last if self.count > 1 else np.zeros(1)
            case "tf_crop_and_resize":
                first, last = self.crop
                if self.count == 1:
                    return np.array([(first + last) / 2 * (self.size - 1)])
                return first * (self.size - 1) + x * (last - first) * (self.size - 1) / (self.count - 1)
            case "asymmetric":
                return x / self.scale
            case "pytorch_half_pixel":
                return (x + 0.5) / self.scale - 0.5 if self.count > 1 else np.zeros(1)
            case "half_pixel_symmetric":
                wanted = self.scale * self.size
                centre = self.size / 2 * (1 - self.count / wanted)
                return centre + (x + 0.5) / self.scale - 0.5
            case _:
                return (x + 0.5) / self.scale - 0.5


def _nearest(at: Floats, mode: str, size: int) -> Ints:
    match mode:
        case "floor":
            index = np.floor(at)
        case "ceil":
            index = np.ceil(at)
        case "round_prefer_ceil":
            index = np.floor(at + 0.5)
        case _:
            index = np.ceil(at - 0.5)
    return np.clip(index, 0, size - 1).astype(np.int32)


def _cubic(distance: Floats, a: float) -> Floats:
    """Keys' convolution kernel, which is 0 beyond 2."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _filter(
    line: _Line, at: Floats, mode: str, *, a: float, antialias: bool, exclude_outside: bool
) -> tuple[Ints, NDArray[np.float32]]:
    """(indices, weights), both [count, taps]."""
    stretch = max(1.0, 1 / line.scale) if antialias else 1.0
    reach = math.ceil(_REACH[mode] * stretch)
    first = np.floor(at).astype(np.int32) - reach + 1
    indices = first[:, None] + np.arange(2 * reach)
    distance = (indices - at[:, None]) / stretch
    weights = np.maximum(1 - np.abs(distance), 0) if mode == "linear" else _cubic(distance, a)
    if exclude_outside:
        weights = np.where((indices >= 0) & (indices < line.size), weights, 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, line.size - 1).astype(np.int32), weights.astype(np.float32)


def _lines(importer: Importer, node: OnnxNode, *, cropped: bool) -> dict[int, _Line]:
    """The axes that change."""
    shape = importer.shape(node, 0)
    given = node.attributes.integers("axes")
    axes = axes_of(given, len(shape)) if given is not None else tuple(range(len(shape)))
    policy = node.attributes.string("keep_aspect_ratio_policy", "stretch")
    if policy not in _POLICIES:
        raise FrontendError(f"attribute 'keep_aspect_ratio_policy' must be {', '.join(_POLICIES)}, not {policy!r}")
    if node.has(3) and importer.shape(node, 3) != (0,):
        sizes = importer.integers(node, 3)
        _count("sizes", len(sizes), axes)
        ratios = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            sizes = tuple(math.floor(shape[axis] * ratio + 0.5) for axis in axes)
    elif node.has(2):
        scales = importer.weights(node, 2)
        _count("scales", scales.size, axes)
        ratios = [float(scale) for scale in scales.reshape(-1)]
        if min(ratios) <= 0:
            raise FrontendError(f"scales must be positive, not {ratios}")
        sizes = tuple(math.floor(shape[axis] * ratio) for axis, ratio in zip(axes, ratios, strict=True))
    else:
        raise FrontendError("must have scales or sizes")
    whole = dict(enumerate(shape)) | dict(zip(axes, sizes, strict=True))
    check_shape(tuple(whole[axis] for axis in range(len(shape))), least=1)
    lines = {axis: _Line(shape[axis], size, ratio) for axis, size, ratio in zip(axes, sizes, ratios, strict=True)}
    if node.has(1) and importer.shape(node, 1) != (0,) and cropped:
        roi = importer.weights(node, 1)
        _count("roi", roi.size, (*axes, *axes))
        begins, ends = roi.reshape(2, -1).tolist()
        lines = {
            axis: replace(lines[axis], crop=(begin, end)) for axis, begin, end in zip(axes, begins, ends, strict=True)
        }
    return {axis: line for axis, line in lines.items() if line != _Line(line.size, line.size, 1.0)}


def _count(what: str, count: int, axes: tuple[int, ...]) -> None:
    if count != len(axes):
        raise FrontendError(f"{what} must be {len(axes)} numbers for the axes, not {count}")


def _resize(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 4)
    a = node.attributes
    mode = a.string("mode", "nearest")
    coordinates = a.string("coordinate_transformation_mode", "half_pixel")
    rounding = a.string("nearest_mode", "round_prefer_floor")
    for what, value, known in (
        ("mode", mode, ("nearest", *_REACH)),
        ("coordinate_transformation_mode", coordinates, _COORDINATES),
        ("nearest_mode", rounding, _NEAREST),
    ):
        if value not in known:
            raise FrontendError(f"attribute {what!r} must be {', '.join(known)}, not {value!r}")
    cropped = coordinates == "tf_crop_and_resize"
    if importer.encoding(node.inputs[0]) is not None and (mode != "nearest" or cropped):
        raise FrontendError(f"integers must be moved alone, as mode nearest does, not by {mode} of {coordinates}")
    coefficient = a.number("cubic_coeff_a", -0.75)
    antialias = bool(a.integer("antialias", 0, low=0, high=1))
    exclude = bool(a.integer("exclude_outside", 0, low=0, high=1))
    outside = a.number("extrapolation_value", 0.0)
    value = importer.value(node, 0)
    inside: NDArray[np.bool_] = np.ones((1,) * len(importer.shape(node, 0)), np.bool_)
    for axis, line in _lines(importer, node, cropped=cropped).items():
        at = line.coordinates(coordinates)
        inside = inside & _along((at >= 0) & (at <= line.size - 1), axis, inside.ndim)
        if mode == "nearest":
            indices = tuple(int(k) for k in _nearest(at, rounding, line.size))
            value = importer.emit(node, Take(axis=axis, indices=indices), (value,), last=False)
            continue
        k, v = _filter(line, at, mode, a=coefficient, antialias=antialias, exclude_outside=exclude)
        constants = (importer.constant(k, f"{node.outputs[0]}.k"), importer.constant(v, f"{node.outputs[0]}.v"))
        value = importer.emit(node, Resample(axis=axis), (value, *constants), last=False)
    if cropped and not inside.all():
        kept = importer.constant(inside.astype(np.float32), f"{node.outputs[0]}.inside")
        rest = importer.constant(np.where(inside, 0, outside).astype(np.float32), f"{node.outputs[0]}.outside")
        value = importer.emit(node, Pointwise(function="multiply"), (value, kept), last=False)
        value = importer.emit(node, Add(), (value, rest), last=False)
    importer.emit(node, Identity(), (value,))


def _along(line: NDArray[np.bool_], axis: int, rank: int) -> NDArray[np.bool_]:
    """The line as a tensor of that rank which extends along `axis` alone."""
    return line.reshape([len(line) if k == axis else 1 for k in range(rank)])


RESIZE: Final[Mapping[str, Converter]] = MappingProxyType({"Resize": _resize})
