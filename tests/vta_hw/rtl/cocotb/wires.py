"""The bench around the accelerator: its ports, and all of its memory port as two words, which are fast to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

BENCH: Final = "bench"
MASTER: Final = "m_axi_"

_ADDRESS: Final = ("id", "addr", "len", "size", "burst", "lock", "cache", "prot", "qos", "valid")
SHOWN: Final = (
    *(f"ar{part}" for part in _ADDRESS),
    *(f"aw{part}" for part in _ADDRESS),
    *("wdata", "wstrb", "wlast", "wvalid", "rready", "bready"),
)
"""What the accelerator drives of its memory port, lowest bit first."""

ANSWERED: Final = (
    *("arready", "awready", "wready", "rid", "rdata", "rresp", "rlast", "rvalid", "bid", "bresp", "bvalid"),
)
"""What memory drives."""

_PORT: Final = re.compile(r"(?m)^//   (?P<direction>input|output) +(?:\[(?P<msb>\d+):0\] )?(?P<name>\w+)$")


class Word:
    """Signals side by side in one word, lowest bit first."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._places = []
        lsb = 0
        for name, bits in widths.items():
            self._places.append((name, lsb, (1 << bits) - 1))
            lsb += bits

    def split(self, value: int) -> dict[str, int]:
        """The signals by name."""
        return {name: value >> lsb & mask for name, lsb, mask in self._places}


def bench_verilog(emitted: str) -> str:
    """A module `bench` around an emitted accelerator, with its ports and the outputs `shown` and `answered`."""
    ports = {port["name"]: port for port in _PORT.finditer(emitted)}
    declared = [f"{port['direction']} {_range(_bits(port))}{name}" for name, port in ports.items()]
    joined = []
    for word, names in (("shown", SHOWN), ("answered", ANSWERED)):
        bits = sum(_bits(ports[MASTER + name]) for name in names)
        declared.append(f"output {_range(bits)}{word}")
        joined.append(f"  assign {word} = {{{', '.join(MASTER + name for name in reversed(names))}}};")
    connected = ", ".join(f".{name}({name})" for name in ports)
    lines = [f"module {BENCH}(", ",\n".join(declared), ");", f"  vta dut({connected});", *joined, "endmodule"]
    return "\n".join(lines) + "\n"


def _bits(port: re.Match[str]) -> int:
    return int(port["msb"] or 0) + 1


def _range(bits: int) -> str:
    return f"[{bits - 1}:0] " if bits > 1 else ""
