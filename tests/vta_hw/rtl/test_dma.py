"""The burst splitter against a model that cuts runs word by word."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from amaranth.sim import Simulator

from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.rtl.dma import BEATS_BITS, BurstSplitter
from vta_hw.spec.config import VTAConfig

Run = tuple[int, int]
"""Byte address and beats."""

Burst = tuple[int, int, int]
"""Byte address, beats minus one, last."""

CONFIGS = [
    VTAConfig(log_bus_width=bus, log_address_width=address)
    for bus, address in ((6, 5), (6, 6), (7, 5), (8, 6), (9, 5), (9, 6))
]


def model(config: VTAConfig, run: Run) -> Iterator[Burst]:
    """Cut a run where the window of MAX_BURST_BEATS words changes from one word to the next."""
    word = config.bus_bits // 8
    addresses = [(run[0] + word * beat) % 2**config.address_bits for beat in range(run[1])]
    begin = 0
    for end in range(1, len(addresses) + 1):
        if end == len(addresses) or addresses[end] % (word * MAX_BURST_BEATS) == 0:
            yield addresses[begin], end - begin - 1, int(end == len(addresses))
            begin = end


def runs_of(config: VTAConfig, rng: random.Random, count: int) -> list[Run]:
    """Return short and long runs, at the edges of windows and of the address space, too."""
    word = config.bus_bits // 8
    words = 2**config.address_bits // word
    runs = []
    for _ in range(count):
        window = rng.choice((0, words - MAX_BURST_BEATS, words - 3 * MAX_BURST_BEATS, 16 * rng.randrange(words // 16)))
        beats = rng.choice((1, 2, MAX_BURST_BEATS, rng.randint(1, 20), rng.randint(1, 150)))
        runs.append(((window + rng.randrange(MAX_BURST_BEATS)) * word, beats))
    return runs


class Bench:
    """A splitter, its input and its output with pauses; what came out, and in which cycle."""

    def __init__(
        self, config: VTAConfig, runs: Sequence[Run], rng: random.Random, *, idle: float, stall: float
    ) -> None:
        self.dut = BurstSplitter(config)
        self.accepted: list[int] = []
        self.bursts: list[tuple[int, Burst]] = []
        self._runs = runs
        self._rng = rng
        self._idle = idle
        self._stall = stall
        self._cycle = 0

    async def give(self, ctx: Any) -> None:
        """Offer the runs."""
        for address, beats in self._runs:
            while self._rng.random() < self._idle:
                await ctx.tick()
            ctx.set(self.dut.i.payload, {"addr": address, "beats": beats})
            ctx.set(self.dut.i.valid, 1)
            await ctx.tick().until(self.dut.i.ready)
            ctx.set(self.dut.i.valid, 0)

    async def take(self, ctx: Any, cycles: int) -> None:
        """Take bursts for `cycles` cycles; check that none is withdrawn or changed before it is taken."""
        waiting = None
        for cycle in range(cycles):
            ctx.set(self.dut.o.ready, self._rng.random() >= self._stall)
            i, o = self.dut.i, self.dut.o
            *_, taken_run, valid, ready, payload = await ctx.tick().sample(
                i.valid & i.ready, o.valid, o.ready, o.payload
            )
            burst = (payload.burst.addr, payload.burst.len, payload.last)
            if taken_run:
                self.accepted.append(cycle)
            assert waiting is None or (valid and burst == waiting)
            waiting = burst if valid and not ready else None
            if valid and ready:
                self.bursts.append((cycle, burst))

    def run(self, cycles: int) -> None:
        """Simulate."""

        async def take(ctx: Any) -> None:
            await self.take(ctx, cycles)

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-8)
        simulator.add_testbench(take)
        simulator.add_testbench(self.give, background=True)
        simulator.run()


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"bus{config.bus_bits}-address{config.address_bits}")
def test_bursts_are_those_of_the_model(config: VTAConfig, stall: float) -> None:
    rng = random.Random(config.bus_bits + config.address_bits)
    runs = runs_of(config, rng, 60)
    bench = Bench(config, runs, rng, idle=stall / 2, stall=stall)
    expected = [burst for run in runs for burst in model(config, run)]
    bench.run(len(expected) * 3 + 300)
    assert [burst for _, burst in bench.bursts] == expected


def test_one_burst_in_each_cycle_across_runs() -> None:
    config = VTAConfig()
    rng = random.Random(5)
    runs = runs_of(config, rng, 40)
    bench = Bench(config, runs, rng, idle=0, stall=0)
    expected = [burst for run in runs for burst in model(config, run)]
    bench.run(len(expected) + 4)
    first = bench.accepted[0]
    assert [cycle for cycle, _ in bench.bursts] == [first + 1 + number for number in range(len(expected))]
    last_taken = [cycle for cycle, burst in bench.bursts if burst[2]]
    assert bench.accepted[1:] == last_taken[:-1]


def test_longest_run() -> None:
    config = replace(VTAConfig(), log_address_width=6)
    dut = BurstSplitter(config)

    async def testbench(ctx: Any) -> None:
        ctx.set(dut.i.payload, {"addr": 0x1000_0000_0078, "beats": 2**BEATS_BITS - 1})
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for expected in ((0x1000_0000_0078, 0), (0x1000_0000_0080, 15), (0x1000_0000_0100, 15)):
            payload, valid = await ctx.tick().sample(dut.o.payload, dut.o.valid).until(dut.o.valid)
            assert valid
            assert (payload.burst.addr, payload.burst.len, payload.last) == (*expected, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    simulator.run()
