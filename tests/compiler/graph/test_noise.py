"""Signal to noise of quantised layers: against noise that is known, and the layer that was made to hurt."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from compiler.errors import QuantizeError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Relu
from compiler.graph.ops.pool import MaxPool
from compiler.graph.passes.pipeline import prepare
from compiler.graph.quantize.calibrate import Calibration
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.noise import signal_to_noise
from compiler.graph.quantize.values import QuantizeOptions
from tests.compiler.graph.build import Builder, floats
from vta_hw.spec.config import VTAConfig

CONFIG = VTAConfig()
BATCHES = [{"x": floats(8, 4, 10, 10, seed=seed)} for seed in range(2)]


def network(*, outlier: float = 1.0) -> Graph:
    """Three convolutions and a pool. The first channel is always zero; the second convolution's weights for it are
    `outlier` times as large, and so make the steps of all others coarse."""
    b = Builder()
    second = floats(8, 8, 3, 3, seed=2)
    second[:, 0, 0, 0] *= np.float32(outlier)
    bias = np.array([-1000, *[0] * 7], np.float32)
    filters = b.constant(floats(8, 4, 3, 3, seed=1))
    first = b(Conv(padding=(1, 1, 1, 1)), b.input(1, 4, 10, 10), filters, b.constant(bias))
    x = b(Relu(), first)
    x = b(MaxPool(kernel=(2, 2), stride=(2, 2)), b(Conv(), x, b.constant(second), name="second"))
    return b.graph(b(Conv(), x, b.constant(floats(5, 8, 1, 1, seed=3)), name="y"))


def noise(graph: Graph) -> dict[str, tuple[float, float]]:
    prepared = prepare(graph, CONFIG)
    quantized = quantize(prepared, BATCHES, config=CONFIG)
    losses = signal_to_noise(prepared, quantized, BATCHES)
    assert [loss.kind for loss in losses] == ["qconv2d", "qconv2d", "qmax_pool2d", "qconv2d"]
    return {loss.node: (loss.total, loss.own) for loss in losses}


def test_noise_adds_up_along_the_network() -> None:
    losses = noise(network())
    totals = [total for total, _ in losses.values()]
    assert all(own > 25 for _, own in losses.values())
    assert totals[0] == pytest.approx(losses["conv v0"][1], abs=1e-9)  # the first layer has only its own
    assert all(total <= own + 0.5 for total, own in losses.values())
    assert losses["max_pool v3"][1] > 40  # it only rounds its input


def test_the_layer_that_hurts_is_found() -> None:
    losses = noise(network(outlier=30.0))
    assert min(losses, key=lambda node: losses[node][1]) == "conv second"
    assert losses["conv second"][1] < noise(network())["conv second"][1] - 10


@pytest.mark.parametrize("isa", ["tvm", "extended"])
@pytest.mark.parametrize("groups", [1, 4])
def test_corrected_biases_keep_the_means(isa: str, groups: int) -> None:
    """Inputs far from zero, so that rounding weights moves every result; without padding, where the mean is exact."""
    b = Builder()
    w, bias = b.constant(floats(8, 8 // groups, 3, 3, seed=4)), b.constant(floats(8, seed=5))
    graph = b.graph(b(Conv(groups=groups), b.input(1, 8, 10, 10), w, bias, name="y"))
    config = replace(CONFIG, isa=isa, log_wgt_width=2, log_wgt_buff_size=15)
    batches = [{"x": floats(16, 8, 10, 10, seed=6) / 4 + np.arange(8, dtype=np.float32).reshape(8, 1, 1)}]
    shifts, step = {}, 0.0
    for corrected in (False, True):
        options = QuantizeOptions(correct_bias=corrected, calibration=Calibration.MIN_MAX)
        quantized = quantize(prepare(graph, config), batches, config=config, options=options)
        answer, exact = (evaluate(rebatched(g, 16), batches[0])["y"] for g in (quantized.graph, graph))
        shifts[corrected] = np.abs((answer - exact).mean(axis=(0, 2, 3)))
        step = quantized.layers[0].output_scale
    assert shifts[False].max() > step
    assert shifts[True].max() < step / 2


def test_nothing_is_lost_where_all_is_zero_and_inputs_must_be_there() -> None:
    prepared = prepare(network(), CONFIG)
    quantized = quantize(prepared, BATCHES, config=CONFIG)
    with pytest.raises(QuantizeError, match=r"^Noise must be measured on at least one batch, not none$"):
        signal_to_noise(prepared, quantized, [])
    zeros = [{"x": np.zeros((2, 4, 10, 10), np.float32)}]
    assert all(loss.own == math.inf for loss in signal_to_noise(prepared, quantized, zeros))
