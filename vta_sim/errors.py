"""What can go wrong in a launch, with the instruction and the rule it broke."""

from __future__ import annotations


class SimulationError(Exception):
    """A launch cannot go on, or has not ended as it must.

    `insn` is the index of the instruction within the launch and `disassembly` its text, both None if the rule is
    about the launch as a whole; `rule` is the sentence that was broken, with the value that broke it.
    """

    def __init__(self, rule: str, *, insn: int | None = None, disassembly: str | None = None) -> None:
        self.rule = rule
        self.insn = insn
        self.disassembly = disassembly
        super().__init__(rule if insn is None else f"Instruction {insn} ({disassembly}): {rule}")


class OutOfRange(SimulationError):
    """An instruction reaches outside a scratchpad."""


class UnknownOpcode(SimulationError):
    """An opcode, ALU opcode or memory type that the instruction set does not define."""


class Deadlock(SimulationError):
    """Instructions are left, and each of them waits for a token that cannot come."""


class MissingFinish(SimulationError):
    """All instructions were executed, and none of them was FINISH."""


class LeftoverTokens(SimulationError):
    """Tokens are left in the queues at the end of a launch that had to be balanced."""


class BusError(SimulationError):
    """Memory answered an access with an error."""


class CycleLimit(SimulationError):
    """A launch was not over after as many cycles as it was given."""
