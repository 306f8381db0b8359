"""The control registers, driven through their port as a host does, cycle by cycle where that is promised."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.vta_hw.rtl.register_bench import BOTH, CHANGED, DONE, NARROW, Bench, Seen, Testbench
from vta_hw.rtl.registers import register_map
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.registers import EXTENSION_ID, FAULTS, TOKEN_QUEUES, Access, Control, Status
from vta_sim.launch_parameters import MAX_TOKENS


@BOTH
def test_everything_is_zero_at_first_but_the_constants(config: VTAConfig) -> None:
    bench = Bench(config)
    constants = {
        "ext_id": EXTENSION_ID,
        "ext_words": bench.map.extension_words,
        "program_digest": int(config.program_digest[:8], 16),
    }

    async def test(ctx: Any) -> None:
        for register in bench.map:
            assert await bench.read(ctx, register.name) == constants.get(register.name, 0)
        for register in bench.map.parameters:
            assert ctx.get(getattr(bench.dut, register.name)) == 0

    bench.run(test)
    assert set(bench.seen) == {Seen(0, 0, 0, 0, 0)}


def test_cycles_of_reads_and_writes() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        host = bench.host
        assert await host.timed_read(ctx, 0x40) == (EXTENSION_ID, 1)
        assert await host.write(ctx, 0x08, 1) == 2
        # Address first, data first.
        assert await host.write(ctx, 0x08, 2, w_wait=9) == 2 + 9
        assert await host.read(ctx, 0x08) == 2
        assert await host.write(ctx, 0x08, 3, aw_wait=7) == 2 + 7
        assert await host.read(ctx, 0x08) == 3

    bench.run(test)


def test_a_write_that_waits_lets_reads_pass() -> None:
    bench = Bench(NARROW)

    async def write(ctx: Any) -> None:
        assert await bench.host.write(ctx, 0x08, 5, w_wait=40) == 42

    async def read(ctx: Any) -> None:
        for _ in range(15):
            assert await bench.host.timed_read(ctx, 0x08) == (0, 1)

    bench.run(write, read)


def test_transfers_are_offered_ahead_of_answers() -> None:
    bench = Bench(NARROW)
    rng = random.Random(11)
    axi = bench.dut.axi
    values = {offset: rng.getrandbits(32) for offset in (0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24)}
    reads = [rng.choice((0x40, 0x44, 0x48, 0x4C)) for _ in range(60)]
    constants = {0x40: EXTENSION_ID, 0x44: bench.map.extension_words, 0x48: int(NARROW.program_digest[:8], 16), 0x4C: 0}

    def give(channel: Any, payloads: list[Any]) -> Testbench:
        async def testbench(ctx: Any) -> None:
            for payload in payloads:
                if rng.random() < 0.3:
                    await ctx.tick().repeat(rng.randint(1, 6))
                ctx.set(channel.payload, payload)
                ctx.set(channel.valid, 1)
                await ctx.tick().until(channel.ready)
                ctx.set(channel.valid, 0)

        return testbench

    async def take_b(ctx: Any) -> None:
        for _ in values:
            await ctx.tick().repeat(rng.randint(1, 6))
            ctx.set(axi.b.ready, 1)
            await ctx.tick().until(axi.b.valid)
            ctx.set(axi.b.ready, 0)
        assert [await bench.host.read(ctx, offset) for offset in values] == list(values.values())

    async def take_r(ctx: Any) -> None:
        for offset in reads:
            await ctx.tick().repeat(rng.randint(1, 6))
            ctx.set(axi.r.ready, 1)
            (answer,) = await ctx.tick().sample(axi.r.payload).until(axi.r.valid)
            ctx.set(axi.r.ready, 0)
            assert answer.data == constants[offset]
        await take_b(ctx)

    data = [{"data": value, "strb": 15} for value in values.values()]
    bench.run(give(axi.aw, list(values)), give(axi.w, data), give(axi.ar, reads), take_r)


def writable(config: VTAConfig) -> dict[int, int]:
    """Byte offset of each word that keeps what is written while nothing runs, and the bits it keeps.

    Of `control` that is only the bit that sets nothing off.
    """
    narrow = {"control": Control.FINISH, "irq_enable": 1, **{f"tokens_{queue}": MAX_TOKENS for queue in TOKEN_QUEUES}}
    return {
        register.offset + 4 * word: int(narrow.get(register.name, 0xFFFFFFFF))
        for register in register_map(config)
        if register.access is Access.READ_WRITE
        for word in range(register.words)
    }


@BOTH
def test_random_accesses_with_stalls(config: VTAConfig) -> None:
    bench = Bench(config, seed=config.address_bits, stall=0.3)
    rng = random.Random(config.address_bits)
    bits = writable(config)
    # Those that keep what is written come more often.
    offsets = [*range(0, 0x100, 4), *bits, *bits]
    constants = {0x40: EXTENSION_ID, 0x44: bench.map.extension_words, 0x48: int(config.program_digest[:8], 16)}
    values = dict.fromkeys(bits, 0)

    async def test(ctx: Any) -> None:
        for _ in range(450):
            # Now and then an address that is not a word's, or that has one in its low byte only.
            address = rng.choice(offsets) + rng.choice((0, 0, 0, 0, 0, 1, 2, 3, 0x100, 0x8000))
            if rng.random() < 0.5:
                assert await bench.host.read(ctx, address) == values.get(address, constants.get(address, 0))
                continue
            value, strobe = rng.getrandbits(32), rng.choice((15, 15, rng.randrange(16)))
            value &= ~int(Control.LAUNCH | Control.RESET) if address == 0 else 0xFFFFFFFF
            await bench.host.write(ctx, address, value, strobe=strobe)
            if address in bits:
                mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
                values[address] = ((values[address] & ~mask) | (value & mask)) & bits[address]
        for register in bench.map.parameters:
            words = [values[register.offset + 4 * word] << 32 * word for word in range(register.words)]
            assert ctx.get(getattr(bench.dut, register.name)) == sum(words)

    bench.run(test)
    # Every stored word has been written, and with something else than 0.
    assert sum(map(bool, values.values())) > len(values) - 3
    assert not any(seen.start or seen.running or seen.soft_reset for seen in bench.seen)


@pytest.mark.parametrize("cycles", [1, 2, 30])
def test_launch_until_finish(cycles: int) -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        await bench.write(ctx, "cycle_count", 77)
        await ctx.tick().repeat(5)
        begin = bench.cycle + CHANGED
        bench.plan(CHANGED + cycles, bench.dut.finish)
        await bench.write(ctx, "control", Control.LAUNCH)
        await ctx.tick().repeat(cycles + 3)
        assert [cycle for cycle, seen in enumerate(bench.seen) if seen.start] == [begin]
        running = [cycle for cycle, seen in enumerate(bench.seen) if seen.running]
        assert running == list(range(begin + 1, begin + cycles + 1))
        assert await bench.read(ctx, "control") == Control.FINISH
        assert await bench.read(ctx, "cycle_count") == cycles

    bench.run(test)


def test_what_control_takes_and_when() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        await bench.write(ctx, "control", Control.FINISH)
        assert await bench.read(ctx, "control") == Control.FINISH
        # A launch has not ended when it begins.
        await bench.write(ctx, "control", Control.LAUNCH | Control.FINISH)
        assert await bench.read(ctx, "control") == Control.LAUNCH
        for value in (0, 1, 2, 3):
            await bench.write(ctx, "control", value)
            assert await bench.read(ctx, "control") == Control.LAUNCH
        # None of them started again.
        assert sum(seen.start for seen in bench.seen) == 1
        # The captured value of the launch before, until this one has finished.
        assert await bench.read(ctx, "cycle_count") == 0
        bench.plan(1, bench.dut.finish)
        await ctx.tick().repeat(3)
        assert await bench.read(ctx, "control") == Control.FINISH
        await bench.host.write(ctx, 0, Control.LAUNCH, strobe=0b1110)
        assert await bench.read(ctx, "control") == Control.FINISH
        await bench.launch(ctx, 4)
        assert await bench.read(ctx, "cycle_count") == 4
        assert sum(seen.start for seen in bench.seen) == 2

    bench.run(test)


def test_finish_wins_over_a_write_in_its_cycle() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        for after in range(-2, 3):
            for value in (0, 1, 2, 3):
                starts = sum(seen.start for seen in bench.seen)
                await bench.write(ctx, "control", Control.LAUNCH)
                await ctx.tick().repeat(4)
                bench.plan(6, bench.dut.finish)
                await ctx.tick().repeat(6 - DONE + after)
                await bench.write(ctx, "control", value)
                await ctx.tick().repeat(6)
                # A write after the finish is one between launches.
                expected = Control.FINISH if after <= 0 else Control.LAUNCH if value & 1 else value
                assert await bench.read(ctx, "control") == expected
                assert sum(seen.start for seen in bench.seen) - starts == 1 + (expected == Control.LAUNCH)
                if expected == Control.LAUNCH:
                    bench.plan(1, bench.dut.finish)
                    await ctx.tick().repeat(3)

    bench.run(test)


@pytest.mark.parametrize("name", ["cycle_count", "acc_writes"])
def test_capture_wins_over_a_write_in_its_cycle(name: str) -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        for after in range(-2, 3):
            bench.plan(CHANGED + 9, bench.dut.finish)
            for cycle in range(CHANGED + 1, CHANGED + 10):
                bench.plan(cycle, bench.dut.events, {"acc_writes": 1})
            begin = bench.cycle
            await bench.write(ctx, "control", Control.LAUNCH)
            await ctx.tick().repeat(begin + CHANGED + 9 - DONE + after - bench.cycle)
            await bench.write(ctx, name, 123)
            await ctx.tick().repeat(4)
            assert await bench.read(ctx, name) == (9 if after <= 0 else 123)

    bench.run(test)


def test_status_is_sticky_until_a_one_is_written() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        everything = 0
        for bit in Status:
            bench.plan(1, bench.dut.status, bit)
            await ctx.tick().repeat(3)
            everything |= bit
            assert await bench.read(ctx, "status") == everything
        left = everything
        for bit in Status:
            await bench.write(ctx, "status", 0)
            await bench.host.write(ctx, bench.map["status"].offset, 0xFFFFFFFF, strobe=0)
            await bench.write(ctx, "status", bit | ~everything & 0xFFFFFFFF)
            left &= ~bit
            assert await bench.read(ctx, "status") == left

    bench.run(test)


def test_first_fault_leaves_its_index() -> None:
    bench = Bench(NARROW)

    async def report(ctx: Any, status: Status, index: int) -> None:
        bench.plan(1, bench.dut.status, status)
        bench.plan(1, bench.dut.fault_index, index)
        await ctx.tick().repeat(3)

    async def test(ctx: Any) -> None:
        await report(ctx, Status.STORES_OUTSTANDING, 10)
        assert await bench.read(ctx, "fault_insn") == 0
        for number, fault in enumerate(FAULTS):
            await report(ctx, fault | Status.STORES_OUTSTANDING, 20 + number)
            # A fault after the first, and a bit that is none.
            await report(ctx, Status.READ_ERROR | Status.DEADLOCK, 30)
            await report(ctx, Status.STORES_OUTSTANDING, 40)
            assert await bench.read(ctx, "fault_insn") == 20 + number
            await bench.write(ctx, "status", FAULTS)
            assert await bench.read(ctx, "status") == Status.STORES_OUTSTANDING
            assert await bench.read(ctx, "fault_insn") == 20 + number
        await report(ctx, Status.DEADLOCK, 0xFFFFFFFF)
        assert await bench.read(ctx, "fault_insn") == 0xFFFFFFFF

    bench.run(test)


def test_a_fault_that_comes_as_faults_are_cleared_stays() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        for after in range(-2, 3):
            bench.plan(1, bench.dut.status, Status.UOP_INDEX | Status.INP_INDEX)
            bench.plan(1, bench.dut.fault_index, 5)
            bench.plan(6, bench.dut.status, Status.INP_INDEX)
            bench.plan(6, bench.dut.fault_index, 6)
            await ctx.tick().repeat(6 - DONE + after)
            await bench.write(ctx, "status", FAULTS)
            await ctx.tick().repeat(6)
            # In the cycle of the clearing, or before it, the second fault comes; in the first case it is a first one.
            assert await bench.read(ctx, "status") == (0 if after > 0 else Status.INP_INDEX)
            assert await bench.read(ctx, "fault_insn") == (5 if after > 0 else 6)
            await bench.write(ctx, "status", FAULTS)

    bench.run(test)


def test_start_clears_the_status() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        bench.plan(1, bench.dut.status, FAULTS | Status.STORES_OUTSTANDING)
        await ctx.tick().repeat(3)
        await bench.launch(ctx, 5)
        assert await bench.read(ctx, "status") == 0
        bench.plan(1, bench.dut.status, Status.UOP_INDEX)
        bench.plan(CHANGED, bench.dut.status, Status.WGT_INDEX)
        bench.plan(CHANGED, bench.dut.fault_index, 8)
        await bench.launch(ctx, 5)
        assert await bench.read(ctx, "status") == Status.WGT_INDEX
        assert await bench.read(ctx, "fault_insn") == 8

    bench.run(test)


def test_interrupt_is_finish_and_enable() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        async def irq(name: str, value: int) -> int:
            await bench.write(ctx, name, value)
            await ctx.tick()
            return bench.seen[-1].irq

        assert not await irq("irq_enable", 1)
        begin = bench.cycle + CHANGED
        await bench.launch(ctx, 9)
        # High from the cycle after finish.
        assert [seen.irq for seen in bench.seen[begin : begin + 11]] == [0] * 10 + [1]
        assert not await irq("irq_enable", 0xFFFFFFFE)
        assert await irq("irq_enable", 3)
        assert not await irq("control", 0)
        assert await irq("control", Control.FINISH)
        assert not await irq("control", Control.LAUNCH)

    bench.run(test)


def test_tokens_are_set_between_launches_only() -> None:
    bench = Bench(NARROW)
    names = [f"tokens_{queue}" for queue in TOKEN_QUEUES]

    async def tokens(ctx: Any) -> list[int]:
        return [await bench.read(ctx, name) for name in names]

    async def refuses(ctx: Any) -> None:
        for name in names:
            await bench.write(ctx, name, 5)
        assert await tokens(ctx) == [1000, 1001, 1002, 0x2AA]

    async def test(ctx: Any) -> None:
        for number, name in enumerate(names):
            await bench.write(ctx, name, 1000 + number)
        assert await tokens(ctx) == [1000, 1001, 1002, 1003]
        assert [seen.token_load for seen in bench.seen if seen.token_load] == [1, 2, 4, 8]
        # Bits above the eleventh are nothing; a byte alone can be written.
        await bench.host.write(ctx, bench.map[names[3]].offset, 0xFFFFFA00, strobe=0b0010)
        await bench.host.write(ctx, bench.map[names[3]].offset, 0xFFFFFDAA, strobe=0b1101)
        assert await tokens(ctx) == [1000, 1001, 1002, 0x2AA]
        await bench.write(ctx, "control", Control.LAUNCH)
        await refuses(ctx)
        await bench.write(ctx, "control", Control.RESET)
        bench.plan(1, bench.dut.finish)
        await ctx.tick().repeat(2)
        await refuses(ctx)
        bench.plan(1, bench.dut.reset_done)
        await ctx.tick().repeat(2)
        await bench.write(ctx, names[0], 5)
        assert await bench.read(ctx, names[0]) == 5

    bench.run(test)


@pytest.mark.parametrize("running", [False, True])
def test_soft_reset(running: bool) -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        launch = int(Control.LAUNCH) if running else 0
        ctx.set(bench.dut.events.alu_busy, 1)
        await bench.write(ctx, "insn_base", 0x1230)
        await bench.write(ctx, "control", launch)
        begin = bench.cycle + CHANGED
        # Together with a launch it is a reset and no launch.
        await bench.write(ctx, "control", Control.RESET | Control.LAUNCH)
        counted = await bench.read(ctx, "alu_busy")
        assert bool(counted) == running
        for value in (0, 1, 2, 4, 7):
            assert await bench.read(ctx, "control") == Control.RESET | launch
            await bench.write(ctx, "control", value)
        end = bench.cycle + 5
        bench.plan(5, bench.dut.reset_done)
        await ctx.tick().repeat(7)
        assert [cycle for cycle, seen in enumerate(bench.seen) if seen.soft_reset] == list(range(begin, end + 1))
        assert bench.seen[end].running == launch
        assert not bench.seen[end + 1].running
        assert sum(seen.start for seen in bench.seen) == launch
        assert await bench.read(ctx, "control") == 0
        assert await bench.read(ctx, "insn_base") == 0x1230
        assert await bench.read(ctx, "alu_busy") == counted
        await bench.launch(ctx, 6)
        assert await bench.read(ctx, "control") == Control.FINISH
        assert await bench.read(ctx, "cycle_count") == 6

    bench.run(test)


def test_soft_reset_is_not_lost_to_a_finish() -> None:
    bench = Bench(NARROW)

    async def test(ctx: Any) -> None:
        for after in range(-2, 3):
            await bench.write(ctx, "control", Control.LAUNCH)
            bench.plan(6, bench.dut.finish)
            await ctx.tick().repeat(6 - DONE + after)
            await bench.write(ctx, "control", Control.RESET)
            await ctx.tick().repeat(6)
            assert await bench.read(ctx, "control") == Control.RESET | Control.FINISH
            bench.plan(1, bench.dut.reset_done)
            await ctx.tick().repeat(3)
            assert await bench.read(ctx, "control") == 0

    bench.run(test)
