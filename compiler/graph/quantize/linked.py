"""Values that are added, or compared, where shifts alone may scale them: their scales are powers of two apart."""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.elementwise import FakeQuantize, Pointwise
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import Concat
from compiler.graph.quantize.joined import KEEPING, LINES


def linked(graph: Graph) -> frozenset[str]:
    """Results and operands of such ops, and what ops that keep a scale make these of."""
    found: set[str] = set()
    for node in graph.nodes:
        found.update(_joined_by(node))
    for node in reversed(graph.nodes):
        if isinstance(node.op, KEEPING) and node.output in found:
            found.add(node.inputs[0])
    return frozenset(found)


def _joined_by(node: Node) -> tuple[str, ...]:
    match node.op:
        case FusedConv():
            return (*node.inputs[3:], node.output) if len(node.inputs) > 3 else ()
        case FusedAdd() | FakeQuantize() | Concat():
            return (*node.inputs, node.output)
        case Pointwise() if node.op.function in LINES:
            return (*node.inputs, node.output)
        case _:
            return ()
