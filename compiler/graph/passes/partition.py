"""Who executes what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final

from compiler.graph.ir import Graph, Op, Place, Placement
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Dequantize, QAdd, Quantize, Relayout
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d
from compiler.graph.ops.shape import Reshape
from compiler.graph.passes.base import Pass

ON_ACCELERATOR: Final = (QConv2d, QAdd, QMaxPool2d, QAvgPool2d)

HOST_REASONS: Final[Mapping[type[Op], str]] = MappingProxyType(
    {
        Quantize: "float32 input",
        Dequantize: "float32 result",
        Relayout: "moves single elements between tiles",
        Reshape: "float32 tensor",
    }
)


@dataclass(frozen=True, kw_only=True)
class Partition(Pass):
    """Afterwards every node has a placement: the accelerator for the q ops, the host, with a reason, for all else."""

    name: ClassVar[str] = "partition"

    def apply(self, graph: Graph) -> Graph:
        return replace(graph, nodes=tuple(replace(node, placement=placement_of(node.op)) for node in graph.nodes))


def placement_of(op: Op) -> Placement:
    if isinstance(op, ON_ACCELERATOR):
        return Placement(place=Place.ACCELERATOR)
    return Placement(place=Place.HOST, reason=HOST_REASONS.get(type(op), "float32 arithmetic"))
