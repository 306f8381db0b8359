"""Less of the same: identities, what is known already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.elementwise import Cast, Identity
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite
from compiler.tensor.ir import DType


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


@dataclass(frozen=True, kw_only=True)
class KeepPrecision(Pass):
    """Values are rounded to float16 only where the model gives them out; integers of a quantised graph are coarser."""

    name: ClassVar[str] = "keep-precision"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _unrounded)


def _unrounded(rewriter: Rewriter, node: Node) -> str | None:
    source = rewriter.producer(node.inputs[0]) if isinstance(node.op, Cast) else None
    if source is None or not isinstance(source.op, Cast) or source.op.dtype is not DType.FLOAT16:
        return None
    wide = source.inputs[0]
    return wide if rewriter.type(wide).dtype is DType.FLOAT32 is rewriter.source.types[node.output].dtype else None


def _fold(rewriter: Rewriter, node: Node) -> str | None:
    arrays = [array for name in node.inputs if (array := rewriter.array(name)) is not None]
    if len(arrays) != len(node.inputs) or node.output in rewriter.source.outputs:
        return None
    return rewriter.constant(node.op.reference(*arrays), f"{node.output}.folded")
