"""Synthesis: what Yosys infers from small blocks, and what is kept of its reports."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from fpga import synthesis, tools
from fpga.report import PARTS, Part, ReportError
from fpga.synthesis import synthesise, synthesise_block
from fpga.tools import ToolFailed, ToolMissing
from vta_hw.rtl.gemm import GemmArray
from vta_hw.rtl.requant import Requant
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.spec.config import VTAConfig, preset

ECP5 = PARTS["ecp5-85f"]
ZYNQ = PARTS["zynq-7020"]


# 2 input and 2 output channels: 4 products, 2 lanes.
SMALL = VTAConfig(
    log_block_in=1, log_block_out=1, log_inp_buff_size=8, log_wgt_buff_size=9, log_acc_buff_size=10, log_uop_buff_size=8
)


@pytest.mark.parametrize(("part", "brams"), [(ECP5, 4 * 2), (ZYNQ, 2 * 2)], ids=["ecp5", "xc7"])
def test_scratchpads_become_block_ram(part: Part, brams: int) -> None:
    # 512 elements of 128 bits that are written in halves, for two readers, each with a copy.
    geometry = Geometry(elem_bits=128, depth=512, banks=1, granules=2)
    taken = synthesise_block(Scratchpad(geometry, readers=2, transparent=True), part)
    assert (taken.brams, taken.dsps) == (brams, 0)
    # What was written in the cycle of the read, and little more: the memory itself has 65,536 bits.
    assert taken.ffs < 2 * (128 + 16)


@pytest.mark.parametrize(
    ("part", "options", "dsps"),
    [
        (ECP5, {"multiplier": "dsp"}, 4),
        (ECP5, {"multiplier": "dsp", "max_dsp": 2}, 2),
        (ZYNQ, {"multiplier": "packed"}, 2),
        (ZYNQ, {"multiplier": "lut"}, 0),
    ],
)
def test_products_take_the_dsps_they_are_given(part: Part, options: dict[str, Any], dsps: int) -> None:
    assert synthesise_block(GemmArray(replace(SMALL, **options)), part).dsps == dsps


def test_requantisation_takes_two_dsp48_for_each_lane() -> None:
    assert synthesise_block(Requant(SMALL), ZYNQ).dsps == 2 * 2


class Yosys:
    """Stands in for Yosys: counts its runs, and leaves the report it is given."""

    def __init__(self, cells: dict[str, int]) -> None:
        self.report = json.dumps({"design": {"num_cells_by_type": cells}})
        self.scripts: list[str] = []

    def __call__(self, source: str, script: str) -> str:
        self.scripts.append(script)
        return self.report


@pytest.fixture
def yosys(monkeypatch: pytest.MonkeyPatch) -> Yosys:
    stand_in = Yosys({"DSP48E1": 3, "FDRE": 2})
    monkeypatch.setattr(synthesis, "_run_yosys", stand_in)
    monkeypatch.setattr(synthesis, "emit", VTAConfig.to_json)
    return stand_in


def test_the_same_verilog_is_synthesised_once(yosys: Yosys, tmp_path: Path) -> None:
    config, folder = preset("tiny"), tmp_path / "reports"
    first = synthesise(config, ZYNQ, cache=folder)
    assert (first.dsps, first.ffs) == (3, 2)
    assert synthesise(config, ZYNQ, cache=folder) == first
    assert len(yosys.scripts) == 1


def test_without_a_folder_nothing_is_kept(yosys: Yosys) -> None:
    for _ in range(2):
        synthesise(preset("tiny"), ZYNQ)
    assert len(yosys.scripts) == 2


def test_another_design_family_or_yosys_is_synthesised_again(
    yosys: Yosys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesise(preset("tiny"), ZYNQ, cache=tmp_path)
    synthesise(preset("sim"), ZYNQ, cache=tmp_path)
    yosys.report = json.dumps({"design": {"num_cells_by_type": {"LUT4": 1}}})
    assert synthesise(preset("tiny"), ECP5, cache=tmp_path).luts == 1
    yosys.report = json.dumps({"design": {"num_cells_by_type": {"LUT6": 5}}})
    monkeypatch.setattr(tools, "version", lambda package: "0.1")
    assert synthesise(preset("tiny"), ZYNQ, cache=tmp_path).luts == 5
    assert [script.count("synth_ecp5") for script in yosys.scripts] == [0, 0, 1, 0]


def test_a_report_that_took_minutes_is_kept_though_a_cell_is_unknown(yosys: Yosys, tmp_path: Path) -> None:
    yosys.report = json.dumps({"design": {"num_cells_by_type": {"$mul": 1}}})
    for _ in range(2):
        with pytest.raises(ReportError, match=r"^cell must be one of family xc7, not '\$mul'$"):
            synthesise(preset("tiny"), ZYNQ, cache=tmp_path)
    assert len(yosys.scripts) == 1


def test_a_wheel_that_is_not_installed(yosys: Yosys, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(tools, "version", version)
    with pytest.raises(ToolMissing, match=r"^Yosys must be installed: pip install vta-toolkit\[fpga\]$"):
        synthesise(preset("tiny"), ECP5)


def test_what_yosys_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "emit", lambda config: "module vta; wibble wobble; endmodule")
    with pytest.raises(ToolFailed, match=r"^Yosys must accept the design: source.v:1: ERROR: syntax error"):
        synthesise(preset("tiny"), ECP5)
