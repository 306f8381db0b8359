"""The recipes: which passes, in which order."""

from __future__ import annotations

from compiler.graph.ir import Graph
from compiler.graph.passes.base import run_passes
from compiler.graph.passes.convolution import DenseToConv, ExpandGroups, FoldAffine
from compiler.graph.passes.fuse import Fuse
from compiler.graph.passes.simplify import FoldConstants, RemoveIdentity, SinkReshapes

PREPARE = (
    RemoveIdentity(),
    FoldConstants(),
    SinkReshapes(),
    DenseToConv(),
    SinkReshapes(),  # those that dense layers brought
    FoldAffine(),
    ExpandGroups(),
    Fuse(),
)
"""From a graph as imported to the float graph that the quantiser reads."""


def prepare(graph: Graph) -> Graph:
    """`graph` after `PREPARE`: the same function, up to float rounding of folded weights."""
    return run_passes(graph, PREPARE)
