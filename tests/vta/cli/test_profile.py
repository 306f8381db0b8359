"""``vta profile``: tables, JSON, the trace file, and every refusal word for word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trace_processor import TraceProcessor
from tests.vta.cli.conftest import Cli
from tests.vta.programs import cpu_program
from tests.vta.streams import code
from tests.vta_sim.traces import SOURCE
from vta.demo.data import load_digits, model_bytes
from vta.profile import CAUSES
from vta_hw.spec.config import preset
from vta_hw.spec.program import Launch, Layer, Program
from vta_sim.trace import COUNTERS

TINY = preset("tiny")
ENGINES = ("cycle", "rtl")


def two_layers() -> Program:
    """A compiled program for a small machine: `SOURCE` in two layers, and FINISH in none."""
    return Program(
        config=TINY,
        insns=code(TINY, SOURCE),
        insn_address=0x2000,
        arena_bytes=0x3000,
        steps=(Launch(insn_begin=0, insn_count=9),),
        layers=(
            Layer(name="first", insn_begin=0, insn_end=5, macs=32),
            Layer(name="second", insn_begin=5, insn_end=8),
        ),
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    two_layers().save(tmp_path / "p.vta")
    return tmp_path / "p.vta"


@pytest.mark.parametrize("engine", ENGINES)
def test_figures_for_a_script(cli: Cli, program: Path, engine: str) -> None:
    outcome = cli("profile", "p.vta", "--engine", engine, "--latency", "20", "--clock", "100", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert (figures["engine"], figures["config"], figures["clock_mhz"]) == (engine, TINY.name, 100.0)
    layers, total = figures["layers"], figures["total"]
    assert [layer["name"] for layer in layers] == ["first", "second", "(no layer)"]
    assert sum(layer["cycles"] for layer in layers) == total["cycles"] == sum(total["cycles_by_cause"].values())
    assert total["seconds"] == total["cycles"] / 1e8
    assert list(total["cycles_by_cause"]) == [*CAUSES, "other"]
    for name in COUNTERS:
        assert sum(layer["counters"][name] for layer in layers) == total["counters"][name]
    assert layers[0]["utilisation"] == 32 / (16 * layers[0]["cycles"])
    assert (layers[0]["compute_bound"], layers[0]["bound"]) == (2, "bus")
    assert total["cycles_by_cause"]["gemm"] == total["cycles_by_cause"]["alu"] == 2
    assert "instructions" not in figures


def test_memory_takes_time(cli: Cli, program: Path) -> None:
    cycles = []
    for options in ([], ["--latency", "100"], ["--read-bytes", "1"], ["--stalls", "3"]):
        outcome = cli("profile", "p.vta", "--json", *options)
        cycles.append(json.loads(outcome.out)["total"]["cycles"])
    assert cycles[1] > cycles[0] + 300
    assert cycles[2] > cycles[0]
    assert cycles[3] > cycles[0]


def test_every_instruction(cli: Cli, program: Path) -> None:
    outcome = cli("profile", "p.vta", "--instructions", "--json")
    lines = json.loads(outcome.out)["instructions"]
    assert [line["index"] for line in lines] == list(range(9))
    assert {line["layer"] for line in lines} == {"first", "second", "(no layer)"}
    assert all(0 <= line["begin"] <= line["oldest"] < line["end"] for line in lines)
    text = cli("profile", "p.vta", "--instructions").out
    for line in lines:
        (row,) = (row for row in text.splitlines() if row.split()[:1] == [str(line["index"])])
        assert row.split()[1:4] == [line["unit"], str(line["begin"]), str(line["end"])]
        assert line["text"] in row


def test_tables_and_a_trace(cli: Cli, program: Path, tmp_path: Path) -> None:
    outcome = cli("profile", "p.vta", "--clock", "50", "--trace", "t.json")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Layers on {TINY.name}, cycle at 50 MHz" in outcome.out
    assert "What the compute unit did, of the layer's cycles" in outcome.out
    assert outcome.out.endswith("t.json: open it with https://ui.perfetto.dev; a nanosecond there is a cycle\n")
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith(" first ")]
    assert [len(row) for row in rows] == [12, 7, 10]
    cycles, milliseconds = int(rows[0][1]), float(rows[0][2])
    assert milliseconds == round(cycles / 50e3, 3)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} > {"fetch", "memory"}


def test_a_raw_program(cli: Cli, tmp_path: Path) -> None:
    Program.raw(config=TINY, insns=code(TINY, SOURCE)).save(tmp_path / "raw.vta")
    figures = json.loads(cli("profile", "raw.vta", "--json").out)
    assert [layer["name"] for layer in figures["layers"]] == ["(no layer)"]
    assert figures["total"]["macs"] == 2 * 16


def test_the_digits_network(cli: Cli, tmp_path: Path) -> None:
    digits = load_digits()
    (tmp_path / "digits.onnx").write_bytes(model_bytes())
    np.save(tmp_path / "images.npy", digits.inputs(digits.train[:32]))
    outcome = cli(
        "profile", "digits.onnx", "--calibrate", "images.npy", "--instructions", "--json", "--trace", "t.json"
    )
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert [layer["name"] for layer in figures["layers"]][:3] == ["stem", "residual_1", "residual_2"]
    assert sum(layer["cycles"] for layer in figures["layers"]) == figures["total"]["cycles"]
    assert 0.2 < figures["total"]["utilisation"] < 0.5
    rows = TraceProcessor((tmp_path / "t.json").read_bytes()).query(
        "select thread.name as unit, count(*) as slices, max(slice.ts + slice.dur) as last from slice "
        "join thread_track on slice.track_id = thread_track.id join thread using (utid) group by 1"
    )
    found = {row["unit"]: row for row in rows}
    assert {"fetch", "load", "compute", "store", "memory"} <= found.keys()
    for unit in ("load", "compute", "store"):
        assert found[unit]["slices"] == sum(line["unit"] == unit for line in figures["instructions"]) > 0
    assert found["memory"]["last"] == found["layers"]["last"] == figures["total"]["cycles"]


RACE = "load.inp y_size=1 x_size=1\ngemm uop_end=1 iter_out=1 iter_in=1\nfinish"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no.vta"], "no.vta: program file cannot be read: No such file or directory"),
        (["no.onnx"], "no.onnx: must be an ONNX file, and there is none"),
        (["cpu.vta"], "cpu.vta: must have a launch to profile, not host steps alone"),
        (["p.vta", "--config", "tiny"], "--config must not be given with a program file, which says it itself"),
        (["p.vta", "--calibrate", "x"], "--calibrate must not be given with a program file, which says it itself"),
        (["p.vta", "--clock", "0"], "--clock must be a positive number of MHz, not '0'"),
        (["p.vta", "--clock", "fast"], "--clock must be a positive number of MHz, not 'fast'"),
        (["p.vta", "--trace", "p.vta"], "--trace must be a file of its own, not be 'p.vta' like PROGRAM.vta"),
        (["p.vta", "--trace", "no/t.json"], "no/t.json: the directory must exist"),
        (["p.vta", "--latency", "1048577"], "Memory latency must be 0 to 1048576 cycles, not 1048577"),
        (["p.vta", "--outstanding", "0"], "Outstanding bursts must be 1 to 1024, not 0"),
        (["p.vta", "--read-bytes", "16"], "Bytes to read per cycle must be at most the 8 of the bus, not 16"),
        (["p.vta", "--write-bytes", "3"], "Bytes to write per cycle must be a power of two, not 3"),
        (["digits.onnx"], "Calibration must be given for a float model: a few dozen of its inputs"),
        (
            ["race.vta"],
            (
                "Program must have no races on an engine with a clock, not this: Instruction 1 (gemm uop_end=1 "
                "iter_out=1 iter_in=1) reads INP[0], which instruction 0 (load.inp y_size=1 x_size=1) writes; nothing "
                "orders them: a token of l2g is missing between the two; --allow-races runs it"
            ),
        ),
        (
            ["stuck.vta"],
            "Instruction 0 (load.uop pop_next): every token that is waited for must come, but ",
        ),
    ],
)
def test_refusals(cli: Cli, program: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    cpu_program().save(tmp_path / "cpu.vta")
    (tmp_path / "digits.onnx").write_bytes(model_bytes())
    Program.raw(config=TINY, insns=code(TINY, RACE)).save(tmp_path / "race.vta")
    stuck = code(TINY, "load.uop pop_next\nfinish")
    launch = Launch(insn_begin=0, insn_count=2)
    replace(two_layers(), insns=stuck, steps=(launch,), layers=()).save(tmp_path / "stuck.vta")
    before = sorted(path.name for path in tmp_path.iterdir())
    outcome = cli("profile", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    whole = f"error: {sentence}\n"
    assert outcome.err == whole or (sentence.endswith(" ") and outcome.err.startswith(whole.rstrip("\n")))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_race_that_is_allowed(cli: Cli, tmp_path: Path) -> None:
    Program.raw(config=TINY, insns=code(TINY, RACE)).save(tmp_path / "race.vta")
    assert cli("profile", "race.vta", "--allow-races", "--json").code == 0


def test_patience(cli: Cli, tmp_path: Path) -> None:
    source = "alu.add uop_end=1 iter_out=16383 iter_in=16383 use_imm\nfinish"
    program = replace(two_layers(), insns=code(TINY, source), steps=(Launch(insn_begin=0, insn_count=2),), layers=())
    program.save(tmp_path / "long.vta")
    outcome = cli("profile", "long.vta", "--timeout", "0.01", "--trace", "t.json")
    assert (outcome.code, outcome.err) == (2, "error: Launch must finish within 0.01 s, and has not\n")
    assert not (tmp_path / "t.json").exists()
