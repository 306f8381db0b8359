"""The model of the specification with the manners of hardware: indices wrap, unknown codes do nothing (VTA spec 11)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT, Fields
from tests.vta_sim.spec_model.machine import OF_ACC, Machine, Nest


class WrappingMachine(Machine):
    """Executes what is no correct program as the RTL does."""

    def execute(self, index: int, insn: Fields) -> None:
        opcodes = range(5 + self.config.extended)
        operations = range(5 + self.config.extended)
        unknown = insn["opcode"] not in opcodes or insn.get("alu_opcode", 0) not in operations
        if not unknown:
            super().execute(index, insn)

    def _load(self, index: int, insn: Fields) -> None:
        """With the scratchpad turned so that it begins at sram_base."""
        if insn["memory_type"] == OUT or insn["memory_type"] > 5 + 2 * self.config.extended:
            return
        pad = ACC if insn["memory_type"] in OF_ACC else insn["memory_type"]
        turn = insn["sram_base"] % self.config.depth(pad)
        self.pads[pad] = np.roll(self.pads[pad], -turn, axis=0)
        super()._load(index, insn | {"sram_base": 0})
        self.pads[pad] = np.roll(self.pads[pad], turn, axis=0)

    def _store(self, index: int, insn: Fields) -> None:
        """As `_load`."""
        if insn["memory_type"] != OUT:
            return
        turn = insn["sram_base"] % self.config.depth(OUT)
        self.pads[OUT] = np.roll(self.pads[OUT], -turn, axis=0)
        super()._store(index, insn | {"sram_base": 0})
        self.pads[OUT] = np.roll(self.pads[OUT], turn, axis=0)

    def nest(self, index: int, insn: Fields) -> Nest:
        """All indices modulo the depths, those of micro-ops too."""
        depth = self.config.depth(UOP)
        micro_ops = self.pads[UOP]
        self.pads[UOP] = np.concatenate([micro_ops, micro_ops])  # uop_end is at most twice the depth, less one
        nest = super().nest(index, insn)
        self.pads[UOP] = micro_ops[:depth]
        src = ACC if insn["opcode"] == layout.ALU else INP
        return replace(
            nest,
            dst=nest.dst % self.config.depth(ACC),
            src=nest.src % self.config.depth(src),
            wgt=nest.wgt % self.config.depth(WGT),
        )

    def _check(self, index: int, what: str, value: int, limit: int) -> None:
        del index, what, value, limit
