"""The graph in the making while an ONNX model is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import FrontendError, GraphError
from compiler.frontend.attributes import Attributes
from compiler.frontend.tensors import check_shape
from compiler.graph.ir import Graph, Node, Op, TensorType, Value
from compiler.graph.ops.elementwise import Cast, Identity
from compiler.graph.rewrite import first_free, pruned, renamed_node
from compiler.tensor.ir import DType


@dataclass(frozen=True)
class Encoding:
    """The integers that stand for a value: reals per step, the integer that is 0.0, and the type of the integers."""

    scale: float
    zero_point: int
    dtype: np.dtype[Any]

    def real(self, integer: float) -> float:
        """What an integer stands for."""
        return float(np.float32(self.scale * (integer - self.zero_point)))

    def __str__(self) -> str:
        return f"{self.scale:.6g} times {self.dtype.name} less {self.zero_point}"


@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One ONNX node. inputs: "" where an optional one is absent; the list may also end early."""

    name: str
    op: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] != ""

    def require(self, low: int, high: int) -> None:
        """Raises FrontendError unless the number of inputs is in low..high and the first `low` are there."""
        if not low <= len(self.inputs) <= high or not all(self.has(position) for position in range(low)):
            expected = str(low) if low == high else f"{low} to {high}"
            plural = "" if high == 1 else "s"
            raise FrontendError(f"must have {expected} input{plural}, not {list(self.inputs)}")


class Importer:
    """Values are either static, known while importing (weights, shapes), or computed by graph nodes.

    A computed value that the model has as integers is in the graph as the reals that these stand for, and has an
    encoding. A static one that it has so may have steps: reals per step, float32 of a shape that broadcasts to it.
    What is float16 in the model is float32 in the graph, inputs apart, behind which stands a conversion.
    """

    def __init__(self, taken: frozenset[str]) -> None:
        self._statics: dict[str, NDArray[Any]] = {}
        self._steps: dict[str, NDArray[np.float32]] = {}
        self._encodings: dict[str, Encoding] = {}
        self._weight_scales: dict[str, NDArray[np.float32]] = {}
        self._constants: dict[str, NDArray[Any]] = {}
        self._types: dict[str, TensorType] = {}
        self._widened: dict[str, str] = {}
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._taken = set(taken)

    def add_input(self, name: str, type: TensorType) -> None:
        self._check_new(name)
        self._types[name] = type
        self._inputs.append(Value(name=name, type=type))
        if type.dtype is DType.FLOAT16:
            self._widened[name] = self.add(Cast(dtype=DType.FLOAT32), (name,), self.fresh(f"{name}.float32"), name)

    def add_static(self, name: str, array: NDArray[Any], steps: NDArray[np.float32] | None = None) -> None:
        self._check_new(name)
        self._statics[name] = array
        if steps is not None:
            self._steps[name] = steps

    def set_encoding(self, name: str, encoding: Encoding) -> None:
        """Say that the model has a value as integers; a static one, such as a shape, it has not."""
        if name in self._types:
            self._encodings[name] = encoding

    def encoding(self, name: str) -> Encoding | None:
        """Of a computed value that the model has as integers, None for all else."""
        return self._encodings.get(name)

    def is_input(self, name: str) -> bool:
        return any(value.name == name for value in self._inputs)

    def is_constant(self, name: str) -> bool:
        return name in self._statics

    def is_known(self, name: str) -> bool:
        return name in self._statics or name in self._types

    def known_inputs(self, names: Sequence[str]) -> dict[str, NDArray[Any]] | None:
        """The values of inputs by name, if all that are there are known; None if one is computed."""
        given = [name for name in names if name]
        if not given or any(name not in self._statics for name in given):
            return None
        return {name: self._statics[name] for name in given}

    def static(self, node: OnnxNode, position: int) -> NDArray[Any]:
        """The value of an input that must be known while importing."""
        name = node.inputs[position]
        if name not in self._statics:
            raise FrontendError(f"input {position} must be a constant, not the computed {name!r}")
        return self._statics[name]

    def is_static(self, node: OnnxNode, position: int) -> bool:
        return node.inputs[position] in self._statics

    def integers(self, node: OnnxNode, position: int) -> tuple[int, ...]:
        """A constant list of integers, or one integer."""
        array = self.static(node, position)
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > 64:
            raise FrontendError(f"input {position} must be a list of integers, not {array.dtype}{list(array.shape)}")
        return tuple(int(value) for value in array.reshape(-1))

    def weights(self, node: OnnxNode, position: int) -> NDArray[np.float32]:
        """A constant input in float32. Raises FrontendError when it is of another kind or not finite."""
        return as_float32(self.static(node, position), f"input {position}")

    def weight_scale(self, node: OnnxNode, position: int, axis: int) -> NDArray[np.float32] | None:
        """Reals per step of each slice along the axis, float32 [extent], of a static input given as integers.

        None for all other inputs, and where the step differs along another axis.
        """
        name = node.inputs[position]
        if name not in self._steps:
            return None
        steps, shape = self._steps[name], self._statics[name].shape
        extent = steps.shape[axis] if steps.ndim else 1
        return np.array(np.broadcast_to(steps.reshape(-1), shape[axis])) if steps.size == extent else None

    def shape(self, node: OnnxNode, position: int) -> tuple[int, ...]:
        return self.shape_of(node.inputs[position])

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._types[name].shape if name in self._types else self._statics[name].shape

    def value(self, node: OnnxNode, position: int) -> str:
        """Graph value of an input; a constant one becomes a constant of the graph.

        Floats of 16 bits become float32, and float64 beside computed float32.
        """
        name = node.inputs[position]
        if name not in self._types:
            array = self._statics[name]
            beside = {self._types[other].dtype for other in node.inputs if other in self._types}
            if array.dtype.kind == "f" and (array.dtype != np.float64 or DType.FLOAT32 in beside):
                array = self.weights(node, position)
            self._add_constant(name, array, self.weight_scale(node, position, 0) if array.ndim else None)
        return self._widened.get(name, name)

    def dtype(self, node: OnnxNode, position: int) -> DType:
        """Type of the graph value of an input."""
        return self.type_of(self.value(node, position)).dtype

    def type_of(self, value: str) -> TensorType:
        """Type of a value of the graph."""
        return self._types[value]

    def constant(self, array: NDArray[Any], hint: str, *, scale: NDArray[np.float32] | None = None) -> str:
        """Add a constant of the graph that the model does not have in this form. scale: see `Graph.weight_scales`."""
        name = self.fresh(hint)
        self._add_constant(name, array, scale)
        return name

    def _add_constant(self, name: str, array: NDArray[Any], scale: NDArray[np.float32] | None) -> None:
        try:
            self._types[name] = TensorType.of(array)
        except GraphError as error:
            raise FrontendError(f"constant {name!r} is refused: {error}") from None
        self._constants[name] = array
        if scale is not None:
            self._weight_scales[name] = scale

    def emit(self, node: OnnxNode, op: Op, inputs: tuple[str, ...], *, last: bool = True, position: int = 0) -> str:
        """Add a graph node; `last`: it computes the ONNX node's result at `position`.

        Raises FrontendError if it is refused.
        """
        if last:
            self._check_new(node.outputs[position])
        output = node.outputs[position] if last else self.fresh(f"{node.outputs[position]}.{op.kind}")
        return self.add(op, inputs, output, node.name)

    def emit_all(self, node: OnnxNode, steps: Sequence[Op], value: str) -> None:
        """Add operations behind each other, from the value to the node's result; a copy if there are none."""
        *before, last = steps or [Identity()]
        for op in before:
            value = self.emit(node, op, (value,), last=False)
        self.emit(node, last, (value,))

    def add(self, op: Op, inputs: tuple[str, ...], output: str, name: str) -> str:
        """Add a graph node called `name`, which computes `output`; gives that.

        Raises FrontendError if it is refused.
        """
        try:
            result = op.infer([self._types[value] for value in inputs])
        except GraphError as error:
            raise FrontendError(str(error)) from None
        check_shape(result.shape, least=1)
        self._types[output] = result
        self._nodes.append(Node(op=op, inputs=inputs, output=output, name=name))
        return output

    def renamed(self, name: str) -> str:
        """A new name of what the model calls `name`, no input: a result of that name is to be made of it."""
        value = self.fresh(f"{name}.computed")
        if name not in self._types:
            self._add_constant(name, self._statics[name], None)
        tables: tuple[dict[str, Any], ...] = (self._types, self._constants, self._weight_scales)
        for table in tables:
            if name in table:
                table[value] = table.pop(name)
        self._nodes = [renamed_node(node, {name: value}) for node in self._nodes]
        return value

    def graph(self, name: str, outputs: tuple[str, ...]) -> Graph:
        """The whole graph, verified. Raises FrontendError when it is not well formed."""
        graph = Graph(
            name=name,
            inputs=tuple(self._inputs),
            outputs=outputs,
            nodes=tuple(self._nodes),
            constants=self._constants,
            weight_scales=self._weight_scales,
        )
        graph = pruned(graph)
        try:
            graph.verify()
        except GraphError as error:
            raise FrontendError(str(error)) from None
        return graph

    def _check_new(self, name: str) -> None:
        if not name:
            raise FrontendError("result must have a name, not ''")
        if self.is_known(name):
            raise FrontendError(f"value {name!r} must be defined once, not twice")

    def fresh(self, hint: str) -> str:
        """A name that no value has: `hint`, or `hint` with a number."""
        name = first_free(hint, self._taken)
        self._taken.add(name)
        return name


Converter = Callable[[Importer, OnnxNode], None]
"""Adds what one ONNX operator computes. Raises FrontendError."""


def as_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Raises FrontendError unless the array is floating-point and finite in float32."""
    if array.dtype.kind != "f":
        raise FrontendError(f"{what} must be floating-point, not {array.dtype.name}")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise FrontendError(f"{what} must have finite values only")
    return single
