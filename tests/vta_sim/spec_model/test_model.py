"""The model against the specification's golden vectors, a naive reading of GEMM, and itself in random order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.vta_sim.spec_model import layout, pipeline
from tests.vta_sim.spec_model.generate import Generator, random_config
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT, ModelConfig
from tests.vta_sim.spec_model.machine import Machine, alu, requantise
from tests.vta_sim.spec_model.packing import pack, unpack, wrap
from tests.vta_sim.spec_model.requant_examples import BY_BITS

# VTA spec 2.9: batch, block, (uop, inp, wgt, acc) buffer logs, then GEMM, ALU and micro-op.
GOLDEN = [
    (0, 4, (15, 15, 18, 17), "1845e09a0cc158552aab55500120034a", "fffbb01001c030050008001800400124", "1581a012"),
    (0, 5, (15, 15, 18, 17), "00615e134330ac552aab55500120034a", "0fffbb02007018050008001800400124", "0560d012"),
    (0, 4, (10, 15, 18, 17), "000308bc1341982b0aaaaad55409034a", "001fff760200380600a0020006020124", "1581a012"),
    (1, 4, (15, 15, 18, 17), "01845e134330ac552aab55500120034a", "0fffbb02007018050008001800400124", "0560d012"),
    (0, 4, (15, 14, 18, 17), "0611784d0cc158552aab55500120034a", "fffbb01001c030050008001800400124", "1581a012"),
    (0, 4, (12, 14, 17, 16), "00c25e134330ac5500aaad554024034a", "0fffbb02007018050000200060080124", "0560d012"),
    (2, 4, (15, 16, 19, 18), "03085e134330ac552aab55500120034a", "0fffbb02007018050008001800400124", "0560d012"),
]
NEST = ("uop_bgn", "uop_end", "iter_out", "iter_in")
FACTORS = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in")


@pytest.mark.parametrize(("log_batch", "log_block", "logs", "gemm", "alu_word", "uop"), GOLDEN)
def test_golden_vectors(
    log_batch: int, log_block: int, logs: tuple[int, ...], gemm: str, alu_word: str, uop: str
) -> None:
    uop_log, inp_log, wgt_log, acc_log = logs
    config = ModelConfig(
        log_batch=log_batch,
        log_block_in=log_block,
        log_block_out=log_block,
        log_uop_buff=uop_log,
        log_inp_buff=inp_log,
        log_wgt_buff=wgt_log,
        log_acc_buff=acc_log,
    )
    nest = dict(zip(NEST, (3, 9, 0x2AAA, 0x1555), strict=True))
    nest |= dict(zip(FACTORS, (0x55, 0x2B, 0x33, 0x4D), strict=True))
    nest |= {"pop_prev": 1, "push_next": 1, "wgt_factor_out": 0x5E, "wgt_factor_in": 0x61}
    assert layout.encode(config, layout.GEMM, **nest) == int(gemm, 16)
    assert layout.decode(config, int(gemm, 16)) == {"opcode": 2, "pop_next": 0, "push_prev": 0, "reset": 0} | nest
    fields = dict(zip((*NEST, *FACTORS), range(1, 9), strict=True))
    fields |= {"push_prev": 1, "alu_opcode": layout.SHR, "use_imm": 1, "imm": -5}
    assert layout.encode(config, layout.ALU, **fields) == int(alu_word, 16)
    assert layout.put(layout.uop_slots(config), {"dst": 0x12, "src": 0x34, "wgt": 0x56}) == int(uop, 16)


def test_golden_memory_instructions() -> None:
    config = ModelConfig()
    load = layout.encode(
        config,
        layout.LOAD,
        pop_next=1,
        push_next=1,
        memory_type=INP,
        sram_base=0x123,
        dram_base=0x89ABCDEF,
        y_size=5,
        x_size=7,
        x_stride=0x1234,
        y_pad_0=1,
        y_pad_1=2,
        x_pad_0=3,
        x_pad_1=4,
    )
    assert load == 0x43211234000700050226AF37BC048D50
    store = {"memory_type": OUT, "sram_base": 0xFEDC, "dram_base": 0x10203, "y_size": 0xFFFF, "x_size": 1}
    word = layout.encode(config, layout.STORE, pop_prev=1, push_prev=1, x_stride=0x8000, **store)
    assert word == 0x000080000001FFFF000004080FFB7229


@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
def test_packing_round_trip(bits: int) -> None:
    values = np.random.default_rng(bits).integers(-(1 << bits - 1), 1 << bits - 1, 64)
    assert np.array_equal(unpack(pack(values, bits), bits), values)
    assert np.array_equal(wrap(values + (5 << bits), bits), values)


def test_four_bit_lanes_start_at_the_low_end() -> None:
    assert unpack(np.array([0x2F, 0x80], np.uint8), 4).tolist() == [-1, 2, 0, -8]


@pytest.mark.parametrize(
    ("x", "y", "result"),
    [
        (-8, 1, -4),
        (-8, 31, -1),
        (-8, 32, -8),
        (-8, 33, -4),
        (3, -1, 6),
        (3, -16, 3 << 16),
        (3, -31, -1 << 31),
        (3, -32, 3),
    ],
)
def test_shift_amounts(x: int, y: int, result: int) -> None:
    assert int(wrap(alu(layout.SHR, np.array(x), np.array(y)), 32)) == result


@pytest.mark.parametrize("bits", BY_BITS)
def test_requant_by_hand(bits: int) -> None:
    for example in BY_BITS[bits]:
        total, parameters = wrap(np.array([example.acc + example.bias]), 32), example.factor | example.shift << 24
        imm = (example.zero_point & 0x7FFF) - (0x8000 if example.relu else 0)
        assert requantise(total, np.array([parameters]), imm, bits).tolist() == [example.result], example


def test_gemm_equals_the_loop_nest_of_the_specification() -> None:
    config = ModelConfig(log_batch=1, log_block_in=2, log_block_out=3, log_inp_buff=8, log_wgt_buff=9, log_acc_buff=10)
    rng, machine = np.random.default_rng(7), Machine(config)
    for memory in (INP, WGT, ACC):
        machine.pads[memory][:] = rng.integers(-128, 128, machine.pads[memory].shape)
    slots = layout.uop_slots(config)
    machine.pads[UOP][:3] = [layout.put(slots, {"dst": u, "src": 3 - u, "wgt": 2 * u}) for u in range(3)]
    expected = machine.pads[ACC].copy()
    fields = {"dst_factor_out": 0, "dst_factor_in": 1, "src_factor_out": 2, "src_factor_in": 1, "wgt_factor_in": 3}
    for o in range(4):
        for i in range(3):
            for u in range(3):
                d, s, w = u + i, 3 - u + 2 * o + i, 2 * u + 3 * i
                for b in range(config.batch):
                    for oc in range(config.block_out):
                        for ic in range(config.block_in):
                            expected[d, b, oc] += machine.pads[INP][s, b, ic] * machine.pads[WGT][w, oc, ic]
    word = layout.encode(config, layout.GEMM, uop_end=3, iter_out=4, iter_in=3, **fields)
    machine.execute(0, layout.decode(config, word))
    assert np.array_equal(machine.pads[ACC], expected)
    assert np.array_equal(machine.pads[OUT][:5], wrap(expected[:5], 8))
    assert machine.statistics.gemm_counter == 36


@pytest.mark.parametrize("seed", range(6))
def test_generated_programs_have_one_answer_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    generator = Generator(rng, random_config(rng), tokens_before=(seed % 3, 1, 0, seed % 2))
    program = generator.generate(30, drain=seed % 2 == 0)
    for order in (None, random.Random(1), random.Random(2)):
        machine = Machine(program.config, program.dram.copy())
        left = pipeline.run(machine, program.words, tokens=program.tokens_before, order=order)
        assert left.tokens == program.tokens_after
        for memory, pad in generator.machine.pads.items():
            assert np.array_equal(machine.pads[memory], pad), memory
