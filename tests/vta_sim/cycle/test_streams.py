"""Instruction streams of other compilers on the cycle engine and on the compiled RTL: every counter, byte and token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vta_sim.cycle.cases import TimedCase
from tests.vta_sim.cycle.comparison import check, simulator
from tests.vta_sim.rtl.machines import Case
from tests.vta_sim.spec_model.stream import Stream
from tests.vta_sim.test_streams import RECORDED, SYNTHETIC, expect
from vta_hw.spec.config import VTAConfig
from vta_sim.timing import MemoryTiming

STREAMS = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in (*SYNTHETIC, *RECORDED)]
if not RECORDED:
    STREAMS.append(pytest.param(None, id="recorded", marks=pytest.mark.skip(reason="no ../shared/streams here")))
TIMINGS = (MemoryTiming(latency=20), MemoryTiming(latency=3, outstanding=2, read_bytes=4, stalls=0.2, seed=5))


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_takes_the_cycles_of_the_rtl(path: Path) -> None:
    stream = Stream.load(path)
    for timing in TIMINGS:
        case = Case(
            name=path.stem,
            config=VTAConfig.from_json(stream.vta_config),
            dram=stream.memory(),
            launches=(stream.insns,),
            insn_address=stream.free_address(),
            bases={},
            tokens_before=stream.tokens_before,
            timing=timing,
        )
        assert list(check(TimedCase(case=case, errors={}, has_results=True))) == []
        # The simulators are still as they were left.
        for name in ("cycle", "compiled"):
            memory = simulator(name, case.config, case.queue_depth, ()).memory
            for number, address in enumerate(stream.page_addr.tolist()):
                expect(stream, number, memory.read(address, 4096))
