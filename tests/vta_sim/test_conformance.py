"""The functional simulator against the model that was written from the specification alone."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vta_sim.spec_model import compare, damage, every_instruction, layout, pipeline
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import ACC, ALU, FINISH, GEMM, INP, LOAD, OUT, STORE, UOP, WGT, ModelConfig
from tests.vta_sim.spec_model.machine import Machine
from vta_hw.spec.asm import assemble
from vta_hw.spec.isa import ISA
from vta_sim.functional.engine import FunctionalSimulator

TEXT = Path(__file__).parent / "data" / "every_instruction.s"
ADDRESS = 0x4_0000
"""Where the directed programs keep their instructions."""


def run_both(config: ModelConfig, dram: Dram, words: NDArray[np.uint64], times: int = 1) -> list[str]:
    """Differences after each of `times` launches that follow one another."""
    machine = Machine(config, dram.copy())
    simulator = FunctionalSimulator(compare.toolkit_config(config), memory=compare.toolkit_memory(dram))
    compare.write_words(simulator.memory, ADDRESS, words)
    found: list[str] = []
    for _ in range(times):
        left = pipeline.run(machine, words)
        report = simulator.launch(ADDRESS, len(words))
        found += compare.differences(machine, left, simulator, report)
    return found


def test_assembly_text_gives_the_bytes_made_by_hand() -> None:
    config = compare.toolkit_config(every_instruction.CONFIG)
    insns, uops = assemble(TEXT.read_text(), config)
    assert np.array_equal(ISA(config).encode_program(insns), every_instruction.words())
    assert np.array_equal(ISA(config).encode_uops(uops), every_instruction.uop_words())


def test_every_instruction_really_uses_everything() -> None:
    insns = [layout.decode(every_instruction.CONFIG, word) for word in every_instruction.INSNS]
    loads = [insn for insn in insns if insn["opcode"] == LOAD and insn["x_size"]]
    assert {insn["opcode"] for insn in insns} == set(range(5))
    assert {insn["memory_type"] for insn in loads} == {0, 1, 2, 3, 5}
    for pad in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"):
        assert any(insn[pad] for insn in loads), pad
    rows = [(insn["x_stride"], insn["x_size"]) for insn in loads if insn["y_size"] > 1]
    assert {int(np.sign(stride - size)) for stride, size in rows} == {-1, 0, 1}  # overlapping, touching, apart
    assert any(stride == 0 for stride, _ in rows)
    operations = {(insn["alu_opcode"], insn["use_imm"]) for insn in insns if insn["opcode"] == ALU}
    assert operations == {(operation, form) for operation in range(5) for form in (0, 1)}
    for flags in (pipeline.POPS, pipeline.PUSHES):
        used = {queue for insn in insns for queue in pipeline.queues_of(insn, flags)}
        assert used == set(pipeline.QUEUES)
    assert any(insn["iter_out"] > 1 and insn["iter_in"] > 1 for insn in insns if insn["opcode"] == GEMM)


@pytest.mark.parametrize("seed", range(3))
def test_every_instruction_has_no_races(seed: int) -> None:
    dumps = []
    for order in (None, random.Random(seed)):
        machine = Machine(every_instruction.CONFIG, every_instruction.memory())
        pipeline.run(machine, every_instruction.words(), order=order)
        dumps.append((machine.dram.read(0x10000, 0x6000), *machine.pads.values()))
    assert all(np.array_equal(a, b) for a, b in zip(*dumps, strict=True))


def test_every_instruction() -> None:
    """Three launches: the second and third find the scratchpads as the one before left them."""
    config, memory = every_instruction.CONFIG, every_instruction.memory()
    assert run_both(config, memory, every_instruction.words(), times=3) == []


@pytest.mark.parametrize("seed", range(60))
def test_random_program(seed: int) -> None:
    assert compare.check(seed) == []


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_damaged_program(seed: int) -> None:
    assert damage.check_damaged(seed) == []


@pytest.mark.parametrize("seed", range(100, 112))
def test_encoder_and_decoder(seed: int) -> None:
    """Field by field and bit by bit, garbage in unused bits being the only difference."""
    program = compare.random_program(seed)
    isa = ISA(compare.toolkit_config(program.config))
    decoded = isa.decode_program(program.words)
    clean = []
    for insn, word in zip(decoded, layout.from_words(program.words), strict=True):
        fields = layout.decode(program.config, word)
        assert {name: int(getattr(insn, name)) for name in fields if name != "opcode"} == {
            name: value for name, value in fields.items() if name != "opcode"
        }
        clean.append(layout.encode(program.config, fields.pop("opcode"), **fields))
    assert np.array_equal(isa.encode_program(decoded), layout.to_words(clean))


@pytest.mark.parametrize("seed", range(200, 208))
def test_launches_compose(seed: int) -> None:
    """A program cut anywhere and run as two launches, tokens handed on, ends like the whole."""
    whole = compare.random_program(seed)
    machine = Machine(whole.config, whole.dram.copy())
    left = pipeline.run(machine, whole.words, tokens=whole.tokens_before, bases=whole.bases)
    cut = random.Random(seed).randrange(1, len(whole.words))
    finish = layout.to_words([layout.encode(whole.config, FINISH)])
    simulator = FunctionalSimulator(
        compare.toolkit_config(whole.config), memory=compare.toolkit_memory(whole.dram)
    )
    first = compare.launch(simulator, dataclasses.replace(whole, words=np.vstack([whole.words[:cut], finish])))
    middle = tuple(getattr(first.tokens_left, queue) for queue in pipeline.QUEUES)
    second = compare.launch(
        simulator, dataclasses.replace(whole, words=whole.words[cut:], tokens_before=middle)
    )
    found = list(compare.differences(machine, left, simulator, second))
    assert [text for text in found if "differs" in text or "tokens" in text] == []


def test_sums_wrap_over_long_loops() -> None:
    """iter_out at its limit: 32766 times 16 products of -128 and -128 is more than an accumulator holds."""
    config, dram = ModelConfig(), Dram()
    dram.write(0x1000, np.full(256, 0x80, np.uint8))
    insns = [
        layout.encode(config, LOAD, memory_type=INP, dram_base=0x100, y_size=1, x_size=1),
        layout.encode(config, LOAD, memory_type=WGT, dram_base=0x10, y_size=1, x_size=1, push_next=1),
        layout.encode(config, GEMM, uop_end=1, iter_out=0x3FFF, iter_in=2, pop_prev=1),
        layout.encode(config, GEMM, uop_end=1, iter_out=1, iter_in=0x3FFF),
        layout.encode(config, FINISH),
    ]
    assert run_both(config, dram, layout.to_words(insns)) == []


def test_dram_addresses_above_4_gib() -> None:
    """dram_base has all 32 bits, and counts elements."""
    config, dram = ModelConfig(), Dram()
    data = np.random.default_rng(5).integers(0, 256, 256).astype(np.uint8)
    dram.write(0xFFFF_FFF0 * 64, data)
    nest = {"uop_end": 1, "iter_out": 1, "iter_in": 4, "dst_factor_in": 1}
    insns = [
        layout.encode(config, LOAD, memory_type=ACC, dram_base=0xFFFF_FFF0, y_size=1, x_size=4),
        layout.encode(config, ALU, alu_opcode=layout.ADD, use_imm=1, push_next=1, **nest),
        layout.encode(config, STORE, memory_type=OUT, dram_base=0xFFFF_FF00, y_size=1, x_size=4, pop_prev=1),
        layout.encode(config, FINISH),
    ]
    assert run_both(config, dram, layout.to_words(insns)) == []


def test_windows_as_large_as_the_scratchpads() -> None:
    """Each memory filled to its last element in one LOAD, in rows, and OUT stored in one."""
    logs = {"log_uop_buff": 10, "log_inp_buff": 14, "log_wgt_buff": 14, "log_acc_buff": 15}
    config = ModelConfig(log_batch=1, log_block_in=3, **logs)
    dram, noise = Dram(), np.random.default_rng(9)
    dram.write(0x10_0000, noise.integers(0, 256, 0x10000).astype(np.uint8))
    insns = []
    for memory in (UOP, INP, WGT, ACC):
        depth, base = config.depth(memory), 0x10_0000 // config.element_bytes(memory)
        row = {"memory_type": memory, "dram_base": base, "y_size": depth // 8, "x_size": 6, "x_stride": 5}
        insns.append(layout.encode(config, LOAD, x_pad_0=2, **row))
    depth = config.depth(ACC)
    nest = {"iter_out": 2, "iter_in": depth // 2, "dst_factor_out": depth // 2, "dst_factor_in": 1}
    insns += [
        layout.encode(config, LOAD, memory_type=UOP, y_size=1, x_size=1, dram_base=0),
        layout.encode(config, ALU, uop_end=1, use_imm=1, imm=7, alu_opcode=layout.SHR, push_next=1, **nest),
        layout.encode(config, STORE, memory_type=OUT, y_size=1, x_size=depth, dram_base=0x8000, pop_prev=1),
        layout.encode(config, FINISH),
    ]
    assert run_both(config, dram, layout.to_words(insns)) == []
