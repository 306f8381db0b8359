"""``vta config``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from vta_hw.spec.config import PRESETS, VTAConfig, preset


def test_json_is_a_configuration_that_can_be_read_back(cli: Cli) -> None:
    for name in PRESETS:
        outcome = cli("config", name, "--json")
        assert (outcome.code, outcome.err) == (0, "")
        assert VTAConfig.from_json(outcome.out) == preset(name)


def test_sim_is_the_default(cli: Cli) -> None:
    assert cli("config", "--json").out == cli("config", "sim", "--json").out


def test_text_shows_parameters_depths_and_fields(cli: Cli) -> None:
    text = cli("config", "sim").out
    lines = [line.split() for line in text.splitlines()]
    assert "1x16x16_i8w8a32_15_15_18_17, target sim, ISA 0.0.2" in text
    assert ["LOG_WGT_BUFF_SIZE", "18"] in lines
    assert ["weights", "8", "16x16", "256", "1,024", "262,144"] in lines
    assert "256 multiply-accumulates a cycle, 64 bus bits" in text
    assert ["uop_end", "[34:21]", "14", "micro-op", "after", "the", "last"] in lines


def test_list(cli: Cli) -> None:
    text = cli("config", "--list").out
    assert [line.split()[0] for line in text.splitlines() if "i8w8a32" in line] == list(PRESETS)
    assert json.loads(cli("config", "--list", "--json").out)["tiny"]["LOG_BLOCK"] == 2


def test_save_writes_the_file_and_prints_nothing(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("config", "tiny", "--save", "tiny.json")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert VTAConfig.load(tmp_path / "tiny.json") == preset("tiny")
    assert cli("config", "tiny.json", "--json").out == cli("config", "tiny", "--json").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["pyng"],
            f"configuration must be a file or one of {', '.join(PRESETS)}, not 'pyng'; did you mean 'pynq'?",
        ),
        (["bad.json"], "bad.json: configuration key must be one of TVM's, not 'LOG_BATHC'"),
        (["broken.json"], "broken.json: configuration cannot be read: "),
        (["deep.json"], "deep.json: "),
        (["big.json"], "big.json: log2 of the ACC depth must be at most 11 "),
        (["--list", "sim"], "--list must stand alone, without a configuration or --save"),
        (["sim", "--save", "no/file.json"], "no/file.json: the directory must exist"),
        (["good.json", "--save", "./good.json"], "--save must be a file of its own, not be 'good.json' like FILE"),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "bad.json").write_text('{"LOG_BATHC": 0}')
    (tmp_path / "broken.json").write_text('{"LOG_BATCH": ')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "big.json").write_text('{"LOG_ACC_BUFF_SIZE": 20}')
    preset("tiny").save(tmp_path / "good.json")
    outcome = cli("config", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}")
    assert outcome.err.count("\n") == 1
