"""``vta run`` on programs made by hand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from compiler.llvm.team import processors
from tests.vta.cli.conftest import Cli
from tests.vta.programs import cpu_program, vta_program
from tests.vta.streams import large_config, raw_program

X = np.arange(5 * 16, dtype=np.float32).reshape(5, 16, 1, 1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Programs and inputs, good and bad."""
    cpu_program().save(tmp_path / "cpu.vta")
    vta_program().save(tmp_path / "vta.vta")
    vta_program(large_config()).save(tmp_path / "large.vta")
    raw_program().save(tmp_path / "raw.vta")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "bytes.npy", X.astype(np.int8))
    np.save(tmp_path / "flat.npy", X.reshape(5, 16))
    np.savez(tmp_path / "x.npz", x=X)
    np.savez(tmp_path / "z.npz", z=X)
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps([1, 2, 3]))
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    return tmp_path


NO_ARRAY = "must be a NumPy file (.npy or .npz), and is none: it holds Python objects, or no arrays"


@pytest.mark.parametrize("given", ["x.npy", "x=x.npy", "x.npz"])
def test_the_functional_engine_is_the_default(cli: Cli, files: Path, given: str) -> None:
    outcome = cli("run", "vta.vta", "--input", given, "--output", "y.npy", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    np.testing.assert_array_equal(np.load(files / "y.npy"), X.astype(np.int8) + np.int8(7))
    figures = json.loads(outcome.out)
    assert figures["engine"] == "functional"
    assert figures["images"] == 5
    assert figures["outputs"] == [{"name": "y", "dtype": "int8", "shape": [5, 16, 1, 1], "file": "y.npy"}]
    assert figures["counters"]["alu_counter"] == 6
    assert figures["layers"][0]["name"] == "add"


@pytest.mark.skipif(processors() < 2, reason="needs two processors")
@pytest.mark.parametrize("program", ["cpu.vta", "vta.vta"])
def test_two_threads(cli: Cli, files: Path, program: str) -> None:
    given = "bytes.npy" if program == "cpu.vta" else "x.npy"
    for threads in "12":
        outcome = cli("run", program, "--input", given, "--output", f"y{threads}.npy", "--threads", threads)
        assert (outcome.code, outcome.err) == (0, "")
    assert (files / "y1.npy").read_bytes() == (files / "y2.npy").read_bytes()


@pytest.mark.parametrize("engine", ["llvm", "interp"])
def test_cpu_engines(cli: Cli, files: Path, engine: str) -> None:
    outcome = cli("run", "cpu.vta", "--input", "bytes.npy", "--output", "y=out.npy", "--engine", engine)
    assert outcome.code == 0
    assert f"5 images on {engine}" in outcome.out
    assert "[5, 16, 1, 1]" in outcome.out
    np.testing.assert_array_equal(np.load(files / "out.npy"), X.astype(np.int8) + np.int8(3))


def test_without_output_it_only_counts(cli: Cli, files: Path) -> None:
    before = set(files.iterdir())
    outcome = cli("run", "vta.vta", "--input", "x.npy")
    assert outcome.code == 0
    assert "alu_counter" in outcome.out
    assert set(files.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.vta", "--input", "x.npy"], "none.vta: program file cannot be read: "),
        (
            ["raw.vta", "--input", "x.npy"],
            "Program must be a compiled one, not raw instructions; run those with `vta exec`",
        ),
        (["vta.vta"], "Inputs must be given with --input [NAME=]FILE: x float32 [N, 16, 1, 1]"),
        (["vta.vta", "--input", "none.npy"], "none.npy: No such file or directory"),
        (["vta.vta", "--input", "text.npy"], f"text.npy: {NO_ARRAY}"),
        (["vta.vta", "--input", "pickled.npy"], f"pickled.npy: {NO_ARRAY}"),
        (["vta.vta", "--input", "objects.npy"], f"objects.npy: {NO_ARRAY}"),
        (["vta.vta", "--input", "=x.npy"], "--input must be FILE or NAME=FILE, not '=x.npy'"),
        (["vta.vta", "--input", "z=x.npy"], "Inputs must be named 'x', not 'z'"),
        (["vta.vta", "--input", "z.npz"], "Inputs must be named 'x', not 'z'"),
        (["vta.vta", "--input", "x=x.npy", "--input", "x=x.npy"], "Input 'x' must be given once, not twice"),
        (
            ["vta.vta", "--input", "x.npy", "--input", "y=x.npy"],
            "x.npy: must be given as NAME=x.npy where several inputs are given",
        ),
        (
            ["vta.vta", "--input", "x=x.npz"],
            "x.npz: must be an .npy file where inputs are given by name",
        ),
        (
            ["vta.vta", "--input", "flat.npy"],
            "Input 'x' must be float32 [N, 16, 1, 1], not float32 [5, 16]",
        ),
        (
            ["vta.vta", "--input", "bytes.npy"],
            "Input 'x' must be float32 [N, 16, 1, 1], not int8 [5, 16, 1, 1]",
        ),
        (
            ["vta.vta", "--input", "x.npy", "--output", "z=y.npy"],
            "--output must be FILE or NAME=FILE with one of the names 'y', not 'z=y.npy'",
        ),
        (
            ["vta.vta", "--input", "x.npy", "--output", "a.npy", "--output", "y=a.npy"],
            "--output must be a file of its own, not be 'a.npy' like another --output",
        ),
        (
            ["vta.vta", "--input", "x.npy", "--output", "a.npy", "--output", "y=b.npy"],
            "--output must name each output once, not 'y=b.npy' again",
        ),
        (
            ["vta.vta", "--input", "x=x.npy", "--output", "y=./x.npy"],
            "--output must be a file of its own, not be 'x.npy' like --input",
        ),
        (
            ["vta.vta", "--input", "x.npy", "--output", "vta.vta"],
            "--output must be a file of its own, not be 'vta.vta' like PROGRAM.vta",
        ),
        (["vta.vta", "--input", "x.npy", "--output", "no/y.npy"], "no/y.npy: the directory must exist"),
        (
            ["vta.vta", "--input", "x.npy", "--engine", "llvm"],
            "Engine of this program must be one of 'functional', 'cycle', 'rtl', 'amaranth', not 'llvm'",
        ),
        (
            ["large.vta", "--input", "x.npy", "--engine", "amaranth"],
            "large.vta: line of ACC must have at most 65534 bits, not 65536 (2 banks of 32768 bits)",
        ),
        (
            ["vta.vta", "--input", "x.npy", "--engine", "lvm"],
            (
                "Engine must be one of 'functional', 'cycle', 'rtl', 'amaranth', 'llvm', 'interp', not 'lvm'"
                "; did you mean 'llvm'?"
            ),
        ),
        (
            ["cpu.vta", "--input", "bytes.npy", "--threads", "0"],
            f"Threads must be 1 to {processors()}, the processors that this process may use, not 0",
        ),
        (
            ["cpu.vta", "--input", "bytes.npy", "--engine", "interp", "--threads", "2"],
            "Threads must be 1 on engine 'interp', not 2",
        ),
        (["cpu.vta", "--input", "bytes.npy", "--threads", "x"], "--threads must be a decimal or 0x number, not 'x'"),
    ],
)
def test_refusals(cli: Cli, files: Path, arguments: list[str], sentence: str) -> None:
    before = set(files.iterdir())
    outcome = cli("run", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert set(files.iterdir()) == before
