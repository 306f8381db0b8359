"""Threads that run one native function together, and the memory they use meanwhile."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.llvm.codegen import ALIGNMENT
from compiler.llvm.module import BARRIER_BYTES

Array = np.ndarray[Any, Any]
Entry = Callable[[int, int, int, int, int], None]
"""The entry of a module (`compiler.llvm.module`); it releases the interpreter lock."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _aligned(nbytes: int, make: Callable[..., Array] = np.empty) -> Array:
    memory = make(nbytes + ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % ALIGNMENT :][:nbytes]


class _Scratch(threading.local):
    """Memory that every run that a thread leads may use: new pages for each would take longer than most runs."""

    def __init__(self) -> None:
        self._memory = _aligned(0)
        self._address = int(self._memory.ctypes.data)
        self._barrier = _aligned(BARRIER_BYTES, np.zeros)
        self.barrier = int(self._barrier.ctypes.data)

    def of(self, nbytes: int) -> int:
        """Address of at least `nbytes`, aligned, which are this thread's until it asks again."""
        if nbytes > self._memory.size:
            self._memory = _aligned(nbytes)
            self._address = int(self._memory.ctypes.data)
        return self._address


@dataclass(frozen=True, kw_only=True)
class Work:
    """An entry, the address of the table of its buffers, and its bytes of scratch memory, shared and of each thread.

    kept: what must live until the last thread is back.
    """

    entry: Entry
    table: int
    shared: int
    private: int
    kept: Any

    def part(self, thread: int, threads: int, scratch: int, barrier: int) -> None:
        """What one thread does of it, together with the others; the last two are addresses."""
        self.entry(self.table, scratch, thread, threads, barrier)


class Team:
    """`threads` that run native functions together, one function at a time.

    A team of one is the calling thread, and may be called by several at once; of a larger one the callers wait in turn.
    Its threads begin with the first run, wait in between without using a processor, and end when the team is let go of;
    they do not keep the process from ending. A caller that is interrupted leaves its run to end by itself.

    Raises CompileError unless there is a processor for each thread.
    """

    def __init__(self, threads: int = 1) -> None:
        most = processors()
        if type(threads) is not int or not 1 <= threads <= most:
            raise CompileError(
                f"Threads must be 1 to {most}, the processors that this process may use, not {threads!r}"
            )
        self.threads = threads
        self._scratch = _Scratch()
        self._starting = threading.Lock()
        self._leader: threading.Thread | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def run(self, work: Work) -> None:
        """Returns when all threads have done their parts."""
        if self.threads == 1:
            work.part(0, 1, self._scratch.of(work.shared + work.private), self._scratch.barrier)
            return
        with self._starting:
            if self._leader is None or not self._leader.is_alive():  # as in a process that was forked
                self._start()
        job = _Job(work=work, done=threading.Lock(), failed=[])
        job.done.acquire()
        self._jobs.put(job)  # one step, so that an interrupt leaves no part of a team waiting
        job.done.acquire()
        if job.failed:
            raise job.failed[0]

    def _start(self) -> None:
        self._jobs = SimpleQueue()
        arguments = self._jobs, self.threads, self._scratch
        self._leader = threading.Thread(target=_lead, args=arguments, name="team", daemon=True)
        self._leader.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False


@dataclass(frozen=True, kw_only=True)
class _Job:
    """failed: why it could not be begun, if so."""

    work: Work
    done: threading.Lock
    failed: list[BaseException]


@dataclass(frozen=True, kw_only=True)
class _Part:
    work: Work
    scratch: int
    barrier: int


def _lead(jobs: SimpleQueue[_Job | None], threads: int, scratch: _Scratch) -> None:
    """The first thread of a team, until there is None to do."""
    others: list[SimpleQueue[_Part | None]] = []
    while (job := jobs.get()) is not None:
        try:
            memory = scratch.of(job.work.shared + threads * job.work.private)
            while len(others) < threads - 1:
                others.append(_follower(len(others) + 1, threads))
        except (MemoryError, RuntimeError) as error:  # no memory, or no thread, is left
            job.failed.append(error)
            job.done.release()
            continue
        for parts in others:
            parts.put(_Part(work=job.work, scratch=memory, barrier=scratch.barrier))
        job.work.part(0, threads, memory, scratch.barrier)
        job.done.release()
        del job  # which knows the team: that could not be let go of
    for parts in others:
        parts.put(None)


def _follower(thread: int, threads: int) -> SimpleQueue[_Part | None]:
    parts: SimpleQueue[_Part | None] = SimpleQueue()
    threading.Thread(target=_follow, args=(parts, thread, threads), name=f"team.{thread}", daemon=True).start()
    return parts


def _follow(parts: SimpleQueue[_Part | None], thread: int, threads: int) -> None:
    while (part := parts.get()) is not None:
        part.work.part(thread, threads, part.scratch, part.barrier)
        del part
