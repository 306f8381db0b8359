"""What is computed together, in which order, and when it need not be computed at all.

Words are put into blocks, in an order in which every block uses what blocks before it compute; loops come last. A block
whose inputs have not changed since it was last computed is left out. So each block is told who reads what it makes:
within the cycle through the temporary store, or from the next cycle on through registers and memories. (Beamer and
Donofrio, "Efficiently exploiting low activity factors to accelerate RTL simulation", DAC 2020, have the idea.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from vta_sim.rtl.netlist.logic import Field, Logic
from vta_sim.rtl.netlist.loops import Nest, Target, body_words, find_nests, scalars
from vta_sim.rtl.netlist.parts import LIGHT, heavy_sources, make_parts
from vta_sim.rtl.netlist.words import Place, Word, container, is_const

_SHARED: Final = 2
"""Uses of an array's words from which on it is kept, and not computed again for each."""
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Words that are computed one after the other, arguments first, and what is stored of them."""

    number: int
    words: Sequence[Word]
    stores: Sequence[Target]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlock:
    """A nest of loops that is computed or left out; guard: a bit, while it is 0 nobody needs it."""

    number: int
    nest: Nest
    guard: Word | None


class Schedule:
    """The blocks of a design, and the places in the temporary store.

    temporaries: places of other words that several blocks use. rows:
    offsets of what the write ports write. copies: (number, offset, bytes) of registers that become state only if the
    flag of that number, which no block has, was set for the next cycle. Masks have bit n for block n.
    """

    def __init__(self, logic: Logic) -> None:
        self._logic = logic
        self._size = 0
        # Offsets of the words of arrays, by number.
        self._kept: dict[int, int] = {}
        self._enables: dict[int, Word] = {}
        self.temporaries: dict[int, Place] = {}
        self.outputs = {name: self._place_output(words) for name, words in logic.outputs.items()}
        self.inputs_copy = self.reserve(logic.input_bytes, _ALIGNMENT)
        self.rows = [self.reserve(logic.memories[write.memory].row_bytes, _ALIGNMENT) for write in logic.writes]
        nests = [*self._array_loops(), *find_nests(self._targets(), self._kept)]
        loops = [nest for nest in nests if nest.counts]
        flat = [target for nest in nests if not nest.counts for target in nest.first]
        flat += [
            Target(word, "%t", field.place.offset)
            for name, fields in self.outputs.items()
            for word, field in zip(logic.outputs[name], fields, strict=True)
        ]
        self.blocks = self._blocks(flat, loops)
        first = len(self.blocks)
        self.loops = [
            LoopBlock(number=first + number, nest=nest, guard=self._enable_of(nest))
            for number, nest in enumerate(loops)
        ]
        self._count = first + len(loops)
        self.copies = list(self._copies())
        self._find_readers()
        self.flag_words = -(-(self._count + len(self.copies)) // 64)
        self.flags = self.reserve(16 * self.flag_words, 8)

    @property
    def temporary_bytes(self) -> int:
        return _aligned(self._size, _ALIGNMENT)

    def reserve(self, nbytes: int, alignment: int) -> int:
        """The offset of so many bytes of the temporary store."""
        offset = _aligned(self._size, alignment)
        self._size = offset + nbytes
        return offset

    def readers_of(self, word: Word) -> int:
        """Mask of the blocks that read a word from the temporary store."""
        return self._word_readers.get(word.number, 0)

    def readers_of_state(self, offset: int, nbytes: int) -> int:
        """Mask of the blocks that read some of these bytes of the state."""
        mask = 0
        for byte in range(offset, offset + nbytes):
            mask |= self._state_readers[byte]
        return mask

    def readers_of_memory(self, memory: int) -> int:
        """Mask of the blocks that read rows of a memory within the cycle."""
        return self._memory_readers.get(memory, 0)

    def copy_mask(self, offset: int, nbytes: int) -> int:
        """Mask of the flags of those `copies` that some of these bytes of the state belong to."""
        return sum(
            1 << number for number, begin, length in self.copies if begin < offset + nbytes and offset < begin + length
        )

    # What there is to compute

    def _targets(self) -> Iterator[Target]:
        """The next values of registers, and the rows that are written."""
        for register in sorted(self._logic.registers, key=lambda register: register.place.offset):
            yield Target(register.next, "%n", register.place.offset)
        for write, row in zip(self._logic.writes, self.rows, strict=True):
            fields = self._logic.memories[write.memory].fields
            for number, enable, data in write.fields:
                if not is_const(enable, 0):
                    offset = row + fields[number].place.offset
                    if enable.op != "const":
                        self._enables[offset] = enable
                    yield Target(data, "%t", offset)

    def _array_loops(self) -> Iterator[Nest]:
        """Loops for arrays that can be computed in loops as a whole, which then are in the temporary store."""
        uses = Counter(arg.number for word in self._logic.words for arg in word.args)
        for words in self._logic.arrays:
            if words[0].op in (*LIGHT, "concat") or max(uses[word.number] for word in words) < _SHARED:
                continue
            nbytes = container(words[0].width) // 8
            row = self.reserve(len(words) * nbytes, _ALIGNMENT)
            targets = [Target(word, "%t", row + number * nbytes) for number, word in enumerate(words)]
            nests = find_nests(targets, self._kept)
            if all(nest.counts for nest in nests):
                self._kept = {target.word.number: target.offset for target in targets} | self._kept
                yield from nests
            else:
                self._size = row

    def _controls(self) -> Iterator[Word]:
        """What decides about the ports of memories."""
        for read in self._logic.reads:
            yield from (read.address, read.enable)
        for write in self._logic.writes:
            yield write.address
            yield from (enable for _, enable, _ in write.fields)

    def _blocks(self, flat: Sequence[Target], loops: Sequence[Nest]) -> list[Block]:
        """Blocks for all that is not computed in loops; gives a temporary to what is used outside its block."""
        elsewhere = [*self._controls()]
        elsewhere += [word for nest in loops for word in scalars(nest)]
        kept = list(heavy_sources(elsewhere))
        words = _needed([*(target.word for target in flat), *elsewhere])
        parts = make_parts(words, flat, {word.number for word in kept})
        for part in parts:
            own = {word.number for word in part.words}
            used = [arg for word in part.words for arg in word.args] + [target.word for target in part.targets]
            kept += (word for word in heavy_sources(used) if word.number not in own)
        for word in kept:
            self._temporary(word)
        return [Block(number=number, words=part.words, stores=part.targets) for number, part in enumerate(parts)]

    def _enable_of(self, nest: Nest) -> Word | None:
        """The bit that decides whether rows are written, if all that is stored is of such rows and has it in common."""
        if nest.first[0].base != "%t":
            return None
        loops = zip(nest.target_steps, nest.counts, strict=True)
        moves = product(*(range(0, step * count, step) for step, count in loops))
        enables = {self._enables.get(target.offset + sum(move)) for move in moves for target in nest.first}
        return enables.pop() if len(enables) == 1 else None

    def _temporary(self, word: Word) -> None:
        if word.number not in self.temporaries:
            nbytes = container(word.width) // 8
            self.temporaries[word.number] = Place(self.reserve(nbytes, min(nbytes, 8)), word.width)

    def _place_output(self, words: tuple[Word, ...]) -> tuple[Field, ...]:
        fields, low = [], 0
        for word in words:
            nbytes = container(word.width) // 8
            fields.append(Field(low, Place(self.reserve(nbytes, min(container(words[0].width) // 8, 8)), word.width)))
            low += word.width
        return tuple(fields)

    # Who reads what

    def _copies(self) -> Iterator[tuple[int, int, int]]:
        spans = [span_of(loop.nest) for loop in self.loops if loop.nest.first[0].base == "%n"]
        for read in self._logic.reads:
            nbytes = sum(place.nbytes for _, place in read.targets)
            if nbytes >= _ALIGNMENT:
                spans.append((read.targets[0][1].offset, nbytes))
        for number, (offset, nbytes) in enumerate(sorted(set(spans))):
            yield self._count + number, offset, nbytes

    def _find_readers(self) -> None:
        self._state_readers: dict[int, int] = defaultdict(int)
        self._word_readers: dict[int, int] = defaultdict(int)
        self._memory_readers: dict[int, int] = defaultdict(int)
        for block in self.blocks:
            own = {word.number for word in block.words}
            used = [arg for word in block.words for arg in word.args] + [target.word for target in block.stores]
            self._note(block.number, used, own)
            for word in block.words:
                if word.op == "read":
                    self._memory_readers[word.param[0]] |= 1 << block.number
        for loop in self.loops:
            nest = loop.nest
            words = body_words(nest)
            own = {word.number for word in words}
            used = [arg for word in words for arg in word.args] + [target.word for target in nest.first]
            used += [loop.guard] if loop.guard else []
            self._note(loop.number, (word for word in used if word.number not in nest.steps), own)
            for word in words:
                if word.op == "read":
                    self._memory_readers[word.param[0]] |= 1 << loop.number
            for word in used:
                steps = nest.steps.get(word.number)
                if steps is None:
                    continue
                if word.number in nest.arrays:
                    self._word_readers[word.number] |= 1 << loop.number
                else:
                    place: Place = word.param
                    reach = sum(step * (count - 1) for step, count in zip(steps, nest.counts, strict=True))
                    for byte in range(place.offset, place.offset + reach + place.nbytes):
                        self._state_readers[byte] |= 1 << loop.number
        # An array is read as a whole.
        for array in self._logic.arrays:
            if array[0].number in self._kept:
                mask = 0
                for word in array:
                    mask |= self._word_readers[word.number]
                for word in array:
                    self._word_readers[word.number] = mask

    def _note(self, block: int, used: Iterable[Word], own: set[int]) -> None:
        """Note that a block reads what `used` is made of."""
        work, seen = list(used), set()
        while work:
            word = work.pop()
            if word.number in own or word.number in seen:
                continue
            seen.add(word.number)
            if word.op == "load":
                for byte in range(word.param.offset, word.param.offset + word.param.nbytes):
                    self._state_readers[byte] |= 1 << block
            elif word.op in LIGHT:
                work.extend(word.args)
            else:
                self._word_readers[word.number] |= 1 << block


def span_of(nest: Nest) -> tuple[int, int]:
    """(offset, bytes) of all that a nest stores to, with what may lie between."""
    begin = min(target.offset for target in nest.first)
    end = max(target.offset + container(target.word.width) // 8 for target in nest.first)
    reach = sum(step * (count - 1) for step, count in zip(nest.target_steps, nest.counts, strict=True))
    return begin, end + reach - begin


def _needed(sinks: Iterable[Word]) -> list[Word]:
    """The words but light ones that sinks need, arguments first."""
    order: list[Word] = []
    seen: set[int] = set()
    for sink in sinks:
        work = [(sink, iter(sink.args))] if sink.number not in seen else []
        seen.add(sink.number)
        while work:
            word, rest = work[-1]
            following = next((arg for arg in rest if arg.number not in seen), None)
            if following is None:
                work.pop()
                if word.op not in LIGHT:
                    order.append(word)
            else:
                seen.add(following.number)
                work.append((following, iter(following.args)))
    return order


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
