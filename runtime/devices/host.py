"""Memory without an accelerator, for programs whose steps all run on the host."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

from runtime.aligned import aligned_zeros
from runtime.arena import Arena
from runtime.device import PAGE_BYTES, Bases, Device, LaunchReport
from runtime.errors import DeviceError
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Tokens


class HostDevice(Device):
    """Ordinary arrays behind addresses; host steps work on views of them. Refuses launches.

    config: the one that its programs name; nothing here depends on it.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        self._arena = Arena(PAGE_BYTES, 1 << 48)
        self._starts: list[int] = []
        self._blocks: dict[int, NDArray[np.uint8]] = {}

    @property
    def config(self) -> VTAConfig:
        return self._config

    def allocate(self, nbytes: int, align: int = PAGE_BYTES) -> int:
        address = self._arena.allocate(nbytes, align)
        try:
            self._blocks[address] = aligned_zeros(nbytes)
        except MemoryError:
            self._arena.free(address)
            raise DeviceError(f"Memory must have room for {nbytes} bytes, and has not") from None
        bisect.insort(self._starts, address)
        return address

    def free(self, address: int) -> None:
        self._arena.free(address)
        self._starts.remove(address)
        del self._blocks[address]

    def write(self, address: int, data: NDArray[np.generic]) -> None:
        self.view(address, data.nbytes)[:] = data.reshape(-1).view(np.uint8)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        return self.view(address, nbytes).copy()

    def view(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0 and nbytes >= 0:
            begin = self._starts[index]
            block = self._blocks[begin]
            if address + nbytes <= begin + block.size:
                return block[address - begin : address - begin + nbytes]
        raise DeviceError(f"Memory range must lie in one allocation, not be {nbytes} bytes at {address:#x}")

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        raise DeviceError(f"Program must have host steps only here, not a launch of {insn_count} instructions")

    def wait(self, timeout: float | None = None) -> LaunchReport:
        raise DeviceError("Device must have been launched before it is waited for")

    def counters(self) -> dict[str, int]:
        return {}
