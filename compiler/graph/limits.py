"""What the integers of a graph are known to be within: ops say what they clip to, and what moves values keeps it."""

from __future__ import annotations

from compiler.graph.ir import Graph, Node
from compiler.graph.ops import checks
from compiler.graph.ops.move import Concat, Movement, Pad
from compiler.graph.ops.qpool import QMaxPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.unfold import Unfold

Limits = tuple[int, int]


def limits(graph: Graph) -> dict[str, Limits]:
    """Lowest and highest value, by name, of the int8 and int16 values for which more is known than their type."""
    known: dict[str, Limits] = {}
    for node in graph.nodes:
        if graph.types[node.output].dtype in checks.QUANTISED and (found := _limits(node, known)) is not None:
            known[node.output] = found
    return known


def _limits(node: Node, known: dict[str, Limits]) -> Limits | None:
    """Fill values of borders and of what fills up tiles are among them, which may be zero."""
    op = node.op
    lo, hi = getattr(op, "lo", None), getattr(op, "hi", None)
    if isinstance(lo, int) and isinstance(hi, int):
        return min(lo, 0), max(hi, 0)
    if not isinstance(op, Movement | QMaxPool2d | Relayout | Reshape | Unfold):
        return None
    operands = [known.get(name) for name in node.inputs[: None if isinstance(op, Concat) else 1]]
    if None in operands:
        return None
    spans = [each for each in operands if each is not None]
    if isinstance(op, Pad | Unfold):
        spans.append((int(op.value), int(op.value)))
    return min(lo for lo, _ in spans), max(hi for _, hi in spans)
