"""A load engine or unit with scratchpads and DRAM around it, and a model of LOAD written from VTA spec 3.2."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from numpy.typing import NDArray

from vta_hw.rtl.axi import MAX_BURST_BEATS, read_beat_layout
from vta_hw.rtl.instruction import QUEUED
from vta_hw.rtl.load import LoadEngine, LoadUnit
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Load, MemoryType, codes_of
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status

Bytes = NDArray[np.uint8]

OUTSIDE = {
    MemoryType.UOP: Status.UOP_INDEX,
    MemoryType.INP: Status.INP_INDEX,
    MemoryType.WGT: Status.WGT_INDEX,
    MemoryType.ACC: Status.ACC_INDEX,
}


Pair = tuple[MemoryType, MemoryType]

LOAD = (MemoryType.INP, MemoryType.WGT)
COMPUTE = (MemoryType.UOP, MemoryType.ACC)


def config_of(
    *,
    batch: int,
    block_in: int,
    block_out: int,
    bus: int,
    depths: tuple[int, int, int, int] = (6, 6, 5, 6),
    inp: int = 3,
    wgt: int = 3,
    address: int = 5,
    isa: str = "tvm",
) -> VTAConfig:
    """Return a configuration given by logarithms: of the tile, of depths, of the bits of bus, operands, addresses."""
    u, i, w, a = depths
    return VTAConfig(
        log_batch=batch,
        log_block_in=block_in,
        log_block_out=block_out,
        log_inp_width=inp,
        log_wgt_width=wgt,
        log_uop_buff_size=u + 2,
        log_inp_buff_size=i + batch + block_in + inp - 3,
        log_wgt_buff_size=w + block_out + block_in + wgt - 3,
        log_acc_buff_size=a + batch + block_out + 2,
        log_bus_width=bus,
        log_address_width=address,
        isa=isa,
    )


CONFIGS = {
    "default tile": config_of(batch=0, block_in=4, block_out=4, bus=6),
    "default tile, bus 128, extended": config_of(batch=0, block_in=4, block_out=4, bus=7, isa="extended"),
    "default tile, bus 512, extended": config_of(batch=0, block_in=4, block_out=4, bus=9, isa="extended"),
    "1-byte elements, bus 512": config_of(batch=0, block_in=1, block_out=1, inp=2, wgt=2, bus=9, depths=(6, 7, 6, 6)),
    "1-byte elements, bus 64": config_of(batch=0, block_in=1, block_out=1, inp=2, wgt=2, bus=6, isa="extended"),
    "batch 2, 4x8, bus 256": config_of(batch=1, block_in=2, block_out=3, bus=8, isa="extended"),
    "batch 4, 16x4, bus 64, address 64": config_of(batch=2, block_in=4, block_out=2, bus=6, address=6),
    "16-bit operands, 8x16, bus 128": config_of(batch=0, block_in=3, block_out=4, inp=4, wgt=4, bus=7, address=6),
    "4-bit weights, 8x2, bus 64": config_of(batch=1, block_in=3, block_out=1, wgt=2, bus=6, isa="extended"),
    "512-byte weights, extended": config_of(
        batch=0, block_in=5, block_out=4, bus=6, depths=(4, 4, 3, 4), isa="extended"
    ),
}


def random_loads(
    config: VTAConfig, scratchpads: Pair, rng: random.Random, count: int, *, beyond: float = 0.0
) -> list[Load]:
    """Return LOADs that often overlap each other; `beyond` is the chance of one that leaves its scratchpad to stay."""
    codes = [code for code in codes_of(MemoryType, config.isa) if code.scratchpad in scratchpads]
    loads: list[Load] = []
    while len(loads) < count:
        memory = rng.choice(codes)
        padded = rng.random() < 0.6
        x_size = rng.choice((1, 2, 3, rng.randint(1, 9), rng.randint(1, 40)))
        pads: dict[str, Any] = {
            name: rng.choice((0, 0, 1, rng.randint(0, 3))) * padded
            for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
        }
        insn = Load(
            memory_type=memory,
            sram_base=rng.randrange(config.depth(memory)),
            dram_base=rng.getrandbits(32),
            y_size=rng.choice((0, 1, 1, 2, 3, rng.randint(1, 6))),
            x_size=x_size,
            x_stride=rng.choice((0, 1, x_size, x_size + 1, rng.randint(0, 100), rng.getrandbits(16))),
            **pads,
        )
        window = (insn.y_pad_0 + insn.y_size + insn.y_pad_1) * (insn.x_pad_0 + insn.x_size + insn.x_pad_1)
        beats = insn.x_size * insn.y_size * config.dram_elem_bytes(insn.memory_type) * 8 // config.bus_bits
        depth = config.depth(insn.memory_type)
        fits = insn.sram_base + window <= depth
        # Where a window wraps onto itself, pads come sooner or later than data.
        once = window <= depth or not any(pads.values())
        if beats <= 80 and (fits or (once and rng.random() < beyond)):
            loads.append(insn)
    return loads


def random_bases(config: VTAConfig, scratchpads: Pair, rng: random.Random) -> dict[MemoryType, int]:
    """Return base addresses at which elements are aligned, anywhere in the address space."""
    steps = {memory: min(config.bus_bits // 8, config.dram_elem_bytes(memory)) for memory in scratchpads}
    return {memory: rng.getrandbits(config.address_bits) // step * step for memory, step in steps.items()}


def dram(addresses: NDArray[np.uint64]) -> Bytes:
    """Return the bytes at addresses of a memory in which every byte looks random."""
    mixed = (addresses ^ (addresses >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(37)) & np.uint64(0xFF)).astype(np.uint8)


@dataclass
class Model:
    """Scratchpads as rows of bytes, the faults by instruction, and the bytes read."""

    config: VTAConfig
    bases: Mapping[MemoryType, int]
    errors: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.contents = {
            memory: np.zeros((self.config.depth(memory), self.config.dram_elem_bytes(memory)), np.uint8)
            for memory in self.bases
        }
        self.faults: dict[int, Status] = {}
        self.bytes = dict.fromkeys(self.bases, 0)

    def cells(self, insn: Load) -> list[int]:
        """Return the indices of an instruction's window, row by row."""
        if not insn.x_size:
            return []
        window = (insn.y_pad_0 + insn.y_size + insn.y_pad_1) * (insn.x_pad_0 + insn.x_size + insn.x_pad_1)
        depth = self.config.depth(insn.memory_type)
        return [(insn.sram_base + number) % depth for number in range(window)]

    def element(self, insn: Load, number: int) -> tuple[Bytes, bool]:
        """Return what DRAM holds of element `dram_base + number`, and whether it was read without an error."""
        nbytes = self.config.dram_elem_bytes(insn.memory_type)
        base = self.bases[MemoryType(insn.memory_type).scratchpad] + (insn.dram_base + number) * nbytes
        mask = (1 << self.config.address_bits) - 1
        word = self.config.bus_bits // 8
        addresses = [(base + byte) & mask for byte in range(nbytes)]
        good = not any(address // word * word in self.errors for address in addresses)
        return dram(np.array(addresses, np.uint64)), good

    def addresses(self, insn: Load) -> list[int]:
        """Return the bus words that an instruction reads, those of its elements in order."""
        nbytes, word = self.config.dram_elem_bytes(insn.memory_type), self.config.bus_bits // 8
        base = self.bases[MemoryType(insn.memory_type).scratchpad]
        elements = [insn.dram_base + y * insn.x_stride + x for y in range(insn.y_size) for x in range(insn.x_size)]
        return [
            (base + element * nbytes + byte) % 2**self.config.address_bits // word * word
            for element in elements
            for byte in range(0, nbytes, min(nbytes, word))
        ]

    def execute(self, insn: Load, index: int) -> None:
        """Execute a LOAD."""
        if not insn.x_size:
            return
        memory = MemoryType(insn.memory_type)
        contents = self.contents[memory.scratchpad]
        fill = {MemoryType.ACC_PAD_MIN: -(2**31), MemoryType.ACC_8BIT_PAD_MIN: -128}.get(memory, 0)
        cell = insn.sram_base
        for row in range(-insn.y_pad_0, insn.y_size + insn.y_pad_1):
            for column in range(-insn.x_pad_0, insn.x_size + insn.x_pad_1):
                if 0 <= row < insn.y_size and 0 <= column < insn.x_size:
                    value, good = self.element(insn, row * insn.x_stride + column)
                    self.bytes[memory.scratchpad] += len(value)
                    if not good:
                        self.fault(index, Status.READ_ERROR)
                    if memory.is_narrow:
                        value = value.view(np.int8).astype("<i4").view(np.uint8)
                else:
                    value = np.zeros(contents.shape[1], np.uint8)
                    if fill:
                        value = np.full(len(value) // 4, fill, "<i4").view(np.uint8)
                if cell >= len(contents):
                    self.fault(index, OUTSIDE[memory.scratchpad])
                contents[cell % len(contents)] = value
                cell += 1

    def fault(self, index: int, status: Status) -> None:
        """Remember a fault."""
        self.faults[index] = self.faults.get(index, Status(0)) | status


def inputs_layout(config: VTAConfig) -> data.StructLayout:
    """What a bench decides in each cycle."""
    beat = {"burst_ready": 1, "beat_valid": 1, "beat": read_beat_layout(config)}
    control = {"halt": 1, "i_valid": 1, "i": QUEUED, "available": 1, "room": 1}
    bases = dict.fromkeys(("first_base", "second_base"), config.address_bits)
    return data.StructLayout({**beat, **control, **bases})


class Harness(Elaboratable):
    """The block under test with a scratchpad at each of its write ports, its inputs and outputs in one signal each.

    The simulator is much faster with one input that changes than with many.
    """

    def __init__(self, config: VTAConfig, dut: LoadEngine | LoadUnit, scratchpads: Pair) -> None:
        self.dut = dut
        self.inputs = Signal(inputs_layout(config))
        self.scratchpads = {memory: Scratchpad(Geometry.of(config, memory), readers=1) for memory in scratchpads}
        self.write = {memory: getattr(dut, f"{memory.name.lower()}_write") for memory in scratchpads}
        self.bench: Bench | None = None
        """Whoever used the simulation last."""
        outputs: dict[str, Any] = {
            "burst_valid": dut.port.burst.valid,
            "addr": dut.port.burst.payload.addr,
            "len": dut.port.burst.payload.len,
            "i_ready": dut.i.ready,
            "idle": dut.idle,
            "status": dut.fault.status,
            "index": dut.fault.index,
        }
        if isinstance(dut, LoadEngine):
            outputs |= {"done": dut.done, "writing": dut.writing}
        else:
            outputs |= {"done": dut.retired, "take": dut.pop.take, "give": dut.push.give, "waiting": dut.waiting}
            outputs |= {name: getattr(dut, name) for name in ("busy", "stall_token", "stall_memory")}
        for memory in scratchpads:
            outputs[f"{memory.name}_bytes"] = getattr(dut, f"{memory.name.lower()}_bytes")
            outputs[f"{memory.name}_en"] = self.write[memory].en
        self.outputs = Signal(data.StructLayout({name: Value.cast(value).shape() for name, value in outputs.items()}))
        self.places = [(name, place.offset, (1 << place.width) - 1) for name, place in self.outputs.shape()]
        self._sources = outputs

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        for memory, scratchpad in self.scratchpads.items():
            m.submodules[memory.name] = scratchpad
            connect(m, self.write[memory], scratchpad.write)
        for memory, base in zip(self.scratchpads, (self.inputs.first_base, self.inputs.second_base), strict=True):
            m.d.comb += getattr(dut, f"{memory.name.lower()}_base").eq(base)
        m.d.comb += [self.outputs[name].eq(value) for name, value in self._sources.items()]
        m.d.comb += [
            dut.port.burst.ready.eq(self.inputs.burst_ready),
            dut.port.beat.valid.eq(self.inputs.beat_valid),
            dut.port.beat.payload.eq(self.inputs.beat),
            dut.halt.eq(self.inputs.halt),
            dut.i.valid.eq(self.inputs.i_valid),
            dut.i.payload.eq(self.inputs.i),
        ]
        if isinstance(dut, LoadUnit):
            m.d.comb += [dut.pop.available.eq(self.inputs.available), dut.push.room.eq(self.inputs.room)]
        return m


@cache
def simulation(config: VTAConfig, scratchpads: Pair, block: str) -> tuple[Harness, Simulator]:
    """Return an engine or a unit in its harness, made once: elaboration takes longer than most runs."""
    dut = LoadUnit(config) if block == "unit" else LoadEngine(config, scratchpads)
    harness = Harness(config, dut, scratchpads)

    async def testbench(ctx: Any) -> None:
        assert harness.bench is not None
        await harness.bench.testbench(ctx)

    simulator = Simulator(harness)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    return harness, simulator


@dataclass
class Memory:
    """Answers bursts in order, each at least `latency` cycles after it was taken, with pauses between beats."""

    config: VTAConfig
    rng: random.Random
    latency: int
    gap: float
    stall: float
    errors: set[int]

    def __post_init__(self) -> None:
        self.bursts: list[tuple[int, int, int]] = []
        self.beats: deque[tuple[int, int, int]] = deque()
        self.arrived: list[int] = []

    def answer(self, cycle: int) -> dict[str, int]:
        """Return the inputs of a cycle."""
        bits = self.config.bus_bits
        inputs = {"burst_ready": int(self.rng.random() >= self.stall), "beat_valid": 0}
        if self.beats and self.beats[0][0] <= cycle and self.rng.random() >= self.gap:
            _, address, last = self.beats.popleft()
            content = dram(np.arange(bits // 8, dtype=np.uint64) + np.uint64(address)).tobytes()
            flags = int(address in self.errors) | last << 1
            self.arrived.append(cycle)
            return inputs | {"beat_valid": 1, "beat": int.from_bytes(content, "little") | flags << bits}
        # What an invalid beat says must not matter.
        return inputs | {"beat": self.rng.getrandbits(bits + 2)}

    def take(self, address: int, beats: int, cycle: int) -> None:
        """Take a burst."""
        word = self.config.bus_bits // 8
        window = MAX_BURST_BEATS * word
        assert address % word == 0
        assert address % window + beats * word <= window
        self.bursts.append((cycle, address, beats))
        ready = cycle + max(self.latency, 1)
        self.beats.extend((ready, address + beat * word, int(beat == beats - 1)) for beat in range(beats))


class Bench:
    """Runs instructions through a block; remembers what happened in which cycle.

    When an instruction is done, its elements are compared with the model, except those that a later one has as well;
    at the end everything is. idle, stall, gap, halt: how often there is no instruction, a burst is not taken, a beat
    does not come, no burst may begin.
    """

    def __init__(
        self,
        config: VTAConfig,
        scratchpads: Pair,
        insns: Sequence[Load],
        *,
        block: str = "engine",
        seed: int = 1,
        bases: Mapping[MemoryType, int] | None = None,
        errors: Iterable[int] = (),
        latency: int = 3,
        gap: float = 0.0,
        stall: float = 0.0,
        idle: float = 0.0,
        halt: float = 0.0,
    ) -> None:
        self.config, self.insns = config, list(insns)
        self.rng = random.Random(seed)
        bases = bases or dict.fromkeys(scratchpads, 0)
        self.memory = Memory(config, self.rng, latency, gap, stall, set(errors))
        self.model = Model(config, bases, set(errors))
        self.expected: list[Bytes] = []
        for index, insn in enumerate(self.insns):
            self.model.execute(insn, index)
            contents = self.model.contents[MemoryType(insn.memory_type).scratchpad]
            self.expected.append(contents[self.model.cells(insn)])
        self.harness, self._simulator = simulation(config, scratchpads, block)
        self._bases = dict(zip(("first_base", "second_base"), bases.values(), strict=True))
        self.shadow = {memory: np.zeros_like(array) for memory, array in self.model.contents.items()}
        self.accepted: list[int] = []
        self.done: list[int] = []
        self.faults: list[tuple[int, Status, int]] = []
        self.bytes = dict.fromkeys(scratchpads, 0)
        self.written: list[tuple[int, MemoryType, tuple[int, ...]]] = []
        self.shown: list[int] = []
        """Cycles in which a burst became valid."""
        self.halted: set[int] = set()
        self.cycle = 0
        self._idle, self._halt = idle, halt
        self.offered = self._waiting = False
        isa = ISA(config)
        self._words = [isa.encode(insn) | index << 128 for index, insn in enumerate(self.insns)]
        self._offsets = {name: place.offset for name, place in inputs_layout(config)}

    def run(self) -> None:
        """Simulate until all instructions are done, then read the scratchpads and compare everything."""
        if self.harness.bench is not None:
            self._simulator.reset()
        self.harness.bench = self
        self._simulator.run()

    async def testbench(self, ctx: Any) -> None:
        """Do the work of `run`."""
        while len(self.done) < len(self.insns):
            assert self.cycle < 20_000, f"{len(self.done)} of {len(self.insns)} instructions done"
            await self._step(ctx)
        for _ in range(3):
            assert (await self._step(ctx))["idle"]
        assert not self.memory.beats
        await self._compare(ctx)

    def drive(self) -> dict[str, int]:
        """Return further inputs of this cycle."""
        return {}

    def observe(self, outputs: dict[str, int]) -> None:
        """Look at further outputs of this cycle; `accepted` knows already."""

    async def _step(self, ctx: Any) -> dict[str, int]:
        inputs = self._bases | self.memory.answer(self.cycle) | self.drive()
        if self.rng.random() < self._halt:
            self.halted.add(self.cycle)
            inputs["halt"] = 1
        self.offered |= len(self.accepted) < len(self.insns) and self.rng.random() >= self._idle
        if self.offered:
            inputs |= {"i_valid": 1, "i": self._words[len(self.accepted)]}
        packed = sum(value << self._offsets[name] for name, value in inputs.items())
        ctx.set(Value.cast(self.harness.inputs), packed)
        word = ctx.get(Value.cast(self.harness.outputs))
        outputs = {name: word >> offset & mask for name, offset, mask in self.harness.places}
        if self.offered and outputs["i_ready"]:
            self.accepted.append(self.cycle)
            self.offered = False
        self.observe(outputs)
        self._look(ctx, outputs, ready=bool(inputs["burst_ready"]))
        await ctx.tick()
        self.cycle += 1
        return outputs

    def _look(self, ctx: Any, outputs: dict[str, int], *, ready: bool) -> None:
        if outputs["burst_valid"]:
            if not self._waiting:
                self.shown.append(self.cycle)
            if ready:
                self.memory.take(outputs["addr"], outputs["len"] + 1, self.cycle)
        self._waiting = bool(outputs["burst_valid"]) and not ready
        for memory in self.shadow:
            self.bytes[memory] += outputs[f"{memory.name}_bytes"]
            if outputs[f"{memory.name}_en"]:
                self._write(memory, outputs[f"{memory.name}_en"], ctx)
        if outputs["status"]:
            self.faults.append((self.cycle, Status(outputs["status"]), outputs["index"]))
        if outputs["done"]:
            self._check_done(len(self.done))
            self.done.append(self.cycle)

    def _write(self, memory: MemoryType, enables: int, ctx: Any) -> None:
        geometry = Geometry.of(self.config, memory)
        shadow = self.shadow[memory]
        parts = geometry.granules
        write = self.harness.write[memory]
        lines, content = ctx.get(Value.cast(write.line)), ctx.get(Value.cast(write.data))
        content = content.to_bytes(geometry.banks * shadow.shape[1], "little")
        written = np.frombuffer(content, np.uint8).reshape(geometry.banks, parts, -1)
        cells = []
        for bank in range(geometry.banks):
            enable = enables >> bank * parts & ((1 << parts) - 1)
            if enable:
                line = lines >> bank * geometry.line_bits & (geometry.lines - 1)
                cell = line * geometry.banks + bank
                cells.append(cell)
                chosen = [number for number in range(parts) if enable >> number & 1]
                shadow[cell].reshape(parts, -1)[chosen] = written[bank, chosen]
        self.written.append((self.cycle, memory, tuple(cells)))

    def _check_done(self, index: int) -> None:
        insn = self.insns[index]
        scratchpad = MemoryType(insn.memory_type).scratchpad
        later = {
            cell
            for other in self.insns[index + 1 : len(self.accepted)]
            if MemoryType(other.memory_type).scratchpad is scratchpad
            for cell in self.model.cells(other)
        }
        last = {cell: position for position, cell in enumerate(self.model.cells(insn))}
        for cell, position in last.items():
            if cell not in later:
                assert (self.shadow[scratchpad][cell] == self.expected[index][position]).all(), (index, insn, cell)

    async def _compare(self, ctx: Any) -> None:
        for memory, scratchpad in self.harness.scratchpads.items():
            expected = self.model.contents[memory]
            np.testing.assert_array_equal(self.shadow[memory], expected, memory.name)
            reader = scratchpad.read[0]
            ctx.set(reader.en, 1)
            for cell in self.rng.sample(range(len(expected)), min(len(expected), 16)):
                ctx.set(reader.index, cell)
                await ctx.tick()
                assert ctx.get(reader.data).to_bytes(expected.shape[1], "little") == expected[cell].tobytes()
        assert self.bytes == self.model.bytes
