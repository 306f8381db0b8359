"""Programs on the RTL and on the functional simulator, which must leave the same: drawn ones, and those of corners."""

from __future__ import annotations

import pytest

from tests.vta_sim.rtl import coverage, test_misuse
from tests.vta_sim.rtl.catalogue import MISUSE
from tests.vta_sim.rtl.directed_cases import DIRECTED
from tests.vta_sim.rtl.machines import MACHINES, check
from tests.vta_sim.rtl.random_cases import PROGRAMS, random_case


def test_three_hundred_programs_on_every_machine() -> None:
    assert sum(PROGRAMS.values()) == 300
    assert list(PROGRAMS) == list(MACHINES)


@pytest.mark.parametrize(
    ("machine", "number"), [(machine, number) for machine, count in PROGRAMS.items() for number in range(count)]
)
def test_random_programs(machine: str, number: int) -> None:
    assert list(check(random_case(machine, number))) == []


@pytest.mark.parametrize("name", DIRECTED)
def test_directed_programs(name: str) -> None:
    case = DIRECTED[name]()
    assert case.name == name
    assert list(check(case)) == []


def test_every_corner_is_reached() -> None:
    assert [corner for corner in coverage.wanted() if corner not in coverage.reached()] == []


def test_misuse_has_the_tests_that_the_page_names() -> None:
    tests = {name for name in vars(test_misuse) if name.startswith("test_")}
    assert set(MISUSE.values()) == tests


def test_the_page_says_what_the_programs_do() -> None:
    assert coverage.DOCUMENT.read_text(encoding="utf-8") == coverage.document(), (
        "run python -m tests.vta_sim.rtl.coverage"
    )
