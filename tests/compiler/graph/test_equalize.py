"""Channels between convolutions: multiplied and divided again, so that nothing changes but what 8 bits make of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vta
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, Clip, Relu
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Flatten
from compiler.graph.passes.equalize import Channels, Equalize
from compiler.graph.passes.pipeline import prepare, quantize_model
from compiler.graph.quantize.values import QuantizeOptions
from tests.compiler.graph.build import Builder, floats
from vta_hw.spec.config import VTAConfig

X = (4, 3, 9, 9)
AS_IT_IS = QuantizeOptions(equalise=False)


def conv(b: Builder, x: str, outs: int, ins: int, *, groups: int = 1, seed: int) -> str:
    weights = floats(outs, ins, 3, 3, seed=seed) / np.float32(3 * math.sqrt(ins))
    parameters = b.constant(weights), b.constant(floats(outs, seed=seed + 100))
    return b(Conv(padding=(1, 1, 1, 1), groups=groups), x, *parameters)


def chain() -> Graph:
    """Everything that channels may go through: no clip, ReLU, pools, groups of one and of several, a dense layer."""
    b = Builder()
    x = b(Relu(), conv(b, b.input(*X), 8, 3, seed=1))
    x = b(MaxPool(kernel=(2, 2), padding=(1, 1, 0, 0)), b(Relu(), conv(b, x, 8, 1, groups=8, seed=2)))
    x = b(Relu(), b(AveragePool(kernel=(2, 2), padding=(1, 1, 0, 0)), conv(b, x, 12, 8, seed=3)))
    x = b(GlobalAveragePool(), b(Clip(lo=-math.inf, hi=0.0), conv(b, x, 8, 3, groups=4, seed=4)))
    return b.graph(b(Dense(), b(Flatten(), x), b.constant(floats(5, 8, seed=5))))


def apart(graph: Graph, bits: int, seed: int = 0) -> Graph:
    channels, random = Channels(graph), np.random.default_rng(seed)
    for joint in channels.joints:
        channels.multiply(joint, random.integers(0, bits + 1, joint.channels))
    return channels.graph()


@settings(max_examples=10, deadline=None)
@given(bits=st.integers(0, 20), least=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 1 << 16))
def test_the_function_stays_to_the_last_bit_and_channels_come_together(bits: int, least: float, seed: int) -> None:
    source = prepare(chain(), VTAConfig(), AS_IT_IS)
    uneven = apart(source, bits, seed)
    even = Equalize(least=least).apply(uneven)
    x = {"x": floats(*X, seed=seed)}
    for graph in (uneven, even):
        for name, array in evaluate(source, x).items():
            np.testing.assert_array_equal(evaluate(graph, x)[name], array)
    channels = Channels(even)
    assert len(channels.joints) == 4
    assert all(np.ptp(channels.best(joint)) < max(least, 1.01) for joint in channels.joints)


def test_what_is_even_is_left() -> None:
    graph = prepare(chain(), VTAConfig(), AS_IT_IS)
    assert Equalize(least=3.0).apply(graph) is graph
    uneven = apart(graph, 6)
    assert Equalize(least=3.0).apply(uneven) is not uneven


def test_channels_that_others_see_or_that_a_clip_bounds_stay() -> None:
    """ReLU6, a residual and where it comes from, a second reader, an output, and weights that the model gives."""
    b = Builder()
    x = b(Clip(lo=0.0, hi=6.0), conv(b, b.input(*X), 8, 3, seed=1))
    split = b(Relu(), conv(b, x, 8, 8, seed=2))
    added = b(Relu(), b(Add(), conv(b, split, 8, 8, seed=3), split))
    given = conv(b, conv(b, added, 8, 8, seed=4), 8, 8, seed=5)
    graph = b.graph(conv(b, given, 8, 8, seed=6), given)
    graph = replace(graph, weight_scales={graph.producers[given].inputs[1]: np.ones(8, np.float32)})
    assert Channels(prepare(graph, VTAConfig(), AS_IT_IS)).joints == []


def test_channels_without_weights_stay() -> None:
    """Nothing reads the first channel, nothing makes the last."""
    b = Builder()
    first, second = floats(4, 3, 1, 1), floats(2, 4, 1, 1)
    first[3] = second[:, 0] = 0
    conv = b(Conv(), b.input(*X), b.constant(np.ldexp(first, 9)))
    prepared = prepare(b.graph(b(Conv(), conv, b.constant(second))), VTAConfig(), AS_IT_IS)
    (joint,) = Channels(prepared).joints
    exponents = Channels(prepared).best(joint)
    assert (exponents[[0, 3]] == 0).all()
    assert (exponents[[1, 2]] != 0).all()


def test_a_channel_that_is_little_more_than_its_bias_sets_no_scale() -> None:
    """Two channels hardly depend on the input, as after a normalisation whose factor is nearly zero."""
    b = Builder()
    size = np.ones((16, 1, 1, 1), np.float32)
    size[:2] = 2.0**-12
    maker = floats(16, 3, 3, 3, seed=1) / np.float32(5) * size, np.ones(16, np.float32)
    made = b(Relu(), b(Conv(padding=(1, 1, 1, 1)), b.input(*X), *(b.constant(array) for array in maker)))
    reader = b.constant(floats(16, 16, 1, 1, seed=2) / np.float32(4)), b.constant(np.zeros(16, np.float32))
    graph = b.graph(b(Conv(), made, *reader))
    images = floats(*X, seed=3)
    (exact,) = (evaluate(graph, {"x": images})[name] for name in graph.outputs)
    for options in (QuantizeOptions(), QuantizeOptions(multiply=False)):
        quantized = quantize_model(graph, [{"x": images}], config=VTAConfig(), options=options).graph
        answers = evaluate(quantized, {"x": images})[quantized.outputs[0]]
        assert 10 * math.log10(float((exact**2).sum() / ((answers - exact) ** 2).sum())) > 30


@pytest.mark.parametrize(("isa", "multiply"), [("extended", True), ("tvm", False)])
def test_channels_2_to_the_6_apart_cost_no_accuracy_and_no_cycles(isa: str, multiply: bool) -> None:
    config = VTAConfig(isa=isa)
    even = prepare(chain(), config, AS_IT_IS)
    uneven, images = apart(even, 6), floats(32, *X[1:], seed=7)
    (exact,) = (evaluate(even, {"x": images[:4]})[name] for name in even.outputs)
    noise, cycles = [], set()
    for graph, equalise in ((even, True), (uneven, True), (uneven, False)):
        options = QuantizeOptions(multiply=multiply, equalise=equalise)
        program = vta.compile(graph, config=config, calibration=images, options=options, batch=4)
        answers = program.run(images[:4], "cycle")
        noise.append(10 * math.log10(float((exact**2).sum() / ((answers - exact) ** 2).sum())))
        cycles.add(program.statistics.counters["cycle_count"])
    assert noise[0] - 4 < noise[1]
    assert noise[2] + 10 < noise[1]
    assert len(cycles) == 1
