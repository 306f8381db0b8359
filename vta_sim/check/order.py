"""What the tokens of a launch allow: whether it comes to its end, and what is ordered before what (VTA spec 5).

A queue has one producer and one consumer, both of which work in order: whatever the timing, its n-th pop takes its n-th
push, or one of the tokens that were there before. So the launch can be executed here in one of its orders, and what
holds for its tokens holds in all of them.

What an instruction knows is written as a clock: how many instructions of each unit are complete when it begins, at
least. A unit completes its instructions in order, and gives tokens when it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import Module, module_codes
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import TOKEN_QUEUES
from vta_sim.token_queues import ENDS, POPS, PUSHES

Clock = tuple[int, int, int]
"""Instructions of load, compute and store."""

_QUEUES: Final = tuple(TOKEN_QUEUES)
_MODULES: Final = (Module.LOAD, Module.COMPUTE, Module.STORE)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Instructions that each unit's queue holds, and tokens that each token queue holds."""

    insns: int = 512
    tokens: int = 1023


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """Most tokens that a queue may hold, in the worst of timings, and the instruction that then gives the last."""

    count: int
    insn: int


@dataclass(frozen=True, kw_only=True)
class Order:
    """One execution of a launch, as far as it gets.

    sequence: instructions in the order in which they were executed. clocks: what each of them knows when it begins, by
    instruction. heads: the next instruction of each unit, if the launch came to a stop. tokens: in the queues then.
    outstanding: by queue.
    """

    sequence: tuple[int, ...]
    clocks: Mapping[int, Clock]
    heads: Mapping[Module, int]
    tokens: Tokens
    outstanding: Mapping[str, Outstanding]


class TokenFlow:
    """The instructions of a launch as far as their order is concerned.

    rows: of `ISA.decode_fields`. before: instructions of each unit that are complete at the beginning.
    modules: unit of each instruction, as `Module.value`. numbers: by instruction, how many its unit has executed
    when it is complete. members: the instructions of each unit.
    """

    def __init__(self, rows: NDArray[np.void], tokens: Tokens, before: Clock = (0, 0, 0)) -> None:
        codes = module_codes(rows)
        self.tokens = tokens
        self.before = before
        self.modules: list[int] = codes.tolist()
        self.members = [np.flatnonzero(codes == module.value).tolist() for module in _MODULES]
        self.numbers = [0] * len(rows)
        for module, members in enumerate(self.members):
            for number, insn in enumerate(members, start=before[module] + 1):
                self.numbers[insn] = number
        self._pops, self._pushes = _moved(rows, codes, POPS), _moved(rows, codes, PUSHES)

    @property
    def after(self) -> Clock:
        """Instructions of each unit that are complete at the end."""
        load, compute, store = (before + len(own) for before, own in zip(self.before, self.members, strict=True))
        return load, compute, store

    def insn_of(self, module: Module, number: int) -> int:
        """The instruction with which a unit has executed so many."""
        return int(self.members[module.value][number - self.before[module.value] - 1])

    def execute(self, limits: Limits | None = None) -> Order:
        """Execute; of the instructions that can begin the first in the program does.

        limits: of the queues between fetch and units and of the token queues; None for queues without end.
        """
        count = len(self.modules)
        tokens = [deque([self.before] * getattr(self.tokens, name)) for name in _QUEUES]
        known = [self.before] * 3
        done = [0, 0, 0]
        waiting = [0, 0, 0]
        fetched = count if limits is None else 0
        sequence: list[int] = []
        clocks: dict[int, Clock] = {}
        while True:
            if limits is not None:
                while fetched < count and waiting[self.modules[fetched]] < limits.insns:
                    waiting[self.modules[fetched]] += 1
                    fetched += 1
            chosen = count
            for module, members in enumerate(self.members):
                if done[module] == len(members) or members[done[module]] >= min(chosen, fetched):
                    continue
                insn = members[done[module]]
                if all(tokens[queue] for queue in self._pops[insn]) and (
                    limits is None or all(len(tokens[queue]) < limits.tokens for queue in self._pushes[insn])
                ):
                    chosen = insn
            if chosen == count:
                break
            module = self.modules[chosen]
            clock = known[module]
            for queue in self._pops[chosen]:
                clock = _later(clock, tokens[queue].popleft())
            clocks[chosen] = clock
            known[module] = complete = _with(clock, module, self.numbers[chosen])
            for queue in self._pushes[chosen]:
                tokens[queue].append(complete)
            done[module] += 1
            waiting[module] -= 1
            sequence.append(chosen)
        heads = {
            module: members[number]
            for module, members, number in zip(_MODULES, self.members, done, strict=True)
            if number < len(members)
        }
        left = Tokens(**{name: len(held) for name, held in zip(_QUEUES, tokens, strict=True)})
        return Order(
            sequence=tuple(sequence),
            clocks=clocks,
            heads=heads,
            tokens=left,
            outstanding=self._outstanding(clocks),
        )

    def _outstanding(self, clocks: Mapping[int, Clock]) -> dict[str, Outstanding]:
        """A push finds in its queue what was there or pushed before, but for what is known to have been popped."""
        most = {}
        for queue, (giver, taker) in enumerate(ENDS[name] for name in _QUEUES):
            pops = (queue in self._pops[insn] for insn in self.members[taker.value])
            popped = list(accumulate(pops, initial=0))
            held = getattr(self.tokens, _QUEUES[queue])
            worst = Outstanding(count=0, insn=0)
            for insn in self.members[giver.value]:
                if insn in clocks and queue in self._pushes[insn]:
                    held += 1
                    count = held - popped[clocks[insn][taker.value] - self.before[taker.value]]
                    if count > worst.count:
                        worst = Outstanding(count=count, insn=insn)
            most[_QUEUES[queue]] = worst
        return most


def _moved(
    rows: NDArray[np.void], codes: NDArray[np.int64], table: Mapping[tuple[Module, str], str]
) -> list[tuple[int, ...]]:
    """For each instruction, the numbers of the queues that it pops, or pushes."""
    moved: list[tuple[int, ...]] = [()] * len(rows)
    for (module, flag), queue in table.items():
        for insn in np.flatnonzero((codes == module.value) & (rows[flag] != 0)).tolist():
            moved[insn] = (*moved[insn], _QUEUES.index(queue))
    return moved


def _later(one: Clock, other: Clock) -> Clock:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


def _with(clock: Clock, module: int, number: int) -> Clock:
    load, compute, store = (number if unit == module else known for unit, known in enumerate(clock))
    return load, compute, store


def way(giver: Module, taker: Module) -> tuple[str, ...]:
    """The queues through which one unit tells another that it is done."""
    direct = tuple(queue for queue, ends in ENDS.items() if ends == (giver, taker))
    return direct or (*way(giver, Module.COMPUTE), *way(Module.COMPUTE, taker))
