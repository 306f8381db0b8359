"""The static checker at the front door: of what the compiler has made, and of what an engine with a clock is to run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vta.errors import ApiError, CompilerFault
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.program import Program
from vta_sim.check.checker import check_program
from vta_sim.check.findings import Rule, Severity

_NO_BASES: Final[Mapping[MemoryType, int]] = MappingProxyType({})


def proved(program: Program) -> Program:
    """The program that the compiler has made, proved to be without errors. Raises CompilerFault with the first."""
    for finding in check_program(program, lints=False):
        if finding.severity is Severity.ERROR:
            raise CompilerFault(f"Compiler must make programs without errors, not this: {finding}")
    return program


def refuse_races(program: Program, bases: Mapping[MemoryType, int] = _NO_BASES) -> None:
    """Raises ApiError with the first race of a program, whose result depends on time.

    bases: of a raw program, byte address in the base register of each scratchpad, by its plain memory type.
    """
    for finding in check_program(program, bases=bases, lints=False):
        if finding.rule is Rule.RACE:
            raise ApiError(f"Program must have no races on an engine with a clock, not this: {finding}")
