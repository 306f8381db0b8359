"""The machine that a command runs on: the engine, the memory behind it, the waveform; and what does not go together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vta.cli import params
from vta.cli.errors import CommandError
from vta.engine_names import TIMED, Engine
from vta.errors import ApiError

if TYPE_CHECKING:
    from runtime.device import Bases, Device
    from vta_hw.spec.config import VTAConfig
    from vta_hw.spec.program import Program
    from vta_sim.timing import MemoryTiming
    from vta_sim.waves import Waves

STALL_PROBABILITY: Final = 0.3
WITH_WAVEFORM: Final = (Engine.RTL, Engine.AMARANTH)
"""The engines that have signals to write down."""
WITH_CHOICE: Final = (Engine.RTL,)
"""Those that write some of them alone."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The memory behind a machine with a clock; None for what was not given. See `vta_sim.timing.MemoryTiming`.

    stalls: the seed of random pauses.
    """

    latency: int | None
    outstanding: int | None
    read_bytes: int | None
    write_bytes: int | None
    shared_bus: bool | None
    stalls: int | None

    def timing(self, engine: Engine, config: VTAConfig) -> MemoryTiming:
        """Raises CommandError for what no memory is, or none of this machine's bus."""
        from vta_sim.timing import MemoryTiming

        given = {name: value for name, value in vars(self).items() if value is not None and name != "stalls"}
        if self.stalls is not None:
            # Answers out of order are a matter of Amaranth's simulator alone.
            given |= {"stalls": STALL_PROBABILITY, "seed": self.stalls, "interleave": engine is Engine.AMARANTH}
        try:
            timing = MemoryTiming(**given)
            timing.gaps(config.bus_bits // 8)
        except ValueError as error:
            raise CommandError(str(error)) from error
        return timing


@dataclass(frozen=True, kw_only=True)
class WaveOptions:
    """What to write of the signals, as far as it was told. Raises CommandError for a choice without a file."""

    vcd: Path | None
    signals: tuple[str, ...]
    window: tuple[int, int | None] | None

    def __post_init__(self) -> None:
        for option in self.given:
            if self.vcd is None:
                raise CommandError(f"{option} must be given with --vcd, the file for the waveform")

    @property
    def given(self) -> Mapping[str, tuple[Engine, ...]]:
        """The options, and the engines that have a use for them."""
        options = (
            ("--vcd", self.vcd is not None, WITH_WAVEFORM),
            ("--signals", bool(self.signals), WITH_CHOICE),
            ("--window", self.window is not None, WITH_CHOICE),
        )
        return {name: engines for name, is_given, engines in options if is_given}

    def waves(self) -> Waves | None:
        """Raises CommandError for a window that is no range."""
        from vta_sim.waves import Waves, WavesError

        if self.vcd is None:
            return None
        begin, end = self.window or (0, None)
        try:
            return Waves(path=self.vcd, signals=self.signals or ("*",), begin=begin, end=end)
        except WavesError as error:
            raise CommandError(str(error)) from error


_WAVES: Final = (
    click.option("--vcd", type=click.Path(path_type=Path), metavar="FILE", help="Write the waveform: rtl, amaranth."),
    click.option("--signals", multiple=True, metavar="PATTERN", help="rtl: only signals with such names; * and ?."),
    click.option("--window", type=params.window, metavar="FIRST:END", help="rtl: only these cycles of a launch."),
)


def wave_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options of a waveform; the command gets them as `waves`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        given = {field.name: kwargs.pop(field.name) for field in fields(WaveOptions)}
        return function(*args, waves=WaveOptions(**given), **kwargs)

    for option in reversed(_WAVES):
        gathered = option(gathered)
    return gathered


_MEMORY: Final = (
    click.option("--latency", type=params.number("--latency"), metavar="CYCLES", help="Latency of memory."),
    click.option(
        "--outstanding", type=params.number("--outstanding"), metavar="BURSTS", help="Bursts that memory works on."
    ),
    click.option(
        "--read-bytes", type=params.number("--read-bytes"), metavar="N", help="Bytes memory reads in a cycle."
    ),
    click.option(
        "--write-bytes", type=params.number("--write-bytes"), metavar="N", help="Bytes memory writes in a cycle."
    ),
    click.option("--shared-bus", is_flag=True, default=None, help="Reads and writes of memory share one bus."),
    click.option(
        "--stalls", type=params.number("--stalls"), metavar="SEED", help="Memory pauses at random, by this seed."
    ),
)


def memory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options of memory, for machines with a clock; the command gets them as `memory`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        given = {field.name: kwargs.pop(field.name) for field in fields(MemoryOptions)}
        return function(*args, memory=MemoryOptions(**given), **kwargs)

    for option in reversed(_MEMORY):
        gathered = option(gathered)
    return gathered


def engine_option(engines: tuple[Engine, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--engine`` with the names of `engines`, the first by default; the command gets an `Engine`."""
    names = tuple(engine.value for engine in engines)
    parse = params.one_of("Engine", names)
    return click.option(
        "--engine",
        type=lambda text: Engine(parse(text)),
        default=names[0],
        show_default=True,
        metavar="NAME",
        help=f"One of {', '.join(names)}.",
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What runs a program. Raises CommandError for options that the engine has no use for."""

    engine: Engine
    memory: MemoryOptions
    waves: WaveOptions | None = None
    trace: bool = False
    allow_races: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self.memory).items():
            if value is not None and self.engine not in TIMED:
                raise self._refused(f"--{name.replace('_', '-')}", TIMED)
        if self.waves is not None:
            for option, engines in self.waves.given.items():
                if self.engine not in engines:
                    raise self._refused(option, engines)

    def check_races(self, program: Program, bases: Bases | None = None) -> None:
        """Raises CommandError for a program whose result depends on time, if the engine has a clock."""
        if self.allow_races or self.engine not in TIMED:
            return
        from vta.checking import refuse_races

        try:
            refuse_races(program, {} if bases is None else bases.by_memory)
        except ApiError as error:
            raise CommandError(f"{error}; --allow-races runs it") from error

    def _refused(self, option: str, engines: tuple[Engine, ...]) -> CommandError:
        *others, last = (engine.value for engine in engines)
        names = f"{', '.join(others)} or {last}" if others else last
        return CommandError(f"{option} must be given with --engine {names}, not with {self.engine.value!r}")

    @contextmanager
    def open(self, config: VTAConfig, progress: Callable[[int], None]) -> Iterator[Device]:
        """The device, until the end of the ``with`` block."""
        from vta.engines import open_device
        from vta_sim.waves import WavesError

        timing = self.memory.timing(self.engine, config)
        waves = None if self.waves is None else self.waves.waves()
        try:
            device = open_device(self.engine, config, timing=timing, waves=waves, trace=self.trace, progress=progress)
        except WavesError as error:
            raise CommandError(str(error)) from error
        with closing(device):
            yield device
