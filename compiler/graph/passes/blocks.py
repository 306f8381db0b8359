"""Where float images get blocks of channels: what a CPU computes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from compiler.graph.ir import Graph, Node
from compiler.graph.layout import Layout
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.relayout import Relayout
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import first_free
from compiler.tensor.ir import DType

RESIDUAL: Final = 3
"""Position of the residual among the inputs of a convolution."""


@dataclass(frozen=True, kw_only=True)
class BlockChannels(Pass):
    """Convolutions make blocks of channels, and what can read them keeps them; `Relayout` nodes stand before the rest.

    A convolution reads any layout of its input, so that the images which come in stay as they are, unless it is much
    faster on blocks.

    channels: in a block.
    """

    name: ClassVar[str] = "block-channels"
    channels: int

    def apply(self, graph: Graph) -> Graph:
        sweep = _Sweep(graph, Layout(1, self.channels))
        for node in graph.nodes:
            sweep.add(node)
        return sweep.graph()


class _Sweep:
    """The new nodes and layouts while the pass runs."""

    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.source, self.layout = graph, layout
        self.nodes: list[Node] = []
        self.layouts = dict(graph.layouts)
        self._relaid: dict[tuple[str, bool], str] = {}
        self._taken = set(graph.types)

    def add(self, node: Node) -> None:
        blocked = self._is_blocked(node)
        inputs = tuple(
            self._input(node, name, blocked=blocked) if self._lies_like_the_result(node, position) else name
            for position, name in enumerate(node.inputs)
        )
        output = node.output
        if blocked and output in self.source.outputs:
            output = self._new_name(f"{output}.blocks")
        self.nodes.append(replace(node, inputs=inputs, output=output))
        if blocked:
            self.layouts[output] = self.layout
        if output != node.output:
            relayout = Node(op=Relayout(), inputs=(output,), output=node.output, name=f"{node.name}.relayout")
            self.nodes.append(relayout)
            self._relaid[node.output, True] = output

    def _lies_like_the_result(self, node: Node, position: int) -> bool:
        if not isinstance(node.op, FusedConv) or position >= RESIDUAL:
            return True
        types = [self.source.types[name] for name in node.inputs]
        return position == 0 and node.op.wants_blocks(types, self.layout.c)

    def _is_blocked(self, node: Node) -> bool:
        types = [self.source.types[name] for name in (*node.inputs, node.output)]
        if not all(t.dtype is DType.FLOAT32 for t in types) or len(types[-1].shape) != 4:
            return False
        match node.op:
            case FusedConv():
                return True
            case FusedAdd():
                return all(self._has_blocks(name) for name in node.inputs)
            case MaxPool() | AveragePool() | GlobalAveragePool():
                return self._has_blocks(node.inputs[0])
            case _:
                return False

    def _has_blocks(self, name: str) -> bool:
        return name in self.layouts or (name, True) in self._relaid

    def _input(self, node: Node, name: str, *, blocked: bool) -> str:
        """The value in blocks or row-major, through one relayout for all that read it so."""
        t = self.source.types[name]
        if len(t.shape) != 4 or (name in self.layouts) == blocked:
            return name
        if (name, blocked) not in self._relaid:
            value = self._new_name(f"{name}.{self.layout if blocked else 'rows'}")
            self.nodes.append(Node(op=Relayout(), inputs=(name,), output=value, name=f"{node.name}.relayout.{value}"))
            if blocked:
                self.layouts[value] = self.layout
            self._relaid[name, blocked] = value
        return self._relaid[name, blocked]

    def _new_name(self, hint: str) -> str:
        name = first_free(hint, self._taken)
        self._taken.add(name)
        return name

    def graph(self) -> Graph:
        return replace(self.source, nodes=tuple(self.nodes), layouts=self.layouts)
