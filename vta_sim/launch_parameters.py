"""What a machine can be told of a launch: the values of its registers, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import TOKEN_BITS, TOKEN_QUEUES
from vta_sim.errors import SimulationError
from vta_sim.functional.engine import Bases

INSN_ALIGNMENT: Final = 16
NO_INSN: Final = 0xFFFF_FFFF
"""What `fault_insn` reads when the first fault was a deadlock, which belongs to no single instruction."""
MAX_TOKENS: Final = (1 << TOKEN_BITS) - 1


def parameters(
    config: VTAConfig, insn_address: int, insn_count: int, bases: Bases, tokens: Tokens
) -> Mapping[str, int]:
    """Values of the registers that describe a launch. Raises SimulationError for one that the machine cannot do."""
    if insn_count < 1:
        raise SimulationError(f"Launch must have at least 1 instruction, not {insn_count}")
    if insn_address % INSN_ALIGNMENT:
        raise SimulationError(
            f"Instructions must begin at a multiple of {INSN_ALIGNMENT} bytes, not at {insn_address:#x}"
        )
    end, limit = insn_address + INSN_ALIGNMENT * insn_count, 1 << config.address_bits
    if end > limit:
        raise SimulationError(f"Instructions must end within the {config.address_bits} address bits, not at {end:#x}")
    for name, base in asdict(bases).items():
        unit = min(config.dram_elem_bytes(MemoryType[name.upper()]), config.bus_bits // 8)
        if base % unit:
            raise SimulationError(f"Base register {name} must be a multiple of {unit} bytes, not {base:#x}")
        if base >= limit:
            raise SimulationError(
                f"Base register {name} must fit the {config.address_bits} address bits, not {base:#x}"
            )
    for name in TOKEN_QUEUES:
        if getattr(tokens, name) > MAX_TOKENS:
            raise SimulationError(f"Tokens of {name} must be at most {MAX_TOKENS}, not {getattr(tokens, name)}")
    return {
        "insn_count": insn_count,
        "insn_base": insn_address,
        **{f"{name}_base": base for name, base in asdict(bases).items()},
        **{f"tokens_{name}": getattr(tokens, name) for name in TOKEN_QUEUES},
    }
