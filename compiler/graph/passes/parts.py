"""Operands of concatenations that cannot lie in the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.move import Concat
from compiler.graph.ops.upsample import Repeat
from compiler.graph.parts import Part, begins, consists_of_blocks, parts
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import first_free


@dataclass(frozen=True, kw_only=True)
class CopyParts(Pass):
    """A concatenation of whole blocks of channels gets copies of the operands that are no parts of it.

    Such are inputs, outputs and constants of the graph, slices, and what another concatenation has, or this one twice.
    Afterwards all operands of such a concatenation are parts of its result. It needs layouts.
    """

    name: ClassVar[str] = "copy-parts"

    def apply(self, graph: Graph) -> Graph:
        placed, taken = parts(graph), set(graph.types)
        nodes: list[Node] = []
        layouts = dict(graph.layouts)
        for node in graph.nodes:
            inputs = list(node.inputs)
            if isinstance(node.op, Concat) and consists_of_blocks(graph, node):
                for k, (name, begin) in enumerate(zip(node.inputs, begins(graph, node), strict=True)):
                    if placed.get(name) == Part(node.output, begin):
                        continue
                    inputs[k] = first_free(f"{name}.copy", taken)
                    taken.add(inputs[k])
                    layouts[inputs[k]] = layouts[name]
                    copy = Repeat(factors=(1, 1))
                    nodes.append(Node(op=copy, inputs=(name,), output=inputs[k], name=f"{node.name}.copy{k}"))
            nodes.append(replace(node, inputs=tuple(inputs)))
        return replace(graph, nodes=tuple(nodes), layouts=layouts)
