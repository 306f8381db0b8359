"""Programs written by hand, for corners that random programs do not reach or reach by chance."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.vta_sim.rtl.catalogue import MEMORY_NAMES
from tests.vta_sim.rtl.machines import INSN_AT, MACHINES, Case
from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import ACC, ADD, ALU, FINISH, GEMM, INP, LOAD, MUL, OUT, SHR, STORE, UOP, WGT
from tests.vta_sim.spec_model.machine import OF_ACC
from vta_hw.spec.config import VTAConfig
from vta_sim.timing import MemoryTiming

UOPS_AT, DATA_AT, OUT_AT = 0x10_0000, 0x20_0000, 0x40_0000
"""Where micro-ops, other inputs and outputs lie: base registers of the programs."""
DATA_BYTES = 0x4000

NARROW, WIDE = "overlap, extended, bus 128, packed", "bus 256, extended"
AMOUNTS = (0, 1, 8, 15, 16, 17, 31, 32, 33, 2**31 - 1, -1, -7, -16, -17, -31, -32, -33, -100, -(2**31))
"""Shift amounts of every kind that VTA spec 3.5 tells apart."""


@dataclass
class Script:
    """A growing program of one machine, with its memory; in several launches if what one leaves would be lost."""

    name: str
    machine: str
    timing: MemoryTiming = field(default_factory=lambda: MemoryTiming(latency=3))
    insn_address: int = INSN_AT
    tokens_before: tuple[int, ...] = (0, 0, 0, 0)
    insns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config: VTAConfig = MACHINES[self.machine]
        self.model = compare.model_config(self.config)
        self.noise = random.Random(self.name)
        self.launches: list[list[int]] = []
        self.dram = Dram()
        self.dram.write(DATA_AT, np.frombuffer(self.noise.randbytes(DATA_BYTES), np.uint8))

    def add(self, opcode: int, **fields: int) -> None:
        """Append an instruction, with noise in its unused bits."""
        self.insns.append(layout.encode(self.model, opcode, self.noise, **fields))

    def end_launch(self) -> None:
        """Let everything be compared before the next instruction."""
        self.launches.append([*self.insns, layout.encode(self.model, FINISH)])
        self.insns = []

    def load(self, memory: int, **fields: int) -> None:
        self.add(LOAD, memory_type=memory, **{"x_size": 1, "y_size": 1} | fields)

    def step(self, opcode: int, **fields: int) -> None:
        """A GEMM or ALU instruction of one step, as far as `fields` do not say otherwise."""
        self.add(opcode, **{"uop_end": 1, "iter_out": 1, "iter_in": 1} | fields)

    def uops(self, uops: Iterable[tuple[int, int, int]]) -> None:
        """Put micro-ops (dst, src, wgt) into memory and load them from index 0 on."""
        slots = layout.uop_slots(self.model)
        words = [layout.put(slots, dict(zip(("dst", "src", "wgt"), uop, strict=True))) for uop in uops]
        self.dram.write(UOPS_AT, np.array(words, "<u4").view(np.uint8))
        self.load(UOP, x_size=len(words))

    def accumulators(self, tiles: Sequence[int], address: int = DATA_AT) -> None:
        """Let the DRAM at `address` hold accumulator tiles, each with one number in all places."""
        scalars = int(np.prod(self.model.shape(ACC)))
        data = np.repeat(np.array(tiles, np.int64).astype("<i4"), scalars)
        self.dram.write(address, data.view(np.uint8))

    def case(self, *, queue_depth: int = 512) -> Case:
        """The program, FINISH added."""
        if self.insns:
            self.end_launch()
        return Case(
            name=f"{self.name} on {self.machine}",
            config=self.config,
            dram=self.dram,
            launches=tuple(layout.to_words(insns) for insns in self.launches),
            insn_address=self.insn_address,
            bases={UOP: UOPS_AT, WGT: DATA_AT, INP: DATA_AT, ACC: DATA_AT, OUT: OUT_AT},
            tokens_before=self.tokens_before,
            timing=self.timing,
            queue_depth=queue_depth,
        )


def loads(machine: str, memory: int) -> Case:
    """Windows of one memory type, with every field at its limits."""
    script = Script(name=f"loads of {MEMORY_NAMES[memory]}", machine=machine, insn_address=INSN_AT + 0xFF0)
    address = UOPS_AT if memory == UOP else DATA_AT
    script.dram.write(address, np.frombuffer(script.noise.randbytes(DATA_BYTES), np.uint8))

    def load(**fields: int) -> None:
        """In a launch of its own, since the windows overlap."""
        script.load(memory, **fields)
        script.end_launch()

    unit = script.model.element_bytes(memory)
    depth = script.model.depth(ACC if memory in OF_ACC else memory)
    page = 4096 // unit
    load(x_size=depth, dram_base=3)
    load(y_size=depth, x_stride=2, dram_base=page - 2)
    load(sram_base=depth - 1)
    load(dram_base=page - 2, x_size=5, sram_base=1)
    load(x_pad_0=15, x_pad_1=15, dram_base=7)
    load(y_pad_0=15, y_pad_1=15, dram_base=8, sram_base=1)
    script.dram.write(address + 0xFFFF * unit, np.frombuffer(script.noise.randbytes(unit), np.uint8))
    load(y_size=2, x_stride=0xFFFF)
    pads = {"y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 2, "x_pad_1": 1}
    load(y_size=0, x_size=2, x_stride=9, sram_base=4, **pads)
    load(y_size=2, x_size=2, x_stride=0, sram_base=depth - 25, dram_base=30, **pads)
    for stride in (1, 3, 4):
        load(y_size=3, x_size=3, x_stride=stride, sram_base=depth - 9, dram_base=40 + stride)
    load(y_size=0, x_size=3)
    load(y_size=0, x_size=3, y_pad_1=1, sram_base=2)
    load(x_size=0, y_size=3, x_stride=1, sram_base=0xFFFF, dram_base=0xABCD_EF01, **pads)
    if script.config.address_bits == 64:
        script.dram.write(address + 0xFFFF_FFFF * unit, np.frombuffer(script.noise.randbytes(unit), np.uint8))
        load(dram_base=0xFFFF_FFFF, sram_base=3)
    return script.case()


def stores(machine: str) -> Case:
    """Windows of OUT: written by GEMM and ALU, reset, put apart from the accumulators, and never written."""
    script = Script(name="stores", machine=machine, timing=MemoryTiming(latency=2, stalls=0.2, seed=1))
    depth = script.model.depth(OUT)
    page = 4096 // script.model.element_bytes(OUT)
    script.uops([(0, 0, 0)])
    script.load(ACC, x_size=depth)
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=3, iter_in=depth - 8, dst_factor_in=1)
    script.step(GEMM, reset=1, iter_in=4, dst_factor_in=1)
    script.load(ACC, x_size=4, sram_base=4, dram_base=9, push_next=1)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=depth, pop_prev=1)
    places = iter(range(5, 5000, 131))
    windows = [
        {"y_size": depth, "x_size": 1, "x_stride": 2},
        {"y_size": 1, "x_size": 1, "sram_base": depth - 1},
        {"y_size": 2, "x_size": 3, "x_stride": 0xFFFF, "sram_base": 2},
        {"y_size": 3, "x_size": 3, "x_stride": 0, "sram_base": 9},
        {"y_size": 3, "x_size": 3, "x_stride": 1, "sram_base": 12},
        {"y_size": 3, "x_size": 3, "x_stride": 3, "sram_base": depth - 9},
        {"y_size": 3, "x_size": 3, "x_stride": 4, "sram_base": 1},
        {"y_size": 2, "x_size": 2, "x_stride": 2, "y_pad_0": 15, "y_pad_1": 15, "x_pad_0": 15, "x_pad_1": 15},
        {"y_size": 0, "x_size": 3, "x_stride": 1},
    ]
    for window in windows:
        script.add(STORE, memory_type=OUT, dram_base=next(places), **window)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=6, dram_base=4 * page - 3)
    garbage = {"y_size": 7, "x_stride": 3, "sram_base": 0xFFFF, "x_pad_0": 5, "y_pad_1": 9}
    script.add(STORE, memory_type=WGT, x_size=0, dram_base=0xFEDC_BA98, **garbage)
    if script.config.address_bits == 64:
        script.add(STORE, memory_type=OUT, y_size=1, x_size=1, dram_base=0xFFFF_FFFF, sram_base=5)
    return script.case()


def nests(machine: str) -> Case:
    """Loops of GEMM and ALU: no work in every way, one step, factors and micro-ops at their limits."""
    script = Script(name="nests", machine=machine)
    model = script.model
    uop_depth, last = (
        model.depth(UOP),
        {name: model.depth(m) - 1 for name, m in (("dst", ACC), ("src", INP), ("wgt", WGT))},
    )
    script.uops([(0, 0, 0), (1, 2, 3), (2, 3, 1), (last["dst"], last["src"], last["wgt"]), (5, last["dst"], 0)])
    script.load(UOP, sram_base=uop_depth - 1, dram_base=1)
    script.load(ACC, x_size=model.depth(ACC))
    script.load(INP, x_size=model.depth(INP))
    script.load(WGT, x_size=model.depth(WGT), push_next=1)
    script.step(GEMM, pop_prev=1)
    opcodes = [GEMM, ALU] + ([layout.GEMM_OVERWRITE] if model.extended else [])
    for opcode in opcodes:
        anything = {name: 3 for name in layout.slots_of(model, opcode) if "factor" in name}
        nothing = (
            {"iter_out": 0, "iter_in": 9},
            {"iter_out": 9, "iter_in": 0},
            {"uop_bgn": 2, "uop_end": 2},
            {"uop_bgn": 3, "uop_end": 1},
            {"uop_bgn": 0, "uop_end": 0, "iter_in": 16383},
        )
        for trips in nothing:
            script.step(opcode, **trips, **anything)
        fields = {"alu_opcode": ADD} if opcode == ALU else {}
        steps = [
            {"uop_bgn": uop_depth - 1, "uop_end": uop_depth},
            {"uop_bgn": 3, "uop_end": 4},
            {"uop_end": 3, "iter_out": 2, "iter_in": 3, "dst_factor_out": 9, "dst_factor_in": 2, "src_factor_in": 1},
        ]
        for loop in ("out", "in"):
            # Two trips from 0 to the last element; the other operands in turn.
            factors = {f"dst_factor_{loop}": last["dst"]}
            src = last["dst"] if opcode == ALU else last["src"]
            if src < 1 << layout.slots_of(model, opcode)[f"src_factor_{loop}"][1]:
                factors[f"src_factor_{loop}"] = src
            if opcode != ALU:
                factors[f"wgt_factor_{loop}"] = last["wgt"]
            steps.append({f"iter_{loop}": 2} | factors)
            if opcode == ALU:
                steps.append({f"iter_{loop}": 258, "use_imm": 1, "imm": 1})
            elif opcode == GEMM:
                steps.append({f"iter_{loop}": 258})
        for step in steps:
            script.step(opcode, **fields | step)
            script.end_launch()
    return script.case()


def arithmetic(machine: str) -> Case:
    """Shifts by every kind of amount, from a register and immediate; products and sums that wrap."""
    script = Script(name="arithmetic", machine=machine)
    tiles = [0x7FFF_FFFF, -(2**31), -1, 0x1234_5678, 5, *AMOUNTS]
    script.accumulators(tiles)
    script.dram.write(DATA_AT + 0x2000, np.full(0x400, 0x80, np.uint8))
    count = len(AMOUNTS)
    others = (30, 31, 32, 50, 55)
    script.uops([(30 + k, 5 + k, 0) for k in range(count)] + [(dst, 0, 0) for dst in others])
    high = 0x2000
    script.load(INP, dram_base=high // script.model.element_bytes(INP))
    script.load(WGT, dram_base=high // script.model.element_bytes(WGT), push_next=1)
    script.load(ACC, x_size=len(tiles))
    for number in range(5):
        # The same number in all places, to be shifted by each of the amounts.
        script.load(ACC, dram_base=number, y_size=count, x_stride=0, sram_base=30)
        script.step(ALU, alu_opcode=SHR, uop_end=count)
        script.end_launch()
    for amount in AMOUNTS:
        if -0x8000 <= amount < 0x8000:
            script.load(ACC, x_size=5, sram_base=30)
            script.step(ALU, alu_opcode=SHR, iter_in=5, dst_factor_in=1, use_imm=1, imm=amount)
            script.end_launch()
    for opcode in (ADD, MUL, layout.MIN, layout.MAX):
        script.load(ACC, x_size=count, sram_base=30)
        script.step(ALU, alu_opcode=opcode, uop_end=count)
        script.load(ACC, y_size=2, x_size=5, x_stride=0, sram_base=50)
        for uop, imm in ((count + 3, -0x8000), (count + 4, 0x7FFF)):
            trips = {"uop_bgn": uop, "uop_end": uop + 1, "iter_in": 5, "dst_factor_in": 1}
            script.step(ALU, alu_opcode=opcode, use_imm=1, imm=imm, **trips)
        script.end_launch()
    script.load(ACC, x_size=5, sram_base=30)
    script.step(GEMM, uop_bgn=count, uop_end=count + 3, iter_in=2, pop_prev=1)
    return script.case()


def requantisations(machine: str) -> Case:
    """REQUANT of numbers of all sizes: halves, saturation, the ends of factor, shift, bias and zero point."""
    script = Script(name="requantisations", machine=machine)
    largest = 2**24 - 1
    parameters = [
        # bias, factor, shift, zero point, ReLU
        (0, 1, 0, 0, 0),
        (0, 1, 1, 0, 0),
        (1, 3, 1, 9, 1),
        (-1, 5, 2, -9, 1),
        (0, 1 << 20, 0, 0, 0),
        (0, 1 << 20, 21, 200, 1),
        (0, 3 << 20, 22, -200, 1),
        (2**31 - 1, largest, 32, 0, 0),
        (-(2**31), largest, 47, 2**14 - 1, 0),
        (7, largest, 63, -(2**14), 0),
        (0, 0, 8, 100, 1),
        (0, largest, 0, -1, 0),
    ]
    numbers = [0, 1, -1, 2, -2, 3, -3, 50, -50, 127, -129, 40_000, -40_000, 2**31 - 1, -(2**31)]
    pairs = [number for bias, factor, shift, *_ in parameters for number in (bias, shift << 24 | factor)]
    script.accumulators([*pairs, *numbers])
    dst = len(pairs)
    script.uops([(dst, 2 * number + number % 2, 0) for number in range(len(parameters))])
    script.load(ACC, x_size=len(pairs))
    for number, (*_, zero_point, relu) in enumerate(parameters):
        script.load(ACC, dram_base=len(pairs), x_size=len(numbers), sram_base=dst)
        imm = (zero_point & 0x7FFF) - (relu << 15)
        trips = {"uop_bgn": number, "uop_end": number + 1, "iter_in": len(numbers), "dst_factor_in": 1}
        script.step(ALU, alu_opcode=layout.REQUANT, imm=imm, **trips)
        script.end_launch()
    return script.case()


def long_loops(machine: str) -> Case:
    """As many trips as there can be, which takes most of a minute with Amaranth's simulator."""
    script = Script(name="long_loops", machine=machine)
    script.uops([(0, 0, 0)])
    script.load(INP)
    script.load(WGT, push_next=1)
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1, iter_out=16383)
    script.step(GEMM, iter_in=16383, pop_prev=1)
    return script.case()


def full_queue(machine: str) -> Case:
    """Load has more to do than its queue holds, and waits for the compute unit."""
    script = Script(name="full_queue", machine=machine)
    script.uops([(0, 0, 0)])
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1, iter_in=700, push_prev=1)
    script.load(INP, pop_next=1)
    for number in range(530):
        script.load(INP, sram_base=number % 64, x_size=number % 100 == 0)
    script.load(INP, x_size=0, push_next=1)
    script.load(UOP, x_size=0, pop_prev=1)
    return script.case()


def many_tokens(machine: str) -> Case:
    """Counters at their limits: a unit that pushes waits until there is room."""
    script = Script(name="many_tokens", machine=machine, tokens_before=(2047, 2034, 300, 2047))
    for _ in range(20):
        script.load(UOP, x_size=0, pop_prev=1, pop_next=1)
    for _ in range(5):
        script.load(UOP, x_size=0, push_prev=1, push_next=1)
        script.load(INP, x_size=0, pop_next=1, push_next=1)
        script.load(INP, x_size=0, pop_next=1)
        script.add(STORE, memory_type=OUT, pop_prev=1, push_prev=1)
    return script.case()


def tokens_left(machine: str) -> Case:
    """As many tokens as the specification lets a program have, in every queue, without one that is taken."""
    script = Script(name="tokens_left", machine=machine, tokens_before=(1003, 1003, 1003, 1003))
    for _ in range(20):
        script.load(INP, x_size=0, push_next=1)
        script.load(UOP, x_size=0, push_prev=1, push_next=1)
        script.add(STORE, memory_type=OUT, push_prev=1)
    return script.case()


def finishes(machine: str) -> Case:
    """FINISH with all flags, twice in a launch, and one alone that goes on with the tokens."""
    script = Script(name="finishes", machine=machine, tokens_before=(2, 0, 0, 2))
    script.add(FINISH, pop_prev=1, pop_next=1, push_prev=1, push_next=1)
    script.load(INP, x_size=0, push_next=1)
    first = script.case()
    alone = layout.to_words([layout.encode(script.model, FINISH, pop_prev=1, push_prev=1)])
    return Case(
        name=first.name,
        config=first.config,
        dram=first.dram,
        launches=(*first.launches, alone),
        bases=first.bases,
        tokens_before=first.tokens_before,
    )


_ON_MACHINES: Mapping[str, Sequence[Callable[[str], Case]]] = {
    NARROW: (stores, nests, arithmetic, requantisations),
    WIDE: (stores, arithmetic, requantisations),
    "overlap": (nests, many_tokens, tokens_left),
    "tiny": (nests, arithmetic, long_loops, full_queue, many_tokens, tokens_left, finishes),
}

DIRECTED: Mapping[str, Callable[[], Case]] = {
    **{
        f"loads of {MEMORY_NAMES[memory]} on {machine}": functools.partial(loads, machine, memory)
        for machine in (NARROW, WIDE)
        for memory in range(len(MEMORY_NAMES))
        if memory != OUT
    },
    **{
        f"{make.__name__} on {machine}": functools.partial(make, machine)
        for machine, makers in _ON_MACHINES.items()
        for make in makers
    },
}
"""All of them by name, those of one machine next to each other."""
