"""Quantised networks from the file to the accelerator's answers, without calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vta
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from tests.compiler.frontend.models import floats
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
    ],
)
def test_networks_that_onnxruntime_has_quantised(name: str, form: str, isa: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    proto = quantized(NETWORKS[name](), tmp_path, operators=form == "QOperator")
    compiled = vta.compile(proto, config=replace(preset("sim"), isa=isa))
    x = floats(2, *SHAPE[1:], seed=9)
    answers = [compiled.run(x, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    scale = with_all_outputs(proto)[1]["y"]
    assert np.abs(answers[0] - run(proto, x)["y"]).max() < (1.01 if name == "residual" else 4.01) * scale


def test_both_forms_are_one_program() -> None:
    one, two = (vta.compile(proto) for proto in (dequantized_conv(), integer_conv()))
    x = floats(*X)
    np.testing.assert_array_equal(one.run(x), two.run(x))
    assert one.total == two.total


def test_noise_of_a_quantised_model_is_measured_from_its_own_integers() -> None:
    losses = vta.layer_noise(dequantized_conv(), calibration=floats(4, *X[1:]))
    assert [loss.kind for loss in losses] == ["qconv2d"]
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
