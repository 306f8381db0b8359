"""Where the cycles of a program went, layer by layer: traces of its launches against what the machine could do.

**Layers.** Layers overlap: the loads of one run while the one before it computes. A layer's cycles are those between
the completion of the last instruction of all layers before it and that of its own last one; instructions of no layer
make a row of their own, and the last of a launch also has the cycles until the launch is over. So the rows are windows
of time that do not overlap, and the sum of their cycles, and of every counter within them, is exactly the launch's.

**Roofline.** A layer takes at least as many cycles as its MACs take if the array is always busy, and as its bytes
take on the bus (`MemoryTiming.read_bytes` and `write_bytes` of them in a cycle, one after the other with `shared_bus`).
The larger is its bound; `achieved` is the bound over the layer's cycles. Because a layer's transfers may run in the
window of the layer before, a layer may come out above 1; all layers together never do.

**Causes.** What the compute unit did in a cycle is the first of `CAUSES` whose counter counted, and `other` if none
did: its pipeline filled or drained, or it had no instruction and waited for none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vta.errors import ApiError
from vta.report import instruction_costs
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Launch, Program
from vta_sim.timing import MemoryTiming
from vta_sim.trace import COUNTERS, Trace

CAUSES: Final = {
    "gemm": "gemm_busy",
    "alu": "alu_busy",
    "load": "compute_load_busy",
    "wait for load": "compute_wait_load",
    "wait for store": "compute_wait_store",
}
"""What the compute unit does, and the counter that says so."""

NO_LAYER: Final = "(no layer)"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What instructions have to do, which no timing changes; bytes are of DRAM, those of instructions apart."""

    instructions: int = 0
    macs: int = 0
    gemm_uops: int = 0
    alu_uops: int = 0
    load_bytes: int = 0
    store_bytes: int = 0
    insn_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def dram_bytes(self) -> int:
        """Bytes loaded and stored, and those of the instructions."""
        return self.load_bytes + self.store_bytes + self.insn_bytes


@dataclass(frozen=True, kw_only=True)
class Row:
    """A layer, or all together: its work, and the cycles it took.

    cycles_by_cause: of the compute unit, by `CAUSES` and ``other``; they add up to `cycles`. counters: the cycles of
    each of `vta_sim.trace.COUNTERS` within the row's. compute_bound, bus_bound: cycles of the roofline.
    """

    name: str
    work: Work
    cycles: int
    cycles_by_cause: Mapping[str, int]
    counters: Mapping[str, int]
    compute_bound: int
    bus_bound: int
    utilisation: float

    @property
    def bound(self) -> str:
        """Which side of the roofline the work is on: ``compute`` or ``bus``."""
        return "compute" if self.compute_bound >= self.bus_bound else "bus"

    @property
    def achieved(self) -> float:
        """The bound on cycles over the cycles."""
        return max(self.compute_bound, self.bus_bound) / self.cycles if self.cycles else 0.0

    @property
    def intensity(self) -> float:
        """MACs per byte of DRAM."""
        return self.work.macs / self.work.dram_bytes if self.work.dram_bytes else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Every figure by name, for JSON."""
        return {
            "name": self.name,
            "cycles": self.cycles,
            **vars(self.work),
            "dram_bytes": self.work.dram_bytes,
            "utilisation": self.utilisation,
            "macs_per_byte": self.intensity,
            "bound": self.bound,
            "compute_bound": self.compute_bound,
            "bus_bound": self.bus_bound,
            "achieved": self.achieved,
            "cycles_by_cause": dict(self.cycles_by_cause),
            "counters": dict(self.counters),
        }


@dataclass(frozen=True, kw_only=True)
class Window:
    """Instructions `insn_begin` to `insn_end - 1` of a program, and the cycles of their launch that are theirs."""

    name: str
    macs: int | None
    insn_begin: int
    insn_end: int
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The layers in program order, those without instructions left out, and all together."""

    rows: tuple[Row, ...]
    total: Row


def launches_of(program: Program, traces: Sequence[Trace]) -> list[tuple[Launch, Trace]]:
    """Each launch with its trace. Raises ApiError unless the traces are of these launches, once each."""
    launches = [step for step in program.steps if isinstance(step, Launch)]
    if len(launches) != len(traces):
        raise ApiError(f"Traces must be of the program's {len(launches)} launches, not {len(traces)} of them")
    code = np.frombuffer(program.insns, "<u8").reshape(-1, 2)
    for launch, trace in zip(launches, traces, strict=True):
        words = code[launch.insn_begin : launch.insn_begin + launch.insn_count]
        if not np.array_equal(words, trace.words):
            raise ApiError("Trace must be of the program's instructions, not of others")
    return list(zip(launches, traces, strict=True))


def windows(program: Program, launch: Launch, trace: Trace) -> list[Window]:
    """The windows of a launch in order, which cover its cycles and its instructions; see the top."""
    first, last = launch.insn_begin, launch.insn_begin + launch.insn_count
    found: list[Window] = []
    now = 0
    for name, macs, begin, end in _segments(program, first, last):
        ends = trace.insns["end"][begin - first : end - first]
        then = trace.cycles if end == last else max(now, int(ends.max(initial=0)))
        found.append(Window(name=name, macs=macs, insn_begin=begin, insn_end=end, begin=now, end=then))
        now = then
    return found


def profile(program: Program, traces: Sequence[Trace], timing: MemoryTiming) -> Profile:
    """The profile of a program from the traces of its launches on a machine with this memory. Raises ApiError."""
    costs = instruction_costs(program.config, program.insns)
    works: dict[str, Work] = defaultdict(Work)
    cycles: dict[str, int] = defaultdict(int)
    counters: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(COUNTERS), np.int64))
    causes: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(CAUSES) + 1, np.int64))
    for launch, trace in launches_of(program, traces):
        parts = windows(program, launch, trace)
        edges = np.array([0, *(part.end for part in parts)])
        counted, caused = _counted(trace, edges), _caused(trace, edges)
        for number, part in enumerate(parts):
            works[part.name] += _work(program.config, costs, part)
            cycles[part.name] += part.end - part.begin
            counters[part.name] += counted[:, number]
            causes[part.name] += caused[:, number]

    def row(name: str, names: Sequence[str]) -> Row:
        return _row(
            program.config,
            timing,
            name,
            sum((works[each] for each in names), Work()),
            sum(cycles[each] for each in names),
            sum((causes[each] for each in names), np.zeros(len(CAUSES) + 1, np.int64)),
            sum((counters[each] for each in names), np.zeros(len(COUNTERS), np.int64)),
        )

    order = [layer.name for layer in sorted(program.layers, key=lambda layer: layer.insn_begin)]
    names = [name for name in dict.fromkeys((*order, NO_LAYER)) if name in works]
    return Profile(rows=tuple(row(name, [name]) for name in names), total=row("total", names))


def _segments(program: Program, first: int, last: int) -> Iterator[tuple[str, int | None, int, int]]:
    """Name, MACs, begin and end of the layers within a range of instructions, and of what is between them."""
    at = first
    for layer in sorted(program.layers, key=lambda layer: layer.insn_begin):
        begin, end = max(layer.insn_begin, first), min(layer.insn_end, last)
        if begin >= end:
            continue
        if at < begin:
            yield NO_LAYER, None, at, begin
        # What a layer has to do in several launches is counted in the first.
        yield layer.name, layer.macs if begin == layer.insn_begin else 0, begin, end
        at = end
    if at < last:
        yield NO_LAYER, None, at, last


def _work(config: VTAConfig, costs: Mapping[str, NDArray[np.int64]], window: Window) -> Work:
    total = {key: int(values[window.insn_begin : window.insn_end].sum()) for key, values in costs.items()}
    count = window.insn_end - window.insn_begin
    return Work(
        instructions=count,
        macs=total["gemm"] * _array_macs(config) if window.macs is None else window.macs,
        gemm_uops=total["gemm"] + total["reset"],
        alu_uops=total["alu"],
        load_bytes=total["load"],
        store_bytes=total["store"],
        insn_bytes=count * config.insn_bytes,
    )


def _array_macs(config: VTAConfig) -> int:
    """MACs that the array does in a cycle."""
    return config.batch * config.block_in * config.block_out


def _row(
    config: VTAConfig,
    timing: MemoryTiming,
    name: str,
    work: Work,
    cycles: int,
    causes: NDArray[np.int64],
    counters: NDArray[np.int64],
) -> Row:
    bus = config.bus_bits // 8
    read = -(-(work.load_bytes + work.insn_bytes) // (timing.read_bytes or bus))
    write = -(-work.store_bytes // (timing.write_bytes or bus))
    return Row(
        name=name,
        work=work,
        cycles=cycles,
        cycles_by_cause=dict(zip((*CAUSES, "other"), causes.tolist(), strict=True)),
        counters=dict(zip(COUNTERS, counters.tolist(), strict=True)),
        compute_bound=-(-work.macs // _array_macs(config)),
        bus_bound=read + write if timing.shared_bus else max(read, write),
        utilisation=work.macs / (cycles * _array_macs(config)) if cycles else 0.0,
    )


def _counted(trace: Trace, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cycles of each counter between neighbouring edges, int64 [counters][windows]."""
    result = np.zeros((len(COUNTERS), len(edges) - 1), np.int64)
    for number, name in enumerate(COUNTERS):
        spans = trace.spans_of(name)
        if len(spans):
            before = np.concatenate(([0], np.cumsum(spans["end"] - spans["begin"])))
            place = np.searchsorted(spans["begin"], edges, side="right") - 1
            held = np.maximum(place, 0)
            within = np.where(place >= 0, np.minimum(edges, spans["end"][held]) - spans["begin"][held], 0)
            result[number] = np.diff(before[held] + within)
    return result


def _caused(trace: Trace, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cycles of each cause and of none between neighbouring edges, int64 [causes + 1][windows]."""
    spans = {cause: trace.spans_of(counter) for cause, counter in CAUSES.items()}
    times = np.unique(np.concatenate([edges, *(part[end] for part in spans.values() for end in ("begin", "end"))]))
    cause = np.full(len(times) - 1, len(CAUSES), np.int64)
    for number, part in reversed(list(enumerate(spans.values()))):
        steps = np.zeros(len(times), np.int64)
        np.add.at(steps, np.searchsorted(times, part["begin"]), 1)
        np.add.at(steps, np.searchsorted(times, part["end"]), -1)
        cause[np.cumsum(steps)[:-1] > 0] = number
    window = np.searchsorted(edges, times[:-1], side="right") - 1
    # Windows without cycles share an edge with the one behind them, to which the place belongs.
    result = np.zeros((len(CAUSES) + 1, len(edges) - 1), np.int64)
    np.add.at(result, (cause, window), np.diff(times))
    return result
