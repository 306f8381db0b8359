"""How far the values of a network reach: histograms of magnitudes, and the threshold each method reads from them."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate_all
from compiler.graph.ir import Array, Graph
from compiler.tensor.ir import DType

BINS = 4096
MSE_CANDIDATES = 128
ENTROPY_CANDIDATES = 64


class Calibration(enum.Enum):
    """Which magnitude is represented by the largest integer.

    MIN_MAX: the largest seen. PERCENTILE: the one that a given share of all values does not exceed. MSE: the one with
    the least expected squared error, of rounding below it and of clipping above it. ENTROPY: the one whose integers
    have the distribution nearest to that of the values (Migacz, "8-bit Inference with TensorRT", 2017).
    """

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


@dataclass
class Magnitudes:
    """Histogram of |x| over any number of arrays; bin k counts (k*width, (k+1)*width], zeros are in bin 0.

    The width is a power of two and doubles when a larger value comes, so that nothing needs to be known beforehand.
    totals: sum of each channel, of arrays [N,C,H,W]; pixels: how many elements of a channel are in it.
    """

    width: float = 0.0
    largest: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    totals: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    pixels: int = 0

    def add(self, values: Array) -> None:
        """Count one array. Raises QuantizeError when a value is not finite."""
        magnitudes = np.abs(values).ravel()
        top = float(magnitudes.max(initial=0.0))
        if not math.isfinite(top):
            raise QuantizeError(f"Calibration must give finite values, not {top}")
        self.largest = max(self.largest, top)
        if top and not self.width:
            self.width = 2.0 ** (math.frexp(top)[1] - int(math.log2(BINS)))
        while top > self.width * BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        bins = np.ceil(magnitudes / (self.width or 1.0)).astype(np.int64) - 1
        self.counts = self.counts + np.bincount(np.maximum(bins, 0), minlength=BINS)
        if values.ndim == 4:
            totals = values.sum(axis=(0, 2, 3), dtype=np.float64)
            self.totals = totals if not self.pixels else self.totals + totals
            self.pixels += values.size // values.shape[1]

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each channel, float64 [C]."""
        return self.totals / self.pixels

    def percentile(self, percent: float) -> float:
        """Smallest bin edge that at least `percent` percent of the values do not exceed; at most the largest value."""
        wanted = percent / 100 * self.counts.sum()
        edge = int(np.searchsorted(np.cumsum(self.counts), wanted)) + 1
        return min(edge * self.width, self.largest)

    def least_squares(self, levels: int) -> float:
        """Threshold with the least expected squared error for integers up to `levels`, of `MSE_CANDIDATES` tried."""
        centres = (np.arange(BINS) + 0.5) * self.width
        best, best_error = self.largest, math.inf
        for k in range(MSE_CANDIDATES, 0, -1):
            threshold = self.largest * k / MSE_CANDIDATES
            clipped = np.maximum(centres - threshold, 0.0)
            error = float(self.counts @ np.where(clipped > 0, clipped**2, (threshold / levels) ** 2 / 12))
            if error < best_error:
                best, best_error = threshold, error
        return best

    def least_divergence(self, levels: int) -> float:
        """Threshold with the least divergence of the values from integers up to `levels`, of `ENTROPY_CANDIDATES`.

        Zeros are left out: they are exact whatever the threshold is, and would hide all else behind a ReLU.
        """
        counts = self.counts.astype(np.float64)
        counts[0] = 0
        best, least = self.largest, math.inf
        used = math.ceil(self.largest / self.width) if self.width else 0
        for k in range(ENTROPY_CANDIDATES, 0, -1):
            bins = used * k // ENTROPY_CANDIDATES
            if bins <= levels:
                break
            kept = counts[:bins].copy()
            kept[-1] += counts[bins:].sum()  # what is clipped has the largest integer
            divergence = _divergence(kept, counts[:bins], levels)
            if divergence < least:
                best, least = min(bins * self.width, self.largest), divergence
        return best

    def threshold(self, method: Calibration, *, percent: float, levels: int) -> float:
        """The magnitude that the largest integer represents; 0.0 when only zeros were seen."""
        match method:
            case Calibration.MIN_MAX:
                return self.largest
            case Calibration.PERCENTILE:
                return self.percentile(percent)
            case Calibration.MSE:
                return self.least_squares(levels)
            case Calibration.ENTROPY:
                return self.least_divergence(levels)


def _divergence(kept: NDArray[np.float64], counts: NDArray[np.float64], levels: int) -> float:
    """Kullback-Leibler divergence of what is kept from `counts` if each of `levels` runs of bins were one integer."""
    run = np.arange(len(counts)) * levels // len(counts)
    filled = counts > 0
    totals = np.bincount(run, counts, levels)
    members = np.bincount(run, filled, levels)
    spread = np.where(filled, (totals / np.maximum(members, 1))[run], 0.0)
    if not kept.sum() or not spread.sum():
        return math.inf
    p, q = kept / kept.sum(), spread / spread.sum()
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))).sum())


def measure(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> dict[str, Magnitudes]:
    """Magnitudes of every float value that is an input or computed, over all batches; a batch has any number of images.

    Raises QuantizeError when there is no batch, or a value is not finite (naming it).
    """
    names = [name for name, t in graph.types.items() if t.dtype is DType.FLOAT32 and name not in graph.constants]
    seen = {name: Magnitudes() for name in names}
    graphs: dict[int, Graph] = {}
    for batch in batches:
        size = len(batch[graph.inputs[0].name])
        if size not in graphs:
            graphs[size] = rebatched(graph, size)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
            values = evaluate_all(graphs[size], batch)
        for name in names:
            try:
                seen[name].add(values[name])
            except QuantizeError as error:
                raise QuantizeError(f"Value {name!r}: {error}") from None
    if not graphs:
        raise QuantizeError("Calibration must have at least one batch, not none")
    return seen
