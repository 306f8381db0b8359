"""Functions made of straight lines, in integers: against the float ones, on every engine, and beside onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import vta
from compiler.errors import QuantizeError
from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate, evaluate_all
from compiler.graph.ir import Array, Graph
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import FakeQuantize, Pointwise
from compiler.graph.ops.move import Concat
from compiler.graph.ops.qelementwise import QExtreme
from compiler.graph.passes.pipeline import prepare, quantize_model
from compiler.graph.quantize.bounds import Interval, prove
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.joined import LINES
from compiler.graph.quantize.noise import signal_to_noise
from compiler.graph.quantize.report import Quantized
from compiler.graph.quantize.scaling import SumScaling, Term, scale_sum
from compiler.tensor.ir import DType
from tests.compiler.frontend.models import model
from tests.compiler.frontend.quantized_models import DEQUANTIZE, QUANTIZE, SCALES, X, f32
from tests.compiler.graph.build import Builder, floats
from tests.compiler.graph.test_upsample import MACHINES
from tests.examples.every_value import check_every_value
from vta_hw.spec.config import VTAConfig

node = helper.make_node
CONFIG = VTAConfig()
BOTH = {"base": CONFIG, "extended": VTAConfig(isa="extended")}
SHAPE = (1, 16, 5, 6)

FUNCTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "leaky": ("leaky_relu", (0.1,)),
    "steep": ("leaky_relu", (1.5,)),
    "mirrored": ("leaky_relu", (-0.3,)),
    "abs": ("abs", ()),
    "negative": ("negative", ()),
    "hard sigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "falling": ("hard_sigmoid", (-0.1, 0.25)),
    "hard swish": ("hard_swish", ()),
    "prelu": ("prelu", ()),
    "prelu of images": ("prelu", ()),
    "one slope": ("prelu", ()),
    "max": ("maximum", ()),
    "min": ("minimum", ()),
}


def test_every_function_that_makes_integers_is_tested() -> None:
    assert {function for function, _ in FUNCTIONS.values()} == LINES


def network(
    function: str, parameters: tuple[float, ...] = (), *, gain: float = 1.0, slopes: Array | None = None
) -> Graph:
    """A convolution, the function, another convolution. Functions of two read a third one, of results half as large."""
    b = Builder()
    x = b.input(*SHAPE)

    def conv(source: str, factor: float) -> str:
        w = floats(16, 16, 3, 3, seed=len(b.nodes)) / np.float32(12)
        return b(Conv(padding=(1, 1, 1, 1)), source, b.constant(w * np.float32(factor)))

    operands = [conv(x, gain)]
    if function in ("maximum", "minimum"):
        operands.append(conv(x, gain / 2))
    if slopes is not None:
        operands.append(b.constant(slopes))
    y = b(Pointwise(function=function, parameters=parameters), *operands, name="y")
    return b.graph(conv(y, 1.0))


def case(name: str, gain: float = 1.0) -> Graph:
    function, parameters = FUNCTIONS[name]
    slopes = {
        "prelu": floats(16, 1, 1, seed=7) / 4,
        "prelu of images": floats(1, 16, 1, 1, seed=8) / 4 + 2,
        "one slope": np.full((1, 1, 1, 1), 0.25, np.float32),
    }
    return network(function, parameters, gain=gain, slopes=slopes.get(name))


def images(count: int = 8, seed: int = 5) -> dict[str, Array]:
    return {"x": floats(count, *SHAPE[1:], seed=seed)}


def hosts(result: Quantized) -> list[str]:
    placements = [node.placement for node in result.graph.nodes]
    return sorted(p.reason for p in placements if p is not None and p.reason)


def check_within_error(graph: Graph, config: VTAConfig) -> None:
    """Of what the integers of its operands stand for, the function is as near as its report says."""
    result = quantize(prepare(graph, config), [images()], config=config)
    (report,) = (layer for layer in result.layers if layer.source == "y")
    values = evaluate_all(rebatched(result.graph, 8), images())
    source = graph.producers["y"]
    names = {layer.source: layer.value for layer in result.layers}
    reals = [
        values[names[name]] * np.float32(result.grids[names[name]].scale) if name in names else graph.constants[name]
        for name in source.inputs
    ]
    steps = source.op.reference(*reals).astype(np.float64) / report.output_scale
    actual = values[report.value].astype(np.float64)
    inside = np.abs(steps) <= 127
    assert np.abs(actual - steps)[inside].max(initial=0) <= report.error + 0.5001
    assert np.abs(actual[~inside]).min(initial=127) >= 126
    assert report.error <= 1.5
    assert report.accumulator_bits is not None


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("gain", [0.1, 1.0, 10.0])
def test_functions_are_as_near_as_their_reports_say(name: str, gain: float) -> None:
    check_within_error(case(name, gain), CONFIG)


@settings(max_examples=30)
@given(slope=st.floats(-3, 3, width=32), gain=st.sampled_from([0.05, 1.0, 30.0]))
def test_leaky_relu_of_any_slope(slope: float, gain: float) -> None:
    check_within_error(network("leaky_relu", (slope,), gain=gain), CONFIG)


@settings(max_examples=30)
@given(slope=st.floats(-2, 2, width=32), offset=st.floats(-2, 2, width=32), gain=st.sampled_from([0.05, 1.0, 30.0]))
def test_hard_sigmoid_of_any_line(slope: float, offset: float, gain: float) -> None:
    graph = network("hard_sigmoid", (slope, offset), gain=gain)
    if evaluate_all(rebatched(graph, 8), images())["y"].any():
        check_within_error(graph, CONFIG)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("isa", BOTH)
def test_the_accelerator_computes_them(name: str, isa: str) -> None:
    assert hosts(quantize_model(case(name), [images()], config=BOTH[isa])) == ["float32 input", "float32 result"]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_they_lose_little_more_than_by_rounding(name: str, gain: float) -> None:
    """Half a decibel more than if every integer were the nearest."""
    prepared = prepare(case(name, gain), CONFIG)
    result = quantize(prepared, [images()], config=CONFIG)
    (report,) = (layer for layer in result.layers if layer.source == "y")
    (own,) = (loss.own for loss in signal_to_noise(prepared, result, [images()]) if loss.node == report.node)
    exact = evaluate_all(rebatched(prepared, 8), images())

    def nearest(value: Array, scale: float) -> Array:
        return (np.clip(np.rint(value / scale), -128, 127) * scale).astype(np.float32)

    scales = {layer.source: layer.output_scale for layer in result.layers}
    source = prepared.producers["y"]
    operands = [nearest(exact[x], scales[x]) if x in scales else prepared.constants[x] for x in source.inputs]
    best = nearest(source.op.reference(*operands), report.output_scale)
    assert own > 10 * np.log10((exact["y"] ** 2).sum() / ((best - exact["y"]) ** 2).sum()) - 0.5


# -- on the engines


def everything() -> onnx.ModelProto:
    """Each of the functions behind a convolution, and a gate of each channel, as in MobileNet v3."""
    constants = {f"w{k}": floats(18, 18 if k else 16, 3, 3, seed=k) / np.float32(8) for k in range(4)}
    constants |= {f"p{k}": floats(18, 18, 1, 1, seed=k + 9) / np.float32(4) for k in range(3)}
    constants["slopes"] = floats(18, 1, 1, seed=3) / np.float32(4)

    def conv(x: str, w: str, y: str) -> onnx.NodeProto:
        return node("Conv", [x, w], [y], name=y, pads=[0, 0, 0, 0] if w.startswith("p") else [1, 1, 1, 1])

    nodes = [
        conv("x", "w0", "c0"),
        node("LeakyRelu", ["c0"], ["leaky"], name="leaky", alpha=0.1),
        conv("leaky", "w1", "c1"),
        node("HardSwish", ["c1"], ["swish"], name="swish"),
        conv("swish", "w2", "c2"),
        node("PRelu", ["c2", "slopes"], ["prelu"], name="prelu"),
        node("GlobalAveragePool", ["prelu"], ["squeezed"], name="squeezed"),
        conv("squeezed", "p0", "excited"),
        node("HardSigmoid", ["excited"], ["gate"], name="gate"),
        node("Mul", ["prelu", "gate"], ["gated"], name="gated"),
        node("Abs", ["gated"], ["size"], name="size"),
        node("Neg", ["size"], ["below"], name="below"),
        conv("gated", "p1", "c3"),
        node("Max", ["below", "c3"], ["larger"], name="larger"),
        node("Min", ["larger", "swish"], ["smaller"], name="smaller"),
        conv("smaller", "p2", "y"),
    ]
    return model(nodes, {"x": (1, 16, 7, 6)}, ["y"], constants, opset=21)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_network_of_all_of_them_is_the_same_on_every_engine(machine: str) -> None:
    config, count = MACHINES[machine], 1 << MACHINES[machine].log_batch
    calibration = floats(8, 16, 7, 6, seed=1)
    compiled = vta.compile(everything(), config=config, calibration=calibration)
    assert compiled.program.attributes["hosts"] == {"c0": "float32 input", "y": "float32 result"}
    x = floats(count, 16, 7, 6, seed=2)
    answers = [compiled.run(x, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    graph = rebatched(load_onnx(everything()), count)
    check_every_value(quantize_model(graph, [{"x": calibration}], config=config).graph, config, {"x": x})


# -- what stays in float


@pytest.mark.parametrize(
    "graph",
    [
        network("hard_sigmoid", (0.2, 1e9)),
        network("prelu", slopes=np.array([0.5] * 15 + [1.5], np.float32).reshape(16, 1, 1)),
        network("prelu", slopes=np.full((5, 6), 0.25, np.float32)),
        network("prelu", slopes=np.full((16, 1, 6), 0.25, np.float32)),
        network("prelu", slopes=np.array([0.5] * 15 + [-np.inf], np.float32).reshape(16, 1, 1), gain=0.0),
        network("maximum", slopes=np.zeros((1, 1, 1), np.float32)),
        network("elu", (1.0,)),
    ],
    ids=["far", "on both sides", "for each pixel", "for each column", "infinite", "three operands", "curved"],
)
def test_other_functions_are_left_to_the_host(graph: Graph) -> None:
    result = quantize_model(graph, [images()], config=CONFIG)
    assert "float32 arithmetic" in hosts(result)
    exact = evaluate_all(rebatched(graph, 8), images())[graph.outputs[0]]
    found = evaluate_all(rebatched(result.graph, 8), images())[graph.outputs[0]]
    assert ((exact - found) ** 2).mean() <= 1e-2 * (exact**2).mean()


@pytest.mark.parametrize("log_bits", [2, 4])
def test_machines_that_load_no_activations_leave_them_to_the_host(log_bits: int) -> None:
    config = VTAConfig(log_inp_width=log_bits, log_inp_buff_size=15 + log_bits - 3)
    result = quantize_model(case("leaky"), [images()], config=config)
    assert "float32 arithmetic" in hosts(result)


def test_steps_that_are_too_fine_for_the_factors_are_made_by_the_host() -> None:
    b = Builder()
    graph = b.graph(b(step(1e-8), b(Pointwise(function="abs"), b(step(0.02), b.input(*SHAPE)))))
    assert "float32 arithmetic" in hosts(quantize_model(graph, None, config=CONFIG))


# -- grids


def step(scale: float) -> FakeQuantize:
    return FakeQuantize(scale=float(np.float32(scale)), lo=-128, hi=127)


def test_the_larger_of_two_is_chosen_on_the_grid_of_its_reader() -> None:
    """Where no factors are needed."""
    b = Builder()
    x = b(step(0.02), b.input(*SHAPE))
    convs = [b(Conv(), x, b.constant(floats(16, 16, 1, 1, seed=seed) / np.float32(8))) for seed in range(2)]
    graph = b.graph(b(step(0.03), b(Pointwise(function="maximum"), *convs)))
    result = quantize(prepare(graph, CONFIG), None, config=CONFIG)
    (op,) = (node.op for node in result.graph.nodes if isinstance(node.op, QExtreme))
    assert op == QExtreme(m0=1, m1=1, lo=-128, hi=127)
    assert {layer.output_scale for layer in result.layers} == {float(np.float32(0.03))}


def test_each_reader_of_a_function_has_its_own_steps() -> None:
    b = Builder()
    conv = b(Conv(), b(step(0.02), b.input(*SHAPE)), b.constant(floats(16, 16, 1, 1) / np.float32(8)))
    leaky = b(Pointwise(function="leaky_relu", parameters=(0.1,)), b(step(0.02), conv))
    graph = b.graph(b(step(0.02), leaky), b(step(0.031), leaky))
    result = quantize_model(graph, None, config=CONFIG)
    assert [node.op.kind for node in result.graph.nodes].count("qextreme") == 2
    exact, found = (evaluate_all(rebatched(each, 8), images()) for each in (graph, result.graph))
    for name, size in zip(graph.outputs, (0.02, 0.031), strict=True):
        assert np.abs(exact[name] - found[name]).max() <= 1.001 * size


def test_a_function_is_made_on_the_grid_of_a_concatenation() -> None:
    b = Builder()
    x = b.input(*SHAPE)
    convs = [b(Conv(), x, b.constant(floats(16, 16, 1, 1, seed=seed) * np.float32(seed + 1))) for seed in range(2)]
    made = [b(Pointwise(function=name), conv) for name, conv in zip(("abs", "hard_swish"), convs, strict=True)]
    both = b(Concat(axis=1), *made)
    graph = b.graph(b(Pointwise(function="leaky_relu", parameters=(0.1,)), both))
    result = quantize_model(graph, [images()], config=CONFIG)
    assert hosts(result) == ["float32 input", "float32 result"]
    assert len({layer.output_scale for layer in result.layers if layer.source in (*made, both)}) == 1


# -- beside onnxruntime


QUANTISED: dict[str, tuple[str, dict[str, Any], float]] = {
    "LeakyRelu": ("LeakyRelu", {"alpha": 0.2}, 0.015),
    "steep LeakyRelu": ("LeakyRelu", {"alpha": 2.0}, 0.041),
    "QLinearLeakyRelu": ("QLinearLeakyRelu", {"alpha": 0.2}, 0.018),
    "PRelu": ("PRelu", {}, 0.02),
    "HardSigmoid": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}, 1 / 127),
    "HardSwish": ("HardSwish", {}, 0.02),
    "fine HardSwish": ("HardSwish", {}, 0.015),
    "Abs": ("Abs", {}, 0.02),
    "Neg": ("Neg", {}, 0.03),
    "Max": ("Max", {}, 0.02),
    "Min": ("Min", {}, 0.025),
}
"""Operator, attributes, and the step of the result; that of the operand is 0.02."""


def of_integers(op: str, attributes: dict[str, Any], scale: float) -> onnx.ModelProto:
    """The operator between a quantised input and a quantised result."""
    constants = {**SCALES, "sy": f32(scale), "slopes": np.array([0.25, -0.1, 0.9, 0.5], np.float32).reshape(4, 1, 1)}
    if op.startswith("QLinear"):
        operands = ["xq", "sx", "z", "sy", "z"]
        middle = [node(op, operands, ["yq"], name="f", domain="com.microsoft", **attributes)]
    else:
        second = {"PRelu": ["slopes"], "Max": ["zf"], "Min": ["zf"]}.get(op, [])
        middle = [
            node("DequantizeLinear", ["xq", "sx", "z"], ["xf"]),
            node("QuantizeLinear", ["z0", "sz", "z"], ["zq"]),
            node("DequantizeLinear", ["zq", "sz", "z"], ["zf"]),
            node(op, ["xf", *second], ["f"], name="f", **attributes),
            node("QuantizeLinear", ["f", "sy", "z"], ["yq"]),
        ]
        middle = middle if "zf" in second else [middle[0], *middle[3:]]
    proto = model([QUANTIZE, *middle, DEQUANTIZE], {"x": X, "z0": X}, ["y"], constants, opset=21)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.ir_version = 10
    return proto


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("isa", BOTH)
def test_quantised_functions_are_within_one_quantum_of_onnxruntime(name: str, isa: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    op, attributes, scale = QUANTISED[name]
    proto = of_integers(op, attributes, scale)
    images = {"x": floats(*X) * np.float32(1.5), "z0": floats(*X, seed=1)}
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(["y"], images)
    result = quantize_model(load_onnx(proto), None, config=BOTH[isa])
    assert "float32 arithmetic" not in hosts(result)
    off = np.abs(evaluate(result.graph, images)["y"] - expected) / scale
    assert off.max() < 1.01
    assert (off > 0.5).mean() < (0.2 if op == "HardSwish" else 0.1)


# -- the integers


@given(
    multipliers=st.lists(st.integers(-64, 64), min_size=1, max_size=2),
    bias=st.integers(-1000, 1000),
    shift=st.integers(0, 8),
)
def test_smaller_numbers_give_the_same_results(multipliers: list[int], bias: int, shift: int) -> None:
    whole = SumScaling(multipliers=tuple(multipliers), bias=bias, shift=shift, error=0.0)
    less = whole.reduced
    assert less.shift <= shift
    assert less.shift == 0 or any(m % 2 for m in less.multipliers)
    for a, c in np.random.default_rng(0).integers(-128, 128, (20, 2)).tolist():
        found = [
            sum(m * x for m, x in zip(each.multipliers, (a, c), strict=False)) + each.bias >> each.shift
            for each in (whole, less)
        ]
        assert found[0] == found[1]


def test_an_offset_must_be_an_immediate() -> None:
    line = Term(ratio=1.0, lo=-128, hi=127)
    chosen = scale_sum((line,), offset=63.5)
    assert (chosen.multipliers, chosen.bias, chosen.shift, chosen.error) == ((256,), 16384, 8, 0.0)
    with pytest.raises(QuantizeError, match=r"^an offset must be at most 32767 steps of the result, not 40000$"):
        scale_sum((line,), offset=-4e4)


def test_the_proof_finds_what_overflows() -> None:
    """Products, sums with the bias, and factors of channels."""

    def of(op: QExtreme, *factors: int) -> Graph:
        b = Builder()
        x = b.input(1, 2, 3, 3, dtype=DType.INT8)
        return b.graph(b(op, x, *([b.constant(np.array(factors, np.int32))] if factors else [])))

    op = QExtreme(m0=32767, m1=-32767, bias=32767, lo=-128, hi=127)
    assert prove(of(op))["v0"] == Interval(lo=-32767 * 128, hi=32767 * 129)
    assert prove(of(replace(op, m1=None, bias=0), -5, 1 << 24))["v0"] == Interval(lo=-(1 << 31), hi=127 << 24)
    with pytest.raises(QuantizeError) as refused:
        prove(of(replace(op, m1=None), 3, -(1 << 24)))
    assert str(refused.value) == (
        f"Layer 'qextreme v0' must stay within int32, not reach {-127 << 24}..{(128 << 24) + 32767}"
    )
