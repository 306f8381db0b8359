"""One node for what the accelerator does in one visit of a tile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Add, Clip, FakeQuantize, Relu
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite


@dataclass(frozen=True, kw_only=True)
class Fuse(Pass):
    """Convolutions absorb the residual addition and the activation behind them, additions the activation.

    Afterwards no `Conv` with constant parameters, no `Relu`, no `Clip` and no `Add` of two values of one
    type is left: they are `FusedConv` and `FusedAdd`. A value with several readers is not absorbed; the residual itself
    may have any number of readers. Where both operands of an addition are convolutions the later one absorbs it. Of two
    `FakeQuantize` alike with an activation between them the first goes: both keep the order of numbers.

    residual: whether convolutions absorb additions.
    """

    name: ClassVar[str] = "fuse"
    residual: bool = True

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, partial(_fuse, residual=self.residual))


def _fuse(rewriter: Rewriter, node: Node, *, residual: bool) -> str | None:
    match node.op:
        case Conv():
            return _conv(rewriter, node, node.op)
        case Relu():
            return _activation(rewriter, node, 0.0, math.inf)
        case Clip():
            return _activation(rewriter, node, node.op.lo, node.op.hi)
        case Add() if rewriter.type(node.inputs[0]) == rewriter.type(node.inputs[1]):
            return _addition(rewriter, node, residual=residual)
        case FakeQuantize():
            return _quantized_once(rewriter, node, node.op)
        case _:
            return None


def _conv(rewriter: Rewriter, node: Node, op: Conv) -> str | None:
    if any(rewriter.array(name) is None for name in node.inputs[1:]):
        return None
    inputs = node.inputs
    if len(inputs) == 2:
        zeros = np.zeros(rewriter.type(inputs[1]).shape[0], np.float32)
        inputs = (*inputs, rewriter.constant(zeros, f"{node.output}.bias"))
    fused = FusedConv(stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups)
    return rewriter.emit(fused, inputs, like=node, output=node.output)


def _activation(rewriter: Rewriter, node: Node, lo: float, hi: float) -> str:
    before = _absorbable(rewriter, node.inputs[0])
    if before is None:
        return rewriter.emit(FusedAdd(lo=lo, hi=hi), node.inputs, like=node, output=node.output)
    return _clipped(rewriter, before, lo, hi, output=node.output)


def _clipped(rewriter: Rewriter, before: Node, lo: float, hi: float, *, output: str) -> str:
    """The fused node again, with a clip at its end."""
    assert isinstance(before.op, FusedConv | FusedAdd)
    both = replace(before.op, lo=min(max(before.op.lo, lo), hi), hi=min(max(before.op.hi, lo), hi))
    return rewriter.emit(both, before.inputs, like=before, output=output)


def _quantized_once(rewriter: Rewriter, node: Node, op: FakeQuantize) -> str | None:
    """q(clip(q(x))) -> q(clip(x)), where what computes x absorbs the clip."""
    clip = rewriter.producer(node.inputs[0])
    if clip is None or not isinstance(clip.op, FusedAdd) or len(clip.inputs) > 1:
        return None
    first = rewriter.producer(clip.inputs[0])
    if first is None or first.op != op or not all(map(rewriter.only_used_here, (clip.output, first.output))):
        return None
    before = _absorbable(rewriter, first.inputs[0])
    if before is None:
        return None
    value = rewriter.fresh(f"{before.output}.clipped")
    _clipped(rewriter, before, clip.op.lo, clip.op.hi, output=value)
    return rewriter.emit(op, (value,), like=node, output=node.output)


def _addition(rewriter: Rewriter, node: Node, *, residual: bool) -> str:
    for value in sorted(node.inputs, key=rewriter.position, reverse=True) if residual else ():
        conv = _absorbable(rewriter, value)
        if conv is None or not isinstance(conv.op, FusedConv) or len(conv.inputs) == 4:
            continue
        if (conv.op.lo, conv.op.hi) == (-math.inf, math.inf):
            (other,) = (name for name in node.inputs if name != value)
            return rewriter.emit(conv.op, (*conv.inputs, other), like=conv, output=node.output)
    return rewriter.emit(FusedAdd(), node.inputs, like=node, output=node.output)


def _absorbable(rewriter: Rewriter, value: str) -> Node | None:
    """The fused node that computes the value, if nothing but the node at hand reads it."""
    producer = rewriter.producer(value)
    if producer is None or not isinstance(producer.op, FusedConv | FusedAdd) or not rewriter.only_used_here(value):
        return None
    return producer
