"""Who executes what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final

from compiler.graph.ir import Graph, Node, Op, Place, Placement
from compiler.graph.ops.move import Movement
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Dequantize, QAdd, Quantize, Relayout
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d
from compiler.graph.ops.rescaled import RescaledConv2d
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.unfold import Unfold
from compiler.graph.passes.base import Pass
from vta_hw.spec.config import VTAConfig

ON_ACCELERATOR: Final = (QConv2d, RescaledConv2d, QAdd, QMaxPool2d, QAvgPool2d)
WITH_RESIDUAL: Final = 5
"""Inputs of a convolution that adds a residual."""

_MOVES: Final = "moves single elements between tiles"
HOST_REASONS: Final[Mapping[type[Op], str]] = MappingProxyType(
    {
        Quantize: "float32 input",
        Dequantize: "float32 result",
        Unfold: _MOVES,
        Relayout: _MOVES,
        Reshape: "float32 tensor",
    }
)


def adds_activations(config: VTAConfig) -> bool:
    """Whether the accumulator can load activations: ACC_8BIT, the one load that widens, reads 8-bit scalars."""
    return config.inp_bits == 8


@dataclass(frozen=True, kw_only=True)
class Partition(Pass):
    """Afterwards every node has a placement: the accelerator for the q ops it can do, the host, with a reason, else."""

    name: ClassVar[str] = "partition"
    config: VTAConfig

    def apply(self, graph: Graph) -> Graph:
        nodes = tuple(replace(node, placement=placement_of(node, self.config)) for node in graph.nodes)
        return replace(graph, nodes=nodes)


def placement_of(node: Node, config: VTAConfig) -> Placement:
    if not isinstance(node.op, ON_ACCELERATOR):
        return Placement(place=Place.HOST, reason=_host_reason(node.op))
    if isinstance(node.op, RescaledConv2d) and not config.is_extended:
        return Placement(place=Place.HOST, reason="needs REQUANT, which TVM's instruction set has not")
    if isinstance(node.op, RescaledConv2d) or (isinstance(node.op, QConv2d) and len(node.inputs) < WITH_RESIDUAL):
        return Placement(place=Place.ACCELERATOR)
    if adds_activations(config):
        return Placement(place=Place.ACCELERATOR)
    return Placement(place=Place.HOST, reason=f"{config.inp_bits}-bit activations, of which the accumulator loads none")


def _host_reason(op: Op) -> str:
    return _MOVES if isinstance(op, Movement) else HOST_REASONS.get(type(op), "float32 arithmetic")
