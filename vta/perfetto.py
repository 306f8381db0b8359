"""Traces as a file for Perfetto (https://ui.perfetto.dev), in the JSON format of Chrome's trace viewer.

A nanosecond stands for a cycle. There is a process for the machine with a track for each of the five units: fetch,
load, compute, store and memory, each with tracks behind it for what its counters counted, and one for the layers.
Slices of a track do not overlap: an instruction is shown from where it is the oldest in its unit, and says in its
arguments when it began. Those of fetch and memory are the launches, with what was read and written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vta.profile import launches_of, windows
from vta.report import instruction_costs
from vta.timeline import entries, starts
from vta_hw.spec.program import Program
from vta_sim.trace import COUNTERS, Trace

PROCESS: Final = 1
UNITS: Final = ("fetch", "load", "compute", "store", "memory")
LAYERS: Final = "layers"
BINS: Final = 2000
"""At most so many values of each track of words per cycle."""

WORDS: Final = {
    "load": "load_busy",
    "compute": "compute_load_busy",
    "store": "store_busy",
}
"""Tracks of the words that units move, and the counter of the cycles in which they are on their way."""

_UNIT_OF: Final = {
    "load": "load",
    "gemm": "compute",
    "alu": "compute",
    "compute": "compute",
    "store": "store",
    "fetch": "fetch",
    "read": "memory",
    "write": "memory",
}
# What the tracks of the units show already.
_SHOWN: Final = ("load_busy", "store_busy")
_TRACKS: Final = (
    LAYERS,
    *(
        name
        for unit in UNITS
        for name in (unit, *(c for c in COUNTERS if c not in _SHOWN and _UNIT_OF[c.partition("_")[0]] == unit))
    ),
)


def perfetto(program: Program, traces: Sequence[Trace]) -> Iterator[str]:
    """The lines of the file. Raises ApiError for traces of another program."""
    launches_of(program, traces)
    yield '{"displayTimeUnit": "ns", "traceEvents": [\n'
    yield _line(_about("process_name", 0, name=f"VTA {program.config.name}"))
    for track, name in enumerate(_TRACKS, start=1):
        yield _line(_about("thread_name", track, name=name))
        yield _line(_about("thread_sort_index", track, sort_index=track))
    for event in _events(program, traces):
        yield _line(event)
    # The list must not end with a comma, and a value at the end of all closes every track of words.
    yield json.dumps(_about("process_sort_index", 0, sort_index=0)) + "\n]}\n"


def _events(program: Program, traces: Sequence[Trace]) -> Iterator[dict[str, Any]]:
    for (launch, trace), start in zip(launches_of(program, traces), starts(traces), strict=False):
        yield from _launch(program, launch.insn_begin, trace, start)
        for window in windows(program, launch, trace):
            if window.begin < window.end:
                about = {"instructions": f"{window.insn_begin} to {window.insn_end - 1}", "macs": window.macs}
                yield _slice(LAYERS, window.name, start + window.begin, start + window.end, about)
        yield from _stalls(trace, launch.insn_begin, start)
        yield from _words(program, launch.insn_begin, trace, start)
    for entry in entries(program, traces):
        if entry.end > entry.oldest >= 0:
            kept = ("index", "text", "layer", "begin", "end", "bytes", "uops")
            about = {name: getattr(entry, name) for name in kept}
            name, _, _ = entry.text.partition(" ")
            yield _slice(entry.unit.name.lower(), name, entry.oldest, entry.end, {**about, **entry.counters})


def _launch(program: Program, first: int, trace: Trace, start: int) -> Iterator[dict[str, Any]]:
    costs = instruction_costs(program.config, program.insns)
    moved = {name: int(costs[name][first : first + len(trace.words)].sum()) for name in ("load", "store")}
    code = len(trace.words) * program.config.insn_bytes
    end = start + trace.cycles
    if trace.cycles:
        yield _slice("fetch", "launch", start, end, {"instructions": len(trace.words), "bytes": code})
        about = {"bytes_read": moved["load"] + code, "bytes_written": moved["store"]}
        yield _slice("memory", "launch", start, end, about)


def _stalls(trace: Trace, first: int, start: int) -> Iterator[dict[str, Any]]:
    for counter, insn, begin, end in trace.spans.tolist():
        name = COUNTERS[counter]
        if name not in _SHOWN:
            about = {"index": first + insn} if insn >= 0 else {}
            yield _slice(name, name, start + begin, start + end, about)


def _words(program: Program, first: int, trace: Trace, start: int) -> Iterator[dict[str, Any]]:
    """Words of the bus per cycle, mean values: an instruction's bytes are spread over its cycles in the counter."""
    costs = instruction_costs(program.config, program.insns)
    nbytes = (costs["load"] + costs["store"])[first : first + len(trace.words)] / (program.config.bus_bits // 8)
    width = max(-(-trace.cycles // BINS), 1)
    edges = np.append(np.arange(0, trace.cycles, width), trace.cycles)
    for name, counter in WORDS.items():
        means = np.diff(_moved(trace.spans_of(counter), nbytes, edges)) / np.maximum(np.diff(edges), 1)
        values = np.round(means, 4)
        changed = np.flatnonzero(np.diff(values, prepend=-1.0))
        for place in changed.tolist():
            yield _value(name, start + int(edges[place]), float(values[place]))
        yield _value(name, start + trace.cycles, 0.0)


def _moved(spans: NDArray[np.void], words: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Words moved until each of the edges."""
    known = spans[spans["insn"] >= 0]
    if not len(known):
        return np.zeros(len(edges))
    lengths = (known["end"] - known["begin"]).astype(np.float64)
    total = np.zeros(len(words))
    np.add.at(total, known["insn"], lengths)
    rate = words[known["insn"]] / total[known["insn"]]
    times = np.stack((known["begin"], known["end"]), axis=1).reshape(-1)
    sums = np.cumsum(np.stack((np.zeros(len(known)), rate * lengths), axis=1).reshape(-1))
    until: NDArray[np.float64] = np.interp(edges, times, sums, left=0.0)
    return until


def _slice(track: str, name: str, begin: int, end: int, about: Mapping[str, object]) -> dict[str, Any]:
    place = {"pid": PROCESS, "tid": _TRACKS.index(track) + 1}
    times = {"ts": begin / 1000, "dur": (end - begin) / 1000}
    return {"ph": "X", "name": name, "cat": "vta", **times, **place, "args": dict(about)}


def _value(name: str, time: int, value: float) -> dict[str, Any]:
    return {"ph": "C", "name": name, "ts": time / 1000, "pid": PROCESS, "args": {"words per cycle": value}}


def _about(what: str, track: int, **values: object) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": PROCESS, "tid": track, "args": values}


def _line(event: Mapping[str, object]) -> str:
    return json.dumps(event) + ",\n"
