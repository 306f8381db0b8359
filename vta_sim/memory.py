"""Physical memory of the simulated machine: sparse, byte-addressed, 64-bit addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vta_sim import pages
from vta_sim._jit import entry, source_stamp
from vta_sim.pages import FRAME_LIMIT, MAPPED, NEXT_FRAME, PAGE_BYTES, UNUSED, PageTable

_ADDRESS_LIMIT: Final = 1 << 64
_LEAST_CHUNK_PAGES: Final = 8
_FIRST_SLOTS: Final = 1024

Bytes: TypeAlias = bytes | bytearray | memoryview | NDArray[np.generic]


class Memory:
    """Memory of 4096-byte pages that come into being when written; everything else reads as zero.

    Frames lie in chunks that are never moved, so that growing copies nothing: the cost is the pages touched, plus at
    most a sixteenth, plus about 1 % for the table. Not safe for use by several threads at once.
    """

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.uint8]] = []
        self._table = _empty_table(_FIRST_SLOTS)

    @property
    def table(self) -> PageTable:
        """The page table, for compiled code (`vta_sim.pages`); valid until the next `grow` or `write`."""
        return self._table

    @property
    def page_count(self) -> int:
        """Number of pages that exist."""
        return int(self._table.state[MAPPED])

    def page_addresses(self) -> NDArray[np.uint64]:
        """Return the byte addresses of the pages that exist, ascending, uint64 [page_count]."""
        keys = self._table.keys
        return np.sort(keys[keys != UNUSED]).astype(np.uint64) * np.uint64(PAGE_BYTES)

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Return a copy of `nbytes` bytes, uint8 [nbytes]; `ValueError` if they leave the 64-bit address space."""
        _check_range(address, nbytes)
        target = np.empty(nbytes, np.uint8)
        _READ(self._table, _signed(address), target)
        return target

    def write(self, address: int, data: Bytes) -> None:
        """Write the bytes of a buffer or of an array (C order); `ValueError` if they leave the 64-bit address space."""
        source = _as_bytes(data)
        _check_range(address, source.size)
        done = 0
        while done < source.size:
            done += _WRITE(self._table, _signed(address + done), source[done:])
            if done < source.size:
                self.grow((source.size - done) // PAGE_BYTES + 1)

    def grow(self, least_pages: int = 1) -> None:
        """Make room for at least `least_pages` more pages, for compiled code that found none left."""
        state = self._table.state
        free = int(state[FRAME_LIMIT] - state[NEXT_FRAME]) // PAGE_BYTES
        if free == 0:
            least_pages = max(least_pages, _LEAST_CHUNK_PAGES, self.page_count // 16)
            # Fresh pages must be zero; calloc leaves them to the operating system until they are touched.
            chunk = np.zeros(least_pages * PAGE_BYTES, np.uint8)
            self._chunks.append(chunk)
            state[NEXT_FRAME] = chunk.ctypes.data
            state[FRAME_LIMIT] = chunk.ctypes.data + chunk.size
        self._widen_table(self.page_count + least_pages)

    def _widen_table(self, page_count: int) -> None:
        old = self._table
        slots = old.keys.size
        while slots < 2 * page_count:
            slots *= 2
        if slots != old.keys.size:
            self._table = _empty_table(slots)._replace(state=old.state)
            _INSERT(self._table, old.keys, old.frames)


def _empty_table(slots: int) -> PageTable:
    return PageTable(
        keys=np.full(slots, UNUSED, np.int64), frames=np.zeros(slots, np.int64), state=np.zeros(3, np.int64)
    )


def _signed(address: int) -> int:
    """Address modulo 2**64 as the int64 that compiled code computes with."""
    return address - _ADDRESS_LIMIT if address >= _ADDRESS_LIMIT // 2 else address


def _as_bytes(data: Bytes) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        view = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    else:
        view = np.frombuffer(data, np.uint8)
    view = view[:]
    # Read-only arrays have a type of their own in numba: with this there is one kind of source to compile for.
    view.flags.writeable = False
    return view


def _check_range(address: int, nbytes: int) -> None:
    if nbytes < 0:
        raise ValueError(f"Number of bytes must not be negative, not {nbytes}")
    if not 0 <= address <= _ADDRESS_LIMIT - nbytes:
        raise ValueError(f"Bytes of memory must lie within 0..2**64-1, not {nbytes} at {address:#x}")


def _build(
    stamp: str,
) -> tuple[
    Callable[[PageTable, int, NDArray[np.uint8]], None],
    Callable[[PageTable, int, NDArray[np.uint8]], int],
    Callable[[PageTable, NDArray[np.int64], NDArray[np.int64]], None],
]:
    @entry
    def read(table: PageTable, address: int, target: NDArray[np.uint8]) -> None:
        _ = stamp
        pages.read_bytes(table, address, target, 0, target.size)

    @entry
    def write(table: PageTable, address: int, source: NDArray[np.uint8]) -> int:
        _ = stamp
        return pages.write_bytes(table, address, source, 0, source.size)

    @entry
    def insert(table: PageTable, keys: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
        _ = stamp
        pages.insert_all(table, keys, frames)

    return read, write, insert


_READ, _WRITE, _INSERT = _build(source_stamp(__file__, pages.__file__))
