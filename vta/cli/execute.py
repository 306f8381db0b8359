"""``vta exec``: raw instruction streams, as any VTA compiler produces them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vta.cli import params
from vta.cli.command import command
from vta.cli.errors import CommandError, naming
from vta.cli.files import check_outputs, read_file, write_files
from vta.cli.machine import Machine, MemoryOptions, WaveOptions, engine_option, memory_options, wave_options
from vta.cli.output import Activity, print_json, print_table
from vta.cli.params import (
    ConfigOption,
    DumpOption,
    SegmentOption,
    allow_races_option,
    config_option,
    json_option,
)
from vta.engine_names import ON_ACCELERATOR, TIMED, Engine

if TYPE_CHECKING:
    from runtime.device import Bases, LaunchReport
    from runtime.replay import Range
    from vta_hw.spec.config import VTAConfig
    from vta_hw.spec.program import Program, Segment

INSN_BYTES = 16
MAX_DUMP_BYTES = 1 << 32

EXAMPLES = (
    (
        "Run 4 instructions; weights are at 0x2000, the result of 256 bytes at 0x3000",
        "vta exec --insns insns.bin --count 4 --segment 0x2000=weights.bin --dump 0x3000:256=out.bin",
    ),
    (
        "Another machine; start with a token in the queue from compute to load (order: l2g,g2l,g2s,s2g)",
        "vta exec --insns insns.bin --config vta_config.json --tokens 0,1,0,0 --json",
    ),
    ("Keep stream and memory as one file", "vta exec --insns insns.bin --segment 0x2000=w.bin --save stream.vta"),
    ("Run that file", "vta exec stream.vta --dump 0x3000:256=out.bin"),
    (
        "Run it on the RTL, with memory that takes 50 cycles and moves 4 bytes in each",
        "vta exec stream.vta --engine rtl --latency 50 --read-bytes 4 --write-bytes 4",
    ),
    (
        "Run it in Amaranth's simulator, and keep the waveform",
        "vta exec stream.vta --engine rtl --latency 20 --vcd wave.vcd",
    ),
)


@command("exec", EXAMPLES)
@click.argument("program", metavar="[PROGRAM.vta]", type=click.Path(path_type=Path), required=False)
@engine_option(ON_ACCELERATOR)
@click.option("--insns", type=click.Path(path_type=Path), metavar="FILE", help="Instructions, 16 bytes each.")
@click.option("--count", type=params.number("--count"), metavar="N", help="Instructions to run; all by default.")
@config_option
@click.option(
    "--segment", "segments", type=params.segment, multiple=True, metavar="ADDR=FILE", help="Contents of memory."
)
@click.option(
    "--dump", "dumps", type=params.dump, multiple=True, metavar="ADDR:LEN=FILE", help="Memory to keep afterwards."
)
@click.option(
    "--tokens",
    type=params.numbers("--tokens", 4),
    metavar="L2G,G2L,G2S,S2G",
    help="Tokens in the queues at the start.",
)
@click.option(
    "--insn-address",
    type=params.number("--insn-address"),
    metavar="ADDR",
    help="Where the instructions lie; by default where the stream has nothing else.",
)
@click.option(
    "--bases",
    type=params.numbers("--bases", 5),
    metavar="UOP,INP,WGT,ACC,OUT",
    help="Base addresses of the ports in bytes; 0 by default.",
)
@click.option("--timeout", type=params.seconds("--timeout"), metavar="SECONDS", help="Give up after so long.")
@wave_options
@memory_options
@allow_races_option
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write stream and segments as .vta.")
@json_option
@click.pass_context
def exec_command(
    context: click.Context,
    program: Path | None,
    engine: Engine,
    insns: Path | None,
    count: int | None,
    config: ConfigOption,
    segments: tuple[SegmentOption, ...],
    dumps: tuple[DumpOption, ...],
    tokens: tuple[int, ...] | None,
    insn_address: int | None,
    bases: tuple[int, ...] | None,
    timeout: float | None,
    waves: WaveOptions,
    memory: MemoryOptions,
    allow_races: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    """Execute a raw instruction stream.

    The stream comes from --insns with --segment's, or from a raw PROGRAM.vta. Addresses and lengths are bytes, decimal
    or 0x. Memory that no segment covers reads as zero, and so do the scratchpads at the start. Tokens left over at the
    end are reported; they are no error. --json also tells what the stores have left in memory, by its SHA-256.

    Engines: `functional` knows no time. Those with a clock report the machine's own counters: `cycle` has the timing of
    the RTL and is fast, `rtl` is the RTL itself, compiled to machine code, and `amaranth` the same in Amaranth's
    simulator, with some hundred cycles a second. They refuse a program in which instructions of two units conflict and
    no token orders them (see `vta check`).
    """
    check_dumps(dumps)
    machine = Machine(engine=engine, memory=memory, waves=waves, allow_races=allow_races)
    check_outputs(
        [*(("--dump", dump.path) for dump in dumps), ("--vcd", waves.vcd), ("--save", save)],
        [
            ("PROGRAM.vta", program),
            ("--insns", insns),
            *(("--segment", segment.path) for segment in segments),
            ("--config", config.path),
        ],
    )
    if program is not None:
        said = ("insns", "count", "config", "segments", "tokens", "insn_address")
        params.refuse_given(context, said, "with a program file, which says it itself")
        raw = load_raw(program)
    elif insns is not None:
        raw = build_raw(config.value, insns, count, segments, tokens, insn_address, bases, dumps)
    else:
        raise CommandError("Give the instructions with --insns FILE, or a raw PROGRAM.vta")
    machine.check_races(raw, ports(bases))
    from runtime.replay import Range

    outputs = stored_ranges(raw, bases) if as_json else []
    wanted = [*(Range(address=dump.address, nbytes=dump.nbytes) for dump in dumps), *outputs]
    with naming(program or config.path):
        report, contents = execute(machine, raw, bases, wanted, timeout)
    files: dict[Path, bytes | memoryview] = {dump.path: data for dump, data in zip(dumps, contents, strict=False)}
    if save is not None:
        files[save] = raw.to_bytes()
    write_files(files)
    if not as_json:
        show(raw, report, dumps)
        return
    print_json(
        {
            **figures(raw, engine, report),
            "outputs": [
                {"address": memory.address, "nbytes": memory.nbytes, "sha256": hashlib.sha256(data).hexdigest()}
                for memory, data in zip(outputs, contents[len(dumps) :], strict=True)
            ],
            "dumps": [{"address": dump.address, "nbytes": dump.nbytes, "file": str(dump.path)} for dump in dumps],
        }
    )


def load_raw(path: Path) -> Program:
    from vta_hw.spec.program import Program

    program = Program.load(path)
    if not program.is_raw:
        raise CommandError(f"{path}: must be a raw program, not a compiled one; run it with `vta run {path}`")
    return program


def build_raw(
    config: VTAConfig,
    insns: Path,
    count: int | None,
    segments: tuple[SegmentOption, ...],
    tokens: tuple[int, ...] | None,
    insn_address: int | None,
    bases: tuple[int, ...] | None,
    dumps: tuple[DumpOption, ...],
) -> Program:
    from vta_hw.spec.program import Program, Tokens

    data = read_file(insns)
    if count is None:
        if len(data) % INSN_BYTES:
            raise CommandError(f"{insns}: must hold whole instructions of {INSN_BYTES} bytes, not {len(data)} bytes")
        count = len(data) // INSN_BYTES
    if count == 0:
        raise CommandError(f"{insns}: must hold at least one instruction to run")
    if len(data) < count * INSN_BYTES:
        raise CommandError(f"{insns}: must hold {count} instructions of {INSN_BYTES} bytes, not {len(data)} bytes")
    data = data[: count * INSN_BYTES]
    filled = [read_segment(segment) for segment in segments]
    l2g, g2l, g2s, s2g = tokens or (0, 0, 0, 0)
    return Program.raw(
        config=config,
        insns=data,
        segments=filled,
        tokens=Tokens(l2g=l2g, g2l=g2l, g2s=g2s, s2g=s2g),
        insn_address=insn_address,
        bases=ports(bases).by_memory,
        reserved=[(dump.address, dump.address + dump.nbytes) for dump in dumps],
    )


def read_segment(option: SegmentOption) -> Segment:
    from vta_hw.spec.program import Segment

    data = read_file(option.path)
    if not data:
        raise CommandError(f"{option.path}: must hold at least one byte to be a segment")
    return Segment(address=option.address, data=data)


def ports(bases: tuple[int, ...] | None) -> Bases:
    from runtime.device import Bases

    uop, inp, wgt, acc, out = bases or (0, 0, 0, 0, 0)
    return Bases(uop=uop, inp=inp, wgt=wgt, acc=acc, out=out)


def check_dumps(dumps: tuple[DumpOption, ...]) -> None:
    for dump in dumps:
        if dump.nbytes > MAX_DUMP_BYTES:
            raise CommandError(f"--dump length must be at most {MAX_DUMP_BYTES} bytes, not {dump.nbytes}")


def execute(
    machine: Machine,
    program: Program,
    bases: tuple[int, ...] | None,
    wanted: list[Range],
    timeout: float | None,
) -> tuple[LaunchReport, list[memoryview]]:
    """What the machine reports, and the contents of the `wanted` memory afterwards."""
    with Activity("Loading the simulator") as activity:
        from runtime.replay import replay

        def progress(cycles: int) -> None:
            activity.step(f"Executing instructions, {cycles:,} cycles so far")

        with machine.open(program.config, progress) as device:
            activity.step("Executing instructions")
            report, contents = replay(device, program, bases=ports(bases), dumps=wanted, timeout=timeout)
    return report, [array.data for array in contents]


def stored_ranges(program: Program, bases: tuple[int, ...] | None) -> list[Range]:
    """The memory that the program's STOREs write."""
    from runtime.replay import Range
    from vta_hw.spec.placement import stored

    intervals = stored(program.config, program.insns, ports(bases).out)
    return [Range(address=begin, nbytes=end - begin) for begin, end in intervals]


def figures(program: Program, engine: Engine, report: LaunchReport) -> dict[str, object]:
    """What the machine counted; cycles are of engines with a clock."""
    cycles = {"cycles": report.counters["cycle_count"]} if engine in TIMED else {}
    return {
        "engine": engine.value,
        "config": program.config.name,
        "instructions": len(program.insns) // INSN_BYTES,
        **cycles,
        "tokens_left": asdict(report.tokens_left),
        "counters": dict(report.counters),
    }


def show(program: Program, report: LaunchReport, dumps: tuple[DumpOption, ...]) -> None:
    left = asdict(report.tokens_left)
    rows = [(name, f"{value:,}") for name, value in report.counters.items()]
    print_table(f"{len(program.insns) // INSN_BYTES} instructions on {program.config.name}", ("counter", "total"), rows)
    if any(left.values()):
        click.echo("tokens left: " + ", ".join(f"{name} {value}" for name, value in left.items()))
    for dump in dumps:
        click.echo(f"{dump.path}: {dump.nbytes} bytes from {dump.address:#x}")
