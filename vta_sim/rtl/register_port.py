"""The host's side of a register port: AXI4-Lite transfers in Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from amaranth.hdl import Cat, Elaboratable, Value
from amaranth.sim import SimulatorContext

from vta_hw.spec.registers import REGISTER_BYTES, Register, RegisterMap

PREFIX: Final = "s_axi_"
ALL_BYTES: Final = 15
PATIENCE: Final = 1000
"""Cycles in which a transfer must be over."""


class RegisterPortError(Exception):
    """The register port does not answer, or answers with an error."""


class RegisterPort:
    """Reads and writes registers of a design with AXI4-Lite pins of flat names (`s_axi_araddr` and so on).

    For one testbench, which has nothing else to do meanwhile. Transfers follow each other as fast as the port takes
    them; registers of several words go low word first. Both methods raise RegisterError for an unknown name or a value
    that does not fit, and RegisterPortError.
    """

    def __init__(self, design: Elaboratable, registers: RegisterMap) -> None:
        def pin(name: str) -> Value:
            return Value.cast(getattr(design, PREFIX + name))

        self._registers = registers
        # One set for all pins of a channel: each lets the whole design settle.
        self._aw = Cat(pin("awvalid"), pin("awaddr"))
        self._w = Cat(pin("wvalid"), pin("wdata"), pin("wstrb"))
        self._ar = Cat(pin("arvalid"), pin("araddr"))
        self._strobes = ALL_BYTES << (1 + len(pin("wdata")))
        self._b_ready, self._r_ready = pin("bready"), pin("rready")
        self._writing = (pin("awready"), pin("wready"), pin("bvalid"), pin("bresp"))
        self._reading = (pin("arready"), pin("rvalid"), pin("rresp"), pin("rdata"))

    async def write(self, ctx: SimulatorContext, values: Mapping[str, int]) -> None:
        """Write registers in this order."""
        writes = list(self._registers.words(values).items())
        addresses = [1 | offset << 1 for offset, _ in writes] + [0]
        words = [1 | word << 1 | self._strobes for _, word in writes] + [0]
        addressed = sent = answered = 0
        ctx.set(self._b_ready, 1)
        for _ in range(PATIENCE * len(writes)):
            ctx.set(self._aw, addresses[addressed])
            ctx.set(self._w, words[sent])
            _, _, aw_ready, w_ready, b_valid, response = await ctx.tick().sample(*self._writing)
            addressed += aw_ready and addressed < len(writes)
            sent += w_ready and sent < len(writes)
            if b_valid:
                check_response("Write", writes[answered][0], response)
                answered += 1
            if answered == len(writes):
                ctx.set(self._b_ready, 0)
                return
        raise unanswered("Write", writes[answered][0])

    async def read(self, ctx: SimulatorContext, names: Iterable[str]) -> dict[str, int]:
        """Read registers in this order, by name."""
        registers = [self._registers[name] for name in names]
        offsets = [register.offset + REGISTER_BYTES * word for register in registers for word in range(register.words)]
        addresses = [1 | offset << 1 for offset in offsets] + [0]
        words: list[int] = []
        addressed = 0
        ctx.set(self._r_ready, 1)
        for _ in range(PATIENCE * len(offsets)):
            ctx.set(self._ar, addresses[addressed])
            _, _, ar_ready, r_valid, response, word = await ctx.tick().sample(*self._reading)
            addressed += ar_ready and addressed < len(offsets)
            if r_valid:
                check_response("Read", offsets[len(words)], response)
                words.append(word)
            if len(words) == len(offsets):
                ctx.set(self._r_ready, 0)
                return joined(registers, words)
        raise unanswered("Read", offsets[len(words)])


def joined(registers: Sequence[Register], words: Sequence[int]) -> dict[str, int]:
    """Values by name; `words` are those of all registers, one after the other."""
    rest = iter(words)
    return {register.name: sum(next(rest) << (32 * word) for word in range(register.words)) for register in registers}


def check_response(transfer: str, offset: int, response: int) -> None:
    if response:
        raise RegisterPortError(f"{transfer} of {offset:#x} must be answered with OKAY, not with response {response}")


def unanswered(transfer: str, offset: int) -> RegisterPortError:
    return RegisterPortError(f"{transfer} of {offset:#x} must be answered within {PATIENCE} cycles, and was not")
