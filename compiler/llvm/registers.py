"""How many sums of products a CPU keeps in its vector registers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from compiler.llvm.target import Target


@dataclass(frozen=True, kw_only=True)
class Registers:
    """Vector registers: how many there are, and the float32 that one holds. The default is that of AVX-512."""

    count: int = 32
    lanes: int = 16

    @staticmethod
    def of(target: Target) -> Registers:
        """Those of the target's widest vector extension; of RISC-V's, what every one with 128 bits has."""
        features = target.features.split(",")
        match target.triple.partition("-")[0]:
            case "x86_64" if "+avx512f" in features:
                return Registers(count=32, lanes=16)
            case "x86_64" if "+avx" in features:
                return Registers(count=16, lanes=8)
            case "aarch64" | "arm64" | "riscv64":
                return Registers(count=32, lanes=4)
            case _:
                return Registers(count=16, lanes=4)

    def vectors(self, channels: int) -> int:
        """Registers for one block of channels."""
        return -(-channels // self.lanes)


@dataclass(frozen=True, kw_only=True)
class SumTile:
    """Sums that are computed together: `blocks` of channels of `pixels` that follow each other."""

    blocks: int
    pixels: int


_ISSUE = 2
"""Products, and loads, that begin in one cycle."""
_LATENCY = 4
"""Cycles after which a sum can have its next product."""


@functools.cache
def best_tile(blocks: int, pixels: int, channels: int, registers: Registers) -> SumTile:
    """The tile in which `blocks` of `channels` of a row of `pixels` take the fewest cycles for each product.

    A product needs a block of weights, which all pixels of the tile share, and one number of the input, which all its
    blocks share (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). The last tile of a
    row may be narrower; that of the blocks is not.
    """
    vectors = registers.vectors(channels)

    def cycles(tile: SumTile) -> float:
        whole, rest = divmod(pixels, tile.pixels)
        rows = whole * _cycles(tile.blocks * vectors, tile.pixels) + (
            _cycles(tile.blocks * vectors, rest) if rest else 0
        )
        return rows * (blocks // tile.blocks)

    candidates = list(_tiles(blocks, pixels, vectors, registers.count))
    return min(candidates, key=lambda tile: (cycles(tile), pixels % tile.pixels > 0, -tile.blocks * tile.pixels))


def _tiles(blocks: int, pixels: int, vectors: int, count: int) -> Iterator[SumTile]:
    """All that fit, with the weights of a block and one number of the input beside the sums."""
    for b in (n for n in range(1, blocks + 1) if blocks % n == 0):
        for p in range(1, pixels + 1):
            if b == p == 1 or b * vectors * (p + 1) + 1 <= count:
                yield SumTile(blocks=b, pixels=p)


def _cycles(vectors: int, pixels: int) -> float:
    """Of one product for each sum."""
    return max(vectors * pixels / _ISSUE, (vectors + pixels) / _ISSUE, _LATENCY)
