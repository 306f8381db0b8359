"""What the tests of the datapath share: tiles as numbers, memory contents, and micro-ops by the letter of the spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vta_hw.rtl.scratchpad import Scratchpad
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.instructions import AluOp

TINY = preset("tiny")

SHAPES = {
    "tiny": TINY,
    "batch": replace(TINY, log_batch=1, log_inp_buff_size=9, log_acc_buff_size=11),
    "oblong": replace(TINY, log_block_in=3, log_block_out=1, log_bus_width=8),
    "narrow": replace(TINY, log_inp_width=2, log_wgt_width=2, log_bus_width=9),
    "wide": replace(TINY, log_inp_width=4, log_wgt_width=4, log_inp_buff_size=9, log_wgt_buff_size=10),
    "mixed": replace(TINY, log_inp_width=4, log_wgt_width=2),
}
"""Small machines that differ in what the datapath depends on."""


def pack(scalars: NDArray[np.int64], bits: int) -> int:
    """The number whose lowest `bits` bits are the first scalar."""
    number = 0
    for position, scalar in enumerate(scalars.reshape(-1).tolist()):
        number |= (scalar & ((1 << bits) - 1)) << (position * bits)
    return number


def unpack(number: int, bits: int, count: int) -> NDArray[np.int64]:
    """The signed scalars of `pack`, int64 [count]."""
    fields = [number >> (position * bits) & ((1 << bits) - 1) for position in range(count)]
    return np.array([field - (field >> (bits - 1) << bits) for field in fields], np.int64)


def cell(pad: Scratchpad, index: int) -> tuple[int, int]:
    """Bank and line of an element."""
    return index % pad.geometry.banks, index // pad.geometry.banks


def wrap(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two's complement of 32 bits."""
    return values.astype(np.int64).astype(np.uint32).astype(np.int32).astype(np.int64)


def alu(opcode: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """VTA spec 3.5 and 11.4, scalar by scalar."""
    match opcode:
        case AluOp.MIN:
            return np.minimum(x, y)
        case AluOp.MAX:
            return np.maximum(x, y)
        case AluOp.ADD:
            return wrap(x + y)
        case AluOp.MUL:
            product = [int(a) * int(b) & 0xFFFFFFFF for a, b in zip(x, y, strict=True)]
            return wrap(np.array(product, np.int64))
        case AluOp.SHR:
            shifted = [
                int(a) >> (int(b) & 31) if b >= 0 else int(a) << (-int(b) & 31) for a, b in zip(x, y, strict=True)
            ]
            return wrap(np.array([value & 0xFFFFFFFF for value in shifted], np.int64))
    raise ValueError(f"Opcode must be 0 to 4, not {opcode}")


def requantise(
    x: NDArray[np.int64], bias: NDArray[np.int64], q: NDArray[np.int64], imm: int, out_bits: int
) -> NDArray[np.int64]:
    """Decision 0006, in Python's exact integers."""
    zero_point = (imm & 0x7FFF) - ((imm & 0x4000) << 1)
    low, high = -(1 << (out_bits - 1)), (1 << (out_bits - 1)) - 1
    floor = min(max(zero_point, low), high) if imm & 0x8000 else low
    results = []
    for value, offset, word in zip(x.tolist(), bias.tolist(), q.tolist(), strict=True):
        total = (value + offset + (1 << 31)) % (1 << 32) - (1 << 31)
        product, shift = total * (word & 0xFFFFFF), word >> 24 & 63
        magnitude = (abs(product) + ((1 << shift) >> 1)) >> shift
        rounded = -magnitude if product < 0 else magnitude
        results.append(min(max(rounded + zero_point, floor), high))
    return np.array(results, np.int64)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Scratchpads as numbers: `uops` of {dst, src, wgt}, the others int64 [depth][scalars of a tile]."""

    uops: NDArray[np.int64]
    inp: NDArray[np.int64]
    wgt: NDArray[np.int64]
    acc: NDArray[np.int64]
    out: NDArray[np.int64]

    @staticmethod
    def random(config: VTAConfig, rng: np.random.Generator) -> Contents:
        """Operands of their whole range, accumulators of all sizes, indices below the depth of what they index."""

        def numbers(bits: int, *shape: int) -> NDArray[np.int64]:
            return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)

        acc = numbers(32, config.acc_depth, config.batch * config.block_out)
        src = rng.integers(0, min(config.acc_depth, config.inp_depth), config.uop_depth)
        dst = rng.integers(0, config.acc_depth, config.uop_depth)
        wgt = rng.integers(0, config.wgt_depth, config.uop_depth)
        return Contents(
            uops=np.stack([dst, src, wgt], axis=1),
            inp=numbers(config.inp_bits, config.inp_depth, config.batch * config.block_in),
            wgt=numbers(config.wgt_bits, config.wgt_depth, config.block_out * config.block_in),
            acc=acc >> rng.choice([0, 8, 20, 28], acc.shape),
            out=np.zeros_like(acc),
        )

    def gemm(self, config: VTAConfig, dst: int, src: int, wgt: int, *, reset: bool, overwrite: bool) -> None:
        """One micro-op of VTA spec 3.4."""
        tile = self.inp[src].reshape(config.batch, -1) @ self.wgt[wgt].reshape(config.block_out, -1).T
        base = 0 if overwrite else self.acc[dst]
        self.put(config, dst, np.zeros_like(self.acc[dst]) if reset else wrap(base + tile.reshape(-1)))

    def put(self, config: VTAConfig, dst: int, tile: NDArray[np.int64]) -> None:
        """Write an accumulator tile, and its low bits to OUT (VTA spec 3.6)."""
        self.acc[dst] = tile
        self.out[dst] = tile & ((1 << config.out_bits) - 1)


def trips(outer: int, inner: int, uops: Sequence[int]) -> list[tuple[int, int, int]]:
    """The loop nest: (outer, inner, micro-op) in order."""
    return [(o, i, u) for o in range(outer) for i in range(inner) for u in uops]
