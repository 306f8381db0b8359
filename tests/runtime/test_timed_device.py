"""Amaranth's simulator as a device: the same program as on the functional device, patience, progress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.device import Bases
from runtime.devices.functional import FunctionalDevice
from runtime.devices.timed import TimedDevice
from runtime.errors import DeviceError, DeviceTimeout
from runtime.replay import Range, replay
from tests.vta.streams import OUTPUTS, code, raw_program, tensors
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.program import Tokens
from vta_sim.errors import CycleLimit, Deadlock, LeftoverTokens
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming

TINY = preset("tiny")
AT = 0x8000


def device_with(source: str, *, progress: list[int] | None = None, max_cycles: int = 100_000) -> TimedDevice:
    """A small machine with a program in its memory."""
    note = [] if progress is None else progress
    device = TimedDevice(AmaranthSimulator(TINY), step=100, max_cycles=max_cycles, progress=note.append)
    device.write(AT, np.frombuffer(code(TINY, source), np.uint8))
    return device


def test_a_raw_program_gives_what_the_functional_device_gives(tmp_path: Path) -> None:
    dumps = [Range(address=OUTPUTS, nbytes=48)]
    functional, _ = replay(FunctionalDevice(VTAConfig()), raw_program())
    simulator = AmaranthSimulator(VTAConfig(), timing=MemoryTiming(latency=3), vcd=tmp_path / "w.vcd", trace=True)
    with TimedDevice(simulator, step=100) as device:
        report, (output,) = replay(device, raw_program(), dumps=dumps)
    assert output.tobytes() == tensors()[2].tobytes()
    assert report.counters["gemm_uops"] == functional.counters["gemm_counter"]
    assert report.counters["wgt_bytes"] == functional.counters["wgt_load_nbytes"]
    assert report.counters_of(0, 9) == {}
    assert report.trace is not None
    assert report.trace.cycles == report.counters["cycle_count"]
    assert device.counters() == report.counters
    assert (tmp_path / "w.vcd").stat().st_size > 10_000


def test_launches_add_up_and_hand_on_what_they_leave() -> None:
    device = device_with("load.uop pop_next push_prev\nfinish\n")
    device.launch(AT, 2, bases=Bases.at(0x1000), tokens=Tokens(s2g=1), allow_leftover_tokens=True)
    first = device.wait()
    assert first.tokens_left == Tokens(g2l=1)
    device.launch(AT, 2, tokens=Tokens(s2g=2))
    with pytest.raises(LeftoverTokens, match=r"^Launch must leave no tokens, not 1 of g2l, 1 of s2g$"):
        device.wait()
    device.launch(AT, 2)
    with pytest.raises(Deadlock):
        device.wait()
    device.launch(AT, 2, tokens=Tokens(s2g=1), allow_leftover_tokens=True)
    assert device.wait().counters == first.counters
    assert device.counters() == {name: 2 * value for name, value in first.counters.items()}


def test_patience_and_progress() -> None:
    progress: list[int] = []
    device = device_with("alu.add uop_end=1 iter_out=1 iter_in=600 use_imm\nfinish", progress=progress)
    with pytest.raises(DeviceError, match=r"^Device must have been launched before it is waited for$"):
        device.wait()
    device.launch(AT, 2)
    with pytest.raises(DeviceTimeout, match=r"^Launch must finish within 1e-06 s, and has not$"):
        device.wait(1e-6)
    with pytest.raises(DeviceError, match=r"^Device must be idle, not running a launch that was not waited for$"):
        device.read(0, 1)
    assert device.wait(1e9).counters["alu_uops"] == 600
    assert progress == sorted(progress)
    assert 600 <= progress[-1] <= 900


def test_a_launch_that_never_ends_is_given_up() -> None:
    device = device_with("alu.add uop_end=1 iter_out=16383 iter_in=16383 use_imm\nfinish", max_cycles=300)
    device.launch(AT, 2)
    with pytest.raises(CycleLimit, match=r"^Launch must be over within 300 cycles, and is not$"):
        device.wait()
    device.write(AT, np.frombuffer(code(TINY, "finish"), np.uint8))
    device.launch(AT, 1)
    assert device.wait().counters["insn_compute"] == 1
