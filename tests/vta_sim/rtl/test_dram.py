"""The memory as a block, in Amaranth's simulator: against the model in Python, and the compiled one where it stalls."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from tests.vta_sim.cycle.mirror import Mirror
from tests.vta_sim.rtl.dram_bench import serve_storage, set_timing
from tests.vta_sim.rtl.machine_simulator import MachineSimulator
from tests.vta_sim.rtl.master import BUS_BYTES, Master, address, write_words
from tests.vta_sim.rtl.memory_traffic import ERRORS, READ_AT, REGION_BYTES, WRITE_AT, enqueue, fill, random_timing
from vta_hw.rtl.registers import register_map
from vta_hw.spec.config import preset
from vta_hw.spec.isa import ISA, Finish, Load, MemoryType
from vta_hw.spec.registers import Status
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import DECERR, OKAY, SLVERR, Answer, AxiMemory, ReadWord, Response, Shown
from vta_sim.rtl.dram import SETTINGS, Dram
from vta_sim.timing import MemoryTiming, Settings

PATIENCE = 20_000


class Bench:
    """The block under test, which a master shows what it shows another memory."""

    def __init__(self) -> None:
        self.dram = Dram(preset("tiny"), errors=ERRORS)
        self.simulator = Simulator(self.dram)
        self.simulator.add_clock(1e-8)
        self.simulator.add_process(self._store)
        self.simulator.add_testbench(self._drive)
        self._used = False

    def follow(
        self, master: Master, timing: MemoryTiming, compare: Callable[[Answer], Answer], done: Callable[[], bool]
    ) -> Memory:
        """Compare every answer with that of the master's own memory, until `done`; returns what was stored."""
        self.memory = fill(Memory())
        self.master, self.timing, self.compare, self.done = master, timing, compare, done
        # Of coroutines that never ran Python warns.
        if self._used:
            self.simulator.reset()
        self._used = True
        self.simulator.run()
        return self.memory

    async def _store(self, ctx: SimulatorContext) -> None:
        await serve_storage(ctx, self.dram, lambda: self.memory)

    async def _drive(self, ctx: SimulatorContext) -> None:
        set_timing(ctx, self.dram, self.timing)
        for _ in range(PATIENCE):
            self.master.step()
            self._show(ctx, self.master.shown)
            await ctx.tick()
            assert self.compare(self._answer(ctx)) == self.master.answer, f"cycle {self.master.cycle}"
            if self.done():
                return
        raise AssertionError(f"not done after {PATIENCE} cycles")

    def _show(self, ctx: SimulatorContext, shown: Shown) -> None:
        for channel in ("ar", "aw", "w"):
            payload: Any = getattr(shown, channel)
            ctx.set(getattr(self.dram, f"{channel}valid"), payload is not None)
            for name in ("data", "strb", "last") if channel == "w" else ("addr", "len", "id"):
                if payload is not None:
                    ctx.set(getattr(self.dram, channel + name), getattr(payload, name))
        ctx.set(self.dram.rready, shown.r_ready)
        ctx.set(self.dram.bready, shown.b_ready)

    def _answer(self, ctx: SimulatorContext) -> Answer:
        dram = self.dram
        r = b = None
        if ctx.get(dram.rvalid):
            r = ReadWord(ctx.get(dram.rdata), ctx.get(dram.rresp), ctx.get(dram.rlast), ctx.get(dram.rid))
        if ctx.get(dram.bvalid):
            b = Response(ctx.get(dram.bresp), ctx.get(dram.bid))
        ready = (bool(ctx.get(pin)) for pin in (dram.arready, dram.awready, dram.wready))
        return Answer(*ready, r, b)


@cache
def bench() -> Bench:
    return Bench()


def without_data(answer: Answer) -> Answer:
    return answer if answer.r is None else answer._replace(r=answer.r._replace(data=0))


def follow_model(master: Master, timing: MemoryTiming) -> Memory:
    port = master.port
    return bench().follow(
        master, timing, lambda answer: answer, lambda: not (master.ar or master.aw or master.w) and port.idle
    )


def model(timing: MemoryTiming) -> tuple[AxiMemory, Memory]:
    memory = fill(Memory())
    return AxiMemory(memory, bus_bytes=BUS_BYTES, max_beats=16, timing=timing, errors=ERRORS), memory


@pytest.mark.parametrize("seed", range(40))
def test_without_stalls_it_is_the_memory_model_cycle_by_cycle_and_byte_by_byte(seed: int) -> None:
    rng = random.Random(seed)
    timing = random_timing(rng)
    port, memory = model(timing)
    master = Master(port, pause=rng.choice([0, 0.3, 0.8]), seed=seed)
    enqueue(master, rng, 12)
    stored = follow_model(master, timing)
    assert np.array_equal(stored.read(WRITE_AT, REGION_BYTES), memory.read(WRITE_AT, REGION_BYTES))
    assert len(master.written) == 12


@pytest.mark.parametrize("seed", range(30))
def test_with_stalls_it_is_the_compiled_memory_cycle_by_cycle(seed: int) -> None:
    rng = random.Random(seed)
    timing = random_timing(rng, stalls=rng.choice([0.01, 0.2, 0.5, 0.99]))
    master = Master(Mirror(timing, errors=ERRORS), pause=rng.choice([0, 0.3]), seed=seed)
    enqueue(master, rng, 6)
    bench().follow(master, timing, without_data, lambda: master.cycle == 1200)
    assert master.read


def test_a_read_after_a_response_sees_what_was_written_however_late_its_address_came() -> None:
    """Sixteen words are there before their address."""
    timing = MemoryTiming()
    master = Master(model(timing)[0])
    data = random.Random(5).randbytes(128)
    place = address(WRITE_AT + 0x200, 16)
    master.w += write_words(data)

    def go_on() -> bool:
        if master.cycle == 20:
            master.aw.append(place)
        if master.written and not master.ar and master.port.idle:
            master.ar.append(place)
        return len(master.read) == 16

    bench().follow(master, timing, lambda answer: answer, go_on)
    assert b"".join(word.data.to_bytes(8, "little") for _, word in master.read) == data


def test_errors_are_answered() -> None:
    timing = MemoryTiming(latency=2)
    port, memory = model(timing)
    master = Master(port)
    master.ar.append(address(READ_AT + 0xF8, 6))
    master.aw += [address(WRITE_AT, 2), address(WRITE_AT + 0x10, 1), address(WRITE_AT + 0x10, 6)]
    master.w += write_words(bytes(16)) + write_words(bytes(8)) + write_words(bytes(48))
    stored = follow_model(master, timing)
    assert [word.resp for _, word in master.read] == [OKAY, SLVERR, SLVERR, DECERR, OKAY, OKAY]
    assert [answer.resp for _, answer in master.written] == [OKAY, DECERR, DECERR]
    assert np.array_equal(stored.read(WRITE_AT, 0x80), memory.read(WRITE_AT, 0x80))


def test_settings_are_the_pins() -> None:
    assert tuple(SETTINGS) == Settings._fields
    wide = MemoryTiming(latency=1 << 20, outstanding=1 << 10, stalls=0.9999, read_bytes=1, write_bytes=1, seed=-1)
    for name, value in wide.settings(64)._asdict().items():
        assert value < 1 << SETTINGS[name], name


def test_small_numbers_for_a_compiled_memory() -> None:
    timing = MemoryTiming(latency=3, outstanding=1000, stalls=0.25, read_bytes=2, shared_bus=True)
    settings = timing.settings(8)
    assert settings[:-1] == (3, 256, 3, 0, 1, 64)
    assert 0 < settings.random_state < 1 << 64
    assert [MemoryTiming(stalls=stalls).settings(8).stall_threshold for stalls in (0, 1e-9, 0.999)] == [0, 1, 255]


def test_interleaving_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        MemoryTiming(interleave=True).settings(8)
    assert str(caught.value) == (
        "Interleaved answers must be left to Amaranth's simulator, not asked of a compiled memory"
    )


def test_a_machine_with_its_memory_meets_a_bus_error() -> None:
    config = preset("tiny")
    machine = MachineSimulator(config, errors={range(0x8000, 0x8001): SLVERR})
    machine.reset(timing=MemoryTiming(latency=4))
    load = Load(memory_type=MemoryType.INP, dram_base=0x8000 // config.inp_elem_bytes, y_size=1, x_size=1, x_stride=1)
    program = [Load(memory_type=MemoryType.UOP), load, Finish()]
    machine.memory.write(0x1000, ISA(config).encode_program(program))
    report = machine.launch(0x1000, len(program), allow_faults=True)
    assert report.status == Status.READ_ERROR
    assert report.fault_insn == 1
    assert set(report.counters) == {register.name for register in register_map(config).counters}


def test_a_launch_takes_as_long_whenever_it_begins() -> None:
    config = preset("tiny")
    machine = MachineSimulator(config)
    load = Load(memory_type=MemoryType.INP, y_size=4, x_size=8, x_stride=16)
    program = ISA(config).encode_program([load, load, Finish()])
    cycles = set()
    for seed in range(4):
        machine.reset(timing=MemoryTiming(stalls=0.5, seed=seed))
        machine.memory.write(0x1000, program)
        first, again = (machine.launch(0x1000, 3).counters for _ in range(2))
        assert first == again
        cycles.add(first["cycle_count"])
    assert len(cycles) > 1
