"""The LLVM module of a run: a function for each section of each distinct procedure, and one entry that calls them.

All threads of a run call ``void tensor_run(ptr buffers, ptr scratch, i64 thread, i64 threads, ptr barrier)``:

* buffers: a table of the addresses of the run's buffers;
* scratch: `shared` bytes of `Module` and `private` for each thread, aligned to `ALIGNMENT`, for this run alone;
* thread, threads: its number, from 0, and how many there are;
* barrier: `BARRIER_BYTES`, aligned as well, zero before the first of the runs that use them in turn.

Threads take iterations of a parallel section until none are left, so that one which has to wait for a processor holds
up no more than it has taken. After every section they wait for each other: they spin, and after a while sleep, for
threads that only give way are given their processor back late, when others want it too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from compiler.llvm.codegen import ALIGNMENT, Function, define
from compiler.llvm.emitter import Globals
from compiler.llvm.sections import sections
from compiler.llvm.target import Target
from compiler.tensor.ir import Proc

ENTRY = "tensor_run"
BARRIER_BYTES = 3 * ALIGNMENT
"""A cache line each for the threads that have arrived, for how often all have, and for the next iteration to take."""
_SPINS = 5_000
"""Looks at the barrier before a thread sleeps: a tenth of a millisecond."""
_SLEEP = 20
"""Microseconds, after which it looks again."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A procedure, by its number, on buffers, by theirs in the table, one for each of its parameters."""

    proc: int
    buffers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Module:
    """LLVM IR, and the bytes of scratch memory that the threads of a run share, and that each of them has."""

    text: str
    shared: int
    private: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A section of a procedure as a function.

    parameters: the procedure's own, by number, that it takes first. shared: bytes of the shared memory at which its
    others begin. private: the same of the memory of each thread, where the section is parallel.
    """

    symbol: str
    function: Function
    parameters: tuple[int, ...]
    shared: tuple[int, ...]
    private: tuple[int, ...]
    is_parallel: bool


def generate_run(procs: Sequence[Proc], calls: Sequence[Call], target: Target) -> Module:
    """LLVM IR of a run of verified procedures, in the order of `calls`. Raises LoweringError as `codegen.define`."""
    module, layout = Globals(), _Layout()
    parts = [_parts(f"section.{number}", proc, module, layout, target) for number, proc in enumerate(procs)]
    run = [(call, part) for call in calls for part in parts[call.proc]]
    text = [part.function.text for of_one in parts for part in of_one]
    text += [_entry(run, layout), _barrier(target), *module.lines]
    return Module(text="\n".join(text) + "\n", shared=layout.shared, private=layout.private)


class _Layout:
    """Bytes of scratch memory: the most that any procedure needs, not the sum."""

    def __init__(self) -> None:
        self.shared = 0
        self.private = 0


def _places(sizes: Sequence[int], begin: int) -> tuple[tuple[int, ...], int]:
    """Where buffers of these sizes begin, one after the other from `begin` on, and where the last ends."""
    *places, end = itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=begin)
    return tuple(places), end


def _parts(symbol: str, proc: Proc, module: Globals, layout: _Layout, target: Target) -> list[_Part]:
    whole = sections(proc)
    number = {buffer.name: n for n, buffer in enumerate(proc.params)}
    sizes = [math.prod(buffer.static_shape) * buffer.type.numpy.itemsize for buffer in whole.shared]
    places, end = _places(sizes, 0)
    place = {buffer.name: at for buffer, at in zip(whole.shared, places, strict=True)}
    layout.shared = max(layout.shared, end)
    parts = []
    for n, section in enumerate(whole.parts):
        function = define(
            section.proc, f"{symbol}.{n}", module, "internal", target=target, share=section.is_parallel
        )
        shared = tuple(place[buffer.name] for buffer in section.proc.params if buffer.name in place)
        private: tuple[int, ...] = ()
        if section.is_parallel:
            private, last = _places(function.scratch, 0)
            layout.private = max(layout.private, last)
        else:
            own, last = _places(function.scratch, end)
            shared = (*shared, *own)
            layout.shared = max(layout.shared, last)
        names = [buffer.name for buffer in section.proc.params]
        parts.append(
            _Part(
                symbol=f"{symbol}.{n}",
                function=function,
                parameters=tuple(number[name] for name in names if name in number),
                shared=shared,
                private=private,
                is_parallel=section.is_parallel,
            )
        )
    return parts


def _entry(run: Sequence[tuple[Call, _Part]], layout: _Layout) -> str:
    lines = [
        f"define void @{ENTRY}(ptr %buffers, ptr %scratch, i64 %thread, i64 %threads, ptr %barrier) nounwind {{",
        "start:",
        f"  %before = mul i64 %thread, {layout.private}",
        f"  %begin = add i64 %before, {layout.shared}",
        "  %own = getelementptr i8, ptr %scratch, i64 %begin",
        f"  %next = getelementptr i8, ptr %barrier, i64 {2 * ALIGNMENT}",
        "  %is_first = icmp eq i64 %thread, 0",
    ]
    count = itertools.count()

    def pointer(text: str) -> str:
        name = f"%p{next(count)}"
        lines.append(f"  {name} = {text}")
        return f"ptr {name}"

    def call(step: Call, part: _Part) -> None:
        arguments = []
        for parameter in part.parameters:
            entry = pointer(f"getelementptr ptr, ptr %buffers, i64 {step.buffers[parameter]}")
            arguments.append(pointer(f"load ptr, {entry}"))
        arguments += [pointer(f"getelementptr i8, ptr %scratch, i64 {place}") for place in part.shared]
        arguments += [pointer(f"getelementptr i8, ptr %own, i64 {place}") for place in part.private]
        if part.is_parallel:
            arguments += ["ptr %next", "i64 %threads"]
        lines.append(f"  call void @{part.symbol}({', '.join(arguments)})")

    for is_parallel, group in itertools.groupby(run, lambda item: item[1].is_parallel):
        if is_parallel:
            for step, part in group:
                call(step, part)
                lines.append("  call void @barrier(ptr %barrier, i64 %threads)")
            continue
        alone, together = f"alone{next(count)}", f"together{next(count)}"
        lines += [f"  br i1 %is_first, label %{alone}, label %{together}", f"{alone}:"]
        for step, part in group:
            call(step, part)
        lines += [f"  br label %{together}", f"{together}:", "  call void @barrier(ptr %barrier, i64 %threads)"]
    return "\n".join([*lines, "  ret void", "}"])


_PAUSE = {
    "x86_64": ("void @llvm.x86.sse2.pause()", "void @llvm.x86.sse2.pause()"),
    "aarch64": ("void @llvm.aarch64.hint(i32)", "void @llvm.aarch64.hint(i32 1)"),
}
"""Declaration and call, by processor, of what tells it that a loop waits."""
_REST = {
    "linux": ("i32 @usleep(i32)", f"i32 @usleep(i32 {_SLEEP})"),
    "darwin": ("i32 @usleep(i32)", f"i32 @usleep(i32 {_SLEEP})"),
    "windows": ("i32 @SwitchToThread()", "i32 @SwitchToThread()"),
}
"""The same, by system, of what leaves the processor to others for a while."""


def _barrier(target: Target) -> str:
    """A function that returns when as many threads are in it as there are.

    Threads count themselves; the last one begins a new round, for which the others look.
    """
    waits = [[ways[name] for name in ways if name in target.triple] for ways in (_PAUSE, _REST)]
    pause, rest = ("".join(f"  call {call}\n" for _, call in ways) for ways in waits)
    declarations = "".join(f"declare {declaration}\n" for ways in waits for declaration, _ in ways)
    return f"""define internal void @barrier(ptr %arrived, i64 %threads) noinline nounwind {{
start:
  %round = getelementptr i8, ptr %arrived, i64 {ALIGNMENT}
  %next = getelementptr i8, ptr %arrived, i64 {2 * ALIGNMENT}
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %reset, label %arrive
reset:
  store atomic i64 0, ptr %next monotonic, align 8
  br label %done
arrive:
  %now = load atomic i64, ptr %round acquire, align 8
  %before = atomicrmw add ptr %arrived, i64 1 acq_rel, align 8
  %count = add i64 %before, 1
  %is_last = icmp eq i64 %count, %threads
  br i1 %is_last, label %open, label %wait
open:
  store atomic i64 0, ptr %next monotonic, align 8
  store atomic i64 0, ptr %arrived monotonic, align 8
  %following = add i64 %now, 1
  store atomic i64 %following, ptr %round release, align 8
  br label %done
wait:
  %looks = phi i64 [ 0, %arrive ], [ %more, %spin ], [ %more, %rest ]
{pause}  %more = add i64 %looks, 1
  %seen = load atomic i64, ptr %round acquire, align 8
  %is_open = icmp ne i64 %seen, %now
  br i1 %is_open, label %done, label %still
still:
  %is_long = icmp ugt i64 %more, {_SPINS}
  br i1 %is_long, label %rest, label %spin
spin:
  br label %wait
rest:
{rest}  br label %wait
done:
  ret void
}}
{declarations}"""
