"""The compute unit that overlaps: what runs beside what, in how many cycles, and that results do not tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.vta_hw.rtl.compute_bench import ACC, DATA_AT, PADS, UOP, Setting, machine
from tests.vta_hw.rtl.machine import TINY
from tests.vta_sim.rtl.machines import INSN_AT
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, AluOp, Finish, Gemm, GemmOverwrite, Insn, Load, MemoryType
from vta_hw.spec.isa import ISA
from vta_hw.spec.registers import Status
from vta_sim.errors import CycleLimit, Deadlock
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.memory import Memory
from vta_sim.rtl.engine import AmaranthSimulator

OVERLAP = 8
IN_ORDER = 7
"""Cycles of a GEMM or ALU instruction beyond its micro-ops, up to the one behind its retirement."""


@cache
def setting() -> Setting:
    """Micro-op i is of accumulator i; from 32 on it reads accumulator i - 32."""
    i = np.arange(64)
    return Setting.random(replace(TINY, isa="extended"), np.stack([i, i % 32, i % 32], axis=1))


def gemm(first: int, end: int, times: int = 2) -> str:
    return f"gemm uop_bgn={first} uop_end={end} iter_out=1 iter_in={times} src_factor_in=3"


def immediate(first: int, end: int, times: int = 2) -> str:
    return f"alu.add uop_bgn={first} uop_end={end} iter_out=1 iter_in={times} use_imm imm=3"


def register(first: int, end: int, times: int = 2) -> str:
    return f"alu.max uop_bgn={first} uop_end={end} iter_out=1 iter_in={times}"


def accumulators(first: int, count: int) -> str:
    return f"load.acc sram_base={first} dram_base={DATA_AT[ACC] // 16 + 5} y_size=1 x_size={count}"


def micro_ops(first: int, count: int) -> str:
    return f"load.uop sram_base={first} dram_base={DATA_AT[UOP] // 4 + first} y_size=1 x_size={count}"


# 32 micro-ops, another instruction, and the cycles of both: in order, and overlapped.
PAIRS = {
    "ALU writes what GEMM wrote": (gemm(0, 16), immediate(15, 31), 71, 79),
    "ALU writes elsewhere": (gemm(0, 16), immediate(16, 32), 71, 58),
    "ALU reads what GEMM wrote": (gemm(0, 16), register(32, 33), 41, 49),
    "ALU reads elsewhere": (gemm(0, 16), register(48, 64), 71, 58),
    "GEMM writes what ALU wrote": (immediate(16, 32), gemm(1, 17), 71, 79),
    "GEMM writes elsewhere than ALU": (immediate(16, 32), gemm(0, 16), 71, 58),
    "GEMM writes what ALU read": (register(32, 48), gemm(15, 16), 41, 49),
    "GEMM writes what ALU did not read": (register(32, 48), gemm(16, 32), 71, 58),
    "GEMM behind a load of its accumulators": (accumulators(12, 4), gemm(0, 16), 58, 59),
    "GEMM behind a load of others": (accumulators(16, 4), gemm(0, 16), 58, 52),
    "load of accumulators that GEMM wrote": (gemm(0, 16), accumulators(12, 4), 58, 59),
    "load of others than GEMM wrote": (gemm(0, 16), accumulators(16, 4), 58, 45),
    "ALU behind a load of its accumulators": (accumulators(12, 4), immediate(0, 16), 58, 59),
    "ALU behind a load of others": (accumulators(16, 4), immediate(0, 16), 58, 52),
    "load of micro-ops of a GEMM": (gemm(0, 16), micro_ops(15, 2), 52, 53),
    "load of other micro-ops": (gemm(0, 16), micro_ops(16, 16), 58, 41),
    "GEMM behind a load of its micro-ops": (micro_ops(0, 2), gemm(0, 16), 51, 53),
    "loads behind each other": (accumulators(0, 4), micro_ops(0, 2), 20, 21),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_runs_beside_what(name: str) -> None:
    first, second, in_order, overlapped = PAIRS[name]
    cycles = [setting().run(f"{first}\n{second}", overlap=overlap).cycles for overlap in (False, True)]
    assert cycles == [in_order, overlapped]


@pytest.mark.parametrize("insn", [gemm(0, 1, 1), gemm(0, 1, 20), gemm(3, 20, 1), immediate(0, 5, 3), register(0, 1, 9)])
def test_an_instruction_alone(insn: str) -> None:
    fields = dict(pair.split("=") for pair in insn.split() if "=" in pair)
    count = (int(fields["uop_end"]) - int(fields["uop_bgn"])) * int(fields["iter_in"])
    assert setting().run(insn, overlap=False).cycles == count + IN_ORDER
    assert setting().run(insn, overlap=True).cycles == count + OVERLAP


@pytest.mark.parametrize(
    ("insn", "gaps"),
    [
        (gemm(0, 1, 16), [16] * 5),
        (gemm(0, 16, 1), [17, 16, 16, 16, 16]),
        (gemm(1, 17, 1), [17, 16, 16, 16, 16]),
        (immediate(1, 17, 1), [17, 16, 16, 16, 16]),
        (gemm(0, 4, 1), [5, 4, 4, 4, 4]),
        (gemm(0, 1, 1), [2] * 5),
    ],
)
def test_instructions_of_a_lane_follow_each_other_with_at_most_one_bubble(insn: str, gaps: list[int]) -> None:
    timeline = setting().run("\n".join([insn] * 6), overlap=True)
    assert np.diff(timeline.retired).tolist() == gaps


def tiles(count: int, products: int) -> str:
    """For one set of 16 accumulators after the other, of two: `products` GEMM steps for each, and four ALU passes."""
    lines: list[str] = []
    for number in range(count):
        first = 16 * (number % 2)
        lines += [gemm(first, first + 16, products), *[immediate(first, first + 16, 1)] * 4]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("products", "in_order", "overlapped"),
    # At least 4 * 16 * products + 64 cycles: the ALU's work behind the last GEMM is beside nothing.
    [(4, 519, 349), (9, 839, 655)],
)
def test_the_alu_works_beside_gemm_on_the_other_set(products: int, in_order: int, overlapped: int) -> None:
    source = tiles(4, products)
    assert setting().run(source, overlap=False).cycles == in_order
    assert setting().run(source, overlap=True).cycles == overlapped


@pytest.mark.parametrize("arithmetic", [gemm, immediate])
@pytest.mark.parametrize("shift", range(4))
def test_arithmetic_waits_for_the_banks_of_a_load_beside_it(arithmetic: Callable[..., str], shift: int) -> None:
    """Steps go through the banks in turn, faster than the beats of 24 tiles: they meet many times."""
    timeline = setting().run(f"{arithmetic(16, 32, 11)}\n{accumulators(36 + shift, 24)}", overlap=True)
    assert timeline.retired[1] == timeline.retired[0] + 1


@pytest.mark.parametrize("plain", [immediate(0, 16, 1), register(32, 48, 1)])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_requantisation_waits_for_what_reads_accumulators_late(plain: str, steps: int) -> None:
    """Both would read through the same port in the same cycle, each its own accumulators."""
    requant = f"alu.requant uop_bgn=16 uop_end={16 + steps} iter_out=1 iter_in=1 use_imm imm=3"
    setting().run(f"{plain}\n{requant}\n{plain}", overlap=True)


def test_tokens_are_given_in_program_order() -> None:
    source = [
        gemm(0, 16, 9) + " push_prev",
        immediate(16, 20, 1) + " push_next",
        "load.uop pop_next push_prev",
        accumulators(40, 2) + " pop_prev push_next",
        "finish push_next",
    ]
    # In this cycle the load's beats never want the bank that GEMM is at; GEMM would wait up to three cycles for them.
    timeline = setting().run("\n".join(source), overlap=True, tokens={"l2g": [61], "s2g": [20]})
    assert timeline.begun == [0, 12, 20, 61, 62]
    assert timeline.retired == [151, 152, 153, 154, 155]


def test_an_instruction_without_its_token_holds_back_those_behind_it() -> None:
    source = [gemm(0, 16), immediate(16, 32) + " pop_prev", gemm(0, 1)]
    timeline = setting().run("\n".join(source), overlap=True, tokens={"l2g": [100]})
    assert timeline.begun[1:] == [100, 103]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_fault_names_its_instruction(position: int) -> None:
    """Found in the lanes while younger instructions are dispatched or nothing is."""
    wrong: list[Insn] = [
        Gemm(uop_bgn=60, uop_end=65, iter_out=1, iter_in=1),
        Alu(alu_opcode=AluOp.ADD, use_imm=True, uop_bgn=63, uop_end=64, iter_out=1, iter_in=2, dst_factor_in=1),
        Load(memory_type=ACC, sram_base=63, dram_base=DATA_AT[ACC] // 16, y_size=1, x_size=2),
    ]
    status = [Status.UOP_INDEX, Status.ACC_INDEX, Status.ACC_INDEX][position]
    insns: list[Insn] = [Load(memory_type=UOP), wrong[position], Load(memory_type=UOP), Load(memory_type=UOP)]
    here = setting()
    config = replace(here.config, overlap=True)
    timeline, _ = machine(config).run(insns, here.before, here.memory)
    assert {(index, found) for index, found in timeline.faults} == {(1, status)}


CONFIGS = {
    "extended": replace(TINY, isa="extended"),
    "bus 512, few": replace(TINY, isa="extended", log_bus_width=9, log_uop_buff_size=5, log_acc_buff_size=7),
    "batch 4": replace(TINY, log_batch=2, log_inp_buff_size=9, log_acc_buff_size=11, log_bus_width=7),
    "two accumulators": replace(TINY, isa="extended", log_acc_buff_size=5),
}


def random_load(config: VTAConfig, rng: random.Random, flags: dict[str, Any]) -> Load:
    memory = rng.choice([UOP, ACC, ACC, MemoryType.ACC_8BIT])
    depth = config.depth(memory)
    while True:
        x_size, y_size, base = rng.randint(1, min(depth, 8)), rng.choice([0, 1, 1, 2, 3]), rng.randrange(depth)
        padded = rng.random() < 0.4
        names = ("x_pad_0", "x_pad_1", "y_pad_0", "y_pad_1")
        pads: dict[str, Any] = {name: rng.choice([0, 1, 2]) * padded for name in names}
        columns = x_size + pads["x_pad_0"] + pads["x_pad_1"]
        if base + columns * (y_size + pads["y_pad_0"] + pads["y_pad_1"]) <= depth:
            break
    stride = rng.randint(0, 4)
    reach = config.uop_depth if memory is UOP else 64
    start = DATA_AT[memory.scratchpad] // config.dram_elem_bytes(memory)
    shape: dict[str, Any] = {"sram_base": base, "x_size": x_size, "y_size": y_size, "x_stride": stride}
    offset = rng.randint(0, max(reach - x_size - stride * y_size, 0))
    return Load(memory_type=memory, dram_base=start + offset, **shape, **pads, **flags)


def random_insn(config: VTAConfig, rng: random.Random) -> Insn:
    """An instruction whose accumulators and micro-ops may wrap, with few micro-ops, and now and then none."""
    flags: dict[str, Any] = {name: rng.random() < 0.15 for name in ("pop_prev", "pop_next", "push_prev", "push_next")}
    extended = ["requant", "overwrite"] * (config.isa == "extended")
    kind = rng.choice(["gemm"] * 4 + ["alu"] * 5 + ["load"] * 3 + ["nop", "finish", *extended])
    if kind == "load":
        return random_load(config, rng, flags)
    if kind == "nop":
        return Load(memory_type=UOP, **flags)
    if kind == "finish":
        return Finish(**flags)
    first = rng.randrange(config.uop_depth)
    end = rng.choice(
        [first + 1, min(first + rng.randint(1, 9), config.uop_depth), rng.randint(0, config.uop_depth + 1)]
    )
    outer, inner = rng.choice([(1, 1), (1, rng.randint(1, 20)), (rng.randint(1, 4), rng.randint(0, 5)), (1, 16)])
    second = config.acc_depth if kind in ("alu", "requant") else config.inp_depth
    limits = {"dst": config.acc_depth, "src": second, "wgt": config.wgt_depth}
    names = ["dst", "src", "wgt"] if kind in ("gemm", "overwrite") else ["dst", "src"]
    factors: dict[str, Any] = {
        f"{name}_factor_{loop}": min(rng.choice([0, 1, 1, 2, rng.randint(0, 9)]), limits[name] - 1)
        for name in names
        for loop in ("out", "in")
    }
    nest = {"uop_bgn": first, "uop_end": end, "iter_out": outer, "iter_in": inner, **factors, **flags}
    if kind == "gemm":
        return Gemm(reset=rng.random() < 0.2, **nest)
    if kind == "overwrite":
        return GemmOverwrite(**nest)
    opcode = AluOp.REQUANT if kind == "requant" else AluOp(rng.randrange(5))
    return Alu(alu_opcode=opcode, use_imm=rng.random() < 0.6, imm=rng.randint(-40, 40), **nest)


def random_tokens(rng: random.Random, insns: Sequence[Insn]) -> dict[str, list[int]]:
    return {name: [rng.randint(0, 300) for _ in insns] for name in ("l2g", "s2g")}


@pytest.mark.parametrize(("name", "stalls"), list(zip(CONFIGS, (0.3, 0.0, 0.0, 0.2), strict=True)))
def test_random_programs_leave_and_report_what_they_do_in_order(name: str, stalls: float) -> None:
    config, rng = CONFIGS[name], random.Random(f"{name} {stalls}")
    noise = np.random.default_rng(rng.getrandbits(32))
    limits = (config.acc_depth, min(config.acc_depth, config.inp_depth), config.wgt_depth)
    uops = [(limit * noise.random(config.uop_depth) ** 2).astype(np.int64) for limit in limits]
    here = Setting.random(config, np.stack(uops, axis=1), seed=rng.getrandbits(16))
    insns = [random_insn(config, rng) for _ in range(20)]
    tokens = random_tokens(rng, insns)
    runs = [
        machine(replace(config, overlap=overlap)).run(
            insns, here.before, here.memory, latency=rng.choice([0, 3, 12]), stalls=stalls, tokens=tokens
        )
        for overlap in (False, True)
    ]
    (in_order, expected), (overlapped, found) = runs
    for pad in PADS:
        assert np.array_equal(found[pad], expected[pad]), pad.name
    assert set(overlapped.faults) == set(in_order.faults)
    for counter in ("acc_writes", "gemm_uops", "alu_uops", "insn_compute"):
        assert overlapped.counts[counter] == in_order.counts[counter]


def launch(simulator: AmaranthSimulator | FunctionalSimulator, source: str, **options: Any) -> Any:
    words = ISA(simulator.config).encode_program(assemble(source, simulator.config)[0])
    simulator.memory.write(INSN_AT, words)
    return simulator.launch(INSN_AT, len(words), **options)


def test_the_whole_machine() -> None:
    """Results, a deadlock with instructions still under way before it, and a soft reset in the middle of everything."""
    config = replace(TINY, overlap=True)
    memory = Memory()
    for address in DATA_AT.values():
        memory.write(address, np.random.default_rng(address).integers(0, 256, 4096, dtype=np.uint8))
    memory.write(DATA_AT[UOP], np.asarray(ISA(config).encode_uops((np.arange(64),) * 2 + (np.arange(64) % 32,)), "<u4"))
    loads = "\n".join(
        f"load.{pad.name.lower()} dram_base={at // config.dram_elem_bytes(pad)} y_size=1 x_size=32 push_next"
        for pad, at in DATA_AT.items()
    )
    source = f"{loads}\nload.uop pop_prev\nload.uop pop_prev\n{tiles(2, 4)}\n{accumulators(8, 30)}"
    simulator, reference = AmaranthSimulator(config, memory=memory), FunctionalSimulator(config, memory=memory)
    with pytest.raises(Deadlock):
        launch(simulator, source + "\nfinish pop_next")
    with pytest.raises(CycleLimit):
        launch(simulator, source + "\n" + gemm(0, 30, 90) + "\n" + immediate(30, 32, 200) + "\nfinish", max_cycles=700)
    launch(reference, source + "\nfinish", allow_leftover_tokens=True)
    report = launch(simulator, source + "\nfinish", allow_leftover_tokens=True)
    assert report.counters["insn_compute"] == 16
    for pad in PADS:
        assert np.array_equal(simulator.scratchpad(pad), reference.scratchpad(pad)), pad.name
