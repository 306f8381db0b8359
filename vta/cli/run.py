"""``vta run``: a compiled program on inputs from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vta.cli.command import command
from vta.cli.errors import CommandError, naming
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import json_option, number, one_of, seconds
from vta.engine_names import ON_ACCELERATOR, ON_CPU

if TYPE_CHECKING:
    from runtime.session import RunStatistics
    from vta.api import CompiledProgram
    from vta.batching import Array

ENGINES = tuple(engine.value for engine in (*ON_ACCELERATOR, *ON_CPU))

EXAMPLES = (
    ("One input, one output; x.npy holds any number of images", "vta run model.vta --input x.npy --output y.npy"),
    ("Several inputs, by name", "vta run model.vta --input left=a.npy --input right=b.npy --output score=y.npy"),
    ("A program compiled with --target cpu, in the slow interpreter", "vta run cpu.vta --input x.npy --engine interp"),
    ("A program compiled with --target cpu, on four processors", "vta run cpu.vta --input x.npy --threads 4"),
    ("Statistics for a script", "vta run model.vta --input x.npy --json"),
)


@command("run", EXAMPLES)
@click.argument("program", metavar="PROGRAM.vta", type=click.Path(path_type=Path))
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]FILE", help="Input as .npy, or all inputs as .npz.")
@click.option("--output", "outputs", multiple=True, metavar="[NAME=]FILE", help="Write an output as .npy.")
@click.option(
    "--engine", type=one_of("Engine", ENGINES), metavar="NAME", help="By default what the program was compiled for."
)
@click.option("--timeout", type=seconds("--timeout"), metavar="SECONDS", help="Give up when one launch takes so long.")
@click.option(
    "--threads",
    type=number("--threads"),
    default="1",
    show_default=True,
    metavar="N",
    help="Compute what runs on the CPU with so many threads.",
)
@json_option
def run_command(
    program: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    engine: str | None,
    timeout: float | None,
    threads: int,
    as_json: bool,
) -> None:
    """Run a compiled program on inputs from NumPy files.

    The first dimension of an input is the batch, of any size. Engines: `functional` simulates the accelerator, and so
    do `cycle`, with its time, `rtl`, by its RTL, and `amaranth`, the same and slowly; `llvm` and `interp` execute
    programs that were compiled with --target cpu.
    """
    from vta.cli.arrays import match_outputs, npy_bytes, parse_named, read_inputs

    given = [parse_named("--input", text) for text in inputs]
    wanted = [parse_named("--output", text) for text in outputs]
    check_outputs(
        [("--output", file.path) for file in wanted],
        [("PROGRAM.vta", program), *(("--input", file.path) for file in given)],
    )
    with Activity("Loading the program") as activity:
        from vta.api import load

        compiled = load(program)
        files = match_outputs(wanted, [port.name for port in compiled.outputs])
        if not given and compiled.inputs:
            ports = ", ".join(f"{port.name} {port.of_any_batch()}" for port in compiled.inputs)
            raise CommandError(f"Inputs must be given with --input [NAME=]FILE: {ports}")
        arrays = read_inputs(given)
        if not isinstance(arrays, dict):
            arrays = compiled.named(arrays)
        activity.step("Running")
        with naming(program):
            results = compiled.run(
                arrays,
                engine,
                timeout=timeout,
                threads=threads,
                progress=lambda done, total: activity.step("Running", done, total),
            )
        assert isinstance(results, dict)
    write_files({path: npy_bytes(results[name]) for name, path in files.items()})
    chosen = engine or compiled.engines[0].value
    images = len(next(iter(arrays.values()))) if compiled.by_image else 1
    show(compiled, chosen, images, results, files, as_json)


def show(
    program: CompiledProgram,
    engine: str,
    images: int,
    results: dict[str, Array],
    files: dict[str, Path],
    as_json: bool,
) -> None:
    statistics = program.statistics
    if as_json:
        print_json(
            {
                "engine": engine,
                "config": program.program.config.name,
                "images": images,
                "outputs": [
                    {
                        "name": name,
                        "dtype": str(array.dtype),
                        "shape": list(array.shape),
                        "file": str(files[name]) if name in files else None,
                    }
                    for name, array in results.items()
                ],
                **statistics_json(statistics),
            }
        )
        return
    rows = [(name, str(array.dtype), str(list(array.shape))) for name, array in results.items()]
    print_table(f"{images} images on {engine}", ("output", "dtype", "shape"), rows)
    if statistics.counters:
        print_table(
            "Counted", ("counter", "total"), [(key, f"{value:,}") for key, value in statistics.counters.items()]
        )


def statistics_json(statistics: RunStatistics) -> dict[str, Any]:
    """Totals, and each layer's share."""
    return {
        "counters": dict(statistics.counters),
        "layers": [
            {"name": layer.name, "macs": layer.macs, "counters": dict(layer.counters)} for layer in statistics.layers
        ],
    }
