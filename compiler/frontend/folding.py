"""What a model computes of constants, with the reference evaluator that comes with onnx.

Of operators whose results are not bounded by their inputs, those are folded whose results have few elements: a damaged
file may ask for any amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from compiler.errors import FrontendError
from compiler.frontend.tensors import MAX_ELEMENTS

ELEMENTWISE: Final = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater"),
        *("GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow"),
        *("QuantizeLinear", "Reciprocal", "Relu", "Round", "Sigmoid", "Sqrt", "Sub", "Tanh", "Where"),
    }
)
"""The result has the shape that the inputs broadcast to."""
REARRANGING: Final = frozenset(
    {
        *("Concat", "Flatten", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Trilu", "Unsqueeze"),
    }
)
"""The result has no more elements than the inputs together."""
_SIZES: Final[Mapping[str, Callable[..., float]]] = MappingProxyType(
    {
        "Expand": lambda x, shape: math.prod(np.broadcast_shapes(x.shape, shape.tolist())),
        "Gather": lambda x, indices: x.size * indices.size,
        "Range": lambda start, end, step: (end.item() - start.item()) / step.item(),
        "Tile": lambda x, counts: x.size * math.prod(counts.tolist()),
    }
)
"""Elements of the result, of the inputs."""
GROWING: Final = frozenset(_SIZES)
"""What the inputs contain decides on the size of the result."""


def can_fold(proto: onnx.NodeProto, inputs: Sequence[NDArray[Any]]) -> bool:
    """Whether the node's results can be computed of these inputs without much memory."""
    if proto.op_type in REARRANGING:
        return True
    if proto.op_type in ELEMENTWISE:
        try:
            return math.prod(np.broadcast_shapes(*(array.shape for array in inputs))) <= MAX_ELEMENTS
        except ValueError:
            return proto.op_type == "QuantizeLinear"  # whose parameters lie along an axis
    if proto.op_type in GROWING:
        try:
            return _SIZES[proto.op_type](*inputs) <= MAX_ELEMENTS
        except (ArithmeticError, TypeError, ValueError):  # whatever a damaged file has as its inputs
            return False
    return False


def fold(proto: onnx.NodeProto, opset: int, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The results of a node. Raises FrontendError when its inputs or attributes do not fit."""
    opsets = [onnx.helper.make_opsetid("", opset)]
    names = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in inputs]
    results = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in proto.output if name
    ]
    graph = onnx.helper.make_graph([proto], "constant", names, results)
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(model).run(None, inputs)
    except Exception as error:  # noqa: BLE001  # the evaluator raises whatever numpy does, for whatever a file says
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrontendError(f"must have constants that can be computed: {text:.120}") from None
    return [np.asarray(value) for value in values]
