"""Unfolding the image of a first convolution: the same bytes, fewer products."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Quantize
from compiler.graph.ops.unfold import Unfold
from compiler.graph.passes.unfold import UnfoldInput
from tests.compiler.graph.build import Builder, floats, int8s
from tests.differential import Case, check
from vta_hw.spec.config import VTAConfig


def network(
    shape: tuple[int, int, int, int], outs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: tuple[int, int] = (1, 1),
) -> Graph:  # fmt: skip
    """An image, quantised, and a convolution of it."""
    b = Builder()
    image = b(Quantize(inv_scale=16.0, lo=-128, hi=127), b.input(*shape))
    w = b.constant(int8s(outs, shape[1], *kernel, seed=1))
    parameters = [b.constant(np.full(outs, value, np.int32)) for value in (1, 37)]
    op = QConv2d(stride=stride, padding=padding, dilation=dilation, shift=8, lo=-128, hi=127)
    return b.graph(b(op, image, w, *parameters))


def unfolded(graph: Graph, config: VTAConfig) -> Unfold | None:
    """The `Unfold` that the pass has put in, if any."""
    ops = [node.op for node in UnfoldInput(config=config).apply(graph).nodes]
    return next((op for op in ops if isinstance(op, Unfold)), None)


def test_the_first_convolution_of_resnet() -> None:
    """7x7 over three channels: 147 of 160 channels do what 49 taps of 3 of 16 channels did."""
    graph = network((1, 3, 224, 224), 64, (7, 7), (2, 2), (3, 3, 3, 3))
    result = UnfoldInput(config=VTAConfig()).apply(graph)
    _, unfold, product = result.nodes
    assert unfold.op == Unfold(kernel=(7, 7), stride=(2, 2), origin=(3, 3), size=(112, 112))
    assert result.types[product.inputs[1]].shape == (64, 147, 1, 1)
    assert product.op == QConv2d(shift=8, lo=-128, hi=127)


def test_a_bus_that_is_the_limit_moves_each_pixel_once() -> None:
    """For few outputs the whole kernel as channels is more than the bus can bring: space-to-depth."""
    graph = network((1, 3, 224, 224), 16, (6, 6), (2, 2), (2, 2, 2, 2))
    unfold = unfolded(graph, VTAConfig())
    assert unfold == Unfold(kernel=(2, 2), stride=(2, 2), origin=(2, 2), size=(114, 114))


@pytest.mark.parametrize("channels", [16, 64])
def test_what_fills_its_tiles_stays(channels: int) -> None:
    assert unfolded(network((1, channels, 8, 8), 16, (3, 3)), VTAConfig()) is None


def test_what_has_a_dilation_or_four_bits_stays() -> None:
    assert unfolded(network((1, 3, 8, 8), 16, (3, 3), dilation=(2, 2)), VTAConfig()) is None
    assert unfolded(network((1, 3, 8, 8), 16, (3, 3)), VTAConfig(log_inp_width=2, log_inp_buff_size=14)) is None


@pytest.mark.parametrize("seed", range(40))
def test_the_result_stays_the_same(seed: int) -> None:
    """In numpy before and after, and compiled for VTA and for a CPU."""
    r = random.Random(seed)
    kernel = r.randint(1, 5), r.randint(1, 5)
    size = r.randint(kernel[0], 11), r.randint(kernel[1], 11)
    padding = (r.randint(0, 2), r.randint(0, 2), r.randint(0, 2), r.randint(0, 2))
    shape = (r.choice([1, 3]), r.choice([1, 2, 3, 5]), *size)
    graph = network(shape, r.choice([1, 7, 33]), kernel, (r.randint(1, 3), r.randint(1, 3)), padding)
    config = replace(VTAConfig(), log_batch=r.choice([0, 0, 2]), log_bus_width=r.choice([6, 9]))
    inputs = {"x": floats(*shape, seed=seed) * np.float32(4)}
    expected = evaluate(graph, inputs)[graph.outputs[0]]
    result = UnfoldInput(config=config).apply(graph)
    np.testing.assert_array_equal(evaluate(result, inputs)[graph.outputs[0]], expected)
    assert check(Case(seed=seed, config=config, graph=graph, inputs=inputs)).problems == ()
