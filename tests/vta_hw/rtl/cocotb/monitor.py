"""What AXI and VTA spec 6.3 demand of the memory port, checked cycle by cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.vta_hw.rtl.cocotb.footprint import Footprint
from vta_hw.rtl.axi import MAX_BURST_BEATS, Client
from vta_hw.spec.config import VTAConfig

Wires = Mapping[str, int]
"""Signals of a cycle by their AXI names, `araddr` and so on; and `rst`."""

BOUNDARY: Final = 4096
_ADDRESS: Final = ("addr", "len", "id", "size", "burst", "lock", "cache", "prot", "qos")
PAYLOADS: Final[Mapping[str, tuple[str, ...]]] = {
    "ar": _ADDRESS,
    "aw": _ADDRESS,
    "w": ("data", "strb", "last"),
    "r": ("data", "resp", "last", "id"),
    "b": ("resp", "id"),
}
"""What must not change on a channel until it is taken."""

_CONSTANTS: Final = {"burst": 1, "lock": 0, "cache": 3, "prot": 0, "qos": 0}


@dataclass
class _Burst:
    addr: int
    beats: int
    id: int


class AxiMonitor:
    """Watches an AXI4 memory port and lists what is wrong in `violations`, a sentence each that begins with the cycle.

    reads, writes: bytes that the master may ask for; None for any. A burst whose words hold none of the former is an
    unrequested read, a strobe outside of the latter an unrequested write. bursts: how many it has seen.
    """

    def __init__(self, config: VTAConfig) -> None:
        self.violations: list[str] = []
        self.reads: Footprint | None = None
        self.writes: Footprint | None = None
        self.bursts = 0
        self._bytes = config.bus_bits // 8
        self._cycle = 0
        self._reset_before = False
        self._forget()

    def _forget(self) -> None:
        self._held: dict[str, tuple[int, ...] | None] = dict.fromkeys(PAYLOADS)
        self._reading: list[_Burst] = []  # Accepted, in order; `beats` are those that are still to come.
        self._addresses: deque[_Burst] = deque()  # Writes whose data is not complete.
        self._strobes: deque[list[int]] = deque([[]])  # Of bursts without address; the last is not complete.
        self._written: list[int] = []  # IDs of complete writes without response.

    @property
    def outstanding(self) -> int:
        """Bursts, or parts of them, that are not answered."""
        return len(self._reading) + len(self._addresses) + len(self._strobes[0]) + len(self._written)

    def step(self, wires: Wires) -> None:
        """Look at one cycle."""
        self._cycle += 1
        if wires["rst"]:
            for channel in ("ar", "aw", "w"):
                if self._reset_before and wires[f"{channel}valid"]:
                    self._complain(f"{channel.upper()}VALID must be low during reset")
            self._reset_before = True
            self._forget()
            return
        self._reset_before = False
        taken = {channel: payload for channel in PAYLOADS if (payload := self._look(channel, wires)) is not None}
        # Answers first: they may only follow requests of earlier cycles.
        if "r" in taken:
            self._read_beat(wires)
        if "b" in taken:
            self._response(wires)
        if "ar" in taken:
            self._reading.append(_Burst(wires["araddr"], wires["arlen"] + 1, wires["arid"]))
        if "w" in taken:
            self._write_beat(wires)
        if "aw" in taken:
            self._addresses.append(_Burst(wires["awaddr"], wires["awlen"] + 1, wires["awid"]))
        self._match_writes()

    def finish(self) -> None:
        """Look at the end of a launch: nothing may be left without an answer."""
        if self.outstanding:
            self._complain(f"every burst must be answered, and {self.outstanding} are not")

    def _complain(self, sentence: str) -> None:
        self.violations.append(f"cycle {self._cycle}: {sentence}")

    def _look(self, channel: str, wires: Wires) -> tuple[int, ...] | None:
        """Check that what waits stays; returns the payload if it is taken in this cycle."""
        held, name = self._held[channel], channel.upper()
        if not wires[f"{channel}valid"]:
            if held is not None:
                self._complain(f"{name}VALID must stay until {name}READY")
            self._held[channel] = None
            return None
        payload = tuple(wires[channel + part] for part in PAYLOADS[channel])
        if held is None and channel in ("ar", "aw"):
            self._check_address(channel, wires)
        elif held is not None and held != payload:
            changed = [
                name + part.upper()
                for part, old, new in zip(PAYLOADS[channel], held, payload, strict=True)
                if old != new
            ]
            self._complain(f"{', '.join(changed)} must not change until {name}READY")
        ready = wires[f"{channel}ready"]
        self._held[channel] = None if ready else payload
        return payload if ready else None

    def _check_address(self, channel: str, wires: Wires) -> None:
        self.bursts += 1
        name = channel.upper()
        address, beats = wires[f"{channel}addr"], wires[f"{channel}len"] + 1
        where = f"of the burst at {address:#x}"
        for part, value in (_CONSTANTS | {"size": self._bytes.bit_length() - 1}).items():
            if wires[channel + part] != value:
                self._complain(f"{name}{part.upper()} {where} must be {value}, not {wires[channel + part]}")
        if address % self._bytes:
            self._complain(f"{name}ADDR must be a multiple of {self._bytes}, not {address:#x}")
        if beats > MAX_BURST_BEATS:
            self._complain(f"{name}LEN {where} must be below {MAX_BURST_BEATS}, not {beats - 1}")
        if address % BOUNDARY + beats * self._bytes > BOUNDARY:
            self._complain(f"{name} burst at {address:#x} must not cross {BOUNDARY} bytes with {beats} words")
        ids = tuple(Client) if channel == "ar" else (0,)
        if wires[f"{channel}id"] not in ids:
            self._complain(
                f"{name}ID {where} must be {' or '.join(map(str, map(int, ids)))}, not {wires[f'{channel}id']}"
            )
        if channel == "ar" and self.reads is not None:
            for beat in range(beats):
                if not self.reads.mask(address + beat * self._bytes, self._bytes):
                    self._complain(f"AR must ask for what is needed, not for word {beat} {where}")

    def _read_beat(self, wires: Wires) -> None:
        burst = next((burst for burst in self._reading if burst.id == wires["rid"]), None)
        if burst is None:
            self._complain(f"RID must be that of a burst, not {wires['rid']}")
            return
        burst.beats -= 1
        if wires["rlast"] != (burst.beats == 0):
            self._complain(f"RLAST of the burst at {burst.addr:#x} must be {int(burst.beats == 0)}")
        if burst.beats == 0:
            self._reading.remove(burst)

    def _response(self, wires: Wires) -> None:
        if wires["bid"] in self._written:
            self._written.remove(wires["bid"])
        else:
            self._complain(f"BID must be that of a complete write, not {wires['bid']}")

    def _write_beat(self, wires: Wires) -> None:
        strobes = self._strobes[-1]
        strobes.append(wires["wstrb"])
        if wires["wlast"]:
            self._strobes.append([])
        elif len(strobes) >= MAX_BURST_BEATS:
            self._complain(f"WLAST must come within {MAX_BURST_BEATS} words")

    def _match_writes(self) -> None:
        """Compare addresses and data, which may come in any order, burst by burst."""
        while self._addresses and len(self._strobes) > 1:
            burst, strobes = self._addresses.popleft(), self._strobes.popleft()
            if len(strobes) != burst.beats:
                self._complain(
                    f"WLAST of the burst at {burst.addr:#x} must be in word {burst.beats}, not {len(strobes)}"
                )
            self._written.append(burst.id)
            for beat, strobe in enumerate(strobes):
                address = burst.addr + beat * self._bytes
                if self.writes is not None and strobe & ~self.writes.mask(address, self._bytes):
                    self._complain(f"WSTRB at {address:#x} must not reach beyond what is stored, as {strobe:#x} does")
