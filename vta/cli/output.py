"""What the commands print: JSON, tables, progress."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import accumulate, zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress

_WIDE = 1000

PATIENCE = 2.0
"""Seconds of silence before progress is shown."""


def print_json(value: Any) -> None:
    """The only thing a command prints on stdout under ``--json``."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: Container[int] = (0,),
    *,
    tight: bool = False,
) -> None:
    """A table on stdout, never cut to the terminal's width; columns that are not text are figures, to the right.

    tight: with two spaces between columns instead of three.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1) if tight else (0, 1))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _print_title(title)
    Console(highlight=False, markup=False, width=_WIDE).print(table)


def tight_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters in a line of the tight table that `print_table` prints; heads may have several lines."""
    cells = zip(columns, *rows, strict=True)
    return sum(max(len(line) for cell in column for line in cell.split("\n")) + 2 for column in cells)


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """Lines of code of at most `width` characters: what is longer goes on below, further to the right."""
    return [part for line in lines for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> Iterator[str]:
    """Breaks where fewest brackets are open, in the second half of a line if it can."""
    indent = " " * min(len(line) - len(line.lstrip()) + 6, width // 2)
    while len(line) > width:
        start = len(line) - len(line.lstrip())
        depths = list(accumulate((char in "([") - (char in ")]") for char in line[: width + 1]))
        spaces = [at for at in range(start + 1, width + 1) if line[at] == " "]
        late = [at for at in spaces if at - start > (width - start) // 2] or spaces
        at = min(late, key=lambda at: (depths[at], -at), default=width)
        yield line[:at]
        line = indent + line[at:].lstrip()
    yield line


def print_code(title: str, lines: Iterable[str], width: int) -> None:
    """Lines of code below a title."""
    _print_title(title)
    click.echo("\n".join(wrapped(lines, width)) + "\n")


def print_beside(left: tuple[str, Iterable[str]], right: tuple[str, Iterable[str]], width: int) -> None:
    """Two pieces of code, (title, lines) each, in columns that take `width` together."""
    gap = " │ "
    each = (width - len(gap)) // 2
    sides = [wrapped(lines, each) for _, lines in (left, right)]
    _print_title(f"{left[0]:{each}}{gap}{right[0]}")
    click.echo("─" * each + "─┼─" + "─" * each)
    for one, other in zip_longest(*sides, fillvalue=""):
        click.echo(f"{one:{each}}{gap}{other}".rstrip())
    click.echo()


def _print_title(title: str) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False, width=_WIDE).print(title, style="bold", overflow="ignore", no_wrap=True)


class Activity:
    """Progress on stderr: shown on a terminal only, and only when the work lasts longer than two seconds.

    Use in a ``with`` block; `step` names what is being done and, if known, how much of it.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._done = 0
        self._total: int | None = None
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._progress is not None:
                self._progress.stop()

    def step(self, description: str, done: int = 0, total: int | None = None) -> None:
        """Say what is going on now; `done` of `total` pieces of it are finished."""
        with self._lock:
            self._description, self._done, self._total = description, done, total
            if self._progress is not None:
                self._progress.update(self._progress.task_ids[0], description=description, completed=done, total=total)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with self._lock:
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.add_task(self._description, completed=self._done, total=self._total)
            self._progress.start()
