"""Encodings: golden vectors, round trips, the vectorised decoder, refusals."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vta_hw.strategies import configs
from vta_hw.spec.config import PRESETS, VTAConfig
from vta_hw.spec.isa import (
    FIELDS,
    ISA,
    Alu,
    AluOp,
    Code,
    EncodingError,
    Finish,
    Format,
    Gemm,
    GemmOverwrite,
    Insn,
    Load,
    MemoryType,
    Module,
    Opcode,
    Store,
    Unknown,
    Uop,
    codes_of,
    module_codes,
    module_of,
    opcode_of,
    requant_imm,
)

# Field values of the golden vectors, VTA spec 2.9.
LOAD = Load(
    pop_next=True,
    push_next=True,
    memory_type=MemoryType.INP,
    sram_base=0x123,
    dram_base=0x89ABCDEF,
    y_size=5,
    x_size=7,
    x_stride=0x1234,
    y_pad_0=1,
    y_pad_1=2,
    x_pad_0=3,
    x_pad_1=4,
)
STORE = Store(
    pop_prev=True,
    push_prev=True,
    memory_type=MemoryType.OUT,
    sram_base=0xFEDC,
    dram_base=0x10203,
    y_size=0xFFFF,
    x_size=1,
    x_stride=0x8000,
)
GEMM = Gemm(
    pop_prev=True,
    push_next=True,
    uop_bgn=3,
    uop_end=9,
    iter_out=0x2AAA,
    iter_in=0x1555,
    dst_factor_out=0x55,
    dst_factor_in=0x2B,
    src_factor_out=0x33,
    src_factor_in=0x4D,
    wgt_factor_out=0x5E,
    wgt_factor_in=0x61,
)
ALU = Alu(
    push_prev=True,
    uop_bgn=1,
    uop_end=2,
    iter_out=3,
    iter_in=4,
    dst_factor_out=5,
    dst_factor_in=6,
    src_factor_out=7,
    src_factor_in=8,
    alu_opcode=AluOp.SHR,
    use_imm=True,
    imm=-5,
)
UOP = Uop(dst=0x12, src=0x34, wgt=0x56)

# BATCH, BLOCK, log2 bytes of uop, inp, wgt, acc; U, A, I, W; GEMM, ALU, UOP (VTA spec 2.9).
GOLDEN = """
1 16 15 15 18 17  13 11 11 10  1845e09a0cc158552aab55500120034a fffbb01001c030050008001800400124 1581a012
1 32 15 15 18 17  13 10 10  8  00615e134330ac552aab55500120034a 0fffbb02007018050008001800400124 0560d012
1 16 10 15 18 17   8 11 11 10  000308bc1341982b0aaaaad55409034a 001fff760200380600a0020006020124 1581a012
2 16 15 15 18 17  13 10 10 10  01845e134330ac552aab55500120034a 0fffbb02007018050008001800400124 0560d012
1 16 15 14 18 17  13 11 10 10  0611784d0cc158552aab55500120034a fffbb01001c030050008001800400124 1581a012
1 16 12 14 17 16  10 10 10  9  00c25e134330ac5500aaad554024034a 0fffbb02007018050000200060080124 0560d012
4 16 15 16 19 18  13 10 10 11  03085e134330ac552aab55500120034a 0fffbb02007018050008001800400124 0560d012
"""


def refusal(message: str) -> Any:
    return pytest.raises(EncodingError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("line", GOLDEN.strip().splitlines())
def test_golden_vectors(line: str) -> None:
    numbers, (gemm, alu, uop) = [int(word) for word in line.split()[:10]], line.split()[10:]
    batch, block, *sizes = numbers[:6]
    log_block = block.bit_length() - 1
    config = VTAConfig(
        log_batch=batch.bit_length() - 1,
        log_block_in=log_block,
        log_block_out=log_block,
        log_uop_buff_size=sizes[0],
        log_inp_buff_size=sizes[1],
        log_wgt_buff_size=sizes[2],
        log_acc_buff_size=sizes[3],
    )
    depths = [config.log_uop_depth, config.log_acc_depth, config.log_inp_depth, config.log_wgt_depth]
    assert depths == numbers[6:]
    isa = ISA(config)
    golden: dict[Insn, str] = {
        LOAD: "43211234000700050226af37bc048d50",
        STORE: "000080000001ffff000004080ffb7229",
        GEMM: gemm,
        ALU: alu,
    }
    assert {insn: f"{isa.encode(insn):032x}" for insn in golden} == golden
    assert {insn: isa.decode(int(word, 16)) for insn, word in golden.items()} == {insn: insn for insn in golden}
    assert f"{isa.encode_uop(UOP):08x}" == uop
    assert isa.decode_uop(int(uop, 16)) == UOP


@pytest.mark.parametrize(
    ("insn", "word"),
    [
        (Load(memory_type=MemoryType.INP, push_next=True), 0x140),
        (Load(memory_type=MemoryType.UOP, pop_prev=True, pop_next=True), 0x18),
        (Finish(), 0x3),
    ],
)
def test_canonical_tail(insn: Insn, word: int) -> None:
    assert ISA(VTAConfig()).encode(insn) == word


def test_bytes_are_little_endian() -> None:
    isa = ISA(VTAConfig())
    words = isa.encode_program([LOAD])
    assert words.shape == (1, 2)
    assert words.dtype == np.uint64
    assert words.tobytes() == bytes.fromhex("43211234000700050226af37bc048d50")[::-1]
    assert isa.encode_uops([UOP]).tobytes() == bytes.fromhex("12a08115")


def test_default_layout_of_gemm() -> None:
    # VTA spec 2.3
    layout = {field.name: (field.lsb, field.width) for field in ISA(VTAConfig()).layout(Format.GEMM)}
    assert layout == {
        "opcode": (0, 3),
        "pop_prev": (3, 1),
        "pop_next": (4, 1),
        "push_prev": (5, 1),
        "push_next": (6, 1),
        "reset": (7, 1),
        "uop_bgn": (8, 13),
        "uop_end": (21, 14),
        "iter_out": (35, 14),
        "iter_in": (49, 14),
        "dst_factor_out": (64, 11),
        "dst_factor_in": (75, 11),
        "src_factor_out": (86, 11),
        "src_factor_in": (97, 11),
        "wgt_factor_out": (108, 10),
        "wgt_factor_in": (118, 10),
    }


@given(configs())
def test_every_layout_fits_and_never_crosses_bit_64(config: VTAConfig) -> None:
    isa = ISA(config)
    for kind in Format:
        end = 0
        for field in isa.layout(kind):
            assert field.width > 0
            assert field.lsb >= end
            end = field.lsb + field.width
            assert field.lsb // 64 == (end - 1) // 64
        assert end <= (32 if kind is Format.UOP else 128)


def test_layout_by_opcode() -> None:
    isa = ISA(PRESETS["tiny"])
    assert isa.layout(Opcode.LOAD) == isa.layout(Opcode.STORE) == isa.layout(Format.MEMORY)
    assert isa.layout(Opcode.FINISH) == isa.layout(Format.HEADER)


def used_bits(isa: ISA, word: int) -> int:
    """The bits of `word` that its opcode gives a meaning to."""
    opcode = word & 7
    if opcode not in codes_of(Opcode, isa.config.isa):
        return word
    mask = sum((1 << field.width) - 1 << field.lsb for field in isa.layout(isa.format_of(opcode)))
    return word & mask


@given(configs(), st.integers(0, (1 << 128) - 1))
def test_every_word_decodes_and_comes_back(config: VTAConfig, word: int) -> None:
    isa = ISA(config)
    insn = isa.decode(word)
    assert opcode_of(insn) == word & 7
    assert isa.encode(insn) == used_bits(isa, word)
    assert isa.decode(isa.encode(insn)) == insn


@given(configs(), st.integers(0, (1 << 128) - 1))
def test_an_extended_machine_reads_every_program_of_tvm_as_it_is(config: VTAConfig, word: int) -> None:
    base, extended = (ISA(replace(config, isa=isa)) for isa in ("tvm", "extended"))
    insn = base.decode(word)
    unknown = isinstance(insn, Unknown) or any(
        not isinstance(getattr(insn, name, code), Code)
        for name, code in (("memory_type", MemoryType.UOP), ("alu_opcode", AluOp.MIN))
    )
    if not unknown:
        assert extended.decode(word) == insn


def test_the_extended_set() -> None:
    isa = ISA(VTAConfig(isa="extended"))
    gemm = isa.encode(GEMM)
    assert isa.decode(gemm + 3) == GemmOverwrite(**{name.name: getattr(GEMM, name.name) for name in fields(GEMM)})
    assert isa.layout(Opcode.GEMM_OVERWRITE) == isa.layout(Opcode.GEMM)
    for code in (MemoryType.ACC_PAD_MIN, MemoryType.ACC_8BIT_PAD_MIN):
        load = isa.decode(isa.encode(Load(memory_type=int(code))))
        assert isinstance(load, Load)
        assert load.memory_type is code
        assert module_of(load) is Module.COMPUTE
    alu = isa.decode(isa.encode(Alu(alu_opcode=5, imm=requant_imm(-3, relu=True))))
    assert isinstance(alu, Alu)
    assert alu.alu_opcode is AluOp.REQUANT
    assert (opcode_of(GemmOverwrite()), module_of(GemmOverwrite())) == (5, Module.COMPUTE)
    for code in (6, 7):
        assert isa.decode(code) == Unknown(opcode=code)
        assert isa.decode(isa.encode(Alu(alu_opcode=code))) == Alu(alu_opcode=code)
    with refusal("UNKNOWN opcode must be 6 to 7, not 5"):
        isa.encode(Unknown(opcode=5))


def test_the_immediate_of_a_requant() -> None:
    assert [requant_imm(value) for value in (0, 5, -1, -16384, 16383)] == [0, 5, 0x7FFF, 0x4000, 0x3FFF]
    assert [requant_imm(value, relu=True) for value in (0, -1, -16384)] == [-0x8000, -1, -0x4000]
    with pytest.raises(ValueError, match=r"^zero point must fit 15 bits \(-16384 to 16383\), not 16384$"):
        requant_imm(16384)
    with pytest.raises(ValueError, match=r"^zero point must fit 15 bits \(-16384 to 16383\), not -16385$"):
        requant_imm(-16385)


@given(configs(), st.integers(0, (1 << 32) - 1))
def test_every_micro_op_decodes_and_comes_back(config: VTAConfig, word: int) -> None:
    isa = ISA(config)
    mask = (1 << sum(field.width for field in isa.layout(Format.UOP))) - 1
    uop = isa.decode_uop(word)
    assert isa.encode_uop(uop) == word & mask
    rows = isa.decode_uops(np.array([word], dtype=np.uint32))
    assert rows[0].tolist() == (uop.dst, uop.src, uop.wgt)
    assert isa.encode_uops([uop]).tolist() == [word & mask]


@given(configs(), st.lists(st.integers(0, (1 << 128) - 1), max_size=12))
def test_columns_agree_with_the_decoder(config: VTAConfig, numbers: list[int]) -> None:
    isa = ISA(config)
    data = b"".join(number.to_bytes(16, "little") for number in numbers)
    insns = isa.decode_program(data)
    rows = isa.decode_fields(data)
    names = {field.name for kind in Format if kind is not Format.UOP for field in FIELDS[kind]}
    assert set(rows.dtype.names or ()) == names
    assert rows.shape == (len(numbers),)
    assert [Module(code) for code in module_codes(rows)] == [module_of(insn) for insn in insns]
    for row, insn in zip(rows, insns, strict=True):
        assert row["opcode"] == opcode_of(insn)
        expected = {field.name: getattr(insn, field.name) for field in fields(insn) if field.name in names}
        for name in names - {"opcode"}:
            assert row[name] == expected.get(name, 0), name


def test_program_forms_agree() -> None:
    isa = ISA(VTAConfig())
    program: list[Insn] = [LOAD, GEMM, ALU, STORE, Finish(), Unknown(opcode=7, raw=1 << 120, pop_prev=True)]
    words = isa.encode_program([replace(insn, pop_prev=False) for insn in program])
    assert isa.decode_program(words) == isa.decode_program(words.tobytes())
    assert (isa.decode_fields(words) == isa.decode_fields(words.tobytes())).all()
    assert isa.encode_program([]).shape == (0, 2)
    assert isa.decode_fields(b"").shape == (0,)


def test_unassigned_codes_keep_their_numbers() -> None:
    isa = ISA(VTAConfig())
    for code in (6, 7):
        assert isa.decode(isa.encode(Load(memory_type=code))) == Load(memory_type=code)
        assert isa.decode(isa.encode(Store(memory_type=code))) == Store(memory_type=code)
    for code in (5, 6, 7):
        assert isa.decode(isa.encode(Alu(alu_opcode=code))) == Alu(alu_opcode=code)
        assert isa.decode(code) == Unknown(opcode=code)
    assert isinstance(isa.decode(isa.encode(Load(memory_type=5))).memory_type, MemoryType)  # type: ignore[union-attr]  # the refusal is tested


@pytest.mark.parametrize(
    ("insn", "module"),
    [
        (Store(memory_type=MemoryType.UOP), Module.STORE),
        (Load(memory_type=MemoryType.INP), Module.LOAD),
        (Load(memory_type=MemoryType.WGT), Module.LOAD),
        (Load(memory_type=MemoryType.UOP), Module.COMPUTE),
        (Load(memory_type=MemoryType.ACC), Module.COMPUTE),
        (Load(memory_type=MemoryType.ACC_8BIT), Module.COMPUTE),
        (Load(memory_type=MemoryType.OUT), Module.COMPUTE),
        (Load(memory_type=7), Module.COMPUTE),
        (Gemm(), Module.COMPUTE),
        (Alu(), Module.COMPUTE),
        (Finish(), Module.COMPUTE),
        (Unknown(opcode=6), Module.COMPUTE),
    ],
)
def test_modules(insn: Insn, module: Module) -> None:
    assert module_of(insn) is module


@pytest.mark.parametrize(
    ("insn", "message"),
    [
        (Load(sram_base=65536), "LOAD sram_base must fit 16 bits (0 to 65535), not 65536"),
        (Load(dram_base=-1), "LOAD dram_base must fit 32 bits (0 to 4294967295), not -1"),
        (Store(x_pad_1=16), "STORE x_pad_1 must fit 4 bits (0 to 15), not 16"),
        (Load(memory_type=8), "LOAD memory_type must fit 3 bits (0 to 7), not 8"),
        (Gemm(uop_bgn=8192), "GEMM uop_bgn must fit 13 bits (0 to 8191), not 8192"),
        (Gemm(uop_end=16384), "GEMM uop_end must fit 14 bits (0 to 16383), not 16384"),
        (Gemm(iter_in=16384), "GEMM iter_in must fit 14 bits (0 to 16383), not 16384"),
        (Gemm(wgt_factor_in=1024), "GEMM wgt_factor_in must fit 10 bits (0 to 1023), not 1024"),
        (Alu(imm=32768), "ALU imm must fit 16 bits (-32768 to 32767), not 32768"),
        (Alu(imm=-32769), "ALU imm must fit 16 bits (-32768 to 32767), not -32769"),
        (Alu(alu_opcode=8), "ALU alu_opcode must fit 3 bits (0 to 7), not 8"),
        (Alu(imm=1.5), "ALU imm must be an integer, not 1.5"),  # type: ignore[arg-type]  # the refusal is tested
        (Finish(pop_prev=2), "FINISH pop_prev must fit 1 bits (0 to 1), not 2"),  # type: ignore[arg-type]  # the refusal is tested
        (GemmOverwrite(), "Instruction must be of the instruction set tvm, not GEMM_OVERWRITE"),
        (
            Load(memory_type=MemoryType.ACC_PAD_MIN),
            "LOAD memory_type must be of the instruction set tvm, not ACC_PAD_MIN",
        ),
        (
            Store(memory_type=MemoryType.ACC_8BIT_PAD_MIN),
            "STORE memory_type must be of the instruction set tvm, not ACC_8BIT_PAD_MIN",
        ),
        (Alu(alu_opcode=AluOp.REQUANT), "ALU alu_opcode must be of the instruction set tvm, not REQUANT"),
        (Unknown(opcode=4), "UNKNOWN opcode must be 5 to 7, not 4"),
        (Unknown(opcode=8), "UNKNOWN opcode must be 5 to 7, not 8"),
        (Unknown(raw=1 << 121), f"UNKNOWN raw must fit 121 bits (0 to {(1 << 121) - 1}), not {1 << 121}"),
    ],
)
def test_encoding_refusals(insn: Insn, message: str) -> None:
    with refusal(message):
        ISA(VTAConfig()).encode(insn)


def test_unknown_instructions_state_their_flags_once() -> None:
    # Bits 3 to 6 are the flags and not part of `raw`.
    isa = ISA(VTAConfig())
    assert isa.encode(Unknown(opcode=5, push_next=True, raw=1)) == 0b1_1000_101


def test_micro_op_refusals() -> None:
    isa = ISA(VTAConfig())
    with refusal("UOP wgt must fit 10 bits (0 to 1023), not 1024"):
        isa.encode_uop(Uop(wgt=1024))
    with refusal("UOP src must fit 11 bits (0 to 2047), not 2048"):
        isa.encode_uops([Uop(), Uop(src=2048)])
    with refusal("UOP dst must fit 11 bits (0 to 2047), not -1"):
        isa.encode_uops(([0, -1], [0, 0], [0, 0]))
    with refusal("UOP dst must be integers, not float64"):
        isa.encode_uops(([0.5], [0], [0]))
    with refusal("micro-ops must be a multiple of 4 bytes, not 5"):
        isa.decode_uops(bytes(5))
    with refusal(f"micro-op must be a number of 32 bits, not {1 << 32}"):
        isa.decode_uop(1 << 32)


def test_micro_ops_from_arrays() -> None:
    isa = ISA(VTAConfig())
    dst, src, wgt = np.arange(5), np.arange(5) * 2, 3
    words = isa.encode_uops((dst, src, wgt))
    assert words.dtype == np.uint32
    rows = isa.decode_uops(words.tobytes())
    assert (rows["dst"] == dst).all()
    assert (rows["src"] == src).all()
    assert (rows["wgt"] == 3).all()
    assert words.tolist() == isa.encode_uops([Uop(dst=i, src=2 * i, wgt=3) for i in range(5)]).tolist()
    assert isa.encode_uops([]).shape == (0,)


def test_program_refusals() -> None:
    isa = ISA(VTAConfig())
    with refusal("instructions must be a multiple of 16 bytes, not 15"):
        isa.decode_program(bytes(15))
    with refusal("instructions must be uint64 of shape (N, 2), not int64 of (1, 2)"):
        isa.decode_fields(np.zeros((1, 2), dtype=np.int64))
    with refusal(f"instruction must be a number of 128 bits, not {1 << 128}"):
        isa.decode(1 << 128)


def test_table_and_classes_name_the_same_fields() -> None:
    classes: dict[Format, tuple[type, ...]] = {
        Format.MEMORY: (Load, Store),
        Format.GEMM: (Gemm, GemmOverwrite),
        Format.ALU: (Alu,),
        Format.HEADER: (Finish,),
        Format.UOP: (Uop,),
    }
    for kind, members in classes.items():
        names = {field.name for field in FIELDS[kind]} - {"opcode"}
        for member in members:
            assert {field.name for field in fields(member)} == names
