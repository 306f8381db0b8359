"""The generated tables say what the encoder does."""

from __future__ import annotations

import re

from vta_hw.spec.config import PRESETS, VTAConfig
from vta_hw.spec.isa import ISA, Format
from vta_hw.spec.manual import manual


def test_every_format_has_its_table() -> None:
    headings = re.findall("^#+ (.*)$", manual(VTAConfig()), flags=re.MULTILINE)
    name = "Instruction set of 1x16x16_i8w8a32_15_15_18_17"
    assert headings == [name, "LOAD and STORE", "GEMM", "ALU", "FINISH", "Micro-op"]


def test_rows_cover_every_bit_once() -> None:
    for config in PRESETS.values():
        for section, kind in zip(manual(config).split("\n## ")[1:], Format, strict=True):
            rows = re.findall(r"^\| \[(\d+)(?::(\d+))?\] \| (\d+) \| `?(\w*)", section, flags=re.MULTILINE)
            bits = [bit for high, low, _, _ in rows for bit in range(int(low or high), int(high) + 1)]
            assert bits == list(range(32 if kind is Format.UOP else 128))
            assert all(int(high) - int(low or high) + 1 == int(width) for high, low, width, _ in rows)
            assert [name for *_, name in rows if name] == [field.name for field in ISA(config).layout(kind)]


def test_an_extended_machine_has_more_codes() -> None:
    base, extended = manual(VTAConfig()), manual(VTAConfig(isa="extended"))
    for text in ("## GEMM and GEMM_OVERWRITE", "ACC_8BIT 5, ACC_PAD_MIN 6, ACC_8BIT_PAD_MIN 7", "MUL 4, REQUANT 5"):
        assert text in extended
        assert text not in base


def test_codes_are_listed() -> None:
    text = manual(VTAConfig())
    assert "scratchpad: UOP 0, WGT 1, INP 2, ACC 3, OUT 4, ACC_8BIT 5" in text
    assert "operation of the ALU: MIN 0, MAX 1, ADD 2, SHR 3, MUL 4" in text
    assert "| [63:58] | 6 | | unused |" in text
