"""What a program will do, layer by layer, read from its instructions: nothing is executed.

The bound on MAC utilisation is what no schedule of the machine can exceed for these instructions: one GEMM micro-op
(reset included) or one ALU micro-op takes a cycle of the one compute unit, or with the option `overlap` of its own half
of it, and one bus moves all loaded and stored bytes, so that

    cycles >= max(GEMM micro-ops + ALU micro-ops, DRAM bytes / bus bytes)
    cycles >= max(GEMM micro-ops, ALU micro-ops, DRAM bytes / bus bytes)      with overlap
    bound   = MACs of the layer / (cycles * MACs the array does in a cycle)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Opcode, codes_of
from vta_hw.spec.program import Program


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Static costs of a range of instructions. Bytes are of DRAM; loads do not count padding (VTA spec 3.9)."""

    name: str
    instructions: int
    macs: int
    gemm_uops: int
    reset_uops: int
    alu_uops: int
    load_bytes: int
    store_bytes: int
    cycles_bound: int
    utilisation_bound: float

    @property
    def dram_bytes(self) -> int:
        """Bytes loaded and stored."""
        return self.load_bytes + self.store_bytes

    def as_dict(self) -> dict[str, Any]:
        """Every figure by name, for JSON."""
        return {**asdict(self), "dram_bytes": self.dram_bytes}


def layer_costs(program: Program) -> tuple[Cost, ...]:
    """Costs of each layer that has instructions, in program order."""
    columns = instruction_costs(program.config, program.insns)
    return tuple(
        _cost(program.config, layer.name, layer.macs, columns, slice(layer.insn_begin, layer.insn_end))
        for layer in program.layers
        if layer.insn_begin < layer.insn_end
    )


def total_cost(program: Program) -> Cost:
    """Costs of all instructions together, also those of no layer.

    The bound on cycles is below the sum of the layers', because the bus may be busy for one while the compute unit is
    for another.
    """
    columns = instruction_costs(program.config, program.insns)
    macs = sum(layer.macs for layer in program.layers if layer.insn_begin < layer.insn_end)
    return _cost(program.config, "total", macs, columns, slice(None))


def instruction_costs(config: VTAConfig, insns: bytes) -> Mapping[str, NDArray[np.int64]]:
    """Per instruction, int64 [N] each: gemm, reset and alu micro-ops, load and store bytes."""
    rows = ISA(config).decode_fields(insns)
    opcode = rows["opcode"]
    uops = np.maximum(rows["uop_end"] - rows["uop_bgn"], 0) * rows["iter_out"] * rows["iter_in"]
    elements = rows["x_size"] * rows["y_size"]
    nbytes = np.zeros(len(rows), np.int64)
    for memory_type in codes_of(MemoryType, config.isa):
        chosen = rows["memory_type"] == memory_type
        nbytes[chosen] = elements[chosen] * config.dram_elem_bytes(memory_type)
    reset = (opcode == Opcode.GEMM) & (rows["reset"] == 1)
    gemm = np.isin(opcode, (Opcode.GEMM, Opcode.GEMM_OVERWRITE)) & ~reset
    return {
        "gemm": np.where(gemm, uops, 0),
        "reset": np.where(reset, uops, 0),
        "alu": np.where(opcode == Opcode.ALU, uops, 0),
        "load": np.where(opcode == Opcode.LOAD, nbytes, 0),
        "store": np.where(opcode == Opcode.STORE, nbytes, 0),
    }


def _cost(config: VTAConfig, name: str, macs: int, columns: Mapping[str, NDArray[np.int64]], chosen: slice) -> Cost:
    total = {key: int(values[chosen].sum()) for key, values in columns.items()}
    bus_bytes = config.bus_bits // 8
    gemm, alu = total["gemm"] + total["reset"], total["alu"]
    compute = max(gemm, alu) if config.overlap else gemm + alu
    cycles = max(compute, -(-(total["load"] + total["store"]) // bus_bytes))
    macs_per_cycle = config.batch * config.block_in * config.block_out
    return Cost(
        name=name,
        instructions=len(columns["gemm"][chosen]),
        macs=macs,
        gemm_uops=total["gemm"],
        reset_uops=total["reset"],
        alu_uops=total["alu"],
        load_bytes=total["load"],
        store_bytes=total["store"],
        cycles_bound=cycles,
        utilisation_bound=macs / (cycles * macs_per_cycle) if cycles else 0.0,
    )
