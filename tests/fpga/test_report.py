"""Counting cells in the units of a part."""

from __future__ import annotations

import json
import re

import pytest

from fpga.report import PARTS, Part, ReportError, Resources, count, find_part, read_cells

ECP5 = PARTS["ecp5-85f"]
ZYNQ = PARTS["zynq-7020"]


def stat(cells: object) -> str:
    return json.dumps({"creator": "Yosys", "modules": {}, "design": {"num_cells": 0, "num_cells_by_type": cells}})


def taken(resources: Resources) -> tuple[int, int, int, int]:
    return resources.luts, resources.ffs, resources.dsps, resources.brams


def test_ecp5_counts_carries_and_lut_ram_as_luts() -> None:
    cells = {
        "LUT4": 100,
        "CCU2C": 10,
        "TRELLIS_DPR16X4": 2,
        "PFUMX": 7,
        "L6MUX21": 3,
        "TRELLIS_FF": 50,
        "$scopeinfo": 9,
    }
    assert taken(count(ECP5, {**cells, "MULT18X18D": 4, "DP16KD": 5, "PDPW16KD": 1})) == (132, 50, 4, 6)


def test_xc7_counts_lut_ram_and_shift_registers_as_luts() -> None:
    luts = {"LUT1": 1, "LUT2": 2, "LUT6": 3, "INV": 4, "RAM32M": 5, "RAM64X1D": 6, "SRL16E": 7}
    others = {"CARRY4": 9, "MUXF7": 9, "FDRE": 10, "FDSE": 1, "DSP48E1": 8}
    assert taken(count(ZYNQ, {**luts, **others})) == (49, 11, 8, 0)


def test_half_block_rams_are_rounded_up() -> None:
    assert [count(ZYNQ, {"RAMB36E1": 2, "RAMB18E1": halves}).brams for halves in range(4)] == [2, 3, 3, 4]


@pytest.mark.parametrize(
    ("part", "cell"), [(ECP5, "LUT6"), (ZYNQ, "TRELLIS_FF"), (ECP5, "$mul"), (ZYNQ, "$__soft_mul")]
)
def test_a_cell_of_no_known_cost_is_refused(part: Part, cell: str) -> None:
    message = f"cell must be one of family {part.family}, not {cell!r}"
    with pytest.raises(ReportError, match=re.escape(message)):
        count(part, {cell: 1})


def test_what_is_lacking() -> None:
    full = Resources(part=ZYNQ, luts=53_200, ffs=106_400, dsps=220, brams=140)
    assert (full.fits, full.lacking, set(full.utilisation.values())) == (True, (), {1.0})
    beyond = Resources(part=ZYNQ, luts=26_600, ffs=0, dsps=221, brams=280)
    assert (beyond.fits, beyond.lacking) == (False, ("dsps", "brams"))
    assert beyond.utilisation == {"luts": 0.5, "ffs": 0, "dsps": 221 / 220, "brams": 2}


def test_parts_by_name() -> None:
    assert find_part("zynq-7020") is ZYNQ
    with pytest.raises(ReportError, match=r"^part must be one of ecp5-85f, zynq-7020, not 'ice40'$"):
        find_part("ice40")


def test_cells_of_a_report() -> None:
    assert read_cells(stat({"LUT4": 3, "TRELLIS_FF": 0})) == {"LUT4": 3, "TRELLIS_FF": 0}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"design": []}', '{"design": {}}', '{"design": null}'])
def test_a_text_that_is_no_report_is_refused(text: str) -> None:
    message = "report must be JSON of Yosys's stat, with the cells of the design by type"
    with pytest.raises(ReportError, match=f"^{re.escape(message)}$"):
        read_cells(text)


@pytest.mark.parametrize("cells", [[], None, {"LUT4": "3"}, {"LUT4": 3.5}, {"LUT4": True}])
def test_cells_that_are_not_counted_are_refused(cells: object) -> None:
    with pytest.raises(ReportError, match=r"^report must have a number for each type of cell$"):
        read_cells(stat(cells))
