"""The host's side of a register port, against registers that pause, answer with errors or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from vta_hw.spec.registers import REGISTERS, PointerWidth, RegisterError
from vta_sim.rtl.register_port import PATIENCE, RegisterPort, RegisterPortError

MAP = REGISTERS[PointerWidth.BITS_64]
MASTER = {"awvalid": 1, "awaddr": 16, "wvalid": 1, "wdata": 32, "wstrb": 4, "bready": 1}
MASTER |= {"arvalid": 1, "araddr": 16, "rready": 1}
SLAVE = {"awready": 1, "wready": 1, "bvalid": 1, "bresp": 2, "arready": 1, "rvalid": 1, "rresp": 2, "rdata": 32}


class Registers(wiring.Component):
    """64 words that remember; a transfer begins every `period` cycles, or never if that is 0."""

    def __init__(self, *, period: int = 1, response: int = 0) -> None:
        self._period, self._response = period, response
        members = {name: In(bits) for name, bits in MASTER.items()} | {name: Out(bits) for name, bits in SLAVE.items()}
        super().__init__({f"s_axi_{name}": member for name, member in members.items()})
        self.words = Array(Signal(32, name=f"word{k}") for k in range(64))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        pin = {name: getattr(self, f"s_axi_{name}") for name in MASTER | SLAVE}
        turn, may = Signal(range(max(self._period, 2))), Signal()
        writes, reads = Signal(), Signal()
        m.d.sync += turn.eq(Mux(turn + 1 < self._period, turn + 1, 0))
        m.d.comb += [
            may.eq((turn == 0) if self._period else 0),
            writes.eq(may & pin["awvalid"] & pin["wvalid"] & ~pin["bvalid"]),
            pin["awready"].eq(writes),
            pin["wready"].eq(writes),
            reads.eq(may & pin["arvalid"] & ~pin["rvalid"]),
            pin["arready"].eq(reads),
        ]
        with m.If(writes):
            m.d.sync += [
                self.words[pin["awaddr"] >> 2].eq(pin["wdata"]),
                pin["bvalid"].eq(1),
                pin["bresp"].eq(self._response),
            ]
        with m.Elif(pin["bready"]):
            m.d.sync += pin["bvalid"].eq(0)
        with m.If(reads):
            m.d.sync += [
                pin["rdata"].eq(self.words[pin["araddr"] >> 2]),
                pin["rvalid"].eq(1),
                pin["rresp"].eq(self._response),
            ]
        with m.Elif(pin["rready"]):
            m.d.sync += pin["rvalid"].eq(0)
        return m


def run(registers: Registers, bench: Any) -> None:
    simulator = Simulator(registers)
    simulator.add_clock(1e-8)
    port = RegisterPort(registers, MAP)

    async def testbench(ctx: Any) -> None:
        await bench(ctx, port)

    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("period", [1, 2, 3])
def test_what_was_written_is_read_back(period: int) -> None:
    values = {"insn_count": 7, "insn_base": 0x1234_5678_9ABC_DEF0, "uop_base": 1 << 63, "control": 1}
    registers = Registers(period=period)

    async def bench(ctx: Any, port: RegisterPort) -> None:
        await port.write(ctx, values)
        assert ctx.get(registers.words[MAP["insn_base"].offset // 4]) == 0x9ABC_DEF0
        assert await port.read(ctx, values) == values
        assert await port.read(ctx, ["out_base", "control"]) == {"out_base": 0, "control": 1}
        assert not any(ctx.get(getattr(registers, f"s_axi_{name}valid")) for name in ("aw", "w", "ar"))

    run(registers, bench)


REFUSALS = [
    (Registers(response=2), "of 0x8 must be answered with OKAY, not with response 2"),
    (Registers(period=0), f"of 0x8 must be answered within {PATIENCE} cycles, and was not"),
]


@pytest.mark.parametrize(("registers", "sentence"), REFUSALS)
def test_no_answer_or_a_wrong_one(registers: Registers, sentence: str) -> None:
    async def bench(ctx: Any, port: RegisterPort) -> None:
        with pytest.raises(RegisterPortError) as caught:
            await port.write(ctx, {"insn_count": 1})
        assert str(caught.value) == f"Write {sentence}"
        with pytest.raises(RegisterPortError) as caught:
            await port.read(ctx, ["insn_count"])
        assert str(caught.value) == f"Read {sentence}"

    run(registers, bench)


def test_registers_that_the_map_does_not_have() -> None:
    async def bench(ctx: Any, port: RegisterPort) -> None:
        with pytest.raises(RegisterError, match=r"^insn_count must fit 32 bits, not 4294967296$"):
            await port.write(ctx, {"insn_count": 1 << 32})
        with pytest.raises(RegisterError, match=r"^register must be one of control, "):
            await port.read(ctx, ["controls"])

    run(Registers(), bench)
