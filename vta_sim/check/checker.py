"""The checker: proves of a program, before anything runs, that it comes to its end and has one result.

For every launch, whatever the timing: no unit waits for ever; instructions of different units that conflict, in a
scratchpad or in DRAM, are ordered by tokens; all accesses are in range. Besides, it names what is not portable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Module, Opcode, codes_of
from vta_hw.spec.program import Launch, Layer, Program, Tokens
from vta_sim.check.dram import Dram, Rows
from vta_sim.check.findings import Finding, Place, Severity
from vta_sim.check.history import History
from vta_sim.check.launch_check import LaunchCheck
from vta_sim.check.order import Limits, TokenFlow
from vta_sim.check.touches import Fields, Toucher

Bases = Mapping[MemoryType, int]
"""Byte address in the base register of each scratchpad, by its plain memory type; 0 where none is given."""

_NO_BASES: Final[Bases] = MappingProxyType({})
_DEFAULT_LIMITS: Final = Limits()
_NO_TOKENS: Final = Tokens()


def check_program(
    program: Program,
    *,
    bases: Bases = _NO_BASES,
    allow_leftover_tokens: bool | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    lints: bool = True,
) -> tuple[Finding, ...]:
    """All that is wrong with a program, errors first, each kind in program order; nothing is executed.

    bases: for a raw program; a compiled one has its arena there. allow_leftover_tokens: whether tokens that nobody pops
    are no error; by default they are none in a raw program. limits: queues of the smallest machine that is to run it.
    lints: whether what is no error is looked for as well.

    Micro-ops come from the segments of the program and from its own. What the host or a STORE writes is not known; of a
    raw program all else reads as zero.
    """
    images = [(segment.address, segment.data) for segment in program.segments]
    images += [(program.uop_address, program.uops), (program.insn_address, program.insns)]
    checker = Checker(
        program.config,
        Dram(images, rest_is_zero=program.is_raw),
        bases=bases,
        code=(program.insn_address, program.insn_address + len(program.insns)),
        layers=program.layers,
        allow_leftover_tokens=program.is_raw if allow_leftover_tokens is None else allow_leftover_tokens,
        limits=limits,
        lints=lints,
    )
    words = np.frombuffer(program.insns, "<u8").reshape(-1, 2)
    tokens = program.tokens_before
    findings: list[Finding] = []
    for step in program.steps:
        if isinstance(step, Launch):
            part = words[step.insn_begin : step.insn_begin + step.insn_count]
            found, tokens = checker.check_launch(part, tokens, insn_begin=step.insn_begin)
            findings += found
    return tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))


class Checker:
    """Checks the launches of a machine, one after the other: its scratchpads keep their contents.

    The machine starts with zeros in them (VTA spec 3.7). code: first byte of the instructions and the byte behind them,
    None if it is known that no STORE can reach them. For the rest see `check_program`.
    """

    def __init__(
        self,
        config: VTAConfig,
        dram: Dram,
        *,
        bases: Bases = _NO_BASES,
        code: tuple[int, int] | None = None,
        layers: Iterable[Layer] = (),
        allow_leftover_tokens: bool = False,
        limits: Limits = _DEFAULT_LIMITS,
        lints: bool = True,
    ) -> None:
        self.config = config
        self.dram = dram
        self.code = code
        self.limits = limits
        self.lints = lints
        self.allow_leftover_tokens = allow_leftover_tokens
        self.isa = ISA(config)
        self.toucher = Toucher(config)
        self.pads = {
            MemoryType.INP: History(config.inp_depth, writer=Module.LOAD, readers=[Module.COMPUTE]),
            MemoryType.WGT: History(config.wgt_depth, writer=Module.LOAD, readers=[Module.COMPUTE]),
            MemoryType.OUT: History(config.out_depth, writer=Module.COMPUTE, readers=[Module.STORE]),
        }
        self.acc_loaded = np.zeros(config.acc_depth, np.int64)
        self.knows_micro_ops = True
        self._bases = bases
        self.layers = tuple(layers)
        self._units = {int(kind): config.dram_elem_bytes(kind) for kind in codes_of(MemoryType, config.isa)}
        self._done = (0, 0, 0)

    def check_launch(
        self,
        words: NDArray[np.uint64],
        tokens: Tokens = _NO_TOKENS,
        *,
        insn_begin: int = 0,
    ) -> tuple[list[Finding], Tokens]:
        """What is wrong with the next launch, and the tokens it leaves.

        words: uint64 [N][2]. insn_begin: index of the first in the program, and so in findings.
        """
        rows = self.isa.decode_fields(words)
        flow = TokenFlow(rows, tokens, self._done)
        check = LaunchCheck(self, words, rows, flow, insn_begin)
        findings = list(check.findings())
        self._done = flow.after
        return findings, check.order.tokens

    def place(self, words: NDArray[np.uint64], index: int, insn_begin: int) -> Place:
        """Instruction `index` of a launch."""
        low, high = (int(word) for word in words[index])
        insn = insn_begin + index
        layer = next((layer.name for layer in self.layers if layer.insn_begin <= insn < layer.insn_end), None)
        return Place(insn=insn, disassembly=disassemble(self.isa.decode(low | high << 64)), layer=layer)

    def moved(self, insn: Fields) -> Rows | None:
        """The bytes of DRAM that an instruction moves; None if it moves none, or has an unknown memory type."""
        if insn.opcode not in (Opcode.LOAD, Opcode.STORE) or not insn.x_size or not insn.y_size:
            return None
        is_store = insn.opcode == Opcode.STORE
        if insn.memory_type not in self._units or is_store != (insn.memory_type == MemoryType.OUT):
            return None
        memory = MemoryType(insn.memory_type)
        unit = self._units[memory]
        return Rows(
            address=self._bases.get(memory.scratchpad, 0) + insn.dram_base * unit,
            count=insn.y_size,
            nbytes=insn.x_size * unit,
            pitch=insn.x_stride * unit,
        )
