"""Statistics, lint, state between launches, raw programs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vta_sim.functional.bench import DATA_AT, SMALL, Bench, to_bytes
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp, Finish, Gemm, Insn, Load, MemoryType, Store, Uop, codes_of
from vta_hw.spec.program import Launch, Program, Segment, Tokens
from vta_sim.functional.engine import FunctionalSimulator, run_program
from vta_sim.functional.report import Statistics
from vta_sim.memory import Memory

INSNS: list[Insn] = [
    Load(memory_type=MemoryType.UOP, y_size=1, x_size=3, x_stride=3),
    Load(memory_type=MemoryType.INP, y_size=2, x_size=3, x_stride=3, y_pad_0=1, x_pad_1=2),
    Load(memory_type=MemoryType.WGT, y_size=1, x_size=5, x_stride=5),
    Load(memory_type=MemoryType.ACC, y_size=3, x_size=2, x_stride=2),
    Load(memory_type=MemoryType.ACC_8BIT, y_size=1, x_size=7, x_stride=7),
    Load(memory_type=MemoryType.INP, y_size=7, x_size=0),
    Gemm(reset=True, uop_end=2, iter_out=3, iter_in=4),
    Gemm(uop_end=2, iter_out=3, iter_in=4),
    Gemm(uop_bgn=2, uop_end=1, iter_out=3, iter_in=4),
    Alu(uop_end=1, iter_out=5, iter_in=6, reset=True),
    Store(memory_type=MemoryType.OUT, y_size=2, x_size=4, x_stride=4),
    Finish(),
]


def test_statistics_of_the_launch_and_of_its_parts() -> None:
    report = Bench().run_exactly(INSNS)
    assert report.counters == Statistics(
        uop_load_nbytes=12,
        inp_load_nbytes=6 * 4,
        wgt_load_nbytes=5 * 16,
        acc_load_nbytes=(6 + 7) * 16,
        out_store_nbytes=8 * 4,
        gemm_counter=24,
        alu_counter=30,
        insn_count=12,
    )
    assert report.statistics_of(3, 5) == Statistics(acc_load_nbytes=208, insn_count=2)
    assert report.statistics_of(4, 4) == Statistics()
    parts = [report.statistics_of(begin, begin + 3) for begin in (0, 3, 6, 9)]
    assert parts[0] + parts[1] + parts[2] + parts[3] == report.counters


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (4, 3), (0, 13)])
def test_statistics_of_instructions_that_do_not_exist(begin: int, end: int) -> None:
    report = Bench().run_exactly(INSNS)
    with pytest.raises(ValueError, match=rf"^Range of instructions must lie within 0\.\.12, not {begin}\.\.{end}$"):
        report.statistics_of(begin, end)


def test_lint_of_what_other_machines_do_differently() -> None:
    bench = Bench()
    report = bench.run(
        [
            Load(memory_type=MemoryType.UOP, y_size=2, x_size=1, x_stride=1),
            Load(memory_type=MemoryType.WGT, y_size=1, x_size=1, x_stride=1, x_pad_0=1),
            Alu(uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.SHR, use_imm=True, imm=16),
            Alu(uop_end=1, iter_out=1, iter_in=2, dst_factor_in=1, alu_opcode=AluOp.ADD, use_imm=True, imm=16),
        ]
    )
    assert [str(lint) for lint in report.lint] == [
        "Instruction 0: a LOAD of UOP must have one row and no pads; HLS loads only x_size micro-ops",
        "Instruction 1: a LOAD of WGT must have no pads; HLS ignores them",
        "Instruction 2: an immediate SHR must shift by -16 to 15; HLS takes the amount from 5 signed bits",
        "Instruction 3: an immediate ALU must have src equal to dst; Chisel reads its operand at src",
    ]
    assert bench.run([]).lint == ()


def test_scratchpads_persist_between_launches_and_start_at_zero() -> None:
    bench = Bench()
    for kind in codes_of(MemoryType, "tvm"):
        assert not bench.read(kind).any()
    bench.uops(Uop(dst=3, src=1, wgt=2))
    bench.fill(MemoryType.INP, np.ones(4), sram_base=1)
    bench.fill(MemoryType.WGT, np.ones(16), sram_base=2)
    for times in (1, 2, 3):
        bench.run([Gemm(uop_end=1, iter_out=1, iter_in=1)])
        assert bench.acc[3].tolist() == [[4 * times] * 4]
        assert bench.out[3].tolist() == [[4 * times] * 4]


@pytest.mark.parametrize("config", [SMALL, VTAConfig(log_inp_width=2, log_wgt_width=4)], ids=lambda config: config.name)
def test_poison_fills_every_scratchpad(config: VTAConfig) -> None:
    bench = Bench(config, poison=True)
    for kind in codes_of(MemoryType, "tvm"):
        assert (bench.read(kind) != 0).all()
    # The padding of tiles stays zero: a product of poison is what it is.
    bench.uops(Uop())
    bench.run([Gemm(reset=True, uop_end=1, iter_out=1, iter_in=1), Gemm(uop_end=1, iter_out=1, iter_in=1)])
    inp, wgt = bench.read(MemoryType.INP)[0], bench.read(MemoryType.WGT)[0]
    np.testing.assert_array_equal(bench.acc[0], inp @ wgt.T)


def test_a_memory_can_be_shared_by_simulators() -> None:
    memory = Memory()
    memory.write(0, to_bytes([1, 2, 3, 4], 32))
    for config in (SMALL, VTAConfig()):
        simulator = FunctionalSimulator(config, memory=memory)
        load = Load(memory_type=MemoryType.ACC, y_size=1, x_size=1, x_stride=1)
        memory.write(DATA_AT, ISA(config).encode_program([load, Finish()]))
        simulator.launch(DATA_AT, 2)
        assert simulator.scratchpad(MemoryType.ACC)[0, 0, :4].tolist() == [1, 2, 3, 4]


def _raw(insns: list[Insn], tokens: Tokens) -> Program:
    uops = SMALL, ISA(SMALL).encode_uops([Uop(dst=1)]).tobytes()
    segments = (
        Segment(address=0x1000, data=uops[1]),
        Segment(address=0x2000, data=to_bytes([1, 2, 3, 4] * 2, 32).tobytes()),
    )
    return Program.raw(config=SMALL, insns=ISA(SMALL).encode_program(insns), segments=segments, tokens=tokens)


def test_a_raw_program_runs_with_its_tokens_and_segments() -> None:
    insns: list[Insn] = [
        Load(memory_type=MemoryType.UOP, dram_base=0x400, y_size=1, x_size=1, pop_next=True),
        Load(memory_type=MemoryType.ACC, dram_base=0x200, y_size=1, x_size=3, x_stride=3),
        Alu(uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.MUL, use_imm=True, imm=-2),
        Store(memory_type=MemoryType.OUT, dram_base=0xC00, sram_base=1, y_size=1, x_size=1),
        Finish(push_next=True),
    ]
    run = run_program(_raw(insns, Tokens(s2g=1)))
    assert run.report.tokens_left == Tokens(g2s=1)
    assert run.memory.read(0x3000, 4).view(np.int8).tolist() == [-2, -4, -6, -8]
    # The third tile lies behind the segment, and is zero.
    assert run.simulator.scratchpad(MemoryType.ACC)[:3, 0].tolist() == [[1, 2, 3, 4], [-2, -4, -6, -8], [0] * 4]


def test_a_compiled_program_is_not_run_without_a_device() -> None:
    words = ISA(SMALL).encode_program([Finish()]).tobytes()
    steps = (Launch(insn_begin=0, insn_count=1),)
    program = Program(config=SMALL, insns=words, insn_address=0, arena_bytes=4096, steps=steps)
    with pytest.raises(ValueError, match=r"^Program must be raw \(arena of 0 bytes\), not one with an arena of 4096$"):
        run_program(program)
