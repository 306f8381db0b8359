"""``vta object``: a network as an object file and a C header, to link into other programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json
from vta.cli.params import json_option

if TYPE_CHECKING:
    from compiler.llvm.objects import NetworkObject

EXAMPLES = (
    (
        "A network for 64-bit ARM, into objects/digits.o and objects/digits.h",
        "vta object digits.vta --target aarch64 -o objects",
    ),
    ("Under another name, so that its function is eyes_run", "vta object net.vta --target riscv64 --name eyes"),
    ("Figures for a script", "vta object net.vta --target armv7 --json"),
)


@command("object", EXAMPLES)
@click.argument("program", metavar="PROGRAM.vta", type=click.Path(path_type=Path))
@click.option(
    "--target",
    required=True,
    metavar="NAME",
    help="Processor: aarch64, aarch64-dotprod, armv7, riscv64 (with vectors), x86-64-v2, x86-64-v3 or x86-64-v4.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    default=".",
    show_default=True,
    help="Folder of the two files, which must exist.",
)
@click.option("--name", metavar="NAME", help="Of files and C function; that of PROGRAM.vta by default.")
@json_option
def object_command(program: Path, target: str, output: Path, name: str | None, as_json: bool) -> None:
    """Compile a program for the CPU, PROGRAM.vta, to an object file and its C header.

    NAME.o has one function, NAME_run, that runs the network in memory that its caller gives, with the weights beside
    it; NAME.h declares it and says how large everything is. It needs no more than a C library. `vta compile --target
    cpu` makes such programs.
    """
    chosen = name if name is not None else re.sub(r"[^A-Za-z0-9_]", "_", program.stem)
    if not output.is_dir():
        raise CommandError(f"{output}: must be a folder, and there is none")
    files = {suffix: output / f"{chosen}.{suffix}" for suffix in ("o", "h")}
    check_outputs([("--output", path) for path in files.values()], [("PROGRAM.vta", program)])
    with Activity("Compiling"):
        from compiler.llvm.objects import compile_object
        from compiler.llvm.target import Target
        from vta_hw.spec.program import Program

        made = compile_object(Program.load(program), Target.named(target), chosen)
    write_files({files["o"]: made.code, files["h"]: made.header.encode()})
    show(made, files["o"], files["h"], target, as_json)


def show(made: NetworkObject, code: Path, header: Path, target: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "object": str(code),
                "header": str(header),
                "target": target,
                "bytes": len(made.code),
                "constant_bytes": made.constant_bytes,
                "workspace_bytes": made.workspace_bytes,
                "calls": list(made.calls),
            }
        )
        return
    calls = ", ".join(made.calls) or "nothing"
    click.echo(
        f"{code}: {len(made.code):,} bytes for {target}, {made.constant_bytes:,} of them constants; "
        f"{made.workspace_bytes:,} bytes of workspace; calls {calls}"
    )
    click.echo(f"{header}: the C header")
