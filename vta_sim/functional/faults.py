"""From the numbers in which compiled code describes a failure to an exception."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.isa import ISA, Alu, AluOp, Insn, MemoryType, Module, Opcode, codes_of
from vta_hw.spec.program import Tokens
from vta_sim.deadlock import find_waits
from vta_sim.errors import Deadlock, OutOfRange, SimulationError, UnknownOpcode
from vta_sim.functional.columns import (
    FAULT_INSN,
    FAULT_LIMIT,
    FAULT_UOP,
    FAULT_VALUE,
    G2L,
    G2S,
    L2G,
    S2G,
    Code,
    Queues,
)

_OPERANDS: Final = {Code.DST_RANGE: "dst", Code.SRC_RANGE: "src", Code.WGT_RANGE: "wgt"}


def _decode(isa: ISA, words: NDArray[np.uint64], index: int) -> Insn:
    low, high = (int(word) for word in words[index])
    return isa.decode(low | high << 64)


def _loadable(isa: str) -> str:
    *names, last = [kind.name for kind in codes_of(MemoryType, isa) if kind is not MemoryType.OUT]
    return f"{', '.join(names)} or {last}"


def _rule(isa: str, code: Code, insn: Insn, fault: NDArray[np.int64]) -> tuple[type[SimulationError], str]:
    value, limit, uop = int(fault[FAULT_VALUE]), int(fault[FAULT_LIMIT]), int(fault[FAULT_UOP])
    match code:
        case Code.UNKNOWN_OPCODE:
            return UnknownOpcode, f"opcode must be 0 to {max(codes_of(Opcode, isa))}, not {value}"
        case Code.UNKNOWN_LOAD:
            return UnknownOpcode, f"memory type of a LOAD must be {_loadable(isa)}, not {value}"
        case Code.UNKNOWN_STORE:
            return UnknownOpcode, f"memory type of a STORE must be OUT (4), not {value}"
        case Code.UNKNOWN_ALU:
            return UnknownOpcode, f"ALU opcode must be 0 to {max(codes_of(AluOp, isa))}, not {value}"
        case Code.LOAD_RANGE:
            return OutOfRange, f"LOAD must end within the {limit} elements of its scratchpad, not at {value}"
        case Code.STORE_RANGE:
            return OutOfRange, f"STORE must end within the {limit} elements of OUT, not at {value}"
        case Code.UOP_RANGE:
            return OutOfRange, f"uop_end must be at most {limit}, the number of micro-ops, not {value}"
        case Code.DST_RANGE | Code.SRC_RANGE | Code.WGT_RANGE:
            operand = _OPERANDS[code]
            memory = "WGT" if operand == "wgt" else "ACC" if operand == "dst" or isinstance(insn, Alu) else "INP"
            return OutOfRange, f"{memory} index must be below {limit}, not {value} ({operand} of micro-op {uop})"
        case Code.DONE | Code.GROW | Code.STUCK:
            raise ValueError(f"Code must be a failure of an instruction, not {code!r}")


def failure(isa: ISA, words: NDArray[np.uint64], code: Code, fault: NDArray[np.int64]) -> SimulationError:
    """Return the exception for the failure `code` of one instruction."""
    index = int(fault[FAULT_INSN])
    insn = _decode(isa, words, index)
    kind, rule = _rule(isa.config.isa, code, insn, fault)
    return kind(rule, insn=index, disassembly=disassemble(insn))


def deadlock(isa: ISA, words: NDArray[np.uint64], queues: Queues) -> Deadlock:
    """Return the exception for a launch in which every queue waits; it is reported at the earliest instruction."""
    heads = {module: int(queues.next_insn[module.value]) for module in Module}
    tokens = Tokens(l2g=queues.tokens[L2G], g2l=queues.tokens[G2L], g2s=queues.tokens[G2S], s2g=queues.tokens[S2G])
    left = {module: index for module, index in heads.items() if index < len(words)}
    return Deadlock(find_waits(isa.config, words, left, tokens))
