"""Launches of a session, recorded from the device that it runs on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from runtime.device import PAGE_BYTES, Bases, Device, LaunchReport
from runtime.devices.functional import FunctionalDevice
from runtime.session import HostLoader, Session
from tests.vta_hw.rtl.cocotb.launches import Launch, Launches, registers_after
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program, Tokens

_INSN_BYTES = 16


class RecordingDevice(Device):
    """A device that does what another does, and remembers each launch with all it read and changed.

    `recorded` is what there is so far. The device behind it must be new: memory that was written before is not seen.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._launches: list[Launch] = []
        self._pages: dict[int, NDArray[np.uint8]] = {}
        self._touched: set[int] = set()
        self._running: Launch | None = None

    @property
    def config(self) -> VTAConfig:
        return self._device.config

    @property
    def recorded(self) -> Launches:
        """The launches that have ended."""
        return Launches(config=self.config, launches=tuple(self._launches))

    def allocate(self, nbytes: int, align: int = PAGE_BYTES) -> int:
        address = self._device.allocate(nbytes, align)
        self._touch(address, nbytes)
        return address

    def free(self, address: int) -> None:
        self._device.free(address)

    def write(self, address: int, data: NDArray[np.generic]) -> None:
        self._device.write(address, data)
        self._touch(address, data.nbytes)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        return self._device.read(address, nbytes)

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        written = self._changed(self._touched)
        self._touched.clear()
        self._running = Launch(
            insn_address=insn_address,
            insn_count=insn_count,
            bases=bases or Bases(),
            tokens=tokens or Tokens(),
            written=written,
        )
        self._device.launch(
            insn_address, insn_count, bases=bases, tokens=tokens, allow_leftover_tokens=allow_leftover_tokens
        )

    def wait(self, timeout: float | None = None) -> LaunchReport:
        report = self._device.wait(timeout)
        if self._running is not None:
            self._record(self._running, report)
            self._running = None
        return report

    def counters(self) -> dict[str, int]:
        return self._device.counters()

    def _record(self, launch: Launch, report: LaunchReport) -> None:
        insns = self._device.read(launch.insn_address, launch.insn_count * _INSN_BYTES)
        registers = registers_after(self.config, insns.view("<u8").reshape(-1, 2), report.tokens_left)
        stored = self._changed(set(self._pages))
        self._launches.append(
            Launch(
                insn_address=launch.insn_address,
                insn_count=launch.insn_count,
                bases=launch.bases,
                tokens=launch.tokens,
                written=launch.written,
                stored=stored,
                registers=registers,
            )
        )

    def _touch(self, address: int, nbytes: int) -> None:
        self._touched.update(range(address // PAGE_BYTES * PAGE_BYTES, address + nbytes, PAGE_BYTES))

    def _changed(self, addresses: set[int]) -> dict[int, NDArray[np.uint8]]:
        """Those of the pages that are not what they were when this was last asked."""
        changed = {}
        for address in sorted(addresses):
            page = self._device.read(address, PAGE_BYTES)
            known = self._pages.get(address)
            if known is None or not np.array_equal(known, page):
                self._pages[address] = page
                changed[address] = page
        return changed


def record(program: Program, inputs: Mapping[str, NDArray[np.generic]], host: HostLoader) -> Launches:
    """The launches of one run of a compiled program on the functional simulator.

    inputs: by name, as the program's buffers store them. host: loader of its host steps.
    """
    device = RecordingDevice(FunctionalDevice(program.config))
    with Session(device, program, host) as session:
        session.run(inputs)
    return device.recorded
