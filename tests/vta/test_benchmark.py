"""Networks on this CPU beside onnxruntime, and without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from vta.benchmark import Result, benchmark, onnxruntime_version
from vta.demo.data import load_digits, model_bytes
from vta.errors import ApiError
from vta.timing import Time
from vta_hw.spec.config import VTAConfig

DIGITS = load_digits()
IMAGES = DIGITS.inputs(DIGITS.train[:16])


def digits(calibration: np.ndarray | None = IMAGES, repeat: int = 2) -> tuple[Result, ...]:
    return benchmark("digits", model_bytes(), config=VTAConfig(), calibration=calibration, repeat=repeat)


def test_in_float_and_in_integers_beside_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    results = digits()
    assert [(r.network, r.numbers, r.batch) for r in results] == [("digits", "float32", 1), ("digits", "int8", 1)]
    for result, tolerance in zip(results, (1e-5, 0.1), strict=True):
        assert result.other is not None
        assert result.ratio == result.other.time.best / result.ours.best > 0
        assert 0 < result.other.difference < tolerance
        assert 0 < result.ours.best <= result.ours.median
        assert result.as_dict()["onnxruntime"] == result.other.time.as_dict()
        assert result.as_dict()["onnxruntime_numbers"] == result.other.numbers == "float32"


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert onnxruntime_version() is None
    (result,) = digits(calibration=None)
    assert (result.other, result.ratio) == (None, None)
    described = result.as_dict()
    assert (described["onnxruntime"], described["ratio"], described["difference"]) == (None, None, None)


def test_a_run_at_least() -> None:
    with pytest.raises(ApiError) as error:
        digits(calibration=None, repeat=0)
    assert str(error.value) == "Runs to time must be at least 1, not 0"


def test_no_ratio_of_what_takes_no_time() -> None:
    nothing = Time(best=0.0, median=0.0)
    assert Result(network="n", numbers="int8", batch=1, ours=nothing, other=None).ratio is None
