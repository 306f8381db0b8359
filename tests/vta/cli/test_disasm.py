"""``vta disasm``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.vta.cli.conftest import Cli
from tests.vta.streams import UOPS, code, raw_program
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Uop
from vta_hw.spec.program import Launch, Layer, Program, Segment


def layered() -> Program:
    """Two layers, instructions before and behind them, three micro-ops."""
    config = VTAConfig()
    lines = ["load.uop", "gemm iter_in=1", "gemm iter_in=2", "alu.shr use_imm imm=1", "finish"]
    return Program(
        config=config,
        insns=code(config, "\n".join(lines)),
        uops=ISA(config).encode_uops([Uop(dst=1), Uop(dst=2, src=3), Uop(wgt=4)]).tobytes(),
        uop_address=0x1000,
        arena_bytes=0x2000,
        steps=(Launch(insn_begin=0, insn_count=5),),
        layers=(
            Layer(name="conv", insn_begin=1, insn_end=3, macs=1024),
            Layer(name="relu", insn_begin=3, insn_end=4),
        ),
    )


def test_layers_are_named_where_they_begin(cli: Cli, tmp_path: Path) -> None:
    layered().save(tmp_path / "p.vta")
    assert cli("disasm", "p.vta").out.splitlines() == [
        "# 1x16x16_i8w8a32_15_15_18_17, 5 instructions, 3 micro-ops",
        "load.uop  # 0",
        "# layer conv: instructions 1 to 2, 1,024 MACs",
        "gemm iter_in=1  # 1",
        "gemm iter_in=2  # 2",
        "# layer relu: instructions 3 to 3, 0 MACs",
        "alu.shr imm=1 use_imm  # 3",
        "finish  # 4",
    ]


def test_micro_ops(cli: Cli, tmp_path: Path) -> None:
    layered().save(tmp_path / "p.vta")
    lines = cli("disasm", "p.vta", "--uops").out.splitlines()
    assert lines[1:4] == ["uop dst=1  # 0", "uop dst=2 src=3  # 1", "uop wgt=4  # 2"]


def test_micro_ops_of_a_raw_program_are_those_it_loads(cli: Cli, tmp_path: Path) -> None:
    word = ISA(VTAConfig()).encode_uop(Uop(dst=5, src=6, wgt=7)).to_bytes(4, "little")
    program = raw_program()
    segments = (Segment(address=UOPS, data=word), *program.segments[1:])
    replace(program, segments=segments).save(tmp_path / "raw.vta")
    assert cli("disasm", "raw.vta", "--uops").out.splitlines()[1] == f"uop dst=5 src=6 wgt=7  # {UOPS:#x}"


def test_the_text_assembles_to_the_same_instructions(cli: Cli, tmp_path: Path) -> None:
    raw_program().save(tmp_path / "raw.vta")
    insns, _ = assemble(cli("disasm", "raw.vta").out, VTAConfig())
    assert ISA(VTAConfig()).encode_program(insns).tobytes() == raw_program().insns


def test_raw_instructions_need_a_configuration(cli: Cli, tmp_path: Path) -> None:
    config = VTAConfig(log_block_in=5, log_block_out=5)
    config.save(tmp_path / "c.json")
    (tmp_path / "insns.bin").write_bytes(code(config, "gemm wgt_factor_in=3\nfinish"))
    assert cli("disasm", "insns.bin", "--config", "c.json").out == "gemm wgt_factor_in=3  # 0\nfinish  # 1\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.bin"], "none.bin: No such file or directory"),
        (["odd.bin"], "odd.bin: must hold whole instructions of 16 bytes, not 15 bytes"),
        (["insns.bin", "--uops"], "insns.bin: must be a program file for --uops, not raw instructions"),
        (["p.vta", "--config", "sim"], "--config must not be given with a program file, which says it itself"),
        (["zip.bin"], "zip.bin: program file cannot be read: archive must be an intact zip file: "),
    ],
)
def test_refusals(cli: Cli, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "odd.bin").write_bytes(bytes(15))
    (tmp_path / "zip.bin").write_bytes(b"PK\x03\x04" + bytes(28))
    (tmp_path / "insns.bin").write_bytes(code(VTAConfig(), "finish"))
    layered().save(tmp_path / "p.vta")
    outcome = cli("disasm", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {sentence}")
    assert outcome.err.count("\n") == 1
