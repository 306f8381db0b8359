"""The cycle engine against the compiled RTL on random programs behind random memories: every counter and byte."""

from __future__ import annotations

import pytest

from tests.vta_sim.cycle.cases import TIMED_MACHINES, timed_case
from tests.vta_sim.cycle.comparison import check

PROGRAMS = {machine: range(100, 104) for machine in TIMED_MACHINES}


def test_there_are_fifty_programs_and_more() -> None:
    assert sum(map(len, PROGRAMS.values())) >= 50


@pytest.mark.parametrize("machine", PROGRAMS)
def test_cycle_engine_is_the_compiled_rtl_on_random_programs(machine: str) -> None:
    differences = [sentence for seed in PROGRAMS[machine] for sentence in check(timed_case(machine, seed))]
    assert differences == []
