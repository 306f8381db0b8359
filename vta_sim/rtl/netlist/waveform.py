"""Waveforms of a compiled design, for the viewers that read VCD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import IO, Any, Final

import numpy as np
from vcd import VCDWriter
from vcd.writer import Variable

from vta_sim.rtl.netlist.simulator import Simulator

_TICK: Final = 2
"""Units of time of a clock cycle, so that its two halves can be shown."""
CLOCK: Final = "clk"
_ROOT: Final = "design"
"""Every signal of a waveform lies in a scope."""


def fitting(simulator: Simulator, patterns: Sequence[str]) -> Mapping[str, int]:
    """The signals that patterns fit, with their widths; "*" stands for anything, "?" for a character.

    Raises ValueError if a pattern fits none.
    """
    chosen: dict[str, int] = {}
    for pattern in patterns:
        found = {name: width for name, width in simulator.signals.items() if fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(f"Pattern must fit a port, a register or an observed signal, and {pattern!r} does not")
        chosen |= found
    return chosen


class Waveform:
    """Writes signals of a simulator, cycle by cycle; the file is complete after `close`.

    signals: as `fitting` gives them. Time is in units of 1 ns, two for each clock cycle, and counts cycles since the
    simulator was made or reset.
    """

    def __init__(self, simulator: Simulator, file: IO[str], signals: Mapping[str, int]) -> None:
        self._simulator = simulator
        chosen = {name: width for name, width in signals.items() if name != CLOCK}
        self._writer = VCDWriter(file, timescale="1 ns")
        self._clock = self._writer.register_var(_ROOT, CLOCK, "wire", size=1, init=0)
        self._names = list(chosen)
        self._variables = [self._register(name, chosen[name]) for name in self._names]
        self._values: list[int | None] = [None] * len(self._names)
        # Which signals are to be looked at if a byte of the state has changed; outputs always are.
        self._users: dict[int, list[int]] = defaultdict(list)
        self._always = []
        for number, name in enumerate(self._names):
            places = simulator.bytes_of(name)
            if places is None:
                self._always.append(number)
            for byte in places or ():
                self._users[byte].append(number)
        self._state = simulator.state.copy()
        self._time = -1

    def run(self, cycles: int) -> None:
        """Let the clock tick `cycles` times, and write what each of these cycles shows before the tick."""
        for _ in range(cycles):
            self._sample()
            self._simulator.run(1)

    def close(self) -> None:
        """Write the last values."""
        self._writer.close(self._time + 1)

    def _register(self, name: str, width: int) -> Variable[Any]:
        scope, _, leaf = f"{_ROOT}.{name}".rpartition(".")
        return self._writer.register_var(scope, leaf, "wire", size=width, init=self._simulator.peek(name))

    def _sample(self) -> None:
        simulator = self._simulator
        time = simulator.edges * _TICK
        if time != self._time + 1:
            looked_at: Sequence[int] = range(len(self._names))
        else:
            changed = np.flatnonzero(simulator.state != self._state).tolist()
            looked_at = sorted({number for byte in changed for number in self._users[byte]} | set(self._always))
        self._state[:] = simulator.state
        for number in looked_at:
            value = simulator.peek(self._names[number])
            if value != self._values[number]:
                self._values[number] = value
                self._writer.change(self._variables[number], time, value)
        self._writer.change(self._clock, time, 0)
        self._writer.change(self._clock, time + 1, 1)
        self._time = time + 1
