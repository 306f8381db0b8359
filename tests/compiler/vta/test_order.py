"""Loads are where they are needed first, and nothing that depends on something else has changed places with it."""

from __future__ import annotations

import random

from compiler.vta.order import sink
from compiler.vta.tokens import Space, Span, Work
from vta_hw.spec.isa import Finish, Module


def load(begin: int, end: int, space: Space = Space.INP) -> Work:
    return Work(Finish(), Module.LOAD, writes=(Span(space, begin, end),))


def compute(*reads: Span) -> Work:
    return Work(Finish(), Module.COMPUTE, reads=reads, writes=(Span(Space.OUT, 0, 1),))


def inp(begin: int, end: int) -> Span:
    return Span(Space.INP, begin, end)


def test_a_load_waits_for_its_reader() -> None:
    first, second, third = load(0, 4), load(4, 8), load(0, 2, Space.WGT)
    one, two = compute(inp(4, 6)), compute(inp(0, 1), Span(Space.WGT, 1, 2))
    assert sink([first, second, third, one, two]) == [second, one, first, third, two]


def test_a_load_that_nobody_reads_stays() -> None:
    works = [load(0, 4), compute(), load(4, 8), compute(inp(4, 8))]
    assert sink(works) == works


def test_a_load_does_not_pass_what_replaces_it() -> None:
    old, new, reader = load(0, 2), load(0, 4), compute(inp(0, 4))
    assert sink([old, compute(), new, reader]) == [compute(), old, new, reader]


def test_no_conflict_changes_its_order() -> None:
    for seed in range(200):
        r = random.Random(seed)
        works = []
        for _ in range(30):
            begin = r.randrange(12)
            span = inp(begin, begin + r.randint(1, 4))
            works.append(load(span.begin, span.end) if r.random() < 0.5 else compute(span))
        after = {id(work): place for place, work in enumerate(sink(works))}
        assert len(after) == len(works)
        for place, work in enumerate(works):
            for later in works[place + 1 :]:
                spans = ((work.reads or work.writes)[0], (later.reads or later.writes)[0])
                overlap = spans[0].begin < spans[1].end and spans[1].begin < spans[0].end
                if overlap and Module.LOAD in (work.module, later.module):
                    assert after[id(work)] < after[id(later)], seed
