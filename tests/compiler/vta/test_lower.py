"""Instructions of compiled layers: their order and places, and the rules that every program keeps."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from compiler.driver import compile_graph
from compiler.errors import LoweringError
from compiler.tensor.define import Requantize, combine, conv2d
from compiler.tensor.ir import DType, Proc
from compiler.tensor.tiles import Tiled, Weighted
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from compiler.vta.schedule import schedule
from compiler.vta.tiling import PIECE, Stage, Tiling, TilingProblem
from runtime.devices.functional import FunctionalDevice
from runtime.session import Session
from tests.compiler.vta.touches import Space, launches
from tests.differential import Case, stored_inputs
from tests.fuzz_differential import case_of
from tests.test_configurations import CONFIGS, network
from vta.engines import Engine, host_loader
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, AluOp, Finish, Gemm, Insn, Load, MemoryType, Store
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Program

ROOT = Path(__file__).parents[3]

SEEDS = range(4000, 4020)


@cache
def compiled(seed: int) -> tuple[Case, Program]:
    case = case_of(seed)
    return case, compile_graph(case.graph, case.config)


def programs() -> list[Program]:
    return [compiled(seed)[1] for seed in SEEDS]


def insns_of(program: Program) -> list[Insn]:
    return ISA(program.config).decode_program(program.insns)


def lowered(proc: Proc, config: VTAConfig, tiling: Tiling) -> list[Insn]:
    builder = LaunchBuilder(config, MicroOps(config.uop_depth), 1 << 24)
    builder.layer(schedule(proc, config, tiling).proc, {one.name: at << 16 for at, one in enumerate(proc.params)})
    return builder.finish()


def two_tiles(copies: int) -> list[Insn]:
    """A dense layer of 2 output blocks, one to a tile, and 3 input blocks."""
    x = Tiled(batches=1, blocks=3, height=1, width=1, n=1, c=16)
    y = replace(x, blocks=2)
    proc = conv2d("dense", Weighted(x=x), y, Requantize(shift=4, low=-8, high=7, multiplier=False))
    sizes = {"co": 1, "oh": 1, "ow": 1, "s": 1, "ci": 3, "t": 1, "ky": 1, "kx": 1}
    stages = {"X": Stage(level=None), "W": Stage(level="co", copies=copies), "B": Stage(level="co")}
    tiling = Tiling(sizes=sizes, order=("oh", "ow", "co", "s"), piece=1, stages=stages, copies=copies)
    return lowered(proc, VTAConfig(), tiling)


def names(insns: list[Insn]) -> list[str]:
    """What each instruction is, but loads of micro-ops and of the input, which the two tiles share."""
    result = []
    for insn in insns:
        match insn:
            case Load(memory_type=MemoryType.UOP | MemoryType.INP):
                continue
            case Load() | Store():
                result.append(f"{type(insn).__name__.lower()}.{MemoryType(insn.memory_type).name.lower()}")
            case Gemm():
                result.append("reset" if insn.reset else "gemm")
            case Alu():
                result.append(AluOp(insn.alu_opcode).name.lower())
            case Finish():
                result.append("finish")
    return result


TILE = ["reset", "load.wgt", "gemm", "load.acc", "add", "shr", "min", "max", "store.out"]


@pytest.mark.parametrize("copies", [1, 2])
def test_tiles_follow_each_other_and_loads_come_when_they_are_needed(copies: int) -> None:
    assert names(two_tiles(copies)) == [*TILE, *TILE, "finish"]


def places(insns: list[Insn]) -> tuple[list[int], list[int]]:
    """Where weights are loaded, and where results are stored from."""
    weights = [insn.sram_base for insn in insns if isinstance(insn, Load) and insn.memory_type == MemoryType.WGT]
    return weights, [insn.sram_base for insn in insns if isinstance(insn, Store)]


def test_copies_are_places_taken_in_turn() -> None:
    assert places(two_tiles(1)) == ([0, 0], [0, 0])
    assert places(two_tiles(2)) == ([0, 3], [0, 1])


def test_micro_ops_are_loaded_at_once() -> None:
    loads = [insn for insn in two_tiles(2) if isinstance(insn, Load) and insn.memory_type == MemoryType.UOP]
    assert len(loads) == 1


def test_a_schedule_that_overflows_is_refused_in_bytes() -> None:
    """Three terms are more than the ops there are ask for, and more than the tiling's model knows."""
    proc = combine("sum", Tiled(batches=1, blocks=1, height=2, width=2, n=1, c=16), (1, 2, 3), 0, 4, -128, 127)
    config = VTAConfig(log_acc_buff_size=7)
    sizes = {"co": 1, "oh": 1, "ow": 1, "s": 1}
    tiling = Tiling(sizes=sizes, order=("co", "oh", "ow", "s"), piece=1, stages={})
    with pytest.raises(LoweringError) as refused:
        lowered(proc, config, tiling)
    assert str(refused.value) == "Layer 'sum' must fit the acc buffer of 128 bytes, its schedule needs 192"


def test_a_definition_without_an_instruction_is_refused() -> None:
    tile = Tiled(batches=1, blocks=1, height=2, width=2, n=1, c=16)
    requantize = Requantize(shift=1, low=0, high=1)
    wide = Weighted(x=tile, weight=DType.INT16)  # on a machine of 8-bit weights
    proc = conv2d("wide", wide, tile, requantize)
    tiling = Tiling(
        sizes=dict.fromkeys(("co", "oh", "ow", "s", "ci", "t", "ky", "kx"), 1),
        order=("co", "oh", "ow", "s"),
        piece=1,
        stages={name: Stage(level=None) for name in ("X", "W", "M", "B")},
    )
    with pytest.raises(LoweringError, match=r"^Layer 'wide' must be made of instructions of the VTA, which has none"):
        schedule(proc, VTAConfig(), tiling)


def test_immediate_operations_name_their_destination_as_source() -> None:
    """Chisel reads the source where every other implementation reads the destination (VTA spec 3.5)."""
    seen = 0
    for program in programs():
        uops = ISA(program.config).decode_uops(np.frombuffer(program.uops, "<u4"))
        resident = np.zeros(program.config.uop_depth, uops.dtype)
        for insn in insns_of(program):
            if isinstance(insn, Load) and insn.memory_type == MemoryType.UOP:
                first = insn.dram_base - program.uop_address // 4
                resident[insn.sram_base : insn.sram_base + insn.x_size] = uops[first : first + insn.x_size]
            if isinstance(insn, Alu) and insn.use_imm:
                seen += 1
                kernel = resident[insn.uop_bgn : insn.uop_end]
                assert (kernel["dst"] == kernel["src"]).all()
                assert insn.dst_factor_out == insn.src_factor_out
                assert insn.dst_factor_in == insn.src_factor_in
    assert seen > 100


def test_loads_keep_the_rules_of_every_implementation() -> None:
    """Micro-ops load as one row and weights without padding (VTA spec 3.2)."""
    for program in programs():
        for insn in insns_of(program):
            if not isinstance(insn, Load) or insn.x_size == 0:
                continue
            if insn.memory_type == MemoryType.UOP:
                assert (insn.y_size, insn.x_stride) == (1, insn.x_size)
            if insn.memory_type in (MemoryType.UOP, MemoryType.WGT):
                assert (insn.y_pad_0, insn.y_pad_1, insn.x_pad_0, insn.x_pad_1) == (0, 0, 0, 0)


def test_no_nest_is_empty() -> None:
    """Zero trips run 16384 times on Chisel (VTA spec 3.4)."""
    for program in programs():
        for insn in insns_of(program):
            if isinstance(insn, Gemm | Alu):
                assert insn.iter_out >= 1
                assert insn.iter_in >= 1
                assert insn.uop_bgn < insn.uop_end


def test_stores_read_what_a_gemm_or_the_alu_wrote_last() -> None:
    """Not a reset, and not a load, of which neither reaches the OUT buffer everywhere (VTA spec 3.6)."""
    for program in programs():
        valid = np.zeros(program.config.acc_depth, bool)
        for steps in launches(program):
            for step in steps:
                for touch in step.touches:
                    if isinstance(step.insn, Store) and touch.space is Space.OUT:
                        assert valid[touch.units].all()
                    elif touch.space is Space.ACC and touch.write:
                        resets = isinstance(step.insn, Gemm) and step.insn.reset
                        valid[touch.units] = not (resets or isinstance(step.insn, Load))


def test_every_launch_ends_with_its_one_finish() -> None:
    for program in programs():
        for steps in launches(program):
            assert [isinstance(step.insn, Finish) for step in steps] == [False] * (len(steps) - 1) + [True]


def test_compiling_twice_gives_the_same_bytes() -> None:
    for seed in SEEDS[:8]:
        case, program = compiled(seed)
        assert compile_graph(case.graph, case.config).to_bytes() == program.to_bytes()


def test_bytes_do_not_depend_on_the_order_of_sets() -> None:
    """Strings hash differently in every process."""
    script = (
        "from compiler.driver import compile_graph\n"
        "from tests.fuzz_differential import case_of\n"
        "case = case_of(4001)\n"
        "print(compile_graph(case.graph, case.config).digest)\n"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        command, env = [sys.executable, "-c", script], {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        digests.add(run.stdout.strip())
    assert digests == {compiled(4001)[1].digest}


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_a_program_runs_anywhere_in_memory(seed: int) -> None:
    case, program = compiled(seed)
    inputs = stored_inputs(program, case.inputs)
    answers = []
    for occupied in (0, 1, 3 << 20):
        device = FunctionalDevice(program.config, poison=True)
        if occupied:
            device.write(device.allocate(occupied), np.full(occupied, 0x5A, np.uint8))
        answers.append(Session(device, program, host_loader(Engine.FUNCTIONAL)).run(inputs))
    for name, value in answers[0].items():
        assert all(np.array_equal(other[name], value) for other in answers[1:])


def test_micro_ops_that_recur_are_loaded_once() -> None:
    program = compile_graph(network(8), CONFIGS["default"])
    loads = [insn for insn in insns_of(program) if isinstance(insn, Load) and insn.memory_type == MemoryType.UOP]
    places = [insn.dram_base for insn in loads if insn.x_size]
    assert len(places) == len(set(places))
    assert sum(insn.x_size for insn in loads) * 4 == len(program.uops)


def test_micro_ops_that_do_not_fit_are_loaded_again() -> None:
    config = replace(CONFIGS["default"], log_uop_buff_size=3)
    program = compile_graph(network(8), config)
    loads = [insn for insn in insns_of(program) if isinstance(insn, Load) and insn.memory_type == MemoryType.UOP]
    assert max(insn.sram_base + insn.x_size for insn in loads) <= config.uop_depth
    assert sum(insn.x_size for insn in loads) * 4 > len(program.uops)


def test_tilings_differ_but_answers_do_not() -> None:
    """Wherever operands are loaded, and into however many places, the same number of elements is stored."""
    x = Tiled(batches=1, blocks=2, height=4, width=4, n=1, c=16)
    proc = conv2d("conv", Weighted(x=x), x, Requantize(shift=4, low=-8, high=7))
    sizes = {**TilingProblem(proc, VTAConfig()).best().sizes, "co": 2, "oh": 2}
    for order in (("co", "oh", "ow", "s"), ("oh", "ow", "co", "s")):
        for level, copies, piece in itertools.product((None, "oh", "kx", PIECE), (1, 2), (1, 2)):
            stages = {name: Stage(level=level, copies=copies) for name in ("X", "W")}
            stages |= {name: Stage(level=None) for name in ("M", "B")}
            tiling = Tiling(sizes=sizes, order=order, piece=piece, stages=stages, copies=copies)
            insns = lowered(proc, VTAConfig(), tiling)
            assert sum(insn.x_size * insn.y_size for insn in insns if isinstance(insn, Store)) == 2 * 4 * 4
