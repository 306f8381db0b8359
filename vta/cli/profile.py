"""``vta profile``: where the cycles of a program go, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli import params
from vta.cli.command import command
from vta.cli.errors import CommandError, naming
from vta.cli.files import check_outputs, write_lines
from vta.cli.machine import Machine, MemoryOptions, engine_option, memory_options
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import ConfigOption, allow_races_option, config_option, json_option
from vta.cli.quantisation import NAMES, Quantisation, quantisation_options
from vta.engine_names import TIMED, Engine

if TYPE_CHECKING:
    from vta.profile import Profile, Row
    from vta_hw.spec.program import Program
    from vta_sim.trace import Trace

EXAMPLES = (
    ("A compiled program, or a raw one", "vta profile model.vta"),
    (
        "A network, compiled for the default VTA; the memory takes 50 cycles, the clock has 100 MHz",
        "vta profile model.onnx --calibrate images.npy --latency 50 --clock 100",
    ),
    ("On the RTL, and a file for https://ui.perfetto.dev", "vta profile model.vta --engine rtl --trace trace.json"),
    ("Everything, with each instruction, for a script", "vta profile model.vta --instructions --json"),
)


@command("profile", EXAMPLES)
@click.argument("program", metavar="PROGRAM.vta|MODEL.onnx", type=click.Path(path_type=Path))
@engine_option(TIMED)
@memory_options
@click.option("--clock", type=params.megahertz("--clock"), metavar="MHZ", help="Also tell times, at this clock.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="Write a trace for Perfetto, as JSON.")
@click.option("--instructions", is_flag=True, help="Also list every instruction with its cycles.")
@config_option
@quantisation_options
@click.option(
    "--timeout", type=params.seconds("--timeout"), metavar="SECONDS", help="Give up when one launch takes so long."
)
@allow_races_option
@json_option
@click.pass_context
def profile_command(
    context: click.Context,
    program: Path,
    engine: Engine,
    memory: MemoryOptions,
    clock: float | None,
    trace: Path | None,
    instructions: bool,
    config: ConfigOption,
    quantisation: Quantisation,
    timeout: float | None,
    allow_races: bool,
    as_json: bool,
) -> None:
    """Tell where the cycles of a program go.

    Runs it once, on inputs of zeros, which take as long as any others. For each layer: its cycles, those from the end
    of the layer before to its own; how many MACs the array did of those it could have done; the bound of the roofline,
    compute (MACs / MACs a cycle) or bus (DRAM bytes / bytes a cycle), and how near the cycles come to it; what the
    compute unit did; and how long load, store, fetch and the memory port waited.
    """
    check_outputs(
        [("--trace", trace)],
        [("PROGRAM.vta", program), ("--calibrate", quantisation.calibrate), ("--config", config.path)],
    )
    machine = Machine(engine=engine, memory=memory, trace=True, allow_races=allow_races)
    with Activity("Loading") as activity:
        from vta.profile import profile

        source = read_program(context, program, config, quantisation, activity)
        timing = memory.timing(engine, source.config)
        machine.check_races(source)
        with naming(program):
            traces = run(source, machine, timeout, activity)
        result = profile(source, traces, timing)
        if trace is not None:
            from vta.perfetto import perfetto

            activity.step("Writing the trace")
            write_lines(trace, perfetto(source, traces))
    if as_json:
        print_json(figures(source, engine, clock, result, traces if instructions else None))
        return
    show(source, engine, clock, result)
    if instructions:
        show_instructions(source, traces)
    if trace is not None:
        click.echo(f"{trace}: open it with https://ui.perfetto.dev; a nanosecond there is a cycle")


def read_program(
    context: click.Context, path: Path, config: ConfigOption, quantisation: Quantisation, activity: Activity
) -> Program:
    """The program of a file, or compiled from a model."""
    from vta_hw.spec.program import Launch, Program

    if path.suffix.lower() == ".onnx":
        from vta.api import compile_model

        if not path.is_file():
            raise CommandError(f"{path}: must be an ONNX file, and there is none")
        images = quantisation.read(path, activity)
        compiled = compile_model(path, config=config.value, calibration=images, options=quantisation.options)
        program = compiled.program
    else:
        params.refuse_given(context, ("config", *NAMES), "with a program file, which says it itself")
        program = Program.load(path)
    if not any(isinstance(step, Launch) for step in program.steps):
        raise CommandError(f"{path}: must have a launch to profile, not host steps alone")
    return program


def run(program: Program, machine: Machine, timeout: float | None, activity: Activity) -> tuple[Trace, ...]:
    """The traces of the program's launches."""
    with machine.open(
        program.config, lambda cycles: activity.step(f"Running, {cycles:,} cycles of the launch so far")
    ) as device:
        activity.step("Running")
        if program.is_raw:
            from runtime.replay import replay

            report, _ = replay(device, program, timeout=timeout)
            assert report.trace is not None
            return (report.trace,)
        import numpy as np

        from runtime.session import Session, stored
        from vta.engines import host_loader

        inputs = {buffer.name: np.zeros(stored(buffer)[1], stored(buffer)[0]) for buffer in program.inputs}
        session = Session(device, program, host_loader(machine.engine), timeout=timeout)
        session.run(inputs)
        return session.statistics.traces


def figures(
    program: Program, engine: Engine, clock: float | None, result: Profile, traces: tuple[Trace, ...] | None
) -> dict[str, object]:
    """Everything, for JSON; times in seconds."""
    from vta.timeline import entries

    def timed(row: Row) -> dict[str, object]:
        return row.as_dict() if clock is None else {**row.as_dict(), "seconds": row.cycles / (clock * 1e6)}

    return {
        "engine": engine.value,
        "config": program.config.name,
        "clock_mhz": clock,
        "layers": [timed(row) for row in result.rows],
        "total": timed(result.total),
        **({} if traces is None else {"instructions": [entry.as_dict() for entry in entries(program, traces)]}),
    }


def show(program: Program, engine: Engine, clock: float | None, result: Profile) -> None:
    rows = (*result.rows, result.total)
    whole = result.total.cycles
    columns = [
        "layer",
        "cycles",
        "share",
        "MACs",
        "MAC util.",
        "DRAM bytes",
        "MACs/byte",
        "bound",
        "cycles >=",
        "achieved",
    ]
    if clock is not None:
        columns.insert(2, "time")
    table = []
    for row in rows:
        line = [
            row.name,
            f"{row.cycles:,}",
            _share(row.cycles, whole),
            f"{row.work.macs:,}",
            f"{row.utilisation:.1%}",
            f"{row.work.dram_bytes:,}",
            f"{row.intensity:.1f}",
            row.bound,
            f"{max(row.compute_bound, row.bus_bound):,}",
            f"{row.achieved:.1%}",
        ]
        if clock is not None:
            line.insert(2, f"{row.cycles / (clock * 1e3):.3f} ms")
        table.append(line)
    at = "" if clock is None else f" at {clock:g} MHz"
    print_table(f"Layers on {program.config.name}, {engine.value}{at}", columns, table, text_columns=(0,))
    causes = list(result.total.cycles_by_cause)
    print_table(
        "What the compute unit did, of the layer's cycles",
        ("layer", *causes),
        [(row.name, *(_share(row.cycles_by_cause[cause], row.cycles) for cause in causes)) for row in rows],
    )
    waits = {
        "load: busy": "load_busy",
        "token": "load_wait_token",
        "memory": "load_wait_memory",
        "store: busy": "store_busy",
        "token ": "store_wait_token",
        "memory ": "store_wait_memory",
        "fetch: queue": "fetch_wait_queue",
        "memory: read": "read_wait",
        "write": "write_wait",
    }
    print_table(
        "The other units: busy, or held up by what the column says, of the layer's cycles",
        ("layer", *waits),
        [(row.name, *(_share(row.counters[counter], row.cycles) for counter in waits.values())) for row in rows],
    )


def show_instructions(program: Program, traces: tuple[Trace, ...]) -> None:
    print_table(
        "Instructions",
        ("insn", "unit", "begin", "end", "cycles", "layer", "instruction", "cycles of counters"),
        list(_instruction_rows(program, traces)),
        text_columns=(1, 5, 6, 7),
    )


def _instruction_rows(program: Program, traces: tuple[Trace, ...]) -> Iterator[tuple[str, ...]]:
    from vta.timeline import entries

    for entry in entries(program, traces):
        yield (
            str(entry.index),
            entry.unit.name.lower(),
            str(entry.begin) if entry.begin >= 0 else "-",
            str(entry.end) if entry.end >= 0 else "-",
            str(entry.end - entry.oldest) if entry.end >= 0 else "-",
            entry.layer,
            entry.text,
            ", ".join(f"{name} {cycles}" for name, cycles in entry.counters.items()),
        )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
