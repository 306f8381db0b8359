"""``vta check``, and the races that ``vta exec`` refuses on engines with a clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.programs import vta_program
from tests.vta.streams import SOURCE, code, raw_program
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.program import Program

RACY = SOURCE.replace(" pop_prev push_prev", " push_prev").replace("imm=1 push_next", "imm=1")
RACE = (
    "Instruction 6 (store.out dram_base=0x400 y_size=1 x_size=3 x_stride=3 push_prev) reads OUT[0], which "
    "instruction 5 (alu.add uop_end=1 iter_out=1 iter_in=3 dst_factor_in=1 src_factor_in=1 imm=1 use_imm) writes; "
    "nothing orders them: a token of g2s is missing between the two"
)
PADDED = SOURCE.replace("load.wgt ", "load.wgt x_pad_1=1 ")


def test_a_program_without_errors(cli: Cli, tmp_path: Path) -> None:
    raw_program().save(tmp_path / "good.vta")
    outcome = cli("check", "good.vta")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "good.vta: 9 instructions, 0 errors, 0 lints\n"


def test_a_compiled_program(cli: Cli, tmp_path: Path) -> None:
    vta_program().save(tmp_path / "model.vta")
    outcome = cli("check", "model.vta")
    assert (outcome.code, outcome.out) == (0, "model.vta: 6 instructions, 0 errors, 0 lints\n")


def test_errors_are_listed_and_fail(cli: Cli, tmp_path: Path) -> None:
    raw_program(RACY).save(tmp_path / "racy.vta")
    outcome = cli("check", "racy.vta")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out == f"error: {RACE}\nracy.vta: 9 instructions, 1 errors, 0 lints\n"


def test_lints_of_a_kind_are_one_line(cli: Cli, tmp_path: Path) -> None:
    twice = PADDED.replace("load.inp", "load.wgt x_pad_0=1 y_size=1 x_size=1 x_stride=1\nload.inp", 1)
    raw_program(twice).save(tmp_path / "padded.vta")
    assert cli("check", "padded.vta").out == (
        "lint: Instruction 1 (load.wgt y_size=1 x_size=1 x_stride=1 x_pad_0=1): "
        "a LOAD of WGT must have no pads; HLS ignores them (and 1 more of this kind)\n"
        "padded.vta: 10 instructions, 0 errors, 2 lints\n"
    )


def test_only_the_first_errors_are_printed(cli: Cli, tmp_path: Path) -> None:
    source = "\n".join(["load.inp sram_base=0xffff y_size=1 x_size=1"] * 30 + ["load.uop", "finish"])
    raw_program(source).save(tmp_path / "many.vta")
    lines = cli("check", "many.vta").out.splitlines()
    assert sum(line.startswith("error: Instruction") for line in lines) == 20
    assert "error: and 10 more" in lines
    assert lines[-1] == "many.vta: 32 instructions, 30 errors, 1 lints"


def test_findings_as_json(cli: Cli, tmp_path: Path) -> None:
    raw_program(RACY + "load.inp x_pad_0=1").save(tmp_path / "racy.vta")
    outcome = cli("check", "racy.vta", "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    messages = [finding.pop("message") for finding in told["findings"]]
    assert messages[0] == RACE
    assert told == {
        "file": "racy.vta",
        "config": VTAConfig().name,
        "instructions": 10,
        "errors": 1,
        "lints": 2,
        "findings": [
            {
                "severity": "error",
                "rule": "race",
                "insn": 6,
                "layer": None,
                "other_insn": 5,
                "memory": "OUT",
                "index": 0,
                "queues": ["g2s"],
            },
            {"severity": "lint", "rule": "after-finish", "insn": 9, "layer": None},
            {"severity": "lint", "rule": "finish-before-others", "insn": 8, "layer": None},
        ],
    }


def test_the_layer_of_a_compiled_program(cli: Cli, tmp_path: Path) -> None:
    program = vta_program()
    config = program.config
    insns = program.insns[:16] + code(config, "load.acc_8bit dram_base=8 y_size=1 x_size=4096") + program.insns[32:]
    replace(program, insns=insns).save(tmp_path / "model.vta")
    assert cli("check", "model.vta").out.startswith(
        "error: Instruction 1 (load.acc_8bit dram_base=0x8 y_size=1 x_size=4096) of layer add: "
        "LOAD must end within the 2048 elements of ACC, not at 4096\n"
    )


def test_bases_say_where_transfers_meet(cli: Cli, tmp_path: Path) -> None:
    """With its base register the store hits what is loaded behind it."""
    source = SOURCE.replace("finish", "load.inp sram_base=3 dram_base=0x200 y_size=1 x_size=1 x_stride=1\nfinish")
    raw_program(source).save(tmp_path / "raw.vta")
    assert cli("check", "raw.vta").code == 0
    outcome = cli("check", "raw.vta", "--bases", "0,0,0,0,-0x2000")
    assert outcome.err == "error: --bases must be a decimal or 0x number, not '-0x2000'\n"
    outcome = cli("check", "raw.vta", "--bases", "0,0x2000,0,0,0")
    assert outcome.code == 1
    assert "reads byte 0x4000 of DRAM, which instruction 6" in outcome.out
    assert "a token of s2g and one of g2l are missing between the two" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.vta"], "none.vta: program file cannot be read: No such file or directory"),
        (["model.vta", "--bases", "0"], "--bases must be 5 numbers separated by commas, not '0'"),
        (
            ["model.vta", "--bases", "0,0,0,0,0"],
            "--bases must not be given with a compiled program, whose addresses are relative",
        ),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    vta_program().save(tmp_path / "model.vta")
    outcome = cli("check", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")


def racy_on_tiny() -> Program:
    """Two stores of an accumulator, between which it changes: the first does not wait."""
    source = """
    load.uop dram_base=0x400 y_size=1 x_size=1 x_stride=1
    alu.add uop_end=1 iter_out=1 iter_in=1 use_imm imm=1
    store.out dram_base=0x400 y_size=1 x_size=1 x_stride=1 push_prev
    load.uop pop_next
    finish
    """
    config = preset("tiny")
    return Program.raw(config=config, insns=code(config, source), insn_address=0x8000)


def test_an_engine_with_a_clock_refuses_a_race_unless_it_is_allowed(cli: Cli, tmp_path: Path) -> None:
    racy_on_tiny().save(tmp_path / "racy.vta")
    outcome = cli("exec", "racy.vta", "--engine", "amaranth")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: Program must have no races on an engine with a clock, not this: "
        "Instruction 2 (store.out dram_base=0x400 y_size=1 x_size=1 x_stride=1 push_prev) reads OUT[0], which "
        "instruction 1 (alu.add uop_end=1 iter_out=1 iter_in=1 imm=1 use_imm) writes; nothing orders them: "
        "a token of g2s is missing between the two; --allow-races runs it\n"
    )
    assert cli("exec", "racy.vta", "--engine", "amaranth", "--allow-races", "--json").code == 0
    assert cli("exec", "racy.vta", "--engine", "functional", "--json").code == 0


def test_a_compiled_program_with_a_race_does_not_run_on_an_engine_with_a_clock(cli: Cli, tmp_path: Path) -> None:
    program = vta_program()
    words = bytearray(program.insns)
    words[16 * 2] &= 0x87  # the ALU instruction gives no token
    words[16 * 3] &= 0xF7  # and the STORE takes none
    replace(program, insns=bytes(words)).save(tmp_path / "racy.vta")
    np.save(tmp_path / "x.npy", np.zeros((2, 16, 1, 1), np.float32))
    outcome = cli("run", "racy.vta", "--input", "x.npy", "--engine", "amaranth")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(
        "error: Program must have no races on an engine with a clock, not this: Instruction 3 (store.out "
    )
    assert cli("run", "racy.vta", "--input", "x.npy").code == 0
