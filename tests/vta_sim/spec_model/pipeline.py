"""Three in-order queues joined by four token queues (VTA spec 5.1 to 5.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.layout import Fields
from tests.vta_sim.spec_model.machine import NO_BASES, Machine, ModelError, Statistics

LOADER, COMPUTE, STORER = "load", "compute", "store"
MODULES = (LOADER, COMPUTE, STORER)
QUEUES = ("l2g", "g2l", "g2s", "s2g")
"""Token queues in the order in which streams record them."""

POPS = {
    (LOADER, "pop_next"): "g2l",
    (COMPUTE, "pop_prev"): "l2g",
    (COMPUTE, "pop_next"): "s2g",
    (STORER, "pop_prev"): "g2s",
}
PUSHES = {
    (LOADER, "push_next"): "l2g",
    (COMPUTE, "push_prev"): "g2l",
    (COMPUTE, "push_next"): "g2s",
    (STORER, "push_prev"): "s2g",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a launch left besides memory."""

    tokens: tuple[int, ...]
    statistics: Statistics


def module_of(insn: Fields) -> str:
    """The queue fetch gives an instruction to; invalid ones go to compute."""
    if insn["opcode"] == layout.STORE:
        return STORER
    if insn["opcode"] == layout.LOAD and insn["memory_type"] in (layout.INP, layout.WGT):
        return LOADER
    return COMPUTE


def queues_of(insn: Fields, flags: Mapping[tuple[str, str], str]) -> list[str]:
    """Token queues an instruction pops or pushes; flags without a queue mean nothing."""
    module = module_of(insn)
    return [queue for (owner, flag), queue in flags.items() if owner == module and insn[flag]]


def run(
    machine: Machine,
    words: NDArray[np.uint64],
    *,
    tokens: Sequence[int] = (0, 0, 0, 0),
    bases: Mapping[int, int] = NO_BASES,
    order: random.Random | None = None,
) -> Result:
    """Execute all instructions; raises ModelError, among others for a deadlock.

    Without `order` an instruction runs as soon as everything before it in the program allows; with it, the module
    that moves next is drawn at random, which only a program without races survives unchanged.
    """
    machine.statistics, machine.bases = Statistics(), bases
    insns = [layout.decode(machine.config, word) for word in layout.from_words(words)]
    waiting = {module: [i for i, insn in enumerate(insns) if module_of(insn) == module] for module in MODULES}
    count = dict(zip(QUEUES, tokens, strict=True))
    for module in MODULES:
        waiting[module].reverse()
    while any(waiting.values()):
        heads = [queue[-1] for queue in waiting.values() if queue]
        ready = [i for i in heads if all(count[queue] for queue in queues_of(insns[i], POPS))]
        if not ready:
            raise ModelError("deadlock", min(heads), f"tokens {count}, waiting {sorted(heads)}")
        index = min(ready) if order is None else order.choice(ready)
        insn = insns[index]
        waiting[module_of(insn)].pop()
        for queue in queues_of(insn, POPS):
            count[queue] -= 1
        machine.execute(index, insn)
        for queue in queues_of(insn, PUSHES):
            count[queue] += 1
    return Result(tokens=tuple(count[queue] for queue in QUEUES), statistics=machine.statistics)
