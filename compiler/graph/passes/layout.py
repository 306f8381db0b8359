"""Where integer tensors get their tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.layout import Layout
from compiler.graph.machine import why_not_moved, why_not_weights
from compiler.graph.ops import checks
from compiler.graph.ops.elementwise import Pointwise
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.move import ChannelTranspose, Movement
from compiler.graph.ops.qconv import IntegerConv, QConv2d
from compiler.graph.ops.qelementwise import QAdd, QExtreme, QMul, Quantize, RescaledAdd, RescaledMul
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.rescaled import RescaledConv2d
from compiler.graph.ops.unfold import Unfold
from compiler.graph.ops.upsample import QInterpolate
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import first_free
from vta_hw.spec.config import VTAConfig

ROW_MAJOR = Layout(1, 1)


@dataclass(frozen=True, kw_only=True)
class AssignLayouts(Pass):
    """Every integer activation gets the layout in which the accelerator makes it and wants it.

    With one row per tile, one layout serves all: c is the larger of BLOCK_IN and BLOCK_OUT, of which the other is a
    divisor, and memory order is the same for both. With more rows it serves where the blocks are equal. Otherwise a
    convolution reads tiles of BLOCK_IN channels, everything else works on tiles of BLOCK_OUT, and `Relayout` nodes
    stand between. Afterwards every rank-4 int8 or int16 activation, computed or constant, has a layout that its readers
    accept. Weights and the other parameters of a layer have none.

    few: channels of an image that are a block of their own, for a convolution on a CPU.
    """

    name: ClassVar[str] = "assign-layouts"
    config: VTAConfig
    few: int = 0

    @property
    def read(self) -> Layout:
        """What a convolution reads."""
        if self.config.batch == 1:
            return Layout(1, max(self.config.block_in, self.config.block_out))
        return Layout(self.config.batch, self.config.block_in)

    @property
    def made(self) -> Layout:
        """What every op makes, and all but convolutions read."""
        if self.config.batch == 1:
            return self.read
        return Layout(self.config.batch, self.config.block_out)

    def apply(self, graph: Graph) -> Graph:
        sweep = _Sweep(self, graph)
        for node in graph.nodes:
            sweep.add(node)
        return replace(graph, nodes=tuple(sweep.nodes), layouts=sweep.layouts)

    def exchanges_tiles(self, op: ChannelTranspose, shape: tuple[int, ...]) -> bool:
        """Whether channels and positions of an activation of that shape are whole tiles of weights."""
        block = self.read.c
        whole = shape[1] // op.groups % block == 0 and math.prod(shape[2:]) % block == 0
        return whole and self.config.batch == 1 and not why_not_weights(self.config)

    def wanted(self, node: Node, position: int, shape: tuple[int, ...]) -> Layout | None:
        """Layout in which `node` reads its input of a shape at `position`; None if any will do."""
        match node.op:
            case IntegerConv() if position == 0 and shape[1] <= self.few and node.op.groups == 1:
                return Layout(1, self.few)
            case QConv2d():
                return {0: self.read, 4: self.made}.get(position)
            case ExactConv2d():
                return {0: self.read, 6: self.made}.get(position)
            case RescaledConv2d():
                return {0: self.read, 4: self.read}.get(position)
            case QAdd() | RescaledAdd() | QExtreme(m1=int()) | QMul() | RescaledMul() | QMaxPool2d():
                return self.made
            case QMatMul() | RescaledMatMul():
                return self.read
            case ChannelTranspose() if self.exchanges_tiles(node.op, shape):
                return self.read
            case Movement() | QInterpolate() if not why_not_moved(node.op, shape, self.config):
                return self.made
            case Unfold() | Movement() | Pointwise():
                return ROW_MAJOR
            case QAvgPool2d() | RescaledAvgPool2d() | QExtreme():
                return self.made if position == 0 else None
            case _:
                return None


class _Sweep:
    """The new nodes and layouts while the pass runs."""

    def __init__(self, step: AssignLayouts, graph: Graph) -> None:
        self.step, self.graph = step, graph
        self.nodes: list[Node] = []
        self.layouts = dict(graph.layouts)
        self._relaid: dict[tuple[str, Layout], str] = {}
        self._taken = set(graph.types)

    def add(self, node: Node) -> None:
        inputs = tuple(self._input(node, position, name) for position, name in enumerate(node.inputs))
        self.nodes.append(replace(node, inputs=inputs))
        result = self.graph.types[node.output]
        if result.dtype in checks.QUANTISED and len(result.shape) == 4 and node.output not in self.layouts:
            self.layouts[node.output] = self._made(node)

    def _made(self, node: Node) -> Layout:
        if isinstance(node.op, Movement | Pointwise):
            shape = self.graph.types[node.inputs[0]].shape
            return self.step.made if self.step.wanted(node, 0, shape) != ROW_MAJOR else ROW_MAJOR
        if not isinstance(node.op, Quantize):
            return self.step.made
        shape = self.graph.types[node.output].shape
        wanted = [
            layout
            for reader in self.graph.nodes
            for position, name in enumerate(reader.inputs)
            if name == node.output and (layout := self.step.wanted(reader, position, shape)) is not None
        ]
        return wanted[0] if wanted else self.step.made

    def _input(self, node: Node, position: int, name: str) -> str:
        """The input in the layout that the node wants, through one relayout for all readers that want the same."""
        t = self.graph.types[name]
        if len(t.shape) != 4 or t.dtype not in checks.QUANTISED:
            return name
        wanted = self.step.wanted(node, position, t.shape)
        if wanted is not None and name in self.graph.constants:
            self.layouts.setdefault(name, wanted)
        if wanted is None or self.layouts.get(name) == wanted:
            return name
        if (name, wanted) not in self._relaid:
            value = first_free(f"{name}.{wanted}", self._taken)
            self._taken.add(value)
            self.nodes.append(Node(op=Relayout(), inputs=(name,), output=value, name=f"{node.name}.relayout.{value}"))
            self.layouts[value] = wanted
            self._relaid[name, wanted] = value
        return self._relaid[name, wanted]
