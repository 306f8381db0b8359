"""Running the command line inside the test process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from vta.cli.errors import run_guarded
from vta.cli.root import root


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    def __call__(self, *args: object) -> Outcome: ...


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs ``vta ARGS`` with `tmp_path` as the current directory."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        code = run_guarded(root, [str(arg) for arg in args])
        printed = capsys.readouterr()
        return Outcome(code=code, out=printed.out, err=printed.err)

    return run
