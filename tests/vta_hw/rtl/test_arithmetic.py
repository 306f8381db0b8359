"""The arithmetic of ALU, requantisation and products of LUTs, against integers without limit and results by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator

from tests.vta_sim.spec_model.machine import requantise
from tests.vta_sim.spec_model.requant_examples import BY_BITS
from vta_hw.rtl.alu import Alu
from vta_hw.rtl.gemm import lut_product
from vta_hw.rtl.requant import REQUANT_LATENCY, Requant
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.instructions import AluOp
from vta_hw.spec.isa import requant_imm

SMALL = replace(preset("tiny"), log_block_out=1)
EDGES = (0, 1, 2, 31, 32, 33, -1, -2, -31, -32, -33, 2**30, 2**31 - 1, -(2**31), 1 - 2**31)


def wrap(value: int, bits: int = 32) -> int:
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def shift(x: int, y: int) -> int:
    return x >> (y & 31) if y >= 0 else x << (-y & 31)


OPERATIONS: dict[int, Callable[[int, int], int]] = {
    AluOp.MIN: min,
    AluOp.MAX: max,
    AluOp.ADD: lambda x, y: x + y,
    AluOp.SHR: shift,
    AluOp.MUL: lambda x, y: x * y,
    5: lambda x, _: x,
    7: lambda x, _: x,
}


@pytest.mark.parametrize("opcode", OPERATIONS)
def test_alu(opcode: int) -> None:
    rng = random.Random(opcode)
    alu = Alu(SMALL)
    operands = [(x, y) for x in EDGES for y in EDGES]
    operands += [(wrap(rng.getrandbits(32)), wrap(rng.getrandbits(32))) for _ in range(50)]
    operands += [(wrap(rng.getrandbits(32)), amount) for amount in range(-40, 41)]

    async def bench(ctx: Any) -> None:
        ctx.set(alu.opcode, opcode)
        for x, y in operands:
            for lane, (a, b) in enumerate(((x, y), (y, x))):
                ctx.set(alu.x[lane], a)
                ctx.set(alu.y[lane], b)
            found = ctx.get(alu.o[0]), ctx.get(alu.o[1])
            assert found == (wrap(OPERATIONS[opcode](x, y)), wrap(OPERATIONS[opcode](y, x))), (x, y)

    simulator = Simulator(alu)
    simulator.add_testbench(bench)
    simulator.run()


Case = tuple[int, int, int, int, int]
"""x, bias, parameter word, imm, result."""


def by_hand(bits: int) -> Iterable[Case]:
    for case in BY_BITS[bits]:
        imm = requant_imm(case.zero_point, relu=case.relu)
        yield case.acc, case.bias, case.factor | case.shift << 24, imm, case.result


def at_random(bits: int) -> Iterable[Case]:
    rng = random.Random(bits)
    for _ in range(300):
        x, bias = (wrap(rng.getrandbits(32)) >> rng.randrange(32) for _ in range(2))
        q, imm = rng.getrandbits(32), rng.getrandbits(16)
        if rng.random() < 0.7:
            # The result lies near the edge of saturation, and its zero point near none.
            size = (abs(wrap(x + bias)) * (q & 0xFFFFFF)).bit_length()
            q = q & ~(63 << 24) | min(max(size - rng.randrange(20), 0), 63) << 24
            imm &= 0x80FF
        total, parameters = np.array([wrap(x + bias)]), np.array([q])
        yield x, bias, q, imm, int(requantise(total, parameters, imm, bits)[0])


@pytest.mark.parametrize("cases", [by_hand, at_random])
@pytest.mark.parametrize("bits", BY_BITS)
def test_requantisation(bits: int, cases: Callable[[int], Iterable[Case]]) -> None:
    config: VTAConfig = replace(SMALL, log_inp_width=bits.bit_length() - 1, isa="extended")
    unit = Requant(config)
    given = list(cases(bits))

    async def feed(ctx: Any) -> None:
        ctx.set(unit.en, 1)
        for number in range(len(given) + REQUANT_LATENCY):
            if number < len(given):
                x, bias, q, _, _ = given[number]
                for port, value in ((unit.x, x), (unit.bias, bias), (unit.q, q)):
                    ctx.set(port[1], value)
            if number >= REQUANT_LATENCY:
                *_, imm, expected = given[number - REQUANT_LATENCY]
                ctx.set(unit.imm, imm)
                assert ctx.get(unit.o[1]) == expected, given[number - REQUANT_LATENCY]
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    simulator.run()


@pytest.mark.parametrize(("a_bits", "b_bits"), [(4, 4), (8, 8), (16, 4), (4, 16)])
def test_products_of_luts(a_bits: int, b_bits: int) -> None:
    rng = random.Random(a_bits)
    m = Module()
    a = Signal(signed(a_bits))
    b = Signal(signed(b_bits))
    product = Signal(signed(a_bits + b_bits))
    m.d.comb += product.eq(lut_product(a, b))

    def values(bits: int) -> set[int]:
        edges = {0, 1, -1, (1 << bits - 1) - 1, -(1 << bits - 1)}
        return edges | {wrap(rng.getrandbits(bits), bits) for _ in range(25)}

    async def bench(ctx: Any) -> None:
        for x in values(a_bits):
            for y in values(b_bits):
                ctx.set(a, x)
                ctx.set(b, y)
                assert ctx.get(product) == x * y, (x, y)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
