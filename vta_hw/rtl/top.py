"""The accelerator as a block design sees it: AXI4-Lite slave, AXI4 master and interrupt, with AXI's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.axi import ID_BITS, REGISTER_ADDRESS_BITS
from vta_hw.rtl.core import BASES, AnyScratchpad, Core
from vta_hw.rtl.registers import ControlRegisters
from vta_hw.rtl.scratchpad import SCRATCHPADS, Geometry
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType

# VTA spec 6.3, for a port that is not coherent: INCR; normal, bufferable, modifiable; secure data access.
_INCR: Final = 1
_CACHE: Final = 0b0011
_PROT: Final = 0

_SLAVE: Final[Mapping[str, Mapping[str, int]]] = {
    "aw": {"addr": REGISTER_ADDRESS_BITS},
    "w": {"data": 32, "strb": 4},
    "b": {"resp": 2},
    "ar": {"addr": REGISTER_ADDRESS_BITS},
    "r": {"data": 32, "resp": 2},
}


def _master(config: VTAConfig) -> Mapping[str, Mapping[str, int]]:
    address = {"id": ID_BITS, "addr": config.address_bits, "len": 8}
    return {
        "aw": address,
        "w": {"data": config.bus_bits, "strb": config.bus_bits // 8, "last": 1},
        "b": {"id": ID_BITS, "resp": 2},
        "ar": address,
        "r": {"id": ID_BITS, "data": config.bus_bits, "resp": 2, "last": 1},
    }


_ATTRIBUTES: Final = {"size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4}


def check_buildable(config: VTAConfig) -> None:
    """Refuse, with `ConfigError`, what no tool can build; before a `Top`, of whose loss Amaranth would warn.

    TypeError for what is no configuration.
    """
    if not isinstance(config, VTAConfig):
        raise TypeError(f"config must be a VTAConfig, not {config!r}")
    for memory in SCRATCHPADS:
        Geometry.of(config, memory)


class Top(wiring.Component):
    """The whole accelerator.

    `s_axi_*` is an AXI4-Lite slave of 32 data and 16 address bits with the registers of `vta_hw.spec.registers`;
    `m_axi_*` an AXI4 master with the data bits of the memory bus and two ID bits; `irq` is high while a launch has
    finished and the interrupt is enabled. One clock, and a synchronous reset that is high when active.

    scratchpads: the on-chip memories, for simulators that look inside.

    queue_depth: instructions that each of the three queues holds, 2 to 65536.

    Raises `ConfigError` for a configuration that cannot be built, and ValueError for another depth.
    """

    def __init__(self, config: VTAConfig, *, queue_depth: int = 512) -> None:
        check_buildable(config)
        self.config = config
        self.core = Core(config, queue_depth=queue_depth)
        self.registers = ControlRegisters(config)
        members = {"irq": Out(1)}
        for channel, fields in _SLAVE.items():
            towards = In if channel in ("aw", "w", "ar") else Out
            members |= {f"s_axi_{channel}{name}": towards(bits) for name, bits in fields.items()}
            members |= _handshake("s_axi", channel, towards)
        for channel, fields in _master(config).items():
            towards = Out if channel in ("aw", "w", "ar") else In
            members |= {f"m_axi_{channel}{name}": towards(bits) for name, bits in fields.items()}
            members |= _handshake("m_axi", channel, towards)
        for channel in ("aw", "ar"):
            members[f"s_axi_{channel}prot"] = In(3)
            members |= {f"m_axi_{channel}{name}": Out(bits) for name, bits in _ATTRIBUTES.items()}
        super().__init__(members)

    @property
    def scratchpads(self) -> Mapping[MemoryType, AnyScratchpad]:
        """The on-chip memories by type."""
        return self.core.scratchpads

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.registers = registers = self.registers
        m.submodules.core = core = self.core
        for channel, fields in _SLAVE.items():
            self._join(m, "s_axi", channel, registers.axi, fields, inward=channel in ("aw", "w", "ar"))
        for channel, fields in _master(self.config).items():
            self._join(m, "m_axi", channel, core.axi, fields, inward=channel in ("b", "r"))
        size = (self.config.bus_bits // 8).bit_length() - 1
        for channel in ("aw", "ar"):
            values = {"size": size, "burst": _INCR, "lock": 0, "cache": _CACHE, "prot": _PROT, "qos": 0}
            m.d.comb += [getattr(self, f"m_axi_{channel}{name}").eq(value) for name, value in values.items()]
        m.d.comb += [
            core.start.eq(registers.start),
            core.count.eq(registers.insn_count),
            *(getattr(core, f"{name}_base").eq(getattr(registers, f"{name}_base")) for name in BASES),
            registers.finish.eq(core.finish),
            core.soft_reset.eq(registers.soft_reset),
            registers.reset_done.eq(core.reset_done),
            registers.status.eq(core.status),
            registers.fault_index.eq(core.fault_index),
            registers.events.eq(core.events),
            core.token_load.eq(registers.token_load),
            core.token_value.eq(registers.token_value),
            registers.token_count.eq(core.token_count),
            self.irq.eq(registers.irq),
        ]
        return m

    def _join(
        self,
        m: Module,
        prefix: str,
        channel: str,
        port: wiring.PureInterface,
        fields: Mapping[str, int],
        *,
        inward: bool,
    ) -> None:
        """Connect the flat signals of a channel to its stream; `inward` if its payload comes from outside."""
        flow = getattr(port, channel)
        outside = {name: getattr(self, f"{prefix}_{channel}{name}") for name in (*fields, "valid", "ready")}
        inside: dict[str, Value] = {"valid": flow.valid, "ready": flow.ready}
        for name in fields:
            inside[name] = flow.payload if isinstance(flow.payload, Signal) else flow.payload[name]
        for name, signal in outside.items():
            if inward != (name == "ready"):
                m.d.comb += inside[name].eq(signal)
            else:
                m.d.comb += signal.eq(inside[name])


def _handshake(prefix: str, channel: str, towards: type) -> dict[str, wiring.Member]:
    back = Out if towards is In else In
    return {f"{prefix}_{channel}valid": towards(1), f"{prefix}_{channel}ready": back(1)}
