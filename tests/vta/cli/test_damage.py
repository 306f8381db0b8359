"""Damaged files through the command line: one sentence, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vta.fuzz_cli import originals, problems

MUTATIONS = 50


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(seed, originals(), tmp_path) == []
