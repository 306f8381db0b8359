"""Transposed convolutions whose padding cuts off some of their pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.interleave import Interleave
from compiler.graph.ops.move import Slice
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite


@dataclass(frozen=True, kw_only=True)
class CutInterleaved(Pass):
    """Afterwards pixels that are interleaved and then cut out, and read in no other way, are not made at first."""

    name: ClassVar[str] = "cut-interleaved"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _cut)


def _cut(rewriter: Rewriter, node: Node) -> str | None:
    if not isinstance(node.op, Slice):
        return None
    source, cut = rewriter.producer(node.inputs[0]), node.op
    if source is None or not isinstance(source.op, Interleave) or not rewriter.only_used_here(source.output):
        return None
    if cut.shape[:2] != rewriter.type(source.output).shape[:2] or cut.steps[2:] != (1, 1) or min(cut.steps) < 1:
        return None
    starts = source.op.starts[0] + cut.starts[2], source.op.starts[1] + cut.starts[3]
    op = replace(source.op, starts=starts, size=(cut.shape[2], cut.shape[3]))
    return rewriter.emit(op, source.inputs, like=source, output=node.output)
