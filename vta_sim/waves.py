"""What of a simulated machine goes to a waveform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class WavesError(ValueError):
    """A waveform that cannot be written; the message names the rule and the value."""


@dataclass(frozen=True, kw_only=True)
class Waves:
    """A file (VCD), and what it has. Raises WavesError for what is no range of cycles.

    signals: names or patterns of names ("machine.top.core.store.*") of ports, registers and observed signals. begin,
    end: the first cycle, and the one behind the last, None for all that follow; cycles are counted from the register
    write that starts a launch. Each takes about a millisecond for all signals.
    """

    path: Path
    signals: tuple[str, ...] = ("*",)
    begin: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.begin < 0 or (self.end is not None and self.end <= self.begin):
            raise WavesError(f"Cycles of a waveform must be a range from 0 on, not {self.begin} to {self.end}")
