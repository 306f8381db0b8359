"""The exact cycle counts of the manual once more, behind `Dram`."""

from __future__ import annotations

import pytest

from tests.vta_sim.rtl import test_cycles
from tests.vta_sim.rtl.machine_simulator import machine_simulator


@pytest.fixture(autouse=True)
def _behind_dram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_cycles, "simulator", machine_simulator)


# pytest collects what a module has, with the fixtures of that module.
globals().update({name: test for name, test in vars(test_cycles).items() if name.startswith("test_")})
