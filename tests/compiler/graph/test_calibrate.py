"""Histograms that grow, and the thresholds read from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import QuantizeError
from compiler.graph.ops.elementwise import Relu
from compiler.graph.quantize.calibrate import BINS, Calibration, Magnitudes, measure
from compiler.graph.quantize.values import QuantizeOptions
from tests.compiler.graph.build import Builder, floats


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=4))
def test_histogram_counts_every_value_whatever_the_order(batches: list[list[float]]) -> None:
    magnitudes = Magnitudes()
    for batch in batches:
        magnitudes.add(np.array(batch, np.float32))
    values = np.abs(np.array([value for batch in batches for value in batch], np.float32).astype(np.float64))
    assert magnitudes.counts.sum() == len(values)
    assert magnitudes.largest == values.max()
    assert magnitudes.largest <= magnitudes.width * BINS
    for percent in (10, 50, 90, 100):
        threshold = magnitudes.percentile(percent)
        assert np.count_nonzero(values <= threshold) >= percent / 100 * len(values) - 1e-9
        exact = np.sort(values)[int(np.ceil(percent / 100 * len(values))) - 1]
        assert threshold <= exact + magnitudes.width


def test_thresholds() -> None:
    magnitudes = Magnitudes()
    magnitudes.add(np.concatenate([floats(100_000), np.array([50.0], np.float32)]))
    found = {method: magnitudes.threshold(method, percent=99.9, levels=7) for method in Calibration}
    assert found[Calibration.MIN_MAX] == 50
    assert found[Calibration.PERCENTILE] == pytest.approx(3.29, abs=0.1)
    assert 2 < found[Calibration.MSE] < 6
    assert 2 < found[Calibration.ENTROPY] < 6


def test_mse_threshold_is_the_best_of_those_tried() -> None:
    values = np.random.default_rng(0).laplace(size=50_000).astype(np.float32)
    magnitudes = Magnitudes()
    magnitudes.add(values)

    def error(threshold: float) -> float:
        step = threshold / 7
        return float(np.square(np.clip(np.rint(values / step), -7, 7) * step - values).mean())

    best = magnitudes.least_squares(7)
    assert error(best) < 0.6 * error(magnitudes.largest)
    assert error(best) <= 1.1 * min(error(magnitudes.largest * k / 40) for k in range(1, 41))


def test_entropy_cuts_off_what_is_rare() -> None:
    """A distribution that is uniform is kept whole; of one with a peak, what lies far outside is not."""
    uniform, peak = Magnitudes(), Magnitudes()
    uniform.add(np.linspace(0.01, 1, 200_000, dtype=np.float32))
    values = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    peak.add(np.concatenate([values, np.full(3, 300, np.float32)]))
    assert uniform.least_divergence(127) > 0.9
    assert 3 < peak.least_divergence(127) < 100


def test_zeros_alone() -> None:
    magnitudes = Magnitudes()
    magnitudes.add(np.zeros(5, np.float32))
    for method in Calibration:
        assert magnitudes.threshold(method, percent=99, levels=127) == 0


def test_measure_takes_batches_of_any_size() -> None:
    b = Builder()
    graph = b.graph(b(Relu(), b.input(1, 2, 2, 2)))
    x = floats(5, 2, 2, 2)
    parts = measure(graph, [{"x": x[:2]}, {"x": x[2:]}])
    whole = measure(graph, [{"x": x}])
    for name in ("x", "v0"):
        np.testing.assert_array_equal(parts[name].counts, whole[name].counts)
        assert parts[name].largest == whole[name].largest


def test_refusals() -> None:
    b = Builder()
    graph = b.graph(b(Relu(), b.input(1, 2)))
    with pytest.raises(QuantizeError, match=r"^Calibration must have at least one batch, not none$"):
        measure(graph, [])
    with pytest.raises(QuantizeError, match=r"^Value 'x': Calibration must give finite values, not nan$"):
        measure(graph, [{"x": np.array([[1, np.nan]], np.float32)}])
    with pytest.raises(QuantizeError, match=r"^percent must be above 0 and at most 100, not 0$"):
        QuantizeOptions(percent=0)
    with pytest.raises(QuantizeError, match=r"^max_shift must be 0\.\.30, not 31$"):
        QuantizeOptions(max_shift=31)
