"""The store unit against a model that writes byte by byte, behind a memory that stalls, is late, and fails."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Value
from amaranth.sim import Simulator
from numpy.typing import NDArray

from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.rtl.scratchpad import Geometry
from vta_hw.rtl.store import MAX_BURSTS, StoreUnit
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType, Store
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status

BYTE_TILE = VTAConfig(
    log_inp_width=2,
    log_block_in=1,
    log_block_out=1,
    log_uop_buff_size=8,
    log_inp_buff_size=8,
    log_wgt_buff_size=9,
    log_acc_buff_size=11,
)

CONFIGS = {
    "bus64-tile16": VTAConfig(),
    "bus64-tile1": BYTE_TILE,
    "bus64-tile128-address64": VTAConfig(log_batch=2, log_inp_width=4, log_inp_buff_size=17, log_address_width=6),
    "bus256-tile1024": VTAConfig(
        log_bus_width=8, log_batch=5, log_inp_width=4, log_inp_buff_size=17, log_acc_buff_size=14
    ),
    "bus128-tile16-address64": VTAConfig(log_bus_width=7, log_address_width=6),
    "bus128-tile4": VTAConfig(log_bus_width=7, log_batch=1, log_block_out=1, log_acc_buff_size=11),
    "bus256-tile16": VTAConfig(log_bus_width=8),
    "bus256-tile8-extended": VTAConfig(
        log_bus_width=8, log_block_out=3, log_block_in=3, isa="extended", log_acc_buff_size=13
    ),
    "bus512-tile16-address64": VTAConfig(log_bus_width=9, log_address_width=6),
    "bus512-tile1": replace(BYTE_TILE, log_bus_width=9),
    # Fewer elements than lanes of a bus word.
    "bus512-tile1-depth16": replace(BYTE_TILE, log_bus_width=9, log_acc_buff_size=7, log_address_width=6),
    "bus512-tile64": VTAConfig(log_bus_width=9, log_batch=1, log_block_out=5),
}

store = functools.partial(Store, memory_type=MemoryType.OUT)

EVEN, ODD = list(CONFIGS)[::2], list(CONFIGS)[1::2]


@dataclass
class Burst:
    """A burst of the model: its bytes by their places in it, and what its response will say."""

    addr: int
    len: int
    insn: int
    data: dict[int, int] = field(default_factory=dict)
    outside: bool = False


def bursts_of(config: VTAConfig, base: int, out: NDArray[np.uint8], insn: Store, number: int) -> list[Burst]:
    """Return what a STORE of OUT writes, row by row, each cut at windows of MAX_BURST_BEATS words."""
    depth, size = out.shape
    word = config.bus_bits // 8
    window = MAX_BURST_BEATS * word
    bursts = []
    for y in range(insn.y_size if insn.x_size and insn.memory_type == MemoryType.OUT else 0):
        begin = base + (insn.dram_base + y * insn.x_stride) * size
        end = begin + insn.x_size * size
        for at in range(begin // window * window, end, window):
            first = max(begin, at) // word * word
            last = (min(end, at + window) - 1) // word * word
            burst = Burst(addr=first % 2**config.address_bits, len=(last - first) // word, insn=number)
            for address in range(max(begin, at), min(end, at + window)):
                element = insn.sram_base + y * insn.x_size + (address - begin) // size
                burst.outside |= element >= depth
                burst.data[address - first] = int(out[element % depth, (address - begin) % size])
            bursts.append(burst)
    return bursts


class Bench:
    """A store unit, its instructions and tokens, an OUT scratchpad and a memory; notes what happens in which cycle."""

    def __init__(self, config: VTAConfig, insns: Sequence[Store], *, base: int = 0, seed: int = 1) -> None:
        self.config = config
        self.dut = StoreUnit(config)
        self.insns = insns
        self.base = base
        self.rng = random.Random(seed)
        self.geometry = Geometry.of(config, MemoryType.OUT)
        shape = (self.geometry.depth, self.geometry.elem_bits // 8)
        self.out = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        self.contents = [int.from_bytes(row.tobytes(), "little") for row in self.out]
        self.expected = [
            burst for number, insn in enumerate(insns) for burst in bursts_of(config, base, self.out, insn, number)
        ]
        # Shares of cycles in which somebody does not want.
        self.idle = self.burst_stall = self.beat_stall = self.token_wait = 0.0
        self.latency = (1, 1)
        self.late: dict[int, int] = {}
        self.errors: set[int] = set()
        self.halted: Sequence[range] = ()
        self.cycle = 0
        self.begun: list[int] = []
        self.bursts: list[tuple[int, int, int]] = []
        self.beats: list[tuple[int, int, int, int]] = []
        self.responses: list[int] = []
        self.retired: list[int] = []
        self.faults: list[tuple[int, int]] = []
        self.events: dict[str, list[int]] = {"busy": [], "stall_token": [], "stall_memory": []}
        self.bytes = 0
        self._due: list[int] = []
        self._offered = False
        self._shown: dict[str, object] = {}
        self._inputs: dict[int, object] = {}

    def run(self, cycles: int | None = None) -> None:
        """Simulate that many cycles, or until everything is done."""

        async def bench(ctx: Any) -> None:
            ctx.set(self.dut.base, self.base)
            while self.cycle != cycles and (cycles is not None or len(self.retired) < len(self.insns)):
                assert self.cycle < 4000
                await self._pass(ctx)
                self.cycle += 1

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-8)
        simulator.add_testbench(bench)
        simulator.run()

    async def _pass(self, ctx: Any) -> None:
        dut, rng = self.dut, self.rng
        self._offer(ctx)
        answers = bool(self._due) and self._due[0] <= self.cycle
        self._set(ctx, dut.port.response.valid, answers)
        self._set(ctx, dut.port.response.payload, answers and len(self.responses) in self.errors)
        self._set(ctx, dut.pop.available, rng.random() >= self.token_wait)
        self._set(ctx, dut.push.room, rng.random() >= self.token_wait)
        self._set(ctx, dut.port.burst.ready, rng.random() >= self.burst_stall)
        self._set(ctx, dut.port.beat.ready, rng.random() >= self.beat_stall)
        taken, burst, beat, amount, unit, lines, *events = await self._sample(ctx)
        if taken:
            self.begun.append(self.cycle)
            self._offered = False
        if answers:
            self.responses.append(self.cycle)
            self._due.pop(0)
        if burst is not None:
            self.bursts.append((self.cycle, burst.addr, burst.len))
        if beat is not None:
            self.beats.append((self.cycle, beat.data, beat.strb, beat.last))
            assert amount == int(beat.strb).bit_count()
        self.bytes += amount
        self._note(unit, events)
        if lines is not None:
            ctx.set(Value.cast(dut.read.data), self._read(lines))
        self._answer()

    def _offer(self, ctx: Any) -> None:
        number = len(self.begun)
        self._offered = number < len(self.insns) and (self._offered or self.rng.random() >= self.idle)
        if self._offered:
            word = ISA(self.config).encode(self.insns[number])
            self._set(ctx, self.dut.i.payload, {"word": word, "index": 1000 + number})
        self._set(ctx, self.dut.i.valid, self._offered)
        self._set(ctx, self.dut.halt, any(self.cycle in halt for halt in self.halted))

    def _set(self, ctx: Any, signal: Any, value: Any) -> None:
        """Change an input, which costs the simulator time even if the value is the same."""
        if self._inputs.get(id(signal)) != value:
            self._inputs[id(signal)] = value
            ctx.set(signal, value)

    async def _sample(self, ctx: Any) -> list[Any]:
        """Pass a cycle; a burst, beat or address that was not taken is None."""
        dut = self.dut
        _, _, *values = await ctx.tick().sample(
            dut.i.valid & dut.i.ready,
            *(value for port in (dut.port.burst, dut.port.beat) for value in (port.valid, port.ready, port.payload)),
            dut.bytes,
            Cat(dut.retired, dut.push.give, dut.pop.take, dut.pop.available, dut.push.room, dut.idle, dut.waiting),
            dut.read.en,
            dut.read.line,
            dut.fault,
            *(getattr(dut, name) for name in self.events),
        )
        taken, *channels = values[:7]
        passed = []
        for name, valid, ready, payload in (("burst", *channels[:3]), ("beat", *channels[3:])):
            # What is shown stays until it is taken.
            assert name not in self._shown or (valid and self._shown[name] == payload)
            self._shown.pop(name, None)
            if valid and not ready:
                self._shown[name] = payload
            passed.append(payload if valid and ready else None)
        amount, unit, enable, lines, *events = values[7:]
        return [taken, *passed, amount, unit, lines if enable else None, *events]

    def _read(self, lines: Any) -> int:
        """Return what the banks hold; banks that are addressed beyond their last element hold garbage."""
        geometry, word = self.geometry, 0
        for bank in range(geometry.banks):
            element = lines[bank] * geometry.banks + bank
            value = self.contents[element] if element < geometry.depth else self.rng.getrandbits(geometry.elem_bits)
            word |= value << bank * geometry.elem_bits
        return word

    def _note(self, unit: int, events: Sequence[Any]) -> None:
        retired, give, take, available, room, idle, waiting = (unit >> bit & 1 for bit in range(7))
        fault, *events = events
        if fault.status:
            self.faults.append((fault.status, fault.index))
        for name, value in zip(self.events, events, strict=True):
            if value:
                self.events[name].append(self.cycle)
        begins = bool(self.begun) and self.begun[-1] == self.cycle
        insn = self.insns[min(len(self.begun) - begins, len(self.insns) - 1)]
        lacks = (insn.pop_prev and not available) or (insn.push_prev and not room)
        assert take == (begins and insn.pop_prev)
        assert waiting == (self._offered and not begins and lacks)
        assert not (begins and lacks)
        assert idle == (len(self.begun) - begins == len(self.retired))
        assert give == (retired and self.insns[len(self.retired)].push_prev)
        if retired:
            self.retired.append(self.cycle)

    def _answer(self) -> None:
        """Let responses to bursts of which everything is here come at random, but in order."""
        begun, whole = len(self.responses) + len(self._due), sum(last for *_, last in self.beats)
        assert max(len(self.bursts), whole) - len(self.responses) <= MAX_BURSTS
        for number in range(begun, min(len(self.bursts), whole)):
            earliest = self._due[-1] + 1 if self._due else 0
            latency = self.late.get(number, self.rng.randint(*self.latency))
            self._due.append(max(self.cycle + latency, earliest))

    def check(self) -> None:
        """Compare everything that was noted with the model."""
        assert [(addr, length) for _, addr, length in self.bursts] == [
            (burst.addr, burst.len) for burst in self.expected
        ]
        assert len(self.responses) == len(self.expected)
        beats = iter(self.beats)
        word = self.config.bus_bits // 8
        for burst in self.expected:
            written = {}
            for number in range(burst.len + 1):
                _, data, strobes, last = next(beats)
                assert last == (number == burst.len)
                lanes = [lane for lane in range(word) if strobes >> lane & 1]
                written.update({number * word + lane: data >> 8 * lane & 0xFF for lane in lanes})
            assert written == burst.data
        assert next(beats, None) is None
        assert self.bytes == sum(len(burst.data) for burst in self.expected)
        assert self.faults == self.expected_faults()
        self._check_completion()

    def expected_faults(self) -> list[tuple[int, int]]:
        """Return status and index in the order of the instructions and bursts they belong to."""
        faults = []
        for number, burst in enumerate(self.expected):
            status = Status.OUT_INDEX * burst.outside | Status.WRITE_ERROR * (number in self.errors)
            if status:
                faults.append((int(status), 1000 + burst.insn))
        for number, insn in enumerate(self.insns):
            if insn.memory_type != MemoryType.OUT and insn.x_size and insn.y_size:
                faults.append((int(Status.UNKNOWN_MEMORY_TYPE), 1000 + number))
        # Of one instruction either bursts have faults, or its memory type is one.
        return sorted(faults, key=lambda fault: fault[1])

    def _check_completion(self) -> None:
        """No instruction completes before the response to its last burst, and at most 16 are in flight."""
        for number, cycle in enumerate(self.retired):
            answered = [self.responses[place] for place, burst in enumerate(self.expected) if burst.insn <= number]
            assert cycle > max(answered, default=self.begun[number])
            assert sum(begun <= cycle for begun in self.begun) - number <= 16


def programs(config: VTAConfig, rng: random.Random) -> list[Store]:
    """Return STOREs of all shapes, some outside of OUT or of other memory types, and NOPs."""
    depth = config.depth(MemoryType.OUT)
    size = config.dram_elem_bytes(MemoryType.OUT)
    count = 24 if size <= config.bus_bits // 4 else 10
    most = max(2 * config.bus_bits // 8 // size, min(600 // size, 30), 2)
    return [
        Store(
            memory_type=MemoryType.OUT if rng.random() < 0.8 else rng.randrange(6),
            sram_base=rng.choice((rng.randrange(depth), rng.randrange(depth), depth - 1, 0xFFFF)),
            dram_base=rng.choice((0, 0, 0xFFFFFF00)) + rng.randrange(256),
            y_size=rng.choice((0, 1, 1, 2, 5)),
            x_size=rng.choice((0, 1, 1, 2, 3, most, rng.randint(1, most))),
            x_stride=rng.choice((0, 1, most, rng.randrange(3 * most + 1), 0xFFFF)),
            x_pad_0=rng.randrange(16),
            y_pad_1=rng.randrange(16),
            pop_prev=rng.random() < 0.4,
            pop_next=rng.random() < 0.4,
            push_prev=rng.random() < 0.4,
            push_next=rng.random() < 0.4,
        )
        for _ in range(count)
    ]


def base_of(config: VTAConfig, rng: random.Random) -> int:
    """Return a base from which a STORE to the first elements goes around the end of the address space."""
    granule = min(config.dram_elem_bytes(MemoryType.OUT), config.bus_bits // 8)
    return (1 << config.address_bits) - granule * rng.randrange(1, 300)


@pytest.mark.parametrize("name", CONFIGS)
def test_random_stores(name: str) -> None:
    config = CONFIGS[name]
    rng = random.Random(name)
    bench = Bench(config, programs(config, rng), base=base_of(config, rng), seed=3)
    bench.idle, bench.token_wait = 0.2, 0.4
    bench.burst_stall, bench.beat_stall = rng.choice(((0.4, 0.1), (0.1, 0.4), (0.8, 0.0), (0.0, 0.6)))
    bench.latency = (1, 30)
    bench.errors = set(rng.sample(range(len(bench.expected)), 5))
    bench.run()
    bench.check()


@pytest.mark.parametrize("name", ODD)
def test_full_speed(name: str) -> None:
    config = CONFIGS[name]
    rng = random.Random(name)
    bench = Bench(config, programs(config, rng), base=base_of(config, rng), seed=4)
    bench.run()
    bench.check()
    # From the first beat to the last there is one in each cycle, except where NOPs have taken the cycles.
    cycles = [cycle for cycle, *_ in bench.beats]
    nops = sum(not bursts_of(config, 0, bench.out, insn, 0) for insn in bench.insns)
    assert cycles[-1] - cycles[0] + 1 <= len(cycles) + nops


@pytest.mark.parametrize("name", EVEN)
def test_exact_cycles_of_a_long_store(name: str) -> None:
    config = CONFIGS[name]
    size, word = config.dram_elem_bytes(MemoryType.OUT), config.bus_bits // 8
    elements = max(100 * word // size, 2)
    insn = store(dram_base=3, x_size=elements, y_size=1, x_stride=elements)
    bench = Bench(config, [insn])
    bench.latency = (20, 20)
    bench.run()
    beats = (3 * size % word + elements * size + word - 1) // word
    assert bench.begun == [0]
    assert bench.bursts[0][0] == 3
    assert [cycle for cycle, *_ in bench.beats] == list(range(5, 5 + beats))
    assert bench.responses[-1] == 5 + beats - 1 + 20
    assert bench.retired == [5 + beats + 20]
    assert bench.events["busy"] == list(range(1, 5 + beats + 20 + 1))
    assert bench.events["stall_memory"] == list(range(5 + beats, 5 + beats + 20 + 1))


@pytest.mark.parametrize("name", ODD)
def test_one_beat_in_each_cycle_across_short_rows(name: str) -> None:
    config = CONFIGS[name]
    size, word = config.dram_elem_bytes(MemoryType.OUT), config.bus_bits // 8
    # Rows of one element, each in a word of its own, and none next to the one before.
    stride = max(word // size, 1) * 3
    beats = max(size // word, 1)
    insns = [
        store(dram_base=stride * number, sram_base=number, x_size=1, y_size=rows, x_stride=stride, push_prev=True)
        for number, rows in enumerate((1, 1, 1, 20 // beats + 1, 1, 1, 30 // beats + 1, 1, 1))
    ]
    bench = Bench(config, insns)
    bench.latency = (10, 10)
    bench.run()
    bench.check()
    assert [cycle for cycle, *_ in bench.beats] == list(range(5, 5 + beats * sum(insn.y_size for insn in insns)))
    assert bench.retired[-1] == bench.beats[-1][0] + 10 + 1


@pytest.mark.parametrize("late", ["burst_stall", "beat_stall"])
def test_bursts_and_beats_do_not_wait_for_each_other(late: str) -> None:
    bench = Bench(VTAConfig(log_bus_width=9), [store(x_size=1, y_size=40, x_stride=7)])
    setattr(bench, late, 1.0)
    bench.run(60)
    assert len(bench.bursts) == (0 if late == "burst_stall" else MAX_BURSTS)
    assert len(bench.beats) == (0 if late == "beat_stall" else MAX_BURSTS)
    assert bench.events["stall_memory"] == list(range(3 if late == "burst_stall" else 5, 60))


def test_token_waits() -> None:
    insns = [store(pop_prev=True), store(push_prev=True, x_size=1, y_size=1)]
    bench = Bench(VTAConfig(), insns)
    bench.token_wait = 1.0
    bench.run(20)
    assert bench.begun == []
    assert bench.events == {"busy": [], "stall_token": list(range(20)), "stall_memory": []}


def test_nops_complete_in_order() -> None:
    insns = [
        store(x_size=4, y_size=1),
        store(push_prev=True),
        store(y_size=3),
        store(x_size=2, y_size=1),
        store(x_size=1),
    ]
    bench = Bench(VTAConfig(), insns)
    bench.late = {0: 40}
    bench.run()
    bench.check()
    assert bench.begun[:3] == [0, 1, 2]
    first = bench.responses[0] + 1
    # The response to the fourth comes before the NOPs are through, and waits.
    assert bench.responses[1] == bench.responses[0] + 1
    assert bench.retired == [first, first + 1, first + 2, first + 3, first + 4]


@pytest.mark.parametrize("memory_type", [code for code in range(8) if code != MemoryType.OUT])
def test_other_memory_types_are_faults_and_move_tokens_alone(memory_type: int) -> None:
    other = functools.partial(Store, memory_type=memory_type, dram_base=9, push_prev=True)
    insns = [store(x_size=4, y_size=1), other(x_size=3, y_size=2, x_stride=5), other(x_size=3), other(y_size=3)]
    bench = Bench(VTAConfig(isa="extended"), insns)
    bench.late = {0: 40}
    bench.run()
    bench.check()
    assert bench.faults == [(Status.UNKNOWN_MEMORY_TYPE, 1001)]
    assert bench.retired == [bench.responses[0] + 1 + number for number in range(4)]


def test_at_most_sixteen_in_flight() -> None:
    bench = Bench(VTAConfig(), [store(x_size=1, y_size=1)] + [store()] * 40)
    bench.latency = (50, 50)
    bench.run(50)
    assert len(bench.begun) == 16
    assert bench.retired == []


def test_halt_finishes_what_was_made() -> None:
    rows = store(x_size=1, y_size=90, x_stride=3)
    bench = Bench(VTAConfig(), [rows, store(), rows])
    bench.burst_stall = bench.beat_stall = 0.3
    bench.latency = (1, 9)
    bench.halted = [range(20), range(50, 200), range(250, 360)]
    bench.run()
    bench.check()
    assert bench.begun[0] == 20
    for halt in bench.halted:
        # Sixteen bursts of two beats take a while; then everything has been answered.
        quiet = range(min(halt.start + 90, halt.stop - 1), halt.stop)
        assert not any(begun in halt for begun in bench.begun)
        made, sent = ([cycle for cycle, *_ in channel] for channel in (bench.bursts, bench.beats))
        assert made[-1] > halt.stop
        for cycles in (made, sent, bench.responses):
            assert not any(cycle in quiet for cycle in cycles)
        assert sum(cycle < quiet.start for cycle in made) == sum(cycle < quiet.start for cycle in bench.responses)
