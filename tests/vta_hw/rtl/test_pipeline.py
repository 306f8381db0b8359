"""Nest and pipeline together: every operation against the spec, at every distance, and the cycles it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, connect
from amaranth.sim import Simulator

from tests.vta_hw.rtl.machine import SHAPES, TINY, Contents, alu, cell, pack, requantise, trips, unpack
from vta_hw.rtl.nest import Nest, command_layout
from vta_hw.rtl.pipeline import ComputePipeline
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import AluOp, MemoryType
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status

Command = dict[str, Any]
OVERHEAD = 7
"""Cycles of an instruction beyond its micro-ops, from its acceptance to the one behind its last write."""


class Bench(wiring.Component):
    """Nest, pipeline and all scratchpads; REQUANT is held back as the compute unit does."""

    def __init__(self, config: VTAConfig) -> None:
        self.config = config
        self.nest, self.pipeline = Nest(config), ComputePipeline(config)
        self.pads = {
            memory: Scratchpad(
                Geometry.of(config, memory),
                readers=2 if memory is MemoryType.ACC else 1,
                transparent=memory is MemoryType.ACC,
            )
            for memory in (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT)
        }
        super().__init__({"i": In(stream.Signature(command_layout(config)))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.nest, m.submodules.pipeline = self.nest, self.pipeline
        for memory, pad in self.pads.items():
            m.submodules[memory.name.lower()] = pad
        connect(m, self.nest.o, self.pipeline.i)
        nest, pipeline = self.nest, self.pipeline
        plain = pipeline.plain | (nest.o.valid & ~nest.o.p.operation.requant)
        hold = self.i.p.operation.requant & plain
        m.d.comb += [
            nest.i.p.eq(self.i.p),
            nest.i.valid.eq(self.i.valid & ~hold),
            self.i.ready.eq(nest.i.ready & ~hold),
        ]
        reads = {MemoryType.UOP: pipeline.uop, MemoryType.INP: pipeline.inp, MemoryType.WGT: pipeline.wgt}
        for memory, port in reads.items():
            connect(m, port, self.pads[memory].read[0])
        for number in range(2):
            connect(m, pipeline.acc[number], self.pads[MemoryType.ACC].read[number])
        connect(m, pipeline.acc_write, self.pads[MemoryType.ACC].write)
        connect(m, pipeline.out_write, self.pads[MemoryType.OUT].write)
        return m


class Run:
    """Commands on a bench: what they left in the scratchpads, and when each began and retired."""

    def __init__(self, config: VTAConfig, contents: Contents, commands: Sequence[Command]) -> None:
        self.config, self.contents = config, contents
        self.begun: list[int] = []
        self.retired: list[int] = []
        self.faults: list[tuple[int, int]] = []
        self.bench = Bench(config)
        simulator = Simulator(self.bench)
        simulator.add_clock(1e-8)

        async def drive(ctx: Any) -> None:
            await self._drive(ctx, commands)

        simulator.add_testbench(drive)
        simulator.run()

    def _words(self) -> Iterator[tuple[MemoryType, int, int]]:
        uops = ISA(self.config).encode_uops(tuple(self.contents.uops.T))
        yield from ((MemoryType.UOP, index, int(word)) for index, word in enumerate(uops))
        yield from ((MemoryType.INP, i, pack(row, self.config.inp_bits)) for i, row in enumerate(self.contents.inp))
        yield from ((MemoryType.WGT, i, pack(row, self.config.wgt_bits)) for i, row in enumerate(self.contents.wgt))
        yield from ((MemoryType.ACC, i, pack(row, 32)) for i, row in enumerate(self.contents.acc))

    async def _drive(self, ctx: Any, commands: Sequence[Command]) -> None:
        bench, pads = self.bench, self.bench.pads
        for memory, index, word in self._words():
            bank, line = cell(pads[memory], index)
            ctx.set(pads[memory].banks[bank][line], word)
        waiting, cycle = list(commands), 0
        pipeline = bench.pipeline
        while len(self.retired) < len(commands):
            ctx.set(bench.i.valid, bool(waiting))
            if waiting:
                ctx.set(bench.i.payload, waiting[0])
            _, _, ready, retired, fault = await ctx.tick().sample(bench.i.ready, pipeline.retired, pipeline.fault)
            if waiting and ready:
                waiting.pop(0)
                self.begun.append(cycle)
            if retired:
                self.retired.append(cycle)
            if fault.status:
                self.faults.append((fault.index, fault.status))
            cycle += 1
            assert cycle < 5000
        assert not ctx.get(pipeline.fault.status)
        scalars, bits = self.config.batch * self.config.block_out, self.config.out_bits
        self.acc = self._read(ctx, pads[MemoryType.ACC], 32, scalars)
        self.out = self._read(ctx, pads[MemoryType.OUT], bits, scalars) & ((1 << bits) - 1)

    def _read(self, ctx: Any, pad: Scratchpad, bits: int, scalars: int) -> np.ndarray[Any, Any]:
        cells = [cell(pad, index) for index in range(pad.geometry.depth)]
        return np.stack([unpack(ctx.get(pad.banks[bank][line]), bits, scalars) for bank, line in cells])


def command(index: int, operation: Command, **fields: Any) -> Command:
    loops = {"uop_bgn": 0, "uop_end": 1, "iter_out": 1, "iter_in": 1}
    return {"index": index, "operation": operation, "retirement": {}, **loops, **fields}


def random_command(config: VTAConfig, rng: np.random.Generator, contents: Contents, index: int) -> Command:
    """An instruction whose indices are all in range; extended ones on extended machines."""
    kinds = ["gemm", "gemm", "reset", "imm", "reg", "reg"] + ["overwrite", "requant"] * (config.isa == "extended")
    kind = rng.choice(kinds)
    while True:
        begin = int(rng.integers(0, config.uop_depth - 4))
        uops = contents.uops[begin : begin + int(rng.integers(1, 5))]
        loops = {"iter_out": int(rng.integers(1, 4)), "iter_in": int(rng.integers(1, 5))}
        limits = {"dst": config.acc_depth, "src": min(config.acc_depth, config.inp_depth), "wgt": config.wgt_depth}
        factors = {f"{name}_factor_{loop}": int(rng.integers(0, 3)) for name in limits for loop in ("out", "in")}
        tops = {
            name: uops[:, column].max()
            + factors[f"{name}_factor_out"] * (loops["iter_out"] - 1)
            + factors[f"{name}_factor_in"] * (loops["iter_in"] - 1)
            for column, name in enumerate(limits)
        }
        if all(tops[name] < limit for name, limit in limits.items()):
            break
    operation = {
        "gemm": int(kind in ("gemm", "reset", "overwrite")),
        "reset": int(kind == "reset"),
        "overwrite": int(kind == "overwrite"),
        "alu": int(kind in ("imm", "reg", "requant")),
        "requant": int(kind == "requant"),
        "alu_opcode": 5 if kind == "requant" else int(rng.integers(0, 5)),
        "use_imm": int(kind == "imm"),
        "imm": int(rng.integers(0, 1 << 16)),
    }
    return command(index, operation, uop_bgn=begin, uop_end=begin + len(uops), **loops, **factors)


def execute(config: VTAConfig, contents: Contents, insn: Command) -> int:
    """What a command does to `contents`; returns its micro-ops."""
    steps = trips(insn["iter_out"], insn["iter_in"], range(insn["uop_bgn"], insn["uop_end"]))
    operation = insn["operation"]
    for o, i, u in steps:
        d, s, w = (
            int(contents.uops[u, column]) + o * insn.get(f"{name}_factor_out", 0) + i * insn.get(f"{name}_factor_in", 0)
            for column, name in enumerate(("dst", "src", "wgt"))
        )
        if operation.get("gemm"):
            contents.gemm(config, d, s, w, reset=operation["reset"], overwrite=operation["overwrite"])
        elif operation.get("requant"):
            pair = contents.acc[s & ~1], contents.acc[s | 1]
            contents.put(config, d, requantise(contents.acc[d], *pair, operation["imm"], config.out_bits))
        else:
            imm = (operation["imm"] ^ 0x8000) - 0x8000
            y = np.full_like(contents.acc[d], imm) if operation["use_imm"] else contents.acc[s]
            contents.put(config, d, alu(operation["alu_opcode"], contents.acc[d], y))
    return len(steps)


def copy_of(contents: Contents) -> Contents:
    return Contents(**{name: array.copy() for name, array in vars(contents).items()})


@pytest.mark.parametrize("isa", ["tvm", "extended"])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_instructions_leave_what_the_spec_says(shape: str, isa: str) -> None:
    config = replace(SHAPES[shape], isa=isa)
    rng = np.random.default_rng(len(shape) + len(isa))
    contents = Contents.random(config, rng)
    commands = [random_command(config, rng, contents, index) for index in range(40)]
    expected = copy_of(contents)
    for insn in commands:
        execute(config, expected, insn)
    run = Run(config, contents, commands)
    assert np.array_equal(run.acc, expected.acc)
    assert np.array_equal(run.out, expected.out)
    assert run.faults == []


@pytest.mark.parametrize("multiplier", ["lut", "packed"])
@pytest.mark.parametrize("max_dsp", [0, 3])
def test_multipliers_agree_whatever_they_are_built_of(multiplier: str, max_dsp: int) -> None:
    config = replace(TINY, multiplier=multiplier, max_dsp=0 if multiplier == "lut" else max_dsp)
    contents = Contents.random(config, np.random.default_rng(1))
    contents.inp[:2] = -128
    contents.wgt[:2] = np.where(contents.wgt[:2] < 0, -128, 127)
    insn = command(0, gemm(), uop_end=config.uop_depth)
    contents.uops[:8, 1] = np.arange(8) % 2
    contents.uops[:8, 2] = np.arange(8) // 4
    expected = copy_of(contents)
    execute(config, expected, insn)
    assert np.array_equal(Run(config, contents, [insn]).acc, expected.acc)


def gemm(**flags: int) -> Command:
    return {"gemm": 1, "reset": 0, "overwrite": 0, **flags}


def alu_op(opcode: int, **flags: int) -> Command:
    return {"alu": 1, "alu_opcode": opcode, "use_imm": 0, "imm": 0, **flags}


KINDS = {
    "gemm": gemm(),
    "reset": gemm(reset=1),
    "imm": alu_op(AluOp.ADD, use_imm=1, imm=3),
    "reg": alu_op(AluOp.MUL),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 17])
def test_n_micro_ops_take_n_plus_7_cycles(kind: str, count: int) -> None:
    contents = Contents.random(TINY, np.random.default_rng(0))
    insn = command(0, KINDS[kind], uop_end=count)
    run = Run(TINY, contents, [insn])
    assert run.retired[0] + 1 - run.begun[0] == count + OVERHEAD


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_instructions_follow_each_other_without_a_bubble(first: str, second: str) -> None:
    contents = Contents.random(TINY, np.random.default_rng(0))
    loops = {"uop_end": 3, "iter_out": 2, "iter_in": 2}
    run = Run(TINY, contents, [command(i, KINDS[kind], **loops) for i, kind in enumerate((first, second, first))])
    assert np.diff(run.retired).tolist() == [12, 12]


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("kind", [*KINDS, "requant"])
def test_results_are_used_at_every_distance(kind: str, distance: int) -> None:
    config = replace(TINY, isa="extended")
    contents = Contents.random(config, np.random.default_rng(distance))
    contents.uops[:distance, 0] = np.arange(distance) + 10
    contents.uops[:distance, 1] = np.arange(distance) * 2 + 20 - 2 * (kind == "reg")
    operation = KINDS.get(kind, alu_op(AluOp.REQUANT, requant=1, imm=5))
    insn = command(0, operation, uop_end=distance, iter_in=4)
    expected = copy_of(contents)
    execute(config, expected, insn)
    run = Run(config, contents, [insn])
    assert np.array_equal(run.acc, expected.acc)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("parameter", ["bias", "multiplier"])
def test_requantisation_waits_for_its_parameters(parameter: str, distance: int) -> None:
    """One step makes the bias, or multiplier and shift, of a later one."""
    config = replace(TINY, isa="extended")
    contents = Contents.random(config, np.random.default_rng(distance))
    contents.uops[: distance + 1, 0] = np.arange(distance + 1) + 10
    contents.uops[: distance + 1, 1] = 20
    contents.uops[0, 0] = 31 if parameter == "multiplier" else 30
    contents.uops[distance, 1] = 30
    # The first step leaves 3 where there was 0 or 1, and the last makes 16 or 33 of its 10 and not 13.
    contents.acc[10:20], contents.acc[20], contents.acc[21] = 10, 0, 1 | 4 << 24
    contents.acc[30], contents.acc[31] = 0, 1
    insn = command(0, alu_op(AluOp.REQUANT, requant=1, imm=3), uop_end=distance + 1)
    expected = copy_of(contents)
    execute(config, expected, insn)
    assert np.array_equal(Run(config, contents, [insn]).acc, expected.acc)


def test_requantisation_takes_a_cycle_for_each_tile() -> None:
    config = replace(TINY, isa="extended")
    contents = Contents.random(config, np.random.default_rng(0))
    contents.uops[0] = (0, 32, 0)
    insn = command(0, alu_op(AluOp.REQUANT, requant=1), iter_in=32, dst_factor_in=1)
    run = Run(config, contents, [insn])
    assert run.retired[0] + 1 - run.begun[0] == 32 + OVERHEAD


@pytest.mark.parametrize(
    "loops",
    [{"iter_out": 0}, {"iter_in": 0}, {"uop_end": 0}, {"uop_bgn": 5, "uop_end": 5}, {"uop_bgn": 9, "uop_end": 2}],
)
def test_zero_trips_do_nothing_and_retire(loops: Command) -> None:
    contents = Contents.random(TINY, np.random.default_rng(0))
    run = Run(TINY, contents, [command(0, gemm(), **loops)])
    assert np.array_equal(run.acc, contents.acc)
    assert not run.out.any()
    assert run.retired[0] + 1 - run.begun[0] == 1 + OVERHEAD


@pytest.mark.parametrize(
    ("operation", "fields", "status"),
    [
        (gemm(), {"iter_in": 2, "dst_factor_in": 63}, Status.ACC_INDEX),
        (gemm(), {"iter_in": 2, "src_factor_in": 63}, Status.INP_INDEX),
        (gemm(), {"iter_out": 2, "wgt_factor_out": 31}, Status.WGT_INDEX),
        (gemm(reset=1), {"iter_in": 2, "src_factor_in": 63}, 0),
        (gemm(), {"uop_bgn": 63, "uop_end": 65}, Status.UOP_INDEX),
        (alu_op(AluOp.ADD), {"iter_in": 2, "src_factor_in": 63}, Status.ACC_INDEX),
        (alu_op(AluOp.ADD, use_imm=1), {"iter_in": 2, "src_factor_in": 63}, 0),
    ],
)
def test_an_index_out_of_range_is_reported_and_wraps(operation: Command, fields: Command, status: int) -> None:
    contents = Contents.random(TINY, np.random.default_rng(0))
    contents.uops[:] = 1
    run = Run(TINY, contents, [command(77, operation, **fields)])
    assert run.faults == ([(77, status)] if status else [])


@pytest.mark.parametrize(
    ("shorter", "operation", "status"),
    [
        ("inp", gemm(), Status.INP_INDEX),
        ("inp", alu_op(AluOp.ADD), 0),
        ("acc", gemm(), 0),
        ("acc", alu_op(AluOp.ADD), Status.ACC_INDEX),
    ],
)
def test_src_has_the_range_of_what_it_reads(shorter: str, operation: Command, status: int) -> None:
    """Where INP and ACC have different depths, an index may be beyond one and not the other."""
    size = f"log_{shorter}_buff_size"
    config = replace(TINY, **{size: getattr(TINY, size) - 1})
    contents = Contents.random(config, np.random.default_rng(0))
    contents.uops[:] = (1, min(config.acc_depth, config.inp_depth), 1)
    run = Run(config, contents, [command(77, operation)])
    assert run.faults == ([(77, status)] if status else [])
