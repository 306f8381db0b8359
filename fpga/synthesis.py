"""Synthesis of the accelerator, or of one of its blocks, with Yosys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

from amaranth.lib import wiring

from fpga.report import Family, Part, Resources, count, read_cells
from fpga.tools import YOSYS, recall
from vta_hw.rtl.verilog import TOP, convert, emit
from vta_hw.spec.config import VTAConfig

# What is synthesised is a block in a larger design: its ports are no pins, and its clock comes from elsewhere.
_COMMANDS: Final[Mapping[Family, str]] = MappingProxyType(
    {
        Family.ECP5: f"synth_ecp5 -top {TOP}",
        Family.XC7: f"synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {TOP}",
    }
)

_SOURCE: Final = "source.v"
_REPORT: Final = "report.json"


def synthesise(config: VTAConfig, part: Part, *, cache: Path | None = None) -> Resources:
    """Synthesise the accelerator for a part and return what it takes; a large one takes many minutes.

    cache: a folder for reports; what it has of the same Verilog and the same Yosys is not synthesised again.

    Raises `ToolMissing`, `ToolFailed`, and `ConfigError` for a configuration that cannot be built.
    """
    return _measure(emit(config), part, cache)


def synthesise_block(block: wiring.Component, part: Part) -> Resources:
    """Synthesise a component by itself; as `synthesise`."""
    return _measure(convert(block, TOP), part, None)


def _measure(source: str, part: Part, cache: Path | None) -> Resources:
    script = f"read_verilog {_SOURCE}; {_COMMANDS[part.family]}; tee -q -o {_REPORT} stat -json"
    # Kept before it is counted: a cell without a known cost shall not cost the minutes again.
    text = recall(cache, part.family, (source, script, YOSYS.version), lambda: _run_yosys(source, script))
    return count(part, read_cells(text))


def _run_yosys(source: str, script: str) -> str:
    """The text of the report that the script leaves."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _SOURCE).write_text(source, encoding="utf-8")
        YOSYS.run(["-q", "-p", script], folder)
        return (folder / _REPORT).read_text(encoding="utf-8")
