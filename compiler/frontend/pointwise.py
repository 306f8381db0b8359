"""ONNX operators that work element by element. Semantics: the ONNX operator specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode, as_float32
from compiler.graph.ops.elementwise import Add, Cast, Clip, Identity, Pointwise, Relu
from compiler.tensor.functions import MAX_EXPONENT
from compiler.tensor.ir import DType

_UNARY: Final[Mapping[str, tuple[str, tuple[tuple[str, float], ...]]]] = MappingProxyType(
    {
        "Abs": ("abs", ()),
        "Ceil": ("ceil", ()),
        "Celu": ("celu", (("alpha", 1.0),)),
        "Elu": ("elu", (("alpha", 1.0),)),
        "Erf": ("erf", ()),
        "Exp": ("exp", ()),
        "Floor": ("floor", ()),
        "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
        "HardSwish": ("hard_swish", ()),
        "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
        "Log": ("log", ()),
        "Mish": ("mish", ()),
        "Neg": ("negative", ()),
        "Reciprocal": ("reciprocal", ()),
        "Round": ("round", ()),
        "Selu": ("selu", (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))),
        "Sigmoid": ("sigmoid", ()),
        "Softplus": ("softplus", ()),
        "Softsign": ("softsign", ()),
        "Sqrt": ("sqrt", ()),
        "Swish": ("swish", (("alpha", 1.0),)),
        "Tanh": ("tanh", ()),
        "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
    }
)
"""Function of `compiler.tensor.functions`, and the attributes that are its parameters, with their defaults."""

_OF_TWO: Final = MappingProxyType({"Div": "divide", "Mul": "multiply", "PRelu": "prelu", "Sub": "subtract"})
_OF_MANY: Final = MappingProxyType({"Max": "maximum", "Mean": "mean", "Min": "minimum", "Sum": "add"})
_MOST_OPERANDS: Final = 64
_MAX_WHOLE_EXPONENT: Final = 63
_LARGEST: Final = float(np.finfo(np.float32).max)


def _function(importer: Importer, node: OnnxNode, function: str, *parameters: float) -> None:
    operands = tuple(importer.value(node, position) for position in range(len(node.inputs)))
    importer.emit(node, Pointwise(function=function, parameters=parameters), operands)


def _unary(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    function, attributes = _UNARY[node.op]
    _function(importer, node, function, *(node.attributes.number(name, default) for name, default in attributes))


def _of_two(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    _function(importer, node, _OF_TWO[node.op])


def _of_many(importer: Importer, node: OnnxNode) -> None:
    node.require(1, _MOST_OPERANDS)
    clipped = _clipped_by_one(importer, node) if node.op in ("Max", "Min") else None
    if clipped is None:
        _function(importer, node, _OF_MANY[node.op])
    else:
        importer.emit(node, *clipped)


def _clipped_by_one(importer: Importer, node: OnnxNode) -> tuple[Clip, tuple[str]] | None:
    """The larger, or smaller, of a float32 activation and one constant number is a clip, as of a ReLU."""
    static = [position for position in range(len(node.inputs)) if importer.is_static(node, position)]
    if len(node.inputs) != 2 or len(static) != 1:
        return None
    number, value = importer.static(node, static[0]), importer.value(node, 1 - static[0])
    t = importer.type_of(value)
    if number.size != 1 or number.ndim > len(t.shape) or t.dtype is not DType.FLOAT32 or np.isnan(number).any():
        return None
    bound = float(number.reshape(()))
    return (Clip(lo=bound) if node.op == "Max" else Clip(hi=bound)), (value,)


def _add(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    a, b = _addend(importer, node, 0), _addend(importer, node, 1)
    is_float = importer.type_of(a).dtype is DType.FLOAT32
    importer.emit(node, Add() if is_float else Pointwise(function="add"), (a, b))


def _addend(importer: Importer, node: OnnxNode, position: int) -> str:
    """An operand; a constant one of infinite numbers is a mask, and these become the largest finite ones.

    They do to a softmax what infinite ones do. Only where a mask leaves nothing does it differ: there a softmax of
    infinite numbers has no answer.
    """
    if not importer.is_static(node, position):
        return importer.value(node, position)
    array = importer.static(node, position)
    if array.dtype.kind != "f" or array.dtype == np.float64 or not np.isinf(array).any():
        return importer.value(node, position)
    finite = np.clip(array.astype(np.float32), -_LARGEST, _LARGEST)
    return importer.constant(as_float32(finite, f"input {position}"), f"{node.inputs[position]}.finite")


def _where(importer: Importer, node: OnnxNode) -> None:
    node.require(3, 3)
    a, b = _addend(importer, node, 1), _addend(importer, node, 2)
    dtype = importer.type_of(a).dtype
    given = importer.static(node, 0).dtype.name if importer.is_static(node, 0) else importer.dtype(node, 0).value
    if given != DType.BOOL.value:
        raise FrontendError(f"condition must be bool, not {given}")
    if importer.is_static(node, 0):
        holds = importer.constant(importer.static(node, 0).astype(dtype.numpy), f"{node.inputs[0]}.{dtype.value}")
    else:
        holds = importer.emit(node, Cast(dtype=dtype), (importer.value(node, 0),), last=False)
    importer.emit(node, Pointwise(function="where"), (holds, a, b))


def _trilu(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 2)
    shape, value = importer.shape(node, 0), importer.value(node, 0)
    if len(shape) < 2:
        raise FrontendError(f"input must have rank 2 or more, not shape {list(shape)}")
    offsets = importer.integers(node, 1) if node.has(1) else (0,)
    if len(offsets) != 1:
        raise FrontendError(f"input 1 must be one integer, not {offsets}")
    upper = bool(node.attributes.integer("upper", 1, low=0, high=1))
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    holds = columns - rows >= offsets[0] if upper else columns - rows <= offsets[0]
    dtype = importer.type_of(value).dtype.numpy
    triangle = importer.constant(holds.astype(dtype), f"{node.outputs[0]}.triangle")
    zero = importer.constant(np.zeros((), dtype), f"{node.outputs[0]}.zero")
    importer.emit(node, Pointwise(function="where"), (triangle, value, zero))


def _gelu(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    mode = node.attributes.string("approximate", "none")
    if mode not in ("none", "tanh"):
        raise FrontendError(f"attribute 'approximate' must be 'none' or 'tanh', not {mode!r}")
    _function(importer, node, "gelu" if mode == "none" else "gelu_tanh")


def _power(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    operand = importer.value(node, 0)
    if importer.dtype(node, 0).is_integer:
        _whole_power(importer, node)
        return
    if not importer.is_static(node, 1):
        computed = importer.value(node, 1)
        if importer.dtype(node, 1).is_integer:
            computed = importer.emit(node, Cast(dtype=DType.FLOAT32), (computed,), last=False)
        importer.emit(node, Pointwise(function="general_power"), (operand, computed))
        return
    exponents = _exponents(importer, node)
    exponent = float(exponents.reshape(-1)[0])
    alike = (exponents == exponents.reshape(-1)[0]).all()
    if alike and 2 * exponent == round(2 * exponent) and abs(exponent) <= MAX_EXPONENT:
        op = Pointwise(function="power", parameters=(exponent,))
        importer.emit(node, op, (operand,))
        return
    single = as_float32(exponents.astype(np.float64), "exponent")
    general = Pointwise(function="general_power")
    importer.emit(node, general, (operand, importer.constant(single, f"{node.inputs[1]}.float")))


def _exponents(importer: Importer, node: OnnxNode) -> NDArray[Any]:
    exponents = importer.static(node, 1)
    if exponents.dtype.kind not in "fiu" or not exponents.size:
        raise FrontendError(f"exponents must be numbers, not {exponents.dtype}{list(exponents.shape)}")
    return exponents


def _whole_power(importer: Importer, node: OnnxNode) -> None:
    """Integers to known powers, exactly."""
    exponents, dtype = _exponents(importer, node), importer.dtype(node, 0)
    if not ((exponents >= 0) & (exponents <= _MAX_WHOLE_EXPONENT) & (exponents == np.trunc(exponents))).all():
        raise FrontendError(
            f"exponents of integers must be whole and in 0..{_MAX_WHOLE_EXPONENT}, not {exponents.tolist()!r:.40}"
        )
    powers = importer.constant(exponents.astype(dtype.numpy), f"{node.inputs[1]}.whole")
    op = Pointwise(function="whole_power", parameters=(int(exponents.max()),))
    importer.emit(node, op, (importer.value(node, 0), powers))


def _relu(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    importer.emit(node, Relu(), (importer.value(node, 0),))


def _clip(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 3)
    computed = any(node.has(position) and not importer.is_static(node, position) for position in (1, 2))
    if computed or importer.dtype(node, 0) is not DType.FLOAT32:
        _clip_by_values(importer, node)
        return
    bounds = [-math.inf, math.inf]
    for position in (1, 2):
        if node.has(position):
            array = importer.static(node, position)
            if array.size != 1 or array.dtype.kind != "f" or np.isnan(array).any():
                raise FrontendError(f"input {position} must be one floating-point number, not {array.tolist()!r:.40}")
            bounds[position - 1] = float(array.reshape(()))
    low, high = bounds
    importer.emit(node, Clip(lo=min(low, high), hi=high), (importer.value(node, 0),))


def _clip_by_values(importer: Importer, node: OnnxNode) -> None:
    """Bounds that are computed, or of another type than float32."""
    value = importer.value(node, 0)
    for position, function in ((1, "maximum"), (2, "minimum")):
        if node.has(position):
            if importer.shape(node, position) != ():
                raise FrontendError(f"input {position} must be one number, not of {importer.shape(node, position)}")
            operands = (value, importer.value(node, position))
            value = importer.emit(node, Pointwise(function=function), operands, last=False)
    importer.emit(node, Identity(), (value,))


def _identity(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    if importer.is_static(node, 0):
        importer.add_static(node.outputs[0], importer.static(node, 0))
    else:
        importer.emit(node, Identity(), (importer.value(node, 0),))


def _dropout(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 3)
    node.attributes.integer("seed", 0, low=-(1 << 63), high=(1 << 63) - 1)
    trains = node.has(2) and importer.static(node, 2).any()
    if trains and (not node.has(1) or importer.static(node, 1).any()):
        raise FrontendError("input 'training_mode' must be false, or the ratio 0")
    importer.emit(node, Identity(), (importer.value(node, 0),))
    if len(node.outputs) > 1 and node.outputs[1]:
        importer.add_static(node.outputs[1], np.ones(importer.shape(node, 0), np.bool_))


POINTWISE: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY, _unary),
        **dict.fromkeys(_OF_TWO, _of_two),
        **dict.fromkeys(_OF_MANY, _of_many),
        "Add": _add,
        "Clip": _clip,
        "Dropout": _dropout,
        "Gelu": _gelu,
        "Identity": _identity,
        "Pow": _power,
        "Relu": _relu,
        "Trilu": _trilu,
        "Where": _where,
    }
)
