"""Concatenations in integers: all that they read is on one grid, that of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from compiler.graph.ir import Graph, Node, Op
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.elementwise import FakeQuantize, Pointwise
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import Concat, Movement
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.upsample import Interpolate

WITH_INTEGERS: Final = (FusedConv, FusedAdd, ChannelMatMul, AveragePool, GlobalAveragePool)
"""What makes new integers of integers; ops that keep those they read have no grid of their own."""

LINES: Final = frozenset(
    {"abs", "hard_sigmoid", "hard_swish", "leaky_relu", "maximum", "minimum", "negative", "prelu"}
)
"""Functions that do so too, where they can: they are made of straight lines."""

KEEPING: Final = (Movement, MaxPool, Interpolate)
"""What keeps the scale of its one input."""

_ALMOST: Final = 1.25
"""A value whose own steps are finer by no more than this is made in those of a concatenation for all its readers."""


def makes_integers(op: Op) -> bool:
    """Whether the op has a quantised form with a grid of its own."""
    return isinstance(op, WITH_INTEGERS) or (isinstance(op, Pointwise) and op.function in LINES)


def is_in_integers(graph: Graph, node: Node) -> bool:
    """Whether a concatenation is one within images, and not only read as reals, which have a range for each operand."""
    if not (isinstance(node.op, Concat) and node.op.axis > 0 and len(graph.types[node.output].shape) == 4):
        return False
    return any(_wants_integers(graph, each) for each in graph.nodes if node.output in each.inputs)


def _wants_integers(graph: Graph, node: Node) -> bool:
    if isinstance(node.op, Concat):
        return is_in_integers(graph, node)
    if isinstance(node.op, KEEPING):
        return any(_wants_integers(graph, each) for each in graph.nodes if node.output in each.inputs)
    return isinstance(node.op, FakeQuantize) or makes_integers(node.op)


def joined(graph: Graph, scale: Callable[[str], float | None]) -> Mapping[str, str]:
    """By value that is made on the grid of a concatenation's result, that result, which has a grid of its own.

    Such are operands that nothing else reads, directly or behind ops that keep their scale, and others whose own steps
    are not much finer. scale: of a value for itself, None where it is not known.
    """
    found: dict[str, str] = {}
    for node in reversed(graph.nodes):
        if is_in_integers(graph, node):
            targets = dict.fromkeys(node.inputs, found.get(node.output, node.output))
        elif isinstance(node.op, KEEPING) and node.output in found:
            targets = {node.inputs[0]: found[node.output]}
        else:
            continue
        for name, target in targets.items():
            if name not in found and (graph.uses[name] == 1 or not _is_finer(scale(name), scale(target))):
                found[name] = target
    return found


def _is_finer(own: float | None, other: float | None) -> bool:
    return own is not None and other is not None and own * _ALMOST < other
