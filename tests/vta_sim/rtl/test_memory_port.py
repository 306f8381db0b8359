"""The memory behind pins, in Amaranth's simulator, against the same memory without a simulator."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from tests.vta_sim.rtl.master import BUS_BYTES, SIZE, Master, address, write_words
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import INCR, SLVERR, Address, Answer, AxiError, AxiMemory, ReadWord, Response, Shown
from vta_sim.rtl.memory_port import MemoryPort
from vta_sim.timing import MemoryTiming

CHANNEL = {"addr": 32, "len": 8, "size": 3, "burst": 2, "lock": 1, "id": 2, "valid": 1}
MASTER = {channel + name: bits for channel in ("ar", "aw") for name, bits in CHANNEL.items()}
MASTER |= {"wdata": 8 * BUS_BYTES, "wstrb": BUS_BYTES, "wlast": 1, "wvalid": 1, "rready": 1, "bready": 1}
SLAVE = {"arready": 1, "awready": 1, "wready": 1, "bvalid": 1, "bresp": 2, "bid": 2}
SLAVE |= {"rvalid": 1, "rdata": 8 * BUS_BYTES, "rresp": 2, "rlast": 1, "rid": 2}
TIMINGS = [
    MemoryTiming(),
    MemoryTiming(latency=11, outstanding=2),
    MemoryTiming(latency=2, stalls=0.3, interleave=True, seed=4),
]


class Pins(wiring.Component):
    """A master without a will of its own."""

    def __init__(self) -> None:
        members = {name: Out(bits) for name, bits in MASTER.items()} | {name: In(bits) for name, bits in SLAVE.items()}
        super().__init__({f"m_axi_{name}": member for name, member in members.items()})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.d.sync += Signal(name="clocked").eq(1)
        return m


def as_pins(shown: Shown) -> Mapping[str, int]:
    """What a master's pins carry; those of a channel that is not valid are random."""
    rng = random.Random(1)
    pins = {name: rng.getrandbits(bits) for name, bits in MASTER.items()}
    for channel in ("ar", "aw", "w"):
        payload: tuple[int, ...] | None = getattr(shown, channel)
        pins[f"{channel}valid"] = payload is not None
        if payload is not None:
            names = Address._fields if channel != "w" else ("data", "strb", "last")
            pins |= {channel + name: value for name, value in zip(names, payload, strict=True)}
    return pins | {"rready": shown.r_ready, "bready": shown.b_ready}


class Bench:
    """The memory under test, and its simulator."""

    def __init__(self) -> None:
        self.pins = Pins()
        self.port = MemoryPort(self.pins, lambda: self.memory)
        self.simulator = Simulator(self.port)
        self.simulator.add_clock(1e-8)
        self.simulator.add_process(self.port.process)
        self.simulator.add_testbench(self.drive)
        self.connect(MemoryTiming())

    def connect(self, timing: MemoryTiming) -> None:
        """Two equal memories, one of them with a master that is to be followed."""
        errors = {range(0x1100, 0x1110): SLVERR}
        self.memory, twin = (
            AxiMemory(memory, bus_bytes=BUS_BYTES, max_beats=16, timing=timing, errors=errors)
            for memory in (filled(), filled())
        )
        self.master = Master(twin, pause=0.2)

    async def drive(self, ctx: Any) -> None:
        master = self.master
        while master.ar or master.aw or master.w or not master.port.idle:
            master.step()
            for name, value in as_pins(master.shown).items():
                ctx.set(getattr(self.pins, f"m_axi_{name}"), value)
            await ctx.tick()
            pins = {name: ctx.get(getattr(self.pins, f"m_axi_{name}")) for name in SLAVE}
            assert as_answer(pins) == master.answer, f"cycle {master.cycle}"


def filled() -> Memory:
    memory = Memory()
    memory.write(0x1000, random.Random(2).randbytes(0x1000))
    return memory


def as_answer(pins: Mapping[str, int]) -> Answer:
    r = ReadWord(pins["rdata"], pins["rresp"], pins["rlast"], pins["rid"]) if pins["rvalid"] else None
    b = Response(pins["bresp"], pins["bid"]) if pins["bvalid"] else None
    return Answer(bool(pins["arready"]), bool(pins["awready"]), bool(pins["wready"]), r, b)


def enqueue(master: Master, bursts: int) -> None:
    rng = random.Random(3)
    for _ in range(bursts):
        master.ar.append(address(0x1000 + 8 * rng.randrange(240), rng.randint(1, 16), rng.randrange(3)))
        beats = rng.randint(1, 16)
        master.aw.append(address(0x1000 + 8 * rng.randrange(240), beats, rng.randrange(3)))
        master.w += write_words(rng.randbytes(8 * beats), rng.choice([0xFF, 0x0F, rng.getrandbits(8)]))


def test_pins_follow_the_memory_cycle_by_cycle_also_after_a_reset() -> None:
    bench = Bench()
    bench.simulator.run()
    for timing in TIMINGS:
        bench.connect(timing)
        bench.simulator.reset()
        enqueue(bench.master, 12)
        bench.simulator.run()
        assert len(bench.master.written) == 12


def test_a_broken_rule_comes_out_of_the_simulation() -> None:
    bench = Bench()
    bench.master.ar.append(Address(0x1000, 16, SIZE, INCR, 0, 1))
    with pytest.raises(AxiError, match=r"^AR burst at 0x1000 must have at most 16 words, not 17$"):
        bench.simulator.run()
