"""Numbers shared by the compiled kernels and by the Python code around them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Format

NAMES: Final = {
    Format.HEADER: ("opcode", "pop_prev", "pop_next", "push_prev", "push_next"),
    Format.MEMORY: (
        "memory_type", "sram_base", "dram_base", "y_size", "x_size", "x_stride",
        "y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1",
    ),
    Format.GEMM: (
        "uop_bgn", "uop_end", "iter_out", "iter_in", "dst_factor_out", "dst_factor_in",
        "src_factor_out", "src_factor_in", "reset", "wgt_factor_out", "wgt_factor_in",
    ),
    Format.ALU: (
        "uop_bgn", "uop_end", "iter_out", "iter_in", "dst_factor_out", "dst_factor_in",
        "src_factor_out", "src_factor_in", "alu_opcode", "use_imm", "imm",
    ),
}  # fmt: skip
"""The fields that compiled code decodes, in the order of the constants below."""

FORMATS: Final = tuple(NAMES)
HEADER, MEMORY, GEMM, ALU = range(4)
"""Rows of `field_positions`."""

OPCODE, POP_PREV, POP_NEXT, PUSH_PREV, PUSH_NEXT = range(5)
MEMORY_TYPE, SRAM_BASE, DRAM_BASE, Y_SIZE, X_SIZE, X_STRIDE, Y_PAD_0, Y_PAD_1, X_PAD_0, X_PAD_1 = range(10)
UOP_BGN, UOP_END, ITER_OUT, ITER_IN, DST_OUT, DST_IN, SRC_OUT, SRC_IN = range(8)
RESET, WGT_OUT, WGT_IN = range(8, 11)
ALU_OPCODE, USE_IMM, IMM = range(8, 11)
MOST_FIELDS: Final = 11


class Code(IntEnum):
    """How the execution of an instruction, or of a launch, ended."""

    DONE = 0
    GROW = 1  # a STORE found no free page frames: give it some and go on
    STUCK = 2  # no instruction that is left has its tokens
    UNKNOWN_OPCODE = 3
    UNKNOWN_LOAD = 4  # value: memory type
    UNKNOWN_STORE = 5  # value: memory type
    UNKNOWN_ALU = 6  # value: ALU opcode
    LOAD_RANGE = 7  # value: end of the written range, limit: depth
    STORE_RANGE = 8
    UOP_RANGE = 9  # value: uop_end
    ACC_DST_RANGE = 10  # value: largest index, limit: depth, uop: micro-op
    ACC_SRC_RANGE = 11
    INP_RANGE = 12
    WGT_RANGE = 13


FAULT_CODE, FAULT_INSN, FAULT_VALUE, FAULT_LIMIT, FAULT_UOP = range(5)
"""Indices into the array a kernel describes a failure in."""


class Category(IntEnum):
    """Which counter of VTA spec 3.9 an instruction adds to."""

    NONE = 0
    INP = 1
    WGT = 2
    ACC = 3
    UOP = 4
    OUT = 5
    GEMM = 6
    ALU = 7


class Hint(IntEnum):
    """Things that are allowed here and go wrong on some VTA; bits of the lint column (VTA spec 11.15)."""

    FLAG_WITHOUT_QUEUE = 1
    STORE_PAD = 2
    STORE_OF_LOADED = 4
    IMMEDIATE_SOURCE = 8
    SHIFT_RANGE = 16
    UOP_ROWS = 32
    WGT_PAD = 64
    AFTER_FINISH = 128


class Queues(NamedTuple):
    """State of a launch, so that it can be left and entered again.

    next_insn: int64 [3] index of the next instruction of each module, or the number of instructions when it has none.
    tokens: int64 [4] in the order l2g, g2l, g2s, s2g. finished: int64 [1] FINISH instructions executed.
    """

    next_insn: NDArray[np.int64]
    tokens: NDArray[np.int64]
    finished: NDArray[np.int64]


L2G, G2L, G2S, S2G = range(4)


class Columns(NamedTuple):
    """What a launch leaves behind for each instruction, arrays [insn_count].

    category: uint8 `Category`. amount: int64 bytes or micro-ops added to that counter. hints: uint8 bits of `Hint`.
    """

    category: NDArray[np.uint8]
    amount: NDArray[np.int64]
    hints: NDArray[np.uint8]


def field_positions(config: VTAConfig) -> NDArray[np.int64]:
    """Return int64 [format][field][2]: lowest bit and width of each field in `NAMES`."""
    isa = ISA(config)
    table = np.zeros((len(FORMATS), MOST_FIELDS, 2), np.int64)
    for row, kind in enumerate(FORMATS):
        places = {field.name: (field.lsb, field.width) for field in isa.layout(kind)}
        table[row, : len(NAMES[kind])] = [places[name] for name in NAMES[kind]]
    return table
