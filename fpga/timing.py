"""How fast a block runs in an ECP5: placed and routed by nextpnr."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fpga.report import ReportError
from fpga.tools import NEXTPNR_ECP5, YOSYS, recall
from vta_hw.rtl.verilog import TOP, convert

# The part of an ULX3S, in its slowest grade; a target out of reach, so that the tool goes on improving.
_NEXTPNR: Final = (
    *("--85k", "--package", "CABGA381", "--speed", "6"),
    *("--freq", "200", "--timing-allow-fail", "--seed", "1", "--quiet"),
    *("--json", "netlist.json", "--report", "report.json"),
)
_SYNTHESIS: Final = f"read_verilog source.v; synth_ecp5 -top {TOP} -json netlist.json"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What nextpnr says of a block with its harness: the highest frequency of its clock in MHz, and LUTs it takes."""

    mhz: float
    luts: int


class Harness(wiring.Component):
    """A block whose inputs are a shift register and whose outputs fold into another: three pins, whatever its ports.

    So every path of the block begins and ends in registers of the part, as in a larger design.
    """

    def __init__(self, block: wiring.Component) -> None:
        self._block = block
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.block = block = self._block
        inputs: list[Value] = []
        outputs: list[Value] = []
        for _, member, port in block.signature.flatten(block):
            (inputs if member.flow is In else outputs).append(Value.cast(port))
        given, seen = Signal(len(Cat(*inputs))), Signal(len(Cat(*outputs)))
        m.d.sync += [given.eq(Cat(self.i, given)), seen.eq(Cat(self.i, seen) ^ Cat(*outputs))]
        m.d.comb += [Cat(*inputs).eq(given), self.o.eq(seen[-1])]
        return m


def place_and_route(block: wiring.Component, *, cache: Path | None = None) -> Timing:
    """Place and route a component in the ECP5-85F of speed grade 6; a large one takes many minutes.

    cache: as for `fpga.synthesis.synthesise`. Raises `ToolMissing` and `ToolFailed`.
    """
    source = convert(Harness(block), TOP)
    inputs = (source, _SYNTHESIS, YOSYS.version, *_NEXTPNR, NEXTPNR_ECP5.version)
    return read_timing(recall(cache, "timing", inputs, lambda: _run(source)))


def _run(source: str) -> str:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source.v").write_text(source, encoding="utf-8")
        YOSYS.run(["-q", "-p", _SYNTHESIS], folder)
        NEXTPNR_ECP5.run(_NEXTPNR, folder)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        # Paths and delays, megabytes of them, are left out.
        return json.dumps({key: report[key] for key in ("fmax", "utilization")})


def read_timing(text: str) -> Timing:
    """Read a report of nextpnr; `ReportError` on any other text."""
    try:
        report = json.loads(text)
        (clock,) = report["fmax"].values()
        return Timing(mhz=float(clock["achieved"]), luts=int(report["utilization"]["TRELLIS_COMB"]["used"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError("report must be JSON of nextpnr, with the frequency of one clock and the LUTs") from error
