"""``vta compare``: tables that fit, schedules beside each other, JSON, and every refusal word for word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.vta.cli.conftest import Cli
from vta.demo.data import load_digits, model_bytes

CALIBRATED = ("digits.onnx", "--calibrate", "x.npy", "--repeat", "1")
LAYERS = ["stem", "residual_1", "residual_2", "maxpool", "down", "reducemean", "dense", "(no layer)"]
STEPS = ["stem.1", "stem.unfold", *LAYERS[:-1], "dense.1", "softmax"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    digits = load_digits()
    (tmp_path / "digits.onnx").write_bytes(model_bytes())
    np.save(tmp_path / "x.npy", digits.inputs(digits.train[:8]))


def test_figures_for_a_script(cli: Cli) -> None:
    outcome = cli("compare", *CALIBRATED, "--clock", "200", "--latency", "20", "--layer", "dense", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert list(figures) == ["config", "batch", "clock_mhz", "layers", "total", "hosts", "network", "schedules"]
    assert [row["name"] for row in figures["layers"]] == LAYERS
    for row in figures["layers"]:
        assert row["vta"]["ms"] == row["vta"]["cycles"] / 200e3
    assert figures["schedules"]["name"] == "dense"
    assert figures["schedules"]["vta"]["text"].startswith("proc dense(")


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit(cli: Cli, width: int) -> None:
    text = cli("compare", *CALIBRATED, "--width", width).out
    assert max(len(line.rstrip()) for line in text.splitlines()[1:]) <= width
    titles = ["What they compute"] * (width < 120) + [
        "Steps of the host, with VTA and without",
        "The network, one image",
    ]
    assert [line for line in text.splitlines() if line in titles] == titles
    assert text.startswith("Layers of digits, VTA 1x16x16_i8w8a32_15_15_18_17 at 100 MHz and one thread of this CPU\n")
    assert text.endswith("All outputs of both are equal, byte for byte. The host of both is this CPU.\n")


def test_schedules_stand_beside_each_other_where_there_is_room(cli: Cli) -> None:
    lines = cli("compare", *CALIBRATED, "--layer", "dense", "--width", "160").out.splitlines()
    assert max(map(len, lines)) <= 160
    heads = [line.split(" │ ") for line in lines if line.startswith("The ")]
    assert [[head.strip() for head in pair] for pair in heads] == [
        ["The definition for VTA", "The definition for the CPU"],
        ["The schedule on VTA", "The schedule on the CPU"],
        ["The primitives that led there on VTA", "The primitives that led there on the CPU"],
    ]
    begin = next(n for n, line in enumerate(lines) if line.startswith("The schedule"))
    assert [side.partition("(")[0] for side in lines[begin + 2].split(" │ ")] == ["proc dense", "proc dense"]


def test_schedules_follow_each_other_where_there_is_none(cli: Cli) -> None:
    lines = cli("compare", *CALIBRATED, "--layer", "maxpool", "--width", "80").out.splitlines()
    assert "The schedule on VTA" in lines
    assert "The schedule on the CPU" in lines
    assert not any("│" in line for line in lines)


def test_a_step_of_the_host_has_one_schedule(cli: Cli) -> None:
    text = cli("compare", *CALIBRATED, "--layer", "softmax", "--width", "200").out
    assert text.startswith("softmax, on the host\n")
    assert "on VTA" not in text
    assert "The schedule on the CPU\nproc softmax(" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx",), "none.onnx: must be an ONNX file, and there is none"),
        (("digits.onnx",), "Calibration must be given for a float model: a few dozen of its inputs"),
        (("digits.onnx", "--clock", "0"), "--clock must be a positive number of MHz, not '0'"),
        (("digits.onnx", "--clock", "fast"), "--clock must be a positive number of MHz, not 'fast'"),
        (("digits.onnx", "--repeat", "0"), "--repeat must be 1 to 65536, not 0"),
        (("digits.onnx", "--width", "39"), "--width must be 40 to 1000, not 39"),
        (
            (*CALIBRATED, "--layer", "conv"),
            f"Layer must be one of {', '.join(map(repr, STEPS))}, not 'conv'",
        ),
    ],
)
def test_refusals(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    outcome = cli("compare", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")
