"""``vta compile``: from an ONNX model to a program file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import ConfigOption, config_option, json_option, number, one_of

if TYPE_CHECKING:
    from vta.api import CompiledProgram

EXAMPLES = (
    (
        "Quantise a float model with the ranges seen in a few images, and compile it for the default VTA",
        "vta compile model.onnx --calibrate images.npy -o model.vta",
    ),
    ("For a board", "vta compile model.onnx --calibrate images.npy --config pynq -o model.vta"),
    ("The same arithmetic for the CPU", "vta compile model.onnx --calibrate images.npy --target cpu -o cpu.vta"),
    ("Figures for a script", "vta compile model.onnx --calibrate images.npy -o model.vta --json"),
)


@command("compile", EXAMPLES)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Program file; MODEL.vta by default."
)
@config_option
@click.option(
    "--calibrate", type=click.Path(path_type=Path), metavar="FILE", help="Images (.npy, or .npz by input name)."
)
@click.option("--target", type=one_of("Target", ("vta", "cpu")), metavar="vta|cpu", default="vta", show_default=True)
@click.option(
    "--batch", type=number("--batch"), metavar="N", help="Images in one run; the configuration's BATCH by default."
)
@json_option
def compile_command(
    model: Path,
    output: Path | None,
    config: ConfigOption,
    calibrate: Path | None,
    target: str,
    batch: int | None,
    as_json: bool,
) -> None:
    """Compile a neural network, MODEL.onnx, to a program file.

    Weights and activations become 8-bit integers; --calibrate gives the images from which their ranges are learned.
    Prints what each layer costs: the bound on MAC utilisation is MACs / (cycles * MACs a cycle), where the cycles are
    at least the GEMM (reset included) and ALU micro-ops, and at least DRAM bytes / bus bytes.
    """
    if not model.is_file():
        raise CommandError(f"{model}: must be an ONNX file, and there is none")
    destination = output if output is not None else Path(model.name).with_suffix(".vta")
    check_outputs(
        [("--output", destination)], [("MODEL.onnx", model), ("--calibrate", calibrate), ("--config", config.path)]
    )
    with Activity("Compiling") as activity:
        from vta.api import compile_model
        from vta.cli.arrays import read_arrays

        calibration = None if calibrate is None else read_arrays(calibrate)
        program = compile_model(
            model,
            config=config.value,
            target=target,
            calibration=calibration,
            batch=batch,
            progress=lambda done, total: activity.step("Compiling", done, total),
        )
        data = program.program.to_bytes()
    write_files({destination: data})
    show(program, destination, len(data), as_json)


def show(program: CompiledProgram, path: Path, nbytes: int, as_json: bool) -> None:
    config, steps = program.program.config, len(program.program.steps)
    if as_json:
        print_json(
            {
                "file": str(path),
                "bytes": nbytes,
                "config": config.name,
                "batch": program.batch,
                "arena_bytes": program.program.arena_bytes,
                "layers": [cost.as_dict() for cost in program.report],
                "total": program.total.as_dict(),
            }
        )
        return
    if program.report:
        print_costs(f"Layers on {config.name}, batch {program.batch}", program)
    click.echo(f"{path}: {nbytes:,} bytes, {steps} steps, {program.program.arena_bytes:,} bytes of memory to run")


def print_costs(title: str, program: CompiledProgram) -> None:
    """The table of `vta.report`, with a row for all instructions together."""
    columns = ("layer", "insns", "DRAM bytes", "MACs", "GEMM+ALU uops", "cycles >=", "MAC util. <=")
    rows = [
        (
            cost.name,
            f"{cost.instructions:,}",
            f"{cost.dram_bytes:,}",
            f"{cost.macs:,}",
            f"{cost.gemm_uops + cost.reset_uops + cost.alu_uops:,}",
            f"{cost.cycles_bound:,}",
            f"{cost.utilisation_bound:.1%}",
        )
        for cost in (*program.report, program.total)
    ]
    print_table(title, columns, rows)
