"""Loops as LLVM instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from vta_sim.rtl.netlist.emit import Emitter
from vta_sim.rtl.netlist.loops import Nest, body_words
from vta_sim.rtl.netlist.words import Word, container

_VECTOR_BITS: Final = 512
_LANES: Final = tuple(1 << power for power in range(7))
LOOP_METADATA: Final = (
    "\n".join(
        f"!{lanes.bit_length()} = distinct !{{!{lanes.bit_length()}, !0, !{lanes.bit_length() + len(_LANES)}}}\n"
        f'!{lanes.bit_length() + len(_LANES)} = !{{!"llvm.loop.vectorize.width", i32 {lanes}}}'
        for lanes in _LANES
    )
    + '\n!0 = !{!"llvm.loop.unroll.disable"}\n'
)
"""What loops are told, by the repetitions that are to become one vector: node 1 for one, 2 for two, 3 for four.

They are not to be unrolled before they become vectors. LLVM is not asked for the number itself, because in looking for
it the vectoriser may end the process with an assertion (LLVM 22: "VPlan cost model and legacy cost model disagreed").
"""


class NestWriter:
    """Writes a nest of loops at the end of what `emitter` has written.

    A choice that is the same in every repetition is made once, before the loops, and what stays as it is is not stored.
    inside: makes an emitter for the body of loops, in which the given words are computed. stored: called behind loops
    that have stored something.
    """

    def __init__(
        self,
        emitter: Emitter,
        nest: Nest,
        *,
        inside: Callable[[Sequence[Word], str], Emitter],
        stored: Callable[[], None],
    ) -> None:
        self._emitter = emitter
        self._nest = nest
        self._inside = inside
        self._stored = stored

    def write(self) -> None:
        self._choose([target.word for target in self._nest.first])

    def _choose(self, values: list[Word]) -> None:
        choices = [choice for value in values if value.number in self._nest.body and (choice := _choices(value))]
        conditions = choices[0][0] if choices else ()
        same = len(choices) == len(values) and all(each[0] == conditions for each in choices)
        if not same or any(map(self._varies, conditions)):
            self._loop(values)
            return
        emitter = self._emitter
        end = emitter.name()[1:]
        # The last condition that holds counts.
        for number in reversed(range(len(conditions))):
            label = emitter.name()[1:]
            emitter.lines.append(f"  br i1 {emitter.bit(conditions[number])}, label %yes{label}, label %no{label}")
            emitter.lines.append(f"yes{label}:")
            with emitter.scope():
                self._choose([each[1][number] for each in choices])
            emitter.lines += [f"  br label %end{end}", f"no{label}:"]
        with emitter.scope():
            self._choose([each[2] for each in choices])
        emitter.lines += [f"  br label %end{end}", f"end{end}:"]

    def _varies(self, word: Word) -> bool:
        return word.number in self._nest.body or word.number in self._nest.steps or word.number in self._nest.arrays

    def _loop(self, values: list[Word]) -> None:
        nest = self._nest
        if all(
            target.base == "%n"
            and value.op == "load"
            and value.param.offset == target.offset
            and nest.steps.get(value.number) == nest.target_steps
            for target, value in zip(nest.first, values, strict=True)
        ):
            return
        label = self._emitter.name()[1:]
        self._emitter.lines += self._lines(label, values)
        self._stored()

    def _lines(self, label: str, values: list[Word]) -> Iterator[str]:
        nest = self._nest
        last = len(nest.counts) - 1
        before = f"%{label}.begin"
        yield f"  br label {before}"
        yield f"{label}.begin:"
        for level in range(len(nest.counts)):
            here = f"{label}.{level}"
            yield f"  br label %{here}"
            yield f"{here}:"
            yield f"  %{here}.i = phi i64 [ 0, {before} ], [ %{here}.next, %{here}.latch ]"
            before = f"%{here}"
        words = body_words(nest, values)
        emitter = self._inside(words, f"{label}.")

        def moved(base: str, offset: int, steps: Sequence[int]) -> str:
            pointer = emitter.pointer(base, offset)
            for level, step in enumerate(steps):
                if step:
                    distance = emitter.line(f"mul i64 %{label}.{level}.i, {step}")
                    pointer = emitter.line(f"getelementptr inbounds i8, ptr {pointer}, i64 {distance}")
            return pointer

        def moving(word: Word) -> str | None:
            if word.number in nest.body:
                return None
            steps = nest.steps.get(word.number, ())
            if word.number in nest.arrays:
                return moved("%t", nest.arrays[word.number], steps)
            return moved("%s", word.param.offset, steps) if steps else None

        emitter.moving = moving
        for word in words:
            emitter.value(word)
        widest = max(container(word.width) for word in (*words, *values))
        lanes = max(lanes for lanes in _LANES if lanes == 1 or lanes <= min(nest.counts[-1], _VECTOR_BITS // widest))
        for target, value in zip(nest.first, values, strict=True):
            emitter.store(value, moved(target.base, target.offset, nest.target_steps))
        yield from emitter.lines
        yield f"  br label %{label}.{last}.latch"
        for level in range(last, -1, -1):
            here = f"{label}.{level}"
            after = f"{label}.{level - 1}.latch" if level else f"{label}.end"
            yield f"{here}.latch:"
            yield f"  %{here}.next = add i64 %{here}.i, 1"
            yield f"  %{here}.over = icmp eq i64 %{here}.next, {nest.counts[level]}"
            kind = f", !llvm.loop !{lanes.bit_length()}" if level == last else ""
            yield f"  br i1 %{here}.over, label %{after}, label %{here}{kind}"
        yield f"{label}.end:"


def _choices(word: Word) -> tuple[tuple[Word, ...], tuple[Word, ...], Word] | None:
    """Conditions and values, of which the last whose condition holds counts, and the value if none does."""
    if word.op == "assign":
        return word.args[1::2], word.args[2::2], word.args[0]
    if word.op == "select":
        return word.args[:1], word.args[1:2], word.args[2]
    return None
