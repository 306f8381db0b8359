"""``vta bench``: how fast networks are on this processor, beside onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import ConfigOption, config_option, json_option, number, one_of, repeat_option
from vta.cli.quantisation import Quantisation, quantisation_options

if TYPE_CHECKING:
    from vta.benchmark import Result
    from vta.cli.quantisation import Inputs

EXAMPLES = (
    ("The demo network, in float32 and in int8", "vta bench cpu"),
    ("Networks of your own, as they are", "vta bench cpu resnet18.onnx mobilenet.onnx --repeat 50"),
    ("And in int8, on two threads", "vta bench cpu model.onnx --calibrate images.npy --threads 2"),
    ("Figures for a script", "vta bench cpu model.onnx --json"),
)

INSTALL = "onnxruntime is not installed: `pip install onnxruntime` shows its times beside these."


@command("bench", EXAMPLES)
@click.argument("processor", metavar="cpu", type=one_of("Processor", ("cpu",)))
@click.argument("models", metavar="[MODEL.onnx]...", nargs=-1, type=click.Path(path_type=Path))
@repeat_option
@click.option(
    "--threads", type=number("--threads"), default="1", show_default=True, metavar="N", help="Threads that compute."
)
@config_option
@quantisation_options
@json_option
def bench_command(
    processor: str,
    models: tuple[Path, ...],
    repeat: int,
    threads: int,
    config: ConfigOption,
    quantisation: Quantisation,
    as_json: bool,
) -> None:
    """Time networks on this CPU, beside onnxruntime.

    Each MODEL.onnx is compiled for the CPU as it is, float or quantised, and once more in integers with --calibrate.
    Where onnxruntime is installed, it runs the same file with the same inputs; both take turns in one process. Times
    are of the processor, on one thread, and on the wall, on several. Without a model, the demo network is timed.
    """
    for model in models:
        if not model.is_file():
            raise CommandError(f"{model}: must be an ONNX file, and there is none")
    if not models and quantisation.calibrate is not None:
        raise CommandError("--calibrate must be given with a model, for the demo network has its own images")
    with Activity("Loading the compiler") as activity:
        from vta.benchmark import benchmark, onnxruntime_version

        results: list[Result] = []
        for name, source, calibration in _networks(models, quantisation, activity):
            results += benchmark(
                name,
                source,
                config=config.value,
                calibration=calibration,
                options=quantisation.options,
                repeat=repeat,
                threads=threads,
                progress=activity.step,
            )
        version = onnxruntime_version()
    if as_json:
        figures = [result.as_dict() for result in results]
        print_json({"threads": threads, "repeat": repeat, "onnxruntime": version, "networks": figures})
        return
    show(results, threads, version)


def _networks(
    models: Sequence[Path], quantisation: Quantisation, activity: Activity
) -> Iterator[tuple[str, Path | bytes, Inputs | None]]:
    """(name, model, calibration inputs) of each."""
    for model in models:
        yield model.stem, model, quantisation.read(model, activity)
    if not models:
        from vta.demo.data import load_digits, model_bytes

        digits = load_digits()
        yield "digits", model_bytes(), digits.inputs(digits.train)


def show(results: Sequence[Result], threads: int, version: str | None) -> None:
    """A line for each network and its numbers."""
    what = "one thread, processor time" if threads == 1 else f"{threads} threads, time on the wall"
    heads = ["network", "numbers", "ms\nbest", "\nmedian"]
    rows = [[r.network, r.numbers, f"{r.ours.best:,.3f}", f"{r.ours.median:,.3f}"] for r in results]
    if version is not None:
        heads += ["onnxruntime\nbest", "\nmedian", "ratio", "difference"]
        for row, result in zip(rows, results, strict=True):
            row += _beside(result)
    print_table(f"Networks on this CPU, {what}", heads, rows, text_columns=(0, 1), tight=True)
    if version is None:
        click.echo(INSTALL)
        return
    click.echo(
        f"onnxruntime {version} runs the file as it is. A ratio above 1: the toolkit is faster. Differences are the"
    )
    click.echo("largest of an answer, relative to the largest answer.")
    for mine, theirs in dict.fromkeys((r.numbers, r.other.numbers) for r in results if r.other is not None):
        if mine != theirs:
            click.echo(f"Ratios of {mine} are to {theirs}, which the file has, and not of the same arithmetic.")
    for result in results:
        if result.other is None:
            click.echo(f"onnxruntime cannot run {result.network} with these inputs.")


def _beside(result: Result) -> tuple[str, ...]:
    other, ratio = result.other, result.ratio
    if other is None:
        return ("-", "-", "-", "-")
    shown = "-" if ratio is None else f"{ratio:.2f}"
    return f"{other.time.best:,.3f}", f"{other.time.median:,.3f}", shown, f"{other.difference:.1e}"
