"""``vta exec`` on hand-assembled streams: answers, options, and every refusal word for word."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.streams import OUTPUTS, code, raw_program, tensors, write_parts
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.program import Program, Tokens


def test_a_stream_from_files(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("exec", "--engine", "functional", "--json", "--count", "9", *write_parts(tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == {
        "engine": "functional",
        "config": "1x16x16_i8w8a32_15_15_18_17",
        "instructions": 9,
        "tokens_left": {"l2g": 0, "g2l": 0, "g2s": 0, "s2g": 0},
        "counters": {
            "inp_load_nbytes": 48,
            "wgt_load_nbytes": 256,
            "acc_load_nbytes": 0,
            "uop_load_nbytes": 4,
            "out_store_nbytes": 48,
            "gemm_counter": 3,
            "alu_counter": 3,
            "insn_count": 9,
        },
        "outputs": [{"address": OUTPUTS, "nbytes": 48, "sha256": hashlib.sha256(tensors()[2].tobytes()).hexdigest()}],
        "dumps": [{"address": OUTPUTS, "nbytes": 48, "file": "out.bin"}],
    }
    assert (tmp_path / "out.bin").read_bytes() == tensors()[2].tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "inp.bin",
        "insns.bin",
        "out.bin",
        "uops.bin",
        "wgt.bin",
    ]


def test_the_text_form_tells_totals_and_files(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("exec", *write_parts(tmp_path))
    assert outcome.code == 0
    assert "9 instructions on 1x16x16_i8w8a32_15_15_18_17" in outcome.out
    assert "gemm_counter" in outcome.out
    assert "out.bin: 48 bytes from 0x4000" in outcome.out
    assert "tokens left" not in outcome.out


def test_saved_as_a_program_it_runs_again(cli: Cli, tmp_path: Path) -> None:
    assert cli("exec", *write_parts(tmp_path), "--save", "stream.vta").code == 0
    outcome = cli("exec", "stream.vta", "--dump", "0x4000:48=again.bin", "--json")
    assert outcome.code == 0
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "out.bin").read_bytes()


def test_leftover_tokens_are_reported_and_given(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "load.uop pop_next push_prev push_next\nfinish\n"))
    outcome = cli("exec", "--insns", "insns.bin", "--tokens", "3,0,0x0,2", "--json")
    assert json.loads(outcome.out)["tokens_left"] == {"l2g": 3, "g2l": 1, "g2s": 1, "s2g": 1}
    text = cli("exec", "--insns", "insns.bin", "--tokens", "3,0,0,2").out
    assert "tokens left: l2g 3, g2l 1, g2s 1, s2g 1" in text


def test_uncovered_memory_reads_as_zero_wherever_it_is(cli: Cli, tmp_path: Path) -> None:
    """The instructions must not lie where the stream reads: it copies the page after its only segment."""
    (tmp_path / "one.bin").write_bytes(b"\x01" * 4096)
    source = """
    load.acc_8bit dram_base=0x200 y_size=1 x_size=128 x_stride=128
    load.uop dram_base=0 y_size=1 x_size=1 x_stride=1
    alu.add uop_end=1 iter_out=1 iter_in=128 dst_factor_in=1 src_factor_in=1 use_imm push_next
    store.out dram_base=0x300 y_size=1 x_size=128 x_stride=128 pop_prev push_prev
    load.uop pop_next
    finish
    """
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), source))
    arguments = ["--insns", "insns.bin", "--segment", "0x1000=one.bin", "--dump", "0x3000:0x1000=out.bin"]
    assert cli("exec", *arguments, "--dump", "0x800000:64=far.bin").code == 0
    assert (tmp_path / "out.bin").read_bytes() == bytes(2048) + bytes(2048)
    assert (tmp_path / "far.bin").read_bytes() == bytes(64)


def test_bases_are_added_to_what_instructions_address(cli: Cli, tmp_path: Path) -> None:
    write_parts(tmp_path)
    shift = 0x100000
    arguments = ["--segment", f"{shift + 0x1000}=uops.bin", "--segment", f"{shift + 0x2000}=inp.bin"]
    arguments += ["--segment", f"{shift + 0x3000}=wgt.bin", "--dump", f"{2 * shift + OUTPUTS}:48=out.bin"]
    bases = f"{shift},{shift},{shift},0,{2 * shift:#x}"
    assert cli("exec", "--insns", "insns.bin", "--bases", bases, *arguments).code == 0
    assert (tmp_path / "out.bin").read_bytes() == tensors()[2].tobytes()


def test_another_configuration_from_a_file(cli: Cli, tmp_path: Path) -> None:
    tiny = preset("tiny")
    tiny.save(tmp_path / "machine.json")
    (tmp_path / "insns.bin").write_bytes(code(tiny, "finish\n"))
    outcome = cli("exec", "--insns", "insns.bin", "--config", "machine.json", "--json")
    assert json.loads(outcome.out)["config"] == tiny.name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give the instructions with --insns FILE, or a raw PROGRAM.vta"),
        (["--insns", "none.bin"], "none.bin: No such file or directory"),
        (["--insns", "."], ".: must be a file, not a directory"),
        (["--insns", "odd.bin"], "odd.bin: must hold whole instructions of 16 bytes, not 17 bytes"),
        (["--insns", "empty.bin"], "empty.bin: must hold at least one instruction to run"),
        (["--insns", "insns.bin", "--count", "0"], "insns.bin: must hold at least one instruction to run"),
        (["--insns", "odd.bin", "--count", "2"], "odd.bin: must hold 2 instructions of 16 bytes, not 17 bytes"),
        (["--insns", "insns.bin", "--count", "1e3"], "--count must be a decimal or 0x number, not '1e3'"),
        (["--insns", "insns.bin", "--count", "-1"], "--count must be a decimal or 0x number, not '-1'"),
        (
            ["--insns", "insns.bin", "--insn-address", str(1 << 64)],
            f"--insn-address must be below 2**64, not {1 << 64}",
        ),
        (["--insns", "insns.bin", "--tokens", "1,2"], "--tokens must be 4 numbers separated by commas, not '1,2'"),
        (["--insns", "insns.bin", "--tokens", "1,2,x,4"], "--tokens must be a decimal or 0x number, not 'x'"),
        (["--insns", "insns.bin", "--bases", "0"], "--bases must be 5 numbers separated by commas, not '0'"),
        (["--insns", "insns.bin", "--segment", "0x10"], "--segment must be ADDR=FILE, not '0x10'"),
        (["--insns", "insns.bin", "--segment", "x=a"], "--segment address must be a decimal or 0x number, not 'x'"),
        (["--insns", "insns.bin", "--dump", "1=f"], "--dump must be ADDR:LEN=FILE, not '1=f'"),
        (["--insns", "insns.bin", "--dump", "1:z=f"], "--dump length must be a decimal or 0x number, not 'z'"),
        (
            ["--insns", "insns.bin", "--dump", "0:0x100000001=f"],
            "--dump length must be at most 4294967296 bytes, not 4294967297",
        ),
        (
            ["--insns", "insns.bin", "--dump", "0:1=f", "--dump", "1:1=./f"],
            "--dump must be a file of its own, not be 'f' like another --dump",
        ),
        (["--insns", "insns.bin", "--save", "/dev/null"], "/dev/null: must be a file, not a device"),
        (
            ["--insns", "insns.bin", "--segment", "0=empty.bin"],
            "empty.bin: must hold at least one byte to be a segment",
        ),
        (
            ["--insns", "insns.bin", "--segment", "0=odd.bin", "--segment", "0x10=odd.bin"],
            "segment at 16 and segment at 0 must not overlap, not lie at 16 to 33 and 0 to 17",
        ),
        (
            ["--insns", "insns.bin", "--engine", "cycles"],
            "Engine must be one of 'functional', 'cycle', 'rtl', 'amaranth', not 'cycles'; did you mean 'cycle'?",
        ),
        (
            ["--insns", "insns.bin", "--engine", "functinal"],
            (
                "Engine must be one of 'functional', 'cycle', 'rtl', 'amaranth', not 'functinal'"
                "; did you mean 'functional'?"
            ),
        ),
        (["--insns", "insns.bin", "--timeout", "0"], "--timeout must be a positive number of seconds, not '0'"),
        (["--insns", "insns.bin", "--tokns", "1"], "No such option '--tokns'. Did you mean '--tokens'?"),
        (["--insns", "insns.bin", "--dump", "0:1=no/f"], "no/f: the directory must exist"),
        (["--insns", "insns.bin", "--dump", "0:1=."], ".: must be a file, not a directory"),
        (["raw.vta", "--insns", "insns.bin"], "--insns must not be given with a program file, which says it itself"),
        (["raw.vta", "--config", "sim"], "--config must not be given with a program file, which says it itself"),
        (["stuck.vta"], "Instruction 0 (load.uop pop_prev): "),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "finish\n"))
    (tmp_path / "odd.bin").write_bytes(bytes(17))
    (tmp_path / "empty.bin").write_bytes(b"")
    raw_program().save(tmp_path / "raw.vta")
    raw_program("load.uop pop_prev\nfinish\n").save(tmp_path / "stuck.vta")
    before = sorted(path.name for path in tmp_path.iterdir())
    outcome = cli("exec", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}")
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (["--dump", "0:16=insns.bin"], "--dump must be a file of its own, not be 'insns.bin' like --insns"),
        (["--dump", "0:16=odd.bin"], "--dump must be a file of its own, not be 'odd.bin' like --segment"),
        (["--save", "insns.bin"], "--save must be a file of its own, not be 'insns.bin' like --insns"),
        (["--save", "sim.json"], "--save must be a file of its own, not be 'sim.json' like --config"),
        (["--save", "link.bin"], "--save must be a file of its own, not be 'link.bin' like --segment"),
        (
            ["--save", "new.vta", "--dump", "0:1=new.vta"],
            "--save must be a file of its own, not be 'new.vta' like --dump",
        ),
    ],
)
def test_inputs_are_not_written_over(cli: Cli, tmp_path: Path, output: list[str], sentence: str) -> None:
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "finish\n"))
    (tmp_path / "odd.bin").write_bytes(bytes(17))
    (tmp_path / "link.bin").symlink_to("odd.bin")
    VTAConfig().save(tmp_path / "sim.json")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = cli("exec", "--insns", "insns.bin", "--segment", "0=odd.bin", "--config", "sim.json", *output)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {sentence}\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_program_is_not_written_over(cli: Cli, tmp_path: Path) -> None:
    raw_program().save(tmp_path / "raw.vta")
    before = (tmp_path / "raw.vta").read_bytes()
    for output in (["--save", "raw.vta"], ["--dump", "0:1=raw.vta"]):
        outcome = cli("exec", "raw.vta", *output)
        assert outcome.code == 2
        assert outcome.err == f"error: {output[0]} must be a file of its own, not be 'raw.vta' like PROGRAM.vta\n"
    assert (tmp_path / "raw.vta").read_bytes() == before


def test_a_stream_with_tokens_keeps_them_in_its_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "load.uop pop_next\nfinish\n"))
    assert cli("exec", "--insns", "insns.bin", "--tokens", "0,0,0,1", "--save", "s.vta").code == 0
    assert Program.load(tmp_path / "s.vta").tokens_before == Tokens(s2g=1)
    assert cli("exec", "s.vta").code == 0
