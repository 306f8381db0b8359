"""Address allocation for devices whose memory is one range of bytes."""

from __future__ import annotations

from runtime.errors import DeviceError


class Arena:
    """First-fit allocator over ``begin..end-1``; holds addresses only, no memory."""

    def __init__(self, begin: int, end: int) -> None:
        self._begin = begin
        self._end = end
        self._used: dict[int, int] = {}

    def allocate(self, nbytes: int, align: int) -> int:
        """Lowest free multiple of `align` with room for `nbytes`. Raises DeviceError."""
        if nbytes <= 0:
            raise DeviceError(f"Bytes to allocate must be positive, not {nbytes}")
        if align <= 0 or align & (align - 1):
            raise DeviceError(f"Alignment must be a power of two, not {align}")
        address = self._begin
        for begin, size in sorted(self._used.items()):
            address = -(-address // align) * align
            if address + nbytes <= begin:
                break
            address = begin + size
        address = -(-address // align) * align
        if address + nbytes > self._end:
            raise DeviceError(
                f"Allocation must fit the device's {self._end - self._begin} bytes, "
                f"of which {sum(self._used.values())} are taken, not need {nbytes} more"
            )
        self._used[address] = nbytes
        return address

    def free(self, address: int) -> int:
        """Forget the allocation at `address`; returns its bytes. Raises DeviceError."""
        if address not in self._used:
            raise DeviceError(f"Address to free must be one that was allocated, not {address:#x}")
        return self._used.pop(address)
