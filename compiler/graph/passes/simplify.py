"""Less of the same: identities, what is known already, reshapes out of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, FakeQuantize, Identity, Relu
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite


@dataclass(frozen=True, kw_only=True)
class RemoveIdentity(Pass):
    """Afterwards an `Identity` is left only where an output would else be an input, a constant or another output."""

    name: ClassVar[str] = "remove-identity"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, lambda _, node: node.inputs[0] if isinstance(node.op, Identity) else None)


@dataclass(frozen=True, kw_only=True)
class FoldConstants(Pass):
    """Afterwards every node but those that compute an output depends on an input."""

    name: ClassVar[str] = "fold-constants"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _fold)


def _fold(rewriter: Rewriter, node: Node) -> str | None:
    arrays = [array for name in node.inputs if (array := rewriter.array(name)) is not None]
    if len(arrays) != len(node.inputs) or node.output in rewriter.source.outputs:
        return None
    return rewriter.constant(node.op.reference(*arrays), f"{node.output}.folded")


@dataclass(frozen=True, kw_only=True)
class SinkReshapes(Pass):
    """Reshapes move behind elementwise ops and into each other, and go when they change nothing.

    Afterwards no `Flatten` is left (it is a `Reshape`), and the activations of dense layers stay [N,C,1,1] from one
    layer to the next. Not handled: a reshape in front of a softmax, whose axis it changes.
    """

    name: ClassVar[str] = "sink-reshapes"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _sink)


def _sink(rewriter: Rewriter, node: Node) -> str | None:
    match node.op:
        case Flatten() | Reshape():
            return _merge(rewriter, node)
        case Relu() | Clip() | FakeQuantize():
            return _swap(rewriter, node, others=())
        case BatchNorm() if _keeps_channels(rewriter, node.inputs[0]):
            return _swap(rewriter, node, others=node.inputs[1:])
        case Add():
            return _sink_add(rewriter, node)
        case _:
            return None


def _merge(rewriter: Rewriter, node: Node) -> str | None:
    source = _behind_reshape(rewriter, node.inputs[0]) or node.inputs[0]
    shape = node.op.infer([rewriter.type(node.inputs[0])]).shape
    if rewriter.type(source).shape == shape:
        return source
    return rewriter.emit(Reshape(shape=shape), (source,), like=node, output=node.output)


def _swap(rewriter: Rewriter, node: Node, others: tuple[str, ...]) -> str | None:
    """op(reshape(x), others) -> reshape(op(x, others))."""
    source = _behind_reshape(rewriter, node.inputs[0])
    if source is None:
        return None
    value = rewriter.emit(node.op, (source, *others), like=node)
    return rewriter.emit(Reshape(shape=rewriter.type(node.inputs[0]).shape), (value,), like=node, output=node.output)


def _sink_add(rewriter: Rewriter, node: Node) -> str | None:
    first, second = (_behind_reshape(rewriter, name) for name in node.inputs)
    a, b = node.inputs
    if first is not None and second is not None and rewriter.type(first) == rewriter.type(second):
        return _swap(rewriter, node, others=(second,)) if rewriter.type(a) == rewriter.type(b) else None
    for reshaped, other in ((a, b), (b, a)):
        bias = rewriter.array(other)
        if bias is None or not _keeps_channels(rewriter, reshaped) or len(rewriter.type(reshaped).shape) != 2:
            continue
        channels = rewriter.type(reshaped).shape[1]
        if bias.shape in ((channels,), (1, channels)):
            vector = rewriter.constant(bias.reshape(1, channels, 1, 1), f"{other}.bias")
            return _swap(rewriter, replace(node, inputs=(reshaped, vector)), others=(vector,))
    return None


def _keeps_channels(rewriter: Rewriter, name: str) -> bool:
    """Whether the value is a reshape of [N,C,...] to [N,C,...] with the same N and C."""
    source = _behind_reshape(rewriter, name)
    return source is not None and rewriter.type(source).shape[:2] == rewriter.type(name).shape[:2]


def _behind_reshape(rewriter: Rewriter, name: str) -> str | None:
    producer = rewriter.producer(name)
    return producer.inputs[0] if producer is not None and isinstance(producer.op, Reshape) else None

