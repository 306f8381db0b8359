"""A small machine to put test programs on, with numbers in and numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Finish, Insn, Load, MemoryType, Uop
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.functional.report import Report

DATA_AT = 1 << 20
INSN_AT = 1 << 40

SMALL = VTAConfig(
    log_block_in=2,
    log_block_out=2,
    log_uop_buff_size=8,
    log_inp_buff_size=8,
    log_wgt_buff_size=8,
    log_acc_buff_size=10,
)
"""1x4x4: 64 micro-ops, 64 inputs, 16 weights, 64 accumulators."""


def to_bytes(numbers: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Pack integers, the first in the lowest bits (written here for the tests alone)."""
    flat = np.asarray(numbers, np.int64).reshape(-1)
    if bits == 4:
        return ((flat[0::2] & 15) | (flat[1::2] & 15) << 4).astype(np.uint8)
    return flat.astype({8: np.int8, 16: np.int16, 32: np.int32}[bits]).view(np.uint8)


def from_bytes(data: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """Undo `to_bytes`."""
    if bits == 4:
        nibbles = np.stack([data & 15, data >> 4], axis=1).reshape(-1).astype(np.int64)
        return np.where(nibbles > 7, nibbles - 16, nibbles)
    return data.view({8: np.int8, 16: np.int16, 32: np.int32}[bits]).astype(np.int64)


class Bench:
    """A simulator whose scratchpads are filled through LOAD, and which runs instructions followed by FINISH."""

    def __init__(self, config: VTAConfig = SMALL, **options: Any) -> None:
        self.config = config
        self.isa = ISA(config)
        self.simulator = FunctionalSimulator(config, **options)

    def run(self, insns: Iterable[Insn], **options: Any) -> Report:
        """Run instructions as one launch, with FINISH behind them."""
        return self.run_exactly([*insns, Finish()], **options)

    def run_exactly(self, insns: Sequence[Insn], **options: Any) -> Report:
        """Run instructions as one launch."""
        self.simulator.memory.write(INSN_AT, self.isa.encode_program(insns))
        return self.simulator.launch(INSN_AT, len(insns), **options)

    def fill(self, memory_type: MemoryType, numbers: ArrayLike, sram_base: int = 0) -> None:
        """Put tiles into a scratchpad, from the numbers in their order in memory."""
        bits = {MemoryType.INP: self.config.inp_bits, MemoryType.WGT: self.config.wgt_bits}.get(memory_type, 32)
        data = to_bytes(numbers, bits)
        count = data.size // self.config.dram_elem_bytes(memory_type)
        self.simulator.memory.write(DATA_AT, data)
        base = DATA_AT // self.config.dram_elem_bytes(memory_type)
        self.run(
            [Load(memory_type=memory_type, sram_base=sram_base, dram_base=base, y_size=1, x_size=count, x_stride=count)]
        )

    def uops(self, *uops: Uop) -> None:
        """Put micro-ops at the beginning of their scratchpad."""
        self.fill(MemoryType.UOP, self.isa.encode_uops(uops).astype(np.int64))

    def read(self, memory_type: MemoryType) -> NDArray[np.int64]:
        """Return a scratchpad as int64 [depth][...]."""
        return self.simulator.scratchpad(memory_type).astype(np.int64)

    @property
    def acc(self) -> NDArray[np.int64]:
        """Accumulators [depth][batch][block_out]."""
        return self.read(MemoryType.ACC)

    @property
    def out(self) -> NDArray[np.int64]:
        """OUT [depth][batch][block_out]."""
        return self.read(MemoryType.OUT)


def wrap(numbers: ArrayLike, bits: int) -> NDArray[np.int64]:
    """Numbers modulo 2**bits, as two's complement."""
    values = np.asarray(numbers, np.int64) & ((1 << bits) - 1)
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
