"""Values that a quantised model reads on several grids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node, Op
from compiler.graph.ops.elementwise import FakeQuantize
from compiler.graph.passes.base import Pass
from compiler.graph.quantize.given import given_grids
from compiler.graph.quantize.joined import makes_integers
from compiler.graph.rewrite import first_free, pruned


@dataclass(frozen=True, kw_only=True)
class OneGridEach(Pass):
    """Integer ops whose readers do not agree on a grid get a copy for each `FakeQuantize` that reads them.

    Rounding twice, to the steps of one reader and then to those of another, would be off by more than a step.
    """

    name: ClassVar[str] = "one-grid-each"

    def apply(self, graph: Graph) -> Graph:
        agreed = given_grids(graph)
        taken = set(graph.types)
        copies: dict[tuple[str, Op], str] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            inputs = tuple(copies.get((name, node.op), name) for name in node.inputs)
            nodes.append(replace(node, inputs=inputs))
            if not makes_integers(node.op) or node.output in agreed:
                continue
            for op in _grids_read(graph, node.output):
                copies[node.output, op] = first_free(f"{node.output}.copy", taken)
                taken.add(copies[node.output, op])
                nodes.append(replace(node, output=copies[node.output, op]))
        return pruned(replace(graph, nodes=tuple(nodes))) if copies else graph


def _grids_read(graph: Graph, value: str) -> list[FakeQuantize]:
    """Different ones that read the value, in the order of the graph."""
    readers = [node.op for node in graph.nodes if value in node.inputs]
    return list(dict.fromkeys(op for op in readers if isinstance(op, FakeQuantize)))
