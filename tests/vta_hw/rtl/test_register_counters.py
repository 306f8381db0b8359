"""The counters among the control registers: what they count, and where they stop."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from amaranth.sim import Simulator

from tests.vta_hw.rtl.register_bench import BOTH, CHANGED, NARROW, WIDE, Bench
from vta_hw.rtl.registers import SaturatingCounter, event_layout, register_map
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.registers import REGISTERS, Control, Counts, PointerWidth


def test_events_are_derived_from_the_map() -> None:
    assert register_map(NARROW) is REGISTERS[PointerWidth.BITS_32]
    assert register_map(WIDE) is REGISTERS[PointerWidth.BITS_64]
    for config, byte_bits in ((NARROW, 4), (WIDE, 7)):
        counters = {register.name: register.counts for register in register_map(config).counters}
        del counters["cycle_count"]
        widths = {name: field.width for name, field in event_layout(config)}
        assert widths == {name: byte_bits if counts is Counts.BYTES else 1 for name, counts in counters.items()}
        # A whole bus word fits.
        assert config.bus_bits // 8 == 1 << (byte_bits - 1)


def test_counter_is_a_sum_that_stops_at_its_largest_value() -> None:
    rng = random.Random(1)
    dut = SaturatingCounter(bits=5, amount_bits=3)

    async def test(ctx: Any) -> None:
        count = saturated = 0
        for _ in range(600):
            clear, en, amount = rng.random() < 0.05, rng.random() < 0.7, rng.randrange(8)
            ctx.set(dut.clear, clear)
            ctx.set(dut.en, en)
            ctx.set(dut.amount, amount)
            assert (ctx.get(dut.count), ctx.get(dut.total)) == (count, min(count + amount, 31))
            saturated += count + amount > 31
            count = 0 if clear else min(count + amount, 31) if en else count
            await ctx.tick()
        assert saturated > 50

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(test)
    simulator.run()


@pytest.mark.parametrize("amount_bits", [0, 6])
def test_counter_refuses_amounts_that_do_not_fit(amount_bits: int) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'amount_bits must be 1 to 5, not {amount_bits}')}$"):
        SaturatingCounter(bits=5, amount_bits=amount_bits)


@BOTH
def test_counters_count_from_after_start_to_finish(config: VTAConfig) -> None:
    bench = Bench(config)
    rng = random.Random(3)
    names = [register.name for register in bench.map.counters if register.name != "cycle_count"]

    def amounts() -> dict[str, int]:
        most = {name: config.bus_bits // 8 if bench.map[name].counts is Counts.BYTES else 1 for name in names}
        return {name: rng.choice((0, limit, rng.randint(0, limit))) for name, limit in most.items()}

    async def test(ctx: Any) -> None:
        for cycles in (1, 25, 60):
            expected = dict.fromkeys(names, 0)
            # Events before, in the cycle of start, in that of finish, and after.
            for cycle in range(1, CHANGED + cycles + 9):
                planned = amounts()
                bench.plan(cycle, bench.dut.events, planned)
                if CHANGED < cycle <= CHANGED + cycles:
                    expected = {name: total + planned[name] for name, total in expected.items()}
            await bench.launch(ctx, cycles)
            await ctx.tick().repeat(10)
            assert {name: await bench.read(ctx, name) for name in names} == expected
            assert await bench.read(ctx, "cycle_count") == cycles

    bench.run(test)


@pytest.mark.parametrize("name", ["load_busy", "write_wait", "insn_store", "acc_writes", "cycle_count", "out_bytes"])
def test_counters_saturate(name: str) -> None:
    bench = Bench(WIDE)
    counter = bench.dut.counters[name]
    limit = (1 << bench.map[name].bits) - 1

    async def test(ctx: Any) -> None:
        await bench.write(ctx, "control", Control.LAUNCH)
        ctx.set(counter.count, limit - 2)
        for cycle in range(1, 6):
            bench.plan(cycle, bench.dut.events, {} if name == "cycle_count" else {name: 1})
        bench.plan(6, bench.dut.finish)
        await ctx.tick().repeat(8)
        assert await bench.read(ctx, name) == limit
        await bench.launch(ctx, 3)
        assert await bench.read(ctx, name) == (3 if name == "cycle_count" else 0)

    bench.run(test)


def test_halves_of_a_counter_agree_while_it_counts() -> None:
    bench = Bench(WIDE)
    begin = (5 << 32) - 100
    low, high = (bench.map["inp_bytes"].offset + 4 * word for word in range(2))

    async def test(ctx: Any) -> None:
        for cycle in range(1, 200):
            bench.plan(cycle, bench.dut.events, {"inp_bytes": 1})
        await bench.write(ctx, "control", Control.LAUNCH)
        ctx.set(bench.dut.counters["inp_bytes"].count, begin)
        values = []
        before = await bench.host.read(ctx, high)
        for _ in range(60):
            count = await bench.host.read(ctx, low)
            after = await bench.host.read(ctx, high)
            if before == after:
                values.append(after << 32 | count)
            before = after
        assert values == sorted(values)
        assert begin < values[0] < values[-1] < begin + 200
        assert (values[0] >> 32, values[-1] >> 32) == (4, 5)

    bench.run(test)
