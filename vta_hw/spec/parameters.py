"""The parameters of a configuration one by one: their words and bounds, and what refuses anything else (VTA spec 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ConfigError(ValueError):
    """A configuration that the instruction set cannot express, or a configuration file that is not one."""


class Multiplier(StrEnum):
    """What the products of the GEMM array are built of: DSP blocks, LUTs, or DSP blocks with two products each."""

    DSP = "dsp"
    LUT = "lut"
    PACKED = "packed"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The integers from `low` to `high`, and what they mean."""

    low: int
    high: int
    meaning: str


RANGES: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "log_inp_width": Range(low=2, high=4, meaning="inputs of 4, 8 or 16 bits"),
        "log_wgt_width": Range(low=2, high=4, meaning="weights of 4, 8 or 16 bits"),
        "log_acc_width": Range(low=5, high=5, meaning="accumulators of 32 bits"),
        "log_batch": Range(low=0, high=9, meaning="1 to 512 rows in a tile"),
        "log_block_in": Range(low=1, high=10, meaning="2 to 1024 input channels in a tile"),
        "log_block_out": Range(low=1, high=9, meaning="2 to 512 output channels in a tile"),
        "log_uop_buff_size": Range(low=0, high=32, meaning="the bytes of the micro-op buffer"),
        "log_inp_buff_size": Range(low=0, high=32, meaning="the bytes of the input buffer"),
        "log_wgt_buff_size": Range(low=0, high=32, meaning="the bytes of the weight buffer"),
        "log_acc_buff_size": Range(low=0, high=32, meaning="the bytes of the accumulator buffer"),
        "log_bus_width": Range(low=6, high=9, meaning="a memory bus of 64, 128, 256 or 512 bits"),
        "max_dsp": Range(low=0, high=65536, meaning="DSP blocks of the GEMM array, 0 for no limit"),
        "log_address_width": Range(low=5, high=6, meaning="byte addresses of 32 or 64 bits"),
    }
)
"""The bounds of every parameter that is a number; `VTAConfig` checks the combinations afterwards."""


def check_text(key: str, value: object, pattern: str, rule: str) -> None:
    """Refuse what is not a text that matches all of `pattern`."""
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise ConfigError(f"{key} must be {rule}, not {value!r}")


def check_choice(key: str, value: object, choices: type[StrEnum]) -> None:
    """Refuse what is not one of a few words."""
    if not isinstance(value, str) or value not in list(choices):
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, not {value!r}")


def check_flag(key: str, value: object) -> None:
    """Refuse what is not a truth value."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {value!r}")


def check_range(key: str, value: object, bounds: Range) -> None:
    """Refuse what is not an integer within `bounds`."""
    if isinstance(value, bool) or not isinstance(value, int) or not bounds.low <= value <= bounds.high:
        rule = f"{bounds.low}" if bounds.low == bounds.high else f"an integer from {bounds.low} to {bounds.high}"
        raise ConfigError(f"{key} must be {rule} ({bounds.meaning}), not {value!r}")


def check_at_most(subject: str, value: int, limit: int, reason: str) -> None:
    """Refuse a derived value above `limit`."""
    if value > limit:
        raise ConfigError(f"{subject} must be at most {limit} ({reason}), not {value}")
