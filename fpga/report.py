"""What a design takes of an FPGA: the cells that Yosys counts, in the units of the part's data sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Final


class ReportError(ValueError):
    """A report of a tool that is not what this module reads; the message is one sentence."""


class Family(StrEnum):
    """A family of FPGAs, by the name Yosys has for it."""

    ECP5 = "ecp5"
    XC7 = "xc7"


RESOURCES: Final = ("luts", "ffs", "dsps", "brams")
"""What is counted: lookup tables, registers, multipliers, block RAMs."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """An FPGA and what it has: LUTs of four inputs (ECP5) or six (xc7), MULT18X18D or DSP48E1, DP16KD or RAMB36E1.

    source: where the numbers come from.
    """

    name: str
    family: Family
    luts: int
    ffs: int
    dsps: int
    brams: int
    source: str


PARTS: Final[Mapping[str, Part]] = MappingProxyType(
    {
        part.name: part
        for part in (
            Part(
                name="ecp5-85f",
                family=Family.ECP5,
                luts=83_640,
                ffs=83_640,
                dsps=156,
                brams=208,
                source="LFE5U-85F as nextpnr-ecp5 counts it; Lattice FPGA-DS-02012, table 1.1, rounds the LUTs to 84 K",
            ),
            Part(
                name="zynq-7020",
                family=Family.XC7,
                luts=53_200,
                ffs=106_400,
                dsps=220,
                brams=140,
                source="Z-7020 in AMD DS190, table 1; block RAM of 36 Kb",
            ),
        )
    }
)
"""Parts by name."""


def find_part(name: str) -> Part:
    """Return a part; `ReportError` lists the names there are."""
    if name not in PARTS:
        raise ReportError(f"part must be one of {', '.join(PARTS)}, not {name!r}")
    return PARTS[name]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a design takes of a part; carries and LUT RAM count as the LUTs they use, two RAMB18E1 as one RAMB36E1."""

    part: Part
    luts: int
    ffs: int
    dsps: int
    brams: int

    @property
    def utilisation(self) -> Mapping[str, float]:
        """For each of `RESOURCES` the fraction of the part's that is taken, above 1 for what does not fit."""
        return {name: getattr(self, name) / getattr(self.part, name) for name in RESOURCES}

    @property
    def lacking(self) -> tuple[str, ...]:
        """Those of `RESOURCES` of which the part has too few."""
        return tuple(name for name, share in self.utilisation.items() if share > 1)

    @property
    def fits(self) -> bool:
        """Whether the part has enough of everything; places and routes it may still lack."""
        return not self.lacking


def _cost(*, luts: int = 0, ffs: int = 0, dsps: int = 0, brams: Fraction | int = 0) -> Mapping[str, Fraction | int]:
    return {"luts": luts, "ffs": ffs, "dsps": dsps, "brams": brams}


# Between modules that were flattened a cell that is no hardware remembers what belonged together.
_FREE: Final = _cost()
_SCOPE: Final = "$scopeinfo"

# A carry cell has two LUTs of its own; a RAM of 16x4 bits is written through two LUTs beside the four that hold it.
# Both as nextpnr-ecp5 counts them. PFUMX and L6MUX21 lie between LUTs.
_ECP5: Final = {
    "LUT4": _cost(luts=1),
    "CCU2C": _cost(luts=2),
    "TRELLIS_DPR16X4": _cost(luts=6),
    "TRELLIS_FF": _cost(ffs=1),
    "MULT18X18D": _cost(dsps=1),
    "DP16KD": _cost(brams=1),
    "PDPW16KD": _cost(brams=1),
    **dict.fromkeys(("PFUMX", "L6MUX21", _SCOPE), _FREE),
}

# AMD UG474: LUT RAM and shift registers by the LUTs of a SLICEM. CARRY4 and the wide multiplexers lie between LUTs.
_XC7: Final = {
    **{f"LUT{inputs}": _cost(luts=1) for inputs in range(1, 7)},
    "INV": _cost(luts=1),
    "RAM32X1D": _cost(luts=2),
    "RAM64X1D": _cost(luts=2),
    "RAM128X1D": _cost(luts=4),
    "RAM32M": _cost(luts=4),
    "RAM64M": _cost(luts=4),
    "SRL16E": _cost(luts=1),
    "SRLC32E": _cost(luts=1),
    **{name: _cost(ffs=1) for name in ("FDRE", "FDSE", "FDCE", "FDPE")},
    "DSP48E1": _cost(dsps=1),
    "RAMB18E1": _cost(brams=Fraction(1, 2)),
    "RAMB36E1": _cost(brams=1),
    **dict.fromkeys(("CARRY4", "MUXF7", "MUXF8", "GND", "VCC", _SCOPE), _FREE),
}

_COSTS: Final[Mapping[Family, Mapping[str, Mapping[str, Fraction | int]]]] = {Family.ECP5: _ECP5, Family.XC7: _XC7}


def count(part: Part, cells: Mapping[str, int]) -> Resources:
    """Add up cells by type; `ReportError` on a type that the part's family does not have."""
    costs = _COSTS[part.family]
    totals: dict[str, Fraction | int] = dict.fromkeys(RESOURCES, 0)
    for kind, number in cells.items():
        if kind not in costs:
            raise ReportError(f"cell must be one of family {part.family}, not {kind!r}")
        for name, each in costs[kind].items():
            totals[name] += number * each
    return Resources(part=part, **{name: ceil(total) for name, total in totals.items()})


def read_cells(text: str) -> Mapping[str, int]:
    """Return the cells by type of a report of Yosys's ``stat -json``; `ReportError` on any other text."""
    try:
        cells = json.loads(text)["design"]["num_cells_by_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError("report must be JSON of Yosys's stat, with the cells of the design by type") from error
    if not isinstance(cells, dict) or not all(type(number) is int for number in cells.values()):
        raise ReportError("report must have a number for each type of cell")
    return cells
