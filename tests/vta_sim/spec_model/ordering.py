"""Puts into a growing program the tokens that order its conflicting memory accesses.

Every module has a vector clock: how many instructions of each module are known to be complete before its next one
starts. A token carries the clock of its producer. An instruction that touches bytes or elements another module
touched (one of the two writing) must know that access to be complete; when it does not, tokens are pushed and popped
until it does. Program order is always a possible execution, so no program made here can deadlock, and every order
that the tokens allow gives the same result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model.layout import Fields
from tests.vta_sim.spec_model.pipeline import (
    COMPUTE,
    LOADER,
    MODULES,
    POPS,
    PUSHES,
    QUEUES,
    STORER,
    module_of,
)

Clock = dict[str, int]
Indices = NDArray[np.int64]

ENDS = {"l2g": (LOADER, COMPUTE), "g2l": (COMPUTE, LOADER), "g2s": (COMPUTE, STORER), "s2g": (STORER, COMPUTE)}
"""Token queue -> (producer, consumer)."""
POP_FLAG = {queue: flag for (_, flag), queue in POPS.items()}
PUSH_FLAG = {queue: flag for (_, flag), queue in PUSHES.items()}
ROUTES = {(a, b): queue for queue, (a, b) in ENDS.items()}


class Resource:
    """A memory whose units remember the last instruction of each module that read and wrote them."""

    def __init__(self, size: int) -> None:
        self.reads = {module: np.zeros(size, np.int64) for module in MODULES}
        self.writes = {module: np.zeros(size, np.int64) for module in MODULES}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Units of a resource that one instruction touches."""

    resource: Resource
    units: Indices
    write: bool


@dataclass(kw_only=True)
class Track:
    """One module: its clock now, its clock at its last instruction, and pops waiting for its next one."""

    clock: Clock = field(default_factory=lambda: dict.fromkeys(MODULES, 0))
    last: Fields | None = None
    last_clock: Clock = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)


class Ordering:
    """The program so far. `on_emit` sees every instruction, NOPs too, once its pops are fixed."""

    def __init__(
        self, tokens_before: Sequence[int], *, nop: Callable[[str], Fields], on_emit: Callable[[Fields], None]
    ) -> None:
        self.program: list[Fields] = []
        self.tracks = {module: Track() for module in MODULES}
        start: Clock = dict.fromkeys(MODULES, 0)
        self.queues: Mapping[str, deque[Clock]] = {
            queue: deque([start] * count) for queue, count in zip(QUEUES, tokens_before, strict=True)
        }
        self._nop = nop
        self._on_emit = on_emit

    def add(self, insn: Fields, accesses: Sequence[Access] = ()) -> None:
        """Append an instruction, ordered after every access it conflicts with."""
        module = module_of(insn)
        for other in MODULES:
            if other != module:
                self.ensure(module, other, _newest(accesses, other))
        number = self._emit(insn)
        for access in accesses:
            table = access.resource.writes if access.write else access.resource.reads
            table[module][access.units] = number

    def ensure(self, module: str, other: str, number: int) -> None:
        """Make `module` know that instruction `number` of `other` is complete."""
        while self.tracks[module].clock[other] < number:
            queue = ROUTES.get((other, module))
            if queue is None:  # load and store know each other through compute alone
                self.ensure(COMPUTE, other, number)
                queue = ROUTES[COMPUTE, module]
            if not self.queues[queue]:
                self.push(queue)
            self.pop(queue)

    def pop(self, queue: str) -> None:
        """Let the next instruction of the consumer take a token; the queue must hold one."""
        module = ENDS[queue][1]
        track = self.tracks[module]
        if POP_FLAG[queue] in track.pending:
            self._emit(self._nop(module))
        token = self.queues[queue].popleft()
        track.pending.add(POP_FLAG[queue])
        track.clock = {name: max(count, token[name]) for name, count in track.clock.items()}

    def push(self, queue: str) -> None:
        """Give a token that tells everything the producer knows, on its last instruction when that can carry it."""
        module = ENDS[queue][0]
        track = self.tracks[module]
        if track.last is None or track.pending or track.last[PUSH_FLAG[queue]]:
            self._emit(self._nop(module))
        assert track.last is not None
        track.last[PUSH_FLAG[queue]] = 1
        self.queues[queue].append(track.last_clock)

    def join(self) -> None:
        """Make compute know everything, as a program must before FINISH."""
        for other in (LOADER, STORER):
            self.ensure(COMPUTE, other, self.tracks[other].clock[other])

    def drain(self, *queues: str) -> None:
        """Empty token queues; the last pops wait for an instruction, as after `pop`."""
        for queue in queues:
            while self.queues[queue]:
                self.pop(queue)

    def flush(self) -> None:
        """Let no module wait for an instruction that carries its pops."""
        for module, track in self.tracks.items():
            if track.pending:
                self._emit(self._nop(module))

    def _emit(self, insn: Fields) -> int:
        module = module_of(insn)
        track = self.tracks[module]
        for flag in track.pending:
            insn[flag] = 1
        track.pending = set()
        track.clock = {**track.clock, module: track.clock[module] + 1}
        track.last, track.last_clock = insn, track.clock
        self.program.append(insn)
        self._on_emit(insn)
        return track.clock[module]


def _newest(accesses: Sequence[Access], other: str) -> int:
    """Number of the last instruction of another module that conflicts with one of these accesses."""
    newest = 0
    for access in accesses:
        tables = [access.resource.writes[other]]
        if access.write:
            tables.append(access.resource.reads[other])
        newest = max([newest, *(int(table[access.units].max(initial=0)) for table in tables)])
    return newest
