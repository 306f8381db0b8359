"""Compiled access to sparse memory: a hash table from page numbers to page frames.

Addresses are byte addresses modulo 2**64, held in int64. A frame is named by its address in this process; the chunks
that hold the frames belong to `vta_sim.memory.Memory`, and nothing here allocates.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from vta_sim._jit import inner, intrinsic

PAGE_BYTES: Final = 4096
_PAGE_SHIFT: Final = 12
_PAGE_NUMBER_MASK: Final = (1 << 52) - 1
# Fibonacci hashing: 2**64 divided by the golden ratio, as int64.
_HASH_FACTOR: Final = -7046029254386353131

UNUSED: Final = -1
"""Key of a free slot; page numbers are never negative."""

MAPPED, NEXT_FRAME, FRAME_LIMIT = range(3)
"""Indices into `PageTable.state`: number of mapped pages, next free frame, end of the free frames."""


class PageTable(NamedTuple):
    """Open-addressing hash table; keys.size is a power of two and at most half of the slots are taken.

    keys: int64 [slots] page numbers or `UNUSED`. frames: int64 [slots] process addresses of 4096 bytes each.
    state: int64 [3], see `MAPPED`.
    """

    keys: NDArray[np.int64]
    frames: NDArray[np.int64]
    state: NDArray[np.int64]


@intrinsic
def _copy_in(typing_context: Any, target: Any, offset: Any, address: Any, nbytes: Any) -> Any:
    """target[offset : offset + nbytes] = bytes at a process address."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])
        source = builder.inttoptr(args[2], array.data.type)
        cgutils.raw_memcpy(builder, builder.gep(array.data, [args[1]]), source, args[3], 1)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64, types.int64), generate


@intrinsic
def _copy_out(typing_context: Any, address: Any, source: Any, offset: Any, nbytes: Any) -> Any:
    """Bytes at a process address = source[offset : offset + nbytes]."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[1])(context, builder, args[1])
        target = builder.inttoptr(args[0], array.data.type)
        cgutils.raw_memcpy(builder, target, builder.gep(array.data, [args[2]]), args[3], 1)
        return context.get_dummy_value()

    return types.void(types.int64, source, types.int64, types.int64), generate


@inner
def _slot(keys: NDArray[np.int64], page: int) -> int:
    """Slot that holds `page`, or the free slot where it belongs."""
    mask = keys.size - 1
    slot = ((page * _HASH_FACTOR) >> 20) & mask
    while keys[slot] != page and keys[slot] != UNUSED:
        slot = (slot + 1) & mask
    return slot


@inner
def _frame_for_write(table: PageTable, page: int) -> int:
    """Process address of a page, mapped now if it was not; 0 if the table or the free frames are exhausted."""
    slot = _slot(table.keys, page)
    if table.keys[slot] == UNUSED:
        frame = table.state[NEXT_FRAME]
        if frame == table.state[FRAME_LIMIT] or 2 * (table.state[MAPPED] + 1) > table.keys.size:
            return 0
        table.keys[slot] = page
        table.frames[slot] = frame
        table.state[NEXT_FRAME] = frame + PAGE_BYTES
        table.state[MAPPED] += 1
    return int(table.frames[slot])


@inner
def read_bytes(table: PageTable, address: int, target: NDArray[np.uint8], offset: int, nbytes: int) -> None:
    """Copy `nbytes` from memory to `target[offset:]`; unmapped pages read as zero."""
    done = 0
    while done < nbytes:
        here = address + done
        within = here & (PAGE_BYTES - 1)
        step = min(PAGE_BYTES - within, nbytes - done)
        page = (here >> _PAGE_SHIFT) & _PAGE_NUMBER_MASK
        slot = _slot(table.keys, page)
        if table.keys[slot] == page:
            _copy_in(target, offset + done, table.frames[slot] + within, step)
        else:
            target[offset + done : offset + done + step] = 0
        done += step


@inner
def write_bytes(table: PageTable, address: int, source: NDArray[np.uint8], offset: int, nbytes: int) -> int:
    """Copy `source[offset : offset + nbytes]` to memory; return the bytes written, fewer when frames ran out."""
    done = 0
    while done < nbytes:
        here = address + done
        within = here & (PAGE_BYTES - 1)
        step = min(PAGE_BYTES - within, nbytes - done)
        frame = _frame_for_write(table, (here >> _PAGE_SHIFT) & _PAGE_NUMBER_MASK)
        if frame == 0:
            return done
        _copy_out(frame + within, source, offset + done, step)
        done += step
    return done


@inner
def insert_all(table: PageTable, keys: NDArray[np.int64], frames: NDArray[np.int64]) -> None:
    """Enter the used slots of another table's columns, for a table that has just grown."""
    for index in range(keys.size):
        if keys[index] != UNUSED:
            slot = _slot(table.keys, keys[index])
            table.keys[slot] = keys[index]
            table.frames[slot] = frames[index]
