"""What the RTL is tested for, on the cycle engine: the cycle counts of the manual, misuse, and giving up."""

from __future__ import annotations

import functools

import pytest

from tests.vta_sim.rtl import test_cycles, test_giving_up, test_misuse
from vta_hw.spec.config import VTAConfig
from vta_sim.cycle.engine import CycleSimulator

MODULES = (test_cycles, test_giving_up, test_misuse)
OF_REGISTERS = {"test_a_launch_of_nothing_ends"}
"""What only registers can be told: an engine without them refuses it."""


def simulator(config: VTAConfig, queue_depth: int = 512) -> CycleSimulator:
    return _simulator(config, queue_depth)


@functools.lru_cache(maxsize=8)
def _simulator(config: VTAConfig, queue_depth: int) -> CycleSimulator:
    return CycleSimulator(config, queue_depth=queue_depth)


@pytest.fixture(autouse=True)
def on_the_cycle_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the RTL has found out stays where it is.
    monkeypatch.setattr(test_cycles, "held_finish", functools.cache(test_cycles.held_finish.__wrapped__))
    for module in MODULES:
        monkeypatch.setattr(module, "simulator", simulator)


# The functions themselves, with their parameters, so that pytest finds them here as well.
globals().update(
    {
        f"{name}_of_{module.__name__.rpartition('.')[2]}": function
        for module in MODULES
        for name, function in vars(module).items()
        if name.startswith("test_") and name not in OF_REGISTERS
    }
)
