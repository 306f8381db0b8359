"""The interface of everything that executes VTA instructions: simulators and boards."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.program import Tokens
from vta_sim.trace import Trace

PAGE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Bases:
    """Byte addresses that the ports add to ``dram_base * element bytes`` (VTA spec 3.1)."""

    uop: int = 0
    inp: int = 0
    wgt: int = 0
    acc: int = 0
    out: int = 0

    @staticmethod
    def at(address: int) -> Bases:
        """All five ports at one address: the arena of a position independent program."""
        return Bases(uop=address, inp=address, wgt=address, acc=address, out=address)

    @property
    def by_memory(self) -> dict[MemoryType, int]:
        """The address by the memory type of the scratchpad; all accumulators come through one port."""
        return {
            MemoryType.UOP: self.uop,
            MemoryType.WGT: self.wgt,
            MemoryType.INP: self.inp,
            MemoryType.ACC: self.acc,
            MemoryType.OUT: self.out,
        }


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """What a device counted during one launch.

    counters: name -> total. tokens_left: tokens in the four queues after the last instruction. counters_of: the share
    of instructions ``begin..end-1`` of the launch, by name; empty where the device cannot tell instructions apart.
    trace: where the cycles went, if the device has a clock and was asked to watch it.
    """

    counters: Mapping[str, int]
    tokens_left: Tokens
    counters_of: Callable[[int, int], Mapping[str, int]] = lambda begin, end: {}
    trace: Trace | None = None


class Device(abc.ABC):
    """DRAM that host and accelerator share, and an accelerator that runs one launch at a time.

    Addresses are physical bytes. `launch` returns at once, `wait` ends it; between the two every other call raises
    `DeviceError`. A device belongs to one thread.
    """

    @property
    @abc.abstractmethod
    def config(self) -> VTAConfig:
        """The accelerator that this device holds."""

    @abc.abstractmethod
    def allocate(self, nbytes: int, align: int = PAGE_BYTES) -> int:
        """Address of `nbytes` bytes of zeros, a multiple of `align` (a power of two)."""

    @abc.abstractmethod
    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""

    @abc.abstractmethod
    def write(self, address: int, data: NDArray[np.generic]) -> None:
        """Copy a C-contiguous array of any type to `address`."""

    @abc.abstractmethod
    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """The `nbytes` bytes at `address`, as an array of its own."""

    def view(self, address: int, nbytes: int) -> NDArray[np.uint8] | None:
        """The bytes themselves, until freed, where host and accelerator see one memory as one array; None elsewhere."""
        return None

    @abc.abstractmethod
    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        """Start `insn_count` instructions from `insn_address`, with `tokens` in the queues (none: empty queues).

        bases: port bases, zero by default. allow_leftover_tokens: tokens that nobody popped are reported by `wait`
        instead of being an error there.
        """

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> LaunchReport:
        """Block until the launch is over.

        timeout: seconds, None waits for ever. Raises DeviceTimeout (the launch goes on) or the device's own error.
        """

    @abc.abstractmethod
    def counters(self) -> dict[str, int]:
        """Totals over all launches since the device was made."""

    def close(self) -> None:  # noqa: B027 - most devices have nothing to do
        """Complete the files that the device writes, if any; it is not used any more."""
