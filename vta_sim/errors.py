"""What can go wrong in a launch, with the instruction and the rule it broke."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vta_hw.spec.program import Layer
    from vta_sim.deadlock import Wait


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
    """Instructions are left, and each of them waits for a token that cannot come.

    `waits` says of each unit with an instruction left for which tokens it waits, in program order; `insn` is the first.
    """

    def __init__(self, waits: Iterable[Wait]) -> None:
        self.waits = tuple(waits)
        listed = ", ".join(map(str, self.waits)) or "nothing goes on"
        first = self.waits[0] if self.waits else None
        super().__init__(
            f"every token that is waited for must come, but {listed}",
            insn=None if first is None else first.insn,
            disassembly=None if first is None else first.disassembly,
        )

    def in_layers(self, layers: Iterable[Layer], insn_begin: int) -> Deadlock:
        """The same of a program with `layers`, in which the launch begins at instruction `insn_begin`."""
        known = tuple(layers)
        return Deadlock(
            replace(wait, layer=layer.name) if (layer := _layer_of(known, insn_begin + wait.insn)) is not None else wait
            for wait in self.waits
        )


def _layer_of(layers: Iterable[Layer], insn: int) -> Layer | None:
    return next((layer for layer in layers if layer.insn_begin <= insn < layer.insn_end), None)


class MissingFinish(SimulationError):
    """All instructions were executed, and none of them was FINISH."""


class LeftoverTokens(SimulationError):
    """Tokens are left in the queues at the end of a launch that had to be balanced."""


class BusError(SimulationError):
    """Memory answered an access with an error."""


class CycleLimit(SimulationError):
    """A launch was not over after as many cycles as it was given."""
