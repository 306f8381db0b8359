"""Dependence tokens, derived from what each instruction reads and writes.

Load, compute and store each run their instructions in order, but not in step. Where an instruction of one module needs
something that an earlier instruction of another did, the earlier pushes a token and the later pops it (VTA spec 5.2).
Only the newest such instruction matters, because its module has then finished everything before it; and no token is
spent on what an earlier one has established. Every token goes forward in program order, so that no cycle of waits
exists.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import Insn, Module


class Space(enum.Enum):
    """What instructions of different modules can conflict on.

    `STORED` stands for everything that stores have written to DRAM, `RELEASED` for the permission to load it.
    """

    INP = "inp"
    WGT = "wgt"
    OUT = "out"
    STORED = "stored"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Span:
    """Elements ``begin`` to ``end`` (exclusive) of a space."""

    space: Space
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Work:
    """An instruction, not yet synchronised, with what it touches that other modules touch too.

    kernel: its micro-ops, as encoded words, as long as they have no place in the micro-op buffer.
    """

    insn: Insn
    module: Module
    reads: tuple[Span, ...] = ()
    writes: tuple[Span, ...] = ()
    kernel: NDArray[np.uint32] | None = None


_ORDER = {Module.LOAD: 0, Module.COMPUTE: 1, Module.STORE: 2}


class _History:
    """The newest instruction of a module that read, or wrote, each element of a space."""

    def __init__(self, depth: int) -> None:
        self._latest = np.full(depth, -1, np.int64)
        self._last = -1

    def newest(self, span: Span, known: int) -> int:
        """The newest to touch an element of the span, or `known` if none is newer than that."""
        if self._last <= known:
            return known
        return max(known, int(self._latest[span.begin : span.end].max(initial=-1)))

    def record(self, span: Span, position: int) -> None:
        self._latest[span.begin : span.end] = position
        self._last = position


class _Histories:
    """Who touched what: a history for each module and each space, of reads and of writes."""

    def __init__(self, depths: dict[Space, int]) -> None:
        self._reads, self._writes = (
            {space: {module.value: _History(depths.get(space, 1)) for module in Module} for space in Space}
            for _ in range(2)
        )

    def newest_conflict(self, work: Work, other: Module, known: int) -> int:
        """The newest instruction of another module that must come first, or `known` if none is newer than that."""
        module = other.value
        for span in work.reads:
            known = self._writes[span.space][module].newest(span, known)
        for span in work.writes:
            known = self._writes[span.space][module].newest(span, known)
            known = self._reads[span.space][module].newest(span, known)
        return known

    def record(self, work: Work, position: int) -> None:
        module = work.module.value
        for span in work.reads:
            self._reads[span.space][module].record(span, position)
        for span in work.writes:
            self._writes[span.space][module].record(span, position)


def synchronize(works: Sequence[Work], depths: dict[Space, int]) -> list[Insn]:
    """The instructions of one launch, in the same order, with the dependence flags set. Tokens balance at the end."""
    histories = _Histories(depths)
    awaited: dict[tuple[Module, Module], int] = {}
    flags: list[dict[str, Any]] = [{} for _ in works]
    for position, work in enumerate(works):
        for other in Module:
            if other is work.module:
                continue
            known = awaited.get((other, work.module), -1)
            needed = histories.newest_conflict(work, other, known)
            if needed <= known:
                continue
            if abs(_ORDER[other] - _ORDER[work.module]) != 1:
                raise AssertionError(f"{work.insn} must not depend on {works[needed].insn}: no token queue joins them")
            awaited[other, work.module] = needed
            forward = _ORDER[other] < _ORDER[work.module]
            flags[needed]["push_next" if forward else "push_prev"] = True
            flags[position]["pop_prev" if forward else "pop_next"] = True
        histories.record(work, position)
    return [replace(work.insn, **given) if given else work.insn for work, given in zip(works, flags, strict=True)]
