"""Calls in a process of their own, which may end by a signal: that is then the outcome of the call."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

T = TypeVar("T")
Say = Callable[[str], None]
"""What a call tells of what it does next, for the case that it does not come back."""
LONGEST = 300.0
"""Seconds after which nothing more is expected of a call."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T]):
    """problem: what the call says is wrong, its traceback if it raised, or how the process ended; empty if all is well.

    seconds: it took so long.
    """

    item: T
    problem: str
    seconds: float


def outcomes(check: Callable[[T, Say], str], items: Sequence[T], *, longest: float = LONGEST) -> Iterator[Outcome[T]]:
    """``check(item, say)`` for one item after the other, all by one process, or another one if that ends.

    check: a function of a module; says what is wrong, if anything.
    """
    done = 0
    while done < len(items):
        for outcome in _by_one_process(check, items[done:], longest):
            done += 1
            yield outcome


def _by_one_process(check: Callable[[T, Say], str], items: Sequence[T], longest: float) -> Iterator[Outcome[T]]:
    """The outcomes of the first items, up to that which ends the process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(check, items, there), daemon=True)
    process.start()
    there.close()  # so that the end of the process is the end of what comes
    try:
        for item in items:
            began, doing, problem = time.monotonic(), "it begins", None
            while problem is None:
                try:
                    kind, text = here.recv() if here.poll(longest) else ("", "")
                except EOFError:
                    process.join()
                    kind, text = "end", _end(process.exitcode)
                if kind == "doing":
                    doing = text
                elif kind == "done":
                    problem = text
                else:
                    problem = f"{text or f'nothing within {longest:g} s'} while {doing}"
            yield Outcome(item=item, problem=problem, seconds=time.monotonic() - began)
            if kind != "done":
                return
    finally:
        process.kill()
        process.join()


def _end(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _work(check: Callable[[T, Say], str], items: Sequence[T], to: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the other process's, which ends this one
    for item in items:
        try:
            problem = check(item, lambda text: to.send(("doing", text)))
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            problem = traceback.format_exc(limit=-8)
        to.send(("done", problem))
