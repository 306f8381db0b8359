"""Finds what a design has many of, such as the lanes of an array, to be computed in loops.

Two words that are stored behind each other belong to a loop if they are computed in the same way from places that lie
behind each other too. A loop takes one instruction where there were as many as lanes, so that compiling does not take
longer for a wider array, and LLVM turns it into vector instructions. Loops that differ by such steps form a loop again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vta_sim.rtl.netlist.words import Word

LEAST: Final = 8
"""Repetitions below which a loop is not worth while."""
_MOST_WORDS: Final = 600
"""Words of a loop's body beyond which nothing is compared any more."""

_PERIODS: Final = (1, 2, 4, 8)
"""Targets in which a loop may make its steps."""
_LEAST_BUNDLES: Final = 4

Steps = tuple[int, ...]
"""Bytes from one repetition to the next, of the outer loop first."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a word is stored: byte `offset` from the pointer `base` on."""

    word: Word
    base: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    """Loops around the storing of `first`; without any it is just that.

    counts: repetitions. target_steps: of all targets. steps: of what is loaded, by the number of its word. body:
    numbers of the words that are computed in the loops; all others that these use are the same in each repetition.
    arrays: offsets, in the temporary store, of those words that are there when the loops begin, by number.
    """

    first: tuple[Target, ...]
    counts: Steps = ()
    target_steps: Steps = ()
    steps: Mapping[int, Steps] = field(default_factory=dict)
    body: frozenset[int] = frozenset()
    arrays: Mapping[int, int] = field(default_factory=dict)


def find_nests(targets: Iterable[Target], kept: Mapping[int, int]) -> list[Nest]:
    """All targets, in loops as far as possible; the order is kept.

    kept: offsets of words that are in the temporary store when the loops begin, by number.
    """
    nests = [Nest(first=(target,)) for target in targets]
    while True:
        joined = list(_join(nests, kept))
        if len(joined) == len(nests):
            return [replace(nest, arrays=_arrays(nest, kept)) if nest.counts else nest for nest in nests]
        nests = joined


def body_words(nest: Nest, values: Sequence[Word] | None = None) -> list[Word]:
    """The words of the body that `values` need, by default all, arguments first."""
    roots = [target.word for target in nest.first] if values is None else values
    return sorted(_cone(roots, nest.body), key=lambda word: word.number)


def scalars(nest: Nest) -> Iterator[Word]:
    """What the body uses, but does not compute or take from an array, and is the same in each repetition."""
    return (word for word in _used(nest) if word.number not in nest.steps and word.number not in nest.arrays)


def _used(nest: Nest) -> Iterator[Word]:
    """What the loops use and do not compute."""
    used = [target.word for target in nest.first]
    used += [arg for word in _cone(used, nest.body) for arg in word.args]
    return (word for word in used if word.number not in nest.body)


def _arrays(nest: Nest, kept: Mapping[int, int]) -> Mapping[int, int]:
    return {word.number: kept[word.number] for word in _used(nest) if word.number in kept}


def _cone(roots: Sequence[Word], inside: frozenset[int]) -> Iterator[Word]:
    seen: set[int] = set()
    work = list(roots)
    while work:
        word = work.pop()
        if word.number in inside and word.number not in seen:
            seen.add(word.number)
            yield word
            work.extend(word.args)


def _join(nests: Sequence[Nest], kept: Mapping[int, int]) -> Iterator[Nest]:
    at = 0
    while at < len(nests):
        for period in _PERIODS if not nests[at].counts else (1,):
            count, joined = _longest(nests, at, period, kept)
            if count > 1:
                yield joined
                at += count * period
                break
        else:
            yield nests[at]
            at += 1


def _longest(nests: Sequence[Nest], at: int, period: int, kept: Mapping[int, int]) -> tuple[int, Nest]:
    """How often the `period` nests from `at` on are repeated, and the loop over them; 1 if it is too rarely."""
    first = _bundle(nests[at : at + period])
    count = 1
    difference: _Difference | None = None
    while first is not None and at + (count + 1) * period <= len(nests):
        begin = at + count * period
        other = _bundle(nests[begin : begin + period])
        found = None if other is None else _difference(first, other, kept)
        if found is None or (difference is not None and not _is_multiple(found, difference, count)):
            break
        difference = difference or found
        count += 1
    if first is None or difference is None or count * period < LEAST or count < _LEAST_BUNDLES:
        return 1, nests[at]
    inner = (0,) * len(first.counts)
    steps = {number: (0, *own) for number, own in first.steps.items()}
    for number, step in difference.steps.items():
        steps[number] = (step, *first.steps.get(number, inner))
    return count, Nest(
        first=first.first,
        counts=(count, *first.counts),
        target_steps=(difference.target, *first.target_steps),
        steps=steps,
        body=first.body | difference.body,
    )


def _bundle(nests: Sequence[Nest]) -> Nest | None:
    """Several nests without loops as one."""
    if len(nests) == 1:
        return nests[0]
    if any(nest.counts for nest in nests):
        return None
    return Nest(first=tuple(target for nest in nests for target in nest.first))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """How another nest differs from one: bytes of the target, and of what is loaded; the words that differ."""

    target: int
    steps: Mapping[int, int]
    body: frozenset[int]


def _is_multiple(other: _Difference, one: _Difference, count: int) -> bool:
    return (
        other.target == count * one.target
        and other.body == one.body
        and other.steps == {number: count * step for number, step in one.steps.items()}
    )


def _difference(one: Nest, other: Nest, kept: Mapping[int, int]) -> _Difference | None:
    """None if they are not the same but for where things are."""
    if one.counts != other.counts or one.target_steps != other.target_steps:
        return None
    target = other.first[0].offset - one.first[0].offset
    if any(a.base != b.base or b.offset - a.offset != target for a, b in zip(one.first, other.first, strict=True)):
        return None
    pairs: dict[int, Word] = {}
    steps: dict[int, int] = {}
    body: set[int] = set()
    work = [(a.word, b.word) for a, b in zip(one.first, other.first, strict=True)]
    while work:
        a, b = work.pop()
        if a.number in pairs:
            if pairs[a.number] is not b:
                return None
            continue
        pairs[a.number] = b
        if a is b:
            continue
        if a.op != b.op or a.width != b.width or len(pairs) > _MOST_WORDS:
            return None
        in_array = a.number in kept and b.number in kept
        if in_array or a.op == "load":
            if one.steps.get(a.number) != other.steps.get(b.number):
                return None
            steps[a.number] = kept[b.number] - kept[a.number] if in_array else b.param.offset - a.param.offset
            continue
        if a.param != b.param or len(a.args) != len(b.args) or (a.number in one.body) != (b.number in other.body):
            return None
        body.add(a.number)
        work.extend(zip(a.args, b.args, strict=True))
    return _Difference(target=target, steps=steps, body=frozenset(body))
