"""The ALU: one operation on every scalar of an accumulator tile (VTA spec 3.5)."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import AluOp


def tile_layout(config: VTAConfig) -> data.ArrayLayout:
    """An accumulator tile, [batch][block_out] int32, row-major."""
    return data.ArrayLayout(signed(32), config.batch * config.block_out)


class Alu(wiring.Component):
    """``o = x op y`` for each scalar, combinational: an operation may need the result of the cycle before.

    `opcode` is an `AluOp`. MIN and MAX compare signed numbers, ADD and MUL wrap, SHR shifts right by the low five
    bits of `y`, or left by those of ``-y`` if `y` is negative (VTA spec 11.4). Other codes leave `x`.
    """

    def __init__(self, config: VTAConfig) -> None:
        layout = tile_layout(config)
        super().__init__({"opcode": In(unsigned(3)), "x": In(layout), "y": In(layout), "o": Out(layout)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        for lane in range(self.x.shape().length):
            m.d.comb += self.o[lane].eq(self._scalar(m, self.x[lane], self.y[lane], lane))
        return m

    def _scalar(self, m: Module, x: Value, y: Value, lane: int) -> Value:
        result = Signal(signed(32), name=f"result{lane}")
        left, smaller = y < 0, x < y
        # One shifter for both directions: left by n is right by 31 - n from 31 places further up, and n is -y, so that
        # the five low bits of y - 1 say by how much.
        amount = Signal(5, name=f"amount{lane}")
        wide = Signal(63, name=f"wide{lane}")
        m.d.comb += [amount.eq(y - left), wide.eq(Mux(left, Cat(Const(0, 31), x), x))]
        with m.Switch(self.opcode):
            with m.Case(AluOp.MIN, AluOp.MAX):
                m.d.comb += result.eq(Mux(smaller ^ (self.opcode == AluOp.MAX), x, y))
            with m.Case(AluOp.ADD):
                m.d.comb += result.eq(x + y)
            with m.Case(AluOp.SHR):
                m.d.comb += result.eq(wide >> amount)
            with m.Case(AluOp.MUL):
                m.d.comb += result.eq(x * y)
            with m.Default():
                m.d.comb += result.eq(x)
        return result
