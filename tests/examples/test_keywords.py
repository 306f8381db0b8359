"""The keyword network: what it hears, how well, and that every value in it is the same on all engines.

Speech needs espeakng-loader; the rest does not.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import digits
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph, Place
from compiler.graph.passes.pipeline import quantize_model
from compiler.graph.quantize.values import QuantizeOptions
from examples.keywords import data, speech
from examples.keywords.data import CLASSES, Clips, calibration, held_out
from examples.keywords.features import mel_filters, mfcc, network_input
from examples.keywords.speech import ACCENTS, HELD_OUT_VOICES, TRAINING_VOICES, Speaker, resampled
from examples.networks.build import KEYWORDS
from tests.examples.every_value import check_every_value
from vta_hw.spec.config import VTAConfig

needs_speech = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng-loader comes with the extra networks"
)
on_each_machine = pytest.mark.parametrize(
    ("isa", "multiply"), [("tvm", True), ("extended", True), ("tvm", False)], ids=["base", "extended", "powers of two"]
)
USUAL: dict[str, Any] = {"rate": 160, "pitch": 50, "melody": 50}


def sounds(count: int) -> NDArray[np.float32]:
    """Network inputs, as widely spread as features are."""
    return np.random.default_rng(0).normal(0, 1, (count, 1, 49, 10)).astype(np.float32)


def waves(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0, 0.1, (count, 16_000))


# Features


def test_a_frame_is_what_the_formula_gives() -> None:
    """The coefficients of the fifth frame, every sum written out, frequencies by the other formula for mel."""
    (wave,) = waves(1)
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / 640) for n in range(640)])
    frame = window / sum(window) * wave[4 * 320 : 4 * 320 + 640]
    power = [abs(sum(frame * np.exp(-2j * np.pi * k / 1024 * np.arange(640)))) ** 2 for k in range(513)]

    def mel(frequency: float) -> float:
        return 2595 * math.log10(1 + frequency / 700)

    ends = np.linspace(mel(20), mel(4000), 42)
    heard = [mel(k * 16_000 / 1024) for k in range(513)]
    logs = [math.log(sum(np.interp(heard, ends[b : b + 3], (0, 1, 0)) * power) + 1e-9) for b in range(40)]
    expected = [
        math.sqrt((2 if c else 1) / 40) * sum(logs[b] * math.cos(math.pi * c * (b + 0.5) / 40) for b in range(40))
        for c in range(10)
    ]
    np.testing.assert_allclose(mfcc(wave[None])[0, 4], expected, atol=2e-3)


def test_loudness_is_in_the_first_coefficient_alone() -> None:
    wave = waves(3)
    difference = mfcc(2 * wave) - mfcc(wave)
    np.testing.assert_allclose(difference[..., 0], math.log(4) * math.sqrt(40), rtol=1e-3)
    np.testing.assert_allclose(difference[..., 1:], 0, atol=1e-2)


def test_a_sound_that_is_later_by_a_hop_is_a_frame_later() -> None:
    wave = waves(1)
    np.testing.assert_allclose(mfcc(np.roll(wave, 320, axis=1))[:, 1:], mfcc(wave)[:, :-1], rtol=1e-9)


def test_bands_overlap_by_half_and_silence_is_finite() -> None:
    sums = mel_filters().sum(axis=1)
    frequencies = np.arange(513) * 15.625
    np.testing.assert_allclose(sums[(frequencies > 50) & (frequencies < 3750)], 1)
    assert not sums[(frequencies < 20) | (frequencies > 4000)].any()
    assert np.isfinite(network_input(np.zeros((1, 16_000)))).all()


def test_features_are_of_seconds() -> None:
    with pytest.raises(ValueError, match=r"^Waves must be \[N, 16000\], one second each, not \[1, 8000\]$"):
        mfcc(np.zeros((1, 8000)))


@pytest.mark.parametrize("old", [22_050, 8000])
def test_resampling_keeps_a_tone(old: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(old) / old)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resampled(tone, old, 16_000), expected, atol=1e-5)


# Network


@cache
def loaded() -> Graph:
    return load_onnx(KEYWORDS)


def test_network_has_the_documented_size() -> None:
    graph = load_onnx(KEYWORDS, batch=1)
    assert sum(array.size for array in graph.constants.values() if array.dtype == np.float32) == 22_604
    assert sum(node.op.macs(graph.node_types(node)[0]) for node in graph.nodes) == 2_656_768
    assert KEYWORDS.stat().st_size < 60_000
    blocks = [f"{kind}_{block}" for block in range(1, 5) for kind in ("depthwise", "pointwise")]
    assert [node.name for node in graph.nodes if node.op.kind in ("conv", "dense")] == ["stem", *blocks, "dense"]


def test_float_answers_equal_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    session = onnxruntime.InferenceSession(KEYWORDS, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"sound": sounds(5)})[0]
    actual = evaluate(load_onnx(KEYWORDS, batch=5), {"sound": sounds(5)})["probabilities"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@on_each_machine
def test_every_value_is_that_of_the_reference(isa: str, multiply: bool) -> None:
    """Functional and cycle engine."""
    config, options = VTAConfig(isa=isa), QuantizeOptions(multiply=multiply)
    quantized = quantize_model(loaded(), [{"sound": sounds(4)}], config=config, options=options)
    host = [node.op.kind for node in quantized.graph.nodes if node.placement and node.placement.place is Place.HOST]
    assert host == ["quantize", "unfold", "dequantize", "reshape", "softmax"]
    check_every_value(quantized.graph, config, {"sound": sounds(1)})


# Speech


@cache
def unheard() -> Clips:
    """Twenty clips of each class."""
    return held_out(20)


def found(graph: Graph) -> NDArray[np.int64]:
    """int64 [240]: the class that the network finds for each of the clips."""
    inputs, _ = unheard()
    classes: NDArray[np.int64] = evaluate(rebatched(graph, len(inputs)), {"sound": inputs})["probabilities"].argmax(1)
    return classes


@needs_speech
@on_each_machine
def test_int8_accuracy_is_within_a_point_of_float(isa: str, multiply: bool) -> None:
    """Of 240 clips; bench/accuracy.py has 2400."""
    exact = found(loaded())
    assert (exact == unheard()[1]).mean() >= 0.94
    config, options = VTAConfig(isa=isa), QuantizeOptions(multiply=multiply)
    quantized = quantize_model(loaded(), [{"sound": calibration()}], config=config, options=options)
    answers = found(quantized.graph)
    assert (answers == unheard()[1]).mean() >= (exact == unheard()[1]).mean() - 0.01
    assert (answers == exact).mean() >= 0.98


def family(variant: str) -> str:
    """The name without its number; f1 and f2 are as different as any two names."""
    return variant if len(variant) == 2 else variant.rstrip(digits)


def test_voices_of_a_family_are_on_one_side() -> None:
    assert not {*map(family, TRAINING_VOICES)} & {*map(family, HELD_OUT_VOICES)}


@needs_speech
def test_clips_are_made_again_and_balanced() -> None:
    """Bit by bit, also after other words have been spoken in the process."""
    inputs, labels = data.clips(HELD_OUT_VOICES, 2, seed=5)
    again, _ = data.clips(HELD_OUT_VOICES, 2, seed=5)
    np.testing.assert_array_equal(inputs, again)
    assert inputs.shape == (24, 1, 49, 10)
    assert inputs.dtype == np.float32
    assert np.bincount(labels).tolist() == [2] * len(CLASSES)
    assert (inputs[:12] != inputs[12:]).all(axis=(1, 2, 3)).all()


def test_no_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^Clips of each class must be at least 1, not 0$"):
        held_out(0)


@needs_speech
def test_words_voices_and_rates_are_heard() -> None:
    speaker = Speaker()
    for accent in ACCENTS:
        for variant in (*TRAINING_VOICES, *HELD_OUT_VOICES):
            spoken = speaker.say("go", accent, variant, **USUAL)
            assert 0.1 < len(spoken) / 16_000 < 1
            assert 0.05 < np.abs(spoken).max() < 1.1
    slow, fast = (len(speaker.say("seven", "en", "f2", rate=rate, pitch=50, melody=50)) for rate in (100, 200))
    assert slow > 1.5 * fast


@needs_speech
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"variant": "nobody"}, "Variant must be one of eSpeak NG's, not 'nobody'"),
        ({"accent": "xx"}, "Accent must be a language of eSpeak NG, not 'xx'"),
        ({"rate": 20}, "Rate must be 80..450, not 20"),
        ({"pitch": 101}, "Pitch must be 0..100, not 101"),
        ({"melody": -1}, "Melody must be 0..100, not -1"),
    ],
)
def test_what_cannot_be_spoken_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Speaker().say("go", **{"accent": "en", "variant": "f2", **USUAL, **given})
    assert str(caught.value) == sentence


def test_without_the_package_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speech, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["data.py"])
    with pytest.raises(SystemExit):
        data.main()
    assert capsys.readouterr().err.endswith("error: Speech is made with eSpeak NG: pip install espeakng-loader\n")


def test_the_script_writes_what_compilation_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "held_out", lambda: (sounds(3), np.arange(3)))
    monkeypatch.setattr(data, "calibration", lambda: sounds(2))
    monkeypatch.setattr(sys, "argv", ["data.py", "--folder", str(tmp_path / "new")])
    data.main()
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path / 'new' / 'calibration.npy'}: float32 [2, 1, 49, 10]"
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "held_out.npy"), sounds(3))
    assert np.load(tmp_path / "new" / "labels.npy").tolist() == [0, 1, 2]
