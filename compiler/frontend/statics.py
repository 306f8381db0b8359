"""ONNX operators that make constants, or only rename dimensions: every shape is known while importing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode
from compiler.frontend.movement import axes_of
from compiler.frontend.tensors import check_shape, known_type
from compiler.graph.ir import Op
from compiler.graph.ops.elementwise import Cast
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.tensor.ir import DType


def _constant(importer: Importer, node: OnnxNode) -> None:
    node.require(0, 0)
    a = node.attributes
    if (tensor := a.tensor("value")) is not None:
        importer.add_static(node.outputs[0], tensor)
    elif "value_int" in a:
        importer.add_static(node.outputs[0], np.array(a.integer("value_int", 0), np.int64))
    elif "value_float" in a:
        importer.add_static(node.outputs[0], np.array(a.number("value_float", 0.0), np.float32))
    elif (integers := a.integers("value_ints")) is not None:
        importer.add_static(node.outputs[0], np.array(integers, np.int64))
    elif (floats := a.list_of_numbers("value_floats")) is not None:
        importer.add_static(node.outputs[0], np.array(floats, np.float32))
    else:
        raise FrontendError("must have a tensor, integers or floats as its value")


def _shape(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    shape = importer.shape(node, 0)
    start = node.attributes.integer("start", 0)
    end = node.attributes.integer("end", len(shape))
    importer.add_static(node.outputs[0], np.array(shape[start:end], np.int64))


def _cast(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    node.attributes.integer("saturate", 1)
    node.attributes.string("round_mode", "up")
    dtype = known_type("attribute 'to'", node.attributes.integer("to", 0))
    steps: list[Op] = [] if importer.dtype(node, 0) is dtype else [Cast(dtype=dtype)]
    if dtype is DType.FLOAT16:
        steps.append(Cast(dtype=DType.FLOAT32))
    importer.emit_all(node, steps, importer.value(node, 0))


def _constant_of_shape(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    shape = importer.integers(node, 0)
    check_shape(shape)
    value = node.attributes.tensor("value")
    if value is not None and value.size != 1:
        raise FrontendError(f"attribute 'value' must have one element, not {value.size}")
    fill = np.zeros((), np.float32) if value is None else value.reshape(())
    importer.add_static(node.outputs[0], np.full(shape, fill))


def _reshape(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    wanted = importer.integers(node, 1)
    zero_is_zero = bool(node.attributes.integer("allowzero", 0, low=0, high=1))
    old = importer.shape(node, 0)
    new = list(wanted)
    if not zero_is_zero:
        if any(extent == 0 and k >= len(old) for k, extent in enumerate(new)):
            raise FrontendError(f"shape {wanted} must copy only the {len(old)} extents there are")
        new = [old[k] if extent == 0 else extent for k, extent in enumerate(new)]
    if new.count(-1) > 1:
        raise FrontendError(f"shape must have one -1 at most, not {wanted}")
    if -1 in new:
        rest = -math.prod(new)
        if rest <= 0 or math.prod(old) % rest:
            raise FrontendError(f"shape must hold the {math.prod(old)} elements of {list(old)}, not be {wanted}")
        new[new.index(-1)] = math.prod(old) // rest
    _reshape_to(importer, node, tuple(new))


def _flatten(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    shape = importer.shape(node, 0)
    axis = node.attributes.integer("axis", 1, low=-len(shape), high=len(shape))
    axis = axis + len(shape) if axis < 0 else axis
    if axis == 1 and not importer.is_static(node, 0):
        importer.emit(node, Flatten(), (importer.value(node, 0),))
    else:
        _reshape_to(importer, node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 2)
    shape = importer.shape(node, 0)
    ones = tuple(k for k, extent in enumerate(shape) if extent == 1)
    axes = set(axes_of(importer.integers(node, 1), len(shape))) if node.has(1) else set(ones)
    if not axes <= set(ones):
        raise FrontendError(f"axes must be those of extent 1 in {list(shape)}, not {sorted(axes)}")
    _reshape_to(importer, node, tuple(extent for k, extent in enumerate(shape) if k not in axes))


def _unsqueeze(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    shape = importer.shape(node, 0)
    given = importer.integers(node, 1)
    rank = len(shape) + len(given)
    axes = axes_of(given, rank)
    rest = iter(shape)
    _reshape_to(importer, node, tuple(1 if k in axes else next(rest) for k in range(rank)))


def _reshape_to(importer: Importer, node: OnnxNode, shape: tuple[int, ...]) -> None:
    check_shape(shape)
    if math.prod(shape) != math.prod(importer.shape(node, 0)):
        raise FrontendError(f"shape must hold the elements of {list(importer.shape(node, 0))}, not be {list(shape)}")
    if importer.is_static(node, 0):
        importer.add_static(node.outputs[0], importer.static(node, 0).reshape(shape))
    else:
        importer.emit(node, Reshape(shape=shape), (importer.value(node, 0),))


STATIC: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        "Cast": _cast,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Flatten": _flatten,
        "Reshape": _reshape,
        "Shape": _shape,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
    }
)
