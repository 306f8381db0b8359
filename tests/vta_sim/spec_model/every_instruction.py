"""The program of `data/every_instruction.s`, assembled by hand from the bit fields of the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import (
    ACC,
    ACC_8BIT,
    ADD,
    ALU,
    FINISH,
    GEMM,
    INP,
    LOAD,
    MAX,
    MIN,
    MUL,
    OUT,
    SHR,
    STORE,
    UOP,
    WGT,
    ModelConfig,
)

CONFIG = ModelConfig(
    log_batch=1,
    log_block_in=3,
    log_block_out=2,
    log_uop_buff=7,
    log_inp_buff=8,
    log_wgt_buff=8,
    log_acc_buff=9,
)
UOPS = [
    (0, 0, 0),
    (1, 1, 1),
    (2, 2, 2),
    (3, 3, 3),
    (5, 0, 4),
    (4, 1, 0),
    (6, 2, 3),
    (7, 3, 1),
    (9, 9, 2),
    (8, 12, 5),
    (15, 15, 7),
    (10, 4, 6),
]
WINDOW = ("sram_base", "dram_base", "y_size", "x_size", "x_stride", "y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
NEST = ("uop_bgn", "uop_end", "iter_out", "iter_in")
FACTORS = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in", "wgt_factor_out", "wgt_factor_in")


def _memory(opcode: int, memory: int, window: tuple[int, ...], *flags: str) -> int:
    fields = dict(zip(WINDOW, window, strict=False)) | dict.fromkeys(flags, 1)
    return layout.encode(CONFIG, opcode, memory_type=memory, **fields)


def _gemm(nest: tuple[int, ...], factors: tuple[int, ...], *flags: str) -> int:
    fields = dict(zip(NEST, nest, strict=True)) | dict(zip(FACTORS, factors, strict=False)) | dict.fromkeys(flags, 1)
    return layout.encode(CONFIG, GEMM, **fields)


def _alu(operation: int, nest: tuple[int, ...], factors: tuple[int, ...], imm: int | None = None, *flags: str) -> int:
    fields = dict(zip(NEST, nest, strict=True)) | dict(zip(FACTORS, factors, strict=False)) | dict.fromkeys(flags, 1)
    if imm is not None:
        fields |= {"use_imm": 1, "imm": imm}
    return layout.encode(CONFIG, ALU, alu_opcode=operation, **fields)


INSNS = [
    _memory(LOAD, UOP, (0, 0x4000, 1, 8, 8)),
    _memory(LOAD, UOP, (8, 0x4008, 2, 2, 2, 1, 2, 1, 1)),
    _memory(LOAD, INP, (0, 0x1100, 2, 2, 5, 1, 1, 1, 1)),
    _memory(LOAD, INP, (5, 0x1140, 3, 2, 0)),
    _memory(LOAD, INP, (11, 0x1121, 2, 2, 1)),
    _memory(LOAD, INP, (4, 0, 0, 1, 77, 1)),
    _memory(LOAD, WGT, (1, 0x900, 2, 1, 3, 1, 0, 0, 1)),
    _memory(LOAD, WGT, (0, 0x910, 1, 1, 0xFFFF)),
    _memory(LOAD, WGT, (6, 0x908, 1, 2), "push_next"),
    _memory(LOAD, ACC, (2, 0x980, 3, 2, 7, 1, 0, 0, 1)),
    _memory(LOAD, ACC_8BIT, (12, 0x2800, 2, 1, 3, 0, 0, 1, 0)),
    _gemm((0, 1, 2, 2), (14, 1), "reset"),
    _gemm((0, 4, 2, 3), (4, 1, 3, 2, 1, 1), "pop_prev", "push_prev", "push_next"),
    _memory(STORE, OUT, (0, 0x2A00, 2, 4, 9), "pop_prev", "push_prev"),
    _memory(LOAD, INP, (0, 0x1160, 1, 16, 16), "pop_next", "push_next"),
    _alu(MIN, (4, 8, 2, 1), (8,), 32767, "pop_next"),
    _alu(MAX, (4, 8, 1, 2), (0, 8), -32768),
    _alu(ADD, (0, 4, 2, 2), (4, 8), -7),
    _alu(MUL, (0, 1, 1, 16), (0, 1), -3),
    _alu(SHR, (0, 2, 4, 1), (2,), 3),
    _alu(SHR, (13, 14, 1, 3), (0, 1), -2),
    _alu(SHR, (17, 18, 1, 1), (), 33),
    _alu(MIN, (0, 4, 1, 2), (0, 8, 0, 3)),
    _alu(MAX, (4, 8, 2, 1), (8, 0, 5, 0)),
    _alu(ADD, (1, 2, 3, 3), (3, 1, 2, 2)),
    _alu(MUL, (0, 4, 2, 1), (10, 0, 1, 0)),
    _alu(SHR, (4, 6, 1, 1), ()),
    _gemm((0, 4, 0, 5), (), "pop_prev", "push_next"),
    _alu(ADD, (3, 3, 1, 1), (), 1),
    _memory(STORE, OUT, (4, 0x2A40, 3, 4, 1), "pop_prev"),
    _memory(STORE, OUT, (1, 0x2A60, 0, 3)),
    _memory(STORE, OUT, (9, 0x2A80, 1, 7), "push_prev"),
    _memory(STORE, UOP, (0xFFFF, 0, 3), "push_prev"),
    _memory(LOAD, INP, (0, 0, 1, 0, 0, 15), "push_next"),
    _memory(LOAD, UOP, (), "pop_prev", "pop_next", "push_prev"),
    _memory(LOAD, WGT, (0, 0, 0, 0, 0, 0, 0, 15), "pop_next", "push_next"),
    layout.encode(CONFIG, FINISH, pop_prev=1, pop_next=1),
]


def words() -> NDArray[np.uint64]:
    return layout.to_words(INSNS)


def uop_words() -> NDArray[np.uint32]:
    slots = layout.uop_slots(CONFIG)
    return np.array([layout.put(slots, dict(zip(("dst", "src", "wgt"), uop, strict=True))) for uop in UOPS], "<u4")


def memory() -> Dram:
    """Micro-ops at 0x10000, random data from 0x11000 up, some of it never covered."""
    dram, noise = Dram(), np.random.default_rng(11)
    for address, nbytes in ((0x11000, 0x5C0), (0x12000, 0x220), (0x13000, 0x1E0), (0x14000, 0x20), (0x15000, 0x500)):
        dram.write(address, noise.integers(0, 256, nbytes).astype(np.uint8))
    dram.write(0x10000, uop_words().view(np.uint8))
    return dram
