"""The same network for another number of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Graph, Node, Op, TensorType, Value
from compiler.graph.ops.along import Normalize, Reduce, Resample
from compiler.graph.ops.elementwise import Add
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import Concat, Expand, Pad, Rearrange, Slice, Take, Transpose
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import QAdd, QExtreme, QMul, RescaledAdd, RescaledMul
from compiler.graph.ops.rescaled import RescaledConv2d
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.softmax import Softmax


def rebatched(graph: Graph, batch: int) -> Graph:
    """`graph` with `batch` images in the first dimension of every input. Layouts are dropped: they depend on the batch.

    Raises GraphError when the inputs disagree on the present batch or an op does not work image by image.
    """
    present = {value.type.shape[0] for value in graph.inputs if value.type.shape}
    if len(present) != 1:
        raise GraphError(f"Inputs must agree on one batch, not have {sorted(present)}")
    (old,) = present
    types = [TensorType((batch, *value.type.shape[1:]), value.type.dtype) for value in graph.inputs]
    inputs = tuple(Value(name=value.name, type=t) for value, t in zip(graph.inputs, types, strict=True))
    if batch == old:
        return replace(graph, layouts={})
    nodes = tuple(_node(graph, node, old, batch) for node in graph.nodes)
    images = {name: np.repeat(graph.constants[name][:1], batch, axis=0) for name in _constant_images(graph, old)}
    result = replace(graph, inputs=inputs, nodes=nodes, constants={**graph.constants, **images}, layouts={})
    try:
        result.verify()
    except GraphError as error:
        raise GraphError(
            f"The model must work image by image along the first dimension, {old}, to be compiled for {batch}: {error}"
        ) from None
    return result


def works_by_image(graph: Graph) -> bool:
    """Whether the graph does the same with each image of any batch, and has as many rows of results for each."""
    batches = {value.type.shape[:1] for value in graph.inputs}
    if len(batches) != 1 or () in batches:
        return False
    ((old,),) = batches
    try:
        types = rebatched(graph, 2 * old).types
    except GraphError:
        return False
    shapes = [(graph.types[name].shape, types[name].shape) for name in graph.outputs]
    return all(shape and twice == (2 * shape[0], *shape[1:]) for shape, twice in shapes)


def is_rebatched(graph: Graph, other: Graph) -> bool:
    """Whether a model that was imported for another batch is what `rebatched` makes of the graph."""
    try:
        expected = rebatched(graph, other.inputs[0].type.shape[0])
    except (GraphError, IndexError):
        return False
    if (expected.inputs, expected.nodes, expected.outputs) != (other.inputs, other.nodes, other.outputs):
        return False
    return expected.constants.keys() == other.constants.keys() and all(
        _same_images(expected.constants[name], array) for name, array in other.constants.items()
    )


def _same_images(one: Array, other: Array) -> bool:
    """Whether constants are equal, or one is an image that the other has for each of a batch."""
    if one is other or np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return True
    alike = one.shape[1:] == other.shape[1:] and 1 in (one.shape[:1] + other.shape[:1])
    return alike and bool((one == other).all())


def _mixes_images(op: Op) -> bool:
    """Whether the op works along, or changes, the first dimension, in which images, or parts of them, are."""
    match op:
        case Transpose():
            return op.order[:1] != (0,)
        case Concat() | Take() | Resample():
            return op.axis == 0
        case Softmax():
            return op.axis == 0
        case Reduce() | Normalize():
            return op.first == 0
        case Pad():
            return (*op.before[:1], *op.after[:1]) != (0, 0)
        case Slice():
            return True  # but for those that take all images
        case _:
            return False


def _constant_images(graph: Graph, batch: int) -> set[str]:
    """Constants that stand beside activations as one of them, one image repeated over the batch."""
    return {
        name
        for node in graph.nodes
        for name in _images(node)
        if name in graph.constants
        and (graph.types[name].logical == graph.types[node.output].logical or isinstance(node.op, Concat))
        and graph.types[name].shape[:1] == (batch,)
        and (graph.constants[name] == graph.constants[name][:1]).all()
    }


def _images(node: Node) -> tuple[str, ...]:
    """The inputs that are activations, not parameters of the op."""
    match node.op:
        case Add() | FusedAdd() | QAdd() | RescaledAdd() | QExtreme() | QMul() | RescaledMul() | Concat():
            return node.inputs
        case FusedConv():
            return node.inputs[3:]
        case QConv2d() | RescaledConv2d():
            return node.inputs[4:5]
        case ExactConv2d():
            return node.inputs[6:]
        case _:
            return ()


def _node(graph: Graph, node: Node, old: int, new: int) -> Node:
    """The node with the batch in the shape that is its attribute, if it has one that begins with images, or parts."""
    op = node.op
    first = graph.types[node.inputs[0]].shape[:1] if node.inputs else ()
    if isinstance(op, Slice) and op.shape[:1] == first == (old,) and op.starts[0] == 0 and op.steps[0] == 1:
        return replace(node, op=replace(op, shape=(new, *op.shape[1:])))
    if isinstance(op, Rearrange) and op.split[0] == old and op.shape[0] % old == 0:
        shape = op.shape[0] // old * new, *op.shape[1:]
        return replace(node, op=replace(op, split=(new, *op.split[1:]), shape=shape))
    if isinstance(op, Expand) and op.shape[:1] == (old,):
        return replace(node, op=replace(op, shape=(new, *op.shape[1:])))
    if isinstance(op, Reshape) and op.shape and op.shape[0] % old == 0:
        return replace(node, op=replace(op, shape=(op.shape[0] // old * new, *op.shape[1:])))
    if new != old and _mixes_images(op):
        raise GraphError(f"Node {node.name!r} ({op.kind}) must work image by image for {new} of them instead of {old}")
    return node
