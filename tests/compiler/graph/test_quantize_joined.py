"""The grids of concatenations and of what they read."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.graph.ir import Graph
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Pointwise
from compiler.graph.ops.move import Concat, Take
from compiler.graph.ops.pool import MaxPool
from compiler.graph.passes.pipeline import prepare
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.noise import signal_to_noise
from compiler.graph.quantize.report import Quantized
from tests.compiler.graph.build import Builder, floats
from vta_hw.spec.config import VTAConfig

CONFIG = VTAConfig()
SMALL = MaxPool(kernel=(1, 1))


class Network(Builder):
    """Images of 4x4 pixels."""

    def conv(self, x: str, ins: int, gain: float = 1.0, outs: int = 4) -> str:
        w = self.constant(floats(outs, ins, 1, 1, seed=len(self.nodes)) * np.float32(gain))
        return self(Conv(), x, w, name=f"conv{len(self.nodes)}")


def quantized(graph: Graph, config: VTAConfig = CONFIG) -> Quantized:
    batch = {value.name: floats(4, *value.type.shape[1:], seed=5) for value in graph.inputs}
    return quantize(prepare(graph, config), [batch], config=config)


def scales(result: Quantized) -> dict[str, float]:
    """By value of the float graph."""
    return {layer.source: layer.output_scale for layer in result.layers}


def kinds(result: Quantized) -> list[str]:
    return [node.op.kind for node in result.graph.nodes]


def test_what_only_a_concatenation_reads_is_made_on_its_grid() -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    small, large = b.conv(x, 3), b.conv(x, 3, gain=20)
    moved = b(Take(axis=2, indices=(0, 0, 1, 1, 2, 2, 3, 3)), b(SMALL, small))
    both = b(Concat(axis=1), moved, b(Take(axis=2, indices=(0, 0, 1, 1, 2, 2, 3, 3)), large))
    result = quantized(b.graph(b.conv(both, 8)))
    found = scales(result)
    assert len({found[name] for name in (small, large, moved, both)}) == 1
    assert "qadd" not in kinds(result)


@pytest.mark.parametrize("gain", [1.0, 0.9, 0.1])
def test_what_others_read_too_keeps_its_grid_where_that_is_much_finer(gain: float) -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    skip, other = b.conv(x, 3, gain=gain), b.conv(x, 3)
    both = b(Concat(axis=1), skip, other)
    result = quantized(b.graph(b.conv(both, 8), b.conv(skip, 4)))
    found = scales(result)
    assert found[other] == found[both]
    assert (found[skip] == found[both]) == (gain > 0.5)
    assert kinds(result).count("qadd") == int(gain < 0.5)
    if gain < 0.5:
        (report,) = (layer for layer in result.layers if layer.kind == "concat")
        assert report.input_scales == (found[skip], found[other])
        assert report.error < 0.01


def test_an_operand_that_stands_twice_is_scaled_anew_once() -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    skip, other = b.conv(x, 3, gain=0.1), b.conv(x, 3)
    result = quantized(b.graph(b.conv(b(Concat(axis=1), skip, other, skip), 12), b.conv(skip, 4)))
    assert kinds(result).count("qadd") == 1


def test_noise_is_measured_through_operands_that_are_scaled_anew() -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    skip, other = b.conv(x, 3, gain=0.1), b.conv(x, 3)
    graph = b.graph(b.conv(b(Concat(axis=1), skip, other), 8), b.conv(skip, 4))
    losses = signal_to_noise(prepare(graph, CONFIG), quantized(graph), [{x: floats(4, 3, 4, 4, seed=5)}])
    assert all(30 < loss.own < 60 for loss in losses)


def test_a_machine_that_cannot_scale_anew_makes_all_on_one_grid() -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    skip, other = b.conv(x, 3, gain=0.1), b.conv(x, 3)
    graph = b.graph(b.conv(b(Concat(axis=1), skip, other), 8), b.conv(skip, 4))
    config = VTAConfig(log_inp_width=4, log_wgt_width=4, log_inp_buff_size=15)
    assert "qadd" not in kinds(quantized(graph, config))


def test_results_that_are_read_as_reals_stay_reals() -> None:
    """Boxes and scores have ranges of their own."""
    b = Network()
    x = b.input(1, 3, 4, 4)
    boxes, scores = b.conv(x, 3, gain=100), b.conv(x, 3, gain=0.01)
    result = quantized(b.graph(b(Concat(axis=1), boxes, scores)))
    assert kinds(result)[-3:] == ["dequantize", "dequantize", "concat"]
    b = Network()
    x = b.input(1, 3, 4, 4)
    both = b(Concat(axis=1), b.conv(x, 3), b.conv(x, 3))
    assert kinds(quantized(b.graph(b(Pointwise(function="exp"), both))))[-2:] == ["concat", "pointwise"]


def test_what_lacks_integers_is_quantised_for_a_concatenation() -> None:
    b = Network()
    x = b.input(1, 3, 4, 4)
    result = quantized(b.graph(b.conv(b(Concat(axis=1), x, b.conv(x, 3)), 7)))
    assert kinds(result) == ["quantize", "qconv2d", "qadd", "concat", "qconv2d", "dequantize"]  # its own grid is finer
