"""Channels that lie between two convolutions in ranges that a few bits serve alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Array, Graph, Node
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite

_SWEEPS: Final = 16
"""Most rounds over all joints; a few do, and each leaves the network better than it was."""

_MOST: Final = 15
"""Largest exponent of a factor: what is further off hardly matters."""


@dataclass(frozen=True, kw_only=True)
class Equalize(Pass):
    """Channels between two convolutions are multiplied by powers of two before, and divided by them behind.

    The factors bring the largest weights that make a channel and the largest that read it as near to each other as in
    all other channels: the cross-layer equalisation of Nagel et al., "Data-Free Quantization Through Weight
    Equalization and Bias Correction", 2019. No bias gets larger than the largest: a channel that is little more than
    its bias, as one that hardly matters often is, would set the scale of all. In a chain, as with a depthwise
    convolution in the middle, it goes on until nothing moves. Results of the graph stay the same to the last bit, but
    for weights that get too small for float32.

    Between the two may be pools, and clips at 0; no clip elsewhere, such as that of ReLU6, which would need a bound for
    each channel, and nothing that others read. Weights that the model gives as integers stay, and so does what a
    convolution with a residual makes.

    least: log2 of how far apart the best factors of two channels must be somewhere, for anything to be done.
    """

    name: ClassVar[str] = "equalize"
    least: float

    def apply(self, graph: Graph) -> Graph:
        channels = Channels(graph)
        if max((float(np.ptp(channels.best(joint))) for joint in channels.joints), default=-1.0) < self.least:
            return graph
        for _ in range(_SWEEPS):
            moved = False
            for joint in channels.joints:
                exponents = np.rint(channels.best(joint)).astype(np.int64)
                channels.multiply(joint, exponents)
                moved = moved or bool(exponents.any())
            if not moved:
                break
        return channels.graph()


@dataclass(frozen=True)
class Joint:
    """Two convolutions of a graph, by the values they compute, and how many channels one makes for the other alone."""

    maker: str
    reader: str
    channels: int


class Channels:
    """The channels of a graph that can be multiplied where they are made, since they are divided where they are read.

    joints: where such channels are, in the order of the graph.
    """

    def __init__(self, graph: Graph) -> None:
        pairs = [(maker, node) for node in graph.nodes if (maker := _maker(graph, node)) is not None]
        self._source = graph
        self._layers = {node.output: _Layer.of(graph, node) for pair in pairs for node in pair}
        self.joints = [Joint(maker.output, node.output, len(self._layers[maker.output].bias)) for maker, node in pairs]

    def multiply(self, joint: Joint, exponents: NDArray[np.int64]) -> None:
        """Multiply each channel by 2**exponent, [channels]."""
        self._layers[joint.maker] = self._layers[joint.maker].making(exponents)
        self._layers[joint.reader] = self._layers[joint.reader].reading(exponents)

    def best(self, joint: Joint) -> NDArray[np.float64]:
        """Exponents that even the channels, [channels], 0.0 for that in the middle, and where weights are all zero."""
        made, read = (
            array.astype(np.float64) for array in (self._layers[joint.maker].rows, self._layers[joint.reader].columns)
        )
        there = (made > 0) & (read > 0)
        exponents = np.zeros(joint.channels)
        if there.any():
            exact = (np.log2(read[there]) - np.log2(made[there])) / 2
            exponents[there] = np.clip(exact - np.median(exact), -_MOST, _MOST)
        return np.minimum(exponents, self._layers[joint.maker].room)

    def graph(self) -> Graph:
        """The graph with these channels, which computes what it did."""
        return rewrite(self._source, self._with_parameters)

    def _with_parameters(self, rewriter: Rewriter, node: Node) -> str | None:
        if node.output not in self._layers:
            return None
        x, w, b, *residual = node.inputs
        layer = self._layers[node.output]
        inputs = (x, rewriter.constant(layer.weights, w), rewriter.constant(layer.bias, b), *residual)
        return rewriter.emit(node.op, inputs, like=node, output=node.output)


@dataclass(frozen=True)
class _Layer:
    """Parameters of a convolution: weights float32 [O,C/groups,KH,KW], bias float32 [O]."""

    weights: Array
    bias: Array
    groups: int

    @staticmethod
    def of(graph: Graph, node: Node) -> _Layer:
        assert isinstance(node.op, FusedConv)
        weights, bias = (graph.constants[name] for name in node.inputs[1:3])
        return _Layer(weights, bias, node.op.groups)

    @property
    def room(self) -> NDArray[np.float64]:
        """Whole exponents that raise each bias to that of the layer which is the largest, [O], infinite for zeros."""
        sizes = np.abs(self.bias.astype(np.float64))
        exponents = np.full(len(sizes), np.inf)
        exponents[sizes > 0] = np.floor(np.log2(sizes.max() / sizes[sizes > 0]))
        return exponents

    @property
    def rows(self) -> Array:
        """Largest weight of each channel that is made, [O]."""
        largest: Array = np.abs(self.weights).max(axis=(1, 2, 3))
        return largest

    @property
    def columns(self) -> Array:
        """Largest weight of each channel that is read, [C]."""
        largest: Array = np.abs(self._by_group).max(axis=(1, 3))
        return largest.reshape(-1)

    @property
    def _by_group(self) -> Array:
        """[groups, O/groups, C/groups, KH*KW]."""
        outs, ins = self.weights.shape[:2]
        return self.weights.reshape(self.groups, outs // self.groups, ins, -1)

    def making(self, exponents: NDArray[np.int64]) -> _Layer:
        """With channels that are made multiplied by 2**exponents."""
        weights = np.ldexp(self.weights, exponents.reshape(-1, 1, 1, 1))
        return replace(self, weights=weights, bias=np.ldexp(self.bias, exponents))

    def reading(self, exponents: NDArray[np.int64]) -> _Layer:
        """With channels that are read divided by 2**exponents."""
        weights = np.ldexp(self._by_group, -exponents.reshape(self.groups, 1, -1, 1))
        return replace(self, weights=weights.reshape(self.weights.shape))


def _maker(graph: Graph, reader: Node) -> Node | None:
    """The convolution that makes the channels that a convolution reads, if their factors have nowhere else to go."""
    if not isinstance(reader.op, FusedConv) or reader.inputs[1] in graph.weight_scales:
        return None
    value = reader.inputs[0]
    while graph.uses[value] == 1 and (node := graph.producers.get(value)) is not None and _commutes(node):
        if isinstance(node.op, FusedConv):
            return node if node.inputs[1] not in graph.weight_scales else None
        (value,) = node.inputs
    return None


def _commutes(node: Node) -> bool:
    """Whether a channel that is multiplied before the end of the node is so behind it."""
    match node.op:
        case FusedConv() | FusedAdd():
            alone = len(node.inputs) == (3 if isinstance(node.op, FusedConv) else 1)
            return alone and {abs(node.op.lo), abs(node.op.hi)} <= {0.0, math.inf}
        case AveragePool() | GlobalAveragePool() | MaxPool():
            return True
        case _:
            return False
