"""Traces from what engines record: spans as they come, or which events happened in which cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, AluOp, MemoryType, Module, Opcode, codes_of, module_codes
from vta_sim.trace import COUNTERS, INSN, SPAN, Trace, TraceError

STROBES: Final = (
    "dispatch",
    *(f"begin_{module.name.lower()}" for module in Module),
    *(f"end_{module.name.lower()}" for module in Module),
    "next_gemm",
    "next_alu",
    "loaded",
)
"""What a machine does in a cycle, besides counting: fetch hands an instruction to its queue, a unit begins or completes
one, the micro-ops of the next GEMM or ALU instruction step from the next cycle on, the data of a LOAD in the compute
unit is there."""

SAMPLED: Final = (*COUNTERS, *STROBES)
"""The bits of a sample, from bit 0 on."""

Times = NDArray[np.int64]


def trace_of_spans(
    config: VTAConfig, words: NDArray[np.uint64], cycles: int, *, times: Times, spans: NDArray[np.int64]
) -> Trace:
    """A trace from spans in any order, which may touch but not overlap; empty ones are dropped.

    words: uint64 [N][2]. times: int64 [N][2], begin and end of each instruction, -1 for what never came.
    spans: int64 [S][4], each the place of a counter in `COUNTERS`, instruction or -1, begin, end.
    """
    insns = np.zeros(len(words), INSN)
    insns["unit"] = module_codes(ISA(config).decode_fields(words))
    insns["begin"], insns["end"] = times[:, 0], times[:, 1]
    return Trace(config=config, cycles=cycles, words=words, insns=insns, spans=_canonical(spans))


def trace_of_samples(config: VTAConfig, words: NDArray[np.uint64], cycles: int, changes: NDArray[np.int64]) -> Trace:
    """A trace from the bits of `SAMPLED`, each 1 in the cycles in which its counter counts or its strobe is high.

    changes: int64 [K][2], a cycle and the bits from there on, which hold until the next change or the end; cycles
    ascend. Bits are 0 before the first. Raises `TraceError` for bits that no machine has.
    """
    samples = _Samples(changes=changes, cycles=cycles)
    rows = ISA(config).decode_fields(words)
    owners = _owners(config, rows, samples)
    times = np.full((len(words), 2), -1, np.int64)
    for module, own in _own(rows).items():
        for column, strobe in enumerate(("begin", "end")):
            happened = samples.cycles_of(f"{strobe}_{module.name.lower()}")
            if len(happened) > len(own):
                rule = f"at most the {len(own)} instructions of {module.name.lower()}"
                raise TraceError(f"{strobe} must be of {rule}, not of {len(happened)}")
            times[own[: len(happened)], column] = happened + column
    spans = [
        _attributed(number, *samples.runs(name), owners.get(name, _NOBODY)) for number, name in enumerate(COUNTERS)
    ]
    return trace_of_spans(config, words, cycles, times=times, spans=np.concatenate(spans))


@dataclass(frozen=True, kw_only=True)
class _Samples:
    changes: NDArray[np.int64]
    cycles: int

    def runs(self, name: str) -> tuple[Times, Times]:
        """First cycles, and cycles behind the last, of the runs in which a bit is 1."""
        inside = self.changes[self.changes[:, 0] < self.cycles]
        high = np.concatenate(([0], inside[:, 1] >> SAMPLED.index(name) & 1, [0]))
        edges = np.diff(high)
        times = np.append(inside[:, 0], self.cycles)
        return times[edges == 1], times[edges == -1]

    def cycles_of(self, name: str) -> Times:
        """Every cycle in which a bit is 1."""
        begins, ends = self.runs(name)
        lengths = ends - begins
        before = np.cumsum(lengths) - lengths
        return np.repeat(begins - before, lengths) + np.arange(lengths.sum())


@dataclass(frozen=True, kw_only=True)
class _Owner:
    """Whose spans are: instruction `insns[n + offset]` from the cycle behind the n-th of the `events` on."""

    insns: NDArray[np.int64]
    events: Times
    offset: int = 0

    def at(self, times: Times) -> NDArray[np.int64]:
        places = np.searchsorted(self.events, times) + self.offset
        known = (places >= 0) & (places < len(self.insns))
        found = np.full(len(times), -1, np.int64)
        found[known] = self.insns[places[known]]
        return found


_NOBODY: Final = _Owner(insns=np.zeros(0, np.int64), events=np.zeros(0, np.int64))


def _own(rows: NDArray[np.void]) -> dict[Module, NDArray[np.int64]]:
    """The instructions of each unit."""
    codes = module_codes(rows)
    return {module: np.flatnonzero(codes == module.value) for module in Module}


def _owners(config: VTAConfig, rows: NDArray[np.void], samples: _Samples) -> dict[str, _Owner]:
    """Whom the spans of each counter belong to, as `Trace` says; none for the counters that are left out."""
    own = _own(rows)
    oldest = {m: _Owner(insns=own[m], events=samples.cycles_of(f"end_{m.name.lower()}")) for m in Module}
    coming = {m: _Owner(insns=own[m], events=samples.cycles_of(f"begin_{m.name.lower()}")) for m in Module}
    opcode, memory_type = rows["opcode"], rows["memory_type"]
    loops = (rows["iter_out"] > 0) & (rows["iter_in"] > 0)
    gemm = np.isin(opcode, (Opcode.GEMM, Opcode.GEMM_OVERWRITE)) & np.isin(opcode, codes_of(Opcode, config.isa))
    alu = (opcode == Opcode.ALU) & np.isin(rows["alu_opcode"], codes_of(AluOp, config.isa))
    of_compute = [
        code for code in codes_of(MemoryType, config.isa) if code.scratchpad in (MemoryType.UOP, MemoryType.ACC)
    ]
    loads = (opcode == Opcode.LOAD) & np.isin(memory_type, of_compute) & (rows["x_size"] > 0)
    return {
        "load_busy": oldest[Module.LOAD],
        "load_wait_memory": oldest[Module.LOAD],
        "load_wait_token": coming[Module.LOAD],
        "gemm_busy": _Owner(insns=np.flatnonzero(gemm & loops), events=samples.cycles_of("next_gemm"), offset=-1),
        "alu_busy": _Owner(insns=np.flatnonzero(alu & loops), events=samples.cycles_of("next_alu"), offset=-1),
        "compute_load_busy": _Owner(insns=np.flatnonzero(loads), events=samples.cycles_of("loaded")),
        "compute_wait_load": coming[Module.COMPUTE],
        "compute_wait_store": coming[Module.COMPUTE],
        "store_busy": oldest[Module.STORE],
        "store_wait_memory": oldest[Module.STORE],
        "store_wait_token": coming[Module.STORE],
        "fetch_wait_queue": _Owner(insns=np.arange(len(rows)), events=samples.cycles_of("dispatch")),
    }


def _attributed(counter: int, begins: Times, ends: Times, owner: _Owner) -> NDArray[np.int64]:
    """Spans, int64 [S][4], of the runs of a counter, cut where they change hands."""
    cuts = owner.events + 1
    run = np.searchsorted(begins, cuts, side="right") - 1
    within = (run >= 0) & (cuts > begins[run]) & (cuts < ends[run]) if len(begins) else np.zeros(len(cuts), bool)
    begins, ends = (np.sort(np.concatenate((edges, cuts[within]))) for edges in (begins, ends))
    return np.stack((np.full(len(begins), counter), owner.at(begins), begins, ends), axis=1)


def _canonical(spans: NDArray[np.int64]) -> NDArray[np.void]:
    """`SPAN` rows by counter and time; those that touch and have one owner become one."""
    spans = spans[spans[:, 2] != spans[:, 3]]
    spans = spans[np.lexsort((spans[:, 2], spans[:, 0]))]
    before, after = spans[:-1], spans[1:]
    joined = (before[:, :2] == after[:, :2]).all(axis=1) & (before[:, 3] == after[:, 2])
    first = np.concatenate(([True], ~joined))[: len(spans)]
    last = np.concatenate((~joined, [True]))[: len(spans)]
    rows = np.zeros(int(first.sum()), SPAN)
    rows["counter"], rows["insn"], rows["begin"] = spans[first, 0], spans[first, 1], spans[first, 2]
    rows["end"] = spans[last, 3]
    return rows
