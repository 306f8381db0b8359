"""Fused requantisation: bias, multiplier, rounding shift, zero point and clip in one pass (decision 0006)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.alu import tile_layout
from vta_hw.spec.config import VTAConfig

REQUANT_LATENCY: Final = 4
"""Cycles from operands to result: sum, product, two halves of the shift; zero point and clip are combinational."""

MULTIPLIER_BITS: Final = 24
SHIFT_BITS: Final = 6
_PRODUCT_BITS: Final = 32 + MULTIPLIER_BITS
_DSP_BITS: Final = 17
# Beyond 17 bits every magnitude clips, whatever the 15-bit zero point adds to it.
_MAGNITUDE_BITS: Final = 18
# The last cycle shifts by less than eight, the one before by multiples of eight.
_FINE_STEPS: Final = 3
_COARSE_BITS: Final = _MAGNITUDE_BITS + (1 << _FINE_STEPS)


class Requant(wiring.Component):
    """Requantises one accumulator tile per cycle.

    For each scalar, with the parameter word ``q`` = {shift[29:24], multiplier[23:0]} and the immediate
    {floor[15], zero_point[14:0]}: ``(x + bias) * multiplier / 2**shift``, rounded half away from zero, plus the zero
    point, clipped to the range of OUT, from the zero point on if `floor`. `imm` belongs to the results that are on
    `o` in the same cycle, `REQUANT_LATENCY` cycles after their operands.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        layout = tile_layout(config)
        super().__init__(
            {
                "en": In(1),
                "x": In(layout),
                "bias": In(layout),
                "q": In(layout),
                "imm": In(16),
                "o": Out(layout),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        zero_point, low, high = self._range(m)
        for lane in range(self.x.shape().length):
            m.submodules[f"lane{lane}"] = rounding = _Lane()
            total = Signal(signed(17), name=f"total{lane}")
            magnitude = rounding.magnitude
            wide = Signal(signed(_MAGNITUDE_BITS + 2), name=f"wide{lane}")
            m.d.comb += [
                rounding.en.eq(self.en),
                rounding.x.eq(self.x[lane]),
                rounding.bias.eq(self.bias[lane]),
                rounding.q.eq(self.q[lane]),
                wide.eq(Mux(rounding.negative, -magnitude, magnitude) + zero_point),
                total.eq(Mux(wide < low, low, Mux(wide > high, high, wide))),
                self.o[lane].eq(total),
            ]
        return m

    def _range(self, m: Module) -> tuple[Value, Value, int]:
        """Zero point, and the bounds of the result."""
        top = (1 << (self._config.out_bits - 1)) - 1
        zero_point = Signal(signed(15))
        inside = Signal(signed(17))
        low = Signal(signed(17))
        m.d.comb += [
            zero_point.eq(self.imm[:15]),
            inside.eq(Mux(zero_point > top, top, Mux(zero_point < -top - 1, -top - 1, zero_point))),
            low.eq(Mux(self.imm[15], inside, -top - 1)),
        ]
        return zero_point, low, top


class _Lane(wiring.Component):
    """One scalar: sign and rounded, saturated magnitude of ``(x + bias) * multiplier / 2**shift``."""

    def __init__(self) -> None:
        super().__init__(
            {
                "en": In(1),
                "x": In(signed(32)),
                "bias": In(signed(32)),
                "q": In(32),
                "negative": Out(1),
                "magnitude": Out(_MAGNITUDE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        total = Signal(signed(32))
        multiplier = Signal(MULTIPLIER_BITS)
        product = Signal(_PRODUCT_BITS)
        shifts = [Signal(SHIFT_BITS, name=f"shift{number}") for number in range(3)]
        signs = [Signal(name=f"sign{number}") for number in range(2)]
        quotient = Signal(_COARSE_BITS)
        beyond = Signal()
        with m.If(self.en):
            m.d.sync += [
                total.eq(self.x + self.bias),
                multiplier.eq(self.q[:MULTIPLIER_BITS]),
                shifts[0].eq(self.q[MULTIPLIER_BITS : MULTIPLIER_BITS + SHIFT_BITS]),
            ]
        # The place below the point, for rounding, makes a value of it that is shifted.
        coarse, lost = _shift_right(m, Cat(Const(0, 1), product), shifts[1], _FINE_STEPS, SHIFT_BITS)
        fine, lost_at_last = _shift_right(m, quotient, shifts[2], 0, _FINE_STEPS)
        # Rounding half up the magnitude rounds half away from zero.
        rounded = Signal(_MAGNITUDE_BITS + 1)
        m.d.comb += rounded.eq(fine[1:] + fine[0])
        m.d.sync += [
            product.eq(_multiply(Mux(total < 0, -total, total)[:32], multiplier)),
            signs[0].eq(total < 0),
            shifts[1].eq(shifts[0]),
            quotient.eq(coarse),
            beyond.eq(lost),
            signs[1].eq(signs[0]),
            shifts[2].eq(shifts[1]),
            self.magnitude.eq(Mux(beyond | lost_at_last | rounded[-1], -1, rounded)),
            self.negative.eq(signs[1]),
        ]
        return m


def _multiply(magnitude: Value, multiplier: Value) -> Value:
    """Return the product, cut so that each half fits the 24 by 17 unsigned bits of a DSP48E1."""
    low, high = magnitude[:_DSP_BITS] * multiplier, magnitude[_DSP_BITS:] * multiplier
    return Cat(low[:_DSP_BITS], high + low[_DSP_BITS:])


def _shift_right(m: Module, value: Value, amount: Value, low: int, high: int) -> tuple[Value, Value]:
    """Shift right by bits `low` to `high` of `amount`, large steps first.

    Returns the low bits of the result, as many as the smaller steps can bring down into a magnitude and its place for
    rounding, and whether it has others.
    """
    lost: Value = Const(0, 1)
    for bit in reversed(range(low, high)):
        step = 1 << bit
        kept = _MAGNITUDE_BITS + step
        shifted = Signal(kept, name=f"shifted_{step}")
        m.d.comb += shifted.eq(Mux(amount[bit], value >> step, value))
        lost |= ~amount[bit] & value[kept:].any()
        value = shifted
    return value, lost
