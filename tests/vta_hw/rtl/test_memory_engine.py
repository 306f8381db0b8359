"""The memory engine between random clients and a memory that stalls, interleaves, and answers with errors."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.sim import Simulator

from vta_hw.rtl.axi import Client, Response
from vta_hw.rtl.memory_engine import MAX_OUTSTANDING, MemoryEngine, Outstanding, RoundRobin
from vta_hw.spec.config import VTAConfig

CONFIGS = [VTAConfig(log_bus_width=bus, log_address_width=address) for bus, address in ((6, 5), (7, 6), (8, 5), (9, 6))]

READERS = [client.name.lower() for client in Client]

Pause = Callable[[], bool]

WriteBurst = tuple[int, list[tuple[int, int]]]
"""Address, and for each beat data and strobes."""


def word_at(config: VTAConfig, address: int) -> int:
    """Return what the memory holds at a bus word's address."""
    return random.Random(address).getrandbits(config.bus_bits)


def response_at(address: int) -> Response:
    """Return how the memory answers; some addresses are bad."""
    return Response(random.Random(~address).choice((0, 0, 0, 1, 2, 3)))


class Sender:
    """Offers payloads to a stream; a payload that is offered stays until it is taken."""

    def __init__(self, stream: Any, payloads: Iterable[Any], pause: Pause) -> None:
        self.stream = stream
        self.payloads = deque(payloads)
        self._pause = pause
        self._valid = False

    def drive(self, ctx: Any) -> None:
        """Before the edge."""
        self._valid = bool(self.payloads) and (self._valid or not self._pause())
        ctx.set(self.stream.valid, self._valid)
        if self._valid:
            ctx.set(self.stream.payload, self.payloads[0])

    def settle(self, ready: int) -> bool:
        """After it: whether the payload was taken."""
        taken = self._valid and bool(ready)
        if taken:
            self.payloads.popleft()
            self._valid = False
        return taken


@dataclass
class Memory:
    """An AXI memory: what it was asked, and what it will answer."""

    config: VTAConfig
    rng: random.Random
    pause: Pause
    mute: bool = False
    reads: dict[int, deque[dict[str, int]]] = field(default_factory=lambda: {client: deque() for client in Client})
    written: dict[int, tuple[int, int]] = field(default_factory=dict)
    addresses: deque[tuple[int, int]] = field(default_factory=deque)
    beats: deque[tuple[int, int, int]] = field(default_factory=deque)
    responses: deque[int] = field(default_factory=deque)

    def read(self, payload: Any) -> None:
        """Take a read address."""
        for beat in range(payload.len + 1):
            address = payload.addr + beat * self.config.bus_bits // 8
            answer = {"data": word_at(self.config, address), "resp": response_at(address)}
            self.reads[payload.id].append({**answer, "last": beat == payload.len, "id": payload.id})

    def answer(self) -> dict[str, int] | None:
        """Give the next read beat of any reader, or nothing."""
        ready = [queue for queue in self.reads.values() if queue]
        return None if not ready or self.mute or self.pause() else self.rng.choice(ready).popleft()

    def write(self) -> None:
        """Perform the writes whose address and beats are both there."""
        while self.addresses and len(self.beats) > self.addresses[0][1]:
            address, length = self.addresses.popleft()
            for beat in range(length + 1):
                data, strobe, last = self.beats.popleft()
                assert last == (beat == length)
                self.written[address + beat * self.config.bus_bits // 8] = (data, strobe)
            self.responses.append(response_at(address))

    def respond(self) -> dict[str, int] | None:
        """Give the next write response, or nothing."""
        return None if not self.responses or self.mute or self.pause() else {"resp": self.responses.popleft(), "id": 0}


class Bench:
    """The engine with its clients and its memory, stepped cycle by cycle; `got` is what came out, and when."""

    def __init__(self, config: VTAConfig, seed: int = 0, *, stall: float = 0.0, pause: float = 0.0) -> None:
        self.config = config
        self.rng = random.Random(seed)
        self.dut = MemoryEngine(config)
        self.stall: Pause = lambda: self.rng.random() < stall
        self.pause: Pause = lambda: self.rng.random() < pause
        self.memory = Memory(config, self.rng, self.pause)
        self.senders: dict[str, Sender] = {}
        self.accepted: dict[str, list[int]] = {}
        axi = self.dut.axi
        readers = {name: getattr(self.dut, name).beat for name in READERS}
        self.outputs = {"ar": axi.ar, "aw": axi.aw, "w": axi.w, **readers, "store": self.dut.store.response}
        self.got: dict[str, list[tuple[int, Any]]] = {name: [] for name in self.outputs}
        self.answered: dict[str, list[int]] = {"r": [], "b": []}
        self.idle: list[int] = []
        self._waiting: dict[str, Any] = {}

    def send(self, name: str, stream: Any, payloads: Iterable[Any], pause: Pause | None = None) -> None:
        """Let a client offer payloads."""
        self.senders[name] = Sender(stream, payloads, pause or self.pause)
        self.accepted[name] = []

    def read(self, client: Client, bursts: Iterable[tuple[int, int]]) -> None:
        """Let a reader ask for bursts of (address, beats - 1)."""
        name = client.name.lower()
        self.send(name, getattr(self.dut, name).burst, [{"addr": address, "len": length} for address, length in bursts])

    def write(
        self, bursts: Iterable[WriteBurst], burst_pause: Pause | None = None, beat_pause: Pause | None = None
    ) -> None:
        """Let the writer write bursts."""
        addresses, beats = [], []
        for address, words in bursts:
            addresses.append({"addr": address, "len": len(words) - 1})
            last = [False] * (len(words) - 1) + [True]
            beats += [{"data": data, "strb": strb, "last": end} for (data, strb), end in zip(words, last, strict=True)]
        self.send("burst", self.dut.store.burst, addresses, burst_pause)
        self.send("beat", self.dut.store.beat, beats, beat_pause)

    def _drive(self, ctx: Any, cycle: int) -> None:
        axi = self.dut.axi
        for sender in self.senders.values():
            sender.drive(ctx)
        for stream in (axi.ar, axi.aw, axi.w):
            ctx.set(stream.ready, not self.stall())
        for name, stream, answer in (("r", axi.r, self.memory.answer()), ("b", axi.b, self.memory.respond())):
            ctx.set(stream.valid, answer is not None)
            if answer is not None:
                ctx.set(stream.payload, answer)
                self.answered[name].append(cycle)

    async def step(self, ctx: Any, cycle: int) -> None:
        """One cycle."""
        self._drive(ctx, cycle)
        dut = self.dut
        signals = [sender.stream.ready for sender in self.senders.values()]
        signals += [
            signal for output in self.outputs.values() for signal in (output.valid, output.ready, output.payload)
        ]
        signals += [dut.axi.r.ready, dut.axi.b.ready, dut.idle, dut.read_wait, dut.write_wait]
        _, _, *values = await ctx.tick().sample(*signals)
        for name, sender in self.senders.items():
            if sender.settle(values.pop(0)):
                self.accepted[name].append(cycle)
        waiting = {}
        for name in self.outputs:
            valid, ready, payload = values[:3]
            del values[:3]
            assert name not in self._waiting or (valid and payload == self._waiting[name])
            if valid and ready:
                self.got[name].append((cycle, payload))
                self._to_memory(name, payload)
            elif valid:
                waiting[name] = payload
        self._waiting = waiting
        self.idle.append(values[2])
        assert values[:2] == [1, 1]
        assert values[3:] == ["ar" in waiting, "aw" in waiting or "w" in waiting]

    def _to_memory(self, name: str, payload: Any) -> None:
        if name == "ar":
            self.memory.read(payload)
        elif name == "aw":
            assert payload.id == 0
            self.memory.addresses.append((payload.addr, payload.len))
        elif name == "w":
            self.memory.beats.append((payload.data, payload.strb, payload.last))
        self.memory.write()

    def run(self, cycles: int) -> None:
        """Simulate."""

        async def testbench(ctx: Any) -> None:
            for cycle in range(cycles):
                await self.step(ctx, cycle)

        simulate(self.dut, testbench)


def simulate(dut: Any, testbench: Any) -> None:
    """Run a test bench to its end."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    simulator.run()


def read_bursts(config: VTAConfig, rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Return random bursts."""
    return [
        (rng.getrandbits(config.address_bits - 12) << 12 | rng.randrange(8) << 7, rng.choice((0, 1, 7, 15)))
        for _ in range(count)
    ]


def write_bursts(config: VTAConfig, rng: random.Random, count: int) -> list[WriteBurst]:
    """Return random bursts with random strobes."""
    width = config.bus_bits
    return [
        (address, [(rng.getrandbits(width), rng.getrandbits(width // 8)) for _ in range(length + 1)])
        for address, length in read_bursts(config, rng, count)
    ]


def beats_of(config: VTAConfig, bursts: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return what a reader is to get: data, error, last."""
    return [
        (word_at(config, address), int(response_at(address) in (Response.SLVERR, Response.DECERR)), int(beat == length))
        for start, length in bursts
        for beat in range(length + 1)
        for address in [start + beat * config.bus_bits // 8]
    ]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"bus{config.bus_bits}-address{config.address_bits}")
def test_everybody_gets_what_the_model_says(config: VTAConfig, stall: float) -> None:
    bench = Bench(config, config.bus_bits, stall=stall, pause=stall)
    reads = {client: read_bursts(config, bench.rng, 12) for client in Client}
    for client, bursts in reads.items():
        bench.read(client, bursts)
    writes = write_bursts(config, bench.rng, 12)
    bench.write(writes)
    bench.run(600)
    for client, bursts in reads.items():
        got = bench.got[client.name.lower()]
        assert [(beat.data, beat.error, beat.last) for _, beat in got] == beats_of(config, bursts)
    written = {}
    for address, words in writes:
        written.update({address + number * config.bus_bits // 8: word for number, word in enumerate(words)})
    assert bench.memory.written == written
    errors = [int(response_at(address) >= Response.SLVERR) for address, _ in writes]
    assert [error for _, error in bench.got["store"]] == errors
    assert bench.idle[-1] == 1


def test_latencies() -> None:
    config = VTAConfig()
    bench = Bench(config)
    bench.read(Client.LOAD, [(0x1000, 0), (0x2000, 3)])
    bench.write([(0x3000, [(1, 255), (2, 255)])])
    bench.run(20)
    for name, output, cycles in (("load", "ar", 1), ("burst", "aw", 1), ("beat", "w", 1)):
        assert [cycle for cycle, _ in bench.got[output]] == [cycle + cycles for cycle in bench.accepted[name]]
    assert bench.accepted["load"] == [0, 1]
    assert [cycle for cycle, _ in bench.got["load"]] == [cycle + 1 for cycle in bench.answered["r"]]
    assert [cycle for cycle, _ in bench.got["store"]] == [cycle + 1 for cycle in bench.answered["b"]]
    # The last beat reaches the reader in cycle 7, and the memory was the faster one in writing.
    assert bench.idle == [0] * 8 + [1] * 12


def test_readers_take_turns_and_leave_no_cycle_unused() -> None:
    config = VTAConfig()
    bench = Bench(config)
    for client in Client:
        bench.read(client, [(0x1000 * (client + 1), 0)] * (4 if client is Client.LOAD else 2))
    bench.run(20)
    assert [cycle for cycle, _ in bench.got["ar"]] == list(range(1, 9))
    assert [payload.id for _, payload in bench.got["ar"]] == [0, 1, 2, 0, 1, 2, 1, 1]


def test_a_reader_without_answers_is_held_back_alone() -> None:
    config = VTAConfig()
    bench = Bench(config)
    bench.memory.mute = True
    bench.read(Client.LOAD, [(0x1000, 0)] * (MAX_OUTSTANDING + 5))
    bench.read(Client.FETCH, [(0x2000, 0)] * 3)
    bench.run(MAX_OUTSTANDING + 20)
    assert len(bench.accepted["load"]) == MAX_OUTSTANDING
    assert len(bench.accepted["fetch"]) == 3


def test_the_writer_is_held_back_without_answers() -> None:
    bench = Bench(VTAConfig())
    bench.memory.mute = True
    bench.write([(0x1000, [(0, 255)])] * (MAX_OUTSTANDING + 5))
    bench.run(MAX_OUTSTANDING + 20)
    assert len(bench.accepted["burst"]) == MAX_OUTSTANDING
    assert len(bench.accepted["beat"]) == MAX_OUTSTANDING


@pytest.mark.parametrize("late", ["burst", "beat"])
def test_bursts_and_beats_of_the_writer_are_independent(late: str) -> None:
    config = VTAConfig()
    bench = Bench(config)
    writes = write_bursts(config, bench.rng, 6)
    count = {"burst": len(writes), "beat": sum(len(words) for _, words in writes)}
    early = "beat" if late == "burst" else "burst"
    pauses = {late: lambda: len(bench.accepted[early]) < count[early], early: lambda: False}
    bench.write(writes, pauses["burst"], pauses["beat"])
    bench.run(2 * count["beat"] + 20)
    assert bench.accepted[early] == list(range(count[early]))
    assert bench.accepted[late] == list(range(count[early], count[early] + count[late]))
    assert len(bench.got["store"]) == len(writes)
    done = bench.got["store"][-1][0] + 1
    assert bench.idle == [0] * done + [1] * (len(bench.idle) - done)


def test_a_burst_that_lacks_beats_is_not_idle() -> None:
    bench = Bench(VTAConfig())
    bench.send("beat", bench.dut.store.beat, [{"data": 1, "strb": 255, "last": 0}])
    bench.run(6)
    assert bench.idle == [0] * 6


def test_round_robin_grants_the_next_request() -> None:
    dut = RoundRobin(5)
    rng = random.Random(7)

    async def testbench(ctx: Any) -> None:
        last = 4
        for _ in range(300):
            requests, taken = rng.randrange(32), rng.randrange(2)
            ctx.set(dut.requests, requests)
            ctx.set(dut.taken, taken and requests != 0)
            order = [(last + distance) % 5 for distance in range(1, 6)]
            expected = next((number for number in order if requests >> number & 1), None)
            _, _, grant = await ctx.tick().sample(dut.grant)
            if expected is not None:
                assert grant == expected
                last = expected if taken else last

    simulate(dut, testbench)


@pytest.mark.parametrize("count", [0, -1])
def test_round_robin_refuses(count: int) -> None:
    with pytest.raises(ValueError, match=f"^count must be at least 1, not {count}$"):
        RoundRobin(count)


@pytest.mark.parametrize("limit", [0, -3])
def test_outstanding_refuses(limit: int) -> None:
    with pytest.raises(ValueError, match=f"^limit must be at least 1, not {limit}$"):
        Outstanding(limit)


@pytest.mark.parametrize("outstanding", [0, -3])
def test_engine_refuses(outstanding: int) -> None:
    with pytest.raises(ValueError, match=f"^outstanding must be at least 1, not {outstanding}$"):
        MemoryEngine(VTAConfig(), outstanding=outstanding)
