"""The accelerator with its memory, as one design: what is left outside is the host and the bytes that are stored."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from vta_hw.rtl.top import Top
from vta_hw.spec.config import VTAConfig
from vta_sim.rtl.dram import Dram

_MEMORY_PORT = "m_axi_"


class Machine(wiring.Component):
    """`Top` and `Dram`, as `top` and `dram` below it, joined at the memory port.

    Its pins: the register port (`s_axi_*`) and `irq` of `Top`, the storage port (`storage_*`) of `Dram`, and the inputs
    of `vta_sim.rtl.dram.SETTINGS`, which describe the timing of the memory. The memory restarts with each launch.

    top, dram: the two. errors: byte ranges of memory that answer with an error. options: of `Top`. Raises ConfigError
    and ValueError as `Top` does.
    """

    def __init__(self, config: VTAConfig, *, errors: Mapping[range, int] | None = None, **options: int) -> None:
        self.config = config
        self.top = Top(config, **options)
        self.dram = Dram(config, errors=errors)
        top, dram = self.top.signature.members, self.dram.signature.members
        self._of_top = [name for name in top if not name.startswith(_MEMORY_PORT)]
        self._of_dram = [name for name in dram if _MEMORY_PORT + name not in top and name != "restart"]
        super().__init__({name: top[name] for name in self._of_top} | {name: dram[name] for name in self._of_dram})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.top = top = self.top
        m.submodules.dram = dram = self.dram
        for inside, names in ((top, self._of_top), (dram, self._of_dram)):
            for name in names:
                _join(m, inside, name, getattr(self, name))
        for name in dram.signature.members:
            if _MEMORY_PORT + name in top.signature.members:
                _join(m, dram, name, getattr(top, _MEMORY_PORT + name))
        m.d.comb += dram.restart.eq(top.registers.start)
        return m


def _join(m: Module, inside: wiring.Component, name: str, outside: Signal) -> None:
    """Connect the pin `name` of a component to the signal that it continues in outside."""
    pin: Signal = getattr(inside, name)
    if inside.signature.members[name].flow is In:
        m.d.comb += pin.eq(outside)
    else:
        m.d.comb += outside.eq(pin)
