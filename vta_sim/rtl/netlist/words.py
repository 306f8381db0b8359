"""Expressions over words: what a netlist computes, as a graph without names, hierarchy or wide values.

A word is a value of some bits that fits a machine register where that is possible; equal words are one object, so that
identity is equality and what is computed twice in a design is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

REGISTER_BITS: Final = 64
"""Words that can be cut are at most as wide."""


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """`width` bits, computed by `op` from `args`; numbers are unsigned unless an operation says otherwise.

    Operations, by their LLVM names where they have one: `const` (param: value); `load` (param: `Place`) a word of
    state; `read` (args: index; param: memory, number of the field) a field of a row, 0 beyond the last row; `slice`
    (param: lowest bit); `concat` (args from the lowest bits up); `zext`, `sext`; `add`, `sub`, `mul`, `udiv`, `urem`
    (both 0 for a divisor of 0), `and`, `or`, `xor`, `not`; `shl`, `lshr`, `ashr` (any amount, also beyond the width);
    `eq`, `ne`, `ult`, `ule`, `slt`, `sle`, `any`, `all`, `parity` of one bit; `select` (condition, one, other);
    `match` (param: pairs of mask and value, of which one must fit); `assign` (default, then pairs of condition and
    value, of which the last whose condition holds counts).
    """

    number: int
    op: str
    width: int
    args: tuple[Word, ...]
    param: Any

    def __repr__(self) -> str:
        inner = ", ".join(f"%{arg.number}" for arg in self.args)
        return f"%{self.number}:{self.width} = {self.op}({inner}; {self.param!r})"


@dataclass(frozen=True, slots=True)
class Place:
    """A word in the state of a design: its byte offset, and its width in bits. It is stored zero-extended."""

    offset: int
    width: int

    @property
    def nbytes(self) -> int:
        return container(self.width) // 8


def container(width: int) -> int:
    """Bits of the smallest machine type for `width` bits in memory; multiples of 64 above 64."""
    for bits in (8, 16, 32, 64):
        if width <= bits:
            return bits
    return -(-width // REGISTER_BITS) * REGISTER_BITS


class Words:
    """Makes words, each only once, and folds what is constant or does nothing."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Word] = {}

    def __iter__(self) -> Iterator[Word]:
        """All words, arguments before what uses them."""
        return iter(self._known.values())

    def make(self, op: str, width: int, args: tuple[Word, ...] = (), param: Any = None) -> Word:
        key = (op, width, param, *(arg.number for arg in args))
        word = self._known.get(key)
        if word is None:
            word = self._known[key] = Word(len(self._known), op, width, args, param)
        return word

    def const(self, value: int, width: int) -> Word:
        return self.make("const", width, (), value)

    def slice(self, word: Word, low: int, width: int) -> Word:
        if low == 0 and width == word.width:
            return word
        match word.op:
            case "const":
                return self.const(word.param >> low & (1 << width) - 1, width)
            case "load" if low % 8 == 0 and width in (8, 16, 32):
                return self.make("load", width, (), Place(word.param.offset + low // 8, width))
            case "slice":
                return self.slice(word.args[0], word.param + low, width)
            case "zext" | "sext" if low + width <= word.args[0].width:
                return self.slice(word.args[0], low, width)
            case "concat":
                begin = 0
                for part in word.args:
                    if begin <= low and low + width <= begin + part.width:
                        return self.slice(part, low - begin, width)
                    begin += part.width
        return self.make("slice", width, (word,), low)

    def concat(self, parts: Sequence[Word]) -> Word:
        """Lowest first. Neighbours that belong together are joined; what is on top may be an extension."""
        joined: list[Word] = []
        for part in parts:
            last = joined[-1] if joined else None
            if last is not None and last.op == part.op == "const":
                joined[-1] = self.const(last.param | part.param << last.width, last.width + part.width)
            elif last is not None and (source := _continues(last, part)) is not None:
                low = last.param if last.op == "slice" else 0
                joined[-1] = self.slice(source, low, last.width + part.width)
            else:
                joined.append(part)
        width = sum(part.width for part in joined)
        if len(joined) == 1:
            return joined[0]
        top = joined[-1]
        if top.op == "const" and top.param == 0:
            return self.make("zext", width, (self.concat(joined[:-1]),))
        return self.make("concat", width, tuple(joined))

    def extend(self, word: Word, width: int, *, signed: bool = False) -> Word:
        if width == word.width:
            return word
        assert width > word.width, (width, word)
        if word.op == "const":
            fill = -1 << word.width if signed and word.param >> (word.width - 1) else 0
            return self.const((word.param | fill) & (1 << width) - 1, width)
        return self.make("sext" if signed else "zext", width, (word,))

    def all_of(self, terms: Sequence[Word]) -> Word:
        """The conjunction of bits."""
        rest = [term for term in terms if not is_const(term, 1)]
        if any(is_const(term, 0) for term in rest):
            return self.const(0, 1)
        result = rest[0] if rest else self.const(1, 1)
        for term in rest[1:]:
            result = self.make("and", 1, (result, term))
        return result

    def invert(self, word: Word) -> Word:
        if word.op == "const":
            return self.const(word.param ^ (1 << word.width) - 1, word.width)
        if word.op == "not":
            return word.args[0]
        return self.make("not", word.width, (word,))

    def select(self, condition: Word, one: Word, other: Word) -> Word:
        if condition.op == "const":
            return one if condition.param else other
        return one if one is other else self.make("select", one.width, (condition, one, other))

    def bitwise(self, op: str, one: Word, other: Word) -> Word:
        """`and`, `or` or `xor`; constants of all zeros or ones are folded."""
        if one.op == "const":
            one, other = other, one
        if other.op == "const":
            full = (1 << other.width) - 1
            if one.op == "const":
                value = {"and": one.param & other.param, "or": one.param | other.param, "xor": one.param ^ other.param}
                return self.const(value[op], one.width)
            if other.param == 0:
                return other if op == "and" else one
            if other.param == full and op != "xor":
                return one if op == "and" else other
        return self.make(op, one.width, (one, other))

    def match(self, word: Word, patterns: tuple[tuple[int, int], ...]) -> Word:
        """Whether one of the patterns (mask, value) fits."""
        if any(mask == 0 for mask, _ in patterns):
            return self.const(1, 1)
        if word.op == "const":
            return self.const(int(any(word.param & mask == value for mask, value in patterns)), 1)
        if word.width == 1 and len(patterns) == 1:
            return word if patterns[0][1] else self.invert(word)
        return self.make("match", 1, (word,), patterns)

    def assign(self, default: Word, assignments: Sequence[tuple[Word, Word]]) -> Word:
        """The value of the last assignment (condition, value) whose condition holds, or the default."""
        kept: list[tuple[Word, Word]] = []
        for condition, value in assignments:
            if is_const(condition, 1):
                default, kept = value, []
            elif not is_const(condition, 0):
                kept.append((condition, value))
        while kept and kept[0][1] is default:
            kept.pop(0)
        if not kept:
            return default
        return self.make("assign", default.width, (default, *(word for pair in kept for word in pair)))


def is_const(word: Word, value: int) -> bool:
    return word.op == "const" and word.param == value


def excludes(one: Word, other: Word) -> bool:
    """Whether two bits are known never to be 1 together, because one word cannot fit the patterns of both."""
    return (
        one.op == other.op == "match"
        and one.args == other.args
        and all(mask & others & (value ^ wanted) for mask, value in one.param for others, wanted in other.param)
    )


def _continues(low: Word, high: Word) -> Word | None:
    """The word of which `low` and `high` are neighbouring parts."""
    if high.op != "slice":
        return None
    source, begin = (low.args[0], low.param) if low.op == "slice" else (low, 0)
    return source if high.args[0] is source and high.param == begin + low.width else None
