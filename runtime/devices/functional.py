"""The functional simulator as a device."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from runtime import device
from runtime.device import LaunchReport
from runtime.devices.background import Background
from runtime.devices.simulated import SimulatedDevice
from runtime.errors import DeviceTimeout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.functional.report import Report
from vta_sim.memory import Memory


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


class FunctionalDevice(SimulatedDevice):
    """A simulated machine without time. Scratchpads start at zero and persist between launches.

    poison: start scratchpads and accumulators with a pattern instead, to find programs that read what they never wrote.
    """

    def __init__(self, config: VTAConfig, *, poison: bool = False) -> None:
        super().__init__()
        self._simulator = FunctionalSimulator(config, poison=poison)
        self._running: Background[Report] | None = None
        self._counts: dict[int, LaunchCounts] = {}
        self._launched_at = 0

    @property
    def config(self) -> VTAConfig:
        return self._simulator.config

    @property
    def _memory(self) -> Memory:
        return self._simulator.memory

    @property
    def _is_running(self) -> bool:
        return self._running is not None

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
        self._check_running()
        assert self._running is not None
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
