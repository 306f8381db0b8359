"""What a machine with registers reports about a launch, and the exception that its status calls for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Module, Opcode, module_codes
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, TOKEN_QUEUES, Status
from vta_sim.deadlock import find_waits
from vta_sim.errors import BusError, Deadlock, LeftoverTokens, MissingFinish, OutOfRange, SimulationError, UnknownOpcode
from vta_sim.trace import Trace

_UNKNOWN: Final = Status.UNKNOWN_OPCODE | Status.UNKNOWN_MEMORY_TYPE | Status.UNKNOWN_ALU_OPCODE
_INDICES: Final = Status.UOP_INDEX | Status.INP_INDEX | Status.WGT_INDEX | Status.ACC_INDEX | Status.OUT_INDEX
_BUS: Final = Status.READ_ERROR | Status.WRITE_ERROR

# The first kind that has a bit in the status decides.
_RULES: Final[tuple[tuple[Status, type[SimulationError], str], ...]] = (
    (_UNKNOWN, UnknownOpcode, "codes must be those of the instruction set"),
    (_INDICES, OutOfRange, "accesses must stay within the scratchpads"),
    (_BUS, BusError, "memory must answer without errors"),
)

_COMPLETED: Final = {Module.LOAD: "insn_load", Module.COMPUTE: "insn_compute", Module.STORE: "insn_store"}


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """What the registers said after a launch.

    words: its instructions, uint64 [N][2]. counters: every counter of the register map, by name. status: what was found
    wrong, and `fault_insn` the instruction that was the first to be at fault, None if none was or if all waited.
    waiting_since: the cycle of the launch, from 0, from which on a unit did nothing but wait for tokens until the end,
    for the units that did.
    trace: where the cycles went, if the simulator traces.
    """

    config: VTAConfig
    words: NDArray[np.uint64]
    counters: Mapping[str, int]
    status: Status
    fault_insn: int | None
    tokens_left: Tokens
    waiting_since: Mapping[Module, int] = field(default_factory=dict)
    trace: Trace | None = None

    @property
    def cycles(self) -> int:
        """Clock cycles from the start of the launch to its end."""
        return self.counters["cycle_count"]

    def check(self, *, allow_leftover_tokens: bool = False) -> None:
        """Raise the `SimulationError` that the functional simulator would raise, with the words of the status."""
        faults = self.status & FAULTS
        for bits, kind, rule in _RULES:
            if faults & bits:
                raise self._at(kind, f"{rule}, but the status is {_named(faults)}", self.fault_insn)
        if faults & Status.DEADLOCK:
            raise self._deadlock()
        left = {name: getattr(self.tokens_left, name) for name in TOKEN_QUEUES}
        if any(left.values()) and not allow_leftover_tokens:
            listed = ", ".join(f"{count} of {name}" for name, count in left.items() if count)
            raise LeftoverTokens(f"Launch must leave no tokens, not {listed}")

    def _at(self, kind: type[SimulationError], rule: str, index: int | None) -> SimulationError:
        if index is None or index >= len(self.words):
            return kind(rule)
        low, high = (int(word) for word in self.words[index])
        return kind(rule, insn=index, disassembly=disassemble(ISA(self.config).decode(low | high << 64)))

    def _deadlock(self) -> SimulationError:
        """What every unit waits for, as far as the counters tell."""
        heads = self._heads()
        if not heads and not np.any(self.words[:, 0] & np.uint64(7) == Opcode.FINISH):
            count = len(self.words)
            return MissingFinish(f"Launch must execute FINISH, but none of its {count} instructions is one")
        return Deadlock(find_waits(self.config, self.words, heads, self.tokens_left, self.waiting_since))

    def _heads(self) -> dict[Module, int]:
        """Index of the first instruction that each unit has not completed, for those that have one left."""
        modules = module_codes(ISA(self.config).decode_fields(self.words))
        heads = {}
        for module, counter in _COMPLETED.items():
            own = np.flatnonzero(modules == module.value)
            done = self.counters[counter]
            if done < len(own):
                heads[module] = int(own[done])
        return heads


def _named(status: Status) -> str:
    return " and ".join(str(bit.name) for bit in status)
