"""Execution of instructions on scratchpads and DRAM (VTA spec 3 and 11, decision 0006).

Order and tokens are in `pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import (
    ACC,
    ACC_8BIT,
    ACC_8BIT_PAD_MIN,
    ACC_PAD_MIN,
    INP,
    MUL,
    OUT,
    REQUANT,
    UOP,
    WGT,
    Fields,
)
from tests.vta_sim.spec_model.packing import Array, pack, unpack, wrap

NO_BASES: Mapping[int, int] = {}
GEMM_CHUNK = 4096  # micro-ops multiplied at a time: bounds memory, changes no result
OF_ACC = (ACC, ACC_8BIT, ACC_PAD_MIN, ACC_8BIT_PAD_MIN)
COUNTERS = {INP: "inp_load_nbytes", WGT: "wgt_load_nbytes", UOP: "uop_load_nbytes"}


class ModelError(Exception):
    """A program broke a rule; `kind` is one of the words the negative tests ask for."""

    def __init__(self, kind: str, index: int, text: str) -> None:
        super().__init__(f"instruction {index}: {kind}: {text}")
        self.kind = kind
        self.index = index


@dataclass(kw_only=True)
class Statistics:
    """Counters of spec 3.9."""

    inp_load_nbytes: int = 0
    wgt_load_nbytes: int = 0
    acc_load_nbytes: int = 0
    uop_load_nbytes: int = 0
    out_store_nbytes: int = 0
    gemm_counter: int = 0
    alu_counter: int = 0
    insn_count: int = 0


@dataclass(frozen=True, kw_only=True)
class Nest:
    """Element indices of every micro-op of a GEMM or ALU instruction in execution order."""

    dst: Array
    src: Array
    wgt: Array


class Machine:
    """DRAM and the five scratchpads, all zero at first; they survive from launch to launch."""

    def __init__(self, config: layout.ModelConfig, dram: Dram | None = None) -> None:
        self.config = config
        self.dram = Dram() if dram is None else dram
        self.pads: dict[int, Array] = {
            memory: np.zeros((config.depth(memory), *config.shape(memory)), np.int64)
            for memory in (UOP, WGT, INP, ACC, OUT)
        }
        self.statistics = Statistics()
        self.bases: Mapping[int, int] = NO_BASES

    def execute(self, index: int, insn: Fields) -> None:
        """Effects of one instruction, tokens apart."""
        self.statistics.insn_count += 1
        match insn["opcode"]:
            case layout.LOAD:
                self._load(index, insn)
            case layout.STORE:
                self._store(index, insn)
            case layout.GEMM:
                self._gemm(index, insn)
            case layout.GEMM_OVERWRITE if self.config.extended:
                self._gemm_overwrite(index, insn)
            case layout.ALU:
                self._alu(index, insn)
            case layout.FINISH:
                pass
            case unknown:
                raise ModelError("unknown opcode", index, f"{unknown}")

    def address(self, insn: Fields, element: int) -> int:
        """Byte address of the element that lies `element` after dram_base (spec 3.1)."""
        memory = insn["memory_type"]
        base = self.bases.get(ACC if memory in OF_ACC else memory, 0)
        return base + (insn["dram_base"] + element) * self.config.element_bytes(memory)

    def _load(self, index: int, insn: Fields) -> None:
        x_size, y_size, memory = insn["x_size"], insn["y_size"], insn["memory_type"]
        rows = insn["y_pad_0"] + y_size + insn["y_pad_1"]
        if x_size == 0 or rows == 0:  # moves no data, so nothing else in it matters (spec 11.7)
            return
        pads_min = memory in (ACC_PAD_MIN, ACC_8BIT_PAD_MIN)
        if memory == OUT or (pads_min and not self.config.extended):
            raise ModelError("unknown memory type", index, f"LOAD of {memory}")
        config, pad = self.config, ACC if memory in OF_ACC else memory
        columns = insn["x_pad_0"] + x_size + insn["x_pad_1"]
        self._check(index, f"LOAD of {memory}", insn["sram_base"] + rows * columns, config.depth(pad) + 1)
        padding = -(1 << config.bits(memory) - 1) if pads_min else 0
        window = np.full((rows, columns, *config.shape(memory)), padding, np.int64)
        nbytes, first = x_size * config.element_bytes(memory), insn["x_pad_0"]
        for y in range(y_size):
            data = self.dram.read(self.address(insn, y * insn["x_stride"]), nbytes)
            scalars = unpack(data, config.bits(memory)).reshape(x_size, *config.shape(memory))
            window[insn["y_pad_0"] + y, first : first + x_size] = scalars
        flat = window.reshape(-1, *config.shape(memory))
        self.pads[pad][insn["sram_base"] : insn["sram_base"] + len(flat)] = flat
        # ACC_8BIT counts as if it were ACC (spec 3.2, last row of the table).
        counter = COUNTERS.get(memory, "acc_load_nbytes")
        loaded = x_size * y_size * config.element_bytes(pad)
        setattr(self.statistics, counter, getattr(self.statistics, counter) + loaded)

    def _store(self, index: int, insn: Fields) -> None:
        x_size, y_size = insn["x_size"], insn["y_size"]
        if x_size == 0 or y_size == 0:
            return
        if insn["memory_type"] != OUT:
            raise ModelError("unknown memory type", index, f"STORE of {insn['memory_type']}")
        self._check(index, "STORE", insn["sram_base"] + x_size * y_size, self.config.depth(OUT) + 1)
        for y in range(y_size):
            first = insn["sram_base"] + y * x_size
            data = pack(self.pads[OUT][first : first + x_size], self.config.bits(OUT))
            self.dram.write(self.address(insn, y * insn["x_stride"]), data)
        self.statistics.out_store_nbytes += x_size * y_size * self.config.element_bytes(OUT)

    def nest(self, index: int, insn: Fields) -> Nest:
        """Indices for all (out, in, micro-op), micro-ops fastest; empty when one of the trip counts is zero."""
        trips = insn["iter_out"] * insn["iter_in"]
        if trips == 0 or insn["uop_bgn"] >= insn["uop_end"]:
            empty = np.zeros(0, np.int64)
            return Nest(dst=empty, src=empty, wgt=empty)
        self._check(index, "micro-op", insn["uop_end"], self.config.depth(UOP) + 1)
        raw = self.pads[UOP][insn["uop_bgn"] : insn["uop_end"]]
        outer, inner = np.divmod(np.arange(trips), insn["iter_in"])
        indices = {}
        for name, (bit, width) in layout.uop_slots(self.config).items():
            base = raw >> bit & (1 << width) - 1
            steps = outer * insn.get(f"{name}_factor_out", 0) + inner * insn.get(f"{name}_factor_in", 0)
            indices[name] = (steps[:, None] + base).reshape(-1)
        return Nest(**indices)

    def _gemm(self, index: int, insn: Fields) -> None:
        nest, acc = self.nest(index, insn), self.pads[ACC]
        self._check_all(index, "GEMM dst", nest.dst, ACC)
        if insn["reset"]:
            acc[nest.dst] = 0
            self.pads[OUT][nest.dst] = 0  # spec 11.6
            return
        self._check_all(index, "GEMM src", nest.src, INP)
        self._check_all(index, "GEMM wgt", nest.wgt, WGT)
        for first in range(0, len(nest.dst), GEMM_CHUNK):
            part = slice(first, first + GEMM_CHUNK)
            tiles = self.pads[INP][nest.src[part]] @ self.pads[WGT][nest.wgt[part]].transpose(0, 2, 1)
            # Sums wrap, so their order is free and the micro-ops of a chunk may be added in one call.
            np.add.at(acc, nest.dst[part], tiles)
        self._write_through(nest.dst)
        self.statistics.gemm_counter += len(nest.dst)

    def _gemm_overwrite(self, index: int, insn: Fields) -> None:
        nest, acc = self.nest(index, insn), self.pads[ACC]
        for operand, indices, memory in (("dst", nest.dst, ACC), ("src", nest.src, INP), ("wgt", nest.wgt, WGT)):
            self._check_all(index, f"GEMM_OVERWRITE {operand}", indices, memory)
        for d, s, w in zip(nest.dst.tolist(), nest.src.tolist(), nest.wgt.tolist(), strict=True):
            acc[d] = self.pads[INP][s] @ self.pads[WGT][w].T
        self._write_through(nest.dst)
        self.statistics.gemm_counter += len(nest.dst)

    def _alu(self, index: int, insn: Fields) -> None:
        nest, acc = self.nest(index, insn), self.pads[ACC]
        opcode, imm = insn["alu_opcode"], np.int64(insn["imm"])
        requant = opcode == REQUANT and self.config.extended
        if opcode > MUL and not requant:
            raise ModelError("unknown ALU operation", index, f"{opcode}")
        self._check_all(index, "ALU dst", nest.dst, ACC)
        if requant or not insn["use_imm"]:
            self._check_all(index, "ALU src", nest.src, ACC)
        for d, s in zip(nest.dst.tolist(), nest.src.tolist(), strict=True):
            if requant:
                bias = s & ~1
                total = wrap(acc[d] + acc[bias], self.config.bits(ACC))
                acc[d] = requantise(total, acc[bias + 1], insn["imm"], self.config.bits(OUT))
                continue
            y = np.broadcast_to(imm, acc[d].shape) if insn["use_imm"] else acc[s]
            acc[d] = wrap(alu(opcode, acc[d], y), self.config.bits(ACC))
        self._write_through(nest.dst)
        self.statistics.alu_counter += len(nest.dst)

    def _write_through(self, dst: Array) -> None:
        """OUT takes the low bits of every accumulator just written (spec 3.6)."""
        touched = np.unique(dst)
        self.pads[ACC][touched] = wrap(self.pads[ACC][touched], self.config.bits(ACC))
        self.pads[OUT][touched] = wrap(self.pads[ACC][touched], self.config.bits(OUT))

    def _check(self, index: int, what: str, value: int, limit: int) -> None:
        if value >= limit:
            raise ModelError("out of range", index, f"{what} {value}, limit {limit}")

    def _check_all(self, index: int, what: str, indices: Array, memory: int) -> None:
        if len(indices):
            self._check(index, what, int(indices.max()), self.config.depth(memory))


def alu(opcode: int, x: Array, y: Array) -> Array:
    """One ALU operation on int64 copies of the accumulator scalars; the caller wraps the result."""
    results: NDArray[np.int64]
    match opcode:
        case layout.MIN:
            results = np.minimum(x, y)
        case layout.MAX:
            results = np.maximum(x, y)
        case layout.ADD:
            results = x + y
        case layout.SHR:  # canonical SHR (spec 11.4): five bits of the amount, negative amounts shift left
            results = np.where(y >= 0, x >> (y & 31), x << (-y & 31))
        case _:
            results = x * y
    return results


def requantise(total: Array, parameters: Array, imm: int, out_bits: int) -> Array:
    """REQUANT on accumulator scalars to which the bias has been added, in integers that have no limit."""
    factor, shift = (parameters & 0xFFFFFF).astype(object), (parameters >> 24 & 63).astype(object)
    product = total.astype(object) * factor
    # The nearest integer to |product| / 2**shift, halves up; then the sign, so that halves go away from zero.
    rounded = (2 * abs(product) + 2**shift) // 2 ** (shift + 1) * np.where(product < 0, -1, 1)
    smallest, largest = -(1 << out_bits - 1), (1 << out_bits - 1) - 1
    zero_point = int(wrap(np.array(imm), 15))
    low = min(max(zero_point, smallest), largest) if imm & 0x8000 else smallest
    result: Array = np.clip(rounded + zero_point, low, largest).astype(np.int64)
    return result
