"""``vta exec --engine amaranth``: the same answers, counters with time, waveforms, and what does not go together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.streams import code, large_config, raw_program, tensors, write_parts
from vta_hw.spec.config import preset
from vta_hw.spec.registers import REGISTERS, PointerWidth

ROOT = Path(__file__).parents[3]
COUNTERS = [register.name for register in REGISTERS[PointerWidth.BITS_32].counters]


def test_the_answer_and_the_counters_of_the_machine(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("exec", "--engine", "amaranth", "--json", "--latency", "5", *write_parts(tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    figures = json.loads(outcome.out)
    assert (figures["engine"], figures["instructions"]) == ("amaranth", 9)
    statistics = figures["counters"]
    assert list(statistics) == COUNTERS
    assert {name: statistics[name] for name in ("insn_load", "insn_compute", "insn_store", "gemm_uops")} == {
        "insn_load": 2,
        "insn_compute": 6,
        "insn_store": 1,
        "gemm_uops": 3,
    }
    assert 80 < statistics["cycle_count"] < 300
    assert (tmp_path / "out.bin").read_bytes() == tensors()[2].tobytes()


CLOCKED = "must be given with --engine cycle, rtl or amaranth, not with 'functional'"


def finish(tmp_path: Path) -> list[str]:
    """Arguments that run one FINISH on a small machine."""
    (tmp_path / "insns.bin").write_bytes(code(preset("tiny"), "finish"))
    return ["exec", "--insns", "insns.bin", "--config", "tiny", "--engine", "amaranth"]


def test_latency_and_stalls_take_time(cli: Cli, tmp_path: Path) -> None:
    cycles = []
    for options in ([], ["--latency", "100"], ["--stalls", "0x1"]):
        outcome = cli(*finish(tmp_path), *options, "--json")
        cycles.append(json.loads(outcome.out)["counters"]["cycle_count"])
    assert cycles[1] == cycles[0] + 100
    assert cycles[2] > cycles[0]


def test_a_waveform(cli: Cli, tmp_path: Path) -> None:
    assert cli(*finish(tmp_path), "--vcd", "wave.vcd").code == 0
    text = (tmp_path / "wave.vcd").read_text()
    assert "$enddefinitions" in text
    assert "m_axi_arvalid" in text


def test_a_window_of_some_signals(cli: Cli, tmp_path: Path) -> None:
    arguments = ["rtl" if each == "amaranth" else each for each in finish(tmp_path)]
    options = ["--vcd", "wave.vcd", "--signals", "irq", "--signals", "machine.top.core.fetch.*", "--window", "3:9"]
    assert cli(*arguments, *options).code == 0
    text = (tmp_path / "wave.vcd").read_text()
    assert "$scope module fetch $end" in text
    assert "$scope module memory_engine" not in text
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert len(range(times[1] // 2, times[-1] // 2)) == 6


def test_what_goes_wrong_leaves_the_waveform(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "insns.bin").write_bytes(code(preset("tiny"), "load.uop pop_next\nfinish"))
    arguments = ["exec", "--insns", "insns.bin", "--config", "tiny", "--engine", "amaranth", "--dump", "0:16=out.bin"]
    outcome = cli(*arguments, "--vcd", "wave.vcd")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: Instruction 0 (load.uop pop_next): every token that is waited for must come")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["insns.bin", "wave.vcd"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--vcd", "w.vcd"], "--vcd must be given with --engine rtl or amaranth, not with 'functional'"),
        (["--signals", "irq"], "--signals must be given with --vcd, the file for the waveform"),
        (["--window", "1:2"], "--window must be given with --vcd, the file for the waveform"),
        (
            ["--engine", "amaranth", "--vcd", "w.vcd", "--signals", "irq"],
            "--signals must be given with --engine rtl, not with 'amaranth'",
        ),
        (
            ["--engine", "amaranth", "--vcd", "w.vcd", "--window", "1:"],
            "--window must be given with --engine rtl, not with 'amaranth'",
        ),
        (["--engine", "rtl", "--vcd", "w.vcd", "--window", "5"], "--window must be FIRST:END, not '5'"),
        (
            ["--engine", "rtl", "--vcd", "w.vcd", "--window", "a:5"],
            "--window first cycle must be a decimal or 0x number, not 'a'",
        ),
        (
            ["--engine", "rtl", "--vcd", "w.vcd", "--window", "5:4"],
            "Cycles of a waveform must be a range from 0 on, not 5 to 4",
        ),
        (
            ["--engine", "rtl", "--vcd", "w.vcd", "--signals", "core.*"],
            "Pattern must fit a port, a register or an observed signal, and 'core.*' does not",
        ),
        (["--latency", "0"], f"--latency {CLOCKED}"),
        (["--stalls", "0"], f"--stalls {CLOCKED}"),
        (["--shared-bus"], f"--shared-bus {CLOCKED}"),
        (["--write-bytes", "1"], f"--write-bytes {CLOCKED}"),
        (["--read-bytes", "1"], f"--read-bytes {CLOCKED}"),
        (["--engine", "amaranth", "--latency", "1048577"], "Memory latency must be 0 to 1048576 cycles, not 1048577"),
        (["--engine", "amaranth", "--outstanding", "0"], "Outstanding bursts must be 1 to 1024, not 0"),
        (["--engine", "amaranth", "--read-bytes", "3"], "Bytes to read per cycle must be a power of two, not 3"),
        (
            ["--engine", "amaranth", "--write-bytes", "16"],
            "Bytes to write per cycle must be at most the 8 of the bus, not 16",
        ),
        (
            ["--engine", "verilator"],
            "Engine must be one of 'functional', 'cycle', 'rtl', 'amaranth', not 'verilator'",
        ),
        (["--engine", "amaranth", "--latency", "-1"], "--latency must be a decimal or 0x number, not '-1'"),
        (["--engine", "amaranth", "--stalls", "x"], "--stalls must be a decimal or 0x number, not 'x'"),
        (["--engine", "amaranth", "--vcd", "no/w.vcd"], "no/w.vcd: the directory must exist"),
        (["--engine", "amaranth", "--vcd", "."], ".: must be a file, not a directory"),
        (
            ["--engine", "amaranth", "--vcd", "w", "--dump", "0:1=w"],
            "--vcd must be a file of its own, not be 'w' like --dump",
        ),
        (
            ["--engine", "amaranth", "--vcd", "./w", "--save", "w"],
            "--save must be a file of its own, not be 'w' like --vcd",
        ),
        (
            ["--engine", "amaranth", "--vcd", "raw.vta"],
            "--vcd must be a file of its own, not be 'raw.vta' like PROGRAM.vta",
        ),
        (
            ["--engine", "amaranth", "--bases", "4,0,0,0,4"],
            "Base register out must be a multiple of 8 bytes, not 0x4",
        ),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    raw_program("finish\n").save(tmp_path / "raw.vta")
    outcome = cli("exec", "raw.vta", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.vta"]


@pytest.mark.parametrize("option", ["--insns", "--segment", "--config"])
def test_a_waveform_over_an_input_is_refused_before_it_is_opened(cli: Cli, tmp_path: Path, option: str) -> None:
    preset("tiny").save(tmp_path / "tiny.json")
    (tmp_path / "odd.bin").write_bytes(b"odd")
    name = {"--insns": "insns.bin", "--segment": "odd.bin", "--config": "tiny.json"}[option]
    arguments = [*finish(tmp_path), "--config", "tiny.json", "--segment", "0=odd.bin"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = cli(*arguments, "--vcd", name)
    sentence = f"--vcd must be a file of its own, not be '{name}' like {option}"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder in which nothing can be made, whoever asks")
def test_a_waveform_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; main()"
    command = [sys.executable, "-c", script, *finish(tmp_path), "--vcd", "/proc/w.vcd"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: /proc/w.vcd: No such file or directory\n"


def test_a_machine_that_cannot_be_built_is_refused_by_its_file(tmp_path: Path) -> None:
    """In a process of its own, whose stderr also has what Python and Amaranth warn of."""
    large_config().save(tmp_path / "large.json")
    (tmp_path / "insns.bin").write_bytes(code(large_config(), "finish"))
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; main()"
    given = ["exec", "--insns", "insns.bin", "--config", "large.json"]
    for arguments, file in (
        ([*given, "--save", "large.vta"], None),
        ([*given, "--engine", "amaranth", "--vcd", "w.vcd"], "large.json"),
        (["exec", "large.vta", "--engine", "amaranth"], "large.vta"),
    ):
        command = [sys.executable, "-c", script, *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        refused = f"error: {file}: line of ACC must have at most 65534 bits, not 65536 (2 banks of 32768 bits)\n"
        assert (result.returncode, result.stderr) == ((2, refused) if file else (0, ""))
    assert not (tmp_path / "w.vcd").exists()


def test_ctrl_c_leaves_a_whole_waveform_and_nothing_else(tmp_path: Path) -> None:
    source = "alu.add uop_end=1 iter_out=16383 iter_in=16383 use_imm\nfinish"
    (tmp_path / "insns.bin").write_bytes(code(preset("tiny"), source))
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; main()"
    command = [sys.executable, "-c", script, "exec", "--insns", "insns.bin", "--config", "tiny"]
    command += ["--engine", "amaranth", "--vcd", "wave.vcd", "--dump", "0:16=out.bin", "--save", "s.vta"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wave = tmp_path / "wave.vcd"
    while child.poll() is None and not (wave.exists() and wave.stat().st_size > 100_000):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err.strip()) == (130, "interrupted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["insns.bin", "wave.vcd"]
    assert wave.read_bytes()[-1:] == b"\n"
