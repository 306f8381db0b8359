"""ONNX operators on integers that stand for real numbers. Semantics: the ONNX operator specification, and that of
onnxruntime's contributed operators.

A QuantizeLinear becomes a `FakeQuantize`, whose result is the real numbers that the integers stand for; what follows
knows them by their encoding, and a DequantizeLinear changes nothing. An operator of integers (QLinearConv) is imported
as what it stands for: dequantised operands, the operator of real numbers, a quantised result. Integers that are inputs
of the model, or have several scales, are integers in the graph as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Encoding, Importer, OnnxNode, as_float32
from compiler.frontend.integers import decode, encode
from compiler.frontend.linear import LINEAR
from compiler.frontend.movement import MOVEMENT
from compiler.frontend.pointwise import POINTWISE
from compiler.frontend.pooling import POOLING
from compiler.frontend.reductions import REDUCTIONS
from compiler.frontend.tensors import type_name
from compiler.graph.ops.elementwise import FakeQuantize, Identity
from compiler.tensor.ir import DType

KEEPING: Final = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize"),
        *("Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators that do to integers what they do to the reals that these stand for: the encoding stays."""

_REAL: Final[Mapping[str, Converter]] = MappingProxyType({**LINEAR, **MOVEMENT, **POINTWISE, **POOLING, **REDUCTIONS})
_INTEGERS: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {
        onnx.TensorProto.UNDEFINED: np.dtype(np.uint8),
        onnx.TensorProto.INT8: np.dtype(np.int8),
        onnx.TensorProto.INT16: np.dtype(np.int16),
        onnx.TensorProto.UINT8: np.dtype(np.uint8),
        onnx.TensorProto.UINT16: np.dtype(np.uint16),
    }
)
"""What a QuantizeLinear can make, by ONNX's number of the type; uint8 where nothing says which."""


@dataclass(frozen=True)
class _Form:
    """How an operator of integers stands for one of reals.

    operands: positions of its operands, each with scale and zero point behind it; none: all that there are from 2 on.
    result: position of the scale and zero point of the result. bias: of a bias, int32 in steps of the products.
    """

    op: str
    operands: tuple[int, ...]
    result: int
    bias: int | None = None


_FORMS: Final[Mapping[str, _Form]] = MappingProxyType(
    {
        "QGemm": _Form("Gemm", (0, 3), 7, 6),
        "QLinearAdd": _Form("Add", (0, 3), 6),
        "QLinearAveragePool": _Form("AveragePool", (0,), 3),
        "QLinearConcat": _Form("Concat", (), 0),
        "QLinearConv": _Form("Conv", (0, 3), 6, 8),
        "QLinearGlobalAveragePool": _Form("GlobalAveragePool", (0,), 3),
        "QLinearLeakyRelu": _Form("LeakyRelu", (0,), 3),
        "QLinearMatMul": _Form("MatMul", (0, 3), 6),
        "QLinearMul": _Form("Mul", (0, 3), 6),
        "QLinearSigmoid": _Form("Sigmoid", (0,), 3),
        "QLinearSoftmax": _Form("Softmax", (0,), 3),
    }
)


def _number(importer: Importer, node: OnnxNode, position: int, what: str) -> NDArray[Any]:
    """A constant input of one element, of rank 0."""
    array = importer.static(node, position)
    if array.size != 1:
        raise FrontendError(f"{what} must be one number for all of an activation, not {list(array.shape)}")
    return array.reshape(())


def _encoding(importer: Importer, node: OnnxNode, position: int, default: np.dtype[Any]) -> Encoding:
    """That of the scale at the position and the zero point behind it; default: the type if there is no zero point."""
    scale = float(as_float32(_number(importer, node, position, "scale"), "scale"))
    if scale <= 0:
        raise FrontendError(f"scale must be positive, not {scale}")
    if not node.has(position + 1):
        return Encoding(scale, 0, default)
    zero = _number(importer, node, position + 1, "zero point")
    if zero.dtype not in _INTEGERS.values():
        raise FrontendError(f"zero point must be an integer of 8 or 16 bits, not {zero.dtype.name}")
    return Encoding(scale, int(zero), zero.dtype)


def _emit_quantized(importer: Importer, node: OnnxNode, value: str, encoding: Encoding) -> None:
    """Add the node's result: the value, rounded to what the integers of the encoding can stand for."""
    info, zero = np.iinfo(encoding.dtype), encoding.zero_point
    op = FakeQuantize(scale=encoding.scale, lo=int(info.min) - zero, hi=int(info.max) - zero)
    importer.emit(node, op, (value,))
    importer.set_encoding(node.outputs[0], encoding)


def _quantize_linear(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 3)
    a = node.attributes
    axis, block = a.integer("axis", 1), a.integer("block_size", 0, low=0)
    a.integer("saturate", 1)  # concerns floating-point results
    if (precision := a.integer("precision", 0)) not in (0, onnx.TensorProto.FLOAT):
        raise FrontendError(f"attribute 'precision' must be FLOAT, not {type_name(precision)}")
    if (kind := a.integer("output_dtype", 0)) not in _INTEGERS:
        raise FrontendError(f"attribute 'output_dtype' must be an integer of 8 or 16 bits, not {type_name(kind)}")
    if importer.static(node, 1).size == 1:
        _emit_quantized(importer, node, importer.value(node, 0), _encoding(importer, node, 1, _INTEGERS[kind]))
        return
    shape = importer.shape(node, 0)
    scale, zero = _parameters(importer, node, 1, shape, axis, block)
    dtype = DType((importer.static(node, 2).dtype if node.has(2) else _INTEGERS[kind]).name)
    if dtype.numpy not in _INTEGERS.values():
        raise FrontendError(f"zero point must be an integer of 8 or 16 bits, not {dtype.value}")
    encode(importer, importer.value(node, 0), node.outputs[0], node.name, scale=scale, zero=zero, dtype=dtype)


def _dequantize_linear(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 3)
    axis, block = node.attributes.integer("axis", 1), node.attributes.integer("block_size", 0, low=0)
    if (kind := node.attributes.integer("output_dtype", 0)) not in (0, onnx.TensorProto.FLOAT):
        raise FrontendError(f"attribute 'output_dtype' must be FLOAT, not {type_name(kind)}")
    if importer.is_static(node, 0):
        importer.add_static(node.outputs[0], *_dequantized(importer, node, 0, axis, block))
    else:
        _emit_reals(importer, node, 0, node.outputs[0], axis, block)


def _emit_reals(importer: Importer, node: OnnxNode, position: int, output: str, axis: int, block: int = 0) -> None:
    """Add the reals that a computed operand stands for, `output`.

    Raises FrontendError unless the scale and zero point behind it are those it was made with, or it is integers.
    """
    value, made = importer.value(node, position), importer.encoding(node.inputs[position])
    if made is not None:
        read = _encoding(importer, node, position + 1, made.dtype)
        if read != made:
            raise FrontendError(f"input {position} must be read as it was quantised, as {made}, not {read}")
        importer.add(Identity(), (value,), output, node.name)
        return
    kind = importer.dtype(node, position)
    if not kind.is_integer:
        raise FrontendError(f"input {position} must be integers, not {kind.value}")
    scale, zero = _parameters(importer, node, position + 1, importer.shape(node, position), axis, block)
    decode(importer, value, output, node.name, scale=scale, zero=zero)


def _parameters(
    importer: Importer, node: OnnxNode, position: int, shape: tuple[int, ...], axis: int, block: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scale at the position and the zero point behind it, 0 if there is none, so that they broadcast to `shape`."""
    given = as_float32(importer.static(node, position), "scale")
    zeros = importer.static(node, position + 1) if node.has(position + 1) else np.zeros(given.shape)
    if zeros.size != given.size:
        raise FrontendError(f"zero points must be {given.size}, one for each scale, not {zeros.size}")
    return _along(given, shape, axis, block), _along(zeros.astype(np.float32), shape, axis, block)


def _dequantized(
    importer: Importer, node: OnnxNode, position: int, axis: int, block: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """(reals, steps) of a constant operand, whose scale and zero point come behind it; see `Importer`.

    axis: along which they lie, of operands with more than one; block: elements along it that share one, 0 for all other
    operands. Integers of 32 bits are biases, of which no steps are kept.
    """
    x = importer.static(node, position)
    if x.dtype.kind not in "iu":
        raise FrontendError(f"input {position} must be integers, not {x.dtype.name}")
    given = as_float32(importer.static(node, position + 1), "scale")
    scale = _along(given, x.shape, axis, block)
    steps = x.astype(np.float64)
    if node.has(position + 2):
        zero = importer.static(node, position + 2)
        if zero.dtype != x.dtype or zero.size != given.size:
            raise FrontendError(
                f"zero points must be {given.size} of {x.dtype.name}, not {zero.size} of {zero.dtype.name}"
            )
        steps = steps - _along(zero.astype(np.float32), x.shape, axis, block)
    whole = x.dtype in _INTEGERS.values() and (scale > 0).all()
    return as_float32(steps * scale, "dequantised constant"), scale if whole else None


def _along(array: NDArray[np.float32], shape: tuple[int, ...], axis: int, block: int) -> NDArray[np.float32]:
    """Scales or zero points in a shape that broadcasts to that of their operand."""
    if array.size == 1:
        return array.reshape(())
    if not -len(shape) <= axis < len(shape):
        raise FrontendError(f"attribute 'axis' must be {-len(shape)}..{len(shape) - 1}, not {axis}")
    axis %= len(shape)
    if block:
        blocks = (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :])
        if array.shape != blocks:
            raise FrontendError(f"scale must have one value for each block, {list(blocks)}, not {list(array.shape)}")
        return np.repeat(array, block, axis).take(range(shape[axis]), axis)
    if array.size != shape[axis]:
        raise FrontendError(f"scale must have {shape[axis]} values, one for each slice, not {list(array.shape)}")
    return array.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def _q_linear(importer: Importer, node: OnnxNode) -> None:
    """An operator of integers, as that of reals between dequantised operands and a quantised result."""
    form = _FORMS[node.op]
    positions = form.operands or tuple(range(2, len(node.inputs), 3))
    ends = node.op == "QGemm" and not node.has(form.result)
    for position in (*positions, *(position + 1 for position in positions), *(() if ends else (form.result,))):
        if not node.has(position):
            raise FrontendError(f"must have input {position}, not only {list(node.inputs)}")
    if node.op in ("QLinearAveragePool", "QLinearGlobalAveragePool"):
        node.attributes.integer("channels_last", 0, low=0, high=0)
    if node.op == "QLinearSoftmax":
        node.attributes.integer("opset", 13, low=13)
    operands = [_operand(importer, node, position, _axis(node, position)) for position in positions]
    if form.bias is not None and node.has(form.bias):
        operands.append(_bias(importer, node, form.bias))
    outputs = node.outputs if ends else (importer.fresh(f"{node.outputs[0]}.real"),)
    _REAL[form.op](importer, replace(node, op=form.op, inputs=tuple(operands), outputs=outputs))
    if not ends:
        _emit_quantized(importer, node, outputs[0], _encoding(importer, node, form.result, np.dtype(np.uint8)))


def _axis(node: OnnxNode, position: int) -> int:
    """Along which the scales of weights lie: that of their results."""
    if node.op == "QGemm" and position:
        return 0 if node.attributes.peek_number("transB", 0) else 1
    return -1 if node.op == "QLinearMatMul" else 0


def _operand(importer: Importer, node: OnnxNode, position: int, axis: int) -> str:
    """The reals of an operand, under a new name."""
    name = importer.fresh(f"{node.inputs[position]}.real")
    if not importer.is_static(node, position):
        _emit_reals(importer, node, position, name, axis)
        return name
    importer.add_static(name, *_dequantized(importer, node, position, axis))
    return name


def _bias(importer: Importer, node: OnnxNode, position: int) -> str:
    """The reals of a bias, of which a step is the product of those of both operands, and of the factor of a QGemm."""
    integers = importer.static(node, position)
    if integers.dtype != np.int32:
        raise FrontendError(f"bias must be int32, not {integers.dtype.name}")
    first, second = (as_float32(importer.static(node, k), "scale").astype(np.float64) for k in (1, 4))
    alpha = node.attributes.peek_number("alpha", 1)
    try:
        reals = integers * (first.reshape(-1) * second.reshape(-1) * alpha)
    except ValueError:
        raise FrontendError(f"bias must have a value for each of {second.size} scales, not {integers.size}") from None
    name = importer.fresh(f"{node.inputs[position]}.real")
    importer.add_static(name, as_float32(reals, "dequantised bias"))
    return name


_LINEAR: Final = MappingProxyType({"DequantizeLinear": _dequantize_linear, "QuantizeLinear": _quantize_linear})
_STANDARD: Final = ("QLinearConv", "QLinearMatMul")

QUANTIZED: Final[Mapping[str, Converter]] = MappingProxyType({**_LINEAR, **dict.fromkeys(_STANDARD, _q_linear)})

CONTRIBUTED: Final[Mapping[str, Converter]] = MappingProxyType(
    {**_LINEAR, **dict.fromkeys([op for op in _FORMS if op not in _STANDARD], _q_linear)}
)
"""Those of onnxruntime, domain com.microsoft."""

READING: Final = frozenset({*QUANTIZED, *CONTRIBUTED}) - {"QuantizeLinear"}
"""Operators that read integers for what they stand for."""
