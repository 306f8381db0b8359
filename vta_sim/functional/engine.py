"""The functional simulator: executes instructions, exactly and without time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Format, MemoryType, Opcode
from vta_hw.spec.program import Program, Tokens
from vta_sim.errors import LeftoverTokens, MissingFinish, SimulationError
from vta_sim.functional import faults
from vta_sim.functional.columns import Code, Queues, field_positions, make_queues
from vta_sim.functional.launch import RUN
from vta_sim.functional.report import Report
from vta_sim.functional.state import Machine, contents, fill_with_pattern, make_machine, with_room_for
from vta_sim.memory import Memory

_INSN_BYTES: Final = 16
_ADDRESS_LIMIT: Final = 1 << 64
_NO_TOKENS: Final = Tokens()


@dataclass(frozen=True, kw_only=True)
class Bases:
    """Base registers in bytes, 0 to 2**64 - 1, added to what an instruction addresses (VTA spec 3.1)."""

    uop: int = 0
    inp: int = 0
    wgt: int = 0
    acc: int = 0
    out: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < _ADDRESS_LIMIT:
                raise ValueError(f"Base register {field.name} must be 0 to 2**64 - 1, not {value!r}")


_NO_BASES: Final = Bases()


class Kernel(NamedTuple):
    """Arguments of compiled code: the machine, `field_positions`, and base addresses by memory type, int64 [8]."""

    machine: Machine
    places: NDArray[np.int64]
    bases: NDArray[np.int64]


class FunctionalSimulator:
    """One VTA without time, with its scratchpads and a memory.

    Scratchpads are zero at first, or filled with a pattern if `poison` is true, and keep their contents from launch to
    launch (VTA spec 3.7). The behaviour is that of VTA spec 11. Addresses wrap modulo 2**64. Among the instructions
    that have their tokens, the first in program order executes next; the queues have no limit. An instruction in
    memory is read when the launch begins. Not safe for use by several threads at once.
    """

    def __init__(self, config: VTAConfig, *, memory: Memory | None = None, poison: bool = False) -> None:
        self.config = config
        self.memory = Memory() if memory is None else memory
        self._isa = ISA(config)
        self._places = field_positions(config)
        self._machine = make_machine(config)
        if poison:
            fill_with_pattern(self._machine)

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases = _NO_BASES,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> Report:
        """Execute `insn_count` instructions from byte `insn_address` on, with `tokens` in the queues (default none).

        The launch ends when every queue is empty; FINISH must be among the instructions. Raises a `SimulationError`
        (see `vta_sim.errors`) naming instruction and rule; what was executed before it stays done. `ValueError` if
        the instructions leave the 64-bit address space.
        """
        if insn_count < 1:
            raise SimulationError(f"Launch must have at least 1 instruction, not {insn_count}")
        words = self.memory.read(insn_address, insn_count * _INSN_BYTES).view("<u8").reshape(-1, 2)
        start = _NO_TOKENS if tokens is None else tokens
        queues = make_queues(self.config, words, (start.l2g, start.g2l, start.g2s, start.s2g))
        self._machine = with_room_for(self._machine, self._most_micro_ops(words))
        self._run(words, _base_column(bases), queues)
        if not np.any(words[:, 0] & np.uint64(7) == Opcode.FINISH):
            raise MissingFinish(f"Launch must execute FINISH, but none of its {insn_count} instructions is one")
        left = Tokens(**dict(zip(("l2g", "g2l", "g2s", "s2g"), queues.tokens.tolist(), strict=True)))
        if left != _NO_TOKENS and not allow_leftover_tokens:
            raise LeftoverTokens(f"Launch must leave no tokens, not {_listed(left)}")
        return Report(config=self.config, words=words, hints=queues.hints, tokens_left=left)

    def _most_micro_ops(self, words: NDArray[np.uint64]) -> int:
        """Micro-ops of the longest GEMM or ALU instruction that may execute."""
        low = words[:, 0]
        low = low[np.isin(low & np.uint64(7), (Opcode.GEMM, Opcode.ALU, Opcode.GEMM_OVERWRITE))]
        places = {place.name: place for place in self._isa.layout(Format.GEMM)}
        first, last = (
            low >> np.uint64(places[name].lsb) & np.uint64((1 << places[name].width) - 1)
            for name in ("uop_bgn", "uop_end")
        )
        longest = int((last.astype(np.int64) - first.astype(np.int64)).max(initial=0))
        return min(longest, self.config.uop_depth)

    def _run(self, words: NDArray[np.uint64], bases: NDArray[np.int64], queues: Queues) -> None:
        while True:
            code = Code(RUN(self._machine, self.memory.table, words, self._places, bases, queues))
            match code:
                case Code.DONE:
                    return
                case Code.GROW:
                    self.memory.grow()
                case Code.STUCK:
                    raise faults.deadlock(self._isa, words, queues)
                case _:
                    raise faults.failure(self._isa, words, code, queues.fault)

    def kernel(self, words: NDArray[np.uint64], bases: Bases) -> Kernel:
        """What compiled code needs to execute instructions, uint64 [N][2], on this machine, for another engine."""
        self._machine = with_room_for(self._machine, self._most_micro_ops(words))
        return Kernel(machine=self._machine, places=self._places, bases=_base_column(bases))

    def scratchpad(self, memory_type: MemoryType) -> NDArray[np.generic]:
        """Return a copy of a scratchpad, with tiles as in VTA spec 4.

        UOP uint32 [depth]; INP int16 [depth][batch][block_in]; WGT int16 [depth][block_out][block_in]; ACC (whichever
        memory type of it) int32 [depth][batch][block_out]; OUT int16 [depth][batch][block_out]. Numbers are
        sign-extended.
        """
        return contents(self._machine, memory_type)


@dataclass(frozen=True, kw_only=True)
class RawRun:
    """What running a raw program leaves: the report of its launch, and the simulator with its memory."""

    report: Report
    simulator: FunctionalSimulator

    @property
    def memory(self) -> Memory:
        """Memory after the launch."""
        return self.simulator.memory


def run_program(program: Program, *, poison: bool = False) -> RawRun:
    """Run a raw program on a new simulator: memory from its segments, tokens as it says, leftover tokens allowed.

    Memory that no segment covers reads as zero. Raises `SimulationError` as `FunctionalSimulator.launch` does, and
    `ValueError` if the program is not raw (a compiled one is run through a device, which knows its buffers).
    """
    if not program.is_raw:
        raise ValueError(f"Program must be raw (arena of 0 bytes), not one with an arena of {program.arena_bytes}")
    simulator = FunctionalSimulator(program.config, poison=poison)
    for segment in program.segments:
        simulator.memory.write(segment.address, segment.data)
    simulator.memory.write(program.uop_address, program.uops)
    simulator.memory.write(program.insn_address, program.insns)
    report = simulator.launch(
        program.insn_address, program.insn_count, tokens=program.tokens_before, allow_leftover_tokens=True
    )
    return RawRun(report=report, simulator=simulator)


def _base_column(bases: Bases) -> NDArray[np.int64]:
    """Base of each memory type, indexed by its code, as int64 modulo 2**64."""
    by_type = {
        MemoryType.UOP: bases.uop,
        MemoryType.WGT: bases.wgt,
        MemoryType.INP: bases.inp,
        MemoryType.ACC: bases.acc,
        MemoryType.OUT: bases.out,
    }
    return np.array([by_type[memory_type.scratchpad] for memory_type in MemoryType], np.uint64).view(np.int64)


def _listed(tokens: Tokens) -> str:
    counts = {"l2g": tokens.l2g, "g2l": tokens.g2l, "g2s": tokens.g2s, "s2g": tokens.s2g}
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
