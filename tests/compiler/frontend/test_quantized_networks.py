"""Quantised networks from the file to the accelerator's answers, without calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import vta
from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.passes.pipeline import quantize_model
from examples.networks.resnet import resnet
from tests.compiler.frontend.models import floats, model
from tests.compiler.frontend.quantized_models import (
    NETWORKS,
    SHAPE,
    X,
    dequantized_conv,
    integer_conv,
    quantized,
    run,
    with_all_outputs,
)
from vta.demo.data import load_digits, model_bytes
from vta_hw.spec.config import preset


@pytest.mark.parametrize(
    ("name", "form", "isa"),
    [
        ("residual", "QDQ", "tvm"),
        ("residual", "QOperator", "extended"),
        ("separable", "QDQ", "tvm"),
        ("bent", "QDQ", "tvm"),
        ("bent", "QDQ", "extended"),
        ("bent", "QOperator", "tvm"),
        ("residual", "QDQ of uint8", "extended"),
        ("separable", "QOperator of uint8", "tvm"),
        ("bent", "QDQ of uint8", "tvm"),
        ("bent", "QDQ of uint8", "extended"),
    ],
)
def test_networks_that_onnxruntime_has_quantised(name: str, form: str, isa: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    proto = quantized(NETWORKS[name](), tmp_path, operators="QOperator" in form, unsigned="uint8" in form)
    compiled = vta.compile(proto, config=replace(preset("sim"), isa=isa))
    x = floats(2, *SHAPE[1:], seed=9)
    answers = [compiled.run(x, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    scale = with_all_outputs(proto)[1]["y"]
    off = np.abs(answers[0] - run(proto, x)["y"]).max() / scale
    assert off < (0.01 if name == "residual" else 4.01)  # a mean of windows has ties, which float32 decides by chance


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_a_trained_network_is_what_onnxruntime_computes(form: str, isa: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    digits = load_digits()
    network = onnx.load_from_string(model_bytes())
    proto = quantized(network, tmp_path, operators=form == "QOperator", images=digits.inputs(digits.train[:16]))
    compiled = vta.compile(proto, config=replace(preset("sim"), isa=isa))
    images, (output,) = digits.inputs(digits.test[:32]), proto.graph.output
    off = np.abs(compiled.run(images) - run(proto, images)[output.name])
    assert off.max() < 0.01 * with_all_outputs(proto)[1][output.name]


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "QDQ of uint8"])
@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_a_deep_network_is_within_one_quantum_in_every_value(form: str, isa: str, tmp_path: Path) -> None:
    """Eighteen layers, which make several quanta of one in the first, or of 30,000 sums rounded otherwise once."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    network = resnet(18, size=32)
    images = np.random.default_rng(0).standard_normal((6, 3, 32, 32)).astype(np.float32)
    made = quantized(network, tmp_path, operators="QOperator" in form, unsigned="uint8" in form, images=images[:4])
    opened, steps = with_all_outputs(made)
    config = replace(preset("sim"), isa=isa)
    graph = rebatched(quantize_model(load_onnx(opened), None, config=config).graph, 2)
    expected, actual = run(opened, images[4:]), evaluate(graph, {"x": images[4:]})
    for name, scale in steps.items():
        assert np.abs(actual[name].reshape(expected[name].shape) - expected[name]).max() < 1.01 * scale


def test_both_forms_are_one_program() -> None:
    one, two = (vta.compile(proto) for proto in (dequantized_conv(), integer_conv()))
    x = floats(*X)
    np.testing.assert_array_equal(one.run(x), two.run(x))
    assert one.total == two.total


def test_noise_of_a_quantised_model_is_measured_from_its_own_integers() -> None:
    losses = vta.layer_noise(dequantized_conv(), calibration=floats(4, *X[1:]))
    assert [loss.kind for loss in losses] == ["exact_conv2d"]
    assert losses[0].own > 25


def test_a_result_without_a_scale_is_left_in_float() -> None:
    proto = dequantized_conv()
    del proto.graph.node[-2:]
    proto.graph.output[0].name = "c"
    x = floats(*X)
    exact = evaluate(load_onnx(proto), {"x": x})["c"]
    np.testing.assert_allclose(vta.compile(proto).run(x), exact, rtol=1e-4, atol=1e-4)
    compiled = vta.compile(proto, calibration=floats(8, *X[1:]))
    assert np.isfinite(compiled.run(x)).all()


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_means_in_the_steps_of_what_they_average(isa: str, tmp_path: Path) -> None:
    """A quarter of these means are halves: rounded upwards, each would push the mean of all by a step and a half."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("AveragePool", ["c"], ["a"], kernel_shape=[2, 2]),
        onnx.helper.make_node("AveragePool", ["a"], ["b"], kernel_shape=[2, 2]),
        onnx.helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    proto = quantized(model(nodes, {"x": SHAPE}, ["y"], {"w": floats(16, SHAPE[1], 3, 3)}, opset=21), tmp_path)
    compiled = vta.compile(proto, config=replace(preset("sim"), isa=isa))
    x = floats(8, *SHAPE[1:], seed=3)
    scale = with_all_outputs(proto)[1]["y"]
    off = (compiled.run(x) - run(proto, x)["y"]) / scale
    assert np.abs(off).max() < 3.01  # onnxruntime has them in float32, whose rounding decides halves by chance
    assert abs(off.mean()) < 0.3


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_a_product_of_wide_integers_with_zero_points(isa: str, tmp_path: Path) -> None:
    """One pixel of 18 makes a zero point far from the middle, and sums of both products that leave 32 bits."""
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    r = np.random.default_rng(8)
    w = (r.standard_normal((8, 8, 1, 1)) * 0.5).astype(np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"]), onnx.helper.make_node("Mul", ["x", "a"], ["y"])]
    x = r.standard_normal((6, 8, 6, 6)).astype(np.float32)
    x[0, 0, 0, 0] = 18
    proto = quantized(model(nodes, {"x": (1, 8, 6, 6)}, ["y"], {"w": w}, opset=21), tmp_path, unsigned=True, images=x)
    compiled = vta.compile(proto, config=replace(preset("sim"), isa=isa))
    answers = [compiled.run(x, engine) for engine in ("functional", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    assert np.abs(answers[0] - run(proto, x)["y"]).max() < 1.01 * with_all_outputs(proto)[1]["y"]


def test_uint16_behind_a_relu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    from onnxruntime.quantization import QuantType

    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"]),
        onnx.helper.make_node("Relu", ["a"], ["r"]),
        onnx.helper.make_node("Add", ["r", "x"], ["y"]),
    ]
    x = np.abs(floats(6, 8, 8, 8))
    network = model(nodes, {"x": (1, 8, 8, 8)}, ["y"], {"w": np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)}, opset=21)
    proto = quantized(network, tmp_path, unsigned=True, images=x, activation_type=QuantType.QUInt16)
    config = replace(preset("sim"), log_inp_width=4, log_inp_buff_size=16)
    found = vta.compile(proto, config=config).run(x)
    assert np.abs(found - run(proto, x)["y"]).max() < 2.01 * with_all_outputs(proto)[1]["y"]
