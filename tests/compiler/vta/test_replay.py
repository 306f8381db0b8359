"""The model of the three modules, on launches small enough to see the answer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.vta.replay import (
    TokenError,
    clocks,
    legal_order,
    races,
    random_choice,
    tokens_of,
    without_token,
)
from tests.compiler.vta.touches import Space, Step, Touch
from vta_hw.spec.instructions import Finish, Gemm, Insn, Load, MemoryType, Store

LOAD = Load(memory_type=MemoryType.INP, x_size=1, y_size=1)


def touch(space: Space, *units: int, write: bool = False) -> Touch:
    return Touch(space, np.array(units, np.int64), write)


def pipeline(
    load: Insn = LOAD, gemm: Insn | None = None, store: Insn | None = None, finish: Insn | None = None
) -> list[Step]:
    """Load an input, compute on it, store the result; without flags unless given."""
    return [
        Step(load, (touch(Space.INP, 3, write=True),)),
        Step(gemm or Gemm(), (touch(Space.INP, 3, 4), touch(Space.OUT, 0, write=True))),
        Step(store or Store(), (touch(Space.OUT, 0, 1),)),
        Step(finish or Finish()),
    ]


def synchronised() -> list[Step]:
    return pipeline(
        Load(memory_type=MemoryType.INP, x_size=1, y_size=1, push_next=True),
        Gemm(pop_prev=True, push_next=True),
        Store(pop_prev=True, push_prev=True),
        Finish(pop_next=True),
    )


def test_ordered_accesses_are_no_race() -> None:
    assert races(synchronised()) == []


def test_every_missing_token_is_a_race() -> None:
    steps = synchronised()
    assert tokens_of(steps) == [("l2g", 0), ("g2s", 0), ("s2g", 0)]
    missing = {token: races(without_token(steps, *token)) for token in tokens_of(steps)}
    assert [len(found) for found in missing.values()] == [2, 1, 1]
    assert missing["l2g", 0][0].endswith("may run before load instruction 1")
    assert missing["g2s", 0][0].endswith("may run before compute instruction 1")
    assert missing["s2g", 0][0].startswith("3 Finish(")


def test_accesses_of_different_elements_are_no_race() -> None:
    steps = pipeline()
    apart = [replaced for replaced in steps if not isinstance(replaced.insn, Finish)]
    apart[1] = Step(Gemm(), (touch(Space.INP, 2, 4),))
    assert races(apart) == []


def test_two_reads_are_no_race() -> None:
    steps = [Step(LOAD, (touch(Space.DRAM, 5),)), Step(Gemm(), (touch(Space.DRAM, 5),))]
    assert races(steps) == []


def test_a_later_write_races_with_an_earlier_read() -> None:
    steps = [Step(Gemm(), (touch(Space.INP, 7),)), Step(LOAD, (touch(Space.INP, 7, write=True),))]
    assert len(races(steps)) == 1


def test_order_known_through_a_third_module_counts() -> None:
    steps = [
        Step(Store(push_prev=True), (touch(Space.DRAM, 9, write=True),)),
        Step(Gemm(pop_next=True, push_prev=True)),
        Step(Load(memory_type=MemoryType.INP, pop_next=True), (touch(Space.DRAM, 9),)),
    ]
    assert races(steps) == []
    assert clocks(steps).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_a_token_that_never_comes_is_a_deadlock() -> None:
    with pytest.raises(TokenError, match="deadlock"):
        legal_order([Step(LOAD), Step(Gemm(pop_prev=True)), Step(Finish())])


def test_a_token_that_nobody_takes_is_left_over() -> None:
    with pytest.raises(TokenError, match="left over"):
        legal_order([Step(Gemm(push_next=True)), Step(Finish())])


@pytest.mark.parametrize(
    "insn",
    [
        Store(push_next=True),
        Store(pop_next=True),
        Load(memory_type=MemoryType.INP, pop_prev=True),
        Load(memory_type=MemoryType.WGT, push_prev=True),
    ],
)
def test_a_flag_without_a_queue_is_an_error(insn: Insn) -> None:
    with pytest.raises(TokenError, match="there is no queue"):
        legal_order([Step(insn), Step(Finish())])


def test_random_orders_are_legal_and_differ() -> None:
    steps = [Step(LOAD) for _ in range(6)] + [Step(Gemm()) for _ in range(6)] + [Step(Store()) for _ in range(6)]
    orders = {tuple(legal_order(steps, random_choice(seed))) for seed in range(20)}
    assert len(orders) > 10
    for order in orders:
        for first in (0, 6, 12):
            assert [position for position in order if first <= position < first + 6] == list(range(first, first + 6))
