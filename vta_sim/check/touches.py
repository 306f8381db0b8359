"""What the instructions of a launch touch of the scratchpads: the exact elements, and whether they exist.

Micro-ops are data: they are followed from DRAM into their scratchpad, which compute alone touches, and always in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, AluOp, MemoryType, Opcode, codes_of
from vta_sim.check.dram import Dram

Units = NDArray[np.int64]
"""Indices of elements, each once, ascending."""

_REMEMBERED: Final = 4096
"""Sets of elements, and instructions, that are kept: a program touches the same elements again and again."""


class Fields(NamedTuple):
    """The fields of one instruction, 0 where its format has none."""

    opcode: int
    memory_type: int
    sram_base: int
    dram_base: int
    y_size: int
    x_size: int
    x_stride: int
    y_pad_0: int
    y_pad_1: int
    x_pad_0: int
    x_pad_1: int
    reset: int
    uop_bgn: int
    uop_end: int
    iter_out: int
    iter_in: int
    dst_factor_out: int
    dst_factor_in: int
    src_factor_out: int
    src_factor_in: int
    wgt_factor_out: int
    wgt_factor_in: int
    alu_opcode: int
    use_imm: int

    @property
    def width(self) -> int:
        """Elements of a row of the window of a LOAD."""
        return self.x_pad_0 + self.x_size + self.x_pad_1

    @property
    def height(self) -> int:
        """Rows of the window of a LOAD."""
        return self.y_pad_0 + self.y_size + self.y_pad_1

    @property
    def is_data(self) -> bool:
        """Whether a LOAD or STORE moves or pads anything (VTA spec 11.7)."""
        return self.x_size != 0 and self.height != 0

    @property
    def takes_immediate(self) -> bool:
        """Whether the second operand of an ALU instruction is the immediate."""
        return self.use_imm != 0 and self.alu_opcode != AluOp.REQUANT

    @property
    def steps(self) -> int:
        """Executions of micro-ops of a GEMM or ALU instruction."""
        return self.iter_out * self.iter_in * max(self.uop_end - self.uop_bgn, 0)


def fields_of(rows: NDArray[np.void]) -> list[Fields]:
    """From rows of `ISA.decode_fields`."""
    return [Fields(*values) for values in zip(*(rows[name].tolist() for name in Fields._fields), strict=True)]


class Refusal(NamedTuple):
    """A rule that an instruction breaks by itself; `unknown` if it is about a code and not an index."""

    sentence: str
    unknown: bool = False


@dataclass(kw_only=True)
class Touch:
    """What one instruction touches; not to be changed, since alike instructions share it.

    elements: of the scratchpads that two units share (INP, WGT, OUT), and the accumulators that a LOAD writes. known:
    False if the micro-ops are not known; then `elements` are all there are. other_source: an immediate ALU instruction
    whose src is not its dst. near: steps between two of the nest with the same dst, if they are fewer than 3.
    """

    elements: dict[MemoryType, Units] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    known: bool = True
    other_source: bool = False
    near: int | None = None


class MicroOps:
    """The micro-op scratchpad: zero at first (VTA spec 3.7), followed from LOAD to LOAD."""

    def __init__(self, config: VTAConfig) -> None:
        self._isa = ISA(config)
        self._known = np.ones(config.uop_depth, bool)
        self._columns = self._isa.decode_uops(np.zeros(config.uop_depth, np.uint32))
        self.bits = lru_cache(maxsize=_REMEMBERED)(self._bits)

    def load(self, insn: Fields, dram: Dram, address: int) -> None:
        """Execute a LOAD, whose window fits."""
        window = slice(insn.sram_base, insn.sram_base + insn.width * insn.height)
        words = np.zeros((insn.height, insn.width), np.uint32)
        known = np.ones((insn.height, insn.width), bool)
        columns = slice(insn.x_pad_0, insn.x_pad_0 + insn.x_size)
        for y in range(insn.y_size):
            data, sure = dram.read(address + 4 * y * insn.x_stride, 4 * insn.x_size)
            words[insn.y_pad_0 + y, columns] = data.view("<u4")
            known[insn.y_pad_0 + y, columns] = sure.reshape(-1, 4).all(axis=1)
        self._columns[window] = self._isa.decode_uops(words.reshape(-1))
        self._known[window] = known.reshape(-1)
        self.bits.cache_clear()

    def known(self, insn: Fields) -> bool:
        """Whether all micro-ops of a GEMM or ALU instruction are known."""
        return bool(self._known[insn.uop_bgn : insn.uop_end].all())

    def column(self, operand: str, insn: Fields) -> NDArray[np.int64]:
        """dst, src or wgt of the micro-ops of an instruction, int64 [uop_end - uop_bgn]."""
        values: NDArray[np.int64] = self._columns[operand][insn.uop_bgn : insn.uop_end]
        return values

    def _bits(self, operand: str, begin: int, end: int) -> int:
        """The different values of an operand of the micro-ops `begin` to `end` - 1, a bit for each."""
        values = self._columns[operand][begin:end]
        if len(values) == 1:
            return 1 << int(values[0])
        mask = np.zeros(int(values.max()) + 1, bool)
        mask[values] = True
        return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def spread(bits: int, trips: int, step: int) -> int:
    """Union of `trips` sets of bits, each `step` above the one before."""
    have = trips if step == 0 else 1
    while have < trips:
        more = min(have, trips - have)
        bits |= bits << more * step
        have += more
    return bits


def units_of(bits: int) -> Units:
    """Indices of the bits that are set."""
    data = np.frombuffer(bits.to_bytes(bits.bit_length() // 8 + 1, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(data, bitorder="little"))


class Toucher:
    """Finds out what instructions touch; they must be given in an order in which compute may execute its own."""

    def __init__(self, config: VTAConfig) -> None:
        self._depths = {memory: config.depth(memory) for memory in MemoryType if memory is memory.scratchpad}
        self._uops = MicroOps(config)
        self._units = lru_cache(maxsize=_REMEMBERED)(units_of)
        self._swept_by = lru_cache(maxsize=_REMEMBERED)(self._nest)  # until micro-ops change
        self._kinds = codes_of(MemoryType, config.isa)
        self._last_opcode = max(codes_of(Opcode, config.isa))
        self._last_alu = max(codes_of(AluOp, config.isa))

    def touch(self, insn: Fields, dram: Dram, address: int) -> Touch:
        """What an instruction touches. dram: where micro-ops are loaded from; address: of the data of the LOAD."""
        if insn.opcode > self._last_opcode:
            rule = f"opcode must be 0 to {int(self._last_opcode)}, not {insn.opcode}"
            return Touch(refusals=[Refusal(rule, unknown=True)])
        match insn.opcode:
            case Opcode.LOAD if insn.is_data:
                return self._load(insn, dram, address)
            case Opcode.STORE if insn.x_size and insn.y_size:
                return self._store(insn)
            case Opcode.ALU if insn.alu_opcode > self._last_alu:
                rule = f"ALU opcode must be 0 to {int(self._last_alu)}, not {insn.alu_opcode}"
                return Touch(refusals=[Refusal(rule, unknown=True)])
            case Opcode.GEMM | Opcode.GEMM_OVERWRITE | Opcode.ALU if insn.steps:
                return self._swept_by(insn)
        return Touch()

    def _load(self, insn: Fields, dram: Dram, address: int) -> Touch:
        if insn.memory_type not in self._kinds or insn.memory_type == MemoryType.OUT:
            rule = f"memory type of a LOAD must be that of a scratchpad it can fill, not {insn.memory_type}"
            return Touch(refusals=[Refusal(rule, unknown=True)])
        memory = MemoryType(insn.memory_type).scratchpad
        end, depth = insn.sram_base + insn.width * insn.height, self._depths[memory]
        if end > depth:
            rule = f"LOAD must end within the {depth} elements of {memory.name}, not at {end}"
            return Touch(refusals=[Refusal(rule)])
        if memory is MemoryType.UOP:
            self._uops.load(insn, dram, address)
            self._swept_by.cache_clear()
            return Touch()
        return Touch(elements={memory: np.arange(insn.sram_base, end)})

    def _store(self, insn: Fields) -> Touch:
        if insn.memory_type != MemoryType.OUT:
            rule = f"memory type of a STORE must be OUT (4), not {insn.memory_type}"
            return Touch(refusals=[Refusal(rule, unknown=True)])
        end, depth = insn.sram_base + insn.x_size * insn.y_size, self._depths[MemoryType.OUT]
        if end > depth:
            return Touch(refusals=[Refusal(f"STORE must end within the {depth} elements of OUT, not at {end}")])
        return Touch(elements={MemoryType.OUT: np.arange(insn.sram_base, end)})

    def _nest(self, insn: Fields) -> Touch:
        depth = self._depths[MemoryType.UOP]
        if insn.uop_end > depth:
            rule = f"uop_end must be at most {depth}, the number of micro-ops, not {insn.uop_end}"
            return Touch(refusals=[Refusal(rule)])
        operands = self._operands(insn)
        if not self._uops.known(insn):
            every = {memory: np.arange(self._depths[memory]) for memory in operands.values()}
            return Touch(elements=_shared(every), known=False)
        touch = Touch(
            other_source=insn.opcode == Opcode.ALU and insn.takes_immediate and self._differs(insn),
            near=self._near(insn) if insn.opcode == Opcode.GEMM and not insn.reset else None,
        )
        for operand, memory in operands.items():
            refusal = self._outside(insn, operand, memory)
            if refusal is not None:
                touch.refusals.append(refusal)
        if not touch.refusals:
            touch.elements = _shared({memory: self._swept(insn, name) for name, memory in operands.items()})
        return touch

    def _operands(self, insn: Fields) -> dict[str, MemoryType]:
        """The operands that an instruction uses, and their scratchpads. What is written to ACC is written to OUT."""
        if insn.opcode == Opcode.ALU:
            return {"dst": MemoryType.OUT} if insn.takes_immediate else {"dst": MemoryType.OUT, "src": MemoryType.ACC}
        if insn.opcode == Opcode.GEMM and insn.reset:
            return {"dst": MemoryType.OUT}
        return {"dst": MemoryType.OUT, "src": MemoryType.INP, "wgt": MemoryType.WGT}

    def _outside(self, insn: Fields, operand: str, memory: MemoryType) -> Refusal | None:
        """The factors are not negative, so that the largest index of a micro-op is that of the last trip."""
        depth = self._depths[memory]
        outer, inner = getattr(insn, f"{operand}_factor_out"), getattr(insn, f"{operand}_factor_in")
        span = (insn.iter_out - 1) * outer + (insn.iter_in - 1) * inner
        if self._uops.bits(operand, insn.uop_bgn, insn.uop_end) >> max(depth - span, 0) == 0 and span < depth:
            return None
        last = self._uops.column(operand, insn) + span
        first = int(np.flatnonzero(last >= depth)[0])
        name = "ACC" if memory is MemoryType.OUT else memory.name
        where = f"{operand} of micro-op {insn.uop_bgn + first}"
        return Refusal(f"{name} index must be below {depth}, not {last[first]} ({where})")

    def _swept(self, insn: Fields, operand: str) -> Units:
        bits = self._uops.bits(operand, insn.uop_bgn, insn.uop_end)
        bits = spread(bits, insn.iter_in, getattr(insn, f"{operand}_factor_in"))
        return self._units(spread(bits, insn.iter_out, getattr(insn, f"{operand}_factor_out")))

    def _differs(self, insn: Fields) -> bool:
        """Whether src is anywhere another index than dst."""
        return (insn.src_factor_out, insn.src_factor_in) != (insn.dst_factor_out, insn.dst_factor_in) or bool(
            (self._uops.column("src", insn) != self._uops.column("dst", insn)).any()
        )

    def _near(self, insn: Fields) -> int | None:
        """Steps from one use of an accumulator to the next, if they are one or two."""
        dst = self._uops.column("dst", insn)
        # Of neighbouring trips, all there are: within the inner loop, and from its end to its next beginning.
        inner = [trip * insn.dst_factor_in for trip in range(min(insn.iter_in, 3))]
        ends = range(max(insn.iter_in - 2, 0), insn.iter_in)
        across = [trip * insn.dst_factor_in for trip in ends]
        if insn.iter_out > 1:
            across += [insn.dst_factor_out + trip * insn.dst_factor_in for trip in range(min(insn.iter_in, 2))]
        if insn.iter_out > 2 and insn.iter_in == 1:
            across.append(2 * insn.dst_factor_out)
        walks = [(np.array(trips)[:, None] + dst).reshape(-1) for trips in (inner, across)]
        distances = [
            distance
            for walk in walks
            for distance in (1, 2)
            if len(walk) > distance and bool((walk[distance:] == walk[:-distance]).any())
        ]
        return min(distances, default=None)


def _shared(elements: dict[MemoryType, Units]) -> dict[MemoryType, Units]:
    """Without the accumulators, which compute alone uses."""
    return {memory: units for memory, units in elements.items() if memory is not MemoryType.ACC}
