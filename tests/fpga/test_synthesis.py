"""Synthesis: what Yosys infers from small blocks, and what is kept of its reports."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fpga import synthesis
from fpga.report import PARTS, Part, ReportError
from fpga.synthesis import ToolFailed, ToolMissing, synthesise, synthesise_block, yosys_version
from vta_hw.spec.config import VTAConfig, preset

ECP5 = PARTS["ecp5-85f"]
ZYNQ = PARTS["zynq-7020"]


class Scaled(wiring.Component):
    """A memory of 512 words of 32 bits, of which one is read and its low half multiplied in every cycle."""

    def __init__(self) -> None:
        super().__init__(
            {
                "write_addr": In(9),
                "write_data": In(32),
                "write_en": In(1),
                "addr": In(9),
                "factor": In(signed(16)),
                "o": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=512, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data),
            write.en.eq(self.write_en),
            read.addr.eq(self.addr),
        ]
        m.d.sync += self.o.eq(read.data[:16].as_signed() * self.factor)
        return m


@pytest.mark.parametrize("part", [ECP5, ZYNQ], ids=lambda part: part.name)
def test_memories_become_block_ram_and_products_dsps(part: Part) -> None:
    taken = synthesise_block(Scaled(), part)
    assert taken.part is part
    assert (taken.dsps, taken.brams) == (1, 1)
    # Those of the product; the words as registers would be 16,384.
    assert taken.ffs <= 64


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
    monkeypatch.setattr(synthesis, "version", lambda package: "0.1")
    assert synthesise(preset("tiny"), ZYNQ, cache=tmp_path).luts == 5
    assert [script.count("synth_ecp5") for script in yosys.scripts] == [0, 0, 1, 0]


def test_a_report_that_took_minutes_is_kept_though_a_cell_is_unknown(yosys: Yosys, tmp_path: Path) -> None:
    yosys.report = json.dumps({"design": {"num_cells_by_type": {"$mul": 1}}})
    for _ in range(2):
        with pytest.raises(ReportError, match=r"^cell must be one of family xc7, not '\$mul'$"):
            synthesise(preset("tiny"), ZYNQ, cache=tmp_path)
    assert len(yosys.scripts) == 1


def test_a_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(synthesis, "version", version)
    with pytest.raises(ToolMissing, match=r"^Synthesis needs Yosys: pip install vta-toolkit\[fpga\]$"):
        yosys_version()


def test_what_yosys_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "emit", lambda config: "module vta; wibble wobble; endmodule")
    with pytest.raises(ToolFailed, match=r"^Yosys must accept the accelerator: source.v:1: ERROR: syntax error"):
        synthesise(preset("tiny"), ECP5)
