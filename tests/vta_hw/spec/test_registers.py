"""The register map: where the Chisel core has it, and nothing overlapping above."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from vta_hw.spec.registers import (
    EXTENSION_BASE,
    EXTENSION_END,
    REGISTERS,
    Access,
    Control,
    PointerWidth,
    RegisterError,
    Status,
)

NARROW = REGISTERS[PointerWidth.BITS_32]
WIDE = REGISTERS[PointerWidth.BITS_64]


def test_base_map_is_the_chisel_core_s() -> None:
    # VTA spec 6.2
    names = (
        "control",
        "cycle_count",
        "insn_count",
        "insn_base",
        "uop_base",
        "inp_base",
        "wgt_base",
        "acc_base",
        "out_base",
        "acc_writes",
    )
    assert [register.name for register in NARROW.base] == list(names)
    assert [register.offset for register in NARROW.base] == list(range(0, 0x28, 4))
    offsets = [0x00, 0x04, 0x08, 0x0C, 0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3C]
    assert [register.offset for register in WIDE.base] == offsets
    assert [register.bits for register in WIDE.base] == [32] * 3 + [64] * 6 + [32]
    assert {register.access for register in NARROW.base} == {Access.READ_WRITE}


def test_variants_share_the_extension() -> None:
    assert NARROW.extension == WIDE.extension
    assert NARROW.extension[0].offset == EXTENSION_BASE
    assert NARROW["ext_id"].offset == 0x40
    assert NARROW["ext_words"].offset == 0x44


def test_registers_follow_each_other_without_overlap() -> None:
    for part, limit in ((NARROW.base, EXTENSION_BASE), (WIDE.base, EXTENSION_BASE), (WIDE.extension, EXTENSION_END)):
        for register, following in pairwise(part):
            assert register.end == following.offset
        assert part[-1].end <= limit
    assert 4 * WIDE.extension_words == WIDE.extension[-1].end - EXTENSION_BASE


def test_names_are_unique_and_explained() -> None:
    names = [register.name for register in WIDE]
    assert len(set(names)) == len(names)
    assert all(register.meaning for register in WIDE)


def test_words_of_a_launch() -> None:
    values = {"insn_count": 3, "insn_base": 0x1_2345_6789, "control": Control.LAUNCH}
    assert list(WIDE.words(values).items()) == [(0x08, 3), (0x0C, 0x2345_6789), (0x10, 1), (0x00, 1)]
    assert NARROW.words({"out_base": 0x1000}) == {0x20: 0x1000}
    with pytest.raises(RegisterError, match=f"^{re.escape('insn_base must fit 32 bits, not 4294967296')}$"):
        NARROW.words({"insn_base": 1 << 32})
    with pytest.raises(RegisterError, match=r"^register must be one of control, cycle_count, .*, not 'foo'$"):
        NARROW["foo"]


def test_status_bits_are_distinct() -> None:
    assert sum(Status) == int(Status(sum(Status)))
    assert all(status.bit_count() == 1 for status in Status)
