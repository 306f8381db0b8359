"""Schedule primitives: rewrites of a procedure that change how, never what, it computes.

Each primitive is a method of `Schedule` that checks its legality, rewrites the procedure and appends itself to `trace`.
A trace is plain data: `Schedule.replay` applies one to a fresh procedure, which is what tuning stores. Loops and
buffers are addressed by their names, which are unique in a procedure. The primitives follow Halide's and Exo's
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compiler.errors import CompileError
from compiler.tensor import rewrite_buffers, rewrite_loops
from compiler.tensor.ir import DType, LoopKind, Proc, Scope
from compiler.tensor.legality import IllegalRewrite

Argument = str | int | tuple[str, ...] | Scope | DType | LoopKind | None


class ScheduleError(CompileError):
    """A primitive does not apply; the message names primitive, loop or buffer, and the rule."""


@dataclass(frozen=True, slots=True)
class Step:
    """One primitive call: method name and arguments."""

    primitive: str
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        """Such as ``split(oh, 7, oh.o, oh.i)``."""
        return f"{self.primitive}({', '.join(map(_shown, self.arguments))})"


def _shown(argument: Argument) -> str:
    match argument:
        case Scope() | DType() | LoopKind():
            return str(argument.value)
        case None:
            return "none"
        case _:
            return str(argument)


_PRIMITIVES = (
    *("split", "cut", "reorder", "fuse", "merge", "set_kind", "narrow", "stage", "set_scope", "rotate", "split_fill"),
    *("prefetch", "drop_unit_loops", "mark"),
)
"""Methods of `Schedule` that a trace may name."""


class Schedule:
    """A procedure under transformation. `proc` is the current form, `trace` the calls that led to it."""

    def __init__(self, proc: Proc) -> None:
        self.proc = proc
        self.trace: list[Step] = []

    @classmethod
    def replay(cls, proc: Proc, trace: Sequence[Step]) -> Schedule:
        """The schedule that `trace` led to. Raises ScheduleError for steps that are none, or do not apply."""
        schedule = cls(proc)
        for step in trace:
            if step.primitive not in _PRIMITIVES:
                raise ScheduleError(f"primitive must be one of {', '.join(_PRIMITIVES)}, not {step.primitive!r}")
            try:
                getattr(schedule, step.primitive)(*step.arguments)
            except TypeError as error:
                raise ScheduleError(f"{step.primitive} must have its arguments: {error}") from None
        return schedule

    def _apply(self, primitive: str, rewriting: Callable[..., Proc], *arguments: Argument) -> None:
        self._rewrite(primitive, rewriting, *arguments)
        self.trace.append(Step(primitive, arguments))

    def _rewrite(self, primitive: str, rewriting: Callable[..., Proc], *arguments: Argument | Proc) -> None:
        try:
            self.proc = rewriting(self.proc, *arguments)
        except IllegalRewrite as error:
            raise ScheduleError(f"{primitive} in {self.proc.name}: {error}") from None

    def split(self, loop: str, factor: int, outer: str, inner: str) -> None:
        """Replace `loop` by `outer` over chunks of `factor` and `inner` within one; the last may be shorter."""
        self._apply("split", rewrite_loops.split, loop, factor, outer, inner)

    def cut(self, loop: str, first: int, new: str) -> None:
        """Replace `loop` by two that follow each other: its `first` iterations, and the rest.

        Loops and buffers of the rest are named by appending `new`. Extents that `split` left as the smaller of two
        become the one that it is in each half, and conditions that always or never hold there go.
        """
        self._apply("cut", rewrite_loops.cut, loop, first, new)

    def reorder(self, *loops: str) -> None:
        """Put the loops of a perfect nest, all of which are named, in the given order, outermost first."""
        self._apply("reorder", rewrite_loops.reorder, *loops)

    def fuse(self, outer: str, inner: str, fused: str) -> None:
        """Replace two loops, one directly in the other, by one over all pairs."""
        self._apply("fuse", rewrite_loops.fuse, outer, inner, fused)

    def merge(self, first: str, *others: str) -> None:
        """Run the bodies of loops that follow each other in one loop, which keeps the name of `first`."""
        self._apply("merge", rewrite_loops.merge, first, *others)

    def set_kind(self, loop: str, kind: LoopKind) -> None:
        """Unroll, vectorise, run in parallel or as virtual threads; all but unrolling need independent iterations."""
        self._apply("set_kind", rewrite_loops.set_kind, loop, kind)

    def narrow(self, buffer: str, loop: str) -> None:
        """Move the allocation of `buffer` into `loop`, and shrink it to what one iteration touches."""
        self._apply("narrow", rewrite_buffers.narrow, buffer, loop)

    def stage(self, buffer: str, loop: str | None, scope: Scope, name: str, dtype: DType | None = None) -> None:
        """Copy what one iteration of `loop` (None: the whole procedure) reads of `buffer` to a new buffer `name`.

        Padding moves into the copy. With a `dtype` the copy converts, and takes the place of the reader's own cast.
        """
        self._apply("stage", rewrite_buffers.stage, buffer, loop, scope, name, dtype)

    def set_scope(self, buffer: str, scope: Scope) -> None:
        """Place an allocated buffer in a memory."""
        self._apply("set_scope", rewrite_buffers.set_scope, buffer, scope)

    def rotate(self, buffer: str, copies: int) -> None:
        """Let an allocated buffer have several places, which it takes in turn."""
        self._apply("rotate", rewrite_buffers.rotate, buffer, copies)

    def prefetch(self, buffer: str, ahead: str, at: str, line: int) -> None:
        """In each iteration of loop `at`, ask for what it will read of `buffer` in the next one of loop `ahead`.

        Loops between them that read the same again share that work. line: elements of `buffer` in a cache line.
        """
        self._apply("prefetch", rewrite_loops.prefetch, buffer, ahead, at, line)

    def split_fill(self, loop: str, new: str) -> None:
        """Turn the nest at `loop`, which fills with a constant c, into one that fills with zero and one that adds c.

        The loops of the second nest are named by appending `new`.
        """
        self._apply("split_fill", rewrite_loops.split_fill, loop, new)

    def drop_unit_loops(self) -> None:
        """Remove loops of exactly one iteration."""
        self._apply("drop_unit_loops", rewrite_loops.drop_unit_loops)

    def map(self, loop: str, instruction: Proc) -> None:
        """Declare that hardware executes the nest at `loop` by `instruction`, with whose meaning it unifies."""
        self._rewrite("map", rewrite_loops.map_on, loop, instruction)
        self.trace.append(Step("mark", (loop, instruction.name)))

    def mark(self, loop: str, instruction: str) -> None:
        """Repeat a mapping that `map` has proven (used by `replay`)."""
        self._apply("mark", rewrite_loops.mark, loop, instruction)

    def copy(self) -> Schedule:
        """An independent schedule in the same state."""
        other = Schedule(replace(self.proc))
        other.trace = list(self.trace)
        return other
