"""``vta compare``: the layers of a network on VTA and on this processor, and how each is scheduled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli import params
from vta.cli.command import command
from vta.cli.errors import CommandError, naming
from vta.cli.machine import MemoryOptions, memory_options
from vta.cli.output import Activity, print_beside, print_code, print_json, print_table, tight_width
from vta.cli.params import ConfigOption, config_option, json_option, repeat_option
from vta.cli.quantisation import Quantisation, quantisation_options
from vta.engine_names import Engine

if TYPE_CHECKING:
    from vta.compare import Comparison, HostRow, Row, Scheduled, Schedules, Verdict

BESIDE = 160
"""Columns of a terminal from which two schedules stand beside each other."""

EXAMPLES = (
    ("A float network, quantised once, on VTA at 100 MHz and on this CPU", "vta compare model.onnx --calibrate x.npy"),
    (
        "A faster clock, and a memory that takes 50 cycles",
        "vta compare model.onnx --calibrate x.npy --clock 300 --latency 50",
    ),
    (
        "One layer: its definition, the two schedules of it, and the primitives that made each",
        "vta compare model.onnx --calibrate x.npy --layer conv1 --width 180",
    ),
    ("A model that is quantised already; figures for a script", "vta compare quantized.onnx --json"),
)


@command("compare", EXAMPLES)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--layer", metavar="NAME", help="Only this layer, with the schedules of both.")
@click.option(
    "--clock", type=params.megahertz("--clock"), metavar="MHZ", default="100", show_default=True, help="Clock of VTA."
)
@repeat_option
@config_option
@quantisation_options
@memory_options
@click.option(
    "--width",
    type=params.count("--width", 40, 1000),
    metavar="N",
    help=f"Columns to print in, by default the terminal's; schedules stand side by side from {BESIDE}.",
)
@json_option
def compare_command(
    model: Path,
    layer: str | None,
    clock: float,
    repeat: int,
    config: ConfigOption,
    quantisation: Quantisation,
    memory: MemoryOptions,
    width: int | None,
    as_json: bool,
) -> None:
    """Compare VTA and this CPU, layer by layer.

    The network, MODEL.onnx, is quantised once and compiled for both. VTA's cycles are those of the cycle engine, which
    are the RTL's. The CPU's milliseconds are measured: processor time of one thread, each layer in its place in a run
    of the network, the best of --repeat. Both run the same inputs, the first that calibrate or else random ones, and
    must give the same bytes. MACs/byte is the arithmetic intensity: bytes are those of each tensor that the layer reads
    or writes, counted once.
    """
    if not model.is_file():
        raise CommandError(f"{model}: must be an ONNX file, and there is none")
    with Activity("Compiling") as activity:
        from vta.api import compile_model, named_samples
        from vta.compare import Pair

        calibration = quantisation.read(model, activity)
        compiled = compile_model(
            model,
            config=config.value,
            calibration=calibration,
            options=quantisation.options,
            progress=lambda done, total: activity.step("Compiling for VTA", done, total),
        )
        timing = memory.timing(Engine.CYCLE, config.value)
        activity.step("Compiling for the CPU")
        pair = Pair(compiled)
        schedules = None if layer is None else pair.schedules(layer)
        with naming(config.path):
            result = pair.compare(
                clock=clock,
                timing=timing,
                repeat=repeat,
                samples=named_samples(compiled.inputs, calibration),
                progress=activity.step,
            )
    if as_json:
        print_json({**result.as_dict(), **({} if schedules is None else {"schedules": schedules.as_dict()})})
        return
    columns = width or shutil.get_terminal_size().columns
    if schedules is None:
        show(model.stem, result, columns)
    else:
        show_layer(result, schedules, columns)


def show(name: str, result: Comparison, width: int) -> None:
    """All layers, the host's steps, and the whole."""
    from vta.compare import Verdict

    show_layers(f"Layers of {name}, {processors(result)}", (*result.layers, result.total), result, width)
    show_hosts("Steps of the host, with VTA and without", result.hosts, result, width)
    layers = 0.0 if result.total.cpu is None else result.total.cpu.best
    whole = [
        ("layers", result.total.vta_ms, layers, Verdict.of(result.total.vta_ms, layers)),
        ("host", result.host.best, result.rest.best, None),
        ("network", result.vta_ms, result.cpu.best, Verdict.of(result.vta_ms, result.cpu.best)),
    ]
    ms, verdicts = milliseconds(result), shown([verdict for *_, verdict in whole])
    print_table(
        f"The network, {'one image' if result.batch == 1 else f'{result.batch} images'}",
        ("", "VTA ms", "CPU ms", "faster"),
        [(part, ms(vta), ms(cpu), verdict) for (part, vta, cpu, _), verdict in zip(whole, verdicts, strict=True)],
        text_columns=(0, 3),
        tight=True,
    )
    click.echo("All outputs of both are equal, byte for byte. The host of both is this CPU.")


def show_layer(result: Comparison, schedules: Schedules, width: int) -> None:
    """One layer: figures, definitions, schedules, primitives."""
    rows = [row for row in result.layers if row.name == schedules.name]
    if rows:
        show_layers(f"{schedules.name}, {processors(result)}", rows, result, width)
    hosts = [row for row in result.hosts if row.name == schedules.name]
    show_hosts(f"{schedules.name}, on the host", hosts, result, width)
    vta, cpu = schedules.vta, schedules.cpu
    both = vta is not None and cpu is not None and vta.definition == cpu.definition
    sides = [(name, each) for name, each in (("VTA", vta), ("the CPU", cpu)) if each is not None]
    columns = [(f"The definition for {name}", _definition(each)) for name, each in sides]
    show_code([("The definition, from which both start", columns[0][1])] if both else columns, width)
    show_code([(f"The schedule on {name}", each.text.splitlines()) for name, each in sides], width)
    show_code([(f"The primitives that led there on {name}", each.primitives) for name, each in sides], width)


def _definition(scheduled: Scheduled) -> list[str]:
    from compiler.tensor.printer import format_proc

    return format_proc(scheduled.definition).splitlines()


def show_code(parts: Sequence[tuple[str, Sequence[str]]], width: int) -> None:
    """Pieces of code: two beside each other where there is room, else one below the other."""
    if len(parts) == 2 and width >= BESIDE:
        print_beside(parts[0], parts[1], width)
        return
    for title, lines in parts:
        print_code(title, lines or ["none: it runs as it is defined"], width)


def show_layers(title: str, rows: Sequence[Row], result: Comparison, width: int) -> None:
    """One table, or two where it is wider than `width`."""
    heads = ("layer", "op", "MACs", "MACs\n/byte", "VTA\ncycles", "\nms", "of\npeak", "CPU\nms", "\nGMAC/s", "\nfaster")
    ms = milliseconds(result)
    table = []
    for row, verdict in zip(rows, shown([row.verdict for row in rows]), strict=True):
        has_macs = row.macs > 0
        table.append(
            (
                row.name,
                row.op,
                f"{row.macs:,}" if has_macs else "",
                f"{row.intensity:.1f}" if has_macs else "",
                f"{row.cycles:,}",
                ms(row.vta_ms),
                f"{row.utilisation:.1%}" if has_macs else "",
                "" if row.cpu is None else ms(row.cpu.best),
                f"{row.gmacs:.1f}" if has_macs else "",
                verdict,
            )
        )
    print_fitting(title, "What they compute", heads, table, (0, 1, 9), (0, *range(4, len(heads))), (0, 1, 2, 3), width)


def print_fitting(
    title: str,
    second_title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: Sequence[int],
    first: Sequence[int],
    second: Sequence[int],
    width: int,
) -> None:
    """A table, or two, of the `first` columns and of the `second`, where it is wider than `width`."""
    parts: list[tuple[str, Sequence[int]]] = [(title, range(len(heads)))]
    if tight_width(heads, rows) > width:
        parts = [(title, first), (second_title, second)]
    for heading, chosen in parts:
        print_table(
            heading,
            [heads[k] for k in chosen],
            [[row[k] for k in chosen] for row in rows],
            [place for place, k in enumerate(chosen) if k in text_columns],
            tight=True,
        )


def show_hosts(title: str, rows: Sequence[HostRow], result: Comparison, width: int) -> None:
    """The steps that are on no accelerator, likewise; nothing if there are none."""
    if rows:
        ms = milliseconds(result)
        cells = [
            (row.name, row.op, *("" if time is None else ms(time.best) for time in (row.vta, row.cpu)), row.reason)
            for row in rows
        ]
        heads = ("step", "op", "VTA's\nhost ms", "CPU\nms", "because of")
        print_fitting(title, "Why they are on the host", heads, cells, (0, 1, 4), (0, 2, 3), (0, 1, 4), width)


def processors(result: Comparison) -> str:
    """Such as ``VTA 1x16x16 at 100 MHz and one thread of this CPU``."""
    return f"VTA {result.config.name} at {result.total.clock:g} MHz and one thread of this CPU"


def milliseconds(result: Comparison) -> Callable[[float], str]:
    """As text, with the decimals that a network so fast needs."""
    decimals = 3 if min(result.vta_ms, result.cpu.best) >= 1 else 4
    return lambda ms: f"{ms:,.{decimals}f}"


def shown(verdicts: Sequence[Verdict | None]) -> list[str]:
    """Such as ``VTA  1.71×``, with the points below each other."""
    factors = ["" if verdict is None else f"{verdict.factor:,.2f}×" for verdict in verdicts]
    width = max(map(len, factors), default=0)
    return [
        "" if verdict is None else f"{verdict.winner} {factor:>{width}}"
        for verdict, factor in zip(verdicts, factors, strict=True)
    ]
