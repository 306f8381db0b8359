"""Executes a launch in many of the orders that timing may give it, on the model of the specification.

Each unit works on one instruction at a time: it begins, which takes the tokens; has its effect, at any time after that;
and completes, which gives tokens. What happens next among the things that can happen, a timing chooses. There are those
in which one unit always goes before another, those in which one unit begins early and completes as late as it can, with
its effect at either end, and random ones.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import Fields, ModelConfig
from tests.vta_sim.spec_model.machine import Machine, ModelError
from tests.vta_sim.spec_model.pipeline import MODULES, POPS, PUSHES, QUEUES, module_of, queues_of

RANDOM_TIMINGS = 6


class Move(enum.Enum):
    """What a unit can do next."""

    BEGIN = "begin"
    ACT = "act"
    COMPLETE = "complete"


Choice = tuple[str, Move]
Timing = Callable[[Sequence[Choice]], Choice]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A launch, and all that it starts from."""

    config: ModelConfig
    words: NDArray[np.uint64]
    dram: Dram
    bases: Mapping[int, int]
    tokens: tuple[int, ...]


def outcome(stream: Stream, timing: Timing) -> str:
    """What a launch comes to: "deadlock", the kind of a refusal, or a digest of memory, scratchpads and tokens."""
    machine = Machine(stream.config, stream.dram.copy())
    machine.bases = stream.bases
    insns = [layout.decode(stream.config, word) for word in layout.from_words(stream.words)]
    queues = {module: [i for i, insn in enumerate(insns) if module_of(insn) == module][::-1] for module in MODULES}
    tokens = dict(zip(QUEUES, stream.tokens, strict=True))
    stages = dict.fromkeys(MODULES, Move.BEGIN)
    while any(queues.values()):
        possible = [
            (module, stages[module])
            for module, queue in queues.items()
            if queue and (stages[module] is not Move.BEGIN or _has_tokens(insns[queue[-1]], tokens))
        ]
        if not possible:
            return "deadlock"
        module, move = timing(possible)
        index = queues[module][-1]
        match move:
            case Move.BEGIN:
                for queue in queues_of(insns[index], POPS):
                    tokens[queue] -= 1
                stages[module] = Move.ACT
            case Move.ACT:
                try:
                    machine.execute(index, insns[index])
                except ModelError as error:
                    return error.kind
                stages[module] = Move.COMPLETE
            case Move.COMPLETE:
                for queue in queues_of(insns[index], PUSHES):
                    tokens[queue] += 1
                queues[module].pop()
                stages[module] = Move.BEGIN
    return _digest(machine, tokens)


def is_result(found: str) -> bool:
    """Whether an outcome is that of a launch that came to its end."""
    return len(found) == 64


def outcomes(stream: Stream, seed: int) -> set[str]:
    """What it comes to in the timings, each once; of more than one, only some need be there."""
    found: set[str] = set()
    for timing in timings(seed):
        found.add(outcome(stream, timing))
        if len(found) > 1:
            break
    return found


def timings(seed: int) -> Iterator[Timing]:
    """All that are tried; `seed` is of the random ones."""
    for order in itertools.permutations(MODULES):
        yield _first(order)
    for slow in MODULES:
        others = tuple(module for module in MODULES if module != slow)
        for order, early in itertools.product((others, others[::-1]), (True, False)):
            yield _held(slow, order, early)
    for number in range(RANDOM_TIMINGS):
        yield random.Random(f"{seed} {number}").choice


def _has_tokens(insn: Fields, tokens: Mapping[str, int]) -> bool:
    return all(tokens[queue] for queue in queues_of(insn, POPS))


def _first(order: Sequence[str]) -> Timing:
    return lambda possible: min(possible, key=lambda choice: order.index(choice[0]))


def _held(slow: str, others: Sequence[str], early: bool) -> Timing:
    """`slow` begins at once, and with `early` also has its effect; the rest waits until nobody else can go on."""
    at_once = (Move.BEGIN, Move.ACT) if early else (Move.BEGIN,)

    def rank(choice: Choice) -> int:
        module, move = choice
        if module == slow:
            return -1 if move in at_once else len(others)
        return others.index(module)

    return lambda possible: min(possible, key=rank)


def _digest(machine: Machine, tokens: Mapping[str, int]) -> str:
    digest = hashlib.sha256(repr(sorted(tokens.items())).encode())
    for number, page in sorted(machine.dram.pages.items()):
        if page.any():
            digest.update(number.to_bytes(8, "little") + page.tobytes())
    for pad in machine.pads.values():
        digest.update(pad.tobytes())
    return digest.hexdigest()
