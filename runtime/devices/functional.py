"""The functional simulator as a device."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from runtime import device
from runtime.arena import Arena
from runtime.device import PAGE_BYTES, Device, LaunchReport
from runtime.devices.background import Background
from runtime.errors import DeviceError, DeviceTimeout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import ADDRESS_LIMIT, Tokens
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.functional.report import Report

# Page 0 stays unused: address 0 is an error for TVM's simulator too (VTA spec 3.1).
_FIRST_ADDRESS = PAGE_BYTES


class LaunchCounts:
    """Counters of one launch's instructions, worked out once per range: a session launches the same ones many times."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._known: dict[tuple[int, int], dict[str, int]] = {}

    def covers(self, report: Report) -> bool:
        """Whether `report` is of the same instructions."""
        return np.array_equal(self._report.words, report.words)

    def between(self, begin: int, end: int) -> dict[str, int]:
        """Counters of the instructions ``begin..end-1``."""
        if (begin, end) not in self._known:
            self._known[begin, end] = asdict(self._report.statistics_of(begin, end))
        return self._known[begin, end]


class FunctionalDevice(Device):
    """A simulated machine without time. Scratchpads start at zero and persist between launches.

    poison: start scratchpads and accumulators with a pattern instead, to find programs that read what they never wrote.
    """

    def __init__(self, config: VTAConfig, *, poison: bool = False) -> None:
        self._simulator = FunctionalSimulator(config, poison=poison)
        self._arena = Arena(_FIRST_ADDRESS, ADDRESS_LIMIT)
        self._touched = _FIRST_ADDRESS
        self._running: Background[Report] | None = None
        self._totals: Counter[str] = Counter()
        self._counts: dict[int, LaunchCounts] = {}
        self._launched_at = 0

    @property
    def config(self) -> VTAConfig:
        return self._simulator.config

    def allocate(self, nbytes: int, align: int = PAGE_BYTES) -> int:
        self._check_idle()
        address = self._arena.allocate(nbytes, align)
        stale = min(self._touched, address + nbytes) - address
        if stale > 0:
            self._simulator.memory.write(address, np.zeros(stale, np.uint8))
        self._touched = max(self._touched, address + nbytes)
        return address

    def free(self, address: int) -> None:
        self._check_idle()
        self._arena.free(address)

    def write(self, address: int, data: NDArray[np.generic]) -> None:
        self._check_idle()
        self._check_range(address, data.nbytes)
        self._simulator.memory.write(address, data)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        self._check_idle()
        self._check_range(address, nbytes)
        return self._simulator.memory.read(address, nbytes)

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: device.Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        self._check_idle()
        self._launched_at = insn_address
        ports = Bases(**asdict(bases or device.Bases()))
        self._running = Background(
            lambda: self._simulator.launch(
                insn_address,
                insn_count,
                bases=ports,
                tokens=tokens,
                allow_leftover_tokens=allow_leftover_tokens,
            )
        )

    def wait(self, timeout: float | None = None) -> LaunchReport:
        if self._running is None:
            raise DeviceError("Device must have been launched before it is waited for")
        if not self._running.finished(timeout):
            raise DeviceTimeout(f"Launch must finish within {timeout} s, and has not")
        finished, self._running = self._running, None
        report = finished.result()
        counts = self._counts.get(self._launched_at)
        if counts is None or not counts.covers(report):
            counts = self._counts[self._launched_at] = LaunchCounts(report)
        counters = counts.between(0, len(report.words))
        self._totals.update(counters)
        return LaunchReport(counters=counters, tokens_left=report.tokens_left, counters_of=counts.between)

    def counters(self) -> dict[str, int]:
        return dict(self._totals)

    def _check_idle(self) -> None:
        if self._running is not None:
            raise DeviceError("Device must be idle, not running a launch that was not waited for")

    @staticmethod
    def _check_range(address: int, nbytes: int) -> None:
        if nbytes < 0 or not 0 <= address <= (1 << 64) - nbytes:
            raise DeviceError(f"Memory range must lie in 0..2**64-1, not be {nbytes} bytes at {address:#x}")
