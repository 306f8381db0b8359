"""The text form: readable, and the same program again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vta_hw.strategies import configs
from vta_hw.spec.asm import AsmError, assemble, disassemble, disassemble_program, disassemble_uop
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp, Finish, Gemm, GemmOverwrite, Insn, Load, MemoryType, Store, Unknown, Uop


@given(
    configs(),
    st.lists(st.integers(0, (1 << 128) - 1), max_size=8),
    st.lists(st.integers(0, (1 << 32) - 1), max_size=8),
)
def test_round_trip(config: VTAConfig, words: list[int], uop_words: list[int]) -> None:
    isa = ISA(config)
    insns = [isa.decode(word) for word in words]
    uops = [isa.decode_uop(word) for word in uop_words]
    assert assemble(disassemble_program(insns, uops), config) == (insns, uops)


@pytest.mark.parametrize(
    ("insn", "text"),
    [
        (
            Load(memory_type=MemoryType.INP, sram_base=16, dram_base=0x200, y_size=1, x_size=4, push_next=True),
            "load.inp sram_base=0x10 dram_base=0x200 y_size=1 x_size=4 push_next",
        ),
        (Store(memory_type=MemoryType.OUT, x_stride=9, pop_prev=True), "store.out x_stride=9 pop_prev"),
        (
            Gemm(uop_end=4, iter_out=1, iter_in=2, pop_prev=True, reset=True),
            "gemm uop_end=4 iter_out=1 iter_in=2 reset pop_prev",
        ),
        (Alu(alu_opcode=AluOp.SHR, use_imm=True, imm=-8, push_prev=True), "alu.shr imm=-8 use_imm push_prev"),
        (Alu(alu_opcode=6, imm=3), "alu.6 imm=3"),
        (Load(memory_type=7), "load.7"),
        (Load(memory_type=MemoryType.ACC_8BIT), "load.acc_8bit"),
        (Finish(pop_next=True), "finish pop_next"),
        (Unknown(opcode=5, raw=0xAB, push_next=True), "op.5 raw=0xab push_next"),
    ],
)
def test_spelling(insn: Insn, text: str) -> None:
    assert disassemble(insn) == text
    assert assemble(text, VTAConfig()) == ([insn], [])


@pytest.mark.parametrize(
    ("insn", "text"),
    [
        (
            GemmOverwrite(uop_end=4, wgt_factor_in=1, push_next=True),
            "gemm_overwrite uop_end=4 wgt_factor_in=1 push_next",
        ),
        (Load(memory_type=MemoryType.ACC_PAD_MIN, x_pad_0=1), "load.acc_pad_min x_pad_0=1"),
        (Load(memory_type=MemoryType.ACC_8BIT_PAD_MIN), "load.acc_8bit_pad_min"),
        (Store(memory_type=MemoryType.ACC_PAD_MIN), "store.acc_pad_min"),
        (Alu(alu_opcode=AluOp.REQUANT, imm=-3), "alu.requant imm=-3"),
        (Unknown(opcode=6), "op.6"),
    ],
)
def test_spelling_of_the_extended_set(insn: Insn, text: str) -> None:
    assert disassemble(insn) == text
    assert assemble(text, VTAConfig(isa="extended")) == ([insn], [])


def test_numbers_of_the_extended_set() -> None:
    """A number means what it means to the machine; a plain number is not named where only some machines know it."""
    insns, _ = assemble("load.6\nalu.5", VTAConfig(isa="extended"))
    assert [disassemble(insn) for insn in insns] == ["load.acc_pad_min", "alu.requant"]
    insns, _ = assemble("load.6\nalu.5", VTAConfig())
    assert [disassemble(insn) for insn in insns] == ["load.6", "alu.5"]


def test_micro_op_spelling() -> None:
    assert disassemble_uop(Uop(dst=1, wgt=3)) == "uop dst=1 wgt=3"
    assert disassemble_program([Finish()], [Uop()]) == "uop  # 0\nfinish  # 0\n"


def test_comments_case_and_numbers() -> None:
    text = "\n# whole line\n  LOAD.Inp X_SIZE=0x10 y_size=0b11 ; rest\n\nload.2 x_size=16 y_size=3 # same\r\nfinish"
    insns, uops = assemble(text, VTAConfig())
    assert insns == [Load(memory_type=MemoryType.INP, x_size=16, y_size=3)] * 2 + [Finish()]
    assert uops == []
    assert isinstance(insns[1], Load)
    assert isinstance(insns[1].memory_type, MemoryType)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mov", "mnemonic must be one of load, store, gemm, finish, alu, op, uop, not 'mov'"),
        ("load", "load memory_type must be one of uop, wgt, inp, acc, out, acc_8bit or a number, not ''"),
        ("load.foo", "load memory_type must be one of uop, wgt, inp, acc, out, acc_8bit or a number, not 'foo'"),
        ("load.8", "LOAD memory_type must fit 3 bits (0 to 7), not 8"),
        ("alu.-1", "alu alu_opcode must be one of min, max, add, shr, mul or a number, not '-1'"),
        ("gemm.reset", "gemm must stand alone, not with '.reset'"),
        ("finish.", "finish must stand alone, not with '.'"),
        ("uop.1", "uop must stand alone, not with '.1'"),
        (
            "gemm_overwrite",
            "mnemonic must be one of load, store, gemm, finish, alu, op, uop, not 'gemm_overwrite'",
        ),
        (
            "load.acc_pad_min",
            "load memory_type must be one of uop, wgt, inp, acc, out, acc_8bit or a number, not 'acc_pad_min'",
        ),
        ("alu.requant", "alu alu_opcode must be one of min, max, add, shr, mul or a number, not 'requant'"),
        ("op", "op opcode must be a number, not ''"),
        ("op.3", "UNKNOWN opcode must be 5 to 7, not 3"),
        ("op.x", "op opcode must be a number, not 'x'"),
        ("finish imm=3", "finish operand must be one of pop_prev, pop_next, push_prev, push_next, not 'imm'"),
        ("uop src", "uop src must be a number, not ''"),
        ("uop src=12x", "uop src must be a number, not '12x'"),
        ("uop src=1 src=1", "uop operand must be given once, not 'src' again"),
        ("finish pop_prev=1", "finish pop_prev must be a bare word, not 'pop_prev=1'"),
        ("uop dst=2048", "UOP dst must fit 11 bits (0 to 2047), not 2048"),
        ("gemm uop_bgn=-1", "GEMM uop_bgn must fit 13 bits (0 to 8191), not -1"),
        ("op.5 raw=-1", f"UNKNOWN raw must fit 121 bits (0 to {(1 << 121) - 1}), not -1"),
    ],
)
def test_refusals(line: str, message: str) -> None:
    with pytest.raises(AsmError, match=f"^{re.escape(f'line 3: {message}')}$") as caught:
        assemble(f"finish\n\n{line}\nfinish\n", VTAConfig())
    assert caught.value.line == 3
