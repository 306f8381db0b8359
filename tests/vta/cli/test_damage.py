"""Damaged program files through the command line: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.runtime.fake import program
from tests.vta.cli.conftest import Cli
from tests.vta.damage import damaged
from tests.vta.streams import raw_program

MUTATIONS = 50


def refused(cli: Cli, folder: Path, *arguments: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    outcome = cli(*arguments)
    assert (outcome.code, outcome.out) == (2, ""), outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_exec(cli: Cli, tmp_path: Path, seed: int) -> None:
    (tmp_path / "p.vta").write_bytes(damaged(raw_program().to_bytes(), random.Random(seed)))
    refused(cli, tmp_path, "exec", "p.vta", "--dump", "0:16=out.bin", "--save", "copy.vta")


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_run(cli: Cli, tmp_path: Path, seed: int) -> None:
    (tmp_path / "p.vta").write_bytes(damaged(program().to_bytes(), random.Random(seed)))
    (tmp_path / "x.npy").write_bytes(b"never read")
    refused(cli, tmp_path, "run", "p.vta", "--input", "x.npy", "--output", "y.npy")
    refused(cli, tmp_path, "disasm", "p.vta")
