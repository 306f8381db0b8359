"""The control registers with a host in front and token queues behind, for their tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from tests.vta_hw.rtl.register_host import RegisterHost
from vta_hw.rtl.registers import ControlRegisters, register_map
from vta_hw.rtl.tokens import TokenQueue
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.registers import TOKEN_QUEUES, Control

NARROW = preset("tiny")
WIDE = replace(NARROW, log_address_width=6, log_bus_width=9)
BOTH = pytest.mark.parametrize("config", [NARROW, WIDE], ids=["32-bit", "64-bit"])

Testbench = Callable[[Any], Awaitable[None]]

# A write without stalls is taken in the cycle of the call and done in the next; registers change in the one after.
DONE = 1
CHANGED = 2

LIMIT = 10_000
"""Cycles after which a test that still waits has failed."""


class Seen(NamedTuple):
    """What the registers told the machine in a cycle."""

    start: int
    running: int
    soft_reset: int
    irq: int
    token_load: int


class Bench:
    """The registers, token queues behind them, and a machine whose signals are planned ahead by cycle."""

    def __init__(self, config: VTAConfig, *, seed: int = 0, stall: float = 0.0) -> None:
        self.dut = ControlRegisters(config)
        self.map = register_map(config)
        self.host = RegisterHost(self.dut.axi, seed=seed, stall=stall)
        self.cycle = 0
        self.seen: list[Seen] = []
        self._planned: dict[int, list[tuple[Any, Any]]] = {}

    def plan(self, cycle: int, signal: Any, value: Any = 1) -> None:
        """Drive a signal in one cycle, counted from the current one, and 0 afterwards."""
        assert cycle > 0
        self._planned.setdefault(self.cycle + cycle, []).append((signal, value))

    async def _machine(self, ctx: Any) -> None:
        dut = self.dut
        while True:
            planned = self._planned.get(self.cycle, [])
            for signal, value in planned:
                ctx.set(signal, value)
            _, _, *values = await ctx.tick().sample(dut.start, dut.running, dut.soft_reset, dut.irq, dut.token_load)
            self.seen.append(Seen(*values))
            for signal, value in planned:
                ctx.set(signal, {} if isinstance(value, dict) else 0)
            self.cycle += 1
            assert self.cycle < LIMIT

    def run(self, *testbenches: Testbench) -> None:
        """Simulate until every testbench has ended."""
        m = Module()
        m.submodules.dut = self.dut
        for number in range(len(TOKEN_QUEUES)):
            m.submodules[f"queue{number}"] = queue = TokenQueue()
            m.d.comb += [
                queue.replace.eq(self.dut.token_load[number]),
                queue.value.eq(self.dut.token_value),
                self.dut.token_count[number].eq(queue.count),
            ]
        simulator = Simulator(m)
        simulator.add_clock(1e-8)
        simulator.add_testbench(self._machine, background=True)
        simulator.add_testbench(self.host.watch, background=True)
        for testbench in testbenches:
            simulator.add_testbench(testbench)
        simulator.run()

    async def read(self, ctx: Any, name: str) -> int:
        """Read a register, low word first."""
        register = self.map[name]
        words = [await self.host.read(ctx, register.offset + 4 * word) for word in range(register.words)]
        return sum(word << 32 * place for place, word in enumerate(words))

    async def write(self, ctx: Any, name: str, value: int) -> None:
        """Write a register, low word first."""
        for offset, word in self.map.words({name: value}).items():
            await self.host.write(ctx, offset, word)

    async def launch(self, ctx: Any, cycles: int) -> None:
        """Launch, with finish in the given cycle after that of start, and wait until some cycles later."""
        self.plan(CHANGED + cycles, self.dut.finish)
        await self.write(ctx, "control", Control.LAUNCH)
        await ctx.tick().repeat(cycles + 3)
