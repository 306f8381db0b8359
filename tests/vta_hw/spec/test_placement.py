"""Instructions are put where their stream has nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vta.streams import code
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.placement import merged, place_instructions, touched
from vta_hw.spec.program import Program, ProgramError

CONFIG = VTAConfig()


def test_what_loads_and_stores_may_reach() -> None:
    source = """
    load.inp dram_base=0x100 y_size=3 x_size=2 x_stride=8 x_pad_0=4
    load.wgt dram_base=2 y_size=1 x_size=1
    load.acc_8bit dram_base=1 y_size=1 x_size=2
    store.uop dram_base=3 y_size=1 x_size=1
    load.6 dram_base=1 y_size=1 x_size=1
    load.uop dram_base=9 y_size=0 x_size=5
    load.uop dram_base=9 y_size=5 x_size=0
    gemm uop_end=5 iter_in=1 iter_out=1
    """
    bases = {
        MemoryType.INP: 0x10000,
        MemoryType.WGT: 0x20000,
        MemoryType.ACC: 0x30000,
        MemoryType.OUT: 0x40000,
    }
    assert touched(CONFIG, code(CONFIG, source), bases) == [
        (0x20200, 0x20300),
        (0x11000, 0x11000 + 18 * 16),
        (0x40030, 0x40040),
        (0x30010, 0x30030),
    ]


def test_padded_minima_come_from_where_accumulators_do() -> None:
    extended = replace(CONFIG, isa="extended")
    source = "load.acc_pad_min dram_base=2 y_size=1 x_size=1\nload.acc_8bit_pad_min dram_base=1 y_size=1 x_size=2"
    assert touched(extended, code(extended, source), {MemoryType.ACC: 0x30000}) == [
        (0x30080, 0x300C0),
        (0x30010, 0x30030),
    ]


def test_the_first_gap_that_is_large_enough() -> None:
    insns = code(CONFIG, "load.inp dram_base=0x200 y_size=1 x_size=1\n" + "finish\n" * 300)
    assert place_instructions(CONFIG, insns) == 0x3000
    assert place_instructions(CONFIG, insns, taken=[(0x3000, 0x3001)]) == 0x4000
    assert place_instructions(CONFIG, insns, taken=[(0x6000, 0x7000), (0x2900, 0x3500)]) == 0x4000
    assert place_instructions(CONFIG, code(CONFIG, "finish"), taken=[(0x5000, 0x6000)]) == 0x1000


def test_no_gap() -> None:
    with pytest.raises(
        ProgramError, match=r"^Memory below 2\*\*32 must have room for 16 bytes of instructions; give their address$"
    ):
        place_instructions(CONFIG, code(CONFIG, "finish"), taken=[(0, 1 << 32)])


def test_intervals_merge() -> None:
    assert merged([(5, 6), (0, 2), (2, 3), (10, 20), (12, 15)]) == [(0, 3), (5, 6), (10, 20)]


def test_raw_programs_are_placed() -> None:
    insns = code(CONFIG, "load.inp dram_base=0x100 y_size=1 x_size=1\nfinish")
    assert Program.raw(config=CONFIG, insns=insns).insn_address == 0x2000
    assert Program.raw(config=CONFIG, insns=insns, bases={MemoryType.INP: 0x1000}).insn_address == 0x1000
    assert Program.raw(config=CONFIG, insns=insns, reserved=[(0x2000, 0x2001)]).insn_address == 0x3000


def test_rows_far_apart_leave_room_between_them() -> None:
    sparse = "load.acc y_size=2048 x_size=1 x_stride=65535\nfinish"
    assert place_instructions(CONFIG, code(CONFIG, sparse)) == 0x1000
    impossible = "load.acc y_size=65535 x_size=65535 x_stride=65535\nfinish"  # its execution is what says so
    assert place_instructions(CONFIG, code(CONFIG, impossible)) == 0x1000
