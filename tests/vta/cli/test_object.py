"""``vta object``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vta
from compiler.llvm.objects import compile_object
from compiler.llvm.target import Target
from tests.vta.cli.conftest import Cli
from vta.demo.data import load_digits, model_bytes
from vta_hw.spec.program import Program


@pytest.fixture(scope="module")
def program() -> Program:
    return vta.compile(model_bytes(), target="cpu").program


@pytest.fixture(scope="module")
def accelerated() -> Program:
    data = load_digits()
    return vta.compile(model_bytes(), calibration=data.inputs(data.train[:2])).program


def test_two_files(cli: Cli, tmp_path: Path, program: Program) -> None:
    program.save(tmp_path / "my-digits.vta")
    (tmp_path / "objects").mkdir()
    outcome = cli("object", "my-digits.vta", "--target", "armv7", "-o", "objects")
    made = compile_object(program, Target.named("armv7"), "my_digits")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        (
            f"objects/my_digits.o: {len(made.code):,} bytes for armv7, {made.constant_bytes:,} of them constants; "
            f"{made.workspace_bytes:,} bytes of workspace; calls {', '.join(made.calls)}"
        ),
        "objects/my_digits.h: the C header",
    ]
    assert (tmp_path / "objects" / "my_digits.o").read_bytes() == made.code
    assert (tmp_path / "objects" / "my_digits.h").read_text() == made.header


def test_figures(cli: Cli, tmp_path: Path, program: Program) -> None:
    program.save(tmp_path / "net.vta")
    figures = json.loads(cli("object", "net.vta", "--target", "riscv64", "--name", "eyes", "--json").out)
    made = compile_object(program, Target.named("riscv64"), "eyes")
    assert figures == {
        "object": "eyes.o",
        "header": "eyes.h",
        "target": "riscv64",
        "bytes": len(made.code),
        "constant_bytes": made.constant_bytes,
        "workspace_bytes": made.workspace_bytes,
        "calls": list(made.calls),
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["net.vta", "--target", "arm64"],
            (
                "Target must be one of 'aarch64', 'aarch64-dotprod', 'armv7', 'riscv64', "
                "'x86-64-v2', 'x86-64-v3', 'x86-64-v4', not "
                "'arm64'; did you mean 'aarch64'?"
            ),
        ),
        (["net.vta"], "Missing option '--target'."),
        (
            ["vta.vta", "--target", "aarch64"],
            (
                "Program must have host steps alone to become an object file, not launches of the accelerator: compile "
                "it for the CPU"
            ),
        ),
        (["net.vta", "--target", "aarch64", "-o", "no"], "no: must be a folder, and there is none"),
        (["net.vta", "--target", "aarch64", "-o", "net.vta"], "net.vta: must be a folder, and there is none"),
        (["net.vta", "--target", "aarch64", "-o", "taken"], "taken/net.h: must be a file, not a directory"),
        (
            ["net.vta", "--target", "aarch64", "--name", "4th"],
            "Name must be an identifier of C with at most 64 characters, not '4th'",
        ),
        (
            ["net.vta", "--target", "aarch64", "--name", "../up"],
            "Name must be an identifier of C with at most 64 characters, not '../up'",
        ),
        (["no.vta", "--target", "aarch64"], "no.vta: program file cannot be read: No such file or directory"),
    ],
)
def test_refusals_write_nothing(
    cli: Cli, tmp_path: Path, program: Program, accelerated: Program, arguments: list[str], sentence: str
) -> None:
    program.save(tmp_path / "net.vta")
    accelerated.save(tmp_path / "vta.vta")
    (tmp_path / "taken" / "net.h").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("object", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder in which nothing can be made, whoever asks")
def test_a_folder_that_cannot_be_written_is_refused(cli: Cli, tmp_path: Path, program: Program) -> None:
    program.save(tmp_path / "net.vta")
    outcome = cli("object", "net.vta", "--target", "aarch64", "-o", "/proc/self")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: /proc/self/")
