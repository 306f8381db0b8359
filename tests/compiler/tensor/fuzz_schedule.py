"""Random sequences of schedule primitives, many of them illegal, on random procedures.

`python -m tests.compiler.tensor.fuzz_schedule --count 500` tries new ones and prints the seeds of those in which a
primitive changed the answer, left an ill-formed procedure, or failed with anything but a `ScheduleError`;
`--seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np

from compiler.tensor import interp
from compiler.tensor.analysis import accesses, loops_of
from compiler.tensor.interp import InterpError
from compiler.tensor.ir import Alloc, Body, DType, For, LoopKind, Proc, Scope, Stmt
from compiler.tensor.printer import format_proc
from compiler.tensor.schedule import Argument, Schedule, ScheduleError, Step
from compiler.tensor.serial import SerialError, from_json, to_json
from compiler.tensor.traverse import map_body, stmt_body, substitute, walk
from tests.compiler.tensor.procs import random_proc
from tests.compiler.tensor.random_procs import random_array

Answer = list[np.ndarray[Any, Any]]

POISONS = (0xA5, 0x7F, 0xFE)
UNPROVEN = "must be proven"
ORDERED = (LoopKind.SERIAL, LoopKind.UNROLLED)


def answer(proc: Proc, seed: int) -> Answer | None:
    """The parameters after a run on arrays drawn from `seed`; None if they depend on values that were never written."""
    results: list[Answer] = []
    for poison in POISONS:
        rng = np.random.default_rng(seed)
        arrays = [np.array(random_array(rng, buffer), order="C") for buffer in proc.params]
        with mock.patch.object(interp, "POISON_BYTE", poison):
            interp.run(proc, arrays)
        results.append(arrays)
    return results[0] if all(same(results[0], other) for other in results[1:]) else None


def same(a: Answer, b: Answer) -> bool:
    return all(np.array_equal(left, right, equal_nan=left.dtype.kind == "f") for left, right in zip(a, b, strict=True))


def backwards(proc: Proc) -> Proc:
    """With every loop that claims independent iterations run from last to first."""

    def at(stmt: Stmt) -> Body | None:
        if not isinstance(stmt, For) or stmt.kind in ORDERED:
            return None
        body = map_body(stmt.body, lambda _: None, at)
        return (replace(stmt, body=substitute(body, {stmt.var.name: stmt.extent - 1 - stmt.var})),)

    return proc.with_body(map_body(proc.body, lambda _: None, at))


@dataclass
class Moves:
    """Calls of primitives, most of them on what the procedure has, some on what it has not."""

    r: random.Random
    count: int = 0

    def chance(self, percent: int) -> bool:
        return self.r.randrange(100) < percent

    def loop(self, proc: Proc) -> str:
        names = [site.loop.var.name for site in loops_of(proc.body)]
        return self.r.choice(names) if names and not self.chance(2) else "nowhere"

    def buffer(self, proc: Proc) -> str:
        names = [stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Alloc)]
        names = names if names and self.chance(70) else [buffer.name for buffer in proc.params]
        return self.r.choice(names) if not self.chance(2) else "nothing"

    def fresh(self, proc: Proc) -> str:
        self.count += 1
        if self.chance(3):
            return self.r.choice((self.loop(proc), self.buffer(proc)))
        return f"n{self.count}"

    def step(self, proc: Proc) -> Step:
        makers: list[Callable[[Proc], tuple[str, tuple[Argument, ...]]]] = [
            self.split,
            self.split,
            self.reorder,
            self.reorder,
            self.fuse,
            self.merge,
            self.merge,
            self.merge,
            self.set_kind,
            self.narrow,
            self.narrow,
            self.stage,
            self.stage,
            self.set_scope,
            self.rotate,
            self.split_fill,
            self.cut,
            lambda _: ("drop_unit_loops", ()),
        ]
        return Step(*self.r.choice(makers)(proc))

    def split(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        return "split", (
            self.loop(proc),
            self.r.choice((0, 1, 2, 2, 2, 3, 3, 4, 5)),
            self.fresh(proc),
            self.fresh(proc),
        )

    def perfect(self, proc: Proc) -> list[str]:
        """Loops directly nested in each other, outermost first."""
        sites = list(loops_of(proc.body))
        if not sites:
            return ["nowhere"]
        loop = self.r.choice(sites).loop
        names = [loop.var.name]
        while len(loop.body) == 1 and isinstance(inner := loop.body[0], For):
            loop = inner
            names.append(loop.var.name)
        return names

    def reorder(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        names = self.perfect(proc)
        names = names[: self.r.randint(1, len(names))] if self.chance(50) else names
        self.r.shuffle(names)
        if self.chance(4):
            names.append(self.loop(proc))
        return "reorder", tuple(names)

    def fuse(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        names = self.perfect(proc)
        outer, inner = names[:2] if len(names) > 1 and self.chance(90) else (self.loop(proc), self.loop(proc))
        return "fuse", (outer, inner, self.fresh(proc))

    def merge(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        bodies = [proc.body, *(stmt_body(stmt) for stmt in walk(proc.body))]
        pairs = [
            (a.var.name, b.var.name)
            for body in bodies
            for a, b in pairwise(body)
            if isinstance(a, For) and isinstance(b, For)
        ]
        extents = {site.loop.var.name: site.loop.extent for site in loops_of(proc.body)}
        alike = [(a, b) for a, b in pairs if extents[a] == extents[b]]
        if pairs and not self.chance(5):
            return "merge", self.r.choice(alike if alike and self.chance(80) else pairs)
        return "merge", (self.loop(proc), self.loop(proc))

    def set_kind(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        return "set_kind", (self.loop(proc), self.r.choice(tuple(LoopKind)))

    def narrow(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        names = [stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Alloc)]
        name = self.r.choice(names) if names and not self.chance(3) else self.buffer(proc)
        users = [
            site.loop.var.name
            for site in loops_of(proc.body)
            if any(access.buffer.name == name for access in accesses(site.loop.body))
        ]
        return "narrow", (name, self.r.choice(users) if users and not self.chance(10) else self.loop(proc))

    def stage(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        loop = self.loop(proc) if not self.chance(10) else None
        sites = {site.loop.var.name: site.loop.body for site in loops_of(proc.body)}
        body = sites.get(loop, proc.body) if loop is not None else proc.body
        reads = sorted({access.buffer.name for access in accesses(body) if not access.write})
        name = self.r.choice(reads) if reads and not self.chance(5) else self.buffer(proc)
        dtype = self.r.choice((None, None, DType.INT32, DType.INT8, DType.FLOAT32))
        return "stage", (name, loop, self.r.choice(tuple(Scope)), self.fresh(proc), dtype)

    def set_scope(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        return "set_scope", (self.buffer(proc), self.r.choice(tuple(Scope)))

    def rotate(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        return "rotate", (self.buffer(proc), self.r.randint(0 if self.chance(5) else 1, 3))

    def cut(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        self.count += 1
        return "cut", (self.loop(proc), self.r.randint(0, 6), f".c{self.count}" if not self.chance(3) else "")

    def split_fill(self, proc: Proc) -> tuple[str, tuple[Argument, ...]]:
        self.count += 1
        return "split_fill", (self.loop(proc), f".v{self.count}" if not self.chance(3) else "")


@dataclass
class Run:
    """What became of one procedure."""

    proc: Proc
    schedule: Schedule
    legal: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    unproven: str | None = None
    """What the verifier could not prove of the schedule. Proofs are bounded; see `compiler.tensor.prove`."""


def check(r: random.Random, steps: int) -> Run | None:
    """Try `steps` random primitives on a random procedure; None if the procedure has no defined answer."""
    proc = random_proc(r)
    expected = answer(proc, 0)
    if expected is None:
        return None
    run = Run(proc, Schedule(proc))
    moves = Moves(r)
    for _ in range(steps):
        step = moves.step(run.schedule.proc)
        run.problem = _try(run, step, expected)
        if run.problem is not None:
            run.problem += (
                f"\nat {step}\nafter {run.schedule.trace}\n{format_proc(run.schedule.proc)}\nof\n{format_proc(proc)}"
            )
            return run
    if Schedule.replay(proc, run.schedule.trace).proc != run.schedule.proc:
        run.problem = f"replay differs: {run.schedule.trace}"
    return run


def _try(run: Run, step: Step, expected: Answer) -> str | None:
    """Apply one primitive; says what is wrong about the outcome."""
    before, length = run.schedule.proc, len(run.schedule.trace)
    try:
        getattr(run.schedule, step.primitive)(*step.arguments)
    except ScheduleError as error:
        run.refused[step.primitive] += 1
        unchanged = run.schedule.proc is before and len(run.schedule.trace) == length
        sentence = str(error).startswith(f"{step.primitive} in {before.name}: ") and "\n" not in str(error)
        return None if unchanged and sentence else f"refusal left something behind: {error}"
    except Exception:  # noqa: BLE001 - that no other exception leaves is what is tested
        return traceback.format_exc()
    run.legal[step.primitive] += 1
    if run.schedule.trace[length:] != [step]:
        return "trace does not end with the step"
    if run.schedule.proc == before:
        return None
    if (broken := ill_formed(run.schedule.proc)) is not None:
        if UNPROVEN not in broken:
            return broken
        run.unproven = broken
    return wrong(run.schedule.proc, expected)


def ill_formed(proc: Proc) -> str | None:
    """What the verifier or the JSON form makes of `proc`, if anything is wrong with it."""
    try:
        return None if from_json(to_json(proc)) == proc else "JSON form differs"
    except SerialError as error:
        return f"ill-formed: {error}"


def wrong(proc: Proc, expected: Answer) -> str | None:
    """What distinguishes the behaviour of `proc` from the `expected` answer."""
    try:
        if (given := answer(proc, 0)) is None or not same(given, expected):
            return "the answer changed"
        if (given := answer(backwards(proc), 0)) is None or not same(given, expected):
            return "iterations are not independent"
    except InterpError as error:
        return f"broken rule: {error}"
    return None


def fuzz(seed: int, count: int, steps: int) -> list[int]:
    """Try the seeds `seed` to `seed + count - 1`; returns those that fail, having printed how."""
    failed = []
    unproven = 0
    legal: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for number in range(seed, seed + count):
        run = check(random.Random(number), steps)
        if run is None:
            continue
        legal += run.legal
        refused += run.refused
        unproven += run.unproven is not None
        if run.problem is not None:
            failed.append(number)
            print(f"seed {number}: {run.problem}")
    print(f"{unproven} beyond what the verifier can prove; legal of all calls:", end=" ")
    print(", ".join(f"{name} {legal[name]}/{legal[name] + refused[name]}" for name in sorted({*legal, *refused})))
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="procedures to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first procedure (default: a new one)")
    parser.add_argument("--steps", type=int, default=25, help="primitives to try on each (default: %(default)s)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} random procedures, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count, options.steps)
    if failed:
        sys.exit(f"{len(failed)} of {options.count} procedures went wrong; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
