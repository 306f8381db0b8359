"""Fetch against a list of instructions in a memory with latency, stalls and errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from amaranth.sim import Simulator

from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.rtl.fetch import PREFETCH, Fetch
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, Finish, Gemm, Insn, Load, MemoryType, Module, Store, Unknown, module_of
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status

CONFIGS = [
    VTAConfig(log_bus_width=bus, log_address_width=address)
    for bus, address in ((6, 5), (6, 6), (7, 5), (7, 6), (8, 5), (8, 6), (9, 5), (9, 6))
]

QUEUES = ("load", "compute", "store")


def name_of(config: VTAConfig) -> str:
    """Return the name of a case."""
    return f"bus{config.bus_bits}-address{config.address_bits}"


def program(rng: random.Random, count: int) -> list[Insn]:
    """Return instructions of all kinds, each recognisable."""
    loads = [Load(memory_type=code, dram_base=rng.getrandbits(32)) for code in range(8)]
    others: list[Insn] = [
        Gemm(iter_out=rng.getrandbits(14)),
        Alu(imm=rng.getrandbits(15)),
        Finish(),
        Unknown(opcode=5, raw=rng.getrandbits(121) << 4 >> 4),
        Unknown(opcode=7),
        Store(memory_type=MemoryType.OUT, dram_base=rng.getrandbits(32)),
        Store(memory_type=MemoryType.UOP, x_size=0),
    ]
    return [rng.choice(loads + others) for _ in range(count)]


class Bench:
    """A fetch unit, a memory behind its port and readers of its queues."""

    def __init__(
        self,
        config: VTAConfig,
        *,
        latency: int = 5,
        stall: float = 0.0,
        pauses: Sequence[float] = (0.0, 0.0, 0.0),
        seed: int = 1,
        **options: int,
    ) -> None:
        self.config = config
        self.dut = Fetch(config, **options)
        self.words: dict[int, int] = {}
        self.errors: set[int] = set()
        self.queues: dict[str, list[tuple[int, int, int]]] = {name: [] for name in QUEUES}
        self.faults: list[tuple[int, int]] = []
        self.bursts: list[tuple[int, int, int]] = []
        self.bytes = 0
        self.blocked = 0
        self.cycle = 0
        self._latency = latency
        self.stall = stall
        self.pauses = pauses
        self._rng = random.Random(seed)
        self.outstanding = 0

    def place(self, base: int, insns: Sequence[Insn]) -> None:
        """Write a program to memory, between words that must not be dispatched."""
        isa = ISA(self.config)
        lane_bytes = min(self.config.bus_bits // 8, 16)
        for position in range(-64 // lane_bytes, len(insns) * 16 // lane_bytes + 64 // lane_bytes):
            self.words[base + position * lane_bytes] = self._rng.getrandbits(8 * lane_bytes)
        for number, insn in enumerate(insns):
            for part in range(0, 16, lane_bytes):
                address = base + 16 * number + part
                self.words[address] = (isa.encode(insn) >> 8 * part) & ((1 << 8 * lane_bytes) - 1)

    def word(self, address: int) -> int:
        """Return a bus word."""
        lane_bytes = min(self.config.bus_bits // 8, 16)
        lanes = range(0, self.config.bus_bits // 8, lane_bytes)
        return sum(self.words[address + lane] << 8 * lane for lane in lanes)

    async def memory(self, ctx: Any) -> None:
        """Answer bursts in order, each beat at least `latency` cycles after its burst was taken."""
        port = self.dut.port
        word_bytes = self.config.bus_bits // 8
        answers: list[tuple[int, dict[str, int]]] = []
        waiting = None
        while True:
            ctx.set(port.burst.ready, self._rng.random() >= self.stall)
            if answers and answers[0][0] <= self.cycle and self._rng.random() >= self.stall:
                ctx.set(port.beat.payload, answers.pop(0)[1])
                ctx.set(port.beat.valid, 1)
            else:
                ctx.set(port.beat.valid, 0)
            _, _, valid, ready, payload, came = await ctx.tick().sample(
                port.burst.valid, port.burst.ready, port.burst.payload, port.beat.valid
            )
            self.outstanding -= came
            assert self.cycle < 4000
            burst = (payload.addr, payload.len)
            assert waiting is None or (valid and burst == waiting)
            waiting = burst if valid and not ready else None
            if valid and ready:
                self.bursts.append((self.cycle, *burst))
                assert payload.addr % word_bytes == 0
                assert payload.addr // word_bytes % MAX_BURST_BEATS + payload.len < MAX_BURST_BEATS
                for beat in range(payload.len + 1):
                    address = payload.addr + beat * word_bytes
                    answer = {
                        "data": self.word(address),
                        "error": address in self.errors,
                        "last": beat == payload.len,
                    }
                    answers.append((self.cycle + self._latency + beat, answer))
                self.outstanding += payload.len + 1
            self.cycle += 1

    async def watch(self, ctx: Any) -> None:
        """Take from the queues; note events."""
        while True:
            for name, pause in zip(QUEUES, self.pauses, strict=True):
                ctx.set(getattr(self.dut, name).ready, self._rng.random() >= pause)
            streams = [getattr(self.dut, name) for name in QUEUES]
            _, _, fault, received, blocked, *values = await ctx.tick().sample(
                self.dut.fault,
                self.dut.bytes,
                self.dut.blocked,
                *(value for stream in streams for value in (stream.valid & stream.ready, stream.payload)),
            )
            self.bytes += received
            self.blocked += blocked
            if fault.status:
                self.faults.append((fault.status, fault.index))
            for position, name in enumerate(QUEUES):
                if values[2 * position]:
                    payload = values[2 * position + 1]
                    self.queues[name].append((self.cycle, payload.word, payload.index))

    async def start(self, ctx: Any, base: int, count: int) -> int:
        """Begin a launch; returns the cycle of the pulse."""
        ctx.set(self.dut.base, base)
        ctx.set(self.dut.count, count)
        ctx.set(self.dut.start, 1)
        assert not ctx.get(self.dut.done)
        begun = self.cycle
        await ctx.tick()
        ctx.set(self.dut.start, 0)
        return begun

    async def settle(self, ctx: Any) -> None:
        """Wait until the queues are empty and nothing is outstanding."""
        await ctx.tick().repeat(3)
        valid = self.dut.load.valid | self.dut.compute.valid | self.dut.store.valid
        await ctx.tick().until(self.dut.idle & ~valid)
        assert self.outstanding == 0

    def run(self, script: Any) -> None:
        """Simulate until the script ends."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-8)
        # They run in this order: the memory counts the cycles.
        simulator.add_testbench(self.watch, background=True)
        simulator.add_testbench(self.memory, background=True)
        simulator.add_testbench(script)
        simulator.run()

    def expect(self, insns: Sequence[Insn]) -> None:
        """Check the queues against the program, and empty them."""
        isa = ISA(self.config)
        for name, module in zip(QUEUES, Module, strict=True):
            expected = [(isa.encode(insn), index) for index, insn in enumerate(insns) if module_of(insn) is module]
            assert [(word, index) for _, word, index in self.queues[name]] == expected
            self.queues[name] = []


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_programs_arrive_in_their_queues(config: VTAConfig) -> None:
    rng = random.Random(config.bus_bits)
    bench = Bench(config, latency=7)
    # Bases at every place of a bus word, so that the first and the last word are used in part.
    top = 1 << config.address_bits - 1
    counts = (1, 2, 3, 5, 16, 1, 39, 4, 120)
    cases = [(top + 64 * (100 + 9 * n) + 16 * (n % 4), count) for n, count in enumerate(counts)]

    async def script(ctx: Any) -> None:
        assert ctx.get(bench.dut.done)
        for base, count in cases:
            insns = program(rng, count)
            bench.place(base, insns)
            bench.bytes = 0
            bench.stall = rng.choice((0.0, 0.4))
            bench.pauses = (bench.stall, bench.stall / 2, 0.5)
            await bench.start(ctx, base, count)
            await ctx.tick().until(bench.dut.done)
            await bench.settle(ctx)
            bench.expect(insns)
            assert bench.bytes == 16 * count
            assert ctx.get(bench.dut.done)
        await bench.start(ctx, 0, 0)
        assert ctx.get(bench.dut.done)
        await ctx.tick().repeat(20)

    bench.run(script)
    lanes = max(config.bus_bits // 128, 1)
    beats = sum((base // 16 % lanes + count + lanes - 1) // lanes for base, count in cases)
    assert sum(length + 1 for _, _, length in bench.bursts) == beats * max(128 // config.bus_bits, 1)
    assert bench.faults == []


@pytest.mark.parametrize("latency", [1, 180])
@pytest.mark.parametrize("config", CONFIGS[::2], ids=name_of)
def test_exact_cycles(config: VTAConfig, latency: int) -> None:
    count = 400
    insns = [Finish()] * count
    bench = Bench(config, latency=latency)
    bench.place(0x10000, insns)
    begun = []

    async def script(ctx: Any) -> None:
        begun.append(await bench.start(ctx, 0x10000, count))
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    bench.run(script)
    cycles = [cycle - begun[0] for cycle, _, _ in bench.queues["compute"]]
    every = max(128 // config.bus_bits, 1)
    assert bench.bursts[0][0] - begun[0] == 2
    # Two cycles to the burst; its first beat; four cycles through the two queues.
    assert cycles == [2 + latency + 4 + every * (index + 1) - 1 for index in range(count)]


def test_queue_that_is_full_blocks_what_is_behind() -> None:
    config = CONFIGS[0]
    bench = Bench(config, pauses=(0.0, 0.0, 1.0), queue_depth=4)
    insns: list[Insn] = [*[Store()] * 5, Finish()]
    bench.place(0x1000, insns)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, 0x1000, len(insns))
        await ctx.tick().repeat(60)
        assert ctx.get(bench.dut.blocked)
        assert not ctx.get(bench.dut.done)
        assert ctx.get(bench.dut.idle)
        assert bench.queues["compute"] == []
        before = bench.blocked
        await ctx.tick().repeat(10)
        assert bench.blocked == before + 10
        bench.pauses = (0.0, 0.0, 0.0)
        await ctx.tick().until(bench.dut.done)
        assert not ctx.get(bench.dut.blocked)
        await bench.settle(ctx)

    bench.run(script)
    bench.expect(insns)


@pytest.mark.parametrize("config", CONFIGS[::6], ids=name_of)
def test_nothing_is_asked_for_without_room(config: VTAConfig) -> None:
    bench = Bench(config, pauses=(0.0, 1.0, 0.0), queue_depth=2)
    insns = [Finish()] * 300
    bench.place(0x2000, insns)
    words = PREFETCH * 128 // max(config.bus_bits, 128)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, 0x2000, len(insns))
        await ctx.tick().repeat(200)
        # Whole bursts fit, and those dispatched, in part of a word, have left.
        asked = sum(length + 1 for _, _, length in bench.bursts)
        assert words - MAX_BURST_BEATS < asked <= words + 4
        bench.pauses = (0.0, 0.3, 0.0)
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    bench.run(script)
    bench.expect(insns)


@pytest.mark.parametrize("bad", [0, 5, 9, 38])
@pytest.mark.parametrize("config", CONFIGS[1::2], ids=name_of)
def test_error_stops_dispatch_until_the_next_launch(config: VTAConfig, bad: int) -> None:
    rng = random.Random(bad)
    word_bytes = config.bus_bits // 8
    bench = Bench(config, latency=4)
    base = 0x3010
    insns = program(rng, 39)
    again = program(rng, 9)
    bench.place(base, insns)
    # With 64 bits the first or the second half of the instruction is bad; behind it there is another bad word.
    address = base + 16 * bad + (8 if bad == 5 else 0)
    bench.errors = {(address + skip) // word_bytes * word_bytes for skip in (0, 320)}
    bench.place(0x8020, again)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, base, len(insns))
        await ctx.tick().until(bench.dut.failed)
        await bench.settle(ctx)
        await ctx.tick().repeat(200)
        assert ctx.get(bench.dut.failed)
        assert not ctx.get(bench.dut.done)
        assert not ctx.get(bench.dut.blocked)
        await bench.start(ctx, 0x8020, len(again))
        assert not ctx.get(bench.dut.failed)
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    lanes = max(config.bus_bits // 128, 1)
    # The instructions of a bad word are all unknown; the first of them is the one reported.
    affected = max((base // 16 + bad) // lanes * lanes - base // 16, 0)
    bench.run(script)
    assert bench.faults == [(Status.READ_ERROR, affected)]
    isa = ISA(config)
    expected = [(isa.encode(insn), index) for part in (insns[:affected], again) for index, insn in enumerate(part)]
    assert sorted((word, index) for queue in bench.queues.values() for _, word, index in queue) == sorted(expected)


@pytest.mark.parametrize("count", [0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF])
@pytest.mark.parametrize("config", [CONFIGS[1], CONFIGS[7]], ids=name_of)
def test_the_longest_launches(config: VTAConfig, count: int) -> None:
    """They are as any other at their beginning, and do not end there."""
    bench = Bench(config, latency=20)
    base, insns = 0x4030, program(random.Random(count), 600)
    bench.place(base, insns)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, base, count)
        await ctx.tick().repeat(400)
        assert not ctx.get(bench.dut.done)

    bench.run(script)
    word_bytes = config.bus_bits // 8
    assert bench.bursts[0][1] == base // word_bytes * word_bytes
    for (_, begin, length), (_, after, _) in pairwise(bench.bursts):
        assert after == begin + (length + 1) * word_bytes
    found = sorted((index, word) for queue in bench.queues.values() for _, word, index in queue)
    isa = ISA(config)
    assert len(found) > 150
    assert found == [(index, isa.encode(insn)) for index, insn in enumerate(insns[: len(found)])]
    assert len(found) <= bench.bytes // 16 <= len(found) + PREFETCH


def test_error_after_a_long_program_asks_for_no_more() -> None:
    config = CONFIGS[0]
    bench = Bench(config, latency=20)
    insns = [Finish()] * 300
    bench.place(0x4000, insns)
    bench.errors = {0x4000}
    again: list[Insn] = [Store(dram_base=7), Finish(), Load(x_size=9)]
    bench.place(0x1000, again)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, 0x4000, len(insns))
        await ctx.tick().until(bench.dut.failed)
        await bench.settle(ctx)
        await ctx.tick().repeat(300)
        assert sum(length + 1 for _, _, length in bench.bursts) <= PREFETCH
        await bench.start(ctx, 0x1000, 3)
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    bench.run(script)
    bench.expect(again)


def test_halt_makes_no_new_burst() -> None:
    bench = Bench(CONFIGS[2], latency=3, stall=0.3, pauses=(0.0, 0.5, 0.0), queue_depth=2)
    insns = [Finish()] * 150
    bench.place(0x5000, insns)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, 0x5000, len(insns))
        for cycles in (1, 9, 40):
            await ctx.tick().repeat(cycles)
            ctx.set(bench.dut.halt, 1)
            await ctx.tick().until(bench.dut.idle)
            before = len(bench.bursts)
            for _ in range(30):
                assert ctx.get(bench.dut.idle)
                await ctx.tick()
            assert len(bench.bursts) == before
            ctx.set(bench.dut.halt, 0)
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    bench.run(script)
    bench.expect(insns)


def test_halt_keeps_a_burst_that_is_shown_and_holds_one_that_gets_room() -> None:
    bench = Bench(CONFIGS[2], stall=1.0, pauses=(0.0, 1.0, 0.0), queue_depth=2)
    insns = [Finish()] * 300
    bench.place(0x6000, insns)

    async def script(ctx: Any) -> None:
        await bench.start(ctx, 0x6000, len(insns))
        await ctx.tick().repeat(10)
        ctx.set(bench.dut.halt, 1)
        await ctx.tick().repeat(10)
        assert ctx.get(bench.dut.port.burst.valid)
        ctx.set(bench.dut.halt, 0)
        bench.stall = 0.0
        await ctx.tick().repeat(300)
        # There is no room for the next burst; then there is.
        ctx.set(bench.dut.halt, 1)
        bench.pauses = (0.0, 0.0, 0.0)
        before = len(bench.bursts)
        for _ in range(60):
            await ctx.tick()
            assert ctx.get(bench.dut.idle)
        assert len(bench.bursts) == before < 300 // MAX_BURST_BEATS
        ctx.set(bench.dut.halt, 0)
        await ctx.tick().until(bench.dut.done)
        await bench.settle(ctx)

    bench.run(script)
    bench.expect(insns)


@pytest.mark.parametrize("depth", [1, -3, 65537, 2**40, 2.5, 4.0, "4", True, None])
def test_queue_depth_is_checked(depth: Any) -> None:
    with pytest.raises(ValueError, match=r"^queue_depth") as error:
        Fetch(VTAConfig(), queue_depth=depth)
    assert str(error.value) == f"queue_depth must be an integer from 2 to 65536, not {depth!r}"
