"""LOAD of every memory type, with pads, strides and corners, against VTA spec 3.2 in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.vta_sim.functional.bench import SMALL, Bench, to_bytes, wrap
from tests.vta_sim.functional.test_gemm import CONFIGS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import Gemm, Load, MemoryType
from vta_sim.functional.engine import Bases

LOADABLE = [MemoryType.UOP, MemoryType.WGT, MemoryType.INP, MemoryType.ACC, MemoryType.ACC_8BIT]


def _bits(config: VTAConfig, memory_type: MemoryType) -> int:
    return {
        MemoryType.UOP: 32,
        MemoryType.WGT: config.wgt_bits,
        MemoryType.INP: config.inp_bits,
        MemoryType.ACC: 32,
        MemoryType.ACC_8BIT: 8,
    }[memory_type]


def _window(insn: Load, memory: np.ndarray) -> np.ndarray:
    """The elements a LOAD writes, from memory as [element][scalar]."""
    width = insn.x_pad_0 + insn.x_size + insn.x_pad_1
    height = insn.y_pad_0 + insn.y_size + insn.y_pad_1
    window = np.zeros((height, width, memory.shape[1]), np.int64)
    for y in range(insn.y_size):
        row = memory[insn.dram_base + y * insn.x_stride :][: insn.x_size]
        window[insn.y_pad_0 + y, insn.x_pad_0 : insn.x_pad_0 + insn.x_size] = row
    return window.reshape(height * width, memory.shape[1])


def _ones_everywhere(bench: Bench, memory_type: MemoryType) -> None:
    depth = bench.config.depth(memory_type)
    kind = MemoryType.ACC if memory_type is MemoryType.ACC_8BIT else memory_type
    scalars = depth * bench.config.dram_elem_bytes(kind) * 8 // _bits(bench.config, kind)
    bench.fill(kind, np.ones(scalars))


@pytest.mark.parametrize("memory_type", LOADABLE)
@pytest.mark.parametrize("config", [SMALL, VTAConfig(), *CONFIGS[1::3]], ids=lambda config: config.name)
def test_load_equals_the_definition(config: VTAConfig, memory_type: MemoryType) -> None:
    rng = np.random.default_rng(5)
    bench = Bench(config)
    bits = _bits(config, memory_type)
    scalars = config.dram_elem_bytes(memory_type) * 8 // bits
    memory = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (64, scalars))
    # An odd base: elements straddle pages and are not aligned.
    base = (1 << 33) - 3
    bench.simulator.memory.write(base, to_bytes(memory, bits))
    depth = config.depth(memory_type)
    for _ in range(10):
        while True:
            y_size, x_size, stride, dram = (int(n) for n in rng.integers((0, 1, 0, 0), (4, 5, 9, 20)))
            pads = [int(n) for n in rng.integers(0, 3, 4)]
            elements = (pads[0] + y_size + pads[1]) * (pads[2] + x_size + pads[3])
            if elements <= depth:
                break
        insn = Load(
            memory_type=memory_type,
            sram_base=int(rng.integers(0, depth - elements + 1)),
            dram_base=dram,
            y_size=y_size,
            x_size=x_size,
            x_stride=stride,
            y_pad_0=pads[0],
            y_pad_1=pads[1],
            x_pad_0=pads[2],
            x_pad_1=pads[3],
        )
        _ones_everywhere(bench, memory_type)
        before = bench.read(memory_type).reshape(depth, -1)
        expected = before.copy()
        expected[insn.sram_base : insn.sram_base + elements] = _window(insn, memory)
        if memory_type is MemoryType.UOP:
            expected &= 0xFFFFFFFF
        bench.run([insn], bases=Bases(uop=base, wgt=base, inp=base, acc=base))
        np.testing.assert_array_equal(bench.read(memory_type).reshape(depth, -1), expected)


@pytest.mark.parametrize("memory_type", [*LOADABLE, MemoryType.OUT, 6, 7])
def test_a_load_without_columns_does_nothing_of_any_type_anywhere(memory_type: int) -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.ones(4))
    pads: dict[str, Any] = {"y_pad_0": 15, "y_pad_1": 15, "x_pad_0": 15, "x_pad_1": 15}
    report = bench.run([Load(memory_type=memory_type, sram_base=65535, y_size=65535, **pads)])
    assert bench.acc[0].tolist() == [[1] * 4]
    assert report.counters.acc_load_nbytes == 0


def test_a_load_without_rows_writes_its_row_pads_alone() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.ones(4 * 12))
    bench.run([Load(memory_type=MemoryType.ACC, sram_base=1, x_size=2, x_pad_0=1, x_stride=2, y_pad_0=2, y_pad_1=1)])
    assert bench.acc[:12, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    bench.run([Load(memory_type=MemoryType.ACC, sram_base=65535, x_size=2, x_pad_0=1)])


def test_memory_that_nobody_wrote_loads_as_zero() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.ones(8))
    bench.run([Load(memory_type=MemoryType.ACC, dram_base=0xFFFFFFFF, y_size=1, x_size=1, x_stride=1)])
    assert bench.acc[:3, 0, 0].tolist() == [0, 1, 0]


def test_addresses_wrap_at_64_bits() -> None:
    bench = Bench()
    bench.simulator.memory.write(0, to_bytes([5, 6, 7, 8], 32))
    load = Load(memory_type=MemoryType.ACC, dram_base=1, y_size=1, x_size=1, x_stride=1)
    bench.run([load], bases=Bases(acc=(1 << 64) - 16))
    assert bench.acc[0].tolist() == [[5, 6, 7, 8]]


def test_each_memory_type_has_its_base_register() -> None:
    bench = Bench()
    values = {MemoryType.UOP: 1, MemoryType.INP: 2, MemoryType.WGT: 3, MemoryType.ACC: 4}
    for kind, value in values.items():
        scalars = SMALL.dram_elem_bytes(kind) * 8 // _bits(SMALL, kind)
        bench.simulator.memory.write(value << 33, to_bytes([value] * scalars, _bits(SMALL, kind)))
    bases = Bases(uop=1 << 33, inp=2 << 33, wgt=3 << 33, acc=4 << 33)
    bench.run([Load(memory_type=kind, y_size=1, x_size=1, x_stride=1) for kind in values], bases=bases)
    for kind, value in values.items():
        assert (bench.read(kind)[0] == value).all()
    # ACC_8BIT goes through the same register as ACC: the bytes of one int32 become four accumulators.
    bench.run([Load(memory_type=MemoryType.ACC_8BIT, y_size=1, x_size=1, x_stride=1)], bases=bases)
    assert bench.acc[0].tolist() == [[4, 0, 0, 0]]


def test_load_does_not_reach_out() -> None:
    bench = Bench()
    bench.fill(MemoryType.INP, np.ones(4))
    bench.fill(MemoryType.WGT, np.full(16, 25))
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=3, dst_factor_in=1)])
    bench.fill(MemoryType.ACC, np.full(4, 300), sram_base=1)
    assert bench.acc[:3, 0, 0].tolist() == [100, 300, 100]
    assert bench.out[:3, 0, 0].tolist() == [100, 100, 100]
    bench.fill(MemoryType.ACC, np.full(4, 7), sram_base=1)
    assert bench.out[:3, 0, 0].tolist() == [100, 100, 100]
    bench.run([Gemm(uop_end=1, iter_out=1, iter_in=3, dst_factor_in=1)])
    assert bench.out[:3, 0, 0].tolist() == wrap([200, 107, 200], 8).tolist()


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_base_registers_have_64_bits(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^Base register inp must be 0 to 2\*\*64 - 1, not {value}$"):
        Bases(inp=value)
