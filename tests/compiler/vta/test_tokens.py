"""Dependence tokens: enough for every interleaving, and none too many."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from compiler.vta.tokens import Space, Span, Work, synchronize
from tests.compiler.vta import touches
from tests.compiler.vta.replay import legal_order, races, random_choice, tokens_of, without_token
from tests.compiler.vta.touches import Step, Touch
from vta_hw.spec.instructions import Finish, Gemm, Insn, Load, MemoryType, Module, Store

DEPTH = 6
DEPTHS = {Space.INP: DEPTH, Space.WGT: DEPTH, Space.OUT: DEPTH}
STORED, RELEASED = Span(Space.STORED, 0, 1), Span(Space.RELEASED, 0, 1)
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")


def load(begin: int, end: int, space: Space = Space.INP) -> Work:
    memory = MemoryType.INP if space is Space.INP else MemoryType.WGT
    return Work(Load(memory_type=memory), Module.LOAD, reads=(RELEASED,), writes=(Span(space, begin, end),))


def compute(reads: tuple[Span, ...], begin: int, end: int) -> Work:
    return Work(Gemm(), Module.COMPUTE, reads=reads, writes=(Span(Space.OUT, begin, end),))


def gemm(inp: int, out: int) -> Work:
    """Reads one input, writes one output."""
    return compute((Span(Space.INP, inp, inp + 1),), out, out + 1)


def store(begin: int, end: int) -> Work:
    return Work(Store(), Module.STORE, reads=(Span(Space.OUT, begin, end),), writes=(STORED,))


def fence() -> Work:
    return Work(Load(memory_type=MemoryType.UOP), Module.COMPUTE, reads=(STORED,), writes=(RELEASED,))


def finish() -> Work:
    return Work(Finish(), Module.COMPUTE, reads=(STORED,))


def flags(insns: list[Insn]) -> list[str]:
    """The flags of each instruction, by name."""
    return [" ".join(flag for flag in FLAGS if getattr(insn, flag)) for insn in insns]


def random_works(r: random.Random) -> list[Work]:
    def span(space: Space) -> Span:
        begin = r.randrange(DEPTH)
        return Span(space, begin, r.randint(begin + 1, DEPTH))

    works = []
    for _ in range(r.randint(1, 40)):
        inp, wgt, out = span(Space.INP), span(Space.WGT), span(Space.OUT)
        choices = [
            load(inp.begin, inp.end),
            load(wgt.begin, wgt.end, Space.WGT),
            compute(r.choice([(inp, wgt), (inp,), ()]), out.begin, out.end),
            store(out.begin, out.end),
            fence(),
        ]
        works.append(r.choices(choices, weights=[3, 2, 4, 2, 0.5])[0])
    return works


def step_of(work: Work, insn: Insn) -> Step:
    """What the work touches, for the model; the two marks that stand for DRAM are bytes 0 and 1 of it."""
    marks = {Space.STORED: 0, Space.RELEASED: 1}

    def touch(span: Span, write: bool) -> Touch:
        if span.space in marks:
            return Touch(touches.Space.DRAM, np.array([marks[span.space]]), write)
        return Touch(touches.Space(span.space.value), np.arange(span.begin, span.end), write)

    return Step(insn, (*(touch(span, False) for span in work.reads), *(touch(span, True) for span in work.writes)))


def synchronised(works: list[Work]) -> list[Step]:
    return [step_of(work, insn) for work, insn in zip(works, synchronize(works, DEPTHS), strict=True)]


def conflicts(a: Work, b: Work) -> bool:
    """Whether the two must keep their order, one of them writing what the other touches."""
    pairs = itertools.chain(
        itertools.product(a.writes, (*b.reads, *b.writes)), itertools.product(a.reads, b.writes)
    )
    return any(p.space is q.space and p.begin < q.end and q.begin < p.end for p, q in pairs)


@pytest.mark.parametrize("seed", range(60))
def test_conflicting_pairs_keep_program_order_in_every_interleaving(seed: int) -> None:
    works = random_works(random.Random(seed))
    steps = synchronised(works)
    pairs = [
        (first, second)
        for first, second in itertools.combinations(range(len(works)), 2)
        if works[first].module is not works[second].module and conflicts(works[first], works[second])
    ]
    for order in (legal_order(steps, random_choice(interleaving)) for interleaving in range(15)):
        place = {position: at for at, position in enumerate(order)}
        assert all(place[first] < place[second] for first, second in pairs)
    assert races(steps) == []


@pytest.mark.parametrize("seed", range(60))
def test_every_token_is_needed(seed: int) -> None:
    steps = synchronised(random_works(random.Random(1000 + seed)))
    for token in tokens_of(steps):
        assert races(without_token(steps, *token)), f"{token} could be saved"


def test_only_flags_are_changed_and_order_is_kept() -> None:
    works = random_works(random.Random(5))
    insns = synchronize(works, DEPTHS)
    assert [type(insn) for insn in insns] == [type(work.insn) for work in works]


def test_one_tile() -> None:
    insns = synchronize([load(0, 1), gemm(0, 0), store(0, 1), finish()], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev push_next", "pop_prev push_prev", "pop_next"]


def test_two_loads_that_one_instruction_needs_cost_one_token() -> None:
    both = compute((Span(Space.INP, 0, 1), Span(Space.WGT, 0, 1)), 0, 1)
    assert flags(synchronize([load(0, 1), load(0, 1, Space.WGT), both], DEPTHS)) == ["", "push_next", "pop_prev"]


def test_what_was_waited_for_once_is_not_waited_for_again() -> None:
    insns = synchronize([load(0, 2), gemm(0, 0), gemm(1, 1), gemm(0, 2)], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev", "", ""]


def test_a_load_over_what_was_read_waits_for_the_reader() -> None:
    insns = synchronize([load(0, 1), gemm(0, 0), load(0, 1), gemm(0, 1)], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev push_prev", "pop_next push_next", "pop_prev"]


def test_a_load_beside_what_is_read_does_not_wait() -> None:
    insns = synchronize([load(0, 1), gemm(0, 0), load(1, 2), gemm(1, 1)], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev", "push_next", "pop_prev"]


def test_double_buffering_keeps_two_tiles_in_flight() -> None:
    """The load of a tile waits for the computation two tiles before it, not for the last one."""
    works = []
    for tile in range(4):
        works += [load(tile % 2, tile % 2 + 1), gemm(tile % 2, tile)]
    assert flags(synchronize(works, DEPTHS)) == [
        "push_next", "pop_prev push_prev",
        "push_next", "pop_prev push_prev",
        "pop_next push_next", "pop_prev",
        "pop_next push_next", "pop_prev",
    ]  # fmt: skip


def test_results_are_overwritten_only_after_they_are_stored() -> None:
    insns = synchronize([gemm(0, 0), store(0, 1), gemm(0, 1), gemm(0, 0)], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev push_prev", "", "pop_next"]


def test_a_load_after_a_fence_waits_for_all_stores() -> None:
    insns = synchronize([gemm(0, 0), store(0, 1), fence(), load(0, 1)], DEPTHS)
    assert flags(insns) == ["push_next", "pop_prev push_prev", "pop_next push_prev", "pop_next"]


def test_the_first_load_waits_for_nothing() -> None:
    assert flags(synchronize([load(0, 1), load(1, 2)], DEPTHS)) == ["", ""]


def test_load_and_store_cannot_be_ordered_directly() -> None:
    reads_stored = Work(Load(memory_type=MemoryType.INP), Module.LOAD, reads=(STORED,))
    with pytest.raises(AssertionError, match=r"Load\(.*\) must not depend on Store\(.*\): no token queue joins them"):
        synchronize([store(0, 1), reads_stored], DEPTHS)
