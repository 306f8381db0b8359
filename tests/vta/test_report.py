"""Static costs, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vta.streams import code
from vta.report import Cost, layer_costs, total_cost
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Launch, Layer, Program

SOURCE = """
load.inp y_size=2 x_size=3 x_stride=9 x_pad_0=1
load.wgt y_size=1 x_size=2 x_stride=2
gemm uop_bgn=1 uop_end=4 iter_out=2 iter_in=5 reset
gemm uop_bgn=0 uop_end=4 iter_out=2 iter_in=5
alu.add uop_bgn=4 uop_end=3 iter_out=1 iter_in=1
alu.shr uop_end=1 iter_out=2 iter_in=5
store.out y_size=5 x_size=1 x_stride=1
load.acc y_size=1 x_size=100
finish
"""


def program(config: VTAConfig) -> Program:
    return Program(
        config=config,
        insns=code(config, SOURCE),
        arena_bytes=0x1000,
        steps=(Launch(insn_begin=0, insn_count=9),),
        layers=(
            Layer(name="conv", insn_begin=0, insn_end=7, macs=10_240),
            Layer(name="nothing", insn_begin=7, insn_end=7),
            Layer(name="copy", insn_begin=7, insn_end=8),
        ),
    )


def test_a_layer_bound_by_the_compute_unit() -> None:
    conv, copy = layer_costs(program(VTAConfig()))
    assert conv == Cost(
        name="conv",
        instructions=7,
        macs=10_240,
        gemm_uops=40,
        reset_uops=30,
        alu_uops=10,
        load_bytes=6 * 16 + 2 * 256,
        store_bytes=5 * 16,
        cycles_bound=86,
        utilisation_bound=10_240 / (86 * 256),
    )
    assert (copy.name, copy.load_bytes, copy.cycles_bound, copy.utilisation_bound) == ("copy", 6400, 800, 0.0)


def test_the_bus_width_moves_the_bound() -> None:
    wide = layer_costs(program(VTAConfig(log_bus_width=7)))[0]
    assert wide.cycles_bound == 80
    assert wide.utilisation_bound == pytest.approx(0.5)
    assert wide.as_dict()["dram_bytes"] == wide.dram_bytes == 688


def test_overlap_moves_the_bound() -> None:
    # The GEMM alone takes 70 steps; 688 bytes take 22 cycles of a wide bus.
    assert layer_costs(program(VTAConfig(log_bus_width=8, overlap=True)))[0].cycles_bound == 70
    assert layer_costs(program(VTAConfig(log_bus_width=8)))[0].cycles_bound == 80


def test_the_extended_set_is_counted() -> None:
    config = VTAConfig(isa="extended")
    source = """
    load.acc_pad_min y_size=2 x_size=3
    load.acc_8bit_pad_min y_size=1 x_size=4
    gemm_overwrite uop_end=4 iter_out=2 iter_in=5 reset
    alu.requant uop_end=1 iter_out=2 iter_in=5
    """
    costs = total_cost(replace(program(config), insns=code(config, source), steps=(), layers=()))
    assert (costs.load_bytes, costs.gemm_uops, costs.reset_uops, costs.alu_uops) == (6 * 64 + 4 * 16, 40, 0, 10)


def test_the_total_counts_every_instruction() -> None:
    total = total_cost(program(VTAConfig()))
    assert (total.instructions, total.macs, total.load_bytes) == (9, 10_240, 608 + 6400)


def test_a_program_without_instructions() -> None:
    empty = replace(program(VTAConfig()), insns=b"", steps=(), layers=())
    assert layer_costs(empty) == ()
    assert total_cost(empty).utilisation_bound == 0.0
