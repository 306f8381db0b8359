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
    """The newest instruction of each module that read or wrote each element of a space."""

    def __init__(self, depth: int) -> None:
        self.reader = {module: np.full(depth, -1, np.int64) for module in Module}
        self.writer = {module: np.full(depth, -1, np.int64) for module in Module}

    @staticmethod
    def newest(of: NDArray[np.int64], span: Span) -> int:
        return int(of[span.begin : span.end].max(initial=-1))


def synchronize(works: Sequence[Work], depths: dict[Space, int]) -> list[Insn]:
    """The instructions of one launch, in the same order, with the dependence flags set. Tokens balance at the end."""
    history = {space: _History(depths.get(space, 1)) for space in Space}
    awaited: dict[tuple[Module, Module], int] = {}
    flags: list[dict[str, Any]] = [{} for _ in works]
    for position, work in enumerate(works):
        for other in Module:
            if other is work.module:
                continue
            needed = _newest_conflict(history, work, other)
            if needed <= awaited.get((other, work.module), -1):
                continue
            if abs(_ORDER[other] - _ORDER[work.module]) != 1:
                raise AssertionError(f"{work.insn} must not depend on {works[needed].insn}: no token queue joins them")
            awaited[other, work.module] = needed
            forward = _ORDER[other] < _ORDER[work.module]
            flags[needed]["push_next" if forward else "push_prev"] = True
            flags[position]["pop_prev" if forward else "pop_next"] = True
        for span in work.reads:
            history[span.space].reader[work.module][span.begin : span.end] = position
        for span in work.writes:
            history[span.space].writer[work.module][span.begin : span.end] = position
    return [replace(work.insn, **given) if given else work.insn for work, given in zip(works, flags, strict=True)]


def _newest_conflict(history: dict[Space, _History], work: Work, other: Module) -> int:
    newest = -1
    for span in work.reads:
        newest = max(newest, _History.newest(history[span.space].writer[other], span))
    for span in work.writes:
        newest = max(newest, _History.newest(history[span.space].writer[other], span))
        newest = max(newest, _History.newest(history[span.space].reader[other], span))
    return newest
