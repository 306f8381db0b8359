"""ALU operations, their order, and the shift table of VTA spec 3.5 with the choices of 11.3 and 11.4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.vta_sim.functional.bench import Bench, wrap
from tests.vta_sim.functional.test_gemm import CONFIGS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import Alu, AluOp, Gemm, MemoryType, Uop, codes_of


def _shift(x: int, y: int) -> int:
    return x >> (y & 31) if y >= 0 else int(wrap(x << (-y & 31), 32))


def _operate(operation: AluOp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    match operation:
        case AluOp.MIN:
            return np.where(x < y, x, y)
        case AluOp.MAX:
            return np.where(x > y, x, y)
        case AluOp.ADD:
            return wrap(x + y, 32)
        case AluOp.SHR:
            return np.array([_shift(int(a), int(b)) for a, b in zip(x.flat, y.flat, strict=True)]).reshape(x.shape)
        case AluOp.MUL:
            return wrap(x * y, 32)
        case AluOp.REQUANT:
            raise ValueError("REQUANT has a test of its own")


def _reference(insn: Alu, uops: list[Uop], acc: np.ndarray) -> set[int]:
    touched = set()
    for o in range(insn.iter_out):
        for i in range(insn.iter_in):
            for uop in uops[insn.uop_bgn : insn.uop_end]:
                d = uop.dst + o * insn.dst_factor_out + i * insn.dst_factor_in
                s = uop.src + o * insn.src_factor_out + i * insn.src_factor_in
                y = np.full_like(acc[d], insn.imm) if insn.use_imm else acc[s]
                acc[d] = _operate(AluOp(insn.alu_opcode), acc[d], y)
                touched.add(d)
    return touched


def _random_alu(rng: np.random.Generator, operation: AluOp) -> tuple[Alu, list[Uop]]:
    n_out, n_in, count = (int(n) for n in rng.integers(1, 4, 3))
    names = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in")
    factors: dict[str, Any] = {name: int(value) for name, value in zip(names, rng.integers(0, 3, 4), strict=True)}
    uops = [Uop(dst=int(d), src=int(s)) for d, s in rng.integers(0, 8, (count, 2))]
    insn = Alu(
        reset=bool(rng.integers(2)),
        uop_end=count,
        iter_out=n_out,
        iter_in=n_in,
        alu_opcode=operation,
        use_imm=bool(rng.integers(2)),
        imm=int(rng.integers(-(1 << 15), 1 << 15)),
        **factors,
    )
    return insn, uops


@pytest.mark.parametrize("operation", codes_of(AluOp, "tvm"))
@pytest.mark.parametrize("config", CONFIGS[::3], ids=lambda config: config.name)
def test_alu_equals_the_definition(config: VTAConfig, operation: AluOp) -> None:
    rng = np.random.default_rng(11)
    bench = Bench(config)
    for _ in range(6):
        acc = rng.integers(-(1 << 31), 1 << 31, (16, config.batch, config.block_out))
        acc[::2] = rng.integers(-40, 40, acc[::2].shape)
        insn, uops = _random_alu(rng, operation)
        bench.fill(MemoryType.ACC, acc)
        bench.uops(*uops)
        out = bench.out
        touched = _reference(insn, uops, acc)
        bench.run([insn])
        np.testing.assert_array_equal(bench.acc, acc)
        for index in range(16):
            expected = wrap(acc[index], config.out_bits) if index in touched else out[index]
            np.testing.assert_array_equal(bench.out[index], expected)


# (amount, 1000 shifted, -1000 shifted): every row of the table of VTA spec 3.5, in the canonical column of 11.4.
SHIFTS = [
    (0, 1000, -1000),
    (1, 500, -500),
    (3, 125, -125),
    (4, 62, -63),
    (15, 0, -1),
    (16, 0, -1),
    (31, 0, -1),
    (32, 1000, -1000),
    (33, 500, -500),
    (-1, 2000, -2000),
    (-16, 65536000, -65536000),
    (-17, 131072000, -131072000),
    (-29, 0, 0),
    (-31, 0, 0),
    (-32, 1000, -1000),
    (-33, 2000, -2000),
    (-32768, 1000, -1000),
    (32767, 0, -1),
]


@pytest.mark.parametrize(("amount", "positive", "negative"), SHIFTS)
@pytest.mark.parametrize("immediate", [True, False])
def test_shift_table(amount: int, positive: int, negative: int, immediate: bool) -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, [1000, -1000, 1000, -1000, amount, amount, amount, amount])
    bench.uops(Uop(dst=0, src=0 if immediate else 1))
    imm = amount if immediate else 0
    bench.run([Alu(uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.SHR, use_imm=immediate, imm=imm)])
    assert bench.acc[0].tolist() == [[positive, negative, positive, negative]]


def test_immediate_operation_reads_dst_whatever_src_says() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.arange(8))
    bench.uops(Uop(dst=1, src=63))
    report = bench.run([Alu(uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.ADD, use_imm=True, imm=-3)])
    assert bench.acc[1].tolist() == [[1, 2, 3, 4]]
    assert [str(lint) for lint in report.lint] == [
        "Instruction 0: an immediate ALU must have src equal to dst; Chisel reads its operand at src"
    ]


def test_results_are_forwarded_at_distance_one() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.ones(4))
    bench.uops(Uop(dst=1, src=0), Uop(dst=2, src=1), Uop(dst=2, src=2))
    bench.run([Alu(uop_end=3, iter_out=1, iter_in=1, alu_opcode=AluOp.ADD)])
    assert bench.acc[:3, 0, 0].tolist() == [1, 1, 2]
    chain = Alu(uop_bgn=0, uop_end=1, iter_out=1, iter_in=20, dst_factor_in=1, src_factor_in=1, alu_opcode=AluOp.ADD)
    bench.run([chain])
    # acc[d] += acc[d - 1] in turn, from the values 1, 1, 2, 0, ...: a running sum.
    assert bench.acc[:6, 0, 0].tolist() == [1, 2, 4, 4, 4, 4]
    assert bench.acc[20, 0, 0] == 4


def test_alu_ignores_the_reset_bit_and_empty_loops() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.full(4, 9))
    bench.run([Alu(reset=True, uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.ADD, use_imm=True, imm=1)])
    for empty in ({"iter_out": 0}, {"iter_in": 0}, {"uop_bgn": 1}):
        loop: dict[str, Any] = {"uop_end": 1, "iter_out": 1, "iter_in": 1} | empty
        bench.run([Alu(alu_opcode=AluOp.ADD, use_imm=True, imm=1, **loop)])
    assert bench.acc[0].tolist() == [[10] * 4]


def test_a_later_load_of_micro_ops_does_not_reach_back() -> None:
    bench = Bench()
    bench.fill(MemoryType.INP, np.ones(4))
    bench.fill(MemoryType.WGT, np.ones(16))
    bench.uops(Uop(dst=1))
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=1)])
    bench.uops(Uop(dst=2))
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=1)])
    assert bench.acc[:4, 0, 0].tolist() == [0, 4, 4, 0]
