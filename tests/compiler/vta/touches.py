"""What every instruction of a compiled program touches: elements of the scratchpads, bytes of DRAM."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, AluOp, Gemm, GemmOverwrite, Insn, Load, MemoryType, Module, Store, module_of
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Launch, Program

Units = NDArray[np.int64]


class Space(enum.Enum):
    """What an instruction can touch; units are elements, in DRAM bytes."""

    UOP = "uop"
    INP = "inp"
    WGT = "wgt"
    ACC = "acc"
    OUT = "out"
    DRAM = "dram"


_SPACES = {
    MemoryType.UOP: Space.UOP,
    MemoryType.INP: Space.INP,
    MemoryType.WGT: Space.WGT,
    MemoryType.ACC: Space.ACC,
    MemoryType.ACC_8BIT: Space.ACC,
}


@dataclass(frozen=True)
class Touch:
    """Units of a memory that an instruction reads or writes."""

    space: Space
    units: Units
    write: bool


@dataclass(frozen=True)
class Step:
    """An instruction and all it touches."""

    insn: Insn
    touches: tuple[Touch, ...] = ()

    @property
    def module(self) -> Module:
        return module_of(self.insn)


def launches(program: Program) -> list[list[Step]]:
    """The steps of every launch of a compiled program."""
    insns = ISA(program.config).decode_program(program.insns)
    uops = np.frombuffer(program.uops, "<u4")
    result = []
    for step in program.steps:
        if isinstance(step, Launch):
            part = insns[step.insn_begin : step.insn_begin + step.insn_count]
            result.append(list(_Touches(program.config, uops, program.uop_address).steps(part)))
    return result


class _Touches:
    """Follows the micro-op buffer, which only compute touches and always in order, to know what the others read."""

    def __init__(self, config: VTAConfig, uops: NDArray[np.uint32], uop_address: int) -> None:
        self.config, self.codec = config, ISA(config)
        self.area, self.area_begin = uops, uop_address // config.uop_elem_bytes
        self.buffer = np.zeros(config.uop_depth, np.uint32)
        self.loaded = np.zeros(config.uop_depth, bool)

    def steps(self, insns: Sequence[Insn]) -> Iterator[Step]:
        for insn in insns:
            match insn:
                case Load():
                    touches = self._load(insn)
                case Store():
                    touches = self._store(insn)
                case Gemm() | GemmOverwrite() | Alu():
                    touches = self._compute(insn)
                case _:
                    touches = []
            yield Step(insn, tuple(touches))

    def _load(self, insn: Load) -> list[Touch]:
        if insn.x_size == 0:
            return []
        memory = MemoryType(insn.memory_type)
        count = (insn.y_pad_0 + insn.y_size + insn.y_pad_1) * (insn.x_pad_0 + insn.x_size + insn.x_pad_1)
        written = np.arange(insn.sram_base, insn.sram_base + count)
        if memory is MemoryType.UOP:
            first = insn.dram_base - self.area_begin
            self.buffer[written] = self.area[first : first + insn.x_size]
            self.loaded[written] = True
        return [Touch(_SPACES[memory], written, True), Touch(Space.DRAM, self._dram(insn, memory), False)]

    def _store(self, insn: Store) -> list[Touch]:
        if insn.x_size == 0:
            return []
        read = np.arange(insn.sram_base, insn.sram_base + insn.y_size * insn.x_size)
        return [Touch(Space.OUT, read, False), Touch(Space.DRAM, self._dram(insn, MemoryType.OUT), True)]

    def _dram(self, insn: Load | Store, memory: MemoryType) -> Units:
        elem = self.config.dram_elem_bytes(memory)
        rows = insn.dram_base + np.arange(insn.y_size)[:, None] * insn.x_stride
        elements = (rows + np.arange(insn.x_size)).ravel()
        return (elements[:, None] * elem + np.arange(elem)).ravel()

    def _compute(self, insn: Gemm | GemmOverwrite | Alu) -> list[Touch]:
        at = np.arange(insn.uop_bgn, insn.uop_end)
        assert self.loaded[at].all(), f"{insn} must not run micro-ops that were not loaded in its launch"
        uops = self.codec.decode_uops(self.buffer[at])
        dst, src, wgt = (np.asarray(uops[name], np.int64) for name in ("dst", "src", "wgt"))
        touches = [Touch(Space.UOP, at, False)]
        if isinstance(insn, Gemm | GemmOverwrite):
            if not insn.reset:
                touches.append(Touch(Space.INP, _swept(insn, src, insn.src_factor_out, insn.src_factor_in), False))
                touches.append(Touch(Space.WGT, _swept(insn, wgt, insn.wgt_factor_out, insn.wgt_factor_in), False))
        elif not insn.use_imm:
            read = _swept(insn, src, insn.src_factor_out, insn.src_factor_in)
            touches.append(Touch(Space.ACC, read, False))
            if insn.alu_opcode == AluOp.REQUANT:  # reads pairs
                touches.append(Touch(Space.ACC, read + 1, False))
        written = _swept(insn, dst, insn.dst_factor_out, insn.dst_factor_in)
        return [*touches, Touch(Space.ACC, written, True), Touch(Space.OUT, written, True)]


def _swept(insn: Gemm | GemmOverwrite | Alu, first: Units, outer: int, inner: int) -> Units:
    out, in_ = np.arange(insn.iter_out)[:, None, None], np.arange(insn.iter_in)[None, :, None]
    return np.unique(first + out * outer + in_ * inner)
