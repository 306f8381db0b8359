"""Ranges against the indices that instructions touch one by one, and the cycles it takes to find them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator

from tests.vta_hw.rtl.machine import TINY, cell, trips
from vta_hw.rtl.ranges import clash, ranges_layout
from vta_hw.rtl.scan import Scanner
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Load, MemoryType
from vta_hw.spec.isa import ISA

CONFIGS = {
    "tiny": TINY,
    "bus 512": replace(TINY, isa="extended", log_bus_width=9),
    "few micro-ops": replace(TINY, log_uop_buff_size=3, log_bus_width=8),
    "more inputs than accumulators": replace(TINY, log_acc_buff_size=6, log_inp_buff_size=10),
}

Interval = tuple[int, int] | None
Ranges = dict[str, Any]


class Bench(Component):
    def __init__(self, config: VTAConfig) -> None:
        self.scanner = Scanner(config)
        self.uops = Scratchpad(Geometry.of(config, MemoryType.UOP), readers=1, wide=True)
        super().__init__({})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.scanner, m.submodules.uops = self.scanner, self.uops
        connect(m, self.scanner.uop, self.uops.wide)
        return m


def whole(interval: tuple[int, int], depth: int) -> tuple[int, int]:
    """An interval that leaves its scratchpad is all of it."""
    return interval if interval[1] < depth else (0, depth - 1)


def random_nest(config: VTAConfig, rng: np.random.Generator) -> dict[str, Any]:
    """A command; its micro-ops may wrap, or be none."""
    begin = int(rng.integers(config.uop_depth))
    ends = (begin + 1, begin + int(rng.integers(0, 20)), int(rng.integers(0, 2 * config.uop_depth)))
    end = ends[rng.integers(3)]
    outer, inner = (int(rng.choice([1, 2, int(rng.integers(1, 9))])) for _ in range(2))
    limits = {"dst": config.acc_depth, "src": max(config.acc_depth, config.inp_depth)}
    most = int(rng.choice([1, 3, 1 << 16]))
    factors = {
        f"{name}_factor_{loop}": int(rng.integers(min(limit, most)))
        for name, limit in limits.items()
        for loop in ("out", "in")
    }
    kind = rng.choice(["gemm", "imm", "reg", "requant"])
    operation = {"gemm": int(kind == "gemm"), "alu": int(kind != "gemm"), "requant": int(kind == "requant")}
    operation["use_imm"] = int(kind == "imm" or (kind == "requant" and rng.random() < 0.5))
    loops = {"uop_bgn": begin, "uop_end": min(end, 2 * config.uop_depth - 1), "iter_out": outer, "iter_in": inner}
    return {"operation": operation, **loops, **factors}


def ranges_of_nest(config: VTAConfig, uops: np.ndarray[Any, Any], insn: Mapping[str, Any]) -> Ranges:
    """What a nest with micro-ops touches, index by index."""
    operation = insn["operation"]
    visited = range(insn["uop_bgn"], insn["uop_end"])
    touched: dict[str, list[int]] = {"dst": [], "src": []}
    for o, i, u in trips(insn["iter_out"], insn["iter_in"], visited):
        for column, name in enumerate(touched):
            offset = o * insn.get(f"{name}_factor_out", 0) + i * insn.get(f"{name}_factor_in", 0)
            touched[name].append(int(uops[u % config.uop_depth, column]) + offset)
    if operation.get("requant"):
        touched["src"] += [index ^ 1 for index in touched["src"]]
    intervals: Ranges = {
        name: whole((min(indices), max(indices)), config.acc_depth) for name, indices in touched.items()
    }
    if operation["gemm"] or (operation["use_imm"] and not operation.get("requant")):
        intervals["src"] = None
    return {**intervals, "uop": whole((visited[0], visited[-1]), config.uop_depth), "uop_write": 0}


def random_load(config: VTAConfig, rng: np.random.Generator) -> Load:
    memory = MemoryType(int(rng.choice([MemoryType.UOP, MemoryType.ACC, MemoryType.ACC_8BIT])))
    many = rng.random() < 0.1
    names = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
    pads: dict[str, Any] = {name: int(rng.choice([0, 0, 1, 3])) for name in names}
    return Load(
        memory_type=memory,
        sram_base=int(rng.integers(config.depth(memory))),
        y_size=int(rng.choice([0, 1, 1, int(rng.integers(1 << 16)) if many else 3])),
        x_size=int(rng.integers(1, 1 << 16 if many else 12)),
        **pads,
    )


def ranges_of_load(config: VTAConfig, load: Load) -> Ranges:
    elements = (load.x_pad_0 + load.x_size + load.x_pad_1) * (load.y_pad_0 + load.y_size + load.y_pad_1)
    window = (load.sram_base, load.sram_base + elements - 1)
    written = whole(window, config.depth(load.memory_type)) if elements else None
    is_uop = load.memory_type is MemoryType.UOP
    return {
        "uop": written if is_uop else None,
        "dst": None if is_uop else written,
        "src": None,
        "uop_write": int(is_uop),
    }


async def scan(ctx: Any, scanner: Scanner, insn: Load | Mapping[str, Any], isa: ISA) -> tuple[Ranges, int]:
    """Ranges, and the cycles from `start` to `done`."""
    ctx.set(scanner.start, 1)
    ctx.set(scanner.is_load, isinstance(insn, Load))
    if isinstance(insn, Load):
        low, high = (int(half) for half in isa.encode_program([insn])[0])
        ctx.set(scanner.word, low | high << 64)
    else:
        ctx.set(scanner.command, dict(insn))
    await ctx.tick()
    ctx.set(scanner.start, 0)
    cycles = 1
    while not ctx.get(scanner.done):
        await ctx.tick()
        cycles += 1
    found = ctx.get(scanner.ranges)
    ranges: Ranges = {"uop_write": int(found.uop_write)}
    for name in ("uop", "dst", "src"):
        interval = found[name]
        ranges[name] = (int(interval.first), int(interval.last)) if interval.valid else None
    return ranges, cycles


def cycles_of(config: VTAConfig, insn: Load | Mapping[str, Any]) -> int:
    """What the contract promises."""
    if isinstance(insn, Load):
        return max(2, 1 + (insn.y_pad_0 + insn.y_size + insn.y_pad_1).bit_length())
    banks = Geometry.of(config, MemoryType.UOP).banks
    lines: int = (insn["uop_end"] - 1) // banks - insn["uop_bgn"] // banks + 1
    trips_left = max(int(insn["iter_out"]), int(insn["iter_in"])) - 1
    return 1 + max(lines, 1, trips_left.bit_length())


def simulate(config: VTAConfig, test: Any) -> None:
    """Run `test(ctx, scanner, uops)` on a scanner of random micro-ops."""
    rng = np.random.default_rng(config.bus_bits)
    limits = (config.acc_depth, max(config.acc_depth, config.inp_depth), config.wgt_depth)
    uops = np.stack([rng.integers(0, limit, config.uop_depth) for limit in limits], axis=1)
    bench = Bench(config)
    simulator = Simulator(bench)
    simulator.add_clock(1e-8)

    async def drive(ctx: Any) -> None:
        for index, word in enumerate(ISA(config).encode_uops(tuple(uops.T))):
            bank, line = cell(bench.uops, index)
            ctx.set(bench.uops.banks[bank][line], int(word))
        await test(ctx, bench.scanner, uops)

    simulator.add_testbench(drive)
    simulator.run()


@pytest.mark.parametrize("name", CONFIGS)
def test_ranges_are_from_the_smallest_to_the_largest_index_touched(name: str) -> None:
    config, rng = CONFIGS[name], np.random.default_rng(3)
    isa = ISA(config)

    async def test(ctx: Any, scanner: Scanner, uops: np.ndarray[Any, Any]) -> None:
        for _ in range(120):
            insn = random_load(config, rng) if rng.random() < 0.3 else random_nest(config, rng)
            found, cycles = await scan(ctx, scanner, insn, isa)
            assert cycles == cycles_of(config, insn)
            if isinstance(insn, Load):
                assert found == ranges_of_load(config, insn)
            elif insn["uop_bgn"] < insn["uop_end"]:
                assert found == ranges_of_nest(config, uops, insn)
            for _ in range(rng.integers(0, 3)):
                await ctx.tick()

    simulate(config, test)


def test_the_longest_nest() -> None:
    config = TINY
    longest = {"uop_bgn": 7, "uop_end": 8, "iter_out": 16383, "iter_in": 16383, "operation": {"alu": 1, "use_imm": 1}}

    async def test(ctx: Any, scanner: Scanner, uops: np.ndarray[Any, Any]) -> None:
        found, cycles = await scan(ctx, scanner, longest, ISA(config))
        assert (found["dst"], cycles) == ((uops[7, 0], uops[7, 0]), 15)
        found, cycles = await scan(ctx, scanner, longest | {"dst_factor_in": 63, "dst_factor_out": 63}, ISA(config))
        assert (found["dst"], cycles) == ((0, 63), 15)

    simulate(config, test)


def test_another_start_gives_up_the_scan_before() -> None:
    config = TINY
    long = {"uop_bgn": 0, "uop_end": 64, "iter_out": 1, "iter_in": 1, "operation": {"gemm": 1}}
    short = long | {"uop_bgn": 5, "uop_end": 6}

    async def test(ctx: Any, scanner: Scanner, uops: np.ndarray[Any, Any]) -> None:
        for pause in range(5):
            ctx.set(scanner.command, long)
            ctx.set(scanner.is_load, 0)
            ctx.set(scanner.start, 1)
            await ctx.tick()
            ctx.set(scanner.start, 0)
            for _ in range(pause):
                await ctx.tick()
            assert not ctx.get(scanner.done)
            assert await scan(ctx, scanner, short, ISA(config)) == (ranges_of_nest(config, uops, short), 2)

    simulate(config, test)


def test_instructions_clash_if_they_touch_the_same_thing_and_one_writes_it() -> None:
    layout = ranges_layout(TINY)
    m = Module()
    a = Signal(layout)
    b = Signal(layout)
    found = Signal()
    m.d.comb += found.eq(clash(a, b))
    rng = np.random.default_rng(0)

    def random_ranges() -> dict[str, Any]:
        def interval() -> dict[str, int]:
            first, last = sorted(rng.choice([0, 1, 2, 3, 62, 63], 2).tolist())
            return {"valid": int(rng.random() < 0.6), "first": first, "last": last}

        return {"uop": interval(), "uop_write": int(rng.random() < 0.3), "dst": interval(), "src": interval()}

    def indices(interval: dict[str, int]) -> set[int]:
        return set(range(interval["first"], interval["last"] + 1)) if interval["valid"] else set()

    def accesses(ranges: dict[str, Any], *, write: bool) -> set[tuple[str, int]]:
        uops = indices(ranges["uop"]) if ranges["uop_write"] == write else set()
        acc = indices(ranges["dst"]) | (set() if write else indices(ranges["src"]))
        return {("uop", index) for index in uops} | {("acc", index) for index in acc}

    async def test(ctx: Any) -> None:
        seen = set()
        for _ in range(600):
            one, other = random_ranges(), random_ranges()
            ctx.set(a, one)
            ctx.set(b, other)
            await ctx.delay(1e-9)
            writes = [accesses(ranges, write=True) for ranges in (one, other)]
            touches = [accesses(ranges, write=True) | accesses(ranges, write=False) for ranges in (one, other)]
            expected = bool(writes[0] & touches[1] or writes[1] & touches[0])
            assert ctx.get(found) == expected
            seen.add(expected)
        assert seen == {False, True}

    simulator = Simulator(m)
    simulator.add_testbench(test)
    simulator.run()
