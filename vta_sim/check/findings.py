"""What the checker has to say about a program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vta_hw.spec.isa import MemoryType


class Severity(StrEnum):
    """ERROR: the program goes wrong, at least on some machine that keeps the rules. LINT: it is poor style, or not
    portable to every implementation of VTA."""

    ERROR = "error"
    LINT = "lint"


class Rule(StrEnum):
    """The rules of the checker, by the names under which findings are listed."""

    DEADLOCK = "deadlock"
    RACE = "race"
    OUT_OF_RANGE = "out-of-range"
    UNKNOWN_CODE = "unknown-code"
    MISSING_FINISH = "missing-finish"
    TOKENS_LEFT = "tokens-left"
    UNKNOWN_MICRO_OPS = "unknown-micro-ops"
    STALE_OUT = "stale-out"
    FINISH_BEFORE_OTHERS = "finish-before-others"
    MANY_TOKENS = "many-tokens"
    FLAG_WITHOUT_QUEUE = "flag-without-queue"
    STORE_PAD = "store-pad"
    UOP_ROWS = "uop-rows"
    WGT_PAD = "wgt-pad"
    SHIFT_RANGE = "shift-range"
    IMMEDIATE_SOURCE = "immediate-source"
    AFTER_FINISH = "after-finish"
    MICRO_OP_INDEX = "micro-op-index"
    DST_DISTANCE = "dst-distance"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An instruction of the program: its index, its text, and its layer if it is known to belong to one."""

    insn: int
    disassembly: str
    layer: str | None = None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" of layer {self.layer}"
        return f"instruction {self.insn} ({self.disassembly}){layer}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that the program breaks.

    sentence: what is wrong, without the place. place: the instruction at fault, None if it is the launch as a whole.
    """

    severity: Severity
    rule: Rule
    sentence: str
    place: Place | None = None

    def __str__(self) -> str:
        if self.place is None:
            return self.sentence
        text = f"{self.place}: {self.sentence}"
        return text[0].upper() + text[1:]


@dataclass(frozen=True, kw_only=True)
class Race(Finding):
    """Two instructions of different units that conflict, `other` being the earlier in the program.

    memory: the scratchpad, or None for DRAM. index: the element of the scratchpad, or the byte address, at which they
    meet; there may be more. queues: the token queues that a token is missing in, in the order of its way.
    """

    other: Place
    memory: MemoryType | None
    index: int
    queues: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.place} {self.sentence}"
        return text[0].upper() + text[1:]
