"""From exceptions to exit codes: 2 with one sentence for what the user can mend, 130 for Ctrl-C.

A reader that leaves early (`vta disasm ... | head`) is handled by click: silence and exit code 1. Anything else is a
mistake in the toolkit and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """Refusal of a request on the command line; the message is one sentence."""


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Puts the file of a configuration before what its machine is refused for; a preset has none."""
    from vta_hw.spec.parameters import ConfigError

    try:
        yield
    except ConfigError as error:
        if path is None:
            raise
        raise CommandError(f"{path}: {error}") from error


def typed_errors() -> tuple[type[Exception], ...]:
    """The toolkit's own errors, whose messages are made to be shown. Imported when one may have happened."""
    from compiler.errors import CompileError
    from runtime.errors import RunError
    from vta.errors import ApiError
    from vta_hw.spec.asm import AsmError
    from vta_hw.spec.config import ConfigError
    from vta_hw.spec.isa import EncodingError
    from vta_hw.spec.program import ProgramError
    from vta_sim.errors import SimulationError

    return (
        CommandError,
        ApiError,
        AsmError,
        CompileError,
        ConfigError,
        EncodingError,
        ProgramError,
        RunError,
        SimulationError,
    )


def run_guarded(command: click.Command, args: Sequence[str] | None) -> int:
    """Run a command to its exit code, with every expected failure as one line on stderr."""
    try:
        code = command.main(args=args, prog_name="vta", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return refuse(error.format_message())
    except OSError as error:
        return refuse(describe(error))
    except MemoryError as error:
        return refuse(f"Memory must suffice for this, and does not: {error}")
    except Exception as error:
        if isinstance(error, typed_errors()):
            return refuse(str(error))
        raise
    return code if isinstance(code, int) else 0


def describe(error: OSError) -> str:
    """A file system error in one sentence."""
    name = f"{error.filename}: " if error.filename is not None else ""
    return f"{name}{error.strerror or error}"


def refuse(message: str) -> int:
    """Print a refusal, on one line whatever it quotes."""
    click.echo("error: " + " ".join(message.split()), err=True)
    return EXIT_REFUSED
