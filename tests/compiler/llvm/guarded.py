"""Arrays whose neighbourhood tells of accesses outside of a buffer: canaries, or pages that nothing may touch."""

from __future__ import annotations

import ctypes
import enum
import mmap
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.llvm.module import BARRIER_BYTES
from compiler.llvm.team import Team, Work

MARGIN = 256  # bytes, several of the widest vectors
CANARY = 0x3C


@dataclass(frozen=True)
class Guarded:
    """An array with canaries in the bytes of `memory` before and behind it."""

    memory: np.ndarray[Any, np.dtype[np.uint8]]
    array: np.ndarray[Any, Any]

    @property
    def is_intact(self) -> bool:
        begin = int(self.array.__array_interface__["data"][0] - self.memory.__array_interface__["data"][0])
        around = self.memory[:begin], self.memory[begin + self.array.nbytes :]
        return all(bool((canaries == CANARY).all()) for canaries in around)


def guarded(array: np.ndarray[Any, Any]) -> Guarded:
    """A copy of `array`, aligned to no more than its element, between canaries."""
    return _copy(array, np.empty(MARGIN + array.itemsize + array.nbytes + MARGIN, np.uint8), MARGIN + array.itemsize)


def _copy(array: np.ndarray[Any, Any], memory: np.ndarray[Any, np.dtype[np.uint8]], begin: int) -> Guarded:
    memory[:] = CANARY
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return Guarded(memory, copy)


class Place(enum.Enum):
    """Which side of an array touches a page without access. At the end it is aligned to no more than its element."""

    END = "an inaccessible page behind every buffer"
    START = "an inaccessible page before every buffer"


def paged(array: np.ndarray[Any, Any], place: Place, *, readonly: bool = False) -> Guarded:
    """A copy of `array` in pages of its own, between two of which any access ends the process with a signal.

    In what its pages have beside it are canaries. readonly: stores to any of them end the process as well.
    """
    size = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    pages = np.frombuffer(whole, np.uint8)
    memory = pages[mmap.PAGESIZE : mmap.PAGESIZE + size]
    made = _copy(array, memory, size - array.nbytes if place is Place.END else 0)
    _protect(pages[: mmap.PAGESIZE], _NO_ACCESS)
    _protect(pages[mmap.PAGESIZE + size :], _NO_ACCESS)
    if readonly:
        _protect(memory, mmap.PROT_READ)
        made.array.flags.writeable = False
    return made


_NO_ACCESS = 0  # PROT_NONE, which the module has not


def _protect(pages: np.ndarray[Any, np.dtype[np.uint8]], access: int) -> None:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if function(pages.__array_interface__["data"][0], pages.nbytes, access):
        raise OSError(ctypes.get_errno(), "mprotect")


class GuardedTeam(Team):
    """Threads whose scratch memory lies between inaccessible pages, with nothing useful in it."""

    def __init__(self, threads: int, place: Place, fill: int) -> None:
        super().__init__(threads)
        self._place, self._fill = place, fill

    def run(self, work: Work) -> None:
        nbytes = work.shared + self.threads * work.private
        scratch = paged(np.full(nbytes, self._fill, np.uint8), self._place).array
        barrier = paged(np.zeros(BARRIER_BYTES, np.uint8), Place.END).array
        addresses = int(scratch.ctypes.data), int(barrier.ctypes.data)
        arguments = [(thread, self.threads, *addresses) for thread in range(self.threads)]
        others = [threading.Thread(target=work.part, args=each) for each in arguments[1:]]
        for other in others:
            other.start()
        work.part(*arguments[0])
        for other in others:
            other.join()
