"""AXI as streams: the five channels of a memory port, the five of a register port, and what the blocks inside speak.

Inside the accelerator a channel is an `amaranth.lib.stream` of what varies; the constants of VTA spec 6.3 (burst type,
size, cache, protection) join at the top level only. A stream's valid never depends on its ready, which is AXI's own
rule.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.spec.config import VTAConfig

MAX_BURST_BEATS: Final = 16
"""Beats of the longest burst: what AXI3 ports (Zynq-7000) accept. Aligned windows of it never cross 4 KiB."""

ID_BITS: Final = 2


class Client(IntEnum):
    """Who reads; the number is the ARID of its bursts, so that answers may come back interleaved."""

    FETCH = 0
    LOAD = 1
    COMPUTE = 2


class Response(IntEnum):
    """RRESP and BRESP."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def burst_layout(config: VTAConfig) -> data.StructLayout:
    """A burst inside the accelerator: byte address of its first bus word, beats minus one."""
    return data.StructLayout({"addr": config.address_bits, "len": 8})


def read_beat_layout(config: VTAConfig) -> data.StructLayout:
    """One bus word that was read; `error` for SLVERR and DECERR, `last` of its burst."""
    return data.StructLayout({"data": config.bus_bits, "error": 1, "last": 1})


def write_beat_layout(config: VTAConfig) -> data.StructLayout:
    """One bus word to write, with a strobe for each byte; `last` of its burst."""
    return data.StructLayout({"data": config.bus_bits, "strb": config.bus_bits // 8, "last": 1})


class ReadPort(wiring.Signature):
    """Of a block that reads memory: bursts out; beats in, in order, and never refused."""

    def __init__(self, config: VTAConfig) -> None:
        super().__init__(
            {
                "burst": Out(stream.Signature(burst_layout(config))),
                "beat": In(stream.Signature(read_beat_layout(config), always_ready=True)),
            }
        )


class WritePort(wiring.Signature):
    """Of a block that writes memory: bursts and beats out, in the same order, either may be ahead of the other.

    `response` comes once for each burst, in order, and is never refused; its payload is 1 for SLVERR and DECERR.
    """

    def __init__(self, config: VTAConfig) -> None:
        super().__init__(
            {
                "burst": Out(stream.Signature(burst_layout(config))),
                "beat": Out(stream.Signature(write_beat_layout(config))),
                "response": In(stream.Signature(1, always_ready=True)),
            }
        )


class AXI4(wiring.Signature):
    """The memory port, seen from the master: `ar` and `aw` {addr, len, id}, `r` {data, resp, last, id}, `w`, `b`."""

    def __init__(self, config: VTAConfig) -> None:
        address = data.StructLayout({"addr": config.address_bits, "len": 8, "id": ID_BITS})
        read = data.StructLayout({"data": config.bus_bits, "resp": 2, "last": 1, "id": ID_BITS})
        super().__init__(
            {
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(read)),
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(write_beat_layout(config))),
                "b": In(stream.Signature(data.StructLayout({"resp": 2, "id": ID_BITS}))),
            }
        )


REGISTER_ADDRESS_BITS: Final = 16
"""VTA spec 6.2 compares addresses on 16 bits."""


class AXI4Lite(wiring.Signature):
    """The register port, seen from the master: 32 data bits, byte addresses."""

    def __init__(self) -> None:
        super().__init__(
            {
                "aw": Out(stream.Signature(REGISTER_ADDRESS_BITS)),
                "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
                "b": In(stream.Signature(2)),
                "ar": Out(stream.Signature(REGISTER_ADDRESS_BITS)),
                "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": 2}))),
            }
        )
