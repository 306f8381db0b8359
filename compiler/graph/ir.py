"""The graph: values, the nodes that compute them, and what makes a graph well formed.

A value has a name and is computed by exactly one node, or is an input, or a constant. Shapes are static. Shape and
dtype of a node's result follow from its inputs (`Op.infer`); the layout of a value in memory is a decision, kept in
`Graph.layouts`, and changes no answer: `Op.reference` always works on logical arrays.
"""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.errors import GraphError, LoweringError
from compiler.graph.layout import Layout
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.tensor.ir import NUMBERS, DType

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Logical shape and dtype of a value, and how it lies in memory (None: row-major)."""

    shape: tuple[int, ...]
    dtype: DType
    layout: Layout | None = None

    @staticmethod
    def of(array: Array) -> TensorType:
        """Type of a numpy array. Raises GraphError for a dtype the IR does not have."""
        try:
            return TensorType(array.shape, DType(array.dtype.name))
        except ValueError:
            names = ", ".join(dtype.value for dtype in DType)
            raise GraphError(f"Array must have one of the dtypes {names}, not {array.dtype.name}") from None

    @property
    def logical(self) -> TensorType:
        return TensorType(self.shape, self.dtype)

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """Shape as stored: equal to `shape` when row-major, see `Layout.physical` otherwise."""
        return self.shape if self.layout is None else self.layout.physical(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as stored, padding included."""
        return math.prod(self.physical_shape) * self.dtype.numpy.itemsize

    def __str__(self) -> str:
        layout = "" if self.layout is None else f"{{{self.layout}}}"
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]{layout}"


class Op(abc.ABC):
    """What a node computes: one frozen dataclass per kind, its fields are the attributes. Every op has one result."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def infer(self, types: Sequence[TensorType]) -> TensorType:
        """Logical type of the result. Raises GraphError naming the rule and the value when the operands do not fit."""

    @abc.abstractmethod
    def reference(self, *arrays: Array) -> Array:
        """The definition of the op, in numpy, on logical arrays whose types `infer` accepts. int32 arithmetic wraps."""

    def macs(self, types: Sequence[TensorType]) -> int:
        """Multiply-accumulates of the op, padding taps included; 0 for all but convolutions and dense layers."""
        return 0

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        """The op's one tensor-IR definition, for tensors that lie in memory as `operands` and `result` say.

        Raises LoweringError if they lie as the definition cannot read them, or the op has none (float ops that
        quantisation replaces).
        """
        raise LoweringError(f"Node {name!r}: op {self.kind} must be quantised to be compiled")


class Place(enum.Enum):
    """Which processor executes a node."""

    ACCELERATOR = "accelerator"
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`reason` says why a node is left to the host; it is empty on the accelerator."""

    place: Place
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """output: name of the value it computes. name: what reports and messages call the node."""

    op: Op
    inputs: tuple[str, ...]
    output: str
    name: str
    placement: Placement | None = None


@dataclass(frozen=True, kw_only=True)
class Value:
    """A graph input."""

    name: str
    type: TensorType


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """nodes: in topological order. outputs: names of values. constants: by value name, read-only arrays.
    layouts: of the values that do not lie row-major. weight_scales: of constants that are weights which the model gives
    as integers, and are whole multiples of it: reals per step of each output channel, float32 [O].

    Construction checks nothing, it only guards the constants against writing; `verify` checks everything.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    weight_scales: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arrays in ("constants", "weight_scales"):
            object.__setattr__(self, arrays, {name: read_only(array) for name, array in getattr(self, arrays).items()})

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """Type of every value, layouts included. Raises GraphError naming the node whose operands do not fit."""
        types = {value.name: value.type for value in self.inputs}
        types |= {name: TensorType.of(array) for name, array in self.constants.items()}
        for node in self.nodes:
            types[node.output] = infer_node(node, [types[name].logical for name in known(node, types)])
        return {name: TensorType(t.shape, t.dtype, self.layouts.get(name)) for name, t in types.items()}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """Node by the value it computes."""
        return {node.output: node for node in self.nodes}

    @cached_property
    def uses(self) -> Mapping[str, int]:
        """How often each value is read, being a graph output included; a node that reads a value twice counts twice."""
        counts = dict.fromkeys([*(value.name for value in self.inputs), *self.constants, *self.producers], 0)
        for name in (*(name for node in self.nodes for name in node.inputs), *self.outputs):
            counts[name] = counts.get(name, 0) + 1
        return counts

    def node_types(self, node: Node) -> tuple[tuple[TensorType, ...], TensorType]:
        """(types of the inputs, type of the result), layouts included."""
        return tuple(self.types[name] for name in node.inputs), self.types[node.output]

    def verify(self) -> None:
        """Raises GraphError unless every value is defined once and before use, every op accepts its operands, every
        output exists, layouts belong to numbers of rank 4, and scales of weights to constants."""
        defined: set[str] = set()
        for name in (*(value.name for value in self.inputs), *self.constants):
            _define(name, defined)
        for node in self.nodes:
            for name in node.inputs:
                if name not in defined:
                    raise GraphError(f"Node {node.name!r} must read values defined before it, not {name!r}")
            _define(node.output, defined)
        for name in self.outputs:
            if name not in defined:
                raise GraphError(f"Graph output must be a value of the graph, not {name!r}")
        for name, layout in self.layouts.items():
            if name not in defined:
                raise GraphError(f"Layout must belong to a value of the graph, not {name!r}")
            t = self.types[name].logical
            if len(t.shape) != 4 or t.dtype not in NUMBERS:
                raise GraphError(f"Value {name!r} with layout {layout} must be numbers of rank 4, not {t}")
        for name, scale in self.weight_scales.items():
            if name not in self.constants or scale.shape != self.constants[name].shape[:1]:
                raise GraphError(f"Scales must be those of each channel of a constant, not {scale.size} of {name!r}")
        for name, t in self.types.items():
            if any(extent < 1 for extent in t.shape):
                raise GraphError(f"Value {name!r} must have extents of at least 1, not {t}")


def known(node: Node, types: Mapping[str, TensorType]) -> tuple[str, ...]:
    """The inputs of `node`. Raises GraphError when one has no type yet."""
    for name in node.inputs:
        if name not in types:
            raise GraphError(f"Node {node.name!r} must read values defined before it, not {name!r}")
    return node.inputs


def infer_node(node: Node, types: Sequence[TensorType]) -> TensorType:
    """Type of the node's result. Raises GraphError naming the node."""
    try:
        return node.op.infer(types)
    except GraphError as error:
        raise GraphError(f"Node {node.name!r} ({node.op.kind}): {error}") from None


def _define(name: str, defined: set[str]) -> None:
    if not name:
        raise GraphError("Value must have a name, not ''")
    if name in defined:
        raise GraphError(f"Value {name!r} must be defined once, not twice")
    defined.add(name)


def read_only(array: Array) -> Array:
    """The same elements, row-major, through an array that refuses to be written; copies only what is not row-major."""
    view = np.ascontiguousarray(array).reshape(array.shape).view()
    view.flags.writeable = False
    return view
