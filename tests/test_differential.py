"""Random layers and networks on random configurations: VTA, LLVM and numpy give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d
from tests.differential import (
    Case,
    Outcome,
    check,
    describe,
    random_attention,
    random_extreme,
    random_given,
    random_layer,
    random_movements,
    random_network,
)

GROUP, GROUPS = 10, 20
MOST_REFUSED = 1
"""Of a group: two elements, the least a buffer can hold, are enough for nearly every layer."""

TOO_SMALL = re.compile(r"Layer '[^']+' must fit the (inp|wgt|acc) buffer of \d+ bytes, its smallest tile needs \d+")

LAYERS = [random_layer(seed) for seed in range(GROUP * GROUPS)]


def agree(cases: list[Case]) -> list[Outcome]:
    """Check every case; the failure lists all that disagree, with their seeds."""
    outcomes = [(case, check(case)) for case in cases]
    failed = [f"{describe(case)}: {'; '.join(outcome.problems)}" for case, outcome in outcomes if outcome.problems]
    assert not failed, "\n".join(failed)
    return [outcome for _, outcome in outcomes]


@pytest.mark.parametrize("group", range(GROUPS), ids=lambda group: f"seeds{group * GROUP}-{(group + 1) * GROUP - 1}")
def test_single_layers(group: int) -> None:
    outcomes = agree(LAYERS[group * GROUP : (group + 1) * GROUP])
    refusals = [outcome.refusal for outcome in outcomes if outcome.refusal]
    assert len(refusals) <= MOST_REFUSED, refusals
    assert all(TOO_SMALL.fullmatch(refusal) for refusal in refusals), refusals
    assert sum(outcome.values >= 8 for outcome in outcomes) >= GROUP // 5, "answers must not be all the same number"


@pytest.mark.parametrize("group", range(4), ids=lambda group: f"seeds{group * GROUP}-{(group + 1) * GROUP - 1}")
@pytest.mark.parametrize(
    "case", [random_extreme, random_given], ids=["the larger or smaller of two products", "what given integers ask for"]
)
def test_ops_element_by_element_and_of_given_models(case: Callable[[int], Case], group: int) -> None:
    outcomes = agree([case(seed) for seed in range(group * GROUP, (group + 1) * GROUP)])
    refusals = [outcome.refusal for outcome in outcomes if outcome.refusal]
    assert len(refusals) <= 4 * MOST_REFUSED, refusals  # parameters, too, take places
    assert all(TOO_SMALL.fullmatch(refusal) for refusal in refusals), refusals
    assert sum(outcome.values >= 8 for outcome in outcomes) >= (GROUP - len(refusals)) // 2, "answers must differ"


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_networks(seed: int) -> None:
    (outcome,) = agree([random_network(seed)])
    assert outcome.refusal is None


@pytest.mark.parametrize("group", range(4), ids=lambda group: f"seeds{group * GROUP}-{(group + 1) * GROUP - 1}")
def test_products_of_activations(group: int) -> None:
    outcomes = agree([random_attention(seed) for seed in range(group * GROUP, (group + 1) * GROUP)])
    assert not [outcome.refusal for outcome in outcomes if outcome.refusal]
    assert sum(outcome.values >= 8 for outcome in outcomes) >= GROUP // 2, "answers must not be all the same number"


@pytest.mark.parametrize("group", range(4), ids=lambda group: f"seeds{group * GROUP}-{(group + 1) * GROUP - 1}")
def test_concatenations_and_larger_images(group: int) -> None:
    outcomes = agree([random_movements(seed) for seed in range(group * GROUP, (group + 1) * GROUP)])
    refusals = [outcome.refusal for outcome in outcomes if outcome.refusal]
    assert len(refusals) <= 2 * MOST_REFUSED, refusals  # each of several operands has a place in a buffer
    assert all(TOO_SMALL.fullmatch(refusal) for refusal in refusals), refusals
    assert sum(outcome.values >= 8 for outcome in outcomes) >= GROUP // 2, "answers must not be all the same number"


def test_a_seed_means_one_case() -> None:
    assert str(random_layer(7)) == str(random_layer(7))
    assert str(random_network(7)) == str(random_network(7))
    assert str(random_network(7)) != str(random_network(8))


def test_layers_of_every_kind_are_among_the_seeds() -> None:
    ops = [case.graph.nodes[0].op for case in LAYERS]
    convolutions = [op for op in ops if isinstance(op, QConv2d)]
    assert len(convolutions) > 100
    assert sum(op.r_mul != 0 for op in convolutions) > 20
    assert any(max(op.padding) > 15 for op in convolutions)
    assert any(op.padding[0] != op.padding[2] and op.padding[1] != op.padding[3] for op in convolutions)
    assert sum(op.groups > 1 for op in convolutions) > 5
    assert {op.dilation for op in convolutions} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {op.stride for op in convolutions} >= {(1, 1), (3, 1), (1, 3), (2, 2)}
    assert any(op.pre_shift for op in convolutions)
    assert sum(isinstance(op, QMaxPool2d) and any(op.padding) for op in ops) >= 5
    averages = [op for op in ops if isinstance(op, QAvgPool2d)]
    assert any(op.mul is None for op in averages)
    assert any(op.mul is not None and any(op.padding) for op in averages)
    assert sum(isinstance(op, QAdd) for op in ops) >= 10


def test_configurations_of_every_kind_are_among_the_seeds() -> None:
    configs = [case.config for case in LAYERS]
    assert {config.batch for config in configs} == {1, 2, 4}
    assert {config.block_in for config in configs} == {2, 4, 8, 16, 32}
    assert sum(config.block_in < config.block_out for config in configs) > 20
    assert sum(config.block_in > config.block_out for config in configs) > 20
    for depth in ("uop_depth", "inp_depth", "wgt_depth", "acc_depth"):
        assert min(getattr(config, depth) for config in configs) == 2
    assert {config.wgt_bits for config in configs} == {4, 8, 16}
    assert {config.inp_bits for config in configs} == {4, 8, 16}
    assert {config.bus_bits for config in configs} == {64, 128, 256, 512}
