"""Clips of one second, of twelve classes, made from seeds: the words of Speech Commands, spoken by eSpeak NG.

    python examples/keywords/data.py [--folder FOLDER]

writes `calibration.npy`, `held_out.npy` (network inputs, float32 [N, 1, 49, 10]) and `labels.npy` (int64 [N], of the
held-out clips). The classes are those of Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech
Recognition", 2018; none of its recordings is used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.keywords.features import network_input
from examples.keywords.speech import ACCENTS, HELD_OUT_VOICES, SAMPLE_RATE, TRAINING_VOICES, Speaker

WORDS: Final = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
CLASSES: Final = ("silence", "unknown", *WORDS)
UNKNOWN: Final = (
    "bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "Marvin", "nine", "one", "seven", "Sheila",
    "six", "three", "tree", "two", "wow", "zero",
)  # fmt: skip
"""Words that are not to be told from each other."""

TRAINING_SEED, CALIBRATION_SEED, HELD_OUT_SEED = 1, 2, 3
CHUNK: Final = 256

Clips = tuple[NDArray[np.float32], NDArray[np.int64]]
"""(network inputs [N, 1, 49, 10], classes [N])."""


def training(per_class: int = 1500) -> Clips:
    """What the network is trained with. Raises ImportError where espeakng-loader is missing."""
    return clips(TRAINING_VOICES, per_class, TRAINING_SEED)


def calibration(per_class: int = 20) -> NDArray[np.float32]:
    """Network inputs to learn the ranges of activations from, of the training voices. Raises ImportError."""
    return clips(TRAINING_VOICES, per_class, CALIBRATION_SEED)[0]


def held_out(per_class: int = 200) -> Clips:
    """Clips of voices that neither training nor calibration has heard. Raises ImportError."""
    return clips(HELD_OUT_VOICES, per_class, HELD_OUT_SEED)


def clips(variants: Sequence[str], per_class: int, seed: int) -> Clips:
    """Classes in turn, `per_class` times; the same arguments give the same clips. Raises ValueError for none."""
    if per_class < 1:
        raise ValueError(f"Clips of each class must be at least 1, not {per_class}")
    speaker, rng = Speaker(), np.random.default_rng(seed)
    labels = np.tile(np.arange(len(CLASSES)), per_class)
    inputs = [
        network_input(np.stack([clip(speaker, rng, int(label), variants) for label in labels[begin : begin + CHUNK]]))
        for begin in range(0, len(labels), CHUNK)
    ]
    return np.concatenate(inputs), labels


def clip(speaker: Speaker, rng: np.random.Generator, label: int, variants: Sequence[str]) -> NDArray[np.float32]:
    """float32 [16000] within -1..1: noise, and unless the class is silence, a word somewhere in it.

    The word's mean square is 40 to 16 dB below 1, and 5 to 35 dB above that of the noise, both at random. A word that
    takes longer than a second is cut off.
    """
    level = 10 ** (-rng.uniform(16, 40) / 20)
    background = noise(rng) * level * 10 ** (-rng.uniform(5, 35) / 20)
    if CLASSES[label] == "silence":
        return np.clip(background, -1, 1).astype(np.float32)
    word = str(rng.choice(UNKNOWN)) if CLASSES[label] == "unknown" else CLASSES[label]
    spoken = speaker.say(
        word,
        str(rng.choice(ACCENTS)),
        str(rng.choice(variants)),
        rate=int(rng.integers(120, 221)),
        pitch=int(rng.integers(25, 76)),
        melody=int(rng.integers(20, 81)),
    )[:SAMPLE_RATE]
    begin = rng.integers(SAMPLE_RATE - len(spoken) + 1)
    background[begin : begin + len(spoken)] += spoken * (level / np.sqrt(np.mean(spoken**2)))
    return np.clip(background, -1, 1).astype(np.float32)


def noise(rng: np.random.Generator) -> NDArray[np.float64]:
    """float64 [16000] with a mean square of 1: power that falls with the frequency, by 0 (hiss) to 2 (rumble)."""
    frequencies = np.fft.rfftfreq(SAMPLE_RATE, 1 / SAMPLE_RATE)
    colour = np.maximum(frequencies, 50.0) ** (-rng.uniform(0, 2) / 2)
    wave: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(rng.normal(size=SAMPLE_RATE)) * colour, SAMPLE_RATE)
    wave /= np.sqrt(np.mean(wave**2))
    return wave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write (default: here)")
    folder = parser.parse_args().folder
    try:
        inputs, labels = held_out()
        samples = calibration()
    except ImportError as error:
        parser.error(str(error))
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("calibration", samples), ("held_out", inputs), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)
        print(f"{folder / name}.npy: {array.dtype} {list(array.shape)}")


if __name__ == "__main__":
    main()
