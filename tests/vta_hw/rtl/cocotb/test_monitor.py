"""The monitor of the memory port finds nothing in a trace that is right, and every rule that is broken."""

from __future__ import annotations

import re

import pytest

from tests.vta_hw.rtl.cocotb.footprint import Footprint
from tests.vta_hw.rtl.cocotb.monitor import PAYLOADS, AxiMonitor
from vta_hw.spec.config import preset

Trace = list[dict[str, int]]

ADDRESS = {"size": 3, "burst": 1, "lock": 0, "cache": 3, "prot": 0, "qos": 0}


def idle() -> dict[str, int]:
    wires = {"rst": 0}
    for channel, payload in PAYLOADS.items():
        wires |= {f"{channel}valid": 0, f"{channel}ready": 0} | {channel + part: 0 for part in payload}
    return wires


def show(channel: str, ready: int, **payload: int) -> dict[str, int]:
    constants = ADDRESS if channel in ("ar", "aw") else {}
    values = {channel + part: value for part, value in (constants | payload).items()}
    return {f"{channel}valid": 1, f"{channel}ready": ready} | values


def trace() -> Trace:
    """Reset; a read of two words that waits for AR and, of its first word, for R; a write whose data comes first."""
    cycles = [
        {"rst": 1},
        {"rst": 1},
        show("ar", 0, addr=0x1000, len=1, id=2),
        show("ar", 1, addr=0x1000, len=1, id=2) | show("w", 0, data=5, strb=0xF0, last=0),
        show("r", 0, data=7, id=2, last=0) | show("w", 1, data=5, strb=0xF0, last=0),
        show("r", 1, data=7, id=2, last=0) | show("w", 1, data=6, strb=0x0F, last=1),
        show("r", 1, data=8, id=2, last=1) | show("aw", 0, addr=0x2010, len=1, id=0),
        show("aw", 1, addr=0x2010, len=1, id=0),
        show("b", 0, id=0),
        show("b", 1, id=0),
    ]
    return [idle() | cycle for cycle in cycles]


def watch(cycles: Trace) -> list[str]:
    monitor = AxiMonitor(preset("tiny"))
    monitor.reads, monitor.writes = Footprint(), Footprint()
    monitor.reads.add(0x1004, 5)
    monitor.writes.add(0x2014, 8)
    for wires in cycles:
        monitor.step(wires)
    monitor.finish()
    return monitor.violations


def test_a_correct_trace() -> None:
    assert watch(trace()) == []


# Cycles from 0, what is different in them, and what the monitor says, whose cycles count from 1.
PLANTED: list[tuple[tuple[int, ...], dict[str, int], list[str]]] = [
    ((1,), {"awvalid": 1}, ["cycle 2: AWVALID must be low during reset"]),
    ((6,), {"awlen": 2}, ["cycle 8: AWLEN must not change until AWREADY"]),
    ((4,), {"wstrb": 0x70}, ["cycle 5: WSTRB must not change until WREADY"]),
    ((5,), {"rdata": 9, "rresp": 2}, ["cycle 6: RDATA, RRESP must not change until RREADY"]),
    ((9,), {"bresp": 2}, ["cycle 10: BRESP must not change until BREADY"]),
    ((7,), {"awqos": 1}, ["cycle 8: AWQOS must not change until AWREADY"]),
    ((3,), {"arvalid": 0, "arready": 0}, ["cycle 4: ARVALID must stay until ARREADY", *["RID"] * 2]),
    ((7,), {"awvalid": 0}, ["cycle 8: AWVALID must stay until AWREADY", "BID", "every"]),
    ((4,), {"wvalid": 0}, ["cycle 5: WVALID must stay until WREADY", "WLAST", "WSTRB"]),
    ((5,), {"rvalid": 0}, ["cycle 6: RVALID must stay until RREADY", "RLAST", "every"]),
    ((9,), {"bvalid": 0}, ["cycle 10: BVALID must stay until BREADY", "every"]),
    ((2, 3), {"arburst": 2}, ["cycle 3: ARBURST of the burst at 0x1000 must be 1, not 2"]),
    ((2, 3), {"arsize": 2}, ["cycle 3: ARSIZE of the burst at 0x1000 must be 3, not 2"]),
    ((2, 3), {"arqos": 1}, ["cycle 3: ARQOS of the burst at 0x1000 must be 0, not 1"]),
    ((6, 7), {"awlock": 1}, ["cycle 7: AWLOCK of the burst at 0x2010 must be 0, not 1"]),
    ((6, 7), {"awcache": 15}, ["cycle 7: AWCACHE of the burst at 0x2010 must be 3, not 15"]),
    ((6, 7), {"awprot": 2}, ["cycle 7: AWPROT of the burst at 0x2010 must be 0, not 2"]),
    ((6, 7), {"awid": 1}, ["cycle 7: AWID of the burst at 0x2010 must be 0, not 1", "BID", "every"]),
    ((2, 3), {"arid": 3}, ["cycle 3: ARID of the burst at 0x1000 must be 0 or 1 or 2, not 3", *["RID"] * 2, "every"]),
    ((6, 7), {"awaddr": 0x2014}, ["cycle 7: AWADDR must be a multiple of 8, not 0x2014", "WSTRB"]),
    ((2, 3), {"araddr": 0xFF8}, ["cycle 3: AR burst at 0xff8 must not cross 4096 bytes with 2 words", "AR must ask"]),
    (
        (6, 7),
        {"awaddr": 0x2FF8},
        ["cycle 7: AW burst at 0x2ff8 must not cross 4096 bytes with 2 words", *["WSTRB"] * 2],
    ),
    (
        (2, 3),
        {"arlen": 2},
        ["cycle 3: AR must ask for what is needed, not for word 2 of the burst at 0x1000", "RLAST", "every"],
    ),
    (
        (2, 3),
        {"arlen": 16},
        ["cycle 3: ARLEN of the burst at 0x1000 must be below 16, not 16", *["AR must ask"] * 15, "RLAST", "every"],
    ),
    ((6,), {"rlast": 0}, ["cycle 7: RLAST of the burst at 0x1000 must be 1"]),
    ((4, 5), {"rlast": 1}, ["cycle 6: RLAST of the burst at 0x1000 must be 0"]),
    ((8,), {"rvalid": 1, "rready": 1, "rid": 2}, ["cycle 9: RID must be that of a burst, not 2"]),
    ((6,), {"bvalid": 1, "bready": 1}, ["cycle 7: BID must be that of a complete write, not 0"]),
    ((6, 7), {"awlen": 2}, ["cycle 8: WLAST of the burst at 0x2010 must be in word 3, not 2"]),
    ((3, 4), {"wlast": 1}, ["cycle 8: WLAST of the burst at 0x2010 must be in word 2, not 1", "every"]),
    ((3, 4), {"wstrb": 0xF8}, ["cycle 8: WSTRB at 0x2010 must not reach beyond what is stored, as 0xf8 does"]),
    ((5,), {"wstrb": 0x1F}, ["cycle 8: WSTRB at 0x2018 must not reach beyond what is stored, as 0x1f does"]),
    (
        (7, 8, 9),
        {"awvalid": 0, "awready": 0, "bvalid": 0},
        ["cycle 8: AWVALID must stay until AWREADY", "every"],
    ),
]


@pytest.mark.parametrize(("cycles", "values", "sentences"), PLANTED)
def test_planted_violations(cycles: tuple[int, ...], values: dict[str, int], sentences: list[str]) -> None:
    """The first sentence is the rule that was broken; of those that follow from it the first words are given."""
    planted = trace()
    for cycle in cycles:
        planted[cycle] |= values
    found = watch(planted)
    assert found[0] == sentences[0]
    assert [
        re.sub(r"^cycle \d+: ", "", line)[: len(begin)] for line, begin in zip(found[1:], sentences[1:], strict=True)
    ] == sentences[1:]


def test_words_without_end() -> None:
    words = [idle() | show("w", 1, data=0, strb=0, last=0) for _ in range(16)]
    assert watch(words)[0] == "cycle 16: WLAST must come within 16 words"


def test_a_reset_forgets() -> None:
    cycles = trace()
    assert watch([*cycles[:5], idle() | {"rst": 1}, *cycles]) == []
