"""What the README shows works, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    # The example names the model by its path in a clone, and leaves a file where it runs.
    (tmp_path / "vta").symlink_to(ROOT / "vta")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    percent = re.fullmatch(r"(\d+\.\d)% correct\n", capsys.readouterr().out)
    assert percent is not None
    assert float(percent[1]) > 97
    assert (tmp_path / "digits.vta").stat().st_size > 0
