"""Who executes what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final

from compiler.graph.ir import Graph, Node, Op, Place, Placement
from compiler.graph.machine import adds_activations, why_not_moved, why_not_multiplied
from compiler.graph.ops.along import Resample
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.move import Concat, Movement
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Dequantize, QAdd, QExtreme, QMul, Quantize
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.rescaled import ByRequant, RescaledConv2d
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.unfold import Unfold
from compiler.graph.ops.upsample import QInterpolate
from compiler.graph.passes.base import Pass
from compiler.graph.passes.layout import ROW_MAJOR
from compiler.tensor.ir import DType
from vta_hw.spec.config import VTAConfig

ON_ACCELERATOR: Final = (
    QConv2d, ExactConv2d, QMatMul, ByRequant, QAdd, QExtreme, QMul, QMaxPool2d, QAvgPool2d, QInterpolate,
)
WITHOUT_LOADS: Final = (RescaledConv2d, QMatMul, RescaledMatMul, QInterpolate)
"""Of these, what loads no activations into the accumulator."""
WITH_RESIDUAL: Final[Mapping[type[Op], int]] = MappingProxyType({QConv2d: 5, ExactConv2d: 7})
"""Inputs of a convolution that adds a residual."""

_MOVES: Final = "moves single elements between tiles"
HOST_REASONS: Final[Mapping[type[Op], str]] = MappingProxyType(
    {
        Quantize: "float32 input",
        Dequantize: "float32 result",
        Unfold: _MOVES,
        Relayout: _MOVES,
        Reshape: "float32 tensor",
        Concat: "float32 tensor",
        Resample: "float32 arithmetic: in integers resizing is bilinear, by 2 or 4, in half_pixel coordinates",
    }
)


def is_quantised(graph: Graph) -> bool:
    """Whether a node makes or reads integers that stand for reals; those of other graphs are numbers of their own."""
    return any(isinstance(node.op, (*ON_ACCELERATOR, Quantize, Dequantize)) for node in graph.nodes)


@dataclass(frozen=True, kw_only=True)
class Partition(Pass):
    """Afterwards every node has a placement: the accelerator for the q ops it can do, the host, with a reason, else."""

    name: ClassVar[str] = "partition"
    config: VTAConfig

    def apply(self, graph: Graph) -> Graph:
        nodes = tuple(replace(node, placement=placement_of(graph, node, self.config)) for node in graph.nodes)
        return replace(graph, nodes=nodes)


def placement_of(graph: Graph, node: Node, config: VTAConfig) -> Placement:
    if isinstance(node.op, Movement) and graph.layouts.get(node.output, ROW_MAJOR) != ROW_MAJOR:
        return Placement(place=Place.ACCELERATOR)
    if not isinstance(node.op, ON_ACCELERATOR):
        return Placement(place=Place.HOST, reason=_host_reason(graph, node, config))
    if isinstance(node.op, QInterpolate):
        why = why_not_moved(node.op, graph.types[node.inputs[0]].shape, config)
        if why:
            return Placement(place=Place.HOST, reason=why)
    if isinstance(node.op, ByRequant) and not config.is_extended:
        return Placement(place=Place.HOST, reason="needs REQUANT, which TVM's instruction set has not")
    adds = not isinstance(node.op, WITHOUT_LOADS)
    if len(node.inputs) < WITH_RESIDUAL.get(type(node.op), 0):
        adds = False
    if adds and not adds_activations(config):
        reason = f"{config.inp_bits}-bit activations, of which the accumulator loads none"
        return Placement(place=Place.HOST, reason=reason)
    return Placement(place=Place.ACCELERATOR)


def _host_reason(graph: Graph, node: Node, config: VTAConfig) -> str:
    if isinstance(node.op, ChannelMatMul):
        why = why_not_multiplied(node.op, [graph.types[name] for name in node.inputs], config)
        return f"float32 arithmetic: {why}" if why else "float32 arithmetic"
    if isinstance(node.op, Movement):
        if graph.types[node.output].dtype is DType.FLOAT32:
            return HOST_REASONS.get(type(node.op), _MOVES)
        return why_not_moved(node.op, graph.types[node.inputs[0]].shape, config) or _MOVES
    return HOST_REASONS.get(type(node.op), "float32 arithmetic")
