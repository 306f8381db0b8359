"""Numbers shared by the compiled kernels and by the Python code around them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Format, MemoryType, Module, Opcode, codes_of

_MEMORY_FIELDS: Final = (
    "memory_type", "sram_base", "dram_base", "y_size", "x_size", "x_stride", "y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1",
)  # fmt: skip
_NEST_FIELDS: Final = (
    "uop_bgn", "uop_end", "iter_out", "iter_in",
    "dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in",
)  # fmt: skip
_NAMES: Final = {
    Format.MEMORY: _MEMORY_FIELDS,
    Format.GEMM: (*_NEST_FIELDS, "wgt_factor_out", "wgt_factor_in", "reset"),
    Format.ALU: (*_NEST_FIELDS, "alu_opcode", "use_imm", "imm"),
    Format.HEADER: (),
}

MEMORY_TYPE, SRAM_BASE, DRAM_BASE, Y_SIZE, X_SIZE, X_STRIDE, Y_PAD_0, Y_PAD_1, X_PAD_0, X_PAD_1 = range(10)
UOP_BGN, UOP_END, ITER_OUT, ITER_IN, DST_OUT, DST_IN, SRC_OUT, SRC_IN = range(8)
WGT_OUT, WGT_IN, RESET = range(8, 11)
ALU_OPCODE, USE_IMM, IMM = range(8, 11)
FIELD_COUNT: Final = 11
"""Indices of decoded fields, in the order of the names above: of memory, of GEMM and ALU, of GEMM, of ALU formats."""


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
    DST_RANGE = 10  # value: largest index, limit: depth, uop: micro-op
    SRC_RANGE = 11
    WGT_RANGE = 12


FAULT_INSN, FAULT_VALUE, FAULT_LIMIT, FAULT_UOP = range(4)
"""Indices into the array a kernel describes a failure in."""

FLAG_POP_PREV, FLAG_POP_NEXT, FLAG_PUSH_PREV, FLAG_PUSH_NEXT = range(4)
"""Bits of `Queues.flags`."""

L2G, G2L, G2S, S2G = range(4)
"""Indices into `Queues.tokens`."""

HINT_IMMEDIATE_SOURCE: Final = 1
HINT_STORE_OF_LOADED: Final = 2
"""Bits of `Queues.hints`: what only execution can find out (see `vta_sim.functional.lint`)."""


class Queues(NamedTuple):
    """State of a launch, so that it can be left and entered again.

    module, flags: uint8 [N] module number and token flags of each instruction. hints: uint8 [N], filled on the way.
    next_insn: int64 [3] index of the next instruction of each module, N when it has none. tokens: int64 [4].
    fields: int64 [FIELD_COUNT] of the instruction at hand. fault: int64 [4].
    """

    module: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    hints: NDArray[np.uint8]
    next_insn: NDArray[np.int64]
    tokens: NDArray[np.int64]
    fields: NDArray[np.int64]
    fault: NDArray[np.int64]


def field_positions(config: VTAConfig) -> NDArray[np.int64]:
    """Return int64 [opcode][field][2]: lowest bit and width of each field that compiled code decodes; 0 if none."""
    isa = ISA(config)
    table = np.zeros((8, FIELD_COUNT, 2), np.int64)
    for opcode in codes_of(Opcode, config.isa):
        names = _NAMES[isa.format_of(opcode)]
        places = {field.name: (field.lsb, field.width) for field in isa.layout(opcode)}
        for number, name in enumerate(names):
            table[opcode, number] = places[name]
    return table


def make_queues(config: VTAConfig, words: NDArray[np.uint64], tokens: tuple[int, int, int, int]) -> Queues:
    """Return the state at the beginning of a launch of `words`, uint64 [N][2], with `tokens` l2g, g2l, g2s, s2g."""
    opcode = words[:, 0] & np.uint64(7)
    places = {field.name: np.uint64(field.lsb) for field in ISA(config).layout(Opcode.LOAD)}
    memory_type = words[:, 0] >> places["memory_type"] & np.uint64(7)
    # INP and WGT go to the load queue, whatever else is loaded to compute (VTA spec 5.1).
    to_load = (opcode == Opcode.LOAD) & ((memory_type == MemoryType.WGT) | (memory_type == MemoryType.INP))
    module = np.full(len(words), Module.COMPUTE.value, np.uint8)
    module[to_load] = Module.LOAD.value
    module[opcode == Opcode.STORE] = Module.STORE.value
    return Queues(
        module=module,
        flags=(words[:, 0] >> places["pop_prev"] & np.uint64(15)).astype(np.uint8),
        hints=np.zeros(len(words), np.uint8),
        next_insn=np.zeros(3, np.int64),
        tokens=np.array(tokens, np.int64),
        fields=np.zeros(FIELD_COUNT, np.int64),
        fault=np.zeros(4, np.int64),
    )
