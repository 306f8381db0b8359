"""What simulators have in common as devices: sparse memory, allocation, and the order of calls."""

from __future__ import annotations

import abc
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from runtime.arena import Arena
from runtime.device import PAGE_BYTES, Device
from runtime.errors import DeviceError
from vta_hw.spec.program import ADDRESS_LIMIT
from vta_sim.memory import Memory

# Page 0 stays unused: address 0 is an error for TVM's simulator too (VTA spec 3.1).
_FIRST_ADDRESS = PAGE_BYTES


class SimulatedDevice(Device):
    """A device whose DRAM is a `Memory` of this process."""

    def __init__(self) -> None:
        self._arena = Arena(_FIRST_ADDRESS, ADDRESS_LIMIT)
        self._touched = _FIRST_ADDRESS
        self._totals: Counter[str] = Counter()

    @property
    @abc.abstractmethod
    def _memory(self) -> Memory:
        """The memory that the accelerator sees."""

    @property
    @abc.abstractmethod
    def _is_running(self) -> bool:
        """Whether a launch was not waited for."""

    def allocate(self, nbytes: int, align: int = PAGE_BYTES) -> int:
        self._check_idle()
        address = self._arena.allocate(nbytes, align)
        stale = min(self._touched, address + nbytes) - address
        if stale > 0:
            self._memory.write(address, np.zeros(stale, np.uint8))
        self._touched = max(self._touched, address + nbytes)
        return address

    def free(self, address: int) -> None:
        self._check_idle()
        self._arena.free(address)

    def write(self, address: int, data: NDArray[np.generic]) -> None:
        self._check_idle()
        _check_range(address, data.nbytes)
        self._memory.write(address, data)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        self._check_idle()
        _check_range(address, nbytes)
        return self._memory.read(address, nbytes)

    def counters(self) -> dict[str, int]:
        return dict(self._totals)

    def _check_idle(self) -> None:
        if self._is_running:
            raise DeviceError("Device must be idle, not running a launch that was not waited for")

    def _check_running(self) -> None:
        if not self._is_running:
            raise DeviceError("Device must have been launched before it is waited for")


def _check_range(address: int, nbytes: int) -> None:
    if nbytes < 0 or not 0 <= address <= (1 << 64) - nbytes:
        raise DeviceError(f"Memory range must lie in 0..2**64-1, not be {nbytes} bytes at {address:#x}")
