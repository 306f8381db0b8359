"""``vta disasm``: programs as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.files import read_file
from vta.cli.params import ConfigOption, config_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vta_hw.spec.config import VTAConfig

_ZIP_MAGIC = b"PK"

EXAMPLES = (
    ("A compiled program, layer by layer", "vta disasm digits.vta"),
    ("With its micro-ops", "vta disasm digits.vta --uops"),
    ("Raw instructions of another compiler", "vta disasm insns.bin --config vta_config.json"),
)


@command("disasm", EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@click.option("--uops", is_flag=True, help="Also list the micro-ops (of a program file).")
@click.pass_context
def disasm_command(context: click.Context, file: Path, config: ConfigOption, uops: bool) -> None:
    """Print the instructions of a program as text.

    FILE is a program (.vta) or raw instructions of 16 bytes each. The text is what the assembler reads
    (vta_hw.spec.asm); comments tell layers and instruction numbers. --config says how to read raw instructions; a
    program file knows its own.
    """
    data = read_file(file)
    if data.startswith(_ZIP_MAGIC) or file.suffix == ".vta":
        if context.get_parameter_source("config") is click.core.ParameterSource.COMMANDLINE:
            raise CommandError("--config must not be given with a program file, which says it itself")
        lines = program_lines(file, uops)
    elif uops:
        raise CommandError(f"{file}: must be a program file for --uops, not raw instructions")
    else:
        lines = raw_lines(file, data, config.value)
    for line in lines:
        click.echo(line)


def program_lines(path: Path, uops: bool) -> Iterator[str]:
    from vta.listing import list_program
    from vta_hw.spec.program import Program

    return list_program(Program.load(path), uops=uops)


def raw_lines(path: Path, data: bytes, config: VTAConfig) -> Iterator[str]:
    from vta.listing import list_insns

    if not data or len(data) % 16:
        raise CommandError(f"{path}: must hold whole instructions of 16 bytes, not {len(data)} bytes")
    return list_insns(config, data)
