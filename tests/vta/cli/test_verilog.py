"""``vta verilog``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.streams import large_config
from vta_hw.rtl import verilog
from vta_hw.spec.config import PRESETS, VTAConfig, preset


@pytest.fixture(scope="module")
def tiny() -> str:
    return verilog.emit(preset("tiny"))


def test_the_file_is_what_the_package_emits(cli: Cli, tmp_path: Path, tiny: str) -> None:
    outcome = cli("verilog", "--config", "tiny", "-o", "tiny.v")
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "tiny.v").read_text() == tiny
    lines, modules = tiny.count("\n"), tiny.count("\nendmodule\n")
    name = preset("tiny").name
    assert outcome.out == f"tiny.v: {name}, top module vta, {modules} modules, {lines:,} lines\n"


def test_figures(cli: Cli, tmp_path: Path, tiny: str) -> None:
    preset("tiny").save(tmp_path / "my.json")
    figures = json.loads(cli("verilog", "--config", "my.json", "--json").out)
    assert (tmp_path / "vta.v").read_text() == tiny
    assert figures == {
        "file": "vta.v",
        "config": preset("tiny").name,
        "digest": preset("tiny").digest,
        "top": "vta",
        "modules": tiny.count("\nendmodule\n"),
        "lines": tiny.count("\n"),
        "bytes": len(tiny.encode()),
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config", "tinny"],
            f"configuration must be a file or one of {', '.join(PRESETS)}, not 'tinny'; did you mean 'tiny'?",
        ),
        (["--config", "tiny", "-o", "."], ".: must be a file, not a directory"),
        (["--config", "tiny", "-o", "no/where.v"], "no/where.v: the directory must exist"),
        (["--config", "bad.json"], "bad.json: INP element must be at most 4096 bytes, not 8192"),
        (
            ["--config", "large.json"],
            "large.json: line of ACC must have at most 65534 bits, not 65536 (2 banks of 32768 bits)",
        ),
        (
            ["--config", "large.json", "-o", "large.json"],
            "--output must be a file of its own, not be 'large.json' like --config",
        ),
        (["vta.v"], "Got unexpected extra argument (vta.v)"),
    ],
)
def test_refusals_write_nothing(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({"LOG_BATCH": 9}))
    large_config().save(tmp_path / "large.json")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = cli("verilog", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_cannot_be_written_keeps_its_contents(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vta.v").write_text("mine")

    def emit(config: VTAConfig) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr(verilog, "emit", emit)
    outcome = cli("verilog")
    assert outcome.err == "error: Memory must suffice for this, and does not: no room\n"
    assert [path.name for path in tmp_path.iterdir()] == ["vta.v"]
    assert (tmp_path / "vta.v").read_text() == "mine"
