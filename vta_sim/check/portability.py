"""What is allowed here and goes wrong on some VTA (VTA spec 11.15)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_sim.check.findings import Rule
from vta_sim.check.touches import Fields, Touch
from vta_sim.functional.columns import HINT_IMMEDIATE_SOURCE
from vta_sim.functional.lint import Hint, find_lint

CHISEL_MICRO_OPS: Final = 2048
CHISEL_TOKENS: Final = 255
HLS_DISTANCE: Final = 3

_RULES: Final[Mapping[Hint, Rule]] = MappingProxyType(
    {
        Hint.FLAG_WITHOUT_QUEUE: Rule.FLAG_WITHOUT_QUEUE,
        Hint.STORE_PAD: Rule.STORE_PAD,
        Hint.UOP_ROWS: Rule.UOP_ROWS,
        Hint.WGT_PAD: Rule.WGT_PAD,
        Hint.SHIFT_RANGE: Rule.SHIFT_RANGE,
        Hint.IMMEDIATE_SOURCE: Rule.IMMEDIATE_SOURCE,
        Hint.STORE_OF_LOADED: Rule.STALE_OUT,
        Hint.AFTER_FINISH: Rule.AFTER_FINISH,
    }
)


def breaches(rows: NDArray[np.void], other_source: NDArray[np.bool_]) -> Iterator[tuple[int, Rule, str]]:
    """(instruction, rule, sentence) that the fields of a launch show.

    rows: of `ISA.decode_fields`, [N]. other_source: immediate ALU instructions whose src is not their dst, bool [N].
    """
    found = np.where(other_source, HINT_IMMEDIATE_SOURCE, 0).astype(np.uint8)
    for lint in find_lint(rows, found):
        yield lint.insn, _RULES[lint.hint], lint.hint.value


def breaches_of(insn: Fields, touch: Touch) -> Iterator[tuple[Rule, str]]:
    """(rule, sentence) that one instruction shows together with its micro-ops."""
    if insn.steps and insn.uop_end > CHISEL_MICRO_OPS:
        sentence = f"micro-op index must be below {CHISEL_MICRO_OPS}, not {insn.uop_end - 1}; Chisel has no more"
        yield Rule.MICRO_OP_INDEX, sentence
    if touch.near is not None:
        sentence = (
            f"steps with the same dst must be {HLS_DISTANCE} or more apart, not {touch.near}; HLS loses sums there"
        )
        yield Rule.DST_DISTANCE, sentence
