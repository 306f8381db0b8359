"""How long work takes on this processor: time that one thread computes, of calls that take turns.

Processor time leaves out what other programs take, and taking turns lets all calls meet the same clock and the same
neighbours. The best run says what the code can do, the median what it does here and now.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.tensor.ir import Proc
from compiler.tensor.serial import to_json
from runtime.aligned import aligned_zeros
from runtime.session import HostLoader, shaped
from vta.batching import Port
from vta.errors import ApiError
from vta_hw.spec.program import Buffer, Host, Program

Call = Callable[[], object]
Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Time:
    """Milliseconds of one thread's processor time: the best of some runs, and their median."""

    best: float
    median: float

    @staticmethod
    def total(times: Iterable[Time]) -> Time:
        """Of work that is done one after the other."""
        parts = list(times)
        return Time(best=sum(part.best for part in parts), median=sum(part.median for part in parts))

    def less(self, overhead: Time) -> Time:
        """Without what the call itself takes, and not below zero."""
        return Time(best=max(0.0, self.best - overhead.best), median=max(0.0, self.median - overhead.median))

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"best_ms": self.best, "median_ms": self.median}


def interleaved(
    calls: Sequence[Call],
    repeat: int,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], int] = time.thread_time_ns,
    *,
    rotate: bool = False,
) -> tuple[Time, ...]:
    """The time of each call, from `repeat` rounds that make all of them in order, after one that does not count.

    progress: called with (rounds done, rounds). clock: in nanoseconds; that of this thread does not count the work of
    others. rotate: begin each round with another call, for a long one leaves the next one cold caches. Raises ApiError
    unless `repeat` is positive.
    """
    if repeat < 1:
        raise ApiError(f"Runs to time must be at least 1, not {repeat}")
    runs: list[list[float]] = [[] for _ in calls]
    for done in range(repeat + 1):
        if progress is not None:
            progress(done, repeat + 1)
        first = done % len(calls) if rotate else 0
        for n in (*range(first, len(calls)), *range(first)):
            begin = clock()
            calls[n]()
            runs[n].append((clock() - begin) / 1e6)
    return tuple(Time(best=min(times[1:]), median=statistics.median(times[1:])) for times in runs)


class Steps:
    """The steps of a program for the CPU, to be called one by one.

    calls: one of each step, in order. They work on memory that holds what a run leaves there, so that in their order,
    and only then, each finds what it reads.

    program: of host steps alone. inputs: as `Session.run` takes them. load: from `host_loader`.
    """

    def __init__(self, program: Program, inputs: Mapping[str, Array], load: HostLoader) -> None:
        self._memory = aligned_zeros(program.arena_bytes)
        self._buffers = {buffer.name: buffer for buffer in program.buffers}
        self._outputs = program.outputs
        for segment in program.segments:
            self._write(segment.address, np.frombuffer(segment.data, np.uint8))
        for name, array in inputs.items():
            self._write(self._buffers[name].address, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        steps = [step for step in program.steps if isinstance(step, Host)]
        self.calls = tuple(loaded(step, {name: self._array(name) for name in step.buffers}, load) for step in steps)

    def run(self) -> dict[str, Array]:
        """Make every call once; copies of the outputs, as they are stored."""
        for call in self.calls:
            call()
        return {buffer.name: self._array(buffer.name).copy() for buffer in self._outputs}

    def _write(self, address: int, data: NDArray[np.uint8]) -> None:
        self._memory[address : address + len(data)] = data

    def _array(self, name: str) -> Array:
        buffer = self._buffers[name]
        return shaped(self._memory[buffer.address : buffer.address + buffer.nbytes], buffer)


def loaded(step: Host, arrays: Mapping[str, Array], load: HostLoader) -> Call:
    """The call of one step that works on these arrays."""
    call = load((step,))(arrays)
    return lambda: call({})


def alone(step: Host, buffers: Mapping[str, Buffer], load: HostLoader) -> Call:
    """A host step on zeros, for steps whose time no value changes."""
    arrays = {name: shaped(aligned_zeros(buffers[name].nbytes), buffers[name]) for name in step.buffers}
    return loaded(step, arrays, load)


def nothing(load: HostLoader) -> Call:
    """A step that does nothing, whose time is what calling any step takes."""
    return loaded(Host(name="nothing", proc=to_json(Proc("nothing", (), ())), buffers=()), {}, load)


def example_inputs(ports: Iterable[Port], samples: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs to time a network with: the first of `samples` that fit, else random numbers, which are always the same.

    Random floats are normal, 8-bit integers anything, and others 0 or 1, because they may be positions.
    """
    rng = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for port in ports:
        given, count = samples.get(port.name), port.shape[0] if port.shape else 1
        if given is not None and given.shape[1:] == port.shape[1:] and len(given) >= count:
            found[port.name] = given[:count].astype(port.dtype)
        else:
            found[port.name] = _random(rng, port.shape, np.dtype(port.dtype))
    return found


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.integers(0, 2, shape).astype(dtype)
