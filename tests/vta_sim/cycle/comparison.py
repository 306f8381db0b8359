"""What two simulators that count cycles leave behind, launch by launch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from tests.vta_sim.cycle.cases import TimedCase
from tests.vta_sim.rtl.code_cache import CODE_CACHE
from tests.vta_sim.rtl.machines import contents_differ, execute
from tests.vta_sim.spec_model import compare
from vta_hw.spec.config import VTAConfig
from vta_sim.errors import SimulationError
from vta_sim.report import MachineReport

MAX_CYCLES: Final = 20_000_000

SIMULATORS: Final[Mapping[str, tuple[str, str]]] = {
    "cycle": ("vta_sim.cycle.engine", "CycleSimulator"),
    "compiled": ("vta_sim.rtl.compiled", "CompiledSimulator"),
    "amaranth": ("tests.vta_sim.rtl.machine_simulator", "MachineSimulator"),
}
"""Module and class of those that have the memory of `vta_sim.rtl.dram`, from the fastest to the slowest."""


@lru_cache(maxsize=32)
def simulator(name: str, config: VTAConfig, queue_depth: int, errors: tuple[tuple[range, int], ...]) -> Any:
    """One of `SIMULATORS` for a machine, in whatever state its last user left it: to be reset."""
    module, kind = SIMULATORS[name]
    options = {"cache": CODE_CACHE} if name == "compiled" else {}
    return getattr(import_module(module), kind)(config, queue_depth=queue_depth, errors=dict(errors), **options)


def check(timed: TimedCase, mine: str = "cycle", reference: str = "compiled") -> Iterator[str]:
    """A sentence for each thing in which two of `SIMULATORS` differ after one of the launches."""
    case = timed.case
    first, second = (
        simulator(name, case.config, case.queue_depth, tuple(timed.errors.items())) for name in (mine, reference)
    )
    for each in (first, second):
        each.reset(memory=compare.toolkit_memory(case.dram), timing=case.timing)
    ends = (_reports(timed, each) for each in (first, second))
    for number, (found, wanted) in enumerate(zip(*ends, strict=True)):
        differences = list(reports_differ(found, wanted))
        if timed.has_results:
            differences += contents_differ(second, first)
        for difference in differences:
            yield f"{case.name}, launch {number}: {difference}"


End = MachineReport | SimulationError


def _reports(timed: TimedCase, simulator: Any) -> Iterator[End]:
    """The report of each launch, and the error that ended one, behind which there is no other."""
    try:
        yield from execute(timed.case, simulator, max_cycles=MAX_CYCLES, allow_faults=True)
    except SimulationError as error:
        yield error


def reports_differ(found: End, wanted: End) -> Iterator[str]:
    """A sentence for each counter, status bit or token, or for the error, in which the ends of a launch differ."""
    if isinstance(found, SimulationError) or isinstance(wanted, SimulationError):
        if (type(found), str(found)) != (type(wanted), str(wanted)):
            yield f"it ends with {found!r}, not {wanted!r}"
        return
    for name, value in wanted.counters.items():
        if found.counters[name] != value:
            yield f"{name} is {found.counters[name]}, not {value}"
    for name in ("status", "fault_insn", "tokens_left"):
        mine, other = getattr(found, name), getattr(wanted, name)
        if mine != other:
            yield f"{name} is {mine}, not {other}"
