"""Scratchpads against a dictionary: banks, granules, and what a read sees of the write beside it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from vta_hw.rtl.scratchpad import Geometry, Scratchpad

GEOMETRIES = {
    "plain": Geometry(elem_bits=16, depth=8, banks=1, granules=1),
    "granules": Geometry(elem_bits=32, depth=8, banks=1, granules=4),
    "banks": Geometry(elem_bits=8, depth=16, banks=4, granules=1),
    "banks_and_granules": Geometry(elem_bits=32, depth=8, banks=2, granules=2),
    "one_line": Geometry(elem_bits=8, depth=4, banks=4, granules=1),
    "more_banks_than_elements": Geometry(elem_bits=8, depth=2, banks=8, granules=1),
}


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_reads_and_writes_at_random(name: str, transparent: bool) -> None:
    geometry = GEOMETRIES[name]
    rng = random.Random(name)
    pad = Scratchpad(geometry, readers=2, wide=True, transparent=transparent)
    size = geometry.banks * geometry.lines
    held = [0] * size
    expected: list[Any] = [None, None, None]

    def write(ctx: Any) -> dict[int, int]:
        """Drive the write port; returns what the elements become."""
        after = {}
        for bank in range(geometry.banks):
            line, word = rng.randrange(geometry.lines), rng.getrandbits(geometry.elem_bits)
            enables = rng.getrandbits(geometry.granules) if rng.random() < 0.5 else 0
            ctx.set(pad.write.line[bank], line)
            ctx.set(pad.write.data[bank], word)
            ctx.set(pad.write.en[bank], enables)
            index, mask = line * geometry.banks + bank, 0
            for granule in range(geometry.granules):
                if enables >> granule & 1:
                    mask |= ((1 << geometry.granule_bits) - 1) << granule * geometry.granule_bits
            after[index] = held[index] & ~mask | word & mask
        return after

    def read(ctx: Any, seen: list[int]) -> None:
        """Drive the read ports; notes what they must show in the next cycle."""
        for number, reader in enumerate(pad.read):
            index, enable = rng.randrange(size), rng.random() < 0.7
            ctx.set(reader.index, index)
            ctx.set(reader.en, enable)
            if enable:
                expected[number] = seen[index], seen[index & ~1], seen[(index | 1) % size]
        lines, enable = [rng.randrange(geometry.lines) for _ in range(geometry.banks)], rng.random() < 0.7
        for bank, line in enumerate(lines):
            ctx.set(pad.wide.line[bank], line)
        ctx.set(pad.wide.en, enable)
        if enable:
            expected[2] = [seen[line * geometry.banks + bank] for bank, line in enumerate(lines)]

    async def bench(ctx: Any) -> None:
        for _ in range(300):
            after = write(ctx)
            seen = [after.get(index, word) if transparent else word for index, word in enumerate(held)]
            read(ctx, seen)
            await ctx.tick()
            for index, word in after.items():
                held[index] = word
            for number, reader in enumerate(pad.read):
                if expected[number] is not None:
                    element, *pair = expected[number]
                    assert ctx.get(reader.data) == element
                    if geometry.banks > 1:
                        assert [ctx.get(reader.pair[side]) for side in range(2)] == pair
            if expected[2] is not None:
                assert [ctx.get(pad.wide.data[bank]) for bank in range(geometry.banks)] == expected[2]

    simulator = Simulator(pad)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert any(held)
