"""The machine that a command runs on: the engine, the memory behind it, the waveform; and what does not go together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
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

STALL_PROBABILITY: Final = 0.3
WITH_WAVEFORM: Final = (Engine.AMARANTH,)
"""The engines that have signals to write down."""


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
    vcd: Path | None = None
    trace: bool = False
    allow_races: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self.memory).items():
            if value is not None and self.engine not in TIMED:
                raise self._refused(f"--{name.replace('_', '-')}", TIMED)
        if self.vcd is not None and self.engine not in WITH_WAVEFORM:
            raise self._refused("--vcd", WITH_WAVEFORM)

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

        timing = self.memory.timing(self.engine, config)
        device = open_device(self.engine, config, timing=timing, vcd=self.vcd, trace=self.trace, progress=progress)
        with closing(device):
            yield device
