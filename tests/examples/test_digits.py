"""The demo network and its data, as installed: what the documentation says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph, Place
from compiler.graph.passes.pipeline import quantize_model
from compiler.graph.quantize.calibrate import Calibration
from compiler.graph.quantize.values import QuantizeOptions
from vta.demo.data import load_digits, model_bytes
from vta_hw.spec.config import VTAConfig

DIGITS = load_digits()
IMAGES, LABELS = DIGITS.inputs(DIGITS.test), DIGITS.targets(DIGITS.test)


def predictions(graph: Graph) -> NDArray[np.int64]:
    """int64 [360]: the class that the network finds for each held-out image."""
    probabilities = evaluate(rebatched(graph, len(IMAGES)), {"image": IMAGES})["probabilities"]
    found: NDArray[np.int64] = probabilities.argmax(axis=1)
    return found


def accuracy(graph: Graph) -> float:
    return float((predictions(graph) == LABELS).mean())


def test_data_is_the_whole_set_with_the_documented_split() -> None:
    assert DIGITS.images.shape == (1797, 8, 8)
    assert (DIGITS.images.min(), DIGITS.images.max()) == (0, 16)
    assert np.bincount(DIGITS.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    order = np.random.default_rng(1797).permutation(1797)
    np.testing.assert_array_equal(DIGITS.test, np.sort(order[:360]))
    np.testing.assert_array_equal(DIGITS.train, np.sort(order[360:]))
    assert IMAGES.shape == (360, 1, 8, 8)
    assert IMAGES.dtype == np.float32
    assert IMAGES.max() == 1


def test_data_equals_what_scikit_learn_distributes() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is only needed for training")
    original = datasets.load_digits()
    np.testing.assert_array_equal(DIGITS.images, original.images)
    np.testing.assert_array_equal(DIGITS.labels, original.target)


def test_network_has_the_documented_size_and_every_operation() -> None:
    graph = load_onnx(model_bytes(), batch=1)
    assert sum(math.prod(array.shape) for array in graph.constants.values()) == 37_962
    assert sum(node.op.macs(graph.node_types(node)[0]) for node in graph.nodes) == 1_272_448
    assert {node.op.kind for node in graph.nodes} == {
        "conv", "relu", "add", "max_pool", "global_average_pool", "reshape", "dense", "softmax",
    }  # fmt: skip
    assert [node.name for node in graph.nodes if node.op.kind in ("conv", "dense")] == [
        "stem", "residual_1", "residual_2", "down", "dense",
    ]  # fmt: skip
    assert len(model_bytes()) < 200_000


def test_float_accuracy() -> None:
    assert accuracy(load_onnx(model_bytes())) == 358 / 360


@pytest.mark.parametrize("calibration", Calibration)
def test_int8_accuracy_is_within_a_point_of_float(calibration: Calibration) -> None:
    graph = load_onnx(model_bytes())
    batches = [{"image": DIGITS.inputs(DIGITS.train)}]
    options = QuantizeOptions(calibration=calibration)
    quantized = quantize_model(graph, batches, config=VTAConfig(), options=options)
    assert accuracy(quantized.graph) >= accuracy(graph) - 0.01
    assert (predictions(quantized.graph) == predictions(graph)).mean() >= 0.99
    host = [node.op.kind for node in quantized.graph.nodes if node.placement and node.placement.place is Place.HOST]
    assert host == ["quantize", "unfold", "dequantize", "reshape", "softmax"]


def test_float_answers_equal_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    session = onnxruntime.InferenceSession(model_bytes(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": IMAGES})[0]
    actual = evaluate(load_onnx(model_bytes(), batch=len(IMAGES)), {"image": IMAGES})["probabilities"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
