"""The register map: where the Chisel core has it, and nothing overlapping above."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from vta_hw.spec.registers import (
    EXTENSION_BASE,
    EXTENSION_END,
    FAULTS,
    REGISTERS,
    TOKEN_QUEUES,
    Access,
    Control,
    Counts,
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


def test_extension_grows_at_its_end_only() -> None:
    # Drivers in the field know these offsets; a longer list here is fine, another order is not.
    offsets = {
        0x40: "ext_id ext_words program_digest status fault_insn insn_load insn_compute insn_store",
        0x60: "gemm_uops alu_uops insn_bytes uop_bytes inp_bytes wgt_bytes acc_bytes out_bytes",
        0xA0: "irq_enable tokens_l2g tokens_g2l tokens_g2s tokens_s2g load_busy load_wait_token load_wait_memory",
        0xC0: "gemm_busy alu_busy compute_load_busy compute_wait_load compute_wait_store store_busy store_wait_token",
        0xDC: "store_wait_memory fetch_wait_queue read_wait write_wait",
    }
    expected = {}
    for begin, names in offsets.items():
        for place, name in enumerate(names.split()):
            expected[name] = begin + place * (8 if begin == 0x60 else 4)
    assert {register.name: register.offset for register in WIDE.extension} == expected


def test_parameters_and_counters() -> None:
    names = "insn_count insn_base uop_base inp_base wgt_base acc_base out_base"
    assert [register.name for register in WIDE.parameters] == names.split()
    counts = {register.name: register.counts for register in WIDE.counters}
    assert [name for name in counts if WIDE[name].access is Access.READ_WRITE] == ["cycle_count", "acc_writes"]
    assert counts.keys() - {"cycle_count", "acc_writes"} == {
        register.name for register in WIDE.extension[5:] if register.access is Access.READ_ONLY
    }
    assert {name for name in counts if name.endswith("_bytes")} == {
        name for name, what in counts.items() if what is Counts.BYTES
    }
    # A counter of 32 bits may meet its limit in a long launch, one of bytes or micro-ops not.
    assert {name for name in counts if WIDE[name].words == 2} == {
        name for name in counts if name.endswith(("_bytes", "_uops"))
    }


def test_token_registers_are_in_the_order_of_the_queues() -> None:
    first = WIDE["tokens_l2g"].offset
    assert [WIDE[f"tokens_{queue}"].offset for queue in TOKEN_QUEUES] == list(range(first, first + 16, 4))


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
    assert int(Status.STORES_OUTSTANDING) | FAULTS == sum(Status)
    assert not Status.STORES_OUTSTANDING & FAULTS


def test_bits_that_hardware_and_drivers_agree_on() -> None:
    assert [int(bit) for bit in Control] == [1, 2, 4]
    assert [bit.bit_length() - 1 for bit in Status] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16]
