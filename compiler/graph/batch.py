"""The same network for another number of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Graph, Node, TensorType, Value
from compiler.graph.ops.elementwise import Add
from compiler.graph.ops.fused import FusedAdd
from compiler.graph.ops.move import Expand, Rearrange, Slice, Transpose
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.ops.shape import Reshape


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
    nodes = tuple(_node(node, old, batch) for node in graph.nodes)
    images = {name: np.repeat(graph.constants[name][:1], batch, axis=0) for name in _constant_images(graph, old)}
    result = replace(graph, inputs=inputs, nodes=nodes, constants={**graph.constants, **images}, layouts={})
    result.verify()
    return result


def _constant_images(graph: Graph, batch: int) -> set[str]:
    """Constants that are added to activations of the same type, one image repeated over the batch."""
    added = (Add, FusedAdd, QAdd)
    return {
        name
        for node in graph.nodes
        if isinstance(node.op, added)
        for name in node.inputs
        if name in graph.constants
        and graph.types[name].logical == graph.types[node.output].logical
        and graph.types[name].shape[:1] == (batch,)
        and (graph.constants[name] == graph.constants[name][:1]).all()
    }


def _node(node: Node, old: int, new: int) -> Node:
    """The node with the batch in the shape that is its attribute, if it has one that begins with images, or parts."""
    op = node.op
    if isinstance(op, Slice) and op.shape[:1] == (old,) and op.starts[0] == 0 and op.steps[0] == 1:
        return replace(node, op=replace(op, shape=(new, *op.shape[1:])))
    if isinstance(op, Rearrange) and op.split[0] == old and op.shape[0] % old == 0:
        shape = op.shape[0] // old * new, *op.shape[1:]
        return replace(node, op=replace(op, split=(new, *op.split[1:]), shape=shape))
    if isinstance(op, Expand) and op.shape[:1] == (old,):
        return replace(node, op=replace(op, shape=(new, *op.shape[1:])))
    if isinstance(op, Reshape) and op.shape and op.shape[0] % old == 0:
        return replace(node, op=replace(op, shape=(op.shape[0] // old * new, *op.shape[1:])))
    if isinstance(op, Transpose) and op.order[:1] != (0,) and new != old:
        raise GraphError(f"Node {node.name!r} must leave images in the first dimension, not order them {op.order}")
    return node
