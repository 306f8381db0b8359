"""``vta compile``: from an ONNX model to a program file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import ConfigOption, config_option, json_option, number, one_of
from vta.cli.quantisation import Quantisation, quantisation_options

if TYPE_CHECKING:
    from compiler.graph.quantize.noise import LayerNoise
    from vta.api import CompiledProgram

EXAMPLES = (
    (
        "Quantise a float model with the ranges seen in a few images, and compile it for the default VTA",
        "vta compile model.onnx --calibrate images.npy -o model.vta",
    ),
    (
        "With a folder of photographs, normalised as ImageNet's are",
        "vta compile model.onnx --calibrate photos --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
    ("For a board", "vta compile model.onnx --calibrate images.npy --config pynq -o model.vta"),
    ("The same arithmetic for the CPU", "vta compile model.onnx --calibrate images.npy --target cpu -o cpu.vta"),
    ("A model that is quantised already, in QDQ or QOperator form", "vta compile quantized.onnx -o model.vta"),
    (
        "What each layer loses by quantisation",
        "vta compile model.onnx --calibrate images.npy -o model.vta --noise",
    ),
    ("Figures for a script", "vta compile model.onnx --calibrate images.npy -o model.vta --json"),
)


@command("compile", EXAMPLES)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Program file; MODEL.vta by default."
)
@config_option
@quantisation_options
@click.option("--target", type=one_of("Target", ("vta", "cpu")), metavar="vta|cpu", default="vta", show_default=True)
@click.option(
    "--batch", type=number("--batch"), metavar="N", help="Images in one run; the configuration's BATCH by default."
)
@click.option("--noise", is_flag=True, help="Print what each layer loses by quantisation, on those images.")
@json_option
def compile_command(
    model: Path,
    output: Path | None,
    config: ConfigOption,
    quantisation: Quantisation,
    target: str,
    batch: int | None,
    noise: bool,
    as_json: bool,
) -> None:
    """Compile a neural network, MODEL.onnx, to a program file.

    Weights and activations become 8-bit integers; --calibrate gives the images from which their ranges are learned.
    A model that is quantised already brings its ranges along; with --target cpu and without --calibrate any other stays
    as it is. Prints what each layer costs: the bound on MAC
    utilisation is MACs / (cycles * MACs a cycle), where the cycles are at least the GEMM (reset included) and ALU
    micro-ops, and at least DRAM bytes / bus bytes.
    """
    if not model.is_file():
        raise CommandError(f"{model}: must be an ONNX file, and there is none")
    calibrate = quantisation.calibrate
    if noise and calibrate is None:
        raise CommandError("--noise must be given with --calibrate, on whose images it is measured")
    destination = output if output is not None else Path(model.name).with_suffix(".vta")
    check_outputs(
        [("--output", destination)], [("MODEL.onnx", model), ("--calibrate", calibrate), ("--config", config.path)]
    )
    with Activity("Compiling") as activity:
        from vta.api import compile_model, layer_noise

        calibration = quantisation.read(model, activity)
        program = compile_model(
            model,
            config=config.value,
            target=target,
            calibration=calibration,
            options=quantisation.options,
            batch=batch,
            progress=lambda done, total: activity.step("Compiling", done, total),
        )
        data = program.program.to_bytes()
        losses = None
        if noise and calibration is not None:
            activity.step("Measuring noise", 0, 1)
            losses = layer_noise(model, config=config.value, calibration=calibration, options=quantisation.options)
    write_files({destination: data})
    show(program, destination, len(data), as_json, losses)


def show(program: CompiledProgram, path: Path, nbytes: int, as_json: bool, losses: Sequence[LayerNoise] | None) -> None:
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
                "hosts": hosts_of(program),
                **({} if losses is None else {"noise": [_finite(loss) for loss in losses]}),
            }
        )
        return
    if program.report:
        print_costs(f"Layers on {config.name}, batch {program.batch}", program)
        print_table("On the host", ("step", "because of"), list(hosts_of(program).items()), (0, 1))
    if losses:
        print_noise(losses)
    click.echo(f"{path}: {nbytes:,} bytes, {steps} steps, {program.program.arena_bytes:,} bytes of memory to run")


def hosts_of(program: CompiledProgram) -> dict[str, str]:
    """Why each host step is not on the accelerator; a program of another compiler does not say."""
    hosts = program.program.attributes.get("hosts", {})
    return {str(step): str(reason) for step, reason in hosts.items()} if isinstance(hosts, Mapping) else {}


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


def _finite(loss: LayerNoise) -> dict[str, object]:
    """Fields for JSON, which knows no infinity: null where nothing is lost."""
    fields = asdict(loss)
    return {key: None if value in (math.inf, -math.inf) else value for key, value in fields.items()}


def print_noise(losses: Sequence[LayerNoise]) -> None:
    """Signal to noise of each layer, and the layer that loses most."""
    rows = [(loss.node, loss.kind, f"{loss.total:.1f}", f"{loss.own:.1f}") for loss in losses]
    print_table("Signal to noise, dB", ("layer", "op", "network", "layer alone"), rows, text_columns=(0, 1))
    worst = min(losses, key=lambda loss: loss.own)
    click.echo(f"{worst.node} loses most: {worst.own:.1f} dB of its own")
