"""What surrounds the accelerator in a simulation: clock, host, memory, and the monitor between it and memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, Final, Protocol

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from runtime.device import Bases
from tests.vta_hw.rtl.cocotb.footprint import footprints
from tests.vta_hw.rtl.cocotb.launches import BASES, Launch
from tests.vta_hw.rtl.cocotb.monitor import AxiMonitor
from tests.vta_hw.rtl.cocotb.wires import ANSWERED, MASTER, SHOWN, Word
from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.registers import REGISTERS, TOKEN_QUEUES, Control, PointerWidth
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import Address, AxiMemory, Shown, WriteWord
from vta_sim.timing import MemoryTiming

PERIOD_NS: Final = 10
PATIENCE: Final = 200_000
"""Cycles in which a launch must be over."""

MAX_LATENCY: Final = 100


class MemorySide(Protocol):
    """What stands behind the memory port."""

    memory: Memory

    def prepare(self, launch: Launch) -> None:
        """Between launches: what the next one gets."""

    def reset(self) -> None:
        """Forget what is unanswered."""

    def step(self, wires: dict[str, int]) -> None:
        """A cycle has passed in which the wires were these."""


class ModelMemory:
    """The toolkit's own model: many bursts at a time, read answers of different IDs mixed, any channel may pause."""

    def __init__(self, dut: Any, config: VTAConfig, rng: random.Random) -> None:
        self.memory = Memory()
        self._handles = {name: getattr(dut, MASTER + name) for name in ANSWERED}
        self._driven = dict.fromkeys(ANSWERED, 0)
        self._config = config
        self._rng = rng
        self._model = self._new_model({})

    def _new_model(self, errors: dict[range, int]) -> AxiMemory:
        timing = MemoryTiming(
            latency=self._rng.choice([0, self._rng.randint(0, MAX_LATENCY)]),
            outstanding=self._rng.choice([1, 2, 16]),
            stalls=self._rng.choice([0.0, 0.2, 0.6]),
            interleave=True,
            seed=self._rng.getrandbits(32),
        )
        return AxiMemory(
            self.memory,
            bus_bytes=self._config.bus_bits // 8,
            max_beats=MAX_BURST_BEATS,
            timing=timing,
            errors=errors,
        )

    def prepare(self, launch: Launch) -> None:
        assert self._model.idle
        self._model = self._new_model(dict(launch.errors))

    def reset(self) -> None:
        self._model = self._new_model({})
        self._drive(dict.fromkeys(ANSWERED, 0))

    def step(self, wires: dict[str, int]) -> None:
        answer = self._model.step(_shown(wires))
        values = {"arready": answer.ar_ready, "awready": answer.aw_ready, "wready": answer.w_ready}
        values |= {"rvalid": answer.r is not None, "bvalid": answer.b is not None}
        if answer.r is not None:
            values |= {f"r{part}": value for part, value in answer.r._asdict().items()}
        if answer.b is not None:
            values |= {f"b{part}": value for part, value in answer.b._asdict().items()}
        self._drive(values)

    def _drive(self, values: dict[str, int]) -> None:
        for name, value in values.items():
            if self._driven[name] != value:
                self._driven[name] = value
                self._handles[name].value = int(value)


def _shown(wires: dict[str, int]) -> Shown:
    def address(channel: str) -> Address | None:
        if not wires[f"{channel}valid"]:
            return None
        return Address(*(wires[channel + part] for part in Address._fields))

    w = WriteWord(*(wires[f"w{part}"] for part in WriteWord._fields)) if wires["wvalid"] else None
    return Shown(address("ar"), address("aw"), w, bool(wires["rready"]), bool(wires["bready"]))


class SlaveMemory:
    """cocotbext-axi's slave, which is not ours: a burst at a time, every channel pauses at random, latency at random.

    Addresses with errors answer with SLVERR, whatever the launch asks for.
    """

    def __init__(self, dut: Any, config: VTAConfig, rng: random.Random) -> None:
        self.memory = Memory()
        self._clk = dut.clk
        self._rng = rng
        self._errors: tuple[range, ...] = ()
        slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self)
        write, read = slave.write_if, slave.read_if
        self._channels = (
            write.aw_channel,
            write.w_channel,
            write.b_channel,
            read.ar_channel,
            read.r_channel,
        )
        for channel in (write, read, *self._channels):
            channel.log.setLevel("ERROR")

    def prepare(self, launch: Launch) -> None:
        self._errors = tuple(launch.errors)
        for channel in self._channels:
            channel.set_pause_generator(self._pauses(self._rng.choice([0.0, 0.3, 0.7])))

    def reset(self) -> None:
        """The slave sees the reset itself."""

    def step(self, wires: dict[str, int]) -> None:
        pass

    async def read(self, address: int, nbytes: int) -> bytes:
        """Called for each word of a burst."""
        if self._rng.random() < 0.1:
            await ClockCycles(self._clk, self._rng.randint(1, MAX_LATENCY))
        self._check(address, nbytes)
        return self.memory.read(address, nbytes).tobytes()

    async def write(self, address: int, data: bytes) -> None:
        """Called for each run of strobes of a word."""
        if self._rng.random() < 0.1:
            await ClockCycles(self._clk, self._rng.randint(1, MAX_LATENCY))
        self._check(address, len(data))
        self.memory.write(address, data)

    def _check(self, address: int, nbytes: int) -> None:
        if any(bad.start < address + nbytes and address < bad.stop for bad in self._errors):
            raise ValueError(f"memory at {address:#x} is to answer with an error")

    def _pauses(self, probability: float) -> Iterator[bool]:
        return (self._rng.random() < probability for _ in itertools.count())


class Bench:
    """The accelerator in its bench.

    `launch` and `wait` are what a driver does; `monitor` sees every cycle. One at a time.
    """

    def __init__(self, dut: Any, config: VTAConfig, memory: type[ModelMemory] | type[SlaveMemory], seed: int) -> None:
        self.dut = dut
        self.config = config
        self.monitor = AxiMonitor(config)
        self.registers = REGISTERS[PointerWidth(config.address_bits)]
        for name in ("clk", "rst", "s_axi_awprot", "s_axi_arprot", *(MASTER + name for name in ANSWERED)):
            getattr(dut, name).value = 0
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        for part in (self.host.write_if, self.host.read_if):
            part.log.setLevel("ERROR")
        self.side: MemorySide = memory(dut, config, random.Random(seed))
        self._shown = Word({name: _bits(getattr(dut, MASTER + name)) for name in SHOWN})
        self._answered = Word({name: _bits(getattr(dut, MASTER + name)) for name in ANSWERED})

    async def start(self) -> None:
        """Clock and reset."""
        Clock(self.dut.clk, PERIOD_NS, unit="ns").start()
        cocotb.start_soon(self._watch())
        await self.reset()

    async def reset(self) -> None:
        """Reset accelerator and memory port, whatever they do."""
        dut = self.dut
        dut.rst.value = 1
        self.side.reset()
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)

    async def _watch(self) -> None:
        dut = self.dut
        edge = RisingEdge(dut.clk)
        await edge  # Only from the first edge on has reset had its effect.
        while True:
            await edge
            wires = {"rst": int(dut.rst.value)} | self._shown.split(dut.shown.value.to_unsigned())
            wires |= self._answered.split(_known(str(dut.answered.value)))
            self.monitor.step(wires)
            if not wires["rst"]:
                self.side.step(wires)

    async def write(self, name: str, value: int) -> None:
        """Write a register, low word first."""
        for offset, word in self.registers.words({name: value}).items():
            await self.host.write_dword(offset, word)

    async def read(self, name: str) -> int:
        """Read a register."""
        register = self.registers[name]
        words = await self.host.read_dwords(register.offset, register.words)
        return sum(word << (32 * number) for number, word in enumerate(words))

    async def launch(self, launch: Launch) -> None:
        """Write memory and registers of a launch, and start it."""
        for address, page in launch.written.items():
            self.side.memory.write(address, page)
        self.side.prepare(launch)
        self.expect(launch.insn_address, launch.insn_count, launch.bases)
        parameters = {"insn_count": launch.insn_count, "insn_base": launch.insn_address}
        parameters |= {f"{name}_base": getattr(launch.bases, name) for name in BASES}
        parameters |= {f"tokens_{name}": getattr(launch.tokens, name) for name in TOKEN_QUEUES}
        for name, value in parameters.items():
            await self.write(name, value)
        await self.write("control", Control.LAUNCH)

    def expect(self, insn_address: int, insn_count: int, bases: Bases) -> None:
        """Tell the monitor what the instructions in memory may ask for."""
        words = self.side.memory.read(insn_address, 16 * insn_count).view("<u8").reshape(-1, 2)
        self.monitor.reads, self.monitor.writes = footprints(self.config, words, insn_address, bases)

    async def wait(self) -> None:
        """Poll `control` until the launch is over."""
        for _ in range(PATIENCE // 50):
            if await self.read("control") == Control.FINISH:
                self.monitor.finish()
                return
            await ClockCycles(self.dut.clk, 40)
        raise TimeoutError(f"launch must be over within {PATIENCE} cycles")


def _bits(handle: Any) -> int:
    return len(handle) if hasattr(handle, "__len__") else 1


def _known(bits: str) -> int:
    """The number of a word whose unknown bits are those of an answer that has never been given."""
    return int(bits.translate(_UNKNOWN), 2)


_UNKNOWN: Final = str.maketrans("XZxz", "0000")
