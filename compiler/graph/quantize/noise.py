"""How much of the signal each layer loses: the quantised network beside the float one, on real inputs.

Signal to noise as in TensorFlow Lite's quantisation debugger and ONNX Runtime's: the power of the float result over
that of its difference to the quantised one, in decibels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from compiler.errors import QuantizeError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate_all
from compiler.graph.ir import Array, Graph
from compiler.graph.ops.qelementwise import Quantize
from compiler.graph.quantize.given import Grid
from compiler.graph.quantize.report import LayerReport, Quantized


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """Signal to noise of a layer's result, in dB; infinite where nothing is lost.

    total: in the quantised network, with what the layers before have lost. own: if the layer's inputs were those of the
    float network, rounded to integers; the layer with the least of these is the one to look at.
    """

    node: str
    kind: str
    total: float
    own: float


@dataclass
class _Power:
    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: Array, actual: Array) -> None:
        real = exact.astype(np.float64)
        self.signal += float((real**2).sum())
        self.noise += float(((actual - real) ** 2).sum())

    @property
    def ratio(self) -> float:
        """In dB."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def signal_to_noise(
    prepared: Graph, quantized: Quantized, batches: Iterable[Mapping[str, Array]]
) -> tuple[LayerNoise, ...]:
    """Noise of every quantised layer, in the order of the network.

    prepared: the float graph that `quantized` was made of, before layouts. batches: inputs as for `quantize`. Raises
    QuantizeError when there is none.
    """
    sources = {layer.value: layer for layer in quantized.layers}
    total = {value: _Power() for value in sources}
    own = {value: _Power() for value in sources}
    graphs: dict[int, tuple[Graph, Graph]] = {}
    for batch in batches:
        size = len(batch[prepared.inputs[0].name])
        if size not in graphs:
            graphs[size] = rebatched(prepared, size), rebatched(quantized.graph, size)
        floats, integers = graphs[size]
        exact, actual = evaluate_all(floats, batch), evaluate_all(integers, batch)
        for value, layer in sources.items():
            grid, producer = quantized.grids[value], integers.producers[value]
            total[value].add(exact[layer.source], grid.reals(actual[value]))
            inputs = [_ideal(integers, name, sources, exact, quantized.grids) for name in producer.inputs]
            own[value].add(exact[layer.source], grid.reals(producer.op.reference(*inputs)))
    if not graphs:
        raise QuantizeError("Noise must be measured on at least one batch, not none")
    return tuple(
        LayerNoise(node=layer.node, kind=layer.kind, total=total[value].ratio, own=own[value].ratio)
        for value, layer in sources.items()
    )


def _ideal(
    graph: Graph,
    name: str,
    sources: Mapping[str, LayerReport],
    exact: Mapping[str, Array],
    grids: Mapping[str, Grid],
) -> Array:
    """The integers that stand for the float network's value, or a constant."""
    if name in graph.constants:
        return graph.constants[name]
    producer = graph.producers[name]
    if isinstance(producer.op, Quantize):
        return producer.op.reference(exact[producer.inputs[0]])
    if name not in sources:  # an operand that is only scaled anew, for a concatenation
        inputs = [_ideal(graph, each, sources, exact, grids) for each in producer.inputs]
        return producer.op.reference(*inputs)
    layer = sources[name]
    limit = 1 << (layer.bits - 1)
    return np.clip(grids[name].nearest(exact[layer.source]), -limit, limit - 1).astype(graph.types[name].dtype.numpy)
