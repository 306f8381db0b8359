"""Every instruction of a traced program: when it ran, what it moved or computed, and what held it up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vta.profile import launches_of, windows
from vta.report import instruction_costs
from vta_hw.spec.asm import disassemble
from vta_hw.spec.isa import ISA, Module
from vta_hw.spec.program import Launch, Program
from vta_sim.trace import COUNTERS, Trace


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One instruction. index: in the program. begin, end: cycles since the first launch began, those of launches
    following one another, -1 if the instruction never did. oldest: the cycle from which on it is the oldest in its
    unit, at or after `begin`. counters: cycles that counters counted on its account.
    """

    index: int
    unit: Module
    text: str
    layer: str
    begin: int
    oldest: int
    end: int
    bytes: int
    uops: int
    counters: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Every figure by name, for JSON."""
        return {**vars(self), "unit": self.unit.name.lower()}


def starts(traces: Sequence[Trace]) -> list[int]:
    """The cycle in which each launch begins if they follow one another, and that in which the last is over."""
    return [0, *np.cumsum([trace.cycles for trace in traces]).tolist()]


def entries(program: Program, traces: Sequence[Trace]) -> Iterator[Entry]:
    """Every instruction of the launches, in their order. Raises ApiError for traces of another program."""
    launched = launches_of(program, traces)
    costs = instruction_costs(program.config, program.insns)
    nbytes, uops = costs["load"] + costs["store"], costs["gemm"] + costs["reset"] + costs["alu"]
    for (launch, trace), start in zip(launched, starts(traces), strict=False):
        yield from _of_launch(program, launch, trace, start, nbytes, uops)


def _of_launch(
    program: Program,
    launch: Launch,
    trace: Trace,
    start: int,
    nbytes: NDArray[np.int64],
    uops: NDArray[np.int64],
) -> Iterator[Entry]:
    isa = ISA(program.config)
    layers = {
        index: window.name
        for window in windows(program, launch, trace)
        for index in range(window.insn_begin, window.insn_end)
    }
    held = _held(trace)
    free = dict.fromkeys(Module, 0)
    for number, (insn, (low, high)) in enumerate(zip(trace.insns.tolist(), trace.words.tolist(), strict=True)):
        code, begin, end = insn
        unit, index = Module(code), launch.insn_begin + number
        yield Entry(
            index=index,
            unit=unit,
            text=disassemble(isa.decode(low | high << 64)),
            layer=layers[index],
            begin=begin + start if begin >= 0 else -1,
            oldest=max(begin, free[unit]) + start if begin >= 0 else -1,
            end=end + start if end >= 0 else -1,
            bytes=int(nbytes[index]),
            uops=int(uops[index]),
            counters=held.get(number, {}),
        )
        free[unit] = max(free[unit], end)


def _held(trace: Trace) -> dict[int, dict[str, int]]:
    """Cycles by instruction and counter."""
    held: dict[int, dict[str, int]] = {}
    for counter, insn, begin, end in trace.spans.tolist():
        if insn >= 0:
            counted = held.setdefault(insn, {})
            name = COUNTERS[counter]
            counted[name] = counted.get(name, 0) + end - begin
    return held
