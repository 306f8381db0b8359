"""What the VTA can do with one tile, declared as tensor IR (VTA spec 3); nests are mapped on it by unification."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from compiler.tensor.define import requantised
from compiler.tensor.ir import (
    BinaryOp,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Proc,
    Scope,
    Select,
    Store,
    Var,
    binary,
    cast,
    nest,
)
from compiler.tensor.unify import IMMEDIATE, INSIDE
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import AluOp, MemoryType, Opcode

_N, _O, _I = Var("n"), Var("o"), Var("i")

_ALU: dict[AluOp, BinaryOp] = {
    AluOp.MIN: BinaryOp.MIN,
    AluOp.MAX: BinaryOp.MAX,
    AluOp.ADD: BinaryOp.ADD,
    AluOp.SHR: BinaryOp.SHR,
    AluOp.MUL: BinaryOp.MUL,
}


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One thing that an instruction does to a tile.

    meaning: a procedure of one nest; its buffers are named ``dst``, ``src``, ``inp`` and ``wgt``. relu: of a REQUANT.
    left: whether a SHR shifts to the left, by what its immediate is less than 0.
    """

    opcode: Opcode
    meaning: Proc
    memory: MemoryType | None = None
    alu: AluOp | None = None
    relu: bool = False
    left: bool = False
    reset: bool = False

    @property
    def name(self) -> str:
        return self.meaning.name


def operand_type(bits: int) -> DType:
    """The type that holds an inp, wgt or out scalar; 4-bit scalars are held in int8 and packed only in DRAM."""
    return DType.INT16 if bits == 16 else DType.INT8


class InstructionSet:
    """The declarations for one configuration, as `instruction_set` gives them."""

    def __init__(self, config: VTAConfig) -> None:
        n, bi, bo = config.batch, config.block_in, config.block_out
        x, w, y = operand_type(config.inp_bits), operand_type(config.wgt_bits), operand_type(config.out_bits)
        self.inp = Buffer.of("inp", x, (n, bi), Scope.INP)
        self.wgt = Buffer.of("wgt", w, (bo, bi), Scope.WGT)
        self.acc = Buffer.of("dst", DType.INT32, (n, bo), Scope.ACC)
        self.acc_src = Buffer.of("src", DType.INT32, (n, bo), Scope.ACC)
        self.out = Buffer.of("dst", y, (n, bo), Scope.DRAM)
        self._tile = [("n", n), ("o", bo)]
        self.gemm = Instruction(opcode=Opcode.GEMM, meaning=self._gemm(bi))
        self.reset = Instruction(
            opcode=Opcode.GEMM, reset=True, meaning=self._over_acc("gemm.reset", Const(0, DType.INT32))
        )
        self.alu = [alu for op, operation in _ALU.items() for alu in self._alu(op, operation)]
        shifted = self._over_acc("alu.shl.imm", binary(BinaryOp.SHL, self._read(self.acc), IMMEDIATE[()]))
        self.alu.append(Instruction(opcode=Opcode.ALU, alu=AluOp.SHR, left=True, meaning=shifted))
        if config.is_extended:
            self.alu += [
                self._requant(config, "requant"),
                self._requant(config, "requant.relu", relu=True),
                self._requant(config, "requant.imm", zero_point=cast(DType.INT64, IMMEDIATE[()])),
            ]
        self.loads = self._loads(config)
        self.store = Instruction(
            opcode=Opcode.STORE,
            memory=MemoryType.OUT,
            meaning=self._proc("store", nest(self._tile, Store(self.out, (_N, _O), cast(y, self._read(self.acc_src))))),
        )

    @property
    def all(self) -> list[Instruction]:
        return [self.gemm, self.reset, *self.alu, *self.loads, self.store]

    @staticmethod
    def _proc(name: str, loop: For) -> Proc:
        return Proc(name, (), (loop,))

    @staticmethod
    def _read(buffer: Buffer) -> Expr:
        return buffer[_N, _O]

    def _over_acc(self, name: str, value: Expr) -> Proc:
        return self._proc(name, nest(self._tile, Store(self.acc, (_N, _O), value)))

    def _gemm(self, block_in: int) -> Proc:
        product = cast(DType.INT32, self.inp[_N, _I]) * cast(DType.INT32, self.wgt[_O, _I])
        update = Store(self.acc, (_N, _O), self._read(self.acc) + product)
        return self._proc("gemm", nest([*self._tile, ("i", block_in)], update))

    def _alu(self, op: AluOp, operation: BinaryOp) -> list[Instruction]:
        own = self._read(self.acc)
        name = f"alu.{op.name.lower()}"
        immediate = self._over_acc(f"{name}.imm", binary(operation, own, IMMEDIATE[()]))
        register = self._over_acc(name, binary(operation, own, self._read(self.acc_src)))
        return [Instruction(opcode=Opcode.ALU, alu=op, meaning=meaning) for meaning in (immediate, register)]

    def _requant(
        self, config: VTAConfig, name: str, *, relu: bool = False, zero_point: Expr | int = 0
    ) -> Instruction:
        pair = Buffer.of("src", DType.INT32, (2, *self.acc.static_shape), Scope.ACC)
        value = requantised(
            self._read(self.acc), pair[0, _N, _O], pair[1, _N, _O], zero_point, relu=relu, bits=config.out_bits
        )
        meaning = self._over_acc(f"alu.{name}", value)
        return Instruction(opcode=Opcode.ALU, alu=AluOp.REQUANT, relu=relu, meaning=meaning)

    def _loads(self, config: VTAConfig) -> list[Instruction]:
        loads = []
        kinds = [
            ("load.inp", MemoryType.INP, self.inp, self.inp.type),
            ("load.wgt", MemoryType.WGT, self.wgt, self.wgt.type),
            ("load.acc", MemoryType.ACC, self.acc, DType.INT32),
        ]
        if config.inp_bits == 8:
            kinds.append(("load.acc_8bit", MemoryType.ACC_8BIT, self.acc, DType.INT8))
        for name, memory, sram, source_type in kinds:
            rows, columns = sram.static_shape
            target = Buffer.of("dst", sram.type, (rows, columns), sram.scope)
            source = Buffer.of("src", source_type, (rows, columns), Scope.DRAM)
            loops: list[tuple[str, int | Expr]] = [("n", rows), ("o", columns)]
            plain = self._read(source)
            padded = Select(INSIDE[()], plain, Const(0, source_type))
            for suffix, value in (("", plain), (".pad", padded)):
                copy = nest(loops, Store(target, (_N, _O), cast(sram.type, value)))
                loads.append(Instruction(opcode=Opcode.LOAD, memory=memory, meaning=self._proc(name + suffix, copy)))
        return loads


@cache
def instruction_set(config: VTAConfig) -> InstructionSet:
    """The declarations for a configuration, made once."""
    return InstructionSet(config)
