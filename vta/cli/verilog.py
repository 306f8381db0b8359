"""``vta verilog``: the accelerator as Verilog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import naming
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json
from vta.cli.params import ConfigOption, config_option, json_option

if TYPE_CHECKING:
    from vta_hw.spec.config import VTAConfig

EXAMPLES = (
    ("The default VTA, into vta.v", "vta verilog"),
    ("A small one, for simulation", "vta verilog --config tiny -o tiny.v"),
    ("One of your own", "vta verilog --config my_vta.json -o my_vta.v"),
)


@command("verilog", EXAMPLES)
@config_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default="vta.v",
    show_default=True,
    help="Verilog file.",
)
@json_option
def verilog_command(config: ConfigOption, output: Path, as_json: bool) -> None:
    """Write the accelerator as one file of Verilog (IEEE 1364-2005).

    The top module is `vta`: an AXI4-Lite slave with the control registers, an AXI4 master to memory, an interrupt, one
    clock. Its comment lists configuration and ports. Equal configurations give equal files.
    """
    check_outputs([("--output", output)], [("--config", config.path)])
    with Activity("Writing Verilog"), naming(config.path):
        from vta_hw.rtl.verilog import TOP, emit

        text = emit(config.value)
    write_files({output: text.encode()})
    show(config.value, output, text, TOP, as_json)


def show(config: VTAConfig, path: Path, text: str, top: str, as_json: bool) -> None:
    lines, modules = text.splitlines(), text.count("\nendmodule\n")
    if as_json:
        figures = {"top": top, "modules": modules, "lines": len(lines), "bytes": len(text.encode())}
        print_json({"file": str(path), "config": config.name, "digest": config.digest, **figures})
    else:
        click.echo(f"{path}: {config.name}, top module {top}, {modules} modules, {len(lines):,} lines")
