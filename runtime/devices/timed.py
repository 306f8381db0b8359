"""Simulators with a clock as devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Final, Protocol, Self

from runtime import device
from runtime.device import LaunchReport
from runtime.devices.simulated import SimulatedDevice
from runtime.errors import DeviceTimeout
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import Bases
from vta_sim.memory import Memory
from vta_sim.trace import Trace

MAX_CYCLES: Final = (1 << 32) - 1
"""Cycles after which a launch is given up unless the caller says otherwise: what `cycle_count` can hold."""


class TimedReport(Protocol):
    """What a simulator reports of a launch: counters of the register map, tokens left, and a trace if it was asked."""

    @property
    def counters(self) -> Mapping[str, int]: ...

    @property
    def tokens_left(self) -> Tokens: ...

    @property
    def trace(self) -> Trace | None: ...

    def check(self, *, allow_leftover_tokens: bool = False) -> None:
        """Raise the `SimulationError` that the launch calls for."""


class TimedSimulator(Protocol):
    """A machine whose launches are advanced cycle by cycle."""

    @property
    def config(self) -> VTAConfig: ...

    @property
    def memory(self) -> Memory: ...

    def start(
        self, insn_address: int, insn_count: int, *, bases: Bases, tokens: Tokens | None, max_cycles: int
    ) -> None:
        """Begin a launch."""

    def advance(self, cycles: int) -> bool:
        """Simulate at most `cycles`; whether the launch is over."""

    def report(self) -> TimedReport:
        """Of the launch that is over. Raises CycleLimit if it was given up after `max_cycles`."""

    def close(self) -> None:
        """Finish the files that it writes."""


def _ignore(cycles: int) -> None:
    pass


class TimedDevice(SimulatedDevice):
    """A machine with a clock, which runs while it is waited for and not otherwise.

    Counters are those of the register map, by name. step: cycles between two looks at the clock. max_cycles: of one
    launch. progress: called now and then with the cycles of the launch so far. What the simulator writes is complete
    after `close`, or at the end of a ``with`` block.
    """

    def __init__(
        self,
        simulator: TimedSimulator,
        *,
        step: int,
        max_cycles: int = MAX_CYCLES,
        progress: Callable[[int], None] = _ignore,
    ) -> None:
        super().__init__()
        self._simulator = simulator
        self._step = step
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
        """Finish what the simulator writes."""
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

    def _advance(self) -> bool:
        try:
            return self._simulator.advance(self._step)
        except BaseException:
            # Whatever it is, there is nothing left to wait for.
            self._running = False
            raise

    def wait(self, timeout: float | None = None) -> LaunchReport:
        self._check_running()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._advance():
            self._cycles += self._step
            self._progress(self._cycles)
            if deadline is not None and time.monotonic() >= deadline:
                raise DeviceTimeout(f"Launch must finish within {timeout} s, and has not")
        self._running = False
        report = self._simulator.report()
        report.check(allow_leftover_tokens=self._allow_leftover_tokens)
        self._totals.update(report.counters)
        return LaunchReport(counters=report.counters, tokens_left=report.tokens_left, trace=report.trace)
