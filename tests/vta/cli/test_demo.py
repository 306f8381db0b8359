"""``vta demo``: the engines agree, and disagreement is told."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from vta.demo import study as study_module
from vta.demo.study import Study, study
from vta.engines import Engine
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program


def test_engines_agree_on_every_byte(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("demo", "--images", "40", "--engine", "llvm", "--engine", "functional", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert figures["agree"] is True
    assert [(result["engine"], result["images"]) for result in figures["engines"]] == [
        ("float", 40),
        ("reference", 40),
        ("llvm", 40),
        ("functional", 40),
    ]
    assert [result["agrees"] for result in figures["engines"]] == [None, None, True, True]
    assert all(result["accuracy"] >= 0.95 for result in figures["engines"])
    assert Program.load(tmp_path / "digits.vta").config == VTAConfig()


def test_what_it_says_to_try_next_works(cli: Cli, tmp_path: Path) -> None:
    text = cli("demo", "--images", "2", "--engine", "functional", "--config", "tiny", "-o", "mine.vta").out
    assert "VTA, functional simulator" in text
    assert "all equal" in text
    commands = [line.partition("|")[0] for line in text.splitlines() if line.startswith("  vta ")]
    assert len(commands) == 3
    for line in commands:
        assert cli(*shlex.split(line)[1:], *(["--engine", "llvm"] if "demo" in line else [])).code == 0


def test_disagreement_is_told_and_gives_exit_code_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = study(VTAConfig(), [Engine.LLVM], 2, lambda title, done, total: None)
    liar = replace(honest.results[-1], agrees=False)
    broken = Study(program=honest.program, results=(*honest.results[:-1], liar))
    monkeypatch.setattr(study_module, "study", lambda *arguments: broken)
    outcome = cli("demo")
    assert outcome.code == 1
    assert "DIFFER" in outcome.out
    assert "The engines DISAGREE" in outcome.out
    assert json.loads(cli("demo", "--json").out)["agree"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "0"], "--images must be 1 to 360, the held-out images, not 0"),
        (["--images", "361"], "--images must be 1 to 360, the held-out images, not 361"),
        (
            ["-o", "vta.json", "--config", "vta.json"],
            "--output must be a file of its own, not be 'vta.json' like --config",
        ),
        (["--engine", "reference"], "Engine must be one of 'interp', 'llvm', 'functional', not 'reference'"),
        (["--engine", "interpreter"], "Engine must be one of 'interp', 'llvm', 'functional', not 'interpreter'; "),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    VTAConfig().save(tmp_path / "vta.json")
    outcome = cli("demo", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}")
    assert VTAConfig.load(tmp_path / "vta.json") == VTAConfig()
    assert [path.name for path in tmp_path.iterdir()] == ["vta.json"]
