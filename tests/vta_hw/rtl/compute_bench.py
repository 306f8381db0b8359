"""A compute unit with its scratchpads and DRAM around it, and when its instructions begin and retire."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator
from numpy.typing import NDArray

from tests.vta_hw.rtl.machine import cell, pack, unpack
from vta_hw.rtl.accumulators import SharedAccumulators
from vta_hw.rtl.compute import ComputeUnit
from vta_hw.rtl.overlap import OverlappedComputeUnit
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Finish, Insn, MemoryType
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.memory import Memory

UOP, INP, WGT, ACC, OUT = MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT
PADS = (UOP, INP, WGT, ACC, OUT)
DATA_AT = {UOP: 0x1_0000, INP: 0x2_0000, WGT: 0x3_0000, ACC: 0x4_0000}
INSN_AT = 0x10_0000

Contents = Mapping[MemoryType, NDArray[Any]]


class Bench(Component):
    """The unit of a configuration, in order or not, and all scratchpads."""

    def __init__(self, config: VTAConfig) -> None:
        self.config = config
        self.unit = OverlappedComputeUnit(config) if config.overlap else ComputeUnit(config)
        self.pads: dict[MemoryType, Any] = {
            memory: Scratchpad(Geometry.of(config, memory), readers=2, wide=memory is UOP, transparent=memory is ACC)
            for memory in PADS
            if memory is not ACC or not config.overlap
        }
        if config.overlap:
            self.pads[ACC] = SharedAccumulators(Geometry.of(config, ACC))
        super().__init__({})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        unit, pads = self.unit, self.pads
        m.submodules.unit = unit
        for memory, pad in pads.items():
            m.submodules[memory.name.lower()] = pad
        for memory, port in ((INP, unit.inp_read), (WGT, unit.wgt_read)):
            connect(m, port, pads[memory].read[0])
        for memory, port in ((UOP, unit.uop_write), (OUT, unit.out_write)):
            connect(m, port, pads[memory].write)
        if isinstance(unit, OverlappedComputeUnit):
            connect(m, unit.uop_scan, pads[UOP].wide)
            for number in range(2):
                connect(m, unit.uop_read[number], pads[UOP].read[number])
            for name in ("gemm", "alu", "operand"):
                connect(m, getattr(unit, f"{name}_acc_read"), getattr(pads[ACC], name))
            for name in ("gemm", "alu", "load"):
                connect(m, getattr(unit, f"{name}_acc_write"), getattr(pads[ACC], f"{name}_write"))
        else:
            connect(m, unit.uop_read, pads[UOP].read[0])
            connect(m, unit.acc_write, pads[ACC].write)
            for number in range(2):
                connect(m, unit.acc_read[number], pads[ACC].read[number])
        return m


def scalar_bits(config: VTAConfig, memory: MemoryType) -> int:
    return {UOP: 32, INP: config.inp_bits, WGT: config.wgt_bits, ACC: 32, OUT: config.out_bits}[memory]


@dataclass
class Timeline:
    """By instruction: the cycle in which it left the queue, and that in which it retired.

    faults: (instruction, status). counts: the sum of each event.
    """

    begun: list[int] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    faults: list[tuple[int, int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """From the cycle in which the first instruction is there to the one behind the last retirement."""
        return self.retired[-1] + 1


class Machine:
    """A compute unit that runs programs, each from given scratchpad contents."""

    _COUNTED = ("gemm_busy", "alu_busy", "compute_load_busy", "acc_writes", "gemm_uops", "alu_uops", "insn_compute")

    def __init__(self, config: VTAConfig) -> None:
        self.config = config
        self.bench = Bench(config)
        self._simulator = Simulator(self.bench)
        self._simulator.add_clock(1e-8)
        self._simulator.add_testbench(self._serve)
        self._first = True

    def run(
        self,
        insns: Sequence[Insn],
        contents: Contents,
        memory: Memory,
        *,
        latency: int = 8,
        stalls: float = 0.0,
        tokens: Mapping[str, Sequence[int]] | None = None,
        limit: int = 20_000,
    ) -> tuple[Timeline, Contents]:
        """Execute a program; tokens of l2g and s2g arrive in the given cycles, by default at once.

        A beat comes `latency` cycles after its burst at the earliest; it, or the next instruction, is late in a cycle
        with the chance `stalls`. Checks that tokens are taken when instructions begin, and given when they retire, in
        their order.
        """
        if not self._first:
            self._simulator.reset()
        self._first = False
        self._insns, self._contents, self._memory = insns, contents, memory
        encoded = ISA(self.config).encode_program(insns)
        self._words = [int(low) | int(high) << 64 for low, high in encoded]
        self._latency, self._rng, self._stalls, self._limit = latency, random.Random(len(insns)), stalls, limit
        self._tokens = {name: list((tokens or {}).get(name, [0] * len(insns))) for name in ("l2g", "s2g")}
        self.timeline = Timeline(counts=dict.fromkeys(self._COUNTED, 0))
        self._simulator.run()
        return self.timeline, self._after

    async def _serve(self, ctx: Any) -> None:
        self._fill(ctx)
        unit, port = self.bench.unit, self.bench.unit.port
        ctx.set(port.burst.ready, 1)
        beats: deque[tuple[int, int, int]] = deque()
        events = [getattr(unit.events, name) for name in self._COUNTED]
        line, waits = self.timeline, False
        for cycle in range(self._limit):
            if len(line.retired) == len(self._insns):
                break
            # A stream's payload that is valid stays until it is taken.
            offered = waits or (len(line.begun) < len(self._insns) and self._rng.random() >= self._stalls)
            ctx.set(unit.i.valid, offered)
            if offered and not waits:
                index = len(line.begun)
                ctx.set(unit.i.payload, {"word": self._words[index], "index": index})
            arrives = bool(beats) and beats[0][0] <= cycle and self._rng.random() >= self._stalls
            ctx.set(port.beat.valid, arrives)
            if arrives:
                ctx.set(port.beat.payload.data, beats.popleft()[1])
            for name, pop in (("l2g", unit.pop_load), ("s2g", unit.pop_store)):
                ctx.set(pop.available, any(at <= cycle for at in self._tokens[name]))
            for push in (unit.push_load, unit.push_store):
                ctx.set(push.room, 1)
            _, _, ready, burst, valid, to_load, to_store, l2g, s2g, fault, *counts = await ctx.tick().sample(
                unit.i.ready,
                port.burst.payload,
                port.burst.valid,
                unit.push_load.give,
                unit.push_store.give,
                unit.pop_load.take,
                unit.pop_store.take,
                unit.fault,
                *events,
            )
            begins = self._insns[len(line.begun)] if offered and ready else None
            assert (l2g, s2g) == ((begins.pop_prev, begins.pop_next) if begins else (0, 0))
            if begins:
                line.begun.append(cycle)
            waits = bool(offered and not ready)
            if valid:
                beats.extend(self._beats(cycle, int(burst.addr), int(burst.len)))
            for taken, name in ((l2g, "l2g"), (s2g, "s2g")):
                if taken:
                    self._tokens[name].remove(min(self._tokens[name]))
            if fault.status:
                line.faults.append((int(fault.index), int(fault.status)))
            for name, count in zip(self._COUNTED, counts, strict=True):
                line.counts[name] += int(count)
            retires = self._insns[len(line.retired)] if counts[-1] else None
            assert (to_load, to_store) == ((retires.push_prev, retires.push_next) if retires else (0, 0))
            if retires:
                line.retired.append(cycle)
        assert len(line.retired) == len(self._insns), f"{len(line.retired)} of {len(self._insns)} retired"
        self._after = {memory: self._read(ctx, memory) for memory in PADS}

    def _beats(self, cycle: int, address: int, last: int) -> list[tuple[int, int, int]]:
        nbytes = self.config.bus_bits // 8
        data = self._memory.read(address, (last + 1) * nbytes).reshape(-1, nbytes)
        return [(cycle + self._latency, int.from_bytes(row.tobytes(), "little"), 0) for row in data]

    def _fill(self, ctx: Any) -> None:
        for memory, array in self._contents.items():
            pad, bits = self.bench.pads[memory], scalar_bits(self.config, memory)
            for index, row in enumerate(array):
                bank, line = cell(pad, index)
                ctx.set(pad.banks[bank][line], pack(np.asarray(row, np.int64), bits))

    def _read(self, ctx: Any, memory: MemoryType) -> NDArray[Any]:
        pad, before = self.bench.pads[memory], self._contents[memory]
        rows = []
        for index in range(len(before)):
            bank, line = cell(pad, index)
            rows.append(unpack(ctx.get(pad.banks[bank][line]), scalar_bits(self.config, memory), before[0].size))
        values = np.stack(rows).reshape(before.shape)
        return values & 0xFFFFFFFF if memory is UOP else values


@cache
def machine(config: VTAConfig) -> Machine:
    """The machine of a configuration: building one takes seconds."""
    return Machine(config)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A configuration, DRAM full of random bytes, and what the scratchpads hold before a program."""

    config: VTAConfig
    memory: Memory
    before: Contents

    @staticmethod
    def random(config: VTAConfig, uops: NDArray[np.int64], seed: int = 0) -> Setting:
        """Every scratchpad is loaded whole from `DATA_AT`; the first micro-ops are `uops`, rows of {dst, src, wgt}."""
        memory = Memory()
        rng = np.random.default_rng(seed)
        for address in DATA_AT.values():
            memory.write(address, rng.integers(0, 256, 0x1_0000, dtype=np.uint8))
        memory.write(DATA_AT[UOP], np.asarray(ISA(config).encode_uops(tuple(uops.T)), "<u4").view(np.uint8))
        return Setting(config=config, memory=memory, before=executed(config, memory, []))

    def run(self, source: str | Sequence[Insn], *, overlap: bool = True, **options: Any) -> Timeline:
        """Execute a program; the functional simulator has to agree about every scratchpad."""
        insns = assemble(source, self.config)[0] if isinstance(source, str) else source
        config = replace(self.config, overlap=overlap)
        timeline, after = machine(config).run(insns, self.before, self.memory, **options)
        for pad, expected in executed(self.config, self.memory, insns).items():
            assert np.array_equal(after[pad], expected), f"{pad.name} differs"
        return timeline


def executed(config: VTAConfig, memory: Memory, insns: Sequence[Insn]) -> Contents:
    """What a program leaves in the scratchpads, all of which are loaded from `DATA_AT` before it."""
    simulator = FunctionalSimulator(config, memory=memory)
    loads = (
        f"load.{pad.name.lower()} dram_base={at // config.dram_elem_bytes(pad)} y_size=1 x_size={config.depth(pad)}"
        for pad, at in DATA_AT.items()
    )
    program = [*assemble("\n".join(loads), config)[0], *insns, Finish()]
    memory.write(INSN_AT, ISA(config).encode_program(program))
    tokens = Tokens(l2g=len(program), s2g=len(program))
    simulator.launch(INSN_AT, len(program), tokens=tokens, allow_leftover_tokens=True)
    return {pad: np.asarray(simulator.scratchpad(pad)) for pad in PADS}
