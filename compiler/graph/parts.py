"""Values that lie within others: what concatenations read and slices make, where blocks of channels follow each other.

Of one tile of images the blocks of channels lie behind each other, so that some of them are a value of their own. A
concatenation then has nothing to do once its operands are computed, and a slice nothing at all.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from compiler.graph.ir import Graph, Node
from compiler.graph.layout import Layout
from compiler.graph.ops.move import Concat, Slice


@dataclass(frozen=True, slots=True)
class Part:
    """A value within the buffer of `whole`, from element `begin` on. That may be part of a third."""

    whole: str
    begin: int


def parts(graph: Graph) -> dict[str, Part]:
    """The values that are parts of others: all that can be, in a graph with layouts.

    Only values that nodes compute, and no outputs, lie where the program likes; none is a part of two others.
    """
    found: dict[str, Part] = {}
    for node in graph.nodes:
        if not (isinstance(node.op, Concat | Slice) and consists_of_blocks(graph, node)):
            continue
        if isinstance(node.op, Slice):
            if _is_free(graph, node.inputs[0]) and _is_free(graph, node.output):
                block = math.prod(graph.types[node.inputs[0]].physical_shape[2:])
                first = node.op.starts[1] // graph.layouts[node.output].c
                found[node.output] = Part(node.inputs[0], first * block)
            continue
        for name, begin in zip(node.inputs, begins(graph, node), strict=True):
            if name not in found and _is_free(graph, name):
                found[name] = Part(node.output, begin)
    return found


def begins(graph: Graph, node: Node) -> list[int]:
    """The element of a concatenation's result at which each operand begins, if it `consists_of_blocks`."""
    sizes = [math.prod(graph.types[name].physical_shape) for name in node.inputs]
    return list(itertools.accumulate(sizes[:-1], initial=0))


def consists_of_blocks(graph: Graph, node: Node) -> bool:
    """Whether a concatenation or a slice is of whole blocks of channels that follow each other in memory."""
    values = (*node.inputs, node.output)
    layout = graph.layouts.get(node.output)
    if layout in (None, Layout(1, 1)) or any(graph.layouts.get(name) != layout for name in values):
        return False
    shapes = [graph.types[name].shape for name in values]
    if graph.types[node.output].physical_shape[0] > 1:
        return False
    match node.op:
        case Concat(axis=1):
            return node.output not in graph.outputs and all(shape[1] % layout.c == 0 for shape in shapes[:-2])
        case Slice():
            first, last = node.op.starts[1], node.op.starts[1] + node.op.shape[1]
            ends = last % layout.c == 0 or last == shapes[0][1]
            return node.op.selects_channels(shapes[0]) and node.op.steps[1] == 1 and first % layout.c == 0 and ends
        case _:
            return False


def _is_free(graph: Graph, name: str) -> bool:
    return name in graph.producers and name not in graph.outputs
