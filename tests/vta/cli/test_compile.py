"""``vta compile`` on the digits network, and what `vta run` makes of its programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.frontend.quantized_models import dequantized_conv
from tests.vta.cli.conftest import Cli
from vta.demo.data import load_digits, model_bytes
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.program import Program


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder with `digits.onnx`, 32 calibration images and 3 images to run."""
    digits = load_digits()
    (tmp_path / "digits.onnx").write_bytes(model_bytes())
    np.save(tmp_path / "calibration.npy", digits.inputs(digits.train[:32]))
    np.savez(tmp_path / "calibration.npz", image=digits.inputs(digits.train[:32]))
    np.save(tmp_path / "x.npy", digits.inputs(digits.test[:3]))
    np.save(tmp_path / "flat.npy", np.zeros((4, 64), np.float32))
    np.save(tmp_path / "nan.npy", np.full((4, 1, 8, 8), np.nan, np.float32))
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "digits.vta").write_text("an ONNX model by another name")
    (tmp_path / "empty").mkdir()
    VTAConfig().save(tmp_path / "vta.json")
    return tmp_path


def test_both_targets_give_the_same_bytes(cli: Cli, model: Path) -> None:
    outcome = cli("compile", "digits.onnx", "--calibrate", "calibration.npy", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert figures["file"] == "digits.vta"
    assert figures["bytes"] == (model / "digits.vta").stat().st_size
    assert figures["batch"] == 1
    assert sum(layer["macs"] for layer in figures["layers"]) == figures["total"]["macs"] == 1_272_448
    assert all(0 <= layer["utilisation_bound"] <= 1 for layer in figures["layers"])
    assert all(layer["instructions"] > 0 for layer in figures["layers"])
    assert {"float32 input", "float32 arithmetic"} <= set(figures["hosts"].values())

    cpu = ["--target", "cpu", "-o", "cpu.vta"]
    assert cli("compile", "digits.onnx", "--calibrate", "calibration.npz", *cpu).code == 0
    assert cli("run", "digits.vta", "--input", "x.npy", "--output", "vta.npy").code == 0
    assert cli("run", "cpu.vta", "--input", "image=x.npy", "--output", "probabilities=cpu.npy").code == 0
    assert (model / "vta.npy").read_bytes() == (model / "cpu.npy").read_bytes()
    assert np.load(model / "vta.npy").shape == (3, 10)


def test_the_table_names_every_layer(cli: Cli, model: Path) -> None:
    outcome = cli("compile", "digits.onnx", "--calibrate", "calibration.npy", "--config", "ulx3s", "-o", "out.vta")
    assert outcome.code == 0
    program = Program.load(model / "out.vta")
    assert program.config == preset("ulx3s")
    for layer in program.layers:
        assert layer.name in outcome.out
    assert "out.vta: " in outcome.out
    table = outcome.out.split("On the host")[1]
    assert "float32 input" in table
    assert "float32 arithmetic" in table


def test_noise_names_the_layer_that_loses_most(cli: Cli, model: Path) -> None:
    arguments = ["compile", "digits.onnx", "--calibrate", "calibration.npy", "--noise"]
    text = cli(*arguments).out
    assert "Signal to noise, dB" in text
    losses = json.loads(cli(*arguments, "--json").out)["noise"]
    assert [loss["node"] for loss in losses][:2] == ["stem", "residual_1"]
    assert all(25 < loss["total"] <= loss["own"] + 1 for loss in losses)
    worst = min(losses, key=lambda loss: loss["own"])
    assert f"{worst['node']} loses most: {worst['own']:.1f} dB of its own" in text


def test_ranges_and_powers_of_two_change_the_program(cli: Cli, model: Path) -> None:
    programs = set()
    for extra in ([], ["--ranges", "min-max"], ["--ranges", "entropy"], ["--no-equalise"], ["--powers-of-two"]):
        assert cli("compile", "digits.onnx", "--calibrate", "calibration.npy", *extra).code == 0
        programs.add((model / "digits.vta").read_bytes())
    assert len(programs) == 4  # its channels are even
    factors = [buffer.name for buffer in Program.load(model / "digits.vta").buffers if buffer.name.endswith(".M")]
    assert factors == []  # shifts alone


def test_folders_of_images_calibrate(cli: Cli, model: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow: pip install vta-toolkit[images]")
    digits = load_digits()
    folder = model / "photos"
    folder.mkdir()
    for k, pixels in enumerate(digits.images[digits.train[:32]]):
        image.fromarray((pixels * 255.0 / 16).round().astype(np.uint8)).save(folder / f"{k:02}.png")
    (folder / "notes.txt").write_text("no image")
    outcome = cli("compile", "digits.onnx", "--calibrate", "photos", "--mean", "0", "--std", "1", "--noise", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert all(loss["own"] > 20 for loss in json.loads(outcome.out)["noise"])
    figures = cli("profile", "digits.onnx", "--calibrate", "photos", "--mean", "0", "--std", "1", "--json")
    assert (figures.code, figures.err) == (0, "")
    assert json.loads(figures.out)["total"]["cycles"] > 1000
    (folder / "broken.png").write_text("no image")
    refusal = cli("compile", "digits.onnx", "--calibrate", "photos").err
    assert refusal.startswith("error: photos/broken.png: must be an image: ")
    refusal = cli("compile", "digits.onnx", "--calibrate", "photos", "--std", "0").err
    assert refusal == "error: std must be positive, not 0.0\n"


def test_compiling_twice_gives_the_same_file(cli: Cli, model: Path) -> None:
    for name in ("a.vta", "b.vta"):
        assert cli("compile", "digits.onnx", "--calibrate", "calibration.npy", "-o", name).code == 0
    assert (model / "a.vta").read_bytes() == (model / "b.vta").read_bytes()


def test_the_batch_is_the_configurations_or_the_one_asked_for(cli: Cli, model: Path) -> None:
    VTAConfig(log_batch=1).save(model / "two.json")
    arguments = ["digits.onnx", "--calibrate", "calibration.npy", "--json", "--config", "two.json"]
    assert json.loads(cli("compile", *arguments).out)["batch"] == 2
    assert json.loads(cli("compile", *arguments, "--batch", "3").out)["batch"] == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.onnx"], "none.onnx: must be an ONNX file, and there is none"),
        (["."], ".: must be an ONNX file, and there is none"),
        (["digits.onnx", "--calibrate", "/dev/zero"], "/dev/zero: must be "),
        (["text.onnx"], "Model must be an ONNX file: this one is damaged, cut off, or of another kind"),
        (["digits.onnx"], "Calibration must be given for a float model: a few dozen of its inputs"),
        (
            ["digits.onnx", "--calibrate", "flat.npy"],
            "Calibration 'image' must be float32 [N, 1, 8, 8], not float32 [4, 64]",
        ),
        (["digits.onnx", "--calibrate", "nan.npy"], "Value 'image': Calibration must give finite values, not nan"),
        (["digits.onnx", "--calibrate", "text.onnx"], "text.onnx: must be a NumPy file (.npy or .npz), and is none: "),
        (
            ["digits.onnx", "--ranges", "entrophy"],
            "Ranges must be one of 'min-max', 'percentile', 'mse', 'entropy', not 'entrophy'; did you mean 'entropy'?",
        ),
        (["digits.onnx", "--noise"], "--noise must be given with --calibrate, on whose images it is measured"),
        (["digits.onnx", "--mean", "a"], "--mean must be numbers with commas between them, not 'a'"),
        (
            ["digits.onnx", "--calibrate", "calibration.npy", "--std", "1"],
            "--mean and --std must be given with --calibrate FOLDER, for whose images they are",
        ),
        (["digits.onnx", "--calibrate", "empty"], "empty: must have images (.bmp, .gif, .jpeg, .jpg, .png, .tif, "),
        (["digits.onnx", "--target", "gpu"], "Target must be one of 'vta', 'cpu', not 'gpu'"),
        (["digits.onnx", "--batch", "0"], "Batch must be an integer from 1 to 4096, not 0"),
        (["digits.onnx", "--config", "tinny"], "configuration must be a file or one of "),
        (["digits.onnx", "--calibrate", "calibration.npy", "-o", "no/out.vta"], "no/out.vta: the directory must exist"),
        (
            ["digits.onnx", "-o", "digits.onnx"],
            "--output must be a file of its own, not be 'digits.onnx' like MODEL.onnx",
        ),
        (["digits.vta"], "--output must be a file of its own, not be 'digits.vta' like MODEL.onnx"),
        (
            ["digits.onnx", "--calibrate", "nan.npy", "-o", "nan.npy"],
            "--output must be a file of its own, not be 'nan.npy' like --calibrate",
        ),
        (
            ["digits.onnx", "--config", "vta.json", "-o", "vta.json"],
            "--output must be a file of its own, not be 'vta.json' like --config",
        ),
    ],
)
def test_refusals(cli: Cli, model: Path, arguments: list[str], sentence: str) -> None:
    before = set(model.iterdir())
    outcome = cli("compile", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert set(model.iterdir()) == before


def test_a_quantised_model_needs_no_calibration(cli: Cli, model: Path) -> None:
    (model / "quantized.onnx").write_bytes(dequantized_conv().SerializeToString())
    outcome = cli("compile", "quantized.onnx")
    assert (outcome.code, outcome.err) == (0, "")
    assert "conv" in outcome.out
