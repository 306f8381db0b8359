"""Random programs on demand: for a given machine, as small as asked, with addresses that hardware can take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.generate import Size
from tests.vta_sim.spec_model.layout import ACC, ACC_8BIT_PAD_MIN, ACC_PAD_MIN, OUT, REQUANT
from tests.vta_sim.spec_model.machine import OF_ACC, Machine
from vta_hw.spec.config import PRESETS, VTAConfig

SMALL = Size(micro_ops=60, transfer_bytes=1024)
MACHINES = [
    VTAConfig(),
    VTAConfig(target="ultra96", log_bus_width=7, isa="extended", log_address_width=6),
    replace(PRESETS["tiny"], isa="extended", log_bus_width=9, overlap=True, multiplier="packed"),
    VTAConfig(log_batch=2, log_block_in=3, log_block_out=3, log_inp_width=4, isa="extended", max_dsp=9),
]


@pytest.mark.parametrize("config", MACHINES, ids=lambda config: config.name)
def test_programs_of_a_given_machine(config: VTAConfig) -> None:
    for seed in range(8):
        program = compare.random_program(seed, config=config, length=10, size=SMALL, balanced=True)
        again = compare.random_program(seed, config=config, length=10, size=SMALL, balanced=True)
        assert np.array_equal(program.words, again.words)
        assert compare.toolkit_config(program.config).program_digest == config.program_digest
        assert program.tokens_before == program.tokens_after == (0, 0, 0, 0)
        assert len(program.words) < 80
        assert compare.check_program(program, seed) == []
        machine = Machine(program.config, program.dram.copy())
        machine.bases = program.bases
        _check_sizes_and_addresses(machine, program.words, config, program.insn_address)


def _check_sizes_and_addresses(machine: Machine, words: np.ndarray, config: VTAConfig, insn_address: int) -> None:
    assert insn_address % 16 == 0
    for word in layout.from_words(words):
        insn = layout.decode(machine.config, word)
        if "iter_out" in insn:
            assert insn["iter_out"] * insn["iter_in"] * max(insn["uop_end"] - insn["uop_bgn"], 0) <= SMALL.micro_ops
        if "x_size" not in insn or insn["x_size"] == 0 or insn["y_size"] == 0:
            continue
        memory = OUT if insn["opcode"] == layout.STORE else insn["memory_type"]
        unit = machine.config.element_bytes(memory)
        assert insn["x_size"] * insn["y_size"] * unit <= max(SMALL.transfer_bytes or 0, unit)
        first = machine.address(insn, 0)
        last = machine.address(insn, (insn["y_size"] - 1) * insn["x_stride"] + insn["x_size"])
        assert first % min(unit, config.bus_bits // 8) == 0
        assert machine.bases.get(ACC if memory in OF_ACC else memory, 0) % min(unit, config.bus_bits // 8) == 0
        assert 0 <= first < last <= 1 << config.address_bits


def test_addresses_beyond_32_bits_occur() -> None:
    config = replace(PRESETS["tiny"], log_address_width=6)
    wide = [compare.random_program(seed, config=config, length=1).arena >> 32 for seed in range(60)]
    assert any(wide)
    assert not all(wide)


def test_programs_of_extended_machines_reach_the_corners() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        program = compare.random_program(seed, config=MACHINES[seed % 2 + 2], length=25, size=SMALL)
        machine = Machine(program.config, program.dram.copy())
        machine.bases = program.bases
        order = [layout.decode(program.config, word) for word in layout.from_words(program.words)]
        for index, insn in enumerate(order):
            _note(seen, machine, insn)
            machine.execute(index, insn)
    wanted = {
        "overwrite", "overwrite twice", "pad min", "pad min of 8 bits", "requant", "relu", "zero point > 0",
        "zero point < 0", "shift 0", "shift 63", "largest factor", "half > 0", "half < 0", "highest", "lowest",
        "between",
    }  # fmt: skip
    assert {name: seen[name] for name in wanted if seen[name] < 3} == {}


def _note(seen: Counter[str], machine: Machine, insn: layout.Fields) -> None:
    pads = sum(insn.get(name, 0) for name in ("x_pad_0", "x_pad_1", "y_pad_0", "y_pad_1"))
    if insn["opcode"] == layout.LOAD and insn["x_size"] and pads:
        seen["pad min"] += insn["memory_type"] == ACC_PAD_MIN
        seen["pad min of 8 bits"] += insn["memory_type"] == ACC_8BIT_PAD_MIN
    if insn["opcode"] == layout.GEMM_OVERWRITE:
        dst = machine.nest(0, insn).dst
        seen["overwrite"] += len(dst) > 0
        seen["overwrite twice"] += len(np.unique(dst)) < len(dst)
    if insn.get("alu_opcode") != REQUANT:
        return
    nest, acc = machine.nest(0, insn), machine.pads[ACC]
    zero_point = (insn["imm"] & 0x7FFF) - ((insn["imm"] & 0x4000) << 1)
    seen["requant"] += len(nest.dst) > 0
    seen["relu"] += insn["imm"] < 0
    seen["zero point > 0"] += zero_point > 0
    seen["zero point < 0"] += zero_point < 0
    # What the first step does, so that nothing has to be executed here.
    for d, s in zip(nest.dst[:1].tolist(), nest.src[:1].tolist(), strict=True):
        factor, shift = acc[s | 1] & 0xFFFFFF, acc[s | 1] >> 24 & 63
        total = (acc[d] + acc[s & ~1] + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        product = total * factor
        half = (shift > 0) & (product % (1 << shift) == 1 << np.maximum(shift - 1, 0))
        result = np.round(product / 2.0**shift) + zero_point
        limit = 1 << machine.config.bits(OUT) - 1
        seen["shift 0"] += int(np.any(shift == 0))
        seen["shift 63"] += int(np.any(shift == 63))
        seen["largest factor"] += int(np.any(factor == 0xFFFFFF))
        seen["half > 0"] += int(np.any(half & (product > 0) & (abs(result) < limit)))
        seen["half < 0"] += int(np.any(half & (product < 0) & (abs(result) < limit)))
        seen["highest"] += int(np.any(result >= limit))
        seen["lowest"] += int(np.any(result < -limit))
        seen["between"] += int(np.any((abs(result) < limit) & (result != zero_point)))
