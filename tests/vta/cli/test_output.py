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
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_table, wrapped


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("A title longer than the table", ("name", "figure"), [("x" * 150, "7"), ("[b]", "1,000")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "A title longer than the table"
    assert lines[3] == f" {'x' * 150}        7"
    assert lines[4] == f" [b]{' ' * 147}    1,000"


def test_code_breaks_where_fewest_brackets_are_open() -> None:
    line = "    total[i, j] = total[i, j] + int32(x[i, k]) * int32(w[k, j])"
    assert wrapped([line], 42) == [
        "    total[i, j] = total[i, j] +",
        "          int32(x[i, k]) * int32(w[k, j])",
    ]
    assert wrapped(["short", ""], 40) == ["short", ""]


@pytest.mark.parametrize("line", ["x" * 100, " " * 50 + "y = 1", "    f(" + "a, " * 60 + "b)"])
def test_no_line_of_code_is_too_long_and_nothing_is_lost(line: str) -> None:
    parts = wrapped([line], 40)
    assert max(map(len, parts)) <= 40
    assert "".join("".join(parts).split()) == "".join(line.split())


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


def test_a_file_is_known_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_bytes(b"in")
    (tmp_path / "folder").mkdir()
    (tmp_path / "hard").hardlink_to("in")
    (tmp_path / "soft").symlink_to("in")
    (tmp_path / "dangling").symlink_to("out")
    (tmp_path / "same").symlink_to("folder")
    for one, other in (
        ("in", "in"),
        ("in", str(tmp_path / "in")),
        ("folder/../in", "in"),
        ("hard", "in"),
        ("soft", "in"),
        ("soft", "hard"),
        ("out", str(tmp_path / "out")),
        ("dangling", "out"),
        ("out", "dangling"),
        ("same/out", "folder/out"),
    ):
        with pytest.raises(CommandError) as error:
            check_outputs([("--save", Path(one))], [("--config", Path(other))])
        assert str(error.value) == f"--save must be a file of its own, not be {one!r} like --config"
        with pytest.raises(CommandError) as error:
            check_outputs([("--dump", Path(other)), ("--dump", Path(one))], [])
        assert str(error.value) == f"--dump must be a file of its own, not be {one!r} like another --dump"


def test_files_that_differ_and_inputs_given_twice_are_fine(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"in")
    (tmp_path / "copy").write_bytes(b"in")
    inputs = [("--segment", tmp_path / "in"), ("--segment", tmp_path / "in"), ("--config", None)]
    check_outputs([("--dump", tmp_path / "copy"), ("--save", tmp_path / "new"), ("--vcd", None)], inputs)


def test_pipes_are_not_replaced_by_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CommandError, match=rf"^{pipe}: must be a file, not a pipe or socket$"):
        write_files({pipe: b"new"})
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no device to write to")
def test_devices_are_not_replaced_by_files() -> None:
    with pytest.raises(CommandError, match=r"^/dev/null: must be a file, not a device$"):
        write_files({Path("/dev/null"): b"data"})
    assert Path("/dev/null").is_char_device()


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_files({tmp_path / "file": b""})
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("file", "plain")]
    assert modes[0] == modes[1]
