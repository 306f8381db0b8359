"""``vta demo``: the digits network on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.compile import print_costs
from vta.cli.errors import CommandError
from vta.cli.files import check_outputs, write_files
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import ConfigOption, config_option, json_option, number, one_of

if TYPE_CHECKING:
    from vta.demo.study import Result, Study

ENGINES = ("interp", "llvm", "functional")
HELD_OUT_IMAGES = 360
EXIT_DISAGREE = 1
TITLES = {
    "float": "float32 network, numpy",
    "reference": "int8 reference, numpy",
    "interp": "tensor IR, interpreter",
    "llvm": "tensor IR, LLVM on this CPU",
    "functional": "VTA, functional simulator",
}

EXAMPLES = (
    ("Everything, on the default VTA", "vta demo"),
    ("Another accelerator", "vta demo --config ultra96"),
    ("Fewer images, two engines", "vta demo --images 32 --engine llvm --engine functional"),
    ("Figures for a script", "vta demo --json"),
)


@command("demo", EXAMPLES)
@config_option
@click.option(
    "--engine",
    "engines",
    type=one_of("Engine", ENGINES),
    multiple=True,
    metavar="NAME",
    help=f"Run on these only: {', '.join(ENGINES)}. May be repeated.",
)
@click.option("--images", type=number("--images"), default=str(HELD_OUT_IMAGES), metavar="N", help="Held-out images.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="digits.vta", show_default=True, metavar="FILE"
)
@json_option
def demo_command(config: ConfigOption, engines: tuple[str, ...], images: int, output: Path, as_json: bool) -> int:
    """Run a small network on every engine and compare.

    The network recognises handwritten digits: three convolutions with a residual connection, a strided one, pooling,
    dense, softmax. It was trained on 1,437 images of 8x8 pixels; the 360 others are run here, in float, in the int8
    reference, and on the engines. The exit code is 1 if an engine differs from the reference in any byte of any output.
    """
    if not 1 <= images <= HELD_OUT_IMAGES:
        raise CommandError(f"--images must be 1 to {HELD_OUT_IMAGES}, the held-out images, not {images}")
    check_outputs([("--output", output)], [("--config", config.path)])
    with Activity("Loading the compiler") as activity:
        from vta.demo.study import study
        from vta.engines import Engine

        chosen = [Engine(name) for name in ENGINES if not engines or name in engines]
        result = study(
            config.value, chosen, images, lambda title, done, total: activity.step(title, done, total or None)
        )
        data = result.program.program.to_bytes()
    write_files({output: data})
    if as_json:
        print_json(figures(result, output))
    else:
        show(result, output)
    return 0 if result.agree else EXIT_DISAGREE


def figures(study: Study, output: Path) -> dict[str, object]:
    """Everything that `show` prints."""
    return {
        "config": study.program.program.config.name,
        "file": str(output),
        "agree": study.agree,
        "engines": [result.as_dict() for result in study.results],
        "layers": [cost.as_dict() for cost in study.program.report],
        "total": study.program.total.as_dict(),
    }


def show(study: Study, output: Path) -> None:
    config = study.program.program.config
    rows = [
        (TITLES[r.engine], str(r.images), f"{r.accuracy:.2%}", agreement(r), f"{r.seconds:.1f} s")
        for r in study.results
    ]
    print_table(
        f"Held-out digits on {config.name}", ("engine", "images", "accuracy", "bytes as reference", "time"), rows
    )
    print_costs(f"Layers, for {study.program.batch} image(s)", study.program)
    click.echo(
        "cycles >= max(GEMM micro-ops with resets + ALU micro-ops, DRAM bytes loaded and stored / bus bytes);\n"
        f"MAC util. <= MACs / (cycles * {config.batch * config.block_in * config.block_out} MACs a cycle), "
        "whatever the schedule of the machine\n"
    )
    if not study.agree:
        click.echo("The engines DISAGREE: this is a defect of the toolkit\n")
    click.echo(f"{output} holds the compiled program. Try next:\n")
    for line in (
        f"vta disasm {output} | less",
        "vta demo --config tiny --images 32 -o tiny.vta",
        "vta config ultra96",
    ):
        click.echo(f"  {line}")


def agreement(result: Result) -> str:
    if result.agrees is None:
        return "-" if result.engine == "float" else "is the reference"
    return "all equal" if result.agrees else "DIFFER"
