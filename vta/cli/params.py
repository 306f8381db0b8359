"""Option values: text of the command line to typed values, with the rule in every refusal."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.errors import CommandError

if TYPE_CHECKING:
    from vta_hw.spec.config import VTAConfig

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")
NUMBER_END = 1 << 64


@dataclass(frozen=True, kw_only=True)
class ConfigOption:
    """``NAME|FILE``: a configuration, and its file unless it is a preset."""

    value: VTAConfig
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class SegmentOption:
    """``ADDR=FILE``: the file's bytes are in memory from this byte address on."""

    address: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class DumpOption:
    """``ADDR:LEN=FILE``: so many bytes from this address go to the file."""

    address: int
    nbytes: int
    path: Path


def parse_number(subject: str, text: str) -> int:
    """A number from 0 to 2**64 - 1, decimal or with 0x."""
    if not _NUMBER.fullmatch(text) or len(text) > 64:
        raise CommandError(f"{subject} must be a decimal or 0x number, not {text!r}")
    value = int(text, 16 if text[:2].lower() == "0x" else 10)
    if value >= NUMBER_END:
        raise CommandError(f"{subject} must be below 2**64, not {text}")
    return value


def reals(option: str) -> Callable[[str], tuple[float, ...]]:
    """Type of an option whose value is one finite number, or several between commas."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or not all(math.isfinite(value) for value in values):
            raise CommandError(f"{option} must be numbers with commas between them, not {text!r}")
        return values

    return parse


def number(option: str) -> Callable[[str], int]:
    """Type of an option whose value is a number."""
    return lambda text: parse_number(option, text)


def numbers(option: str, count: int) -> Callable[[str], tuple[int, ...]]:
    """Type of an option whose value is `count` numbers with commas between."""

    def parse(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if len(parts) != count:
            raise CommandError(f"{option} must be {count} numbers separated by commas, not {text!r}")
        return tuple(parse_number(option, part.strip()) for part in parts)

    return parse


def segment(text: str) -> SegmentOption:
    """Type of ``--segment``."""
    address, equals, path = text.partition("=")
    if not equals or not path:
        raise CommandError(f"--segment must be ADDR=FILE, not {text!r}")
    return SegmentOption(address=parse_number("--segment address", address), path=Path(path))


def dump(text: str) -> DumpOption:
    """Type of ``--dump``."""
    where, equals, path = text.partition("=")
    address, colon, nbytes = where.partition(":")
    if not equals or not path or not colon:
        raise CommandError(f"--dump must be ADDR:LEN=FILE, not {text!r}")
    return DumpOption(
        address=parse_number("--dump address", address),
        nbytes=parse_number("--dump length", nbytes),
        path=Path(path),
    )


def window(text: str) -> tuple[int, int | None]:
    """Type of ``--window``: a first cycle, and one behind the last or none."""
    begin, colon, end = text.partition(":")
    if not colon:
        raise CommandError(f"--window must be FIRST:END, not {text!r}")
    return parse_number("--window first cycle", begin), parse_number("--window end", end) if end else None


def config(text: str) -> ConfigOption:
    """Type of ``--config``: the name of a preset or the path of a `vta_config.json`."""
    from vta_hw.spec.config import PRESETS, ConfigError, resolve

    try:
        return ConfigOption(value=resolve(text), path=None if text in PRESETS else Path(text))
    except ConfigError as error:
        raise CommandError(f"{error}{did_you_mean(text, PRESETS)}") from error


def seconds(option: str) -> Callable[[str], float]:
    """Type of an option whose value is a time."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise CommandError(f"{option} must be a positive number of seconds, not {text!r}")
        return value

    return parse


def megahertz(option: str) -> Callable[[str], float]:
    """Type of an option whose value is a frequency."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise CommandError(f"{option} must be a positive number of MHz, not {text!r}")
        return value

    return parse


def count(option: str, least: int, most: int) -> Callable[[str], int]:
    """Type of an option whose value is a number of a range."""

    def parse(text: str) -> int:
        value = parse_number(option, text)
        if not least <= value <= most:
            raise CommandError(f"{option} must be {least} to {most}, not {text}")
        return value

    return parse


def refuse_given(context: click.Context, names: Iterable[str], when: str) -> None:
    """Refuse those of the options, by the names of their parameters, that are on the command line."""
    given = click.core.ParameterSource.COMMANDLINE
    for name in names:
        if context.get_parameter_source(name) is given:
            option = next(param.opts[0] for param in context.command.params if param.name == name)
            raise CommandError(f"{option} must not be given {when}")


def one_of(subject: str, words: tuple[str, ...]) -> Callable[[str], str]:
    """Type of an option whose value is one of a few words; a typing mistake gets a suggestion."""

    def parse(text: str) -> str:
        if text not in words:
            known = ", ".join(repr(word) for word in words)
            raise CommandError(f"{subject} must be one of {known}, not {text!r}{did_you_mean(text, words)}")
        return text

    return parse


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing if no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


config_option = click.option(
    "--config",
    type=config,
    default="sim",
    show_default=True,
    metavar="NAME|FILE",
    help="Preset (see `vta config --list`) or vta_config.json.",
)
allow_races_option = click.option(
    "--allow-races", is_flag=True, help="Run a program whose result depends on time, on any engine."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON on stdout, and nothing else.")
MOST_RUNS = 1 << 16
repeat_option = click.option(
    "--repeat",
    type=count("--repeat", 1, MOST_RUNS),
    metavar="N",
    default="10",
    show_default=True,
    help="Runs on the CPU, of which the best counts.",
)
