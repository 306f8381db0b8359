"""Files of launches, and recording them from a session."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from runtime.device import PAGE_BYTES, Bases
from runtime.devices.functional import FunctionalDevice
from runtime.errors import DeviceError
from tests.vta.streams import INPUTS, OUTPUTS, UOPS, WEIGHTS, code, tensors
from tests.vta_hw.rtl.cocotb.cases import Author, add_product, bus_error_launches, random_launches
from tests.vta_hw.rtl.cocotb.footprint import footprints
from tests.vta_hw.rtl.cocotb.launches import Launch, Launches
from tests.vta_hw.rtl.cocotb.recording import RecordingDevice
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status


def same(mine: Launch, other: Launch) -> bool:
    """Whether two launches are equal, pages by their bytes."""

    def value(launch: Launch, name: str) -> object:
        item = getattr(launch, name)
        if name in ("written", "stored") and item is not None:
            return {address: page.tobytes() for address, page in item.items()}
        return item

    return all(value(mine, field.name) == value(other, field.name) for field in fields(Launch))


@pytest.mark.parametrize("kind", ["random", "errors", "none"])
def test_a_file_holds_launches(kind: str, tmp_path: Path) -> None:
    config = preset("tiny")
    launches = {
        "random": random_launches(config, range(3), 8, clear=True),
        "errors": bus_error_launches(config, (2, 3)),
        "none": Launches(config=config, launches=()),
    }[kind]
    launches.save(tmp_path / "launches.npz")
    read = Launches.load(tmp_path / "launches.npz")
    assert read.config == config
    assert [same(*pair) for pair in zip(read.launches, launches.launches, strict=True)] == [True] * len(read.launches)


def test_a_session_is_recorded() -> None:
    """Two launches: what the host wrote before each, and the page that each changed."""
    device = RecordingDevice(FunctionalDevice(VTAConfig()))
    inputs, weights, outputs = tensors()
    start = device.allocate(0x10000) - 0x1000
    for address, array in ((UOPS, np.zeros(4, np.uint8)), (INPUTS, inputs), (WEIGHTS, weights)):
        device.write(start + address, array)
    device.write(start + 0x8000, np.frombuffer(code(VTAConfig()), np.uint8))
    for _ in range(2):
        device.launch(start + 0x8000, 9, bases=Bases.at(start))
        device.wait()
        device.write(start + INPUTS, -inputs)
    first, second = device.recorded.launches
    assert set(first.written) == {start + address for address in range(0x1000, 0x11000, PAGE_BYTES)}
    assert first.written[start + INPUTS].view(np.int8)[: inputs.size].tolist() == inputs.reshape(-1).tolist()
    assert first.stored is not None
    assert list(first.stored) == [start + OUTPUTS]
    assert first.stored[start + OUTPUTS].view(np.int8)[: outputs.size].tolist() == outputs.reshape(-1).tolist()
    assert list(second.written) == [start + INPUTS]
    assert second.stored is not None
    assert list(second.stored) == [start + OUTPUTS]
    assert (first.insn_count, first.bases, first.tokens) == (9, Bases.at(start), Tokens())
    assert first.registers["gemm_uops"] == 3
    assert first.registers["out_bytes"] == 48
    assert device.counters()["gemm_counter"] == 6


def test_a_launch_that_fails_is_not_recorded() -> None:
    device = RecordingDevice(FunctionalDevice(VTAConfig()))
    device.allocate(PAGE_BYTES)
    with pytest.raises(DeviceError, match="must have been launched"):
        device.wait()
    assert device.recorded.launches == ()


def test_what_a_program_asks_for() -> None:
    config = preset("tiny")
    author = Author(config)
    launch = add_product(author)
    insns = launch.written[launch.insn_address][: 16 * launch.insn_count]
    reads, writes = footprints(config, insns.view("<u8").reshape(-1, 2), launch.insn_address, launch.bases)
    assert reads.mask(0x1000, 8) == 0x0F
    assert reads.mask(0x2010, 8) == 0x0F
    assert (reads.mask(0x2018, 8), reads.mask(0x6000, 8)) == (0, 0)
    assert reads.mask(0x8000 + 16 * launch.insn_count - 8, 16) == 0xFF
    assert (writes.mask(0x6010, 8), writes.mask(0x5FF8, 8)) == (0x0F, 0)


def test_addresses_of_a_program_wrap() -> None:
    config = preset("tiny")
    words = ISA(config).encode_program(assemble("load.inp dram_base=4 y_size=1 x_size=2 x_stride=2", config)[0])
    reads, _ = footprints(config, words, 0x8000, Bases(inp=0xFFFF_FFF0))
    assert reads.mask(0, 16) == 0xFF


def test_errors_come_with_status_and_instruction() -> None:
    launches = bus_error_launches(preset("tiny"), (2, 3)).launches
    failing = [launch for launch in launches if launch.errors]
    assert [launch.registers["status"] for launch in failing] == [Status.READ_ERROR] * 5 + [Status.WRITE_ERROR]
    assert [launch.registers["fault_insn"] for launch in failing] == [5, 1, 2, 0, 3, 6]
    assert all(launch.stored is None for launch in failing)
