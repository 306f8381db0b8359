"""Whole networks: from float to integers, for several machines, with layouts and placements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.errors import QuantizeError
from compiler.graph.evaluate import evaluate, evaluate_all
from compiler.graph.ir import Graph, Place
from compiler.graph.layout import Layout
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, Clip, Pointwise, Relu
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Quantize
from compiler.graph.ops.qpool import QAvgPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.shape import Flatten
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.layout import AssignLayouts
from compiler.graph.passes.pipeline import place, prepare, quantize_model
from compiler.graph.quantize.calibrate import Calibration
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.report import Method
from compiler.graph.quantize.values import QuantizeOptions
from compiler.graph.text import to_text
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, floats
from vta_hw.spec.config import VTAConfig

DEFAULT = VTAConfig()
SHAPE = (2, 3, 10, 10)
BATCHES = [{"x": floats(8, *SHAPE[1:], seed=seed)} for seed in range(2)]


def weights(*shape: int, seed: int) -> np.ndarray:
    return floats(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:])))


def network() -> Graph:
    """Every quantised op: convolutions with and without residual, a bare addition, a bare clip, all pools, dense."""
    b = Builder()
    x = b.input(*SHAPE)
    stem = b(Relu(), b(Conv(padding=(1, 1, 1, 1)), x, b.constant(weights(8, 3, 3, 3, seed=1)), b.constant(floats(8))))
    body = b(Conv(padding=(1, 1, 1, 1)), stem, b.constant(weights(8, 8, 3, 3, seed=2)))
    block = b(Relu(), b(Add(), body, stem))
    wide = b(Clip(lo=-1.0, hi=1.5), block)
    pooled = b(MaxPool(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), b(Add(), wide, block))
    smooth = b(AveragePool(kernel=(2, 2), padding=(1, 1, 0, 0)), pooled)
    mean = b(GlobalAveragePool(), smooth)
    logits = b(Dense(), b(Flatten(), mean), b.constant(floats(5, 8, seed=3)), b.constant(floats(5, seed=4)))
    return b.graph(b(Softmax(), logits, name="y"), logits)


def configuration(**logs: int) -> VTAConfig:
    """The default with other widths and tiles, and with scratchpads that are small enough for all of them."""
    small = {"inp_buff_size": 12, "wgt_buff_size": 14, "acc_buff_size": 14, "uop_buff_size": 12}
    return replace(DEFAULT, **{f"log_{name}": value for name, value in {**small, **logs}.items()})


CONFIGS = {
    "default": DEFAULT,
    "extended": replace(DEFAULT, isa="extended"),
    "4 bits": configuration(inp_width=2, wgt_width=2),
    "16 bits": configuration(inp_width=4, wgt_width=4),
    "wide output block": configuration(block_in=2, block_out=4),
    "two rows": configuration(batch=1, block_in=3, block_out=3),
    "two rows, unequal blocks": configuration(batch=1, block_in=2, block_out=3),
}


@pytest.mark.parametrize(
    ("name", "tolerance"), [("default", 0.12), ("extended", 0.12), ("4 bits", 2.5), ("16 bits", 0.01)]
)
def test_quantised_answers_are_near_the_float_ones(name: str, tolerance: float) -> None:
    graph = network()
    quantized = quantize_model(graph, BATCHES, config=CONFIGS[name])
    x = {"x": BATCHES[0]["x"][:2]}
    expected, actual = evaluate(graph, x), evaluate(quantized.graph, x)
    assert list(actual) == list(expected)
    for output, array in expected.items():
        assert np.abs(actual[output] - array).max() < tolerance


@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_change_no_answer_and_are_what_readers_want(name: str) -> None:
    config = CONFIGS[name]
    quantized = quantize(prepare(network(), config), BATCHES, config=config)
    placed = place(quantized.graph, config)
    x = {"x": BATCHES[1]["x"][:2]}
    before, after = evaluate_all(quantized.graph, x), evaluate_all(placed, x)
    for value in before.keys() & after.keys():  # constants that are laid out anew have other names
        np.testing.assert_array_equal(after[value], before[value])
    assert before.keys() - quantized.graph.constants.keys() <= after.keys()
    step = AssignLayouts(config=config)
    for node in placed.nodes:
        for position, value in enumerate(node.inputs):
            wanted = step.wanted(node, position, placed.types[value].shape)
            assert wanted is None or placed.layouts[value] == wanted
        result = placed.types[node.output]
        assert (result.layout is not None) == (result.dtype in (DType.INT8, DType.INT16))
    relayouts = [node for node in placed.nodes if isinstance(node.op, Relayout)]
    assert bool(relayouts) == (name == "two rows, unequal blocks")


def test_layouts_of_each_family() -> None:
    expected = {
        "default": (Layout(1, 16), Layout(1, 16)),
        "wide output block": (Layout(1, 16), Layout(1, 16)),
        "two rows": (Layout(2, 8), Layout(2, 8)),
        "two rows, unequal blocks": (Layout(2, 4), Layout(2, 8)),
    }
    for name, layouts in expected.items():
        step = AssignLayouts(config=CONFIGS[name])
        assert (step.read, step.made) == layouts


@pytest.mark.parametrize(("channels", "layout"), [(1, Layout(1, 1)), (4, Layout(2, 4))])
def test_quantize_makes_the_layout_its_reader_wants(channels: int, layout: Layout) -> None:
    """An image of few channels is unfolded, from rows of pixels."""
    b = Builder()
    graph = b.graph(b(Conv(), b.input(2, channels, 4, 4), b.constant(weights(4, channels, 3, 3, seed=0))))
    batches = [{"x": floats(2, channels, 4, 4)}]
    placed = quantize_model(graph, batches, config=CONFIGS["two rows, unequal blocks"]).graph
    (first,) = (node for node in placed.nodes if isinstance(node.op, Quantize))
    assert placed.layouts[first.output] == layout
    assert not any(isinstance(node.op, Relayout) and node.inputs[0] == first.output for node in placed.nodes)


def test_one_relayout_serves_all_its_readers() -> None:
    b = Builder()
    x = b.input(2, 4, 4, 4)
    stem = b(Conv(), x, b.constant(weights(4, 4, 1, 1, seed=0)))
    one, two = (b(Conv(), stem, b.constant(weights(4, 4, 1, 1, seed=k))) for k in (1, 2))
    graph = b.graph(one, two)
    batches = [{"x": floats(2, 4, 4, 4)}]
    placed = quantize_model(graph, batches, config=CONFIGS["two rows, unequal blocks"]).graph
    assert sum(isinstance(node.op, Relayout) for node in placed.nodes) == 1


def test_placements_and_reasons() -> None:
    placed = quantize_model(network(), BATCHES, config=CONFIGS["two rows, unequal blocks"]).graph
    found = {node.op.kind: node.placement for node in placed.nodes}
    for kind, placement in found.items():
        assert placement is not None
        assert (placement.place is Place.ACCELERATOR) == (kind in ("qconv2d", "qadd", "qmax_pool2d", "qavg_pool2d"))
        assert bool(placement.reason) == (placement.place is Place.HOST)
    reasons = {kind: placement.reason for kind, placement in found.items() if placement and placement.reason}
    assert reasons == {
        "quantize": "float32 input",
        "unfold": "moves single elements between tiles",
        "relayout": "moves single elements between tiles",
        "dequantize": "float32 result",
        "reshape": "float32 tensor",
        "softmax": "float32 arithmetic",
    }


def test_reports() -> None:
    quantized = quantize_model(network(), BATCHES, config=DEFAULT)
    kinds = [layer.kind for layer in quantized.layers]
    assert kinds == ["qconv2d", "qconv2d", "qadd", "qadd", "qmax_pool2d", "qavg_pool2d", "qavg_pool2d", "qconv2d"]
    for layer in quantized.layers:
        assert quantized.grids[layer.value].scale == layer.output_scale
        assert layer.error < 0.1
        assert layer.bits == 8
        assert layer.weight_bits == (8 if layer.kind == "qconv2d" else None)
        assert (layer.scale_method is Method.INHERITED) == (layer.kind == "qmax_pool2d")
        assert (layer.accumulator_bits is None) == (layer.kind == "qmax_pool2d")
        assert layer.accumulator_bits is None or 8 < layer.accumulator_bits <= 32


def test_an_average_that_divides_by_different_counts_has_a_factor_for_each_position() -> None:
    graph = quantize_model(network(), BATCHES, config=DEFAULT).graph
    pools = [node for node in graph.nodes if isinstance(node.op, QAvgPool2d)]
    border, whole = (node.op for node in pools)
    assert isinstance(border, QAvgPool2d)
    assert isinstance(whole, QAvgPool2d)
    assert border.mul is None
    assert whole.mul is not None
    factors = graph.constants[pools[0].inputs[1]]
    assert factors.shape == (5, 5)
    assert factors[0, 0] == pytest.approx(4 * factors[2, 2], rel=1e-3)


def test_relu_and_clip_become_clip_ranges() -> None:
    b = Builder()
    x = b.input(1, 2, 3, 3)
    conv = b(Conv(), x, b.constant(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1) * 10))
    graph = b.graph(b(Clip(lo=-1.0, hi=6.0), conv))
    quantized = quantize_model(graph, [{"x": floats(64, 2, 3, 3)}], config=DEFAULT)
    (op,) = (node.op for node in quantized.graph.nodes if isinstance(node.op, QConv2d))
    (layer,) = quantized.layers
    assert layer.output_scale <= 6 / 127 * (1 + 1e-6)
    assert op.lo == round(-1 / layer.output_scale)
    assert op.hi == 127


@pytest.mark.parametrize(
    "options",
    [
        *(QuantizeOptions(calibration=method) for method in Calibration),
        QuantizeOptions(max_shift=30),
        QuantizeOptions(multiply=False),
    ],
)
def test_options(options: QuantizeOptions) -> None:
    quantized = quantize_model(network(), BATCHES, config=DEFAULT, options=options)
    assert max(layer.shift for layer in quantized.layers) <= options.largest_shift(given=False)
    assert max(layer.pre_shift for layer in quantized.layers) == 0
    for node in quantized.graph.nodes:
        if isinstance(node.op, QConv2d) and not options.multiply:
            assert set(quantized.graph.constants[node.inputs[2]].tolist()) == {1}
    x = {"x": BATCHES[0]["x"][:2]}
    assert np.abs(evaluate(quantized.graph, x)["y"] - evaluate(network(), x)["y"]).max() < 0.15


def test_quantisation_is_repeatable() -> None:
    one, two = (quantize_model(network(), BATCHES, config=DEFAULT).graph for _ in range(2))
    assert to_text(one) == to_text(two)
    for name, array in one.constants.items():
        np.testing.assert_array_equal(two.constants[name], array)


def test_constant_activations_and_float_remainders() -> None:
    """A constant image is quantised at compile time; an addition of rank 2 stays float."""
    b = Builder()
    x = b.input(1, 2, 3, 3)
    total = b(Add(), x, b.constant(floats(1, 2, 3, 3, seed=3)))
    flat = b(Flatten(), total)
    graph = b.graph(b(Softmax(), flat))
    images = floats(4, 2, 3, 3)
    placed = quantize_model(graph, [{"x": images}], config=DEFAULT).graph
    assert [node.op.kind for node in placed.nodes] == ["quantize", "qadd", "dequantize", "reshape", "softmax"]
    (name,) = placed.constants
    assert placed.types[name].layout == Layout(1, 16)
    image = {"x": images[:1]}
    np.testing.assert_allclose(evaluate(placed, image)["v2"], evaluate(graph, image)["v2"], atol=0.02)


def test_an_overflowing_layer_is_named() -> None:
    b = Builder()
    x = b.input(1, 1, 1, 1)
    conv = b(Conv(), x, b.constant(np.ones((1, 1, 1, 1), np.float32)), b.constant(np.full(1, 1e12, np.float32)))
    graph = b.graph(b(Clip(lo=0.0, hi=1.0), conv))
    with pytest.raises(QuantizeError, match=r"^Layer 'conv v0': accumulators of up to 16256, scaled .* must fit"):
        quantize_model(graph, [{"x": floats(4, 1, 1, 1)}], config=DEFAULT)


def gated(order: int) -> Graph:
    """relu(conv) times its sigmoid gate, less another convolution; the gate on the left or the right."""
    b = Builder()
    x = b.input(1, 4, 6, 6)
    conv = b(Relu(), b(Conv(padding=(1, 1, 1, 1)), x, b.constant(weights(8, 4, 3, 3, seed=1))))
    other = b(Conv(), x, b.constant(weights(8, 4, 1, 1, seed=2)))
    gate = b(Pointwise(function="sigmoid"), b(GlobalAveragePool(), conv))
    operands = (conv, gate) if order else (gate, conv)
    return b.graph(b(Pointwise(function="subtract"), b(Pointwise(function="multiply"), *operands), other))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_gates_and_differences_are_integers(order: int, isa: str) -> None:
    graph = gated(order)
    inputs = {"x": floats(1, 4, 6, 6, seed=3)}
    quantized = quantize_model(graph, [inputs], config=VTAConfig(isa=isa))
    kinds = [node.op.kind for node in quantized.graph.nodes if node.placement.place is Place.ACCELERATOR]
    conv = "qconv2d" if isa == "tvm" else "rescaled_conv2d"
    assert sorted(kinds) == sorted([conv, conv, "qavg_pool2d", "qmul", "qadd"])
    (name,) = graph.outputs
    exact, found = evaluate(graph, inputs)[name], evaluate(quantized.graph, inputs)[name]
    assert ((exact - found) ** 2).mean() < 1e-3 * (exact**2).mean()


def test_a_whole_activation_is_not_made_integer_for_a_product() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 4, 6, 6), b.constant(weights(8, 4, 1, 1, seed=1)))
    graph = b.graph(b(Pointwise(function="multiply"), conv, b(Pointwise(function="sigmoid"), conv)))
    quantized = quantize_model(graph, [{"x": floats(1, 4, 6, 6)}], config=VTAConfig())
    assert "qmul" not in {node.op.kind for node in quantized.graph.nodes}


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_windows_too_large_for_their_factors_are_averaged_in_float(isa: str) -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 4, 112, 112), b.constant(weights(8, 4, 1, 1, seed=1)))
    graph = b.graph(b(GlobalAveragePool(), b(Relu(), conv)))
    inputs = {"x": floats(1, 4, 112, 112)}
    quantized = quantize_model(graph, [inputs], config=VTAConfig(isa=isa))
    (name,) = graph.outputs
    exact, found = evaluate(graph, inputs)[name], evaluate(quantized.graph, inputs)[name]
    assert np.abs(exact - found).max() < 0.01 * exact.max()


def test_products_of_16_bits_are_left_in_float() -> None:
    config = CONFIGS["16 bits"]
    inputs = {"x": floats(1, 4, 6, 6, seed=3)}
    quantized = quantize_model(gated(1), [inputs], config=config)
    (name,) = gated(1).outputs
    exact, found = evaluate(gated(1), inputs)[name], evaluate(quantized.graph, inputs)[name]
    assert ((exact - found) ** 2).mean() < 1e-4 * (exact**2).mean()
