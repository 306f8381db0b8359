"""Progress, tables and files as the commands write them."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

import pytest

from vta.cli import output
from vta.cli.errors import CommandError
from vta.cli.files import write_files
from vta.cli.output import Activity, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("A title longer than the table", ("name", "figure"), [("x" * 150, "7"), ("[b]", "1,000")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "A title longer than the table"
    assert lines[3] == f" {'x' * 150}        7"
    assert lines[4] == f" [b]{' ' * 147}    1,000"


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with Activity("Working") as activity:
        activity.step("Working hard", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Activity("Working") as activity:
        activity.step("Working hard", 1, 2)
    assert terminal.getvalue() == ""


def test_long_work_shows_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(output, "PATIENCE", 0.0)
    with Activity("Working") as activity:
        while "Working" not in terminal.getvalue():
            activity.step("Working", 1, 2)
    assert "Working" in terminal.getvalue()


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(CommandError, match=r"the directory must exist$"):
        write_files({tmp_path / "old": b"new", tmp_path / "none" / "file": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old"}
    write_files({tmp_path / "old": b"new", tmp_path / "other": memoryview(b"more")})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"new", "other": b"more"}


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_files({tmp_path / "file": b""})
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("file", "plain")]
    assert modes[0] == modes[1]
