"""Configuration and bit fields (VTA spec 1.2 and 2.1 to 2.7; decision 0006 for the extended set)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LOAD, STORE, GEMM, FINISH, ALU, GEMM_OVERWRITE = range(6)
UOP, WGT, INP, ACC, OUT, ACC_8BIT, ACC_PAD_MIN, ACC_8BIT_PAD_MIN = range(8)
MIN, MAX, ADD, SHR, MUL, REQUANT = range(6)

Fields: TypeAlias = dict[str, int]
Slots: TypeAlias = dict[str, tuple[int, int]]
"""Field name -> (lowest bit, width)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The numbers of one VTA; buffer sizes are log2 of bytes."""

    log_inp_width: int = 3
    log_wgt_width: int = 3
    log_acc_width: int = 5
    log_batch: int = 0
    log_block_in: int = 4
    log_block_out: int = 4
    log_uop_buff: int = 15
    log_inp_buff: int = 15
    log_wgt_buff: int = 18
    log_acc_buff: int = 17
    log_address_width: int = 5
    extended: bool = False

    @classmethod
    def from_tvm(cls, table: Mapping[str, object]) -> ModelConfig:
        """Read the keys of `vta_config.json`; LOG_BLOCK stands for both block sizes."""
        number = {key: value for key, value in table.items() if isinstance(value, int)}
        return cls(
            log_inp_width=number["LOG_INP_WIDTH"],
            log_wgt_width=number["LOG_WGT_WIDTH"],
            log_acc_width=number["LOG_ACC_WIDTH"],
            log_batch=number["LOG_BATCH"],
            log_block_in=number["LOG_BLOCK_IN"] if "LOG_BLOCK_IN" in number else number["LOG_BLOCK"],
            log_block_out=number["LOG_BLOCK_OUT"] if "LOG_BLOCK_OUT" in number else number["LOG_BLOCK"],
            log_uop_buff=number["LOG_UOP_BUFF_SIZE"],
            log_inp_buff=number["LOG_INP_BUFF_SIZE"],
            log_wgt_buff=number["LOG_WGT_BUFF_SIZE"],
            log_acc_buff=number["LOG_ACC_BUFF_SIZE"],
            log_address_width=number.get("LOG_ADDRESS_WIDTH", 5),
            extended=table.get("ISA") == "extended",
        )

    def to_tvm(self) -> dict[str, int | str]:
        """The inverse of `from_tvm`, with the two block sizes apart when they differ."""
        if self.log_block_in == self.log_block_out:
            block = {"LOG_BLOCK": self.log_block_in}
        else:
            block = {"LOG_BLOCK_IN": self.log_block_in, "LOG_BLOCK_OUT": self.log_block_out}
        options: dict[str, int | str] = {"ISA": "extended"} if self.extended else {}
        if self.log_address_width != 5:
            options["LOG_ADDRESS_WIDTH"] = self.log_address_width
        return {
            "TARGET": "sim",
            "HW_VER": "0.0.2",
            "LOG_INP_WIDTH": self.log_inp_width,
            "LOG_WGT_WIDTH": self.log_wgt_width,
            "LOG_ACC_WIDTH": self.log_acc_width,
            "LOG_BATCH": self.log_batch,
            **block,
            "LOG_UOP_BUFF_SIZE": self.log_uop_buff,
            "LOG_INP_BUFF_SIZE": self.log_inp_buff,
            "LOG_WGT_BUFF_SIZE": self.log_wgt_buff,
            "LOG_ACC_BUFF_SIZE": self.log_acc_buff,
            **options,
        }

    @property
    def batch(self) -> int:
        return 1 << self.log_batch

    @property
    def block_in(self) -> int:
        return 1 << self.log_block_in

    @property
    def block_out(self) -> int:
        return 1 << self.log_block_out

    @property
    def log_uop_depth(self) -> int:
        return self.log_uop_buff - 2

    @property
    def log_inp_depth(self) -> int:
        return self.log_inp_buff + 3 - self.log_batch - self.log_block_in - self.log_inp_width

    @property
    def log_wgt_depth(self) -> int:
        return self.log_wgt_buff + 3 - self.log_block_out - self.log_block_in - self.log_wgt_width

    @property
    def log_acc_depth(self) -> int:
        return self.log_acc_buff + 3 - self.log_batch - self.log_block_out - self.log_acc_width

    def depth(self, memory: int) -> int:
        """Elements of a scratchpad; OUT is as deep as ACC (spec 3.6)."""
        logs = {UOP: self.log_uop_depth, INP: self.log_inp_depth, WGT: self.log_wgt_depth}
        return 1 << logs.get(memory, self.log_acc_depth)

    def shape(self, memory: int) -> tuple[int, ...]:
        """Scalars of one element, in memory order (spec 4)."""
        shapes = {UOP: (), INP: (self.batch, self.block_in), WGT: (self.block_out, self.block_in)}
        return shapes.get(memory, (self.batch, self.block_out))

    def bits(self, memory: int) -> int:
        """Bits of one scalar as it stands in DRAM; OUT scalars are as wide as INP scalars."""
        logs = {UOP: 5, INP: self.log_inp_width, OUT: self.log_inp_width, WGT: self.log_wgt_width}
        logs |= {ACC_8BIT: 3, ACC_8BIT_PAD_MIN: 3}
        return 1 << logs.get(memory, self.log_acc_width)

    def element_bytes(self, memory: int) -> int:
        """Bytes of one element in DRAM, the unit of dram_base and x_stride (spec 3.1)."""
        return int(np.prod(self.shape(memory), dtype=np.int64)) * self.bits(memory) // 8


HEADER = (("opcode", 3), ("pop_prev", 1), ("pop_next", 1), ("push_prev", 1), ("push_next", 1))
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")


def place(fields: Iterable[tuple[str, int]]) -> Slots:
    """Positions by the rule of spec 2.7: a field that would straddle bit 64 starts there."""
    slots: Slots = {}
    bit = 0
    for name, width in fields:
        if bit < 64 < bit + width:
            bit = 64
        slots[name] = (bit, width)
        bit += width
    return slots


def memory_slots() -> Slots:
    """LOAD and STORE; the same for every configuration."""
    sizes = (("y_size", 16), ("x_size", 16), ("x_stride", 16))
    pads = (("y_pad_0", 4), ("y_pad_1", 4), ("x_pad_0", 4), ("x_pad_1", 4))
    return place((*HEADER, ("memory_type", 3), ("sram_base", 16), ("dram_base", 32), *sizes, *pads))


def _nest(config: ModelConfig, src: int) -> tuple[tuple[str, int], ...]:
    u, a = config.log_uop_depth, config.log_acc_depth
    trips = (("reset", 1), ("uop_bgn", u), ("uop_end", u + 1), ("iter_out", 14), ("iter_in", 14))
    factors = (("dst_factor_out", a), ("dst_factor_in", a), ("src_factor_out", src), ("src_factor_in", src))
    return (*HEADER, *trips, *factors)


def gemm_slots(config: ModelConfig) -> Slots:
    w = config.log_wgt_depth
    return place((*_nest(config, config.log_inp_depth), ("wgt_factor_out", w), ("wgt_factor_in", w)))


def alu_slots(config: ModelConfig) -> Slots:
    tail = (("alu_opcode", 3), ("use_imm", 1), ("imm", 16))
    return place((*_nest(config, config.log_acc_depth), *tail))


def uop_slots(config: ModelConfig) -> Slots:
    a, i, w = config.log_acc_depth, config.log_inp_depth, config.log_wgt_depth
    return place((("dst", a), ("src", max(a, i)), ("wgt", w)))


def slots_of(config: ModelConfig, opcode: int) -> Slots:
    """Bit fields of the instruction with this opcode; FINISH and unknown opcodes have the header alone."""
    if opcode in (LOAD, STORE):
        return memory_slots()
    if opcode == GEMM or (opcode == GEMM_OVERWRITE and config.extended):
        return gemm_slots(config)
    return alu_slots(config) if opcode == ALU else place(HEADER)


def take(word: int, slots: Slots) -> Fields:
    return {name: word >> bit & ((1 << width) - 1) for name, (bit, width) in slots.items()}


def put(slots: Slots, fields: Mapping[str, int]) -> int:
    """Assemble a word; raises KeyError for a field it does not have and ValueError for a number that does not fit."""
    word = 0
    for name, value in fields.items():
        bit, width = slots[name]
        if not 0 <= value < 1 << width:
            raise ValueError(f"{name} must fit {width} bits, not {value!r}")
        word |= value << bit
    return word


def decode(config: ModelConfig, word: int) -> Fields:
    """Fields of a 128-bit instruction; imm is sign-extended."""
    fields = take(word, slots_of(config, word & 7))
    if "imm" in fields:
        fields["imm"] -= (fields["imm"] & 0x8000) << 1
    return fields


def encode(config: ModelConfig, opcode: int, noise: random.Random | None = None, /, **fields: int) -> int:
    """The 128-bit instruction; fields not named are 0, imm may be negative.

    With `noise`, the bits which belong to no field take random values: decoders must not look at them (spec 8.3).
    """
    slots = slots_of(config, opcode)
    if "imm" in fields:
        fields["imm"] &= 0xFFFF
    word = put(slots, {"opcode": opcode, **fields})
    if noise is not None:
        used = put(slots, {name: (1 << width) - 1 for name, (_, width) in slots.items()})
        word |= noise.getrandbits(128) & ~used
    return word


def to_words(insns: Iterable[int]) -> NDArray[np.uint64]:
    """(N, 2) uint64, low word first."""
    pairs = [(insn & (1 << 64) - 1, insn >> 64) for insn in insns]
    return np.array(pairs, dtype="<u8").reshape(-1, 2)


def from_words(words: NDArray[np.uint64]) -> list[int]:
    return [int(low) | int(high) << 64 for low, high in words]
