"""What a machine with registers reports about a launch, and the exception that its status calls for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Insn, Module, Opcode, module_codes
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, TOKEN_QUEUES, Status
from vta_sim.errors import BusError, Deadlock, LeftoverTokens, MissingFinish, OutOfRange, SimulationError, UnknownOpcode

_UNKNOWN: Final = Status.UNKNOWN_OPCODE | Status.UNKNOWN_MEMORY_TYPE | Status.UNKNOWN_ALU_OPCODE
_INDICES: Final = Status.UOP_INDEX | Status.INP_INDEX | Status.WGT_INDEX | Status.ACC_INDEX | Status.OUT_INDEX
_BUS: Final = Status.READ_ERROR | Status.WRITE_ERROR

# The first kind that has a bit in the status decides.
_RULES: Final[tuple[tuple[Status, type[SimulationError], str], ...]] = (
    (_UNKNOWN, UnknownOpcode, "codes must be those of the instruction set"),
    (_INDICES, OutOfRange, "accesses must stay within the scratchpads"),
    (_BUS, BusError, "memory must answer without errors"),
)

_POPS: Final = (
    (Module.LOAD, "pop_next", "g2l"),
    (Module.COMPUTE, "pop_prev", "l2g"),
    (Module.COMPUTE, "pop_next", "s2g"),
    (Module.STORE, "pop_prev", "g2s"),
)
_COMPLETED: Final = {Module.LOAD: "insn_load", Module.COMPUTE: "insn_compute", Module.STORE: "insn_store"}


@dataclass(frozen=True, kw_only=True)
class RtlReport:
    """What the registers said after a launch.

    words: its instructions, uint64 [N][2]. counters: every counter of the register map, by name. status: what was found
    wrong, and `fault_insn` the instruction that was the first to be at fault, None if none was or if all waited.
    """

    config: VTAConfig
    words: NDArray[np.uint64]
    counters: Mapping[str, int]
    status: Status
    fault_insn: int | None
    tokens_left: Tokens

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
        return kind(rule, insn=index, disassembly=disassemble(self._insn(index)))

    def _insn(self, index: int) -> Insn:
        low, high = (int(word) for word in self.words[index])
        return ISA(self.config).decode(low | high << 64)

    def _deadlock(self) -> SimulationError:
        """Every unit's next instruction, as far as the counters tell, and the tokens that it lacks."""
        heads = self._heads()
        if not heads and not np.any(self.words[:, 0] & np.uint64(7) == Opcode.FINISH):
            count = len(self.words)
            return MissingFinish(f"Launch must execute FINISH, but none of its {count} instructions is one")
        waits = {index: names for index, module in heads if (names := self._missing(index, module))}
        described = [
            f"instruction {index} ({disassemble(self._insn(index))}) waits for a token of {' and '.join(names)}"
            for index, names in waits.items()
        ]
        rule = "every token that is waited for must come, but " + ", ".join(described or ["nothing goes on"])
        return self._at(Deadlock, rule, min(waits, default=min((index for index, _ in heads), default=None)))

    def _heads(self) -> list[tuple[int, Module]]:
        """Index and unit of the first instruction that each unit has not completed, ascending."""
        modules = module_codes(ISA(self.config).decode_fields(self.words))
        heads = []
        for module, counter in _COMPLETED.items():
            own = np.flatnonzero(modules == module.value)
            done = self.counters[counter]
            if done < len(own):
                heads.append((int(own[done]), module))
        return sorted(heads, key=lambda head: head[0])

    def _missing(self, index: int, module: Module) -> list[str]:
        insn = self._insn(index)
        return [
            queue
            for owner, flag, queue in _POPS
            if owner is module and getattr(insn, flag) and not getattr(self.tokens_left, queue)
        ]


def _named(status: Status) -> str:
    return " and ".join(str(bit.name) for bit in status)
