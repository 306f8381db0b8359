"""cocotb tests: what a host does with the accelerator. `build.Simulation.run` names them and gives them their plusargs.

cases: folder with the launches of `cases.write_cases`. launches: file of launches for `replay`. seed: of the random
choices of host and memory.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any, Final

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

from runtime.device import PAGE_BYTES
from tests.vta_hw.rtl.cocotb.bench import PATIENCE, PERIOD_NS, Bench, ModelMemory, SlaveMemory
from tests.vta_hw.rtl.cocotb.launches import Launch, Launches
from vta_hw.spec.registers import EXTENSION_ID, TOKEN_BITS, TOKEN_QUEUES, Access, Control, Status
from vta_sim.memory import Memory

DELAYS: Final = (1, 20, 60, 120, 200, 300)
"""Cycles after which a launch is interrupted; it must take longer than that."""

UNMAPPED: Final = (0x28, 0x3C, 0xFC, 0x100, 0x1000, 0xFFFC)


def case(name: str) -> Launches:
    """A file of launches of the folder that the plusargs name."""
    return Launches.load(Path(str(cocotb.plusargs["cases"])) / f"{name}.npz")


async def start(dut: Any, launches: Launches, memory: type[ModelMemory] | type[SlaveMemory] = ModelMemory) -> Bench:
    """A bench out of reset."""
    bench = Bench(dut, launches.config, memory, int(str(cocotb.plusargs["seed"])))
    await bench.start()
    return bench


async def run(bench: Bench, launches: Launches, mirror: Memory | None = None) -> None:
    """Each launch leaves memory and registers as the file says; `mirror` is what is in memory before, else nothing."""
    mirror = mirror or Memory()
    for number, launch in enumerate(launches.launches):
        bursts = bench.monitor.bursts
        await bench.launch(launch)
        await bench.wait()
        assert bench.monitor.bursts > bursts, "the monitor must see what happens"
        for address, page in launch.written.items():
            mirror.write(address, page)
        problems = [*bench.monitor.violations, *await wrong_registers(bench, launch)]
        problems += wrong_memory(bench.side.memory, mirror, launch)
        assert not problems, f"launch {number}: " + "; ".join(problems[:10])


async def wrong_registers(bench: Bench, launch: Launch) -> list[str]:
    """A sentence on each register that reads something else than it must."""
    found = {name: await bench.read(name) for name in launch.registers}
    return [
        f"{name} must be {value}, not {found[name]}" for name, value in launch.registers.items() if found[name] != value
    ]


def wrong_memory(memory: Memory, mirror: Memory, launch: Launch) -> list[str]:
    """A sentence on each page that holds something else than it must; `mirror` follows the launch."""
    if launch.stored is not None:
        for address, page in launch.stored.items():
            mirror.write(address, page)
    problems = []
    for address in sorted({*memory.page_addresses().tolist(), *mirror.page_addresses().tolist()}):
        page, wanted = memory.read(address, PAGE_BYTES), mirror.read(address, PAGE_BYTES)
        bad = np.flatnonzero(page != wanted)
        if len(bad) and launch.stored is not None:
            at = bad[0]
            problems.append(f"{len(bad)} bytes from {address + at:#x} must be {wanted[at]} first, not {page[at]}")
        mirror.write(address, page)
    return problems


@cocotb.test()
async def random_programs_on_model(dut: Any) -> None:
    """Random programs; memory is the toolkit's model, which mixes answers and pauses."""
    launches = case("random")
    await run(await start(dut, launches), launches)


@cocotb.test()
async def random_programs_on_slave(dut: Any) -> None:
    """Random programs; memory is cocotbext-axi's."""
    launches = case("random_again")
    await run(await start(dut, launches, SlaveMemory), launches)


@cocotb.test()
async def bus_errors_on_model(dut: Any) -> None:
    """SLVERR and DECERR under every unit: status and instruction are reported, and the launch ends."""
    launches = case("bus_errors")
    await run(await start(dut, launches), launches)


@cocotb.test()
async def bus_errors_on_slave(dut: Any) -> None:
    """SLVERR under every unit, from cocotbext-axi's memory."""
    launches = case("bus_errors")
    await run(await start(dut, launches, SlaveMemory), launches)


@cocotb.test()
async def deadlock(dut: Any) -> None:
    """A token that does not come ends the launch, the next one is as if nothing had been; ones clear the status."""
    launches = case("deadlock")
    bench = await start(dut, launches)
    await run(bench, launches)
    await bench.launch(launches.launches[1])
    await bench.wait()
    await bench.write("status", Status.DEADLOCK | Status.READ_ERROR)
    assert await bench.read("status") == 0
    assert not bench.monitor.violations


@cocotb.test()
async def soft_reset(dut: Any) -> None:
    """At any time of a launch: bursts are answered to their end, tokens go, and the next launch is right."""
    bench = await start(dut, case("random"))
    for delay in DELAYS:
        await bench.launch(case("random").launches[0])
        await ClockCycles(dut.clk, delay)
        assert await bench.read("control") == Control.LAUNCH
        await bench.write("control", Control.RESET)
        for _ in range(PATIENCE):
            if await bench.read("control") == 0:
                break
        bench.monitor.finish()
        assert [await bench.read(f"tokens_{name}") for name in TOKEN_QUEUES] == [0, 0, 0, 0]
        await run(bench, case("product"), mirror_of(bench.side.memory))


@cocotb.test()
async def hard_reset(dut: Any) -> None:
    """At any time of a launch: the registers are as at first, and the next launch is right."""
    bench = await start(dut, case("random"))
    for delay in DELAYS:
        await bench.launch(case("random").launches[0])
        await ClockCycles(dut.clk, delay)
        assert await bench.read("control") == Control.LAUNCH
        await bench.reset()
        assert await changed_registers(bench) == []
        await run(bench, case("product"), mirror_of(bench.side.memory))


async def changed_registers(bench: Bench) -> list[str]:
    """The registers that read something else than after a reset."""
    constants = {
        "ext_id": EXTENSION_ID,
        "ext_words": bench.registers.extension_words,
        "program_digest": int(bench.config.program_digest[:8], 16),
    }
    return [
        register.name
        for register in bench.registers
        if await bench.read(register.name) != constants.get(register.name, 0)
    ]


def mirror_of(memory: Memory) -> Memory:
    """A memory with the same contents."""
    mirror = Memory()
    for address in memory.page_addresses().tolist():
        mirror.write(address, memory.read(address, PAGE_BYTES))
    return mirror


@cocotb.test()
async def interrupt(dut: Any) -> None:
    """It rises with finish where it is enabled, and falls with either bit."""
    (product,) = case("product").launches
    bench = await start(dut, case("product"))
    await bench.launch(product)
    await bench.wait()
    assert int(dut.irq.value) == 0
    await bench.write("irq_enable", 1)
    assert int(dut.irq.value) == 1
    await bench.launch(product)
    assert int(dut.irq.value) == 0
    await with_timeout(RisingEdge(dut.irq), PATIENCE * PERIOD_NS, "ns")
    assert await bench.read("control") == Control.FINISH
    await bench.write("irq_enable", 0)
    assert int(dut.irq.value) == 0
    await bench.write("irq_enable", 1)
    assert int(dut.irq.value) == 1
    await bench.write("control", 0)
    assert int(dut.irq.value) == 0
    assert not bench.monitor.violations


@cocotb.test()
async def register_port(dut: Any) -> None:
    """Every register, byte by byte; channels that pause; addresses without a register."""
    bench = await start(dut, case("product"))
    host, rng = bench.host, random.Random(1)
    for channel in (
        host.write_if.aw_channel,
        host.write_if.w_channel,
        host.write_if.b_channel,
        host.read_if.ar_channel,
        host.read_if.r_channel,
    ):
        channel.set_pause_generator(rng.random() < 0.5 for _ in itertools.count())
    assert await changed_registers(bench) == []
    widths = {"irq_enable": 1} | {f"tokens_{name}": TOKEN_BITS for name in TOKEN_QUEUES}
    wanted = {}
    for register in bench.registers:
        if register.access is not Access.READ_WRITE or register.name == "control":
            continue
        value = rng.getrandbits(register.bits)
        await bench.write(register.name, value)
        low = rng.randint(1, 3)
        await host.write(register.offset, bytes([0xA5] * low))
        await host.write(register.offset + low, bytes([0x5A]))  # Not the address of a register.
        value = value >> 8 * low << 8 * low | 0xA5A5A5 & ((1 << 8 * low) - 1)
        wanted[register.name] = value & ((1 << widths.get(register.name, register.bits)) - 1)
    unmapped = {bench.registers.registers[-1].end, *UNMAPPED} - {
        register.offset + 4 * word for register in bench.registers for word in range(register.words)
    }
    for address in sorted(unmapped):
        await host.write_dword(address, 0xFFFFFFFF)
        assert await host.read_dword(address) == 0, f"{address:#x}"
    for name, value in wanted.items():
        found = await bench.read(name)
        assert found == value, f"{name} must be {value:#x}, not {found:#x}"


@cocotb.test()
async def replay(dut: Any) -> None:
    """A file of launches, such as those of a run of the demo network."""
    launches = Launches.load(Path(str(cocotb.plusargs["launches"])))
    await run(await start(dut, launches), launches)
