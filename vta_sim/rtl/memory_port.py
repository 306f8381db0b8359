"""A memory behind the AXI4 pins of a design in Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final, TypeVar

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.sim import SimulatorContext

from vta_sim.rtl.axi_memory import Address, Answer, AxiMemory, Shown, WriteWord

PREFIX: Final = "m_axi_"

_VALID_NAMES: Final = ("arvalid", "awvalid", "wvalid", "rready", "bready")
_AR_VALID, _AW_VALID, _W_VALID, _R_READY, _B_READY = (1 << bit for bit in range(len(_VALID_NAMES)))
_ANY_VALID: Final = _AR_VALID | _AW_VALID | _W_VALID

Fields = TypeVar("Fields", Address, WriteWord)


class MemoryPort(Elaboratable):
    """A design with AXI4 pins of flat names (`m_axi_araddr` and so on), to be simulated with `process`.

    memory: asked in every cycle for the memory that answers; it may be another one after a reset of the simulator.
    """

    def __init__(self, design: Elaboratable, memory: Callable[[], AxiMemory]) -> None:
        self._design = design
        self._memory = memory
        self._ar, self._aw = ([self._pin(channel + name) for name in Address._fields] for channel in ("ar", "aw"))
        self._w = [self._pin("w" + name) for name in WriteWord._fields]
        # Sampling costs the same for each signal, however wide it is.
        self._pins = Cat(*(self._pin(name) for name in _VALID_NAMES), *self._ar, *self._aw, *self._w)
        self._packed = Signal(len(self._pins), name="memory_pins")

    def _pin(self, name: str) -> Value:
        return Value.cast(getattr(self._design, PREFIX + name))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.top = self._design
        m.d.comb += self._packed.eq(self._pins)
        return m

    async def process(self, ctx: SimulatorContext) -> None:
        """Step the memory with the clock; its answers change as registers do."""
        take_ar, take_aw, take_w = self._readers()
        show = self._shower(ctx)
        async for _, _, pins in ctx.tick().sample(self._packed):
            memory = self._memory()
            if memory.resting and not pins & _ANY_VALID:
                continue
            shown = Shown(
                take_ar(pins) if pins & _AR_VALID else None,
                take_aw(pins) if pins & _AW_VALID else None,
                take_w(pins) if pins & _W_VALID else None,
                bool(pins & _R_READY),
                bool(pins & _B_READY),
            )
            show(memory.step(shown))

    def _readers(self) -> tuple[Callable[[int], Address], Callable[[int], Address], Callable[[int], WriteWord]]:
        """Functions from the packed pins to what each channel shows."""
        ar = len(_VALID_NAMES)
        aw = ar + sum(map(len, self._ar))
        w = aw + sum(map(len, self._aw))
        return _reader(Address, self._ar, ar), _reader(Address, self._aw, aw), _reader(WriteWord, self._w, w)

    def _shower(self, ctx: SimulatorContext) -> Callable[[Answer], None]:
        """A function that sets those pins which an answer changes: setting one is slow."""
        values: dict[str, int] = {}
        pins: dict[str, Any] = {}

        def put(name: str, value: int) -> None:
            if values.get(name, 0) != value:
                values[name] = value
                if name not in pins:
                    pins[name] = self._pin(name)
                ctx.set(pins[name], value)

        def show(answer: Answer) -> None:
            put("arready", answer.ar_ready)
            put("awready", answer.aw_ready)
            put("wready", answer.w_ready)
            put("rvalid", answer.r is not None)
            put("bvalid", answer.b is not None)
            if answer.r is not None:
                put("rdata", answer.r.data)
                put("rresp", answer.r.resp)
                put("rlast", answer.r.last)
                put("rid", answer.r.id)
            if answer.b is not None:
                put("bresp", answer.b.resp)
                put("bid", answer.b.id)

        return show


def _reader(kind: type[Fields], pins: Sequence[Value], begin: int) -> Callable[[int], Fields]:
    shifts = accumulate(map(len, pins), initial=begin)
    places = [(shift, (1 << len(pin)) - 1) for shift, pin in zip(shifts, pins, strict=False)]
    return lambda packed: kind(*[packed >> shift & mask for shift, mask in places])
