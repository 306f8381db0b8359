"""The accelerator's RTL on Amaranth's simulator as a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runtime import device
from runtime.device import LaunchReport
from runtime.devices.simulated import SimulatedDevice
from runtime.errors import DeviceTimeout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import Bases
from vta_sim.memory import Memory
from vta_sim.rtl.engine import MAX_CYCLES, AmaranthSimulator
from vta_sim.timing import MemoryTiming

_STEP: Final = 100
"""Cycles between two looks at the clock: a fraction of a second."""


def _ignore(cycles: int) -> None:
    pass


class AmaranthDevice(SimulatedDevice):
    """The RTL, cycle by cycle: some hundred cycles in a second. It runs while it is waited for, and not otherwise.

    Counters are those of the register map, by name. timing: of the memory. vcd: file for the waveform of everything,
    complete after `close` or at the end of a ``with`` block. max_cycles: of one launch. progress: called now and then
    with the cycles of the launch so far.
    """

    def __init__(
        self,
        config: VTAConfig,
        *,
        timing: MemoryTiming | None = None,
        vcd: Path | None = None,
        max_cycles: int = MAX_CYCLES,
        progress: Callable[[int], None] = _ignore,
    ) -> None:
        super().__init__()
        self._simulator = AmaranthSimulator(config, timing=timing or MemoryTiming(), vcd=vcd)
        self._max_cycles = max_cycles
        self._progress = progress
        self._running = False
        self._allow_leftover_tokens = False
        self._cycles = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the waveform."""
        self._simulator.close()

    @property
    def config(self) -> VTAConfig:
        return self._simulator.config

    @property
    def _memory(self) -> Memory:
        return self._simulator.memory

    @property
    def _is_running(self) -> bool:
        return self._running

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
        ports = Bases(**asdict(bases or device.Bases()))
        self._simulator.start(insn_address, insn_count, bases=ports, tokens=tokens, max_cycles=self._max_cycles)
        self._running, self._allow_leftover_tokens, self._cycles = True, allow_leftover_tokens, 0

    def wait(self, timeout: float | None = None) -> LaunchReport:
        self._check_running()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._simulator.advance(_STEP):
            self._cycles += _STEP
            self._progress(self._cycles)
            if deadline is not None and time.monotonic() >= deadline:
                raise DeviceTimeout(f"Launch must finish within {timeout} s, and has not")
        self._running = False
        report = self._simulator.report()
        report.check(allow_leftover_tokens=self._allow_leftover_tokens)
        self._totals.update(report.counters)
        return LaunchReport(counters=report.counters, tokens_left=report.tokens_left)
