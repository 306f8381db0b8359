"""The proofs' tools are found beside the Python that runs the tests, whether or not its environment is activated."""

from __future__ import annotations

import os
import sysconfig

import pytest


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the environment's scripts first."""
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
