"""Products of activations whose positions do not fill the tiles of the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.graph.ir import Graph, Node
from compiler.graph.machine import why_not_multiplied
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.fused import FusedConv
from compiler.graph.ops.move import ChannelTranspose, Pad, Slice
from compiler.graph.ops.shape import Reshape
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite
from vta_hw.spec.config import VTAConfig


@dataclass(frozen=True, kw_only=True)
class FillTiles(Pass):
    """A product of activations gets as many positions, and channels to sum over, as fill tiles of weights.

    What is more is cut off the result, or multiplied by zeros. 1x1 convolutions make more positions by themselves, out
    of padding, at no cost: what these hold does not matter then. Left as they are: products that more positions do not
    bring to the accelerator.
    """

    name: ClassVar[str] = "fill-tiles"
    config: VTAConfig

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, self._fill)

    def _fill(self, rewriter: Rewriter, node: Node) -> str | None:
        if not isinstance(node.op, ChannelMatMul):
            return None
        types = [rewriter.type(name) for name in node.inputs]
        (batch, channels, height, width), positions = types[0].shape, math.prod(types[1].shape[2:])
        groups, block = node.op.groups, self.config.block_in
        inner = channels // groups
        more, deeper = -positions % block, -inner % block if groups > 1 else 0
        filled = [
            replace(t, shape=(batch, groups * (inner + deeper), *size))
            for t, size in zip(types, ((height, width), (1, positions + more)), strict=True)
        ]
        if not (more or deeper) or why_not_multiplied(node.op, filled, self.config):
            return None
        x, w = node.inputs
        if deeper:
            source = rewriter.producer(w)
            if source is None or not isinstance(source.op, ChannelTranspose) or source.op.groups != groups or more:
                return None
            w = _more_positions(rewriter, source.inputs[0], deeper, node)
            w = rewriter.emit(source.op, (w,), like=source)
            split = (batch, groups, inner, height * width)
            x = rewriter.emit(Reshape(shape=split), (x,), like=_part(node, "split"))
            pad = Pad(before=(0, 0, 0, 0), after=(0, 0, deeper, 0))
            x = rewriter.emit(pad, (x,), like=_part(node, "fill"))
            x = rewriter.emit(Reshape(shape=filled[0].shape), (x,), like=_part(node, "x"))
        if not more:
            return rewriter.emit(node.op, (x, w), like=node, output=node.output)
        product = rewriter.emit(node.op, (x, _more_positions(rewriter, w, more, node)), like=node)
        split = (batch, groups, positions + more, height * width)
        value = rewriter.emit(Reshape(shape=split), (product,), like=_part(node, "split"))
        cut = Slice(starts=(0, 0, 0, 0), steps=(1, 1, 1, 1), shape=(batch, groups, positions, height * width))
        value = rewriter.emit(cut, (value,), like=_part(node, "cut"))
        whole = rewriter.type(node.inputs[0]).shape
        result = Reshape(shape=(batch, groups * positions, *whole[2:]))
        return rewriter.emit(result, (value,), like=_part(node, "y"), output=node.output)


def _part(node: Node, name: str) -> Node:
    return replace(node, name=f"{node.name}.{name}")


def _more_positions(rewriter: Rewriter, value: str, more: int, reader: Node) -> str:
    """The value [N,C,H,W] as [N,C,1,H*W+more]."""
    batch, channels, height, width = rewriter.type(value).shape
    producer = rewriter.producer(value)
    if producer is not None and isinstance(producer.op, FusedConv) and height == 1:
        kernel = rewriter.type(producer.inputs[1]).shape[2:]
        single = kernel == (1, 1) and producer.op.stride == (1, 1) and len(producer.inputs) == 3
        if single and rewriter.only_used_here(value):
            top, left, bottom, right = producer.op.padding
            wider = replace(producer.op, padding=(top, left, bottom, right + more))
            return rewriter.emit(wider, producer.inputs, like=producer)
    if height > 1:
        value = rewriter.emit(Reshape(shape=(batch, channels, 1, height * width)), (value,), like=_part(reader, "row"))
    return rewriter.emit(Pad(before=(0, 0, 0, 0), after=(0, 0, 0, more)), (value,), like=_part(reader, "more"))
