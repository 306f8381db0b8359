"""Which words are computed together: parts, of which each is computed whenever something that it reads has changed.

At first a part is what only one store or one shared word needs. Then parts are joined, the most useful pair first, as
long as that makes the design cheaper. The measure takes all that is read to change equally often, so that a part is
computed as often as it reads different things: it pays to join parts that read the same, or one what the other makes.
No two parts may come to need each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from vta_sim.rtl.netlist.loops import Target
from vta_sim.rtl.netlist.words import Word

# Cheaper to compute again than to keep.
LIGHT: Final = ("const", "load", "zext", "sext", "slice", "not")

# What things cost, in words that are computed.
_PART: Final = 16.0
_KEPT_WORD: Final = 4.0
_STORE: Final = 1.5
_CONE_WORDS: Final = 40
"""Words of a part at first: in larger ones there is much that need not be computed each time."""
_MOST_USERS: Final = 64
"""What more parts read or make does not suggest that two of them be joined, because there are too many pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Words, arguments first, and stores that need no other words than these and those of parts before."""

    words: Sequence[Word]
    targets: Sequence[Target]


def make_parts(words: Sequence[Word], targets: Sequence[Target], elsewhere: Set[int]) -> list[Part]:
    """All words but light ones, which come with arguments first, and all stores.

    elsewhere: numbers of words that are needed outside parts too.
    """
    return _ordered(_Joining(_cones(words, targets, elsewhere), elsewhere).parts())


def sources(words: Iterable[Word]) -> Iterator[Word]:
    """From what words are made by light ones: words that are not light, and loads; each once."""
    work, seen = list(words), set()
    while work:
        word = work.pop()
        if word.number not in seen:
            seen.add(word.number)
            if word.op in LIGHT and word.op != "load":
                work.extend(word.args)
            else:
                yield word


def heavy_sources(words: Iterable[Word]) -> Iterator[Word]:
    """The words from which light ones are made, and all others as they are."""
    return (word for word in sources(words) if word.op != "load")


def _used(part: Part) -> Iterator[Word]:
    """Loads and words that are not light that a part uses, also its own."""
    return sources([*(arg for word in part.words for arg in word.args), *(target.word for target in part.targets)])


def _cones(words: Sequence[Word], targets: Sequence[Target], elsewhere: Set[int]) -> list[Part]:
    """For each store, and each word needed elsewhere or by several of these parts: what only it needs."""
    # Parts are known by the word that they make, or by the store: its number, below zero.
    users: dict[int, set[int]] = defaultdict(set)
    for number, target in enumerate(targets):
        for source in heavy_sources([target.word]):
            users[source.number].add(-1 - number)
    for word in words:
        for source in heavy_sources(word.args):
            users[source.number].add(word.number)
    cone = {-1 - number: -1 - number for number in range(len(targets))}
    contents: dict[int, list[Word]] = defaultdict(list)
    for word in reversed(words):
        cones = {cone[user] for user in users[word.number]}
        only = cones.pop() if len(cones) == 1 and word.number not in elsewhere else word.number
        cone[word.number] = only if len(contents[only]) < _CONE_WORDS else word.number
        contents[cone[word.number]].append(word)
    parts = [Part(words=contents[-1 - number][::-1], targets=[target]) for number, target in enumerate(targets)]
    return parts + [Part(words=own[::-1], targets=[]) for key, own in contents.items() if key >= 0 and own]


class _Joining:
    """Parts by their number while they are joined; masks have a bit for each part, or each thing that parts read."""

    def __init__(self, parts: Sequence[Part], elsewhere: Set[int]) -> None:
        self._parts: dict[int, Part] = dict(enumerate(parts))
        self._keys: dict[object, int] = {}
        self._reads = [0] * len(parts)
        self._makes = [0] * len(parts)
        self._users: dict[int, set[int]] = defaultdict(set)
        # Parts that read what one makes, and all that thus depend on it.
        self._readers = [0] * len(parts)
        home = {word.number: number for number, part in enumerate(parts) for word in part.words}
        for number, part in enumerate(parts):
            for source in _used(part):
                if source.op == "load":
                    self._read(number, ("state", source.param.offset))
                elif home[source.number] != number:
                    key = self._read(number, source.number)
                    maker = home[source.number]
                    self._makes[maker] |= 1 << key
                    self._users[key].add(maker)
                    self._readers[maker] |= 1 << number
            for word in part.words:
                if word.op == "read":
                    self._read(number, ("memory", word.param[0]))
        self._elsewhere = sum(1 << key for name, key in self._keys.items() if name in elsewhere)
        self._after = list(self._readers)
        position = {id(part): place for place, part in enumerate(_ordered(parts))}
        for number in sorted(self._parts, key=lambda number: -position[id(parts[number])]):
            for reader in _bits(self._readers[number]):
                self._after[number] |= self._after[reader]
        self._versions = [0] * len(parts)
        self._heap: list[tuple[float, int, int, int, int]] = []

    def _read(self, part: int, name: object) -> int:
        key = self._keys.setdefault(name, len(self._keys))
        self._reads[part] |= 1 << key
        self._users[key].add(part)
        return key

    def parts(self) -> list[Part]:
        """All parts, joined."""
        for one in self._parts:
            self._suggest(one, (other for other in self._partners(one) if other > one))
        while self._heap:
            _, one, other, *versions = heappop(self._heap)
            current = one in self._parts and other in self._parts
            if current and versions == [self._versions[one], self._versions[other]] and self._may_join(one, other):
                self._join(one, other)
                self._suggest(one, self._partners(one))
        return list(self._parts.values())

    def _partners(self, part: int) -> set[int]:
        found: set[int] = set()
        for key in _bits(self._reads[part] | self._makes[part]):
            if len(self._users[key]) <= _MOST_USERS:
                found |= self._users[key]
        return found - {part}

    def _suggest(self, one: int, others: Iterable[int]) -> None:
        for other in others:
            gain = self._gain(one, other)
            if gain > 0:
                a, b = min(one, other), max(one, other)
                heappush(self._heap, (-gain, a, b, self._versions[a], self._versions[b]))

    def _gain(self, one: int, other: int) -> float:
        """What joining two parts saves each time that the joined part is computed."""
        reads, makes = self._reads, self._makes
        times = ((reads[one] | reads[other]) & ~(makes[one] | makes[other])).bit_count()
        between = (makes[one] & reads[other] | makes[other] & reads[one]) & ~self._elsewhere
        private = sum(len(self._users[key]) == 2 for key in _bits(between))
        sizes = self._size(one), self._size(other)
        before = (sizes[0] + _PART) * reads[one].bit_count() + (sizes[1] + _PART) * reads[other].bit_count()
        return before / max(times, 1) - (sum(sizes) + _PART) + _KEPT_WORD * private

    def _size(self, number: int) -> float:
        part = self._parts[number]
        return len(part.words) + _STORE * len(part.targets)

    def _may_join(self, one: int, other: int) -> bool:
        """Whether no third part would need what the two make together, and they what it makes."""
        pair = 1 << one | 1 << other
        between = (self._readers[one] | self._readers[other]) & ~pair
        return not any(self._after[number] & pair for number in _bits(between))

    def _join(self, one: int, other: int) -> None:
        gone = self._parts.pop(other)
        kept = self._parts[one]
        words = sorted([*kept.words, *gone.words], key=lambda word: word.number)
        self._parts[one] = Part(words=words, targets=[*kept.targets, *gone.targets])
        self._versions[one] += 1
        for key in _bits(self._reads[other] | self._makes[other]):
            self._users[key] -= {other}
            self._users[key] |= {one}
        self._makes[one] |= self._makes[other]
        self._reads[one] = (self._reads[one] | self._reads[other]) & ~self._makes[one]
        pair = 1 << one | 1 << other
        for table in (self._readers, self._after):
            table[one] = (table[one] | table[other]) & ~pair
        for number in self._parts:
            if self._after[number] & pair:
                self._after[number] = self._after[number] & ~pair | 1 << one | self._after[one]
            if self._readers[number] & pair:
                self._readers[number] = self._readers[number] & ~pair | 1 << one


def _ordered(parts: Sequence[Part]) -> list[Part]:
    """Parts behind those whose words they use, and near them."""
    home = {word.number: number for number, part in enumerate(parts) for word in part.words}
    order: list[Part] = []
    seen: set[int] = set()

    def before(number: int) -> Iterator[int]:
        return iter(dict.fromkeys(home[source.number] for source in _used(parts[number]) if source.op != "load"))

    for start in range(len(parts)):
        work = [] if start in seen else [(start, before(start))]
        seen.add(start)
        while work:
            number, rest = work[-1]
            following = next((each for each in rest if each not in seen), None)
            if following is None:
                work.pop()
                order.append(parts[number])
            else:
                seen.add(following)
                work.append((following, before(following)))
    return order


def _bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are 1."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
