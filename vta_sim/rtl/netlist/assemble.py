"""The functions of a design: a clock cycle, and many of them.

In a cycle, first all blocks whose inputs have changed are computed from the state `%s`: outputs and what several blocks
need go to `%t`, the next values of registers to `%n`. Then memories are read and written, and `%n` becomes the state.
Before a cycle `%n` equals the state, so that a register which keeps its value need not be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vta_sim.rtl.netlist.emit import ZERO, Emitter, Value, held, wide_division
from vta_sim.rtl.netlist.logic import Field, Logic, Read, Write
from vta_sim.rtl.netlist.nests import LOOP_METADATA, NestWriter
from vta_sim.rtl.netlist.ranges import Ranges
from vta_sim.rtl.netlist.schedule import Block, LoopBlock, Schedule, span_of
from vta_sim.rtl.netlist.words import Place, Word, container, is_const

FUNCTION_WORDS: Final = 1000
"""Words of a function: LLVM takes more than proportional time for large ones."""

GROUP_BLOCKS: Final = 8
"""Blocks that are left out by one test if none is to be computed; a power of two up to 64."""

HOOK_STOPS: Final = 1
HOOK_SETS: Final = 2
"""What a hook returns, added up: the run ends behind this edge; it has set inputs."""

_SIGNATURE: Final = "(ptr noalias %s, ptr noalias %n, ptr noalias %t, ptr noalias %m)"
_ARGUMENTS: Final = "(ptr %s, ptr %n, ptr %t, ptr %m)"


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """LLVM IR as text, and where outputs are in the temporary store of `temporary_bytes` bytes."""

    text: str
    outputs: Mapping[str, tuple[Field, ...]]
    temporary_bytes: int


class Assembler:
    def __init__(self, logic: Logic) -> None:
        self._logic = logic
        self._schedule = Schedule(logic)
        self._ranges = Ranges()
        self._functions: list[str] = []
        self._divisions: set[tuple[str, int]] = set()

    def assemble(self) -> Assembly:
        schedule = self._schedule
        names = list(self._computing())
        self._commit()
        self._see_inputs()
        self._run(names)
        divisions = [wide_division(*each) for each in sorted(self._divisions)]
        text = "\n".join((*self._functions, *divisions, _DECLARATIONS, LOOP_METADATA))
        return Assembly(text=text, outputs=schedule.outputs, temporary_bytes=schedule.temporary_bytes)

    # Blocks

    def _computing(self) -> Iterator[str]:
        """Functions that compute the blocks, in this order."""
        emitter, words = self._emitter((), ""), 0
        blocks: list[Block | LoopBlock] = [*self._schedule.blocks, *self._schedule.loops]
        for begin in range(0, len(blocks), GROUP_BLOCKS):
            if words > FUNCTION_WORDS:
                yield self._function(f"compute{begin}", emitter.lines)
                emitter, words = self._emitter((), ""), 0
            group = blocks[begin : begin + GROUP_BLOCKS]
            # No block sets the flag of one before it, so that nothing in the group is to be done if no flag is set now.
            with emitter.when(self._is_flagged(emitter, begin, (1 << len(group)) - 1)):
                words += sum(self._block(emitter, block) for block in group)
        yield self._function("compute", emitter.lines)

    def _is_flagged(self, emitter: Emitter, block: int, mask: int) -> str:
        """Whether flags are set: bit n of the mask is that of the n-th block from `block` on."""
        place = self._flag("now", block)
        flags = emitter.line(f"load i64, ptr {emitter.line(f'getelementptr inbounds i8, ptr %t, i64 {place}')}")
        own = emitter.line(f"and i64 {flags}, {_signed(mask << block % 64)}")
        return emitter.line(f"icmp ne i64 {own}, 0")

    def _block(self, emitter: Emitter, block: Block | LoopBlock) -> int:
        """Compute a block if its flag is set; how many words it has."""
        with emitter.when(self._is_flagged(emitter, block.number, 1)):
            needed = "true"
            if isinstance(block, LoopBlock) and block.guard is not None:
                needed = emitter.bit(block.guard)
                # Left for a later cycle.
                waits = emitter.line(f"xor i1 {needed}, true")
                self._set_flags(emitter, "next", 1 << block.number, waits)
            with emitter.when(needed):
                if isinstance(block, LoopBlock):
                    self._loops(emitter, block)
                else:
                    inner = self._emitter(block.words, f"b{block.number}.")
                    self._compute(inner, block)
                    emitter.lines += inner.lines
        return len(block.nest.body) if isinstance(block, LoopBlock) else len(block.words)

    def _compute(self, emitter: Emitter, block: Block) -> None:
        schedule = self._schedule
        for word in block.words:
            emitter.value(word)
            place = schedule.temporaries.get(word.number)
            if place is not None:
                pointer = emitter.pointer("%t", place.offset)
                self._store(emitter, word, pointer, "now", schedule.readers_of(word))
        for target in block.stores:
            mask, pointer = 0, emitter.pointer(target.base, target.offset)
            if target.base == "%n":
                mask = schedule.readers_of_state(target.offset, container(target.word.width) // 8)
            self._store(emitter, target.word, pointer, "next", mask)

    def _store(self, emitter: Emitter, word: Word, pointer: str, when: str, mask: int) -> None:
        """Store a word; if it is not what it was, set the flags of the blocks of the mask."""
        if not mask:
            emitter.store(word, pointer)
            return
        with emitter.when(_differs(emitter, word, pointer)):
            emitter.store(word, pointer)
            self._set_flags(emitter, when, mask)

    def _loops(self, emitter: Emitter, block: LoopBlock) -> None:
        schedule, nest = self._schedule, block.nest

        def stored() -> None:
            offset, nbytes = span_of(nest)
            if nest.first[0].base == "%n":
                mask = schedule.readers_of_state(offset, nbytes) | schedule.copy_mask(offset, nbytes)
                self._set_flags(emitter, "next", mask)
            else:
                self._set_flags(emitter, "now", schedule.readers_of(nest.first[0].word))

        NestWriter(emitter, nest, inside=self._emitter, stored=stored).write()

    # Flags

    def _flag(self, when: str, number: int) -> int:
        """Offset of the word that has the flag of a block, for this cycle or the next."""
        schedule = self._schedule
        return schedule.flags + 8 * (number // 64 + (schedule.flag_words if when == "next" else 0))

    def _set_flags(self, emitter: Emitter, when: str, mask: int, condition: str | None = None) -> None:
        for word in range(self._schedule.flag_words):
            part = mask >> (64 * word) & (1 << 64) - 1
            if not part:
                continue
            pointer = emitter.line(f"getelementptr inbounds i8, ptr %t, i64 {self._flag(when, 64 * word)}")
            flags = emitter.line(f"load i64, ptr {pointer}")
            more = str(_signed(part))
            if condition is not None:
                more = emitter.line(f"select i1 {condition}, i64 {more}, i64 0")
            flags = emitter.line(f"or i64 {flags}, {more}")
            emitter.lines.append(f"  store i64 {flags}, ptr {pointer}")

    def _emitter(self, inside: Iterable[Word] = (), prefix: str = "") -> Emitter:
        """For code in which all heavy words but those of `inside` come from temporaries."""
        emitter = Emitter(self._ranges, prefix)
        emitter.wide_divisions = self._divisions
        emitter.read_row = lambda word: self._read_field(emitter, word)
        own = {word.number for word in inside}
        temporaries = self._schedule.temporaries
        emitter.outside = lambda word: None if word.number in own else temporaries.get(word.number)
        return emitter

    def _function(self, name: str, lines: Sequence[str]) -> str:
        body = "\n".join(lines)
        self._functions.append(
            f"define internal void @{name}{_SIGNATURE} noinline nounwind {{\n{body}\n  ret void\n}}\n"
        )
        return name

    def _commit(self) -> None:
        emitter, schedule = self._emitter(), self._schedule
        for read in self._logic.reads:
            self._read(emitter, read)
        for write, row in zip(self._logic.writes, schedule.rows, strict=True):
            self._write(emitter, write, row)
        begin, nbytes = self._logic.input_bytes, self._logic.state_bytes - self._logic.input_bytes
        at = begin
        for number, offset, length in (*schedule.copies, (-1, begin + nbytes, 0)):
            if at < offset:
                _copy(emitter, emitter.pointer("%n", at), emitter.pointer("%s", at), offset - at)
            at = max(at, offset + length)
            if number >= 0:
                where = emitter.pointer("%t", self._flag("next", number))
                flags = emitter.line(f"load i64, ptr {where}")
                own = emitter.line(f"and i64 {flags}, {_signed(1 << number % 64)}")
                with emitter.when(emitter.line(f"icmp ne i64 {own}, 0")):
                    _copy(emitter, emitter.pointer("%n", offset), emitter.pointer("%s", offset), length)
        for word in range(schedule.flag_words):
            source, target = (emitter.pointer("%t", self._flag(when, 64 * word)) for when in ("next", "now"))
            emitter.lines.append(f"  store i64 {emitter.line(f'load i64, ptr {source}')}, ptr {target}")
            emitter.lines.append(f"  store i64 0, ptr {source}")
        self._function("commit", emitter.lines)
        self._function(
            "wake",
            [
                line
                for word in range(schedule.flag_words)
                for line in (
                    f"  %now{word} = getelementptr i8, ptr %t, i64 {self._flag('now', 64 * word)}",
                    f"  store i64 -1, ptr %now{word}",
                    f"  %next{word} = getelementptr i8, ptr %t, i64 {self._flag('next', 64 * word)}",
                    f"  store i64 0, ptr %next{word}",
                )
            ],
        )
        self._function(
            "restore",
            [
                f"  %source = getelementptr i8, ptr %s, i64 {begin}",
                f"  %target = getelementptr i8, ptr %n, i64 {begin}",
                _memcpy("%target", "%source", nbytes),
            ],
        )

    def _see_inputs(self) -> None:
        """Set the flags of who reads an input that is not what it was."""
        emitter, schedule = self._emitter(), self._schedule
        for fields in self._logic.inputs.values():
            for field in fields:
                place = field.place
                mask = schedule.readers_of_state(place.offset, place.nbytes)
                if mask:
                    bits = container(place.width)
                    copy = emitter.pointer("%t", schedule.inputs_copy + place.offset)
                    new = emitter.line(f"load i{bits}, ptr {emitter.pointer('%s', place.offset)}, align 1")
                    old = emitter.line(f"load i{bits}, ptr {copy}, align 1")
                    self._set_flags(emitter, "now", mask, emitter.line(f"icmp ne i{bits} {old}, {new}"))
                    emitter.lines.append(f"  store i{bits} {new}, ptr {copy}, align 1")
        self._function("inputs", emitter.lines)

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
            mask = 0
            for _, place in read.targets:
                mask |= self._schedule.readers_of_state(place.offset, place.nbytes)
                mask |= self._schedule.copy_mask(place.offset, place.nbytes)
            self._set_flags(emitter, "next", mask)

    def _see_write(self, emitter: Emitter, read: Read, port: int) -> None:
        write, image = self._logic.writes[port], self._schedule.rows[port]
        wide = max(held(read.address.width), held(write.address.width))
        one, other = emitter.get(read.address, ZERO, wide), emitter.get(write.address, ZERO, wide)
        targets = dict(read.targets)
        fields = self._logic.memories[read.memory].fields
        # Also for a row that there is not, as Amaranth has it.
        with emitter.when(emitter.line(f"icmp eq i{wide} {one}, {other}")):
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
                self._set_flags(emitter, "next", self._schedule.readers_of_memory(write.memory))

    def _run(self, names: Sequence[str]) -> None:
        calls = "\n".join(f"  call void @{name}{_ARGUMENTS}" for name in names)
        self._functions.append(_RUN.format(calls=calls, arguments=_ARGUMENTS, stops=HOOK_STOPS, sets=HOOK_SETS))


_RUN: Final = """
define void @settle(ptr %s, ptr %n, ptr %t, ptr %m) {{
  call void @wake{arguments}
{calls}
  call void @restore{arguments}
  ret void
}}

define i64 @run(ptr %s, ptr %n, ptr %t, ptr %m,
                i64 %cycles, i64 %until, ptr %hook, ptr %context, i64 %when, i64 %base) {{
  %watches = icmp sge i64 %until, 0
  %watched = getelementptr i8, ptr %t, i64 %until
  %hooked = icmp ne ptr %hook, null
  %wanted = getelementptr i8, ptr %t, i64 %when
  call void @wake{arguments}
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
  br i1 %hooked, label %ask, label %end
ask:
  %want = load i8, ptr %wanted
  %now = icmp ne i8 %want, 0
  br i1 %now, label %call, label %end
call:
  %number = add i64 %base, %done
  %wish = call i64 %hook(ptr %s, ptr %t, ptr %context, i64 %number)
  %sets = and i64 %wish, {sets}
  %set = icmp ne i64 %sets, 0
  br i1 %set, label %inputs, label %see
inputs:
  call void @inputs{arguments}
  br label %see
see:
  %stops = and i64 %wish, {stops}
  %pause = icmp ne i64 %stops, 0
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
    return f"  call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)"


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
    """Copy bytes that do not overlap."""
    emitter.lines.append(_memcpy(target, source, nbytes))


def _differs(emitter: Emitter, word: Word, pointer: str) -> str:
    """Whether a word is another one than at a place."""
    bits = container(word.width)
    old = emitter.line(f"load i{bits}, ptr {pointer}, align 1")
    return emitter.line(f"icmp ne i{bits} {old}, {emitter.get(word, ZERO, bits)}")


def _signed(mask: int) -> int:
    """The number that LLVM reads as the 64 bits of a mask."""
    return mask - (1 << 64) if mask >> 63 else mask
