"""``vta config``: what a configuration says and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.files import check_outputs, write_files
from vta.cli.output import print_json, print_table
from vta.cli.params import ConfigOption, json_option
from vta.cli.params import config as config_value

if TYPE_CHECKING:
    from vta_hw.spec.config import VTAConfig

EXAMPLES = (
    ("The presets", "vta config --list"),
    ("Parameters, buffer depths and instruction fields of the default VTA", "vta config sim"),
    ("A configuration file of your own, in TVM's format", "vta config tiny --save my_vta.json"),
    ("Check a file and see what it means", "vta config my_vta.json"),
)


@command("config", EXAMPLES)
@click.argument("config", metavar="[NAME|FILE]", type=config_value, required=False)
@click.option("--list", "list_presets", is_flag=True, help="List the presets.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Write a vta_config.json, as TVM reads it."
)
@json_option
def config_command(config: ConfigOption | None, list_presets: bool, save: Path | None, as_json: bool) -> None:
    """Show a configuration and what follows from it.

    NAME is a preset's, FILE a vta_config.json; by default `sim`. Prints the parameters, the depths of the buffers and
    the bits of every instruction field. With --json, prints the configuration in TVM's format.
    """
    if list_presets:
        if config is not None or save is not None:
            raise CommandError("--list must stand alone, without a configuration or --save")
        show_presets(as_json)
        return
    chosen = config_value("sim") if config is None else config
    check_outputs([("--save", save)], [("FILE", chosen.path)])
    if save is not None:
        write_files({save: chosen.value.to_json().encode()})
    if as_json:
        print_json(chosen.value.to_dict())
    elif save is None:
        show(chosen.value)


def show_presets(as_json: bool) -> None:
    from vta_hw.spec.config import PRESETS

    if as_json:
        print_json({name: config.to_dict() for name, config in PRESETS.items()})
        return
    rows = [
        (name, config.name, str(config.bus_bits), str(config.batch * config.block_in * config.block_out))
        for name, config in PRESETS.items()
    ]
    print_table(
        "Presets", ("name", "batch x in x out, widths, log2 buffer bytes", "bus bits", "MACs a cycle"), rows, (0, 1)
    )


def show(config: VTAConfig) -> None:
    from vta_hw.spec.isa import FIELDS, ISA, Format

    print_table(
        f"{config.name}, target {config.target}, ISA {config.hw_ver}",
        ("parameter (log2)", "value"),
        [(key, str(value)) for key, value in config.to_dict().items() if key.startswith("LOG_")],
    )
    acc_tile = f"{config.batch}x{config.block_out}"
    buffers = (
        ("micro-ops", 32, "1", config.uop_elem_bytes, config.uop_depth),
        ("inputs", config.inp_bits, f"{config.batch}x{config.block_in}", config.inp_elem_bytes, config.inp_depth),
        ("weights", config.wgt_bits, f"{config.block_out}x{config.block_in}", config.wgt_elem_bytes, config.wgt_depth),
        (
            "accumulators",
            config.acc_bits,
            f"{config.batch}x{config.block_out}",
            config.acc_elem_bytes,
            config.acc_depth,
        ),
        ("outputs", config.out_bits, acc_tile, config.out_elem_bytes, config.out_depth),
    )
    print_table(
        "Buffers",
        ("buffer", "scalar bits", "element", "element bytes", "depth", "bytes"),
        [
            (name, str(bits), shape, str(nbytes), f"{depth:,}", f"{nbytes * depth:,}")
            for name, bits, shape, nbytes, depth in buffers
        ],
    )
    click.echo(
        f"{config.batch * config.block_in * config.block_out:,} multiply-accumulates a cycle, "
        f"{config.bus_bits} bus bits\n"
    )
    isa = ISA(config)
    for kind in (Format.MEMORY, Format.GEMM, Format.ALU, Format.UOP):
        meanings = {field.name: field.meaning for field in FIELDS[kind]}
        print_table(
            f"{kind.value.upper()} fields",
            ("field", "bits", "width", "meaning"),
            [
                (field.name, f"[{field.lsb + field.width - 1}:{field.lsb}]", str(field.width), meanings[field.name])
                for field in isa.layout(kind)
            ],
            text_columns=(0, 3),
        )
