"""The functions of a design: a clock cycle, and many of them.

In a cycle, first everything is computed from the state `%s`: outputs and what several functions need go to `%t`, the
next values of registers to `%n`. Then memories are read and written, and `%n` becomes the state. Before a cycle `%n`
equals the state, so that a register which keeps its value need not be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vta_sim.rtl.netlist.emit import ZERO, Emitter, Value, held, wide_division
from vta_sim.rtl.netlist.logic import Field, Logic, Read, Write
from vta_sim.rtl.netlist.ranges import Ranges
from vta_sim.rtl.netlist.words import Place, Word, container

FUNCTION_WORDS: Final = 1000
"""Words of a function: LLVM takes more than proportional time for large ones."""

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
        self._functions: list[str] = []
        self._divisions: set[tuple[str, int]] = set()

    def assemble(self) -> Assembly:
        logic = self._logic
        outputs = self._output_fields = {name: self._place_output(words) for name, words in logic.outputs.items()}
        chunks = self._chunks()
        names = [self._computing(number, chunk) for number, chunk in enumerate(chunks)]
        self._commit()
        self._run(names)
        divisions = [wide_division(*each) for each in sorted(self._divisions)]
        text = "\n".join((*self._functions, *divisions, _DECLARATIONS))
        return Assembly(text=text, outputs=outputs, temporary_bytes=_aligned(self._offset, 64))

    # What is computed where

    def _sinks(self) -> Iterator[Word]:
        logic = self._logic
        yield from (register.next for register in logic.registers)
        yield from (word for words in logic.outputs.values() for word in words)
        yield from self._of_memories()

    def _of_memories(self) -> Iterator[Word]:
        for read in self._logic.reads:
            yield from (read.address, read.enable)
        for write in self._logic.writes:
            yield write.address
            for _, enable, data in write.fields:
                yield from (enable, data)

    def _chunks(self) -> list[list[Word]]:
        """Words that are computed, arguments first, in portions; gives a temporary to those used elsewhere."""
        needed = _reachable(self._sinks())
        heavy = [word for word in needed if word.op not in _LIGHT]
        chunks = [heavy[begin : begin + FUNCTION_WORDS] for begin in range(0, len(heavy), FUNCTION_WORDS)]
        home = {word.number: number for number, chunk in enumerate(chunks) for word in chunk}
        for number, chunk in enumerate(chunks):
            for word in chunk:
                for source in _heavy_sources(word.args):
                    if home[source.number] != number:
                        self._temporary(source)
        last = len(chunks)
        for word in _heavy_sources(self._of_memories()):
            self._temporary(word)
        self._stores: list[list[tuple[Word, str, int]]] = [[] for _ in range(last + 1)]
        for register in self._logic.registers:
            self._stored(register.next, "%n", register.place.offset, home, last)
        for name, fields in self._output_fields.items():
            for word, field in zip(self._logic.outputs[name], fields, strict=True):
                self._stored(word, "%t", field.place.offset, home, last)
        chunks.append([])
        return chunks

    def _stored(self, word: Word, base: str, offset: int, home: Mapping[int, int], last: int) -> None:
        sources = list(_heavy_sources([word]))
        number = max((home[source.number] for source in sources), default=last)
        for source in sources:
            if home[source.number] != number:
                self._temporary(source)
        self._stores[number].append((word, base, offset))

    def _temporary(self, word: Word) -> Place:
        place = self._temporaries.get(word.number)
        if place is None:
            nbytes = container(word.width) // 8
            self._offset = _aligned(self._offset, min(nbytes, 8))
            place = self._temporaries[word.number] = Place(self._offset, word.width)
            self._offset += nbytes
        return place

    def _place_output(self, words: tuple[Word, ...]) -> tuple[Field, ...]:
        fields, low = [], 0
        for word in words:
            self._offset = _aligned(self._offset, container(words[0].width) // 8)
            fields.append(Field(low, Place(self._offset, word.width)))
            self._offset += container(word.width) // 8
            low += word.width
        return tuple(fields)

    # Functions

    def _emitter(self, inside: Iterable[Word] = ()) -> Emitter:
        """For a function in which all heavy words but those of `inside` come from temporaries."""
        emitter = Emitter(self._ranges)
        emitter.wide_divisions = self._divisions
        emitter.read_row = lambda word: self._read_field(emitter, word)
        own = {word.number for word in inside}
        emitter.outside = lambda word: None if word.number in own else self._temporaries.get(word.number)
        return emitter

    def _computing(self, number: int, chunk: Sequence[Word]) -> str:
        emitter = self._emitter(chunk)
        for word in chunk:
            emitter.value(word)
            place = self._temporaries.get(word.number)
            if place is not None:
                emitter.store(word, emitter.pointer("%t", place.offset))
        for word, base, offset in self._stores[number]:
            emitter.store(word, emitter.pointer(base, offset))
        return self._function(f"compute{number}", emitter.lines)

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
        for write in self._logic.writes:
            self._write(emitter, write)
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
            for number, target in read.targets:
                place = fields[number].place
                bits = container(place.width)
                value = emitter.line(f"load i{bits}, ptr {emitter.pointer(row, place.offset)}, align 1")
                if inside is not None:
                    value = emitter.line(f"select i1 {inside}, i{bits} {value}, i{bits} 0")
                emitter.lines.append(f"  store i{bits} {value}, ptr {emitter.pointer('%n', target.offset)}, align 1")
            for port in read.transparent:
                self._see_write(emitter, read, self._logic.writes[port])

    def _see_write(self, emitter: Emitter, read: Read, write: Write) -> None:
        wide = max(held(read.address.width), held(write.address.width))
        one, other = emitter.get(read.address, ZERO, wide), emitter.get(write.address, ZERO, wide)
        targets = dict(read.targets)
        depth = self._logic.memories[read.memory].depth
        same = emitter.line(f"icmp eq i{wide} {one}, {other}")
        if 1 << self._ranges(read.address)[0] > depth:
            there = emitter.line(f"icmp ult i{wide} {one}, {depth}")
            same = emitter.line(f"and i1 {same}, {there}")
        with emitter.when(same):
            for enable, fields in _by_enable(write):
                with emitter.when(emitter.bit(enable)):
                    for number, data in fields:
                        if number in targets:
                            emitter.store(data, emitter.pointer("%n", targets[number].offset))

    def _write(self, emitter: Emitter, write: Write) -> None:
        memory = self._logic.memories[write.memory]
        for enable, fields in _by_enable(write):
            with emitter.when(emitter.bit(enable)):
                row, inside = self._row(emitter, write.memory, write.address)
                with emitter.when(inside or "true"):
                    for number, data in fields:
                        emitter.store(data, emitter.pointer(row, memory.fields[number].place.offset))

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


def _by_enable(write: Write) -> Iterator[tuple[Word, list[tuple[int, Word]]]]:
    """The fields that are written with each enable, but those never written."""
    groups: dict[int, tuple[Word, list[tuple[int, Word]]]] = {}
    for number, enable, data in write.fields:
        if not (enable.op == "const" and not enable.param):
            groups.setdefault(enable.number, (enable, []))[1].append((number, data))
    yield from groups.values()


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
