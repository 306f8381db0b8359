"""A device that records what it is asked, and programs for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.arena import Arena
from runtime.device import Bases, Device, LaunchReport
from runtime.errors import DeviceTimeout
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Buffer, Host, Launch, Layer, Program, Role, Segment, Tokens


class FakeDevice(Device):
    """One array as memory. A launch adds 1 to the bytes `adds_to` (relative to the bases) and counts its instructions.

    hangs: `wait` with a timeout gives up. attributes: whether counters can be split by instruction.
    """

    def __init__(
        self, config: VTAConfig, *, adds_to: tuple[int, int] = (0, 0), hangs: bool = False, attributes: bool = True
    ) -> None:
        self._config = config
        self.memory = np.zeros(1 << 20, np.uint8)
        self.arena = Arena(0x4000, 1 << 20)
        self.launches: list[tuple[int, int, Bases | None, Tokens | None, bool]] = []
        self.live: set[int] = set()
        self._adds_to, self._hangs, self._attributes = adds_to, hangs, attributes

    @property
    def config(self) -> VTAConfig:
        return self._config

    def allocate(self, nbytes: int, align: int = 4096) -> int:
        address = self.arena.allocate(nbytes, align)
        self.live.add(address)
        return address

    def free(self, address: int) -> None:
        self.arena.free(address)
        self.live.remove(address)

    def write(self, address: int, data: NDArray[np.generic]) -> None:
        self.memory[address : address + data.nbytes] = data.reshape(-1).view(np.uint8)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        return self.memory[address : address + nbytes].copy()

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        self.launches.append((insn_address, insn_count, bases, tokens, allow_leftover_tokens))
        begin, end = ((bases or Bases()).out + offset for offset in self._adds_to)
        self.memory[begin:end] += 1

    def wait(self, timeout: float | None = None) -> LaunchReport:
        if self._hangs and timeout is not None:
            raise DeviceTimeout(f"Launch must finish within {timeout} s, and has not")
        count = self.launches[-1][1]
        left = Tokens(l2g=len(self.launches))
        if not self._attributes:
            return LaunchReport(counters={"instructions": count}, tokens_left=left)
        return LaunchReport(
            counters={"instructions": count},
            tokens_left=left,
            counters_of=lambda begin, end: {"instructions": end - begin},
        )

    def counters(self) -> dict[str, int]:
        return {"instructions": sum(launch[1] for launch in self.launches)}


X, Y, K, W = 0x100, 0x110, 0x120, 0x130


def insns(count: int) -> bytes:
    """`count` instructions that are nothing but different."""
    config = VTAConfig()
    text = "\n".join(f"gemm iter_in={index}" for index in range(count))
    return ISA(config).encode_program(assemble(text, config)[0]).tobytes()


def program() -> Program:
    """Host step `w = x + k`; a launch of 4 instructions on `w`; host step `y = 2 w`; a launch of 2 instructions."""
    return Program(
        config=VTAConfig(),
        insns=insns(6),
        insn_address=0x1000,
        uops=bytes(8),
        uop_address=0x2000,
        arena_bytes=0x3000,
        buffers=(
            Buffer(name="x", role=Role.INPUT, dtype="int16", shape=(2, 3), address=X, nbytes=12),
            Buffer(name="y", role=Role.OUTPUT, dtype="int16", shape=(3, 2), address=Y, nbytes=12),
            Buffer(name="k", role=Role.CONSTANT, dtype="int16", shape=(2, 3), address=K, nbytes=12),
            Buffer(name="w", role=Role.WORKSPACE, dtype="int8", shape=(6,), address=W, nbytes=6),
        ),
        steps=(
            Host(name="first", proc={"name": "sum"}, buffers=("x", "k", "w")),
            Launch(insn_begin=0, insn_count=4),
            Host(name="second", proc={"name": "double"}, buffers=("w", "y")),
            Launch(insn_begin=4, insn_count=2),
        ),
        layers=(
            Layer(name="a", insn_begin=1, insn_end=3, macs=10),
            Layer(name="b", insn_begin=3, insn_end=6, macs=20),
        ),
        segments=(Segment(address=K, data=np.arange(6, dtype="<i2").tobytes()),),
    )
