"""From the numbers in which compiled code describes a failure to an exception."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.isa import ISA, Alu, AluOp, Insn, MemoryType, Module, Opcode, codes_of, module_of
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


def _missing(insn: Insn, tokens: NDArray[np.int64]) -> str:
    """Name the empty queues that `insn` pops, for instance "l2g and s2g"."""
    pops = {
        Module.LOAD: [(insn.pop_next, G2L, "g2l")],
        Module.COMPUTE: [(insn.pop_prev, L2G, "l2g"), (insn.pop_next, S2G, "s2g")],
        Module.STORE: [(insn.pop_prev, G2S, "g2s")],
    }
    return " and ".join(name for popped, queue, name in pops[module_of(insn)] if popped and tokens[queue] == 0)


def deadlock(isa: ISA, words: NDArray[np.uint64], queues: Queues) -> Deadlock:
    """Return the exception for a launch in which every queue waits; it is reported at the earliest instruction."""
    heads = sorted(int(index) for index in queues.next_insn if index < len(words))
    insns = [_decode(isa, words, index) for index in heads]
    waits = [
        f"instruction {index} ({disassemble(insn)}) waits for a token of {_missing(insn, queues.tokens)}"
        for index, insn in zip(heads, insns, strict=True)
    ]
    rule = "every token that is waited for must come, but " + ", ".join(waits)
    return Deadlock(rule, insn=heads[0], disassembly=disassemble(insns[0]))
