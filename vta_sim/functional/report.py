"""What a launch reports: counters for any range of its instructions, tokens left, lint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Opcode, codes_of
from vta_hw.spec.program import Tokens
from vta_sim.functional.lint import Lint, find_lint


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counters of VTA spec 3.9, under the names of TVM's simulator, and the number of instructions.

    Load and store counters are bytes without pads, 8-bit accumulators as wide as others; gemm_counter and alu_counter
    are micro-op steps, without those of a reset.
    """

    inp_load_nbytes: int = 0
    wgt_load_nbytes: int = 0
    acc_load_nbytes: int = 0
    uop_load_nbytes: int = 0
    out_store_nbytes: int = 0
    gemm_counter: int = 0
    alu_counter: int = 0
    insn_count: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        """Return the sum, counter by counter."""
        sums = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Statistics(**sums)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a launch that ended well: `tokens_left` in the queues, counters and lint.

    `words` are its instructions, uint64 [N][2], and `hints` what execution found out about them, uint8 [N].
    """

    config: VTAConfig
    words: NDArray[np.uint64]
    hints: NDArray[np.uint8]
    tokens_left: Tokens

    @cached_property
    def counters(self) -> Statistics:
        """Counters of the whole launch."""
        return self.statistics_of(0, len(self.words))

    def statistics_of(self, begin: int, end: int) -> Statistics:
        """Return the counters of the instructions begin..end-1; `ValueError` if there are no such instructions."""
        count = len(self.words)
        if not 0 <= begin <= end <= count:
            raise ValueError(f"Range of instructions must lie within 0..{count}, not {begin}..{end}")
        return count_work(self.config, self.words[begin:end])

    @cached_property
    def lint(self) -> tuple[Lint, ...]:
        """What this launch does that goes wrong on some VTA, in the order of its instructions."""
        return find_lint(ISA(self.config).decode_fields(self.words), self.hints)


def count_work(config: VTAConfig, words: NDArray[np.uint64]) -> Statistics:
    """Return the counters of instructions, uint64 [N][2], all of which are executed."""
    rows = ISA(config).decode_fields(words)
    opcode, memory_type = rows["opcode"], rows["memory_type"]
    elements = rows["x_size"] * rows["y_size"]
    steps = rows["iter_out"] * rows["iter_in"] * np.maximum(rows["uop_end"] - rows["uop_bgn"], 0)
    loads = opcode == Opcode.LOAD
    acc_types = [code for code in codes_of(MemoryType, config.isa) if code.scratchpad is MemoryType.ACC]
    of_acc = np.isin(memory_type, acc_types)
    multiplies = ((opcode == Opcode.GEMM) & (rows["reset"] == 0)) | (opcode == Opcode.GEMM_OVERWRITE)
    return Statistics(
        inp_load_nbytes=_total(elements, loads & (memory_type == MemoryType.INP)) * config.inp_elem_bytes,
        wgt_load_nbytes=_total(elements, loads & (memory_type == MemoryType.WGT)) * config.wgt_elem_bytes,
        acc_load_nbytes=_total(elements, loads & of_acc) * config.acc_elem_bytes,
        uop_load_nbytes=_total(elements, loads & (memory_type == MemoryType.UOP)) * config.uop_elem_bytes,
        out_store_nbytes=_total(elements, opcode == Opcode.STORE) * config.out_elem_bytes,
        gemm_counter=_total(steps, multiplies),
        alu_counter=_total(steps, opcode == Opcode.ALU),
        insn_count=len(words),
    )


def _total(amounts: NDArray[np.int64], chosen: NDArray[np.bool_]) -> int:
    return int(amounts[chosen].sum())
