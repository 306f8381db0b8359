"""A model of the three modules that knows only the token flags: which orders of execution they allow, what races.

The functional simulator takes instructions in program order whenever tokens permit, so that a missing token would not
show there. `races` proves that conflicting accesses keep program order in every execution of a launch. `legal_order`
draws one execution, and `reordered` makes a program whose program order it is, to be run for its answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.compiler.vta.touches import Space, Step, Units, launches
from vta_hw.spec.instructions import Finish, Module
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Launch, Program

Choice = Callable[[Sequence[int], Sequence[Module]], int]
Queues = Mapping[tuple[Module, str], str]

MODULES = (Module.LOAD, Module.COMPUTE, Module.STORE)

PUSHES = {
    (Module.LOAD, "push_next"): "l2g",
    (Module.COMPUTE, "push_prev"): "g2l",
    (Module.COMPUTE, "push_next"): "g2s",
    (Module.STORE, "push_prev"): "s2g",
}
POPS = {
    (Module.COMPUTE, "pop_prev"): "l2g",
    (Module.LOAD, "pop_next"): "g2l",
    (Module.STORE, "pop_prev"): "g2s",
    (Module.COMPUTE, "pop_next"): "s2g",
}
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")


class TokenError(AssertionError):
    """Tokens that deadlock, that are left over, or that stand on a queue which does not exist."""


def queues_of(step: Step, table: Queues) -> list[str]:
    """The token queues that the instruction pops, or pushes. Raises TokenError for a flag without a queue."""
    kind = "pop" if table is POPS else "push"
    flags = [flag for flag in FLAGS if flag.startswith(kind) and getattr(step.insn, flag)]
    for flag in flags:
        if (step.module, flag) not in table:
            raise TokenError(f"{step.insn} has {flag}, for which there is no queue")
    return [table[step.module, flag] for flag in flags]


def first_in_program_order(ready: Sequence[int], modules: Sequence[Module]) -> int:
    """The order in which the functional simulator executes."""
    return min(ready)


def random_choice(seed: int) -> Choice:
    """Prefers one module over another for a while, so that modules run far ahead of each other, then another."""
    r = random.Random(seed)
    preference = list(MODULES)

    def choose(ready: Sequence[int], modules: Sequence[Module]) -> int:
        if r.random() < 0.02:
            r.shuffle(preference)
        if r.random() < 0.2:
            return r.choice(ready)
        return min(ready, key=lambda position: preference.index(modules[position]))

    r.shuffle(preference)
    return choose


def legal_order(steps: Sequence[Step], choose: Choice = first_in_program_order) -> list[int]:
    """Positions in an order that the tokens allow. Raises TokenError if it comes to a stop or leaves tokens."""
    modules = [step.module for step in steps]
    queues = {module: [k for k, one in enumerate(modules) if one is module][::-1] for module in MODULES}
    tokens = dict.fromkeys(PUSHES.values(), 0)
    pops, pushes = [queues_of(step, POPS) for step in steps], [queues_of(step, PUSHES) for step in steps]
    order: list[int] = []
    while any(queues.values()):
        heads = [queue[-1] for queue in queues.values() if queue]
        ready = [position for position in heads if all(tokens[queue] for queue in pops[position])]
        if not ready:
            raise TokenError(f"deadlock: {[steps[position].insn for position in heads]} wait for tokens")
        position = choose(ready, modules)
        queues[modules[position]].pop()
        for queue in pops[position]:
            tokens[queue] -= 1
        for queue in pushes[position]:
            tokens[queue] += 1
        order.append(position)
    if any(tokens.values()):
        raise TokenError(f"tokens are left over: {tokens}")
    return order


def most_outstanding(steps: Sequence[Step], order: Sequence[int]) -> int:
    """Most tokens that one queue holds at once in an order of execution."""
    held = dict.fromkeys(PUSHES.values(), 0)
    most = 0
    for position in order:
        for queue in queues_of(steps[position], POPS):
            held[queue] -= 1
        for queue in queues_of(steps[position], PUSHES):
            held[queue] += 1
            most = max(most, held[queue])
    return most


def clocks(steps: Sequence[Step]) -> Units:
    """For each instruction, how many of every module are complete before it starts, whatever the interleaving; [n,3].

    The k-th pop of a queue takes its k-th push, because each queue has one producer and one consumer, both in order.
    """
    known = np.zeros((len(steps), len(MODULES)), np.int64)
    latest = {module: np.zeros(len(MODULES), np.int64) for module in MODULES}
    in_flight: dict[str, list[Units]] = {queue: [] for queue in PUSHES.values()}
    for position in legal_order(steps):
        step = steps[position]
        clock = latest[step.module]
        for queue in queues_of(step, POPS):
            clock = np.maximum(clock, in_flight[queue].pop(0))
        known[position] = clock
        done = clock.copy()
        done[step.module.value] += 1
        latest[step.module] = done
        for queue in queues_of(step, PUSHES):
            in_flight[queue].append(done)
    return known


def races(steps: Sequence[Step]) -> list[str]:
    """Every instruction that may overtake an earlier one of another module with which it conflicts.

    FINISH conflicts with everything: when it completes, the host reads memory.
    """
    known = clocks(steps)
    nothing = np.zeros(0, np.int64)
    history = {(space, module, write): nothing for space in Space for module in MODULES for write in (False, True)}
    done = dict.fromkeys(MODULES, 0)
    problems: list[str] = []
    for position, step in enumerate(steps):
        for other in MODULES:
            if other is step.module:
                continue
            needed = done[other] if isinstance(step.insn, Finish) else _newest(history, step, other)
            if needed > known[position, other.value]:
                problems.append(f"{position} {step.insn} may run before {other.name.lower()} instruction {needed}")
        done[step.module] += 1
        for touch in step.touches:
            _remember(history, (touch.space, step.module, touch.write), touch.units, done[step.module])
    return problems


_History = dict[tuple[Space, Module, bool], Units]


def _newest(history: _History, step: Step, other: Module) -> int:
    """Number, among the instructions of `other`, of the last one that conflicts; 0 if none does."""
    newest = 0
    for touch in step.touches:
        for write in (False, True) if touch.write else (True,):
            past = history[touch.space, other, write]
            units = touch.units[touch.units < len(past)]
            newest = max(newest, int(past[units].max(initial=0)))
    return newest


def _remember(history: _History, key: tuple[Space, Module, bool], units: Units, number: int) -> None:
    if not len(units):
        return
    past, size = history[key], int(units.max()) + 1
    if len(past) < size:
        history[key] = past = np.concatenate([past, np.zeros(2 * size - len(past), np.int64)])
    past[units] = number


def reordered(program: Program, choose: Choice) -> Program:
    """The program whose launches list their instructions in an order that the original's tokens allow.

    Executed in program order it does what the original may do. Layers are dropped: they are ranges no more.
    """
    codec = ISA(program.config)
    insns = codec.decode_program(program.insns)
    starts = [step.insn_begin for step in program.steps if isinstance(step, Launch)]
    for start, steps in zip(starts, launches(program), strict=True):
        insns[start : start + len(steps)] = [steps[position].insn for position in legal_order(steps, choose)]
    return replace(program, insns=codec.encode_program(insns).astype("<u8").tobytes(), layers=())


def without_token(steps: Sequence[Step], queue: str, number: int) -> list[Step]:
    """The steps with the push and the pop of one token gone; `number` counts the tokens of the queue from 0."""
    result = list(steps)
    for table in (PUSHES, POPS):
        holders = [k for k, step in enumerate(steps) if queue in queues_of(step, table)]
        position = holders[number]
        flag = next(flag for (_, flag), name in table.items() if name == queue)
        off: dict[str, Any] = {flag: False}
        result[position] = Step(replace(result[position].insn, **off), result[position].touches)
    return result


def tokens_of(steps: Sequence[Step]) -> list[tuple[str, int]]:
    """(queue, number) of every token."""
    pushed = [queue for step in steps for queue in queues_of(step, PUSHES)]
    return [(queue, number) for queue in PUSHES.values() for number in range(pushed.count(queue))]
