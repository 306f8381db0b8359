"""What a launch reports: counters for any range of its instructions, tokens left, hints."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from vta_hw.spec.program import Tokens
from vta_sim.functional.columns import Category, Columns, Hint
from vta_sim.functional.hints import SENTENCES


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counters of VTA spec 3.9, under the names of TVM's simulator, and the number of instructions.

    Load and store counters are bytes without pads; the GEMM counter leaves out resets; both count micro-op steps.
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
class Lint:
    """Instruction number `insn` of the launch does something that goes wrong on some VTA, told by `hint`."""

    insn: int
    hint: Hint

    def __str__(self) -> str:
        return f"Instruction {self.insn}: {SENTENCES[self.hint]}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a launch that ended well: `counters` of the whole, `tokens_left`, and `columns` by instruction."""

    counters: Statistics
    tokens_left: Tokens
    columns: Columns

    def statistics_of(self, begin: int, end: int) -> Statistics:
        """Return the counters of the instructions begin..end-1 of the launch."""
        return sum_columns(self.columns, begin, end)

    @property
    def lint(self) -> tuple[Lint, ...]:
        """What this launch does that goes wrong on some VTA, in the order of its instructions."""
        hints = self.columns.hints
        return tuple(
            Lint(insn=int(insn), hint=hint) for insn in np.flatnonzero(hints) for hint in Hint if hints[insn] & hint
        )


def sum_columns(columns: Columns, begin: int, end: int) -> Statistics:
    """Return the counters of the instructions begin..end-1; `ValueError` if there are no such instructions."""
    count = columns.category.size
    if not 0 <= begin <= end <= count:
        raise ValueError(f"Range of instructions must lie within 0..{count}, not {begin}..{end}")
    category, amount = columns.category[begin:end], columns.amount[begin:end]

    def total(which: Category) -> int:
        return int(amount[category == which].sum())

    return Statistics(
        inp_load_nbytes=total(Category.INP),
        wgt_load_nbytes=total(Category.WGT),
        acc_load_nbytes=total(Category.ACC),
        uop_load_nbytes=total(Category.UOP),
        out_store_nbytes=total(Category.OUT),
        gemm_counter=total(Category.GEMM),
        alu_counter=total(Category.ALU),
        insn_count=end - begin,
    )
