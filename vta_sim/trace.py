"""Where the cycles of a launch went: the trace that every engine with a clock gives, as a value and as a file.

Cycle 0 is the first that `cycle_count` counts, and spans are half open: ``begin`` is the first cycle, ``end`` the one
behind the last. For each of the `COUNTERS` the spans are the very cycles in which it counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.container import ContainerError, read_container, write_container, write_whole
from vta_hw.spec.isa import ISA, module_codes
from vta_hw.spec.registers import REGISTERS, Counts, PointerWidth
from vta_sim.trace_file import MEMBERS, TraceError, members_of, read_members

__all__ = ["COUNTERS", "INSN", "SPAN", "Trace", "TraceError"]

COUNTERS: Final = tuple(
    register.name for register in REGISTERS[PointerWidth.BITS_32].extension if register.counts is Counts.CYCLES
)
"""The counters of cycles by cause, in the order of the register map; a span has the place of its counter in it."""

INSN: Final = np.dtype([("unit", "u1"), ("begin", "<i8"), ("end", "<i8")])
"""An instruction. unit: `Module.value` of the one that executes it. begin: the cycle in which the unit takes its tokens
and begins it. end: the cycle after the one in which it completes and gives tokens. Either is -1 if that never came."""

SPAN: Final = np.dtype([("counter", "u1"), ("insn", "<i4"), ("begin", "<i8"), ("end", "<i8")])
"""Cycles in which a counter counted, on account of one instruction of the launch, or of none that is known (-1)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The trace of one launch.

    cycles: what `cycle_count` says. words: the instructions, uint64 [N][2]. insns: `INSN` [N], one for each of them.
    spans: `SPAN` [S], by counter and then by time; those of a counter do not overlap, and two that touch are of
    different instructions. So equal timing gives equal traces. Raises `TraceError` for what is none.

    Whom spans belong to:

    | counter | instruction |
    |---|---|
    | `load_busy`, `load_wait_memory`, `store_busy`, `store_wait_memory` | the oldest in the unit |
    | `compute_load_busy` | the oldest LOAD in the compute unit whose data is not there |
    | `gemm_busy`, `alu_busy` | the one whose micro-ops step |
    | `load_wait_token`, `compute_wait_load`, `compute_wait_store`, `store_wait_token` | the next the unit begins |
    | `fetch_wait_queue` | the one that waits for room |
    | `read_wait`, `write_wait` | none |
    """

    config: VTAConfig
    cycles: int
    words: NDArray[np.uint64]
    insns: NDArray[np.void]
    spans: NDArray[np.void]

    def __post_init__(self) -> None:
        _check(self)
        for array in (self.words, self.insns, self.spans):
            array.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and (
            (self.config, self.cycles) == (other.config, other.cycles)
            and np.array_equal(self.words, other.words)
            and np.array_equal(self.insns, other.insns)
            and np.array_equal(self.spans, other.spans)
        )

    __hash__ = None  # type: ignore[assignment]  # its arrays can change

    @cached_property
    def counters(self) -> Mapping[str, int]:
        """The cycles of each of `COUNTERS`, summed over its spans."""
        lengths = self.spans["end"] - self.spans["begin"]
        sums = np.zeros(len(COUNTERS), np.int64)
        np.add.at(sums, self.spans["counter"], lengths)
        return dict(zip(COUNTERS, sums.tolist(), strict=True))

    def spans_of(self, counter: str) -> NDArray[np.void]:
        """The spans of one counter, `SPAN` [K] in order of time. Raises `TraceError` for a name that is none."""
        if counter not in COUNTERS:
            raise TraceError(f"counter must be one of {', '.join(COUNTERS)}, not {counter!r}")
        number = COUNTERS.index(counter)
        first, last = np.searchsorted(self.spans["counter"], (number, number + 1))
        return self.spans[first:last]

    def verify(self, counters: Mapping[str, int]) -> None:
        """Raise `TraceError` unless the spans of each counter sum up to its value in `counters`, and cycles agree."""
        found = {"cycle_count": self.cycles, **self.counters}
        for name, cycles in found.items():
            if counters[name] != cycles:
                raise TraceError(f"trace of {name} must have {counters[name]} cycles, as the counter, not {cycles}")

    def to_bytes(self) -> bytes:
        """The file; equal traces give equal bytes. Raises `TraceError` if it would reach 4 GiB."""
        try:
            return write_container(members_of(self))
        except ContainerError as error:
            raise TraceError(f"trace file cannot be written: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a file; raises `TraceError` unless it is, byte for byte, what `to_bytes` would give."""
        try:
            members = read_container(data, MEMBERS)
        except ContainerError as error:
            raise TraceError(f"trace file cannot be read: {error}") from error
        config, cycles, arrays = read_members(members)
        trace = cls(
            config=config,
            cycles=cycles,
            words=np.frombuffer(arrays["words"], "<u8").reshape(-1, 2),
            insns=np.frombuffer(arrays["insns"], INSN),
            spans=np.frombuffer(arrays["spans"], SPAN),
        )
        if trace.to_bytes() != data:
            raise TraceError("trace file must be in canonical form, as saved, not rewritten or damaged")
        return trace

    def save(self, path: str | Path) -> None:
        """Write the file in one step: `path` holds the old contents or the new, never a part."""
        write_whole(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path, *, config: VTAConfig | None = None) -> Self:
        """Read a file; raises `TraceError` naming it, also if it is of another machine than `config`."""
        try:
            trace = cls.from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise TraceError(f"{path}: trace file cannot be read: {error.strerror}") from error
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from error
        if config is not None and trace.config.digest != config.digest:
            raise TraceError(
                f"{path}: trace must be of configuration digest {config.digest!r}, not {trace.config.digest!r}"
            )
        return trace


def _check(trace: Trace) -> None:
    for name, dtype in (("words", np.dtype("<u8")), ("insns", INSN), ("spans", SPAN)):
        if getattr(trace, name).dtype != dtype:
            raise TraceError(f"trace {name} must be of type {dtype}, not {getattr(trace, name).dtype}")
    if trace.words.ndim != 2 or trace.words.shape[1] != 2:
        raise TraceError(f"trace words must be of shape [N][2], not {list(trace.words.shape)}")
    if trace.insns.shape != (len(trace.words),):
        raise TraceError(f"trace insns must be of shape [{len(trace.words)}], not {list(trace.insns.shape)}")
    if trace.spans.ndim != 1:
        raise TraceError(f"trace spans must have one dimension, not {trace.spans.ndim}")
    if trace.cycles < 0:
        raise TraceError(f"trace cycles must be 0 or more, not {trace.cycles}")
    _check_insns(trace)
    _check_spans(trace)


def _check_insns(trace: Trace) -> None:
    insns = trace.insns
    units = module_codes(ISA(trace.config).decode_fields(trace.words))
    begun, ended = insns["begin"] >= 0, insns["end"] >= 0
    _refuse(insns["unit"] != units, "unit of instruction", "the one that executes it", insns["unit"])
    times = np.maximum(insns["begin"], insns["end"])
    _refuse((times > trace.cycles) | (insns["begin"] < -1), "instruction", f"within {trace.cycles} cycles", times)
    wrong = (ended & (~begun | (insns["end"] <= insns["begin"]))) | (insns["end"] < -1)
    _refuse(wrong, "end of instruction", "after its begin", insns["end"])


def _check_spans(trace: Trace) -> None:
    spans = trace.spans
    counter, insn = spans["counter"], spans["insn"]
    _refuse(counter >= len(COUNTERS), "counter of span", f"below {len(COUNTERS)}", counter)
    count = len(trace.words)
    _refuse((insn < -1) | (insn >= count), "instruction of span", f"-1 to {count - 1}", insn)
    _refuse(
        (spans["begin"] < 0) | (spans["end"] <= spans["begin"]) | (spans["end"] > trace.cycles),
        "end of span",
        f"after its begin and within {trace.cycles} cycles",
        spans["end"],
    )
    before, after = spans[:-1], spans[1:]
    same = before["counter"] == after["counter"]
    touch = (before["end"] == after["begin"]) & (before["insn"] == after["insn"])
    wrong = (before["counter"] > after["counter"]) | (same & ((before["end"] > after["begin"]) | touch))
    _refuse(wrong, "begin of the span behind span", "in order, without overlap, and apart", after["begin"])


def _refuse(wrong: NDArray[np.bool_], what: str, rule: str, values: NDArray[np.generic]) -> None:
    """Raise `TraceError` for the first row that is wrong."""
    places = np.flatnonzero(wrong)
    if len(places):
        raise TraceError(f"{what} {places[0]} must be {rule}, not {values[places[0]]}")
