"""Scales and integers that the model gives itself, beside what onnxruntime and the float graph compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.driver import compile_graph
from compiler.errors import QuantizeError
from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate, evaluate_all
from compiler.graph.ir import Array, Graph
from compiler.graph.ops.conv import Conv, MatMul
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, FakeQuantize, Pointwise, Relu
from compiler.graph.ops.move import Concat, Pad, Slice
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.qelementwise import QAdd, Quantize, RescaledAdd
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.pipeline import place, prepare, quantize_model
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.noise import signal_to_noise
from compiler.graph.quantize.report import Method, Quantized
from compiler.graph.quantize.values import QuantizeOptions
from compiler.graph.text import to_text
from tests.compiler.frontend.models import floats
from tests.compiler.frontend.quantized_models import NETWORKS, SHAPE, quantized, run, with_all_outputs
from tests.compiler.graph.build import Builder
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp

CONFIGS = {"base": VTAConfig(), "extended": replace(VTAConfig(), isa="extended")}


def step(scale: float) -> FakeQuantize:
    return FakeQuantize(scale=float(np.float32(scale)), lo=-128, hi=127)


def given_weights(graph: Graph, scales: Mapping[str, Array]) -> Graph:
    """The graph, with weights that are whole multiples of scales."""
    return replace(graph, weight_scales={name: scale.astype(np.float32) for name, scale in scales.items()})


def deviations(result: Quantized, reals: Callable[[str], Array]) -> dict[str, int]:
    """Of each layer the largest distance, in steps of its result, from the reals, if its inputs are those too.

    reals: a value of the float graph, by name.
    """
    graph, layers = result.graph, {layer.value: layer for layer in result.layers}

    def integers(name: str) -> Array:
        if name in graph.constants:
            return graph.constants[name]
        if name not in layers:
            producer = graph.producers[name]
            if isinstance(producer.op, QAdd | RescaledAdd | Pad):  # an operand scaled anew, a border
                return producer.op.reference(*map(integers, producer.inputs))
            assert isinstance(producer.op, Quantize)
            return producer.op.reference(reals(producer.inputs[0]))
        nearest = np.clip(result.grids[name].nearest(reals(layers[name].source)), -128, 127)
        return nearest.astype(np.int8).reshape(graph.types[name].shape)

    found = {}
    for value, layer in layers.items():
        node = graph.producers[value]
        actual = node.op.reference(*(integers(name) for name in node.inputs)).astype(int)
        found[layer.node] = int(np.abs(actual - integers(value)).max())
    return found


FORMS = {
    "QDQ": {},
    "QOperator": {"operators": True},
    "QDQ of uint8": {"unsigned": True},
    "QOperator of uint8": {"operators": True, "unsigned": True},
}


@pytest.fixture(scope="module", params=[(name, form) for name in NETWORKS for form in FORMS], ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, object]:
    """(name, model, quantised by onnxruntime)."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    name, form = request.param
    return name, quantized(NETWORKS[name](), tmp_path_factory.mktemp(name), **FORMS[form])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["QDQ", "QDQ of uint8"])
@pytest.mark.parametrize("config", CONFIGS)
def test_each_layer_is_within_one_quantum_of_onnxruntime(name: str, form: str, config: str, tmp_path: Path) -> None:
    """From the integers that onnxruntime has."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    opened, _ = with_all_outputs(quantized(NETWORKS[name](), tmp_path, **FORMS[form]))
    x = floats(1, *SHAPE[1:], seed=77)
    expected = run(opened, x)
    prepared = prepare(load_onnx(opened), CONFIGS[config])

    def real(value: str) -> Array:
        """Behind the pair, which the model has as an output."""
        while value not in expected:
            value = next(
                node.output
                for node in prepared.nodes
                if value in node.inputs and isinstance(node.op, FakeQuantize | Reshape)
            )
        return expected[value].reshape(prepared.types[value].shape)

    result = quantize(prepared, None, config=CONFIGS[config])
    found = deviations(result, real)
    assert len(found) >= 10
    assert max(found.values()) <= 1


@pytest.mark.parametrize("config", CONFIGS)
def test_networks_are_near_onnxruntime_in_every_quantised_value(network: tuple[str, object], config: str) -> None:
    """From the first layer to the last. A convolution of what is one quantum off can be off by more.

    One off are halves, which the mean of four integers of one scale often is: onnxruntime rounds them to even.
    """
    opened, steps = with_all_outputs(network[1])
    x = floats(4, *SHAPE[1:], seed=77)
    placed = rebatched(quantize_model(load_onnx(opened), None, config=CONFIGS[config]).graph, len(x))
    expected, actual = run(opened, x), evaluate(placed, {"x": x})
    off = [np.abs(actual[name] - expected[name]) / scale for name, scale in steps.items()]
    most = {"residual": 1.01, "separable": 4.01, "bent": 6.01}  # the gate of a HardSwish has 8 bits
    assert max(each.max() for each in off) < most[network[0]]
    assert np.concatenate([each.ravel() for each in off]).mean() < (0.25 if network[0] == "bent" else 0.1)


def test_weights_are_the_models_integers(network: tuple[str, object]) -> None:

    proto = network[1]
    assert isinstance(proto, onnx.ModelProto)
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    given = sorted(array.reshape(-1).tolist() for array in stored if array.dtype == np.int8 and array.ndim == 4)
    for config in CONFIGS.values():
        graph = quantize(prepare(load_onnx(proto), config), None, config=config).graph
        used = [array for array in graph.constants.values() if array.dtype == np.int8 and array.ndim == 4]
        assert [array for array in given if array not in [each.reshape(-1).tolist() for each in used]] == []


def fused() -> Graph:
    """Only what convolutions read is quantised: the sum of one with a residual and its activation are made at once."""
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    w, v = (np.random.default_rng(seed).integers(-127, 128, (8, 8, 3, 3)) for seed in (1, 2))
    first = b(Conv(padding=(1, 1, 1, 1)), x, b.constant((w * 0.001).astype(np.float32), "w"), b.constant(floats(8)))
    stem = b(step(0.03), b(Relu(), first))
    body = b(
        Conv(padding=(1, 1, 1, 1)), stem, b.constant((v * 0.001).astype(np.float32), "v"), b.constant(floats(8, seed=1))
    )
    pooled = b(MaxPool(kernel=(2, 2)), b(Clip(lo=0.0, hi=6.0), b(Add(), body, stem)))
    smooth = b(step(0.05), b(AveragePool(kernel=(2, 2)), b(step(0.045), pooled)))
    graph = b.graph(smooth)
    return given_weights(graph, {"w": np.full(8, 0.001), "v": np.full(8, 0.001)})


@pytest.mark.parametrize("config", CONFIGS)
def test_residual_and_activation_are_part_of_a_convolution_with_given_weights(config: str) -> None:
    prepared = prepare(fused(), CONFIGS[config])
    result = quantize(prepared, None, config=CONFIGS[config])
    kinds = [node.op.kind for node in result.graph.nodes]
    first, second, mean = (
        ("exact_conv2d", "exact_conv2d", "qavg_pool2d")
        if config == "base"
        else ("rescaled_conv2d", "exact_conv2d", "rescaled_avg_pool2d")
    )
    assert kinds == ["quantize", first, second, "qmax_pool2d", mean, "dequantize"]
    assert max(layer.error for layer in result.layers) < 2**-13
    exact = evaluate_all(prepared, {"x": floats(1, 8, 6, 6, seed=5) * 2})
    found = deviations(result, exact.__getitem__)
    assert max(found.values()) <= 1
    methods = [layer.scale_method for layer in result.layers]
    assert methods == [Method.GIVEN, Method.GIVEN, Method.INHERITED, Method.GIVEN]


def test_a_scale_goes_backwards_over_what_only_compares_and_moves() -> None:
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    conv = b(Conv(), x, b.constant(floats(8, 8, 1, 1)))
    half = b(Slice(starts=(0, 0, 1, 1), steps=(1, 1, 2, 2), shape=(1, 8, 3, 3)), b(MaxPool(kernel=(1, 1)), conv))
    graph = b.graph(b(step(0.1), half))
    result = quantize(prepare(graph, VTAConfig()), None, config=VTAConfig())
    assert [node.op.kind for node in result.graph.nodes] == [
        "quantize",
        "qconv2d",
        "qmax_pool2d",
        "slice",
        "dequantize",
    ]
    assert {grid.scale for grid in result.grids.values()} == {float(np.float32(0.02)), float(np.float32(0.1))}


def test_other_steps_are_a_multiplication() -> None:
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    graph = b.graph(b(step(0.05), x), b(step(0.02), x))
    result = quantize(prepare(graph, VTAConfig()), None, config=VTAConfig())
    assert [node.op.kind for node in result.graph.nodes] == ["quantize", "qadd", "dequantize", "dequantize"]


def test_an_activation_between_equal_steps_is_part_of_the_convolution() -> None:
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    conv = b(step(0.1), b(Conv(), x, b.constant(floats(8, 8, 1, 1))))
    graph = b.graph(b(step(0.1), b(Clip(lo=0.0, hi=6.02), conv)))
    prepared = prepare(graph, VTAConfig())
    assert [node.op.kind for node in prepared.nodes] == ["fake_quantize", "fused_conv", "fake_quantize"]
    image = {"x": floats(1, 8, 6, 6) * 3}
    name = graph.outputs[0]
    np.testing.assert_array_equal(evaluate(prepared, image)[name], evaluate(graph, image)[name])


@pytest.mark.parametrize("config", CONFIGS)
def test_a_product_of_two_activations_has_the_scale_it_is_given(config: str) -> None:
    b = Builder()
    rows, columns = (b(step(0.02), b.input(1, 2, 16, 16, name=name)) for name in "ab")
    graph = b.graph(b(step(0.1), b(MatMul(), rows, columns)))
    result = quantize(prepare(graph, CONFIGS[config]), None, config=CONFIGS[config])
    inputs = {"a": floats(1, 2, 16, 16), "b": floats(1, 2, 16, 16, seed=1)}
    name = graph.outputs[0]
    exact, actual = evaluate(graph, inputs)[name], evaluate(result.graph, inputs)[name]
    assert np.abs(exact - actual).max() < 0.101
    assert any(node.op.kind in ("qmatmul", "rescaled_matmul") for node in result.graph.nodes)


@pytest.mark.parametrize("config", CONFIGS)
def test_scale_and_offset_between_pairs_lose_nothing(config: str) -> None:
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    parameters = [b.constant(np.abs(floats(8, seed=seed)) + 0.1) for seed in range(4)]
    prepared = prepare(b.graph(b(step(0.06), b(BatchNorm(), x, *parameters))), CONFIGS[config])
    result = quantize(prepared, None, config=CONFIGS[config])
    exact = evaluate_all(prepared, {"x": floats(1, 8, 6, 6)})
    assert max(deviations(result, exact.__getitem__).values()) <= 1
    assert result.layers[0].error < 0.02


@given(
    seed=st.integers(0, 10_000),
    channels=st.sampled_from([1, 8, 64]),
    kernel=st.sampled_from([1, 3]),
    spread=st.sampled_from([1.0, 30.0]),
    config=st.sampled_from(list(CONFIGS)),
)
@settings(max_examples=40, deadline=None)
def test_a_convolution_is_within_one_quantum(seed: int, channels: int, kernel: int, spread: float, config: str) -> None:
    """With any scales that fill its result."""
    rng = np.random.default_rng(seed)
    outs = 6
    q = rng.integers(-127, 128, (outs, channels, kernel, kernel))
    scale = (0.01 * rng.uniform(1 / spread, 1, outs)).astype(np.float32)
    b = Builder()
    x = b(step(0.03), b.input(1, channels, 5, 5))
    w = b.constant((q * scale.reshape(-1, 1, 1, 1)).astype(np.float32), "w")
    conv = b(Conv(), x, w, b.constant(floats(outs, seed=seed)))
    reach = 0.03 * 0.01 * 73 * 60 * np.sqrt(channels * kernel**2) * 3
    graph = given_weights(b.graph(b(step(reach / 127), conv)), {"w": scale})
    prepared = prepare(graph, CONFIGS[config])
    result = quantize(prepared, None, config=CONFIGS[config])
    np.testing.assert_array_equal(result.graph.constants["conv v1.w"], q)
    image = {"x": (rng.integers(-128, 128, (1, channels, 5, 5)) * 0.03).astype(np.float32)}
    assert deviations(result, evaluate_all(prepared, image).__getitem__)["conv v1"] <= 1
    (layer,) = result.layers
    assert layer.error < 0.5


def refusal(graph: Graph, config: VTAConfig = CONFIGS["base"]) -> str:
    with pytest.raises(QuantizeError) as caught:
        quantize(prepare(graph, config), None, config=config)
    return str(caught.value)


def one_conv(pair: FakeQuantize, w: Array, scale: float | None) -> Graph:
    b = Builder()
    x = b(pair, b.input(1, 8, 6, 6), name="xq")
    graph = b.graph(b(step(0.1), b(Conv(), x, b.constant(w.astype(np.float32), "w"), name="c")))
    return graph if scale is None else given_weights(graph, {"w": np.full(len(w), scale)})


@pytest.mark.parametrize("config", CONFIGS)
def test_the_least_weight_may_have_been_negated(config: str) -> None:
    graph = one_conv(step(0.1), -np.arange(-128, 128, 8).reshape(4, 8, 1, 1) * 0.01, 0.01)
    x = {"x": floats(1, 8, 6, 6)}
    (name,) = graph.outputs
    found = evaluate(quantize(prepare(graph, CONFIGS[config]), None, config=CONFIGS[config]).graph, x)[name]
    assert np.abs(evaluate(graph, x)[name] - found).max() < 0.11


def test_refusals() -> None:
    w = np.full((4, 8, 1, 1), 2.0)
    wide = one_conv(FakeQuantize(scale=0.5, lo=-100, hi=156), w, None)
    assert refusal(wide) == (
        "Layer 'conv c': node 'fake_quantize xq' must quantise to at most 256 integers, not to -100..156 (zero "
        "point taken off): quantise activations to 8 bits"
    )
    assert refusal(one_conv(step(0.5), w, 0.01)) == (
        "Layer 'conv c': weights must be -128..127 once their zero point is taken off, not 0..200: "
        "quantise the model with symmetric weights of int8"
    )
    small = {"log_inp_buff_size": 12, "log_wgt_buff_size": 14, "log_acc_buff_size": 14, "log_uop_buff_size": 12}
    narrow = replace(VTAConfig(), log_inp_width=2, log_wgt_width=2, **small)
    assert refusal(one_conv(step(0.5), w, 0.1), narrow).endswith("quantise activations to 4 bits")
    b = Builder()
    free = b(Conv(), b(step(0.5), b.input(1, 8, 6, 6)), b.constant(floats(8, 8, 1, 1)), name="c")
    graph = b.graph(b(step(0.5), b(Conv(), free, b.constant(floats(8, 8, 1, 1)))))
    assert refusal(graph) == "Layer 'conv c': value 'c' must have a scale in the model, or calibration inputs be given"


def test_what_the_model_does_not_give_is_calibrated() -> None:
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    conv = b(Conv(), x, b.constant(floats(8, 8, 1, 1)), name="free")
    graph = b.graph(b(step(0.2), b(Conv(), conv, b.constant(floats(8, 8, 1, 1, seed=1)), name="fixed")))
    result = quantize_model(graph, [{"x": floats(4, 8, 6, 6)}], config=VTAConfig())
    assert [layer.scale_method for layer in result.layers] == [Method.CALIBRATED, Method.GIVEN]
    assert result.layers[1].output_scale == float(np.float32(0.2))


def test_powers_of_two_round_given_weights_anew() -> None:
    options = QuantizeOptions(multiply=False)
    graph = quantize(prepare(fused(), VTAConfig()), None, config=VTAConfig(), options=options).graph
    assert "pre_shift" not in to_text(graph)
    for node in graph.nodes:
        if node.op.kind == "qconv2d":
            assert set(graph.constants[node.inputs[2]].tolist()) == {1}
    program = compile_graph(place(graph, VTAConfig()), VTAConfig())
    insns = ISA(program.config).decode_program(program.insns)
    assert not any(isinstance(insn, Alu) and insn.alu_opcode is AluOp.MUL for insn in insns)


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_biases_and_single_weights_are_as_exact_as_the_rest(isa: str) -> None:
    """A bias that is no whole number of products, and one that follows a product with a weight for each channel."""
    config = replace(VTAConfig(), isa=isa)
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    w = b.constant((np.random.default_rng(1).integers(-127, 128, (8, 8, 1, 1)) * 0.001).astype(np.float32), "w")
    conv = b(step(0.03), b(Conv(), x, w, b.constant(floats(8))))
    parameters = [b.constant(np.abs(floats(8, seed=seed)) + 0.1) for seed in range(4)]
    graph = given_weights(b.graph(b(step(0.05), b(BatchNorm(), conv, *parameters))), {"w": np.full(8, 0.001)})
    result = quantize(prepare(graph, config), None, config=config)
    kinds = [node.op.kind for node in result.graph.nodes]
    first = "exact_conv2d" if isa == "tvm" else "rescaled_conv2d"
    assert kinds == ["quantize", first, "qconv2d", "dequantize"]
    assert max(layer.error for layer in result.layers) < 2**-15
    image = {"x": floats(32, 8, 6, 6, seed=5)}
    (name,) = graph.outputs
    exact, found = (evaluate(rebatched(each, 32), image)[name] for each in (graph, result.graph))
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("options", [QuantizeOptions(), QuantizeOptions(max_shift=15)])
def test_shifts_are_large_where_weights_are_given(options: QuantizeOptions) -> None:
    result = quantize(prepare(fused(), VTAConfig()), None, config=VTAConfig(), options=options)
    shifts = [layer.shift for layer in result.layers if "conv2d" in layer.kind]
    assert (max(shifts) > 15) == (options.max_shift is None)


@pytest.mark.parametrize("config", CONFIGS)
def test_integers_that_only_the_host_touches_may_be_any(config: str) -> None:
    """Those of a sigmoid, from 0 on, and what is made of them before and behind symmetric ones."""
    b = Builder()
    positive = FakeQuantize(scale=1 / 256, lo=0, hi=255)
    x = b(MaxPool(kernel=(2, 2)), b(positive, b(Pointwise(function="sigmoid"), b.input(1, 8, 6, 6))))
    conv = b(step(0.05), b(Conv(), b(step(0.01), x), b.constant(floats(8, 8, 1, 1) / 4)))
    gate = b(positive, b(Pointwise(function="sigmoid"), conv))
    graph = b.graph(b(positive, b(Add(), gate, gate)), b(Softmax(axis=1), gate))
    result = quantize_model(graph, None, config=CONFIGS[config])
    assert [layer.node for layer in result.layers if "conv" in layer.kind] == ["conv v4"]
    inputs = {"x": floats(1, 8, 6, 6, seed=3)}
    exact, found = evaluate(graph, inputs), evaluate(result.graph, inputs)
    for name in graph.outputs:
        assert np.abs(exact[name] - found[name]).max() < 0.03


def other_readers(kind: str) -> Graph:
    """A convolution that is read on two grids, on one and as reals, or on one behind a concatenation."""
    b = Builder()
    x = b(step(0.02), b.input(1, 8, 6, 6))
    conv = b(Conv(), x, b.constant(floats(8, 8, 1, 1) / 4), name="c")
    if kind == "input":
        conv = "x"
    first = b(step(0.02), conv)
    match kind:
        case "two" | "input":
            second = b(step(0.031), conv)
        case "reals":
            second = b(Pointwise(function="sigmoid"), conv)
        case "concat":
            second = b(step(0.031), b(Concat(axis=1), conv, conv))
        case _:
            second = conv
    return b.graph(first, second)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", ["two", "input", "reals", "concat", "output"])
def test_each_reader_of_a_value_has_its_own_steps(kind: str, config: str) -> None:
    graph = other_readers(kind)
    result = quantize_model(graph, None, config=CONFIGS[config])
    x = {"x": floats(1, 8, 6, 6, seed=3)}
    exact, found = evaluate(graph, x), evaluate(result.graph, x)
    steps = (0.02, 0.031 if kind in ("two", "input", "concat") else 0.0)
    for name, size in zip(graph.outputs, steps, strict=True):
        assert np.abs(exact[name] - found[name]).max() <= 1.001 * size + 1e-6
    losses = signal_to_noise(prepare(graph, CONFIGS[config]), result, [x])
    assert all(loss.own > 20 for loss in losses)


def test_what_lacks_a_scale_is_computed_in_float() -> None:
    """Pixels less a mean before the first pair, a pool between, and a last layer without a pair behind it."""
    b = Builder()
    centred = b(Pointwise(function="subtract"), b.input(1, 8, 6, 6), b.constant(floats(1, 8, 1, 1)))
    conv = b(Conv(), b(step(0.03), centred), b.constant(floats(8, 8, 1, 1) / 4), name="c")
    pool = b(GlobalAveragePool(), b(Relu(), b(step(0.03), conv)))
    graph = b.graph(b(Conv(), b(step(0.01), pool), b.constant(floats(4, 8, 1, 1) / 4), name="last"))
    result = quantize_model(graph, None, config=VTAConfig())
    x = {"x": floats(1, 8, 6, 6, seed=3)}
    (name,) = graph.outputs
    exact, found = evaluate(graph, x)[name], evaluate(result.graph, x)[name]
    assert np.abs(exact - found).max() < 0.03
    assert [node.op.kind for node in result.graph.nodes if node.op.kind.startswith("q")].count("qconv2d") == 1
