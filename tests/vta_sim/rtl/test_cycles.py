"""Exact cycle counts of the whole machine, which the hardware manual quotes (docs/rtl.md).

Every figure is a difference of `cycle_count`, or a counter of the same launch, behind a memory with a latency of 32
cycles that moves one bus word per cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vta_sim.rtl.machines import simulator
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import (
    ISA,
    Alu,
    AluOp,
    Finish,
    Gemm,
    GemmOverwrite,
    Insn,
    InstructionSet,
    Load,
    MemoryType,
    Store,
    Uop,
)
from vta_hw.spec.program import Tokens
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.timing import MemoryTiming

SIM = preset("sim")
WIDE_BUS = replace(SIM, log_bus_width=7)
SMALL = replace(preset("tiny"), log_inp_buff_size=11, log_wgt_buff_size=12)
EXTENDED = replace(SMALL, isa=InstructionSet.EXTENDED.value)

LATENCY = 32
TIMING = MemoryTiming(latency=LATENCY)
DRAIN = 7
"""Cycles from the acceptance of an instruction to an empty pipeline, beyond its micro-ops."""
LOAD_COST = LATENCY + 5
STORE_COST = LATENCY + 8
"""Cycles of a load or store beyond its bus words."""

INSNS, DATA = 0x1000, 0x100000
COMPUTE_NOP, LOAD_NOP = Load(memory_type=MemoryType.UOP), Load(memory_type=MemoryType.INP)


def run(
    config: VTAConfig,
    insns: Sequence[Insn],
    *,
    timing: MemoryTiming = TIMING,
    memory: Memory | None = None,
    tokens: Tokens | None = None,
) -> MachineReport:
    """Launch instructions on a new machine, whose scratchpads are zero."""
    machine = simulator(config)
    machine.reset(memory=memory, timing=timing)
    machine.memory.write(INSNS, ISA(config).encode_program(insns))
    return machine.launch(INSNS, len(insns), tokens=tokens)


# Compute unit.

SLOTS = 6


def held(config: VTAConfig, body: Sequence[Insn], tokens: Tokens | None = None) -> int:
    """Cycles of a launch whose compute instructions are all in their queue before the first may begin.

    It waits for a token that the last instruction gives, so that fetch takes as long whatever `body` is.
    """
    first, *rest = (*body, Finish())
    fill = [LOAD_NOP] * (SLOTS - len(body))
    insns = [replace(first, pop_prev=True), *rest, *fill, replace(LOAD_NOP, push_next=True)]
    return run(config, insns, tokens=tokens).cycles


@cache
def held_finish(config: VTAConfig) -> int:
    return held(config, ())


def cost(config: VTAConfig, *body: Insn, tokens: Tokens | None = None) -> int:
    """Cycles by which instructions delay a FINISH behind them."""
    return held(config, body, tokens) - held_finish(config)


Shape = tuple[int, int, int]
"""Micro-ops, trips of the inner and of the outer loop."""


def nest(shape: Shape, **fields: Any) -> dict[str, Any]:
    uops, inner, outer = shape
    return {"uop_end": uops, "iter_in": inner, "iter_out": outer, **fields}


def gemm(shape: Shape) -> Insn:
    # All micro-ops are zero: each step adds to what the one before wrote.
    return Gemm(**nest(shape, src_factor_in=3, wgt_factor_out=2))


def gemm_reset(shape: Shape) -> Insn:
    return Gemm(reset=True, **nest(shape, dst_factor_in=1))


def alu_immediate(shape: Shape) -> Insn:
    return Alu(alu_opcode=AluOp.ADD, use_imm=True, imm=3, **nest(shape))


def alu_register(shape: Shape) -> Insn:
    return Alu(alu_opcode=AluOp.MAX, **nest(shape, src_factor_out=1))


def gemm_overwrite(shape: Shape) -> Insn:
    return GemmOverwrite(**nest(shape, wgt_factor_in=1))


def requant(shape: Shape, step: int = 3) -> Insn:
    return Alu(alu_opcode=AluOp.REQUANT, **nest(shape, dst_factor_in=step, src_factor_in=step))


KINDS: dict[str, tuple[VTAConfig, Callable[[Shape], Insn]]] = {
    "gemm": (SMALL, gemm),
    "gemm_reset": (SMALL, gemm_reset),
    "alu_immediate": (SMALL, alu_immediate),
    "alu_register": (SMALL, alu_register),
    "gemm_overwrite": (EXTENDED, gemm_overwrite),
    "requant": (EXTENDED, requant),
}


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (4, 2, 2), (4, 5, 5)], ids=str)
def test_a_gemm_of_n_micro_ops_takes_n_cycles(shape: Shape) -> None:
    assert cost(SMALL, gemm(shape)) == prod(shape)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "requant"])
def test_any_shape_takes_a_cycle_for_each_micro_op_and_none_between_instructions(kind: str) -> None:
    config, make = KINDS[kind]
    shapes = [(1, 1, 1), (2, 1, 1), (1, 8, 2), (4, 5, 5), (16, 1, 1), (1, 1, 64)]
    assert cost(config, make((1, 1, 1))) == 1
    # A cycle brings one micro-op at most, so that the sum is exact only if every addend is.
    assert cost(config, *map(make, shapes)) == sum(map(prod, shapes)) == 199


def test_requant_takes_a_cycle_for_each_micro_op_and_none_between_instructions() -> None:
    assert cost(EXTENDED, requant((1, 1, 1))) == 1
    assert cost(EXTENDED, requant((1, 10, 10)), requant((1, 8, 2)), requant((1, 10, 1))) == 100 + 16 + 10


def test_gemm_and_alu_follow_each_other_without_an_idle_cycle() -> None:
    makers = (gemm, alu_immediate, gemm_reset, alu_register, gemm, gemm)
    assert cost(SMALL, *(make((4, 2, 2)) for make in makers)) == 16 * len(makers)


def test_a_token_that_is_there_costs_nothing() -> None:
    insn = gemm((4, 2, 2))
    body = (insn, replace(insn, pop_next=True), replace(insn, pop_next=True), insn)
    assert cost(SMALL, *body, tokens=Tokens(s2g=2)) == 4 * 16


def test_an_instruction_without_work_takes_a_cycle() -> None:
    assert cost(SMALL, COMPUTE_NOP, gemm((1, 0, 1)), alu_immediate((1, 1, 0)), gemm((0, 1, 1)), COMPUTE_NOP) == 5


@pytest.mark.parametrize("kind", ["gemm", "alu_register", "requant"])
def test_the_pipeline_is_empty_seven_cycles_after_the_last_step(kind: str) -> None:
    config, make = KINDS[kind]
    # A LOAD of the compute unit begins when the pipeline is empty.
    load = Load(memory_type=MemoryType.UOP, y_size=1, x_size=2, x_stride=2)
    assert cost(config, make((1, 8, 2)), load) - cost(config, load) == 16 + DRAIN


def test_a_load_in_the_compute_unit_ends_before_the_next_instruction_begins() -> None:
    load = Load(memory_type=MemoryType.ACC, y_size=1, x_size=16, x_stride=16)
    words = 16 * SMALL.acc_elem_bytes * 8 // SMALL.bus_bits
    assert cost(SMALL, load) == words + LOAD_COST + 1
    assert cost(SMALL, gemm((4, 2, 2)), load, gemm((4, 2, 2))) == 16 + DRAIN + words + LOAD_COST + 1 + 16


@pytest.mark.parametrize("kind", ["gemm", "alu_immediate"])
def test_requant_waits_until_others_have_read_acc(kind: str) -> None:
    _, make = KINDS[kind]
    shape = (1, 8, 2)
    assert cost(EXTENDED, make(shape), requant(shape)) == 16 + 6 + 16
    assert cost(EXTENDED, requant(shape), make(shape)) == 16 + 16


def test_requant_waits_for_an_accumulator_that_is_requantised_up_to_four_steps_before() -> None:
    assert cost(EXTENDED, requant((1, 3, 1), step=0)) == 3 + 2 * 4
    # The second round waits for the first once; behind that wait the distance is longer.
    assert cost(EXTENDED, requant((1, 2, 2))) == 4 + 3
    assert cost(EXTENDED, requant((1, 4, 2))) == 8 + 1
    assert cost(EXTENDED, requant((1, 5, 2))) == 10


# Launch and fetch.


@pytest.mark.parametrize("latency", [0, LATENCY])
def test_cycles_of_a_launch_of_finish_alone(latency: int) -> None:
    assert run(SMALL, [Finish()], timing=MemoryTiming(latency=latency)).cycles == 18 + latency


@pytest.mark.parametrize(("config", "cycles"), [(SMALL, 50 + 2 * 20), (WIDE_BUS, 49 + 20)], ids=["64", "128"])
def test_fetch_hands_out_an_instruction_in_every_cycle_or_every_second(config: VTAConfig, cycles: int) -> None:
    assert run(config, [COMPUTE_NOP] * 20 + [Finish()]).cycles == cycles


# Loads and stores.


def load(memory_type: MemoryType, x_size: int, y_size: int = 1, *, x_stride: int = 0, **fields: Any) -> Insn:
    """A load from element 0 on; rows follow each other unless there is a stride."""
    return Load(memory_type=memory_type, y_size=y_size, x_size=x_size, x_stride=x_stride or x_size, **fields)


def load_busy(config: VTAConfig, *loads: Insn, timing: MemoryTiming = TIMING) -> int:
    """Cycles in which the load unit, or the loads of the compute unit, had something to do."""
    counters = run(config, [*loads, Finish()], timing=timing).counters
    return counters["load_busy"] or counters["compute_load_busy"]


@pytest.mark.parametrize(
    ("config", "memory_type"), [(SIM, MemoryType.INP), (WIDE_BUS, MemoryType.WGT)], ids=["64", "128"]
)
def test_a_load_of_16_kib_sustains_95_percent_of_the_bus(config: VTAConfig, memory_type: MemoryType) -> None:
    nbytes = 16 << 10
    words = nbytes * 8 // config.bus_bits
    cycles = load_busy(config, load(memory_type, nbytes // config.dram_elem_bytes(memory_type)))
    assert cycles == words + LOAD_COST
    assert words / cycles >= 0.95


@pytest.mark.parametrize(
    ("config", "memory_type"),
    [
        (SIM, MemoryType.WGT),
        (SIM, MemoryType.UOP),
        (SIM, MemoryType.ACC),
        (WIDE_BUS, MemoryType.UOP),
        (WIDE_BUS, MemoryType.ACC_8BIT),
    ],
    ids=["wgt-64", "uop-64", "acc-64", "uop-128", "acc_8bit-128"],
)
def test_cycles_of_a_load(config: VTAConfig, memory_type: MemoryType) -> None:
    words = 1024 * 8 // config.bus_bits
    assert load_busy(config, load(memory_type, 1024 // config.dram_elem_bytes(memory_type))) == words + LOAD_COST


@pytest.mark.parametrize(("count", "words_ahead"), [(60, 2 * 60), (150, 256)])
def test_the_first_load_comes_behind_the_instructions_that_fetch_asks_for_ahead(count: int, words_ahead: int) -> None:
    first = load(MemoryType.INP, 16)
    assert load_busy(SMALL, first, *[COMPUTE_NOP] * (count - 2)) == words_ahead + 3
    assert words_ahead + 3 > 8 + LOAD_COST


def test_loads_in_a_row_keep_the_bus_busy() -> None:
    loads = (load(MemoryType.INP, 64), load(MemoryType.WGT, 32), load(MemoryType.INP, 64))
    assert load_busy(SMALL, *loads) == 32 + 64 + 32 + LOAD_COST


@pytest.mark.parametrize(
    ("words_in_row", "outstanding", "cycles"),
    [(1, 32, 32 + LOAD_COST), (2, 16, 32 + LOAD_COST), (1, 16, 32 + LOAD_COST + 18)],
    ids=["1-of-32", "2-of-16", "1-of-16"],
)
def test_short_rows_keep_the_bus_busy_as_far_as_memory_takes_their_bursts(
    words_in_row: int, outstanding: int, cycles: int
) -> None:
    x_size, rows = 2 * words_in_row, 32 // words_in_row
    timing = MemoryTiming(latency=LATENCY, outstanding=outstanding)
    assert load_busy(SMALL, load(MemoryType.INP, x_size, rows, x_stride=2 * x_size), timing=timing) == cycles


def test_35_pads_hide_behind_the_latency() -> None:
    around = {"y_pad_0": 1, "y_pad_1": 1, "x_pad_0": 1, "x_pad_1": 1}
    assert load_busy(SMALL, load(MemoryType.INP, 4, 4, **around)) == 8 + LOAD_COST
    assert load_busy(SMALL, load(MemoryType.INP, 4, y_pad_0=12)) == 2 + LOAD_COST + (48 - 35)


@pytest.mark.parametrize("elements", [2, 64])
def test_cycles_of_a_store(elements: int) -> None:
    store = Store(memory_type=MemoryType.OUT, y_size=1, x_size=elements, x_stride=elements)
    assert run(SMALL, [store, Finish()]).counters["store_busy"] == elements // 2 + STORE_COST


def test_stores_in_a_row_keep_the_bus_busy() -> None:
    store = Store(memory_type=MemoryType.OUT, y_size=1, x_size=64, x_stride=64)
    assert run(SMALL, [store, store, Finish()]).counters["store_busy"] == 32 + 32 + STORE_COST


# Everything at once.


@dataclass(frozen=True, kw_only=True)
class Product:
    """Double-buffered matrix product: `rows` by `columns` tiles of output at a time, for each of some blocks.

    chunks: for each block, how its inner dimension is cut into loads; the first are short, so that the array need not
    wait long. INP, WGT and ACC have two halves each. Tiles lie in DRAM as they are read: INP [k][row], the same for all
    blocks, WGT [block][k][column], OUT [block][row][column].
    """

    rows: int
    columns: int
    chunks: Sequence[Sequence[int]]

    UOPS, INP, WGT, OUT = 0x10000, 0x20000, 0x40000, 0x80000

    @property
    def depth(self) -> int:
        return sum(self.chunks[0])

    @property
    def steps(self) -> int:
        return self.rows * self.columns * self.depth * len(self.chunks)

    @property
    def _half(self) -> int:
        return max(map(max, self.chunks))

    def uops(self) -> list[Uop]:
        """A tile of each column, for each half of ACC and each half of INP and WGT."""
        tiles = self.rows * self.columns
        return [
            Uop(
                dst=out * tiles + column,
                src=half * self.rows * self._half,
                wgt=half * self.columns * self._half + column,
            )
            for out in (0, 1)
            for half in (0, 1)
            for column in range(self.columns)
        ]

    def insns(self, config: VTAConfig) -> list[Insn]:
        count = len(self.uops())
        insns: list[Insn] = [
            Load(memory_type=MemoryType.UOP, dram_base=self.UOPS // 4, y_size=1, x_size=count, x_stride=count)
        ]
        number = 0
        for block, chunks in enumerate(self.chunks):
            for first, chunk in zip(accumulate(chunks, initial=0), chunks, strict=False):
                insns += self._chunk(config, number, block, first, chunk)
                number += 1
            insns.append(self._store(config, block))
        return [*insns, Finish()]

    def _chunk(self, config: VTAConfig, number: int, block: int, first: int, chunk: int) -> list[Insn]:
        """Load both operands into a half, then add their products to the block's accumulators."""
        half, out = number % 2, block % 2
        total = sum(map(len, self.chunks))

        def transfer(memory_type: MemoryType, base: int, begin: int, width: int, **flags: bool) -> Insn:
            return Load(
                memory_type=memory_type,
                sram_base=half * width * self._half,
                dram_base=base // config.dram_elem_bytes(memory_type) + begin * width,
                y_size=1,
                x_size=chunk * width,
                x_stride=chunk * width,
                **flags,
            )

        uop = (2 * out + half) * self.columns
        nest: dict[str, Any] = {
            "uop_bgn": uop,
            "uop_end": uop + self.columns,
            "iter_in": self.rows,
            "dst_factor_in": self.columns,
            "src_factor_in": 1,
        }
        products = Gemm(
            **nest,
            iter_out=chunk,
            src_factor_out=self.rows,
            wgt_factor_out=self.columns,
            pop_prev=True,
            push_prev=number + 2 < total,
            push_next=first + chunk == self.depth,
        )
        clear = [Gemm(reset=True, **nest, iter_out=1, pop_next=block >= 2)] if first == 0 else []
        return [
            transfer(MemoryType.INP, self.INP, first, self.rows, pop_next=number >= 2),
            transfer(MemoryType.WGT, self.WGT, block * self.depth + first, self.columns, push_next=True),
            *clear,
            products,
        ]

    def _store(self, config: VTAConfig, block: int) -> Insn:
        tiles = self.rows * self.columns
        return Store(
            memory_type=MemoryType.OUT,
            sram_base=block % 2 * tiles,
            dram_base=self.OUT // config.out_elem_bytes + block * tiles,
            y_size=1,
            x_size=tiles,
            x_stride=tiles,
            pop_prev=True,
            push_prev=block + 2 < len(self.chunks),
        )

    def operands(self, config: VTAConfig) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """INP [k][row][block_in] and WGT [block][k][column][block_out][block_in]."""
        rng = np.random.default_rng(1)
        inp = rng.integers(-128, 128, (self.depth, self.rows, config.block_in))
        shape = (len(self.chunks), self.depth, self.columns, config.block_out, config.block_in)
        return inp.astype(np.int8), rng.integers(-128, 128, shape).astype(np.int8)

    def memory(self, config: VTAConfig) -> Memory:
        memory, isa = Memory(), ISA(config)
        inp, wgt = self.operands(config)
        memory.write(self.UOPS, isa.encode_uops(self.uops()))
        memory.write(self.INP, inp)
        memory.write(self.WGT, wgt)
        memory.write(INSNS, isa.encode_program(self.insns(config)))
        return memory

    def output(self, config: VTAConfig, memory: Memory) -> NDArray[np.int8]:
        """[block][row][column][block_out]."""
        shape = (len(self.chunks), self.rows, self.columns, config.block_out)
        return memory.read(self.OUT, int(np.prod(shape))).view(np.int8).reshape(shape)


def test_load_compute_and_store_overlap() -> None:
    config = SMALL
    product = Product(rows=8, columns=4, chunks=[[2, 6, 12, 24, 12], [28, 28], [28, 28]])
    memory, insns = product.memory(config), product.insns(config)
    report = run(config, insns, memory=memory)

    inp, wgt = (operand.astype(np.int64) for operand in product.operands(config))
    expected = np.einsum("kri,bkcoi->brco", inp, wgt)
    assert np.array_equal(product.output(config, memory), expected.astype(np.int8))
    functional = FunctionalSimulator(config, memory=product.memory(config))
    functional.launch(INSNS, len(insns))
    assert np.array_equal(product.output(config, functional.memory), expected.astype(np.int8))
    acc = simulator(config).scratchpad(MemoryType.ACC)
    assert np.array_equal(acc, functional.scratchpad(MemoryType.ACC))

    counters = report.counters
    assert counters["gemm_uops"] == product.steps == 5376
    assert counters["gemm_busy"] == product.steps + 3 * 32  # Resets.
    # Once it has begun the array never waits: the rest is the first operands on their way in, and the last results out.
    assert report.cycles - counters["gemm_busy"] == 180
    assert counters["compute_wait_load"] == counters["compute_wait_store"] == 0
    assert product.steps / report.cycles >= 0.95
