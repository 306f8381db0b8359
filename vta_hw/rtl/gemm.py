"""The array of multipliers: one input tile by one weight tile per cycle (VTA spec 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.parameters import Multiplier

GEMM_LATENCY: Final = 4
"""Cycles from operands to dot products: operand registers, products, two halves of the adder tree."""


def lut_product(a: Value, b: Value) -> Value:
    """Return the signed product as a sum of shifted `a`, which no tool turns into a DSP."""
    rows = [Mux(bit, a, 0) for bit in b]
    return _weighted_sum([*rows[:-1], -rows[-1]])


def _weighted_sum(rows: Sequence[Value]) -> Value:
    """Row `i` times ``2**i``, in a tree of adders of which each adds only where its operands overlap.

    So they stay adders with carry chains: of a sum of shifted rows Yosys makes carry-save adders as wide as the result.
    """
    if len(rows) == 1:
        return rows[0]
    half = len(rows) // 2
    low, high = _weighted_sum(rows[:half]), _weighted_sum(rows[half:])
    return Cat(low[:half], (low >> half) + high).as_signed()


def _sum(terms: Sequence[Value]) -> Value:
    """A balanced tree of adders."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return _sum(terms[:half]) + _sum(terms[half:])


class GemmArray(wiring.Component):
    """Dot products of a batch of input rows with the rows of a weight tile.

    `inp` is [batch][block_in], `wgt` [block_out][block_in], row-major, taken in every cycle with `en`; `dot` is
    [batch][block_out] int32 (sums wrap), `GEMM_LATENCY` cycles later. `VTAConfig.multiplier` chooses what products
    are built of; those beyond `max_dsp` DSP blocks are built of LUTs. Two products share a DSP as
    ``(w1 * 2**k + w0) * x + 2**(k - 1)``: the constant, for which a DSP has an adder, keeps the lower field from being
    negative and so from borrowing from the upper one.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        dots = config.batch * config.block_out
        super().__init__(
            {
                "en": In(1),
                "inp": In(data.ArrayLayout(signed(config.inp_bits), config.batch * config.block_in)),
                "wgt": In(data.ArrayLayout(signed(config.wgt_bits), config.block_out * config.block_in)),
                "dot": Out(data.ArrayLayout(signed(32), dots)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self._config
        inp = Signal.like(self.inp)
        wgt = Signal.like(self.wgt)
        with m.If(self.en):
            m.d.sync += [inp.eq(self.inp), wgt.eq(self.wgt)]
        dsps_left = config.max_dsp or config.batch * config.block_out * config.block_in
        paired = config.multiplier == Multiplier.PACKED
        for row in range(config.batch):
            xs = [inp[row * config.block_in + k] for k in range(config.block_in)]
            for first in range(0, config.block_out, 2 if paired else 1):
                columns = range(first, first + 2 if paired else first + 1)
                weights = [[wgt[column * config.block_in + k] for k in range(config.block_in)] for column in columns]
                in_dsps = 0 if config.multiplier == Multiplier.LUT else min(dsps_left, config.block_in)
                dsps_left -= in_dsps
                products = self._products(m, xs, weights, in_dsps)
                for column, terms in zip(columns, products, strict=True):
                    self._reduce(m, terms, self.dot[row * config.block_out + column])
        return m

    def _products(
        self, m: Module, xs: Sequence[Value], weights: Sequence[Sequence[Value]], in_dsps: int
    ) -> list[list[Value]]:
        """Registered products of `xs` with one row of weights, or with two; the first `in_dsps` of them in DSPs."""
        bits = self._config.inp_bits + self._config.wgt_bits
        products: list[list[Value]] = [[] for _ in weights]
        for k, x in enumerate(xs):
            operands = [row[k] for row in weights]
            if k < in_dsps and len(operands) == 2:
                low, high = operands
                both = Signal(signed(2 * bits))
                m.d.sync += both.eq(((high << bits) + low) * x + (1 << bits - 1))
                products[0].append(Cat(both[: bits - 1], ~both[bits - 1]).as_signed())
                products[1].append(both[bits:].as_signed())
                continue
            for terms, operand in zip(products, operands, strict=True):
                product = Signal(signed(bits))
                m.d.sync += product.eq(operand * x if k < in_dsps else lut_product(operand, x))
                terms.append(product)
        return products

    def _reduce(self, m: Module, terms: Sequence[Value], dot: Value) -> None:
        """Sum in two halves of the tree, with a register after each."""
        group = 1 << (self._config.log_block_in + 1) // 2
        partial = []
        for first in range(0, len(terms), group):
            total = _sum(terms[first : first + group])
            part = Signal(signed(min(len(total), 32)))
            m.d.sync += part.eq(total)
            partial.append(part)
        m.d.sync += dot.eq(_sum(partial))
