"""The register port: AXI4-Lite's handshakes, and an answer for each request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from amaranth.hdl import Cat, Elaboratable, Module, Mux

from tests.vta_hw.rtl.formal.harness import Bug, Case, Proof, count, handshake, is_stable, not_withdrawn, past, plant
from vta_hw.rtl.axi import REGISTER_ADDRESS_BITS, Response
from vta_hw.rtl.registers import ControlRegisters, event_layout
from vta_hw.spec.config import VTAConfig

CONFIG: Final = VTAConfig()

KEPT: Final = "VALID is not withdrawn"
STABLE: Final = "the payload is stable while it waits"
WRITTEN: Final = "a write whose address and data were taken is answered"
ONCE: Final = "no write is answered before it was taken, or twice"
READ: Final = "a read is answered in the next cycle, once"
TAKEN: Final = "what comes while nothing is unanswered is taken, in any order"
OKAY: Final = "every response is OKAY"


class RegisterProof(Proof):
    """A host that asks what it likes, of a machine that does what it likes."""

    def __init__(self, registers: ControlRegisters) -> None:
        inputs = {"aw": REGISTER_ADDRESS_BITS, "w": 36, "ar": REGISTER_ADDRESS_BITS, "events": event_layout(CONFIG)}
        bits = ("aw_valid", "w_valid", "ar_valid", "b_ready", "r_ready", "finish", "reset_done")
        super().__init__({**inputs, **dict.fromkeys(bits, 1)})
        self._registers = registers

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.registers = registers = self._registers
        axi = registers.axi
        aw, w, b, ar, r = axi.aw, axi.w, axi.b, axi.ar, axi.r
        m.d.comb += [
            aw.payload.eq(self.aw),
            aw.valid.eq(self.aw_valid),
            w.payload.eq(self.w),
            w.valid.eq(self.w_valid),
            ar.payload.eq(self.ar),
            ar.valid.eq(self.ar_valid),
            b.ready.eq(self.b_ready),
            r.ready.eq(self.r_ready),
            registers.finish.eq(self.finish),
            registers.reset_done.eq(self.reset_done),
            registers.events.eq(self.events),
        ]
        for name, stream in (("B", b), ("R", r)):
            self.claim(m, f"{name}: {KEPT}", not_withdrawn(m, stream))
            self.claim(m, f"{name}: {STABLE}", is_stable(m, stream))
        addresses, words, writes = (count(m, handshake(stream)) for stream in (aw, w, b))
        asked, answered = count(m, handshake(ar)), count(m, handshake(r))
        complete = Mux(addresses < words, addresses, words)
        self.claim(m, WRITTEN, ~past(m, (complete != writes) & ~handshake(b)) | b.valid)
        self.claim(m, ONCE, ~b.valid | (writes < complete))
        self.claim(m, READ, r.valid == (asked != answered))
        idle = ((addresses != writes) | aw.ready, (words != writes) | w.ready, (asked != answered) | ar.ready)
        self.claim(m, TAKEN, Cat(idle).all())
        okay = (~b.valid | (b.payload == Response.OKAY)) & (~r.valid | (r.payload.resp == Response.OKAY))
        self.claim(m, OKAY, okay)
        return m


def _in_port(change: Callable[[Any, Module], None]) -> Bug:
    """Plant a bug behind the registers, in the component that speaks AXI4-Lite."""

    @wraps(change)
    def bug(registers: ControlRegisters, m: Module) -> None:
        plant(m.submodules.port, lambda port, within: change(port.axi, within))

    return bug


def _withdraws(name: str) -> Bug:
    def change(axi: Any, m: Module) -> None:
        """Lower VALID in the first cycle without READY."""
        stream = getattr(axi, name)
        with m.If(stream.valid & ~stream.ready):
            m.d.sync += stream.valid.eq(0)

    return _in_port(change)


def _b_changes(axi: Any, m: Module) -> None:
    """Change BRESP while it waits."""
    with m.If(axi.b.valid):
        m.d.sync += axi.b.payload.eq(axi.b.payload + 1)


def _r_changes(axi: Any, m: Module) -> None:
    """Count RDATA up while it waits."""
    with m.If(axi.r.valid):
        m.d.sync += axi.r.payload.data.eq(axi.r.payload.data + 1)


def _loses_a_write(axi: Any, m: Module) -> None:
    """Lose the response to a write while a read waits."""
    with m.If(axi.r.valid & ~axi.b.valid):
        m.d.sync += axi.b.valid.eq(0)


def _answers_a_write_twice(axi: Any, m: Module) -> None:
    """Answer a write twice."""
    with m.If(handshake(axi.b) & ~past(m, handshake(axi.b))):
        m.d.sync += axi.b.valid.eq(1)


def _loses_a_read(axi: Any, m: Module) -> None:
    """Lose a read while a write waits for BREADY."""
    with m.If(handshake(axi.ar) & axi.b.valid):
        m.d.sync += axi.r.valid.eq(0)


def _wants_the_address_first(axi: Any, m: Module) -> None:
    """Take the data of a write only behind its address."""
    m.d.comb += axi.w.ready.eq(past(m, handshake(axi.aw)))


def _reports_an_error(axi: Any, m: Module) -> None:
    """Answer a read with SLVERR while a write waits for BREADY."""
    with m.If(axi.b.valid):
        m.d.sync += axi.r.payload.resp.eq(Response.SLVERR)


CASES: Final = (
    Case(
        name="control registers",
        component=lambda: ControlRegisters(CONFIG),
        proof=RegisterProof,
        depth=12,
        planted={
            f"B: {KEPT}": _withdraws("b"),
            f"B: {STABLE}": _in_port(_b_changes),
            f"R: {KEPT}": _withdraws("r"),
            f"R: {STABLE}": _in_port(_r_changes),
            WRITTEN: _in_port(_loses_a_write),
            ONCE: _in_port(_answers_a_write_twice),
            READ: _in_port(_loses_a_read),
            TAKEN: _in_port(_wants_the_address_first),
            OKAY: _in_port(_reports_an_error),
        },
    ),
)
