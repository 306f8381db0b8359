"""The compiled RTL against Amaranth's simulator, which has the same design with the same memory: every counter."""

from __future__ import annotations

import pytest

from tests.vta_sim.cycle.cases import TIMED_MACHINES, timed_case
from tests.vta_sim.cycle.comparison import check

PROGRAMS = {machine: range(4) for machine in TIMED_MACHINES}


def test_there_are_fifty_programs_and_more() -> None:
    assert sum(map(len, PROGRAMS.values())) >= 50


@pytest.mark.parametrize("machine", PROGRAMS)
def test_compiled_rtl_is_amaranths_simulator_on_random_programs(machine: str) -> None:
    differences = [
        sentence
        for seed in PROGRAMS[machine]
        for sentence in check(timed_case(machine, seed, small=True), "compiled", "amaranth")
    ]
    assert differences == []
