"""Parts hold every word once, and can be computed one after the other."""

from __future__ import annotations

import random

import pytest

from vta_sim.rtl.netlist.loops import Target
from vta_sim.rtl.netlist.parts import LIGHT, Part, heavy_sources, make_parts
from vta_sim.rtl.netlist.words import Place, Word, Words


def _sum(words: Words, *args: Word) -> Word:
    return words.make("add", 8, args)


def _numbers(part: Part) -> list[int]:
    return [word.number for word in part.words]


@pytest.mark.parametrize("seed", range(20))
def test_parts_hold_each_word_and_store_once_behind_what_it_needs(seed: int) -> None:
    draw = random.Random(seed)
    words = Words()
    made = [words.make("load", 8, (), Place(offset, 8)) for offset in range(draw.choice((2, 30)))]
    for _ in range(400):
        made.append(words.make(draw.choice(("add", "sub", "not")), 8, tuple(draw.choices(made, k=2))))
    targets = [Target(word, "%n", number) for number, word in enumerate(draw.choices(made, k=60))]
    heavy = [word for word in words if word.op not in LIGHT]
    parts = make_parts(heavy, targets, {word.number for word in draw.choices(heavy, k=10)})
    assert sorted(number for part in parts for number in _numbers(part)) == [word.number for word in heavy]
    assert sorted(target.offset for part in parts for target in part.targets) == list(range(60))
    known: set[int] = set()
    for part in parts:
        for word in part.words:
            assert {source.number for source in heavy_sources(word.args)} <= known
            known.add(word.number)
        assert {source.number for source in heavy_sources(target.word for target in part.targets)} <= known


def test_what_reads_the_same_is_computed_together_and_the_rest_apart() -> None:
    words = Words()
    a, b, c, d = (words.make("load", 8, (), Place(offset, 8)) for offset in range(4))
    one, other, third = _sum(words, a, b), words.make("sub", 8, (a, b)), _sum(words, c, d)
    targets = [Target(word, "%n", number) for number, word in enumerate((one, other, third))]
    parts = make_parts([one, other, third], targets, set())
    assert [_numbers(part) for part in parts] == [[one.number, other.number], [third.number]]


def test_parts_that_another_lies_between_are_not_joined_alone() -> None:
    words = Words()
    a, *others = (words.make("load", 8, (), Place(offset, 8)) for offset in range(40))
    first = words.make("not", 8, (_sum(words, a, a),))
    between = _sum(words, first, others[0])
    for other in others[1:]:
        between = _sum(words, between, other)
    last = words.make("sub", 8, (between, first))
    heavy = [word for word in words if word.op not in LIGHT]
    parts = make_parts(heavy, [Target(last, "%n", 0)], {word.number for word in heavy[:-1]})
    known: set[int] = set()
    for part in parts:
        known |= {word.number for word in part.words}
        assert all({source.number for source in heavy_sources(word.args)} <= known for word in part.words)
