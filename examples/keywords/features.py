"""What the network hears: ten mel-frequency cepstral coefficients (MFCC) in each of 49 frames of a second.

Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in Continuously
Spoken Sentences", 1980, with the numbers of Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017:
frames of 40 ms every 20 ms, 40 mel bands from 20 to 4000 Hz, the first ten coefficients.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from examples.keywords.speech import SAMPLE_RATE

WINDOW, HOP = 640, 320
"""Samples of a frame and from one to the next."""

TRANSFORM: Final = 1024
"""Samples of the Fourier transform, so that the lowest bands have frequencies in them."""

BANDS, LOWEST, HIGHEST = 40, 20.0, 4000.0
"""Mel bands, and their ends in Hz."""

COEFFICIENTS: Final = 10
FRAMES: Final = 1 + (SAMPLE_RATE - WINDOW) // HOP

FLOOR: Final = 1e-9
"""Power that silence has, of a full-scale sine's 0.25: below 16-bit rounding noise."""

MEAN: Final = (-93.4, 4.2, 1.5, 0.0, -0.1, 0.1, 0.1, 0.2, 0.2, 0.1)
DEVIATION: Final = (16.9, 5.2, 2.8, 3.0, 2.4, 2.1, 1.8, 1.5, 1.5, 1.4)
"""Of each coefficient over the training clips: normalised, all suit one scale, as int8 wants it."""


def network_input(waves: NDArray[np.floating]) -> NDArray[np.float32]:
    """float32 [N, 1, 49, 10]: normalised coefficients of waves [N, 16000]. Raises ValueError for another length."""
    found = (mfcc(waves) - np.array(MEAN)) / np.array(DEVIATION)
    result: NDArray[np.float32] = found[:, None].astype(np.float32)
    return result


def mfcc(waves: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64 [N, 49, 10] of waves [N, 16000], which are within -1..1. Raises ValueError for another shape."""
    if waves.ndim != 2 or waves.shape[1] != SAMPLE_RATE:
        raise ValueError(f"Waves must be [N, {SAMPLE_RATE}], one second each, not {list(waves.shape)}")
    frames = np.lib.stride_tricks.sliding_window_view(waves, WINDOW, axis=1)[:, ::HOP]
    window = np.hanning(WINDOW + 1)[:-1]
    power = np.abs(np.fft.rfft(frames * (window / window.sum()), TRANSFORM)) ** 2
    found: NDArray[np.float64] = np.log(power @ mel_filters() + FLOOR) @ cosines()
    return found


@cache
def mel_filters() -> NDArray[np.float64]:
    """float64 [513, 40]: what each frequency of the transform adds to each band, triangles equally wide in mel."""
    edges = np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2)
    frequencies = _mel(np.arange(TRANSFORM // 2 + 1) * (SAMPLE_RATE / TRANSFORM))[:, None]
    step = edges[1] - edges[0]
    filters: NDArray[np.float64] = np.maximum(0.0, 1.0 - np.abs(frequencies - edges[1:-1]) / step)
    return filters


@cache
def cosines() -> NDArray[np.float64]:
    """float64 [40, 10]: the orthonormal discrete cosine transform (DCT-II), its first ten coefficients."""
    angles = np.pi / BANDS * np.outer(np.arange(BANDS) + 0.5, np.arange(COEFFICIENTS))
    lengths = np.where(np.arange(COEFFICIENTS) == 0, 1.0, 2.0) / BANDS
    return np.cos(angles) * np.sqrt(lengths)


def _mel(frequency: Any) -> Any:
    """Hz to mel (O'Shaughnessy 1987)."""
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)
