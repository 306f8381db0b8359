"""The extended instruction set (decision 0006) on the functional simulator."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.vta_sim.functional.bench import DATA_AT, SMALL, Bench, to_bytes, wrap
from tests.vta_sim.functional.test_gemm import CONFIGS
from tests.vta_sim.spec_model.requant_examples import BY_BITS, Example
from vta_hw.spec.asm import disassemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import Alu, AluOp, Gemm, GemmOverwrite, Insn, Load, MemoryType, Store, Unknown, Uop, requant_imm
from vta_sim.errors import OutOfRange, SimulationError, UnknownOpcode
from vta_sim.functional.report import Statistics

EXTENDED = replace(SMALL, isa="extended")
ONCE: dict[str, Any] = {"uop_end": 1, "iter_out": 1, "iter_in": 1}


def extended_bench(config: VTAConfig = SMALL) -> Bench:
    return Bench(replace(config, isa="extended"))


def _requant(bench: Bench, tiles: np.ndarray, zero_point: int, relu: bool, **fields: Any) -> np.ndarray:
    """ACC[4] after a REQUANT with ACC[2] and ACC[3], from tiles in the order x, bias, parameters."""
    shape = (bench.config.batch, bench.config.block_out)
    x, bias, parameters = (np.broadcast_to(tile, shape) for tile in wrap(tiles, 32))
    bench.fill(MemoryType.ACC, [bias, parameters, x], sram_base=2)
    bench.uops(Uop(dst=4, src=2))
    imm = requant_imm(zero_point, relu=relu)
    bench.run([Alu(alu_opcode=AluOp.REQUANT, imm=imm, **ONCE | fields)])
    np.testing.assert_array_equal(bench.out[4], wrap(bench.acc[4], bench.config.out_bits))
    np.testing.assert_array_equal(bench.acc[2:4], [bias, parameters])
    return bench.acc[4]


@pytest.mark.parametrize("log_inp_width", [2, 3, 4])
def test_examples_computed_by_hand(log_inp_width: int) -> None:
    bench = extended_bench(replace(SMALL, log_inp_width=log_inp_width))
    for example in BY_BITS[1 << log_inp_width]:
        tiles = np.array([[example.acc], [example.bias], [example.factor | example.shift << 24]])
        found = _requant(bench, tiles, example.zero_point, example.relu)
        assert set(found.reshape(-1).tolist()) == {example.result}, example


def test_bits_that_mean_nothing() -> None:
    """The two highest bits of a parameter, `use_imm`, `reset`, and the lowest bit of src."""
    bench = extended_bench()
    tiles = np.array([[5], [0], [1 << 24 | 1]])
    assert set(_requant(bench, tiles | [[0], [0], [3 << 30]], 10, False).flat) == {13}
    assert set(_requant(bench, tiles, 10, False, use_imm=True, reset=True).flat) == {13}
    bench.fill(MemoryType.ACC, [[5] * 4], sram_base=4)
    bench.uops(Uop(dst=4, src=3))
    bench.run([Alu(alu_opcode=AluOp.REQUANT, imm=10, **ONCE)])
    assert bench.acc[4].tolist() == [[13] * 4]


def _exactly(example: Example, out_bits: int) -> int:
    value = Fraction(int(wrap(example.acc + example.bias, 32)) * example.factor, 1 << example.shift)
    whole, rest = divmod(abs(value), 1)
    rounded = int(whole) + (rest >= Fraction(1, 2))
    lowest, highest = -(1 << out_bits - 1), (1 << out_bits - 1) - 1
    low = min(max(example.zero_point, lowest), highest) if example.relu else lowest
    return min(max((rounded if value > 0 else -rounded) + example.zero_point, low), highest)


@pytest.mark.parametrize("log_inp_width", [2, 3, 4])
def test_requant_is_exact(log_inp_width: int) -> None:
    """Random numbers of every magnitude, a different one in each lane, against rationals."""
    rng = np.random.default_rng(log_inp_width)
    bench = extended_bench(VTAConfig(log_batch=1, log_inp_width=log_inp_width, log_acc_buff_size=15))
    shape = (bench.config.batch, bench.config.block_out)
    for _ in range(60):
        x, bias = (rng.integers(-(1 << 31), 1 << 31, shape) >> rng.integers(0, 32, shape) for _ in range(2))
        factor, shift = rng.integers(0, 1 << 24, shape) >> rng.integers(0, 24, shape), rng.integers(0, 64, shape)
        zero_point, relu = int(rng.integers(-300, 300)), bool(rng.integers(2))
        found = _requant(bench, np.array([x, bias, factor | shift << 24]), zero_point, relu)
        lanes = zip(*(part.reshape(-1).tolist() for part in (x, bias, factor, shift, found)), strict=True)
        for *scalars, result in lanes:
            example = Example(*scalars, zero_point, relu, result)
            assert _exactly(example, bench.config.out_bits) == result, example


def test_steps_of_a_requant_follow_one_another() -> None:
    """The second step finds, as its bias, what the first one wrote."""
    bench = extended_bench()
    bench.fill(MemoryType.ACC, [[20] * 4, [1] * 4, [6] * 4, [1 << 24 | 1] * 4, [40] * 4])
    bench.uops(Uop(dst=0, src=2), Uop(dst=4, src=0), Uop(dst=1, src=3))
    bench.run([Alu(alu_opcode=AluOp.REQUANT, uop_end=3, iter_out=1, iter_in=1)])
    # (20 + 6) / 2 = 13; (40 + 13) * 1 / 1 = 53; (1 + 6) / 2 = 3.5.
    assert bench.acc[:5, 0, 0].tolist() == [13, 4, 6, 1 << 24 | 1, 53]


def _overwritten(bench: Bench, insn: GemmOverwrite, uops: list[Uop]) -> np.ndarray:
    acc, inp, wgt = bench.acc, bench.read(MemoryType.INP), bench.read(MemoryType.WGT)
    for o in range(insn.iter_out):
        for i in range(insn.iter_in):
            for uop in uops[insn.uop_bgn : insn.uop_end]:
                d = uop.dst + o * insn.dst_factor_out + i * insn.dst_factor_in
                s = uop.src + o * insn.src_factor_out + i * insn.src_factor_in
                w = uop.wgt + o * insn.wgt_factor_out + i * insn.wgt_factor_in
                acc[d] = wrap(inp[s] @ wgt[w].T, 32)
    return acc


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("config", CONFIGS[::2], ids=lambda config: config.name)
def test_overwriting_equals_the_definition(config: VTAConfig, distinct: bool) -> None:
    rng = np.random.default_rng(3)
    bench = extended_bench(config)
    for memory_type, bits in ((MemoryType.INP, config.inp_bits), (MemoryType.WGT, config.wgt_bits)):
        scalars = config.depth(memory_type) * config.dram_elem_bytes(memory_type) * 8 // bits
        bench.fill(memory_type, rng.integers(-(1 << bits - 1), 1 << bits - 1, scalars))
    for round_number in range(6):
        bench.fill(MemoryType.ACC, rng.integers(-99, 99, (16, config.batch, config.block_out)))
        n_out, n_in, count = (int(n) for n in rng.integers(1, 4, 3))
        dst = rng.permutation(2)[0] + 4 * np.arange(count) if distinct else rng.integers(0, 10, count)
        src, wgt = rng.integers(0, 3, (2, count))
        uops = [Uop(dst=int(d), src=int(s), wgt=int(w)) for d, s, w in zip(dst, src, wgt, strict=True)]
        factors: dict[str, Any] = {"dst_factor_out": 1, "dst_factor_in": 1}
        if distinct:
            n_out, n_in, factors = 1, min(n_in, 3), {"dst_factor_in": 1}
        insn = GemmOverwrite(
            reset=bool(round_number % 2),
            uop_end=count,
            iter_out=n_out,
            iter_in=n_in,
            src_factor_in=2,
            wgt_factor_out=1,
            **factors,
        )
        bench.uops(*uops)
        out, expected = bench.out, _overwritten(bench, insn, uops)
        report = bench.run([insn])
        np.testing.assert_array_equal(bench.acc, expected)
        touched = {uop.dst + o * insn.dst_factor_out + i for uop in uops for o in range(n_out) for i in range(n_in)}
        for d in range(16):
            np.testing.assert_array_equal(bench.out[d], wrap(expected[d], config.out_bits) if d in touched else out[d])
        assert report.counters.gemm_counter == n_out * n_in * count
        assert report.lint == ()


def test_the_last_of_several_products_stays() -> None:
    bench = extended_bench()
    bench.fill(MemoryType.INP, np.arange(1, 65).repeat(4))
    bench.fill(MemoryType.WGT, np.ones(16))
    bench.fill(MemoryType.ACC, np.full(16, 77))
    bench.uops(Uop(dst=1), Uop(dst=1, src=5))
    bench.run([GemmOverwrite(uop_end=2, iter_out=1, iter_in=2, src_factor_in=10)])
    assert bench.acc[:3].tolist() == [[[77] * 4], [[4 * 16] * 4], [[77] * 4]]
    bench.run([Gemm(**ONCE)])
    assert bench.acc[1].tolist() == [[4 * 16 + 4] * 4]


@pytest.mark.parametrize(
    ("memory_type", "smallest"), [(MemoryType.ACC_PAD_MIN, -(2**31)), (MemoryType.ACC_8BIT_PAD_MIN, -128)]
)
def test_padding_with_the_smallest_number(memory_type: MemoryType, smallest: int) -> None:
    bench = extended_bench()
    bits = 8 if memory_type is MemoryType.ACC_8BIT_PAD_MIN else 32
    bench.simulator.memory.write(DATA_AT, to_bytes([1, 2, 3, 4, -5, -6, -7, -8], bits))
    base = DATA_AT // bench.config.dram_elem_bytes(memory_type)
    window: dict[str, Any] = {"sram_base": 1, "dram_base": base, "y_size": 1, "x_size": 2}
    report = bench.run([Load(memory_type=memory_type, y_pad_1=1, x_pad_0=1, x_pad_1=1, **window)])
    low = [smallest] * 4
    assert bench.acc[:10, 0].tolist() == [
        [0] * 4,
        low,
        [1, 2, 3, 4],
        [-5, -6, -7, -8],
        low,
        low,
        low,
        low,
        low,
        [0] * 4,
    ]
    assert not bench.out.any()
    assert report.counters == Statistics(acc_load_nbytes=32, insn_count=2)
    np.testing.assert_array_equal(bench.read(memory_type), bench.acc)


def test_a_machine_of_tvm_knows_none_of_this() -> None:
    words = extended_bench().isa.encode_program
    for insn, rule in (
        (GemmOverwrite(**ONCE), "opcode must be 0 to 4, not 5"),
        (Alu(alu_opcode=AluOp.REQUANT, **ONCE), "ALU opcode must be 0 to 4, not 5"),
        (
            Load(memory_type=MemoryType.ACC_PAD_MIN, y_size=1, x_size=1),
            "memory type of a LOAD must be UOP, WGT, INP, ACC or ACC_8BIT, not 6",
        ),
    ):
        bench = Bench()
        bench.simulator.memory.write(0, words([insn]))
        with pytest.raises(UnknownOpcode) as caught:
            bench.simulator.launch(0, 1)
        assert caught.value.rule == rule


FAULTS: list[tuple[Insn, type[SimulationError], str]] = [
    (Unknown(opcode=6), UnknownOpcode, "opcode must be 0 to 5, not 6"),
    (Alu(alu_opcode=6), UnknownOpcode, "ALU opcode must be 0 to 5, not 6"),
    (
        Load(memory_type=MemoryType.OUT, y_size=1, x_size=1),
        UnknownOpcode,
        "memory type of a LOAD must be UOP, WGT, INP, ACC, ACC_8BIT, ACC_PAD_MIN or ACC_8BIT_PAD_MIN, not 4",
    ),
    (
        Store(memory_type=MemoryType.ACC_PAD_MIN, y_size=1, x_size=1),
        UnknownOpcode,
        "memory type of a STORE must be OUT (4), not 6",
    ),
    (
        Load(memory_type=MemoryType.ACC_8BIT_PAD_MIN, sram_base=62, y_size=1, x_size=1, x_pad_0=2),
        OutOfRange,
        "LOAD must end within the 64 elements of its scratchpad, not at 65",
    ),
    (
        GemmOverwrite(uop_end=1, iter_out=1, iter_in=65, dst_factor_in=1, reset=True),
        OutOfRange,
        "ACC index must be below 64, not 64 (dst of micro-op 0)",
    ),
    (
        GemmOverwrite(uop_end=1, iter_out=1, iter_in=65, src_factor_in=1, reset=True),
        OutOfRange,
        "INP index must be below 64, not 64 (src of micro-op 0)",
    ),
    (
        GemmOverwrite(uop_end=1, iter_out=1, iter_in=17, wgt_factor_in=1, reset=True),
        OutOfRange,
        "WGT index must be below 16, not 16 (wgt of micro-op 0)",
    ),
    (
        Alu(alu_opcode=AluOp.REQUANT, use_imm=True, uop_end=1, iter_out=1, iter_in=65, src_factor_in=1),
        OutOfRange,
        "ACC index must be below 64, not 64 (src of micro-op 0)",
    ),
]


@pytest.mark.parametrize(("insn", "error", "rule"), FAULTS, ids=[rule for _, _, rule in FAULTS])
def test_error_names_instruction_and_rule(insn: Insn, error: type[SimulationError], rule: str) -> None:
    bench = extended_bench()
    with pytest.raises(error) as caught:
        bench.run([insn])
    assert str(caught.value) == f"Instruction 0 ({disassemble(insn)}): {rule}"


def test_the_last_pair_of_tiles_is_in_range() -> None:
    bench = extended_bench()
    bench.uops(Uop(dst=0, src=63))
    bench.run([Alu(alu_opcode=AluOp.REQUANT, **ONCE)])
    # What TVM does not have and does not move data is no error on an extended machine, as any other empty transfer.
    bench.run([Store(memory_type=MemoryType.ACC_PAD_MIN, x_size=9), Load(memory_type=MemoryType.ACC_PAD_MIN, y_size=9)])
