"""Random designs, compiled, against Amaranth's simulator; `fuzz_netlist.py` tries further ones."""

from __future__ import annotations

import functools

import pytest

from tests.vta_sim.rtl.netlist.compare import amaranth_trace, differences, stimulus
from tests.vta_sim.rtl.netlist.random_design import piece_count, random_design

SEEDS = range(50)
STEPS = 40


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_equals_amaranths_simulator(seed: int) -> None:
    assert list(differences(functools.partial(random_design, seed), seed=seed, steps=STEPS)) == []


def test_random_designs_are_reproducible() -> None:
    traces = []
    for _ in range(2):
        design = random_design(3)
        steps = stimulus(design, 3, 10)
        traces.append((steps, amaranth_trace(design, steps)))
    assert traces[0] == traces[1]


def test_designs_have_what_is_to_be_tested() -> None:
    """Most of their signals change, and there are memories, submodules and wide signals among them."""
    changing = seen = memories = nested = wide = 0
    for seed in SEEDS[:20]:
        design = random_design(seed)
        trace = amaranth_trace(design, stimulus(design, seed, STEPS))
        seen += len(design.visible)
        changing += sum(len({values[name] for values in trace.values}) > 1 for name in design.visible)
        memories += len(design.memories)
        nested += sum("." in name for name in design.registers)
        wide += sum(len(signal) > 64 for signal in design.visible.values())
    assert changing > seen / 2
    assert min(memories, nested, wide) >= 5


def test_a_design_can_be_cut_down() -> None:
    pieces = range(piece_count(3))
    assert [*random_design(3, pieces=pieces).visible] == [*random_design(3).visible]
    assert len(random_design(3, pieces=()).visible) < len(random_design(3).visible)
