"""Workspace: values that live together do not overlap, addresses are aligned, and nothing is wasted needlessly."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.memory_plan import Lifetime, align, plan

RANDOM = st.randoms(use_true_random=False)


def value(name: str, nbytes: int, first: int, last: int) -> Lifetime:
    return Lifetime(name=name, nbytes=nbytes, first=first, last=last)


def values(r: random.Random) -> list[Lifetime]:
    found = []
    for number in range(r.randint(0, 12)):
        first = r.randint(0, 8)
        nbytes = r.choice((0, 1, 16, 63, 64, 65, 100, 1000, r.randint(1, 300)))
        found.append(value(f"v{number}", nbytes, first, first + r.choice((0, 1, 1, 2, 8))))
    return found


@settings(max_examples=300)
@given(RANDOM)
def test_random_lifetimes(r: random.Random) -> None:
    alignment = r.choice((1, 16, 64))
    start = r.randint(0, 5) * alignment
    lifetimes = values(r)
    addresses, end = plan(lifetimes, start=start, alignment=alignment)
    assert set(addresses) == {one.name for one in lifetimes}
    assert all(address >= start and address % alignment == 0 for address in addresses.values())
    assert end == max([start, *(addresses[one.name] + one.nbytes for one in lifetimes)])
    for k, a in enumerate(lifetimes):
        for b in lifetimes[k + 1 :]:
            together = a.first <= b.last and b.first <= a.last
            apart = (
                addresses[a.name] + a.nbytes <= addresses[b.name] or addresses[b.name] + b.nbytes <= addresses[a.name]
            )
            assert apart or not together or not a.nbytes or not b.nbytes, (a, b)


@settings(max_examples=100)
@given(RANDOM)
def test_bounds_of_what_is_used(r: random.Random) -> None:
    """No less than the fullest step needs, no more than every value in a place of its own."""
    lifetimes = values(r)
    _, end = plan(lifetimes, start=0, alignment=16)
    steps = range(20)
    assert end >= max(sum(v.nbytes for v in lifetimes if v.first <= step <= v.last) for step in steps)
    assert end <= sum(align(one.nbytes, 16) for one in lifetimes)


@settings(max_examples=50)
@given(RANDOM)
def test_order_of_the_values_does_not_matter(r: random.Random) -> None:
    lifetimes = values(r)
    expected = plan(lifetimes, start=64, alignment=64)
    shuffled = list(lifetimes)
    r.shuffle(shuffled)
    assert plan(shuffled, start=64, alignment=64) == expected
    assert plan(iter(lifetimes), start=64, alignment=64) == expected


def test_a_chain_needs_room_for_two() -> None:
    chain = [value(f"v{k}", 100, k, k + 1) for k in range(10)]
    addresses, end = plan(chain, start=0, alignment=64)
    assert end == 128 + 100
    assert set(addresses.values()) == {0, 128}


def test_the_lowest_gap_is_taken() -> None:
    lifetimes = [value("a", 300, 0, 9), value("b", 200, 0, 1), value("c", 100, 0, 9), value("d", 90, 2, 9)]
    addresses, end = plan(lifetimes, start=0, alignment=1)
    assert addresses == {"a": 0, "b": 300, "c": 500, "d": 300}
    assert end == 600


def test_a_step_shared_by_writer_and_reader_keeps_them_apart() -> None:
    addresses, _ = plan([value("read", 8, 0, 1), value("written", 8, 1, 2)], start=0, alignment=8)
    assert addresses["read"] != addresses["written"]


def test_no_values() -> None:
    assert plan([], start=4096, alignment=64) == ({}, 4096)


@pytest.mark.parametrize(("address", "aligned"), [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128)])
def test_align(address: int, aligned: int) -> None:
    assert align(address, 64) == aligned
