"""``vta bench cpu``: a table, JSON, what is said without onnxruntime, and every refusal word for word."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from vta.cli.bench import INSTALL
from vta.demo.data import model_bytes


def test_the_demo_network_without_a_model(cli: Cli) -> None:
    outcome = cli("bench", "cpu", "--repeat", "1", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert (figures["threads"], figures["repeat"]) == (1, 1)
    assert [(row["network"], row["numbers"]) for row in figures["networks"]] == [
        ("digits", "float32"),
        ("digits", "int8"),
    ]


def test_a_table_beside_onnxruntime(cli: Cli, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(model_bytes())
    text = cli("bench", "cpu", "net.onnx", "--repeat", "1").out
    assert text.startswith("Networks on this CPU, one thread, processor time\n")
    (row,) = [line.split() for line in text.splitlines() if line.startswith(" net ")]
    assert row[:2] == ["net", "float32"]
    assert float(row[4]) / float(row[2]) == pytest.approx(float(row[6]), rel=0.2)
    assert f"onnxruntime {onnxruntime.__version__} runs the file as it is." in text


def test_other_arithmetic_is_called_so(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    sentence = "Ratios of int8 are to float32, which the file has, and not of the same arithmetic."
    (tmp_path / "net.onnx").write_bytes(model_bytes())
    assert cli("bench", "cpu", "--repeat", "1").out.count(sentence) == 1
    assert sentence not in cli("bench", "cpu", "net.onnx", "--repeat", "1").out


def test_one_sentence_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    text = cli("bench", "cpu", "--repeat", "1").out
    assert text.endswith(f"{INSTALL}\n")
    assert text.count("onnxruntime") == INSTALL.count("onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu",), "Processor must be one of 'cpu', not 'gpu'; did you mean 'cpu'?"),
        (("cpu", "none.onnx"), "none.onnx: must be an ONNX file, and there is none"),
        (("cpu", "--repeat", "0"), "--repeat must be 1 to 65536, not 0"),
        (
            ("cpu", "--calibrate", "x.npy"),
            "--calibrate must be given with a model, for the demo network has its own images",
        ),
    ],
)
def test_refusals(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    outcome = cli("bench", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")
