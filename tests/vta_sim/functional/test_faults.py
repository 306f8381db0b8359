"""Every error of a single instruction, with its sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.vta_sim.functional.bench import INSN_AT, Bench
from vta_hw.spec.asm import disassemble
from vta_hw.spec.isa import Alu, AluOp, Finish, Gemm, Insn, Load, MemoryType, Store, Unknown, Uop
from vta_sim.errors import OutOfRange, SimulationError, UnknownOpcode

ONCE: dict[str, Any] = {"uop_end": 1, "iter_out": 1, "iter_in": 1}
# Micro-ops 0 to 5; the scratchpads hold 64 micro-ops, 64 inputs, 16 weights and 64 accumulators.
UOPS = [Uop(), Uop(dst=60), Uop(src=60), Uop(wgt=12), Uop(dst=1, src=62), Uop(dst=63)]

FAULTS: list[tuple[Insn, type[SimulationError], str]] = [
    (Unknown(opcode=6), UnknownOpcode, "opcode must be 0 to 4, not 6"),
    (Alu(alu_opcode=5), UnknownOpcode, "ALU opcode must be 0 to 4, not 5"),
    (
        Load(memory_type=7, y_size=1, x_size=1),
        UnknownOpcode,
        "memory type of a LOAD must be UOP, WGT, INP, ACC or ACC_8BIT, not 7",
    ),
    (
        Load(memory_type=MemoryType.OUT, x_size=1, y_pad_1=1),
        UnknownOpcode,
        "memory type of a LOAD must be UOP, WGT, INP, ACC or ACC_8BIT, not 4",
    ),
    (
        Store(memory_type=MemoryType.ACC, y_size=1, x_size=1),
        UnknownOpcode,
        "memory type of a STORE must be OUT (4), not 3",
    ),
    (
        Load(memory_type=MemoryType.INP, sram_base=60, y_size=1, x_size=3, x_pad_0=1, x_pad_1=1),
        OutOfRange,
        "LOAD must end within the 64 elements of its scratchpad, not at 65",
    ),
    (
        Load(memory_type=MemoryType.WGT, y_size=2, x_size=5, y_pad_0=2),
        OutOfRange,
        "LOAD must end within the 16 elements of its scratchpad, not at 20",
    ),
    (
        Load(memory_type=MemoryType.UOP, y_size=65535, x_size=65535),
        OutOfRange,
        "LOAD must end within the 64 elements of its scratchpad, not at 4294836225",
    ),
    (
        Load(memory_type=MemoryType.ACC, sram_base=65535, y_size=1, x_size=1),
        OutOfRange,
        "LOAD must end within the 64 elements of its scratchpad, not at 65536",
    ),
    (
        Load(memory_type=MemoryType.ACC_8BIT, sram_base=64, x_size=1, y_pad_0=1),
        OutOfRange,
        "LOAD must end within the 64 elements of its scratchpad, not at 65",
    ),
    (
        Store(memory_type=MemoryType.OUT, sram_base=63, y_size=1, x_size=2),
        OutOfRange,
        "STORE must end within the 64 elements of OUT, not at 65",
    ),
    (
        Gemm(uop_bgn=63, uop_end=65, iter_out=1, iter_in=1),
        OutOfRange,
        "uop_end must be at most 64, the number of micro-ops, not 65",
    ),
    (
        Gemm(uop_end=3, iter_out=2, iter_in=3, dst_factor_out=2, dst_factor_in=1),
        OutOfRange,
        "ACC index must be below 64, not 64 (dst of micro-op 1)",
    ),
    (
        Gemm(reset=True, uop_bgn=5, uop_end=6, iter_out=2, iter_in=1, dst_factor_out=1),
        OutOfRange,
        "ACC index must be below 64, not 64 (dst of micro-op 5)",
    ),
    (
        Gemm(uop_end=3, iter_out=3, iter_in=3, src_factor_out=1, src_factor_in=1),
        OutOfRange,
        "INP index must be below 64, not 64 (src of micro-op 2)",
    ),
    (
        Gemm(uop_end=4, iter_out=1, iter_in=5, wgt_factor_in=1),
        OutOfRange,
        "WGT index must be below 16, not 16 (wgt of micro-op 3)",
    ),
    (
        Gemm(uop_end=1, iter_out=16383, iter_in=16383, dst_factor_out=63, dst_factor_in=63),
        OutOfRange,
        "ACC index must be below 64, not 2064132 (dst of micro-op 0)",
    ),
    (
        Alu(uop_bgn=1, uop_end=2, iter_out=1, iter_in=5, dst_factor_in=1, use_imm=True),
        OutOfRange,
        "ACC index must be below 64, not 64 (dst of micro-op 1)",
    ),
    (
        Alu(uop_end=5, iter_out=3, iter_in=1, src_factor_out=1, alu_opcode=AluOp.ADD),
        OutOfRange,
        "ACC index must be below 64, not 64 (src of micro-op 4)",
    ),
]


@pytest.mark.parametrize(("insn", "error", "rule"), FAULTS, ids=[rule for _, _, rule in FAULTS])
def test_error_names_instruction_and_rule(insn: Insn, error: type[SimulationError], rule: str) -> None:
    bench = Bench()
    bench.uops(*UOPS)
    before = Alu(alu_opcode=AluOp.ADD, use_imm=True, imm=1, **ONCE)
    with pytest.raises(SimulationError) as caught:
        bench.run([before, insn])
    assert type(caught.value) is error
    assert str(caught.value) == f"Instruction 1 ({disassemble(insn)}): {rule}"
    assert (caught.value.insn, caught.value.disassembly, caught.value.rule) == (1, disassemble(insn), rule)
    assert bench.acc[0].tolist() == [[1] * 4]


def test_the_last_index_of_every_scratchpad_is_in_range() -> None:
    bench = Bench()
    bench.uops(Uop(dst=60, src=60, wgt=12))
    factors: dict[str, Any] = {"dst_factor_out": 2, "dst_factor_in": 1, "src_factor_out": 2, "src_factor_in": 1}
    bench.run([Gemm(uop_end=1, iter_out=2, iter_in=2, wgt_factor_out=1, wgt_factor_in=2, **factors)])
    bench.run([Alu(uop_end=1, iter_out=2, iter_in=2, alu_opcode=AluOp.ADD, **factors)])
    bench.run([Load(memory_type=MemoryType.WGT, sram_base=12, y_size=2, x_size=2)])
    bench.run([Store(memory_type=MemoryType.OUT, sram_base=60, y_size=2, x_size=2)])


def test_unused_bits_may_hold_anything() -> None:
    bench = Bench()
    bench.fill(MemoryType.ACC, np.ones(4))
    insns: list[Insn] = [Load(memory_type=MemoryType.ACC, dram_base=1, sram_base=1, y_size=1, x_size=1), Finish()]
    words = bench.isa.encode_program(insns)
    words[0, 0] |= np.uint64(0x3F << 58)
    words[1] |= np.array([0xFFFFFFFFFFFFFF80, 0xFFFFFFFFFFFFFFFF], np.uint64)
    bench.simulator.memory.write(INSN_AT, words)
    bench.simulator.launch(INSN_AT, 2)
    assert bench.acc[:2, 0, 0].tolist() == [1, 0]
