"""STORE of rows and widths, against VTA spec 3.3."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vta_sim.functional.bench import SMALL, Bench, from_bytes, wrap
from tests.vta_sim.functional.test_gemm import CONFIGS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import Alu, AluOp, MemoryType, Store
from vta_sim.functional.engine import Bases

OUT_BASE = 7 * 4096 - 5


def _touch_all(bench: Bench) -> None:
    """Let OUT follow the accumulators, by an operation that changes nothing."""
    depth = bench.config.acc_depth
    bench.run([Alu(uop_end=1, iter_out=1, iter_in=depth, dst_factor_in=1, alu_opcode=AluOp.SHR, use_imm=True)])


@pytest.mark.parametrize("config", [SMALL, VTAConfig(), *CONFIGS], ids=lambda config: config.name)
def test_store_equals_the_definition(config: VTAConfig) -> None:
    rng = np.random.default_rng(9)
    bench = Bench(config)
    acc = rng.integers(-(1 << 31), 1 << 31, (config.acc_depth, config.batch * config.block_out))
    bench.fill(MemoryType.ACC, acc)
    _touch_all(bench)
    # What was loaded since, here the first two tiles, must not be seen.
    bench.fill(MemoryType.ACC, np.zeros(2 * config.batch * config.block_out))
    tiles = wrap(acc, config.out_bits)
    size = config.out_elem_bytes
    for _ in range(10):
        y_size, x_size, stride, dram = (int(n) for n in rng.integers((0, 0, 0, 0), (4, 5, 9, 20)))
        base = int(rng.integers(0, config.acc_depth - y_size * x_size + 1))
        expected = np.full((64, tiles.shape[1]), -1)
        for y in range(y_size):
            for x in range(x_size):
                expected[dram + y * stride + x] = tiles[base + y * x_size + x]
        bench.simulator.memory.write(OUT_BASE, np.full(64 * size, 255, np.uint8))
        insn = Store(
            memory_type=MemoryType.OUT, sram_base=base, dram_base=dram, y_size=y_size, x_size=x_size, x_stride=stride
        )
        bench.run([insn], bases=Bases(out=OUT_BASE))
        stored = from_bytes(bench.simulator.memory.read(OUT_BASE, 64 * size), config.out_bits)
        np.testing.assert_array_equal(stored.reshape(64, -1), expected)


def test_a_store_without_elements_is_allowed_for_every_type_and_place() -> None:
    bench = Bench()
    bench.run([Store(memory_type=kind, sram_base=65535, y_size=rows) for kind in range(8) for rows in (0, 9)])
    bench.run([Store(memory_type=MemoryType.UOP, x_size=9)])


def test_pads_of_a_store_are_ignored_and_reported() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, [1, 2, 3, 4])
    _touch_all(bench)
    report = bench.run(
        [Store(memory_type=MemoryType.OUT, dram_base=2, y_size=1, x_size=1, y_pad_0=1, x_pad_0=2, x_pad_1=3)]
    )
    assert bench.simulator.memory.read(0, 16).tolist() == [0] * 8 + [1, 2, 3, 4] + [0] * 4
    assert [str(lint) for lint in report.lint] == [
        "Instruction 0: a STORE must have no pads; they are ignored here, TVM's fsim refuses them"
    ]


def test_a_store_of_loaded_data_stores_the_older_and_is_reported() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, [1, 2, 3, 4])
    bench.simulator.memory.write(8, bytes([9] * 4))
    report = bench.run([Store(memory_type=MemoryType.OUT, dram_base=2, y_size=1, x_size=1)])
    assert bench.simulator.memory.read(8, 4).tolist() == [0, 0, 0, 0]
    assert [str(lint) for lint in report.lint] == [
        "Instruction 0: a STORE must take what GEMM or ALU wrote after the last LOAD; OUT holds older data"
    ]


def test_stores_may_need_more_memory_than_there_is_at_first() -> None:
    bench = Bench(VTAConfig())
    depth = bench.config.acc_depth
    bench.fill(MemoryType.ACC, np.arange(depth * 16) % 100)
    _touch_all(bench)
    stores = [Store(memory_type=MemoryType.OUT, dram_base=n * depth, y_size=1, x_size=depth) for n in range(300)]
    bench.run(stores)
    for n in (0, 7, 150, 299):
        stored = bench.simulator.memory.read(n * depth * 16, depth * 16)
        np.testing.assert_array_equal(stored, np.arange(depth * 16) % 100)
