"""Images that get larger by whole factors, which are written as two steps, one for each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.along import Resample
from compiler.graph.ops.move import Take
from compiler.graph.ops.upsample import BETWEEN, Interpolate, QInterpolate, Repeat, phases
from compiler.graph.ops.window import Pair
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite
from vta_hw.spec.config import VTAConfig


@dataclass(frozen=True, kw_only=True)
class FindUpsampling(Pass):
    """Pixels of [N,C,H,W] that are taken several times each become one `Repeat`, bilinear ones one `Interpolate`.

    Only such interpolation is found as the machine's integers express: by 2 or 4, in half_pixel coordinates.
    """

    name: ClassVar[str] = "find-upsampling"
    config: VTAConfig

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, self._upsampling)

    def _upsampling(self, rewriter: Rewriter, node: Node) -> str | None:
        if len(rewriter.type(node.inputs[0]).shape) != 4:
            return None
        match node.op:
            case Take(axis=2 | 3):
                return _repeat(rewriter, node, node.op)
            case Resample(axis=2 | 3):
                return self._interpolate(rewriter, node, node.op)
            case _:
                return None

    def _interpolate(self, rewriter: Rewriter, node: Node, op: Resample) -> str | None:
        extent = rewriter.type(node.inputs[0]).shape[op.axis]
        k, v = (rewriter.array(name) for name in node.inputs[1:])
        if k is None or v is None or len(k) % extent or not _is_bilinear(k, v, extent):
            return None
        factors = _factors(op.axis, len(k) // extent)
        source = rewriter.producer(node.inputs[0])
        inputs = node.inputs
        if source is not None and isinstance(source.op, Interpolate) and rewriter.only_used_here(source.output):
            joined = _joined(source.op.factors, factors)
            if joined is not None and source.op.factors[1] == 1 and self._has_weights(joined):
                factors, inputs = joined, (*source.inputs, *inputs[1:])
        if not self._has_weights(factors):
            return None
        return rewriter.emit(Interpolate(factors=factors), inputs, like=node, output=node.output)

    def _has_weights(self, factors: Pair) -> bool:
        """Whether the weights of pixels are weights of the machine, and sums of its activations are exact."""
        largest = QInterpolate(factors=factors).largest_weight
        return set(factors) <= set(BETWEEN) and largest < 1 << (self.config.wgt_bits - 1) and self.config.inp_bits <= 8


def _repeat(rewriter: Rewriter, node: Node, op: Take) -> str | None:
    extent = rewriter.type(node.inputs[0]).shape[op.axis]
    factor = len(op.indices) // extent
    if factor < 2 or op.indices != tuple(np.arange(extent).repeat(factor)):
        return None
    factors, source = _factors(op.axis, factor), rewriter.producer(node.inputs[0])
    inputs = node.inputs
    if source is not None and isinstance(source.op, Repeat) and rewriter.only_used_here(source.output):
        joined = _joined(source.op.factors, factors)
        if joined is not None:
            factors, inputs = joined, source.inputs
    return rewriter.emit(Repeat(factors=factors), inputs, like=node, output=node.output)


def _factors(axis: int, factor: int) -> Pair:
    return (factor, 1) if axis == 2 else (1, factor)


def _joined(first: Pair, second: Pair) -> Pair | None:
    """Both, if they are along different axes."""
    joined = first[0] * second[0], first[1] * second[1]
    return joined if 1 in (first[0], second[0]) and 1 in (first[1], second[1]) else None


def _is_bilinear(k: np.ndarray, v: np.ndarray, extent: int) -> bool:
    """Whether indices and weights [count, taps] are those of bilinear interpolation in half_pixel coordinates."""
    factor = len(k) // extent
    if factor < 2:
        return False
    given, wanted = np.zeros((len(k), extent)), np.zeros((len(k), extent))
    np.add.at(given, (np.arange(len(k))[:, None], np.clip(k, 0, extent - 1)), v)
    places = np.clip(np.arange(extent)[:, None] + np.arange(-1, 2), 0, extent - 1).repeat(factor, axis=0)
    np.add.at(wanted, (np.arange(len(k))[:, None], places), np.tile(phases(factor), (extent, 1)) / (2 * factor))
    return np.allclose(given, wanted, rtol=0, atol=1e-6)
