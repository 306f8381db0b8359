"""Recorded instruction streams on the RTL, byte for byte: those that take few cycles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vta_sim.rtl.machines import Case, check, simulator
from tests.vta_sim.spec_model import pipeline
from tests.vta_sim.spec_model.stream import Stream
from tests.vta_sim.test_streams import RECORDED, SYNTHETIC, exec_arguments, expect, expect_dumps
from vta_hw.spec.config import VTAConfig
from vta_sim.timing import MemoryTiming

SHORT_RECORDED = ("unit_", "tutorial_", "onera_")

SHORT = [pytest.param(path, id=path.stem) for path in SYNTHETIC if path.stem == "int4_batch2"]
SHORT += [
    pytest.param(path, id=f"{path.parent.name}-{path.stem}")
    for path in RECORDED
    if path.parent.name.startswith(SHORT_RECORDED)
]
no_streams = pytest.mark.skipif(not RECORDED, reason="no ../shared/streams here")
if not RECORDED:
    SHORT.append(pytest.param(None, id="recorded", marks=no_streams))


@pytest.mark.parametrize("path", SHORT)
def test_streams(path: Path) -> None:
    stream = Stream.load(path)
    case = Case(
        name=path.stem,
        config=VTAConfig.from_json(stream.vta_config),
        dram=stream.memory(),
        launches=(stream.insns,),
        insn_address=stream.free_address(),
        bases={},
        tokens_before=stream.tokens_before,
        timing=MemoryTiming(latency=10),
    )
    assert list(check(case)) == []
    # The simulator is still as `check` left it, and the recording knows nothing of the other one.
    memory = simulator(case.config).memory
    for number, address in enumerate(stream.page_addr.tolist()):
        expect(stream, number, memory.read(address, 4096))


@no_streams
def test_vta_exec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vta.cli import main

    path = next(path for path in RECORDED if path.parent.name == "unit_padded_load")
    stream = Stream.load(path)
    arguments, dumps = exec_arguments(stream, tmp_path, engine="amaranth")
    with pytest.raises(SystemExit) as leave:
        main([*arguments, "--vcd", str(tmp_path / "wave.vcd")])
    printed = capsys.readouterr()
    assert leave.value.code == 0, printed.err
    expect_dumps(stream, dumps)
    figures = json.loads(printed.out)
    assert figures["instructions"] == len(stream.insns)
    assert figures["tokens_left"] == dict(zip(pipeline.QUEUES, stream.tokens_after or (0, 0, 0, 0), strict=True))
    with (tmp_path / "wave.vcd").open() as wave:
        assert any("m_axi_arvalid" in line for line in wave)
