"""The functions of a design: a clock cycle, and many of them.

In a cycle, first everything is computed from the state `%s`: outputs and what several functions need go to `%t`, the
next values of registers to `%n`. Then memories are read and written, and `%n` becomes the state. Before a cycle `%n`
equals the state, so that a register which keeps its value need not be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vta_sim.rtl.netlist.emit import ZERO, Emitter, Value, held, wide_division
from vta_sim.rtl.netlist.logic import Field, Logic, Read, Write
from vta_sim.rtl.netlist.loops import Nest, Target, body_words, find_nests, scalars
from vta_sim.rtl.netlist.ranges import Ranges
from vta_sim.rtl.netlist.words import Place, Word, container, is_const

FUNCTION_WORDS: Final = 1000
"""Words of a function: LLVM takes more than proportional time for large ones."""

_SHARED: Final = 2
"""Uses of an array's words from which on it is kept, and not computed again for each."""

_SIGNATURE: Final = "(ptr noalias %s, ptr noalias %n, ptr noalias %t, ptr noalias %m)"
_ARGUMENTS: Final = "(ptr %s, ptr %n, ptr %t, ptr %m)"
# Cheaper to compute again than to keep.
_LIGHT: Final = ("const", "load", "zext", "sext", "slice", "not")


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """LLVM IR as text, and where outputs are in the temporary store of `temporary_bytes` bytes."""

    text: str
    outputs: Mapping[str, tuple[Field, ...]]
    temporary_bytes: int


class Assembler:
    def __init__(self, logic: Logic) -> None:
        self._logic = logic
        self._ranges = Ranges()
        self._temporaries: dict[int, Place] = {}
        self._offset = 0
        self._kept: dict[int, int] = {}
        self._functions: list[str] = []
        self._divisions: set[tuple[str, int]] = set()

    def assemble(self) -> Assembly:
        outputs = {name: self._place_output(words) for name, words in self._logic.outputs.items()}
        self._rows = [self._reserve(self._logic.memories[write.memory].row_bytes, 64) for write in self._logic.writes]
        loops = list(self._array_loops())
        nests = find_nests(self._targets(), self._kept)
        loops += [nest for nest in nests if nest.counts]
        flat = [target for nest in nests if not nest.counts for target in nest.first]
        for name, fields in outputs.items():
            words = self._logic.outputs[name]
            flat += [Target(word, "%t", field.place.offset) for word, field in zip(words, fields, strict=True)]
        names = [self._computing(number, *chunk) for number, chunk in enumerate(self._chunks(flat, loops))]
        names.append(self._looping(loops))
        self._commit()
        self._run(names)
        divisions = [wide_division(*each) for each in sorted(self._divisions)]
        text = "\n".join((*self._functions, *divisions, _DECLARATIONS))
        return Assembly(text=text, outputs=outputs, temporary_bytes=_aligned(self._offset, 64))

    # What is computed where

    def _targets(self) -> Iterator[Target]:
        """The next values of registers, and the rows that are written."""
        for register in sorted(self._logic.registers, key=lambda register: register.place.offset):
            yield Target(register.next, "%n", register.place.offset)
        for write, row in zip(self._logic.writes, self._rows, strict=True):
            fields = self._logic.memories[write.memory].fields
            for number, enable, data in write.fields:
                if not is_const(enable, 0):
                    yield Target(data, "%t", row + fields[number].place.offset)

    def _array_loops(self) -> Iterator[Nest]:
        """Loops for arrays that can be computed in loops as a whole, which then are in the temporary store."""
        uses = Counter(arg.number for word in self._logic.words for arg in word.args)
        for words in self._logic.arrays:
            if words[0].op in (*_LIGHT, "concat") or max(uses[word.number] for word in words) < _SHARED:
                continue
            nbytes = container(words[0].width) // 8
            row = self._reserve(len(words) * nbytes, 64)
            targets = [Target(word, "%t", row + number * nbytes) for number, word in enumerate(words)]
            nests = find_nests(targets, self._kept)
            if all(nest.counts for nest in nests):
                self._kept.update((target.word.number, target.offset) for target in targets)
                yield from nests
            else:
                self._offset = row

    def _controls(self) -> Iterator[Word]:
        """What decides about the ports of memories."""
        for read in self._logic.reads:
            yield from (read.address, read.enable)
        for write in self._logic.writes:
            yield write.address
            yield from (enable for _, enable, _ in write.fields)

    def _chunks(self, flat: Sequence[Target], loops: Sequence[Nest]) -> list[tuple[list[Word], list[Target]]]:
        """What each function computes, arguments first, and stores; gives a temporary to what is used elsewhere."""
        elsewhere = [*self._controls()]
        elsewhere += [word for nest in loops for word in scalars(nest) if word.number not in self._kept]
        needed = _reachable([*elsewhere, *(target.word for target in flat)])
        heavy = [word for word in needed if word.op not in _LIGHT]
        chunks = [heavy[begin : begin + FUNCTION_WORDS] for begin in range(0, len(heavy), FUNCTION_WORDS)] or [[]]
        home = {word.number: number for number, chunk in enumerate(chunks) for word in chunk}
        for number, chunk in enumerate(chunks):
            for source in _heavy_sources(arg for word in chunk for arg in word.args):
                if home[source.number] != number:
                    self._temporary(source)
        for word in _heavy_sources(elsewhere):
            self._temporary(word)
        stores: list[list[Target]] = [[] for _ in chunks]
        for target in flat:
            sources = list(_heavy_sources([target.word]))
            number = max((home[source.number] for source in sources), default=0)
            for source in sources:
                if home[source.number] != number:
                    self._temporary(source)
            stores[number].append(target)
        return list(zip(chunks, stores, strict=True))

    def _reserve(self, nbytes: int, alignment: int) -> int:
        """The offset of so many bytes of the temporary store."""
        offset = _aligned(self._offset, alignment)
        self._offset = offset + nbytes
        return offset

    def _temporary(self, word: Word) -> Place:
        place = self._temporaries.get(word.number)
        if place is None:
            nbytes = container(word.width) // 8
            place = self._temporaries[word.number] = Place(self._reserve(nbytes, min(nbytes, 8)), word.width)
        return place

    def _place_output(self, words: tuple[Word, ...]) -> tuple[Field, ...]:
        fields, low = [], 0
        for word in words:
            nbytes = container(word.width) // 8
            fields.append(Field(low, Place(self._reserve(nbytes, min(container(words[0].width) // 8, 8)), word.width)))
            low += word.width
        return tuple(fields)

    # Functions

    def _emitter(self, inside: Iterable[Word] = (), prefix: str = "") -> Emitter:
        """For a function in which all heavy words but those of `inside` come from temporaries."""
        emitter = Emitter(self._ranges, prefix)
        emitter.wide_divisions = self._divisions
        emitter.read_row = lambda word: self._read_field(emitter, word)
        own = {word.number for word in inside}
        emitter.outside = lambda word: None if word.number in own else self._temporaries.get(word.number)
        return emitter

    def _computing(self, number: int, chunk: Sequence[Word], stores: Sequence[Target]) -> str:
        emitter = self._emitter(chunk)
        for word in chunk:
            emitter.value(word)
            place = self._temporaries.get(word.number)
            if place is not None:
                emitter.store(word, emitter.pointer("%t", place.offset))
        for target in stores:
            emitter.store(target.word, emitter.pointer(target.base, target.offset))
        return self._function(f"compute{number}", emitter.lines)

    def _looping(self, loops: Sequence[Nest]) -> str:
        lines = [line for number, nest in enumerate(loops) for line in self._nest(number, nest)]
        return self._function("loops", lines)

    def _nest(self, number: int, nest: Nest) -> Iterator[str]:
        """A nest of loops; the labels of its lines begin with `nest` and its number."""
        label, last = f"nest{number}", len(nest.counts) - 1
        before = f"%{label}.begin"
        yield f"  br label {before}"
        yield f"{label}.begin:"
        for level in range(len(nest.counts)):
            here = f"{label}.{level}"
            yield f"  br label %{here}"
            yield f"{here}:"
            yield f"  %{here}.i = phi i64 [ 0, {before} ], [ %{here}.next, %{here}.latch ]"
            before = f"%{here}"
        words = body_words(nest)
        emitter = self._emitter(words, f"{label}.")

        def moved(base: str, offset: int, steps: Sequence[int]) -> str:
            pointer = emitter.pointer(base, offset)
            for level, step in enumerate(steps):
                if step:
                    bytes_ = emitter.line(f"mul i64 %{label}.{level}.i, {step}")
                    pointer = emitter.line(f"getelementptr inbounds i8, ptr {pointer}, i64 {bytes_}")
            return pointer

        def moving(word: Word) -> str | None:
            steps = nest.steps.get(word.number, ())
            if word.number in body:
                return None
            if word.number in self._kept:
                return moved("%t", self._kept[word.number], steps)
            return moved("%s", word.param.offset, steps) if steps else None

        body = {word.number for word in words}
        emitter.moving = moving
        for word in words:
            emitter.value(word)
        for target in nest.first:
            emitter.store(target.word, moved(target.base, target.offset, nest.target_steps))
        yield from emitter.lines
        for level in range(last, -1, -1):
            here = f"{label}.{level}"
            after = f"{label}.{level - 1}.latch" if level else f"{label}.end"
            yield f"  br label %{here}.latch" if level == last else ""
            yield f"{here}.latch:"
            yield f"  %{here}.next = add i64 %{here}.i, 1"
            yield f"  %{here}.over = icmp eq i64 %{here}.next, {nest.counts[level]}"
            yield f"  br i1 %{here}.over, label %{after}, label %{here}"
        yield f"{label}.end:"

    def _function(self, name: str, lines: Sequence[str]) -> str:
        body = "\n".join(lines)
        self._functions.append(
            f"define internal void @{name}{_SIGNATURE} noinline nounwind {{\n{body}\n  ret void\n}}\n"
        )
        return name

    def _commit(self) -> None:
        emitter = self._emitter()
        for read in self._logic.reads:
            self._read(emitter, read)
        for write, row in zip(self._logic.writes, self._rows, strict=True):
            self._write(emitter, write, row)
        begin, nbytes = self._logic.input_bytes, self._logic.state_bytes - self._logic.input_bytes
        source, target = emitter.pointer("%n", begin), emitter.pointer("%s", begin)
        emitter.lines.append(_memcpy(target, source, nbytes))
        self._function("commit", emitter.lines)
        self._function(
            "restore",
            [
                f"  %source = getelementptr i8, ptr %s, i64 {begin}",
                f"  %target = getelementptr i8, ptr %n, i64 {begin}",
                _memcpy("%target", "%source", nbytes),
            ],
        )

    def _row(self, emitter: Emitter, memory: int, address: Word) -> tuple[str, str | None]:
        """Pointer to a row, and whether it is there, None if all are; where it is not, to the first one."""
        rows = self._logic.memories[memory]
        index = emitter.get(address, ZERO, 64)
        inside = None
        if 1 << self._ranges(address)[0] > rows.depth:
            inside = emitter.line(f"icmp ult i64 {index}, {rows.depth}")
            index = emitter.line(f"select i1 {inside}, i64 {index}, i64 0")
        where = emitter.line(f"getelementptr inbounds ptr, ptr %m, i64 {memory}")
        base = emitter.line(f"load ptr, ptr {where}, align 8")
        offset = emitter.line(f"mul i64 {index}, {rows.row_bytes}")
        return emitter.line(f"getelementptr inbounds i8, ptr {base}, i64 {offset}"), inside

    def _read_field(self, emitter: Emitter, word: Word) -> Value:
        memory, number = word.param
        row, inside = self._row(emitter, memory, word.args[0])
        place = self._logic.memories[memory].fields[number].place
        value = emitter.load_from(emitter.pointer(row, place.offset), place.width)
        if inside is None:
            return value
        none = "false" if value.bits == 1 else "0"
        name = emitter.line(f"select i1 {inside}, i{value.bits} {value.name}, i{value.bits} {none}")
        return value._replace(name=name)

    def _read(self, emitter: Emitter, read: Read) -> None:
        fields = self._logic.memories[read.memory].fields
        with emitter.when(emitter.bit(read.enable)):
            row, inside = self._row(emitter, read.memory, read.address)
            places = [(fields[number].place, target) for number, target in read.targets]
            if inside is None and len({place.offset - target.offset for place, target in places}) == 1:
                for offset, nbytes in _spans(place for place, _ in places):
                    target = emitter.pointer("%n", offset + places[0][1].offset - places[0][0].offset)
                    _copy(emitter, emitter.pointer(row, offset), target, nbytes)
            else:
                for place, to in places:
                    bits = container(place.width)
                    value = emitter.line(f"load i{bits}, ptr {emitter.pointer(row, place.offset)}, align 1")
                    if inside is not None:
                        value = emitter.line(f"select i1 {inside}, i{bits} {value}, i{bits} 0")
                    emitter.lines.append(f"  store i{bits} {value}, ptr {emitter.pointer('%n', to.offset)}, align 1")
            for port in read.transparent:
                self._see_write(emitter, read, port)

    def _see_write(self, emitter: Emitter, read: Read, port: int) -> None:
        write, image = self._logic.writes[port], self._rows[port]
        wide = max(held(read.address.width), held(write.address.width))
        one, other = emitter.get(read.address, ZERO, wide), emitter.get(write.address, ZERO, wide)
        targets = dict(read.targets)
        memory = self._logic.memories[read.memory]
        fields, depth = memory.fields, memory.depth
        same = emitter.line(f"icmp eq i{wide} {one}, {other}")
        if 1 << self._ranges(read.address)[0] > depth:
            there = emitter.line(f"icmp ult i{wide} {one}, {depth}")
            same = emitter.line(f"and i1 {same}, {there}")
        with emitter.when(same):
            for enable, numbers in _by_enable(write):
                with emitter.when(emitter.bit(enable)):
                    for number in numbers:
                        source = emitter.pointer("%t", image + fields[number].place.offset)
                        target = emitter.pointer("%n", targets[number].offset)
                        _copy(emitter, source, target, targets[number].nbytes)

    def _write(self, emitter: Emitter, write: Write, image: int) -> None:
        places = [field.place for field in self._logic.memories[write.memory].fields]
        for enable, numbers in _by_enable(write):
            with emitter.when(emitter.bit(enable)):
                row, inside = self._row(emitter, write.memory, write.address)
                with emitter.when(inside or "true"):
                    for offset, nbytes in _spans(places[number] for number in numbers):
                        _copy(emitter, emitter.pointer("%t", image + offset), emitter.pointer(row, offset), nbytes)

    def _run(self, names: Sequence[str]) -> None:
        calls = "\n".join(f"  call void @{name}{_ARGUMENTS}" for name in names)
        self._functions.append(_RUN.format(calls=calls, arguments=_ARGUMENTS))


_RUN: Final = """
define void @settle(ptr %s, ptr %n, ptr %t, ptr %m) {{
{calls}
  call void @restore{arguments}
  ret void
}}

define i64 @run(ptr %s, ptr %n, ptr %t, ptr %m, i64 %cycles, i64 %until, ptr %hook, ptr %context) {{
  %watches = icmp sge i64 %until, 0
  %watched = getelementptr i8, ptr %t, i64 %until
  %hooked = icmp ne ptr %hook, null
  br label %next
next:
  %done = phi i64 [ 0, %0 ], [ %more, %end ]
  %over = icmp uge i64 %done, %cycles
  br i1 %over, label %finish, label %cycle
cycle:
{calls}
  br i1 %watches, label %watch, label %edge
watch:
  %flag = load i8, ptr %watched
  %stop = icmp ne i8 %flag, 0
  br i1 %stop, label %stopped, label %edge
stopped:
  call void @restore{arguments}
  br label %finish
edge:
  call void @commit{arguments}
  br i1 %hooked, label %call, label %end
call:
  %wish = call i64 %hook(ptr %s, ptr %t, ptr %context)
  %pause = icmp ne i64 %wish, 0
  br i1 %pause, label %paused, label %end
paused:
  %last = add i64 %done, 1
  ret i64 %last
end:
  %more = add i64 %done, 1
  br label %next
finish:
  ret i64 %done
}}
"""

_DECLARATIONS: Final = "\n".join(
    ["declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"]
    + [f"declare i{bits} @llvm.ctpop.i{bits}(i{bits})" for bits in (8, 16, 32, 64)]
)


def _memcpy(target: str, source: str, nbytes: int) -> str:
    return f"  call void @llvm.memcpy.p0.p0.i64(ptr align 8 {target}, ptr align 8 {source}, i64 {nbytes}, i1 false)"


def _by_enable(write: Write) -> Iterator[tuple[Word, list[int]]]:
    """The numbers of the fields that are written with each enable, but those never written."""
    groups: dict[int, tuple[Word, list[int]]] = {}
    for number, enable, _ in write.fields:
        if not is_const(enable, 0):
            groups.setdefault(enable.number, (enable, []))[1].append(number)
    yield from groups.values()


def _spans(places: Iterable[Place]) -> list[tuple[int, int]]:
    """Places as (offset, bytes), those joined that lie behind each other."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and sum(spans[-1]) == place.offset:
            spans[-1] = (spans[-1][0], spans[-1][1] + place.nbytes)
        else:
            spans.append((place.offset, place.nbytes))
    return spans


def _copy(emitter: Emitter, source: str, target: str, nbytes: int) -> None:
    emitter.lines.append(f"  call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)")


def _reachable(sinks: Iterable[Word]) -> list[Word]:
    """All words that the sinks need, arguments first."""
    found: dict[int, Word] = {}
    work = list(sinks)
    while work:
        word = work.pop()
        if word.number not in found:
            found[word.number] = word
            work.extend(word.args)
    return [found[number] for number in sorted(found)]


def _heavy_sources(words: Iterable[Word]) -> Iterator[Word]:
    """The heavy words from which light ones are made."""
    work = list(words)
    while work:
        word = work.pop()
        if word.op in _LIGHT:
            work.extend(word.args)
        else:
            yield word


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
