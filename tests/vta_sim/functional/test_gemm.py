"""GEMM against a loop that follows VTA spec 3.4 word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.vta_sim.functional.bench import SMALL, Bench, wrap
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import Gemm, MemoryType, Uop

CONFIGS = [
    VTAConfig(
        log_batch=batch,
        log_block_in=block_in,
        log_block_out=block_out,
        log_inp_width=inp,
        log_wgt_width=wgt,
        # 16 micro-ops, 16 inputs, 8 weights, 16 accumulators, whatever the shape.
        log_uop_buff_size=6,
        log_inp_buff_size=4 + batch + block_in + inp - 3,
        log_wgt_buff_size=3 + block_in + block_out + wgt - 3,
        log_acc_buff_size=4 + batch + block_out + 5 - 3,
    )
    for batch, block_in, block_out, inp, wgt in [
        (0, 4, 4, 3, 3),
        (0, 4, 4, 4, 4),
        (0, 4, 4, 2, 2),
        (0, 5, 5, 3, 3),
        (0, 6, 4, 3, 3),
        (0, 4, 6, 2, 4),
        (1, 4, 4, 3, 2),
        (2, 3, 3, 3, 3),
        (0, 3, 3, 4, 2),
        (0, 2, 2, 3, 3),
        (3, 2, 1, 2, 2),
        (0, 1, 1, 2, 2),
        (0, 1, 5, 3, 3),
        (1, 6, 1, 4, 4),
        (5, 3, 2, 3, 3),
    ]
]


def _random_gemm(rng: np.random.Generator) -> tuple[Gemm, list[Uop]]:
    """A nest whose indices stay below 16, 16 and 8; factors and micro-ops are often regular, as compilers make them."""
    n_out, n_in, count = (int(n) for n in rng.integers(1, 4, 3))
    factors = rng.integers(0, 2, 6)
    dst, src, wgt = (rng.integers(0, high, count) for high in (10, 10, 3))
    if rng.integers(2):
        wgt[:] = wgt[0]
    if rng.integers(2):
        dst, src = dst[0] + np.arange(count), src[0] + np.arange(count)
    names = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in", "wgt_factor_out", "wgt_factor_in")
    values: dict[str, Any] = {name: int(value) for name, value in zip(names, factors, strict=True)}
    uops = [Uop(dst=int(d), src=int(s), wgt=int(w)) for d, s, w in zip(dst, src, wgt, strict=True)]
    return Gemm(uop_end=count, iter_out=n_out, iter_in=n_in, **values), uops


def _reference(insn: Gemm, uops: list[Uop], inp: np.ndarray, wgt: np.ndarray, acc: np.ndarray) -> set[int]:
    """Execute on [depth][...] arrays of Python-sized integers; return the accumulators touched."""
    touched = set()
    for o in range(insn.iter_out):
        for i in range(insn.iter_in):
            for uop in uops[insn.uop_bgn : insn.uop_end]:
                d = uop.dst + o * insn.dst_factor_out + i * insn.dst_factor_in
                s = uop.src + o * insn.src_factor_out + i * insn.src_factor_in
                w = uop.wgt + o * insn.wgt_factor_out + i * insn.wgt_factor_in
                acc[d] = wrap(acc[d] + inp[s] @ wgt[w].T, 32)
                touched.add(d)
    return touched


def _numbers(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers, with the extremes in a quarter of the places."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    numbers = rng.integers(low, high + 1, shape)
    return np.where(rng.integers(0, 4, shape) == 0, rng.choice([low, high], shape), numbers)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_gemm_equals_the_definition(config: VTAConfig) -> None:
    rng = np.random.default_rng(7)
    bench = Bench(config)
    for _ in range(12):
        inp = _numbers(rng, config.inp_bits, (16, config.batch, config.block_in))
        wgt = _numbers(rng, config.wgt_bits, (8, config.block_out, config.block_in))
        acc = _numbers(rng, 32, (16, config.batch, config.block_out))
        insn, uops = _random_gemm(rng)
        bench.fill(MemoryType.INP, inp)
        bench.fill(MemoryType.WGT, wgt)
        bench.fill(MemoryType.ACC, acc)
        bench.uops(*uops)
        out = bench.out
        touched = _reference(insn, uops, inp, wgt, acc)
        bench.run([insn])
        np.testing.assert_array_equal(bench.acc, acc)
        for index in range(16):
            expected = wrap(acc[index], config.out_bits) if index in touched else out[index]
            np.testing.assert_array_equal(bench.out[index], expected)
        np.testing.assert_array_equal(bench.read(MemoryType.INP), inp)
        np.testing.assert_array_equal(bench.read(MemoryType.WGT), wgt)


def test_products_of_the_lowest_numbers_wrap_as_a_sum_does() -> None:
    config = VTAConfig(log_inp_width=4, log_wgt_width=4, log_inp_buff_size=16, log_wgt_buff_size=19)
    bench = Bench(config)
    bench.fill(MemoryType.INP, np.full(16, -32768))
    bench.fill(MemoryType.WGT, np.full(256, -32768))
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=1)])
    assert (bench.acc[0] == wrap(16 * 2**30, 32)).all()
    bench.fill(MemoryType.WGT, np.array([-32768, -32768] + [0] * 14).repeat(16).reshape(16, 16).T)
    bench.fill(MemoryType.ACC, np.zeros(16))
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=1)])
    assert (bench.acc[0] == -(2**31)).all()


def test_the_same_accumulator_in_consecutive_steps_sees_every_step() -> None:
    bench = Bench()
    bench.fill(MemoryType.INP, np.arange(12))
    bench.fill(MemoryType.WGT, np.ones(16))
    bench.uops(Uop(dst=5, src=0), Uop(dst=5, src=1), Uop(dst=5, src=1), Uop(dst=5, src=2))
    bench.run([Gemm(uop_end=4, iter_out=3, iter_in=2)])
    assert bench.acc[5].tolist() == [[6 * (6 + 22 + 22 + 38)] * 4]


def test_reset_writes_zero_to_acc_and_out_and_ignores_src_and_wgt() -> None:
    bench = Bench()
    bench.fill(MemoryType.INP, np.ones(4))
    bench.fill(MemoryType.WGT, np.ones(16))
    bench.uops(Uop(dst=2), Uop(dst=3, src=63, wgt=15))
    bench.run([Gemm(uop_end=2, iter_out=1, iter_in=1)])
    bench.fill(MemoryType.ACC, np.arange(1, 17), sram_base=0)
    far = Gemm(reset=True, uop_end=2, iter_out=2, iter_in=1, dst_factor_out=10, src_factor_out=63, wgt_factor_out=15)
    bench.run([far])
    for index in (2, 3, 12, 13):
        assert not bench.acc[index].any()
        assert not bench.out[index].any()
    assert bench.acc[:2].reshape(-1).tolist() == list(range(1, 9))


@pytest.mark.parametrize(
    "insn",
    [
        Gemm(uop_end=1, iter_out=0, iter_in=1),
        Gemm(uop_end=1, iter_out=1, iter_in=0),
        Gemm(uop_bgn=1, uop_end=1, iter_out=1, iter_in=1),
        Gemm(uop_bgn=3, uop_end=1, iter_out=1, iter_in=1),
        Gemm(uop_bgn=63, uop_end=0, iter_out=9999, iter_in=9999, dst_factor_out=63),
    ],
)
def test_an_empty_loop_does_nothing(insn: Gemm) -> None:
    bench = Bench()
    bench.fill(MemoryType.INP, np.ones(4))
    bench.fill(MemoryType.WGT, np.ones(16))
    report = bench.run([insn])
    assert not bench.acc.any()
    assert report.counters.gemm_counter == 0


def test_small_config_is_what_its_name_says() -> None:
    assert (SMALL.uop_depth, SMALL.inp_depth, SMALL.wgt_depth, SMALL.acc_depth) == (64, 64, 16, 64)
