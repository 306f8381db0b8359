"""Memory and launches of the devices, and the allocator below them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from runtime.arena import Arena
from runtime.device import Bases
from runtime.devices.background import Background
from runtime.devices.functional import FunctionalDevice
from runtime.devices.host import HostDevice
from runtime.errors import DeviceError, DeviceTimeout
from runtime.replay import Range, replay
from tests.runtime.fake import FakeDevice
from tests.vta.streams import OUTPUTS, code, raw_program, tensors
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Tokens
from vta_sim.errors import LeftoverTokens


def test_first_fit_with_alignment_and_reuse() -> None:
    arena = Arena(0x1000, 0x5000)
    first, second, third = arena.allocate(0x10, 0x1000), arena.allocate(0x800, 16), arena.allocate(0x1000, 0x1000)
    assert (first, second, third) == (0x1000, 0x1010, 0x2000)
    assert arena.free(second) == 0x800
    assert arena.allocate(0x900, 16) == 0x1010
    assert arena.allocate(0x600, 16) == 0x1910
    assert arena.allocate(0x2000, 16) == 0x3000


@pytest.mark.parametrize(
    ("nbytes", "align", "sentence"),
    [
        (0, 16, "Bytes to allocate must be positive, not 0"),
        (16, 24, "Alignment must be a power of two, not 24"),
        (0x1000, 16, "Allocation must fit the device's 4096 bytes, of which 256 are taken, not need 4096 more"),
    ],
)
def test_allocations_that_cannot_be(nbytes: int, align: int, sentence: str) -> None:
    arena = Arena(0x1000, 0x2000)
    arena.allocate(256, 16)
    with pytest.raises(DeviceError) as caught:
        arena.allocate(nbytes, align)
    assert str(caught.value) == sentence


def test_freeing_twice() -> None:
    device = FunctionalDevice(VTAConfig())
    address = device.allocate(100)
    device.free(address)
    with pytest.raises(DeviceError, match=f"^Address to free must be one that was allocated, not {address:#x}$"):
        device.free(address)


@pytest.mark.parametrize("kind", [FunctionalDevice, HostDevice])
def test_memory_is_zero_when_allocated_even_if_used_before(kind: type[FunctionalDevice | HostDevice]) -> None:
    device = kind(VTAConfig())
    address = device.allocate(10_000)
    assert address % 4096 == 0
    device.write(address + 5, np.arange(1, 2000, dtype=np.int32))
    assert device.read(address + 5, 8).tolist() == [1, 0, 0, 0, 2, 0, 0, 0]
    device.free(address)
    assert device.allocate(20_000) == address
    assert not device.read(address, 20_000).any()


def test_host_memory_is_seen_through_views() -> None:
    device = HostDevice(VTAConfig())
    address = device.allocate(256)
    device.view(address + 64, 4).view(np.int32)[0] = 7
    assert device.read(address + 64, 4).tolist() == [7, 0, 0, 0]
    assert device.view(address, 256).ctypes.data % 64 == 0
    with pytest.raises(DeviceError, match=r"^Memory range must lie in one allocation, not be 2 bytes at "):
        device.view(address + 255, 2)


def test_a_simulated_launch() -> None:
    device = FunctionalDevice(VTAConfig())
    program = raw_program()
    report, (output,) = replay(device, program, dumps=[Range(address=OUTPUTS, nbytes=48)])
    assert output.tobytes() == tensors()[2].tobytes()
    assert report.counters["gemm_counter"] == 3
    assert device.counters() == report.counters


def test_a_launch_counts_its_instructions_one_by_one() -> None:
    device = FunctionalDevice(VTAConfig())
    device.write(0x8000, np.frombuffer(code(VTAConfig()), np.uint8))
    device.launch(0x8000, 9)
    report = device.wait()
    assert report.counters_of(1, 2)["inp_load_nbytes"] == 48
    assert report.counters_of(3, 5)["gemm_counter"] == 3
    assert report.counters_of(0, 9) == report.counters


def test_between_launch_and_wait_the_device_is_busy() -> None:
    device = FunctionalDevice(VTAConfig())
    device.write(0x8000, np.frombuffer(code(VTAConfig(), "finish"), np.uint8))
    with pytest.raises(DeviceError, match=r"^Device must have been launched before it is waited for$"):
        device.wait()
    device.launch(0x8000, 1)
    with pytest.raises(DeviceError, match=r"^Device must be idle, not running a launch that was not waited for$"):
        device.read(0, 1)
    assert device.wait(60).counters["insn_count"] == 1


def test_tokens_left_over_are_an_error_unless_allowed() -> None:
    device = FunctionalDevice(VTAConfig())
    device.write(0x8000, np.frombuffer(code(VTAConfig(), "finish push_next"), np.uint8))
    device.launch(0x8000, 1, bases=Bases.at(0x1000))
    with pytest.raises(LeftoverTokens, match=r"^Launch must leave no tokens, not 1 of g2s$"):
        device.wait()
    device.launch(0x8000, 1, tokens=Tokens(g2s=4), allow_leftover_tokens=True)
    assert device.wait().tokens_left == Tokens(g2s=5)


@pytest.mark.parametrize(("address", "nbytes"), [(-1, 4), (1 << 64, 1), ((1 << 64) - 3, 4), (0, -1)])
def test_memory_ranges_outside_the_address_space(address: int, nbytes: int) -> None:
    with pytest.raises(DeviceError, match=r"^Memory range must lie in 0\.\.2\*\*64-1, not be "):
        FunctionalDevice(VTAConfig()).read(address, nbytes)


def test_background_work_can_be_given_up_on_and_still_ends() -> None:
    gate = threading.Event()
    work = Background(gate.wait)
    assert not work.finished(0.001)
    gate.set()
    assert work.finished(None)
    assert work.result() is True


def test_background_errors_come_back() -> None:
    def fail() -> None:
        raise DeviceTimeout("too late")

    work = Background(fail)
    assert work.finished(None)
    with pytest.raises(DeviceTimeout, match=r"^too late$"):
        work.result()


def test_replay_hands_tokens_and_bases_to_the_device() -> None:
    device = FakeDevice(VTAConfig())
    program = raw_program("finish")
    bases = Bases(inp=64)
    report, _ = replay(device, program, bases=bases)
    assert device.launches == [(0x8000, 1, bases, Tokens(), True)]
    assert report.tokens_left == Tokens(l2g=1)


def test_a_patience_longer_than_any_clock() -> None:
    assert Background(lambda: 1).finished(1e300)
