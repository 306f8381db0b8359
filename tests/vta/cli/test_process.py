"""The program as a process: help, exit codes, signals, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.streams import code
from vta.cli.command import ExampleCommand
from vta.cli.root import root
from vta_hw.spec.config import VTAConfig

COMMANDS = (
    *("demo", "compile", "object", "run", "exec", "check", "profile", "compare", "bench"),
    *("disasm", "config", "verilog"),
)
ROOT = Path(__file__).parents[3]


def process(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_commands_are_listed_in_the_order_of_the_work(cli: Cli) -> None:
    text = cli("--help").out
    assert tuple(line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()) == COMMANDS


def test_no_arguments_is_a_question_for_help(cli: Cli) -> None:
    assert (cli().code, cli().out) == (0, cli("--help").out)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(cli: Cli, name: str) -> None:
    outcome = cli(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    command = root.commands[name]
    assert isinstance(command, ExampleCommand)
    assert len(command.examples) >= 3
    for purpose, line in command.examples:
        assert line.startswith(f"vta {name}")
        assert f"  # {purpose}\n  {line}\n" in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_exist(name: str) -> None:
    command = root.commands[name]
    assert isinstance(command, ExampleCommand)
    known = {option for parameter in command.params for option in parameter.opts}
    for _, line in command.examples:
        assert {word for word in line.split() if word.startswith("-")} <= known


def test_a_typing_mistake_gets_a_suggestion(cli: Cli) -> None:
    outcome = cli("disam")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: No such command 'disam'. Did you mean 'disasm'?\n"


def test_help_loads_nothing_heavy() -> None:
    script = "import sys; from vta.cli.root import root; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) & {"numpy", "numba", "llvmlite", "onnx", "rich", "compiler"} == set()


def test_importing_vta_loads_nothing() -> None:
    script = "import sys; import vta; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) & {"numpy", "numba", "llvmlite", "onnx", "click", "runtime"} == set()


def test_an_error_is_one_line_on_stderr_and_exit_code_2() -> None:
    result = process("exec", "--insns", "nothing.bin")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: nothing.bin: No such file or directory\n"


def test_a_reader_that_leaves_is_met_with_silence(tmp_path: Path) -> None:
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "gemm\n" * 20_000))
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; main()"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, "disasm", "insns.bin"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert writer.stdout.readline() == "gemm  # 0\n"
    writer.stdout.close()
    assert writer.stderr.read() == ""
    writer.stderr.close()
    assert writer.wait() == 1


def test_control_c_ends_with_130(tmp_path: Path) -> None:
    """A FIFO keeps the process waiting inside the command until the signal comes."""

    os.mkfifo(tmp_path / "insns.bin")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vta.cli import main; "
        "print('ready', file=sys.stderr, flush=True); main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script, "exec", "--insns", "insns.bin", "--save", "out.vta"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "ready\n"
    with (tmp_path / "insns.bin").open("wb"):  # opens when the command has opened its end
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    assert (running.returncode, out, err.strip()) == (130, "", "interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["insns.bin"]
