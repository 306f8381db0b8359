"""What happens around a compiled machine at each clock edge: its storage port is served, and its events are noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import cfunc, types
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from vta_sim import pages
from vta_sim._jit import entry, inner, intrinsic, source_stamp
from vta_sim.pages import PageTable
from vta_sim.rtl.netlist import HOOK_SETS, HOOK_STOPS

# Words of the context.
(
    KEYS,
    SLOTS,
    FRAMES,
    TABLE_STATE,
    BUS_BYTES,
    ADDRESS_BYTES,
    STATE_BYTES,
    OUTPUT_BYTES,
    # Ports of the machine: offsets in its state (read data) and in its temporary store.
    READ_ENABLE,
    READ_ADDRESS,
    READ_DATA,
    WRITE_ENABLE,
    WRITE_ADDRESS,
    WRITE_STROBE,
    WRITE_DATA,
    EVENTS,
    EVENT_BYTES,
    # Bits of the events: those that are kept, as a mask; the launch counts this cycle; it begins with the next; waits
    # of load, compute and store, as masks.
    EVENT_MASK,
    COUNTS,
    STARTS,
    LOAD_WAITS,
    COMPUTE_WAITS,
    STORE_WAITS,
    # When it was called last: the edge, the events, the cycle of the launch.
    EDGE_NUMBER,
    LAST,
    CYCLE,
    # The cycle of the launch since which each unit has waited, -1 if it does not.
    LOAD_SINCE,
    COMPUTE_SINCE,
    STORE_SINCE,
    # Changes of the events, in pairs (cycle, events): where to, how many fit, how many there are, the last of them.
    CHANGES,
    ROOM,
    COUNT,
    NOTED,
    # What Python must do before the machine goes on, of `Demand`.
    DEMAND,
    CONTEXT_WORDS,
) = range(35)

NOTHING: Final = 0
PAGES: Final = 1
"""A write found no page: memory must grow, and the write be repeated (`WRITE_AGAIN`)."""
CHANGES_FULL: Final = 2
"""There may be no room for the next change of the events."""


def _array_at(kind: Any) -> Callable[..., Any]:
    """Compiled: int64 address and length -> array of `kind` there. It owns nothing, so nothing counts references."""

    @intrinsic
    def array(typing_context: Any, address: Any, count: Any) -> Any:
        del typing_context

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            result = context.make_array(signature.return_type)(context, builder)
            itemsize = context.get_abi_sizeof(context.get_data_type(kind))
            populate_array(
                result,
                data=builder.inttoptr(args[0], result.data.type),
                shape=[args[1]],
                strides=[context.get_constant(types.intp, itemsize)],
                itemsize=context.get_constant(types.intp, itemsize),
                meminfo=None,
            )
            return result._getvalue()

        return types.Array(kind, 1, "C")(types.int64, types.int64), generate

    return array


_bytes_at = _array_at(types.uint8)
_words_at = _array_at(types.int64)


@inner
def _number(source: NDArray[np.uint8], offset: int, nbytes: int) -> int:
    value = 0
    for byte in range(nbytes):
        value |= int(source[offset + byte]) << (8 * byte)
    return value


@inner
def _write_word(table: PageTable, context: NDArray[np.int64], outputs: NDArray[np.uint8]) -> bool:
    """Write the bytes of the storage port that have a strobe; false if memory must grow first."""
    nbytes = context[BUS_BYTES]
    address = _number(outputs, context[WRITE_ADDRESS], context[ADDRESS_BYTES])
    data, strobes = context[WRITE_DATA], context[WRITE_STROBE]
    begin = 0
    while begin < nbytes:
        end = begin
        while end < nbytes and outputs[strobes + (end >> 3)] >> (end & 7) & 1:
            end += 1
        if end > begin and pages.write_bytes(table, address + begin, outputs, data + begin, end - begin) < end - begin:
            return False
        begin = max(end, begin + 1)
    return True


@inner
def _note(context: NDArray[np.int64], events: int, number: int) -> None:
    """Keep what a trace and a deadlock are made of. Events have not changed since the last call, until now."""
    before = context[LAST]
    cycle = context[CYCLE]
    if before >> context[COUNTS] & 1:
        cycle += number - context[EDGE_NUMBER]
    if events >> context[COUNTS] & 1:
        bits = events & context[EVENT_MASK]
        if context[ROOM] and bits != context[NOTED]:
            changes = _words_at(context[CHANGES], 2 * context[ROOM])
            count = context[COUNT]
            changes[2 * count] = cycle
            changes[2 * count + 1] = bits
            context[NOTED] = bits
            context[COUNT] = count + 1
        for unit in range(3):
            if not events & context[LOAD_WAITS + unit]:
                context[LOAD_SINCE + unit] = -1
            elif context[LOAD_SINCE + unit] < 0:
                context[LOAD_SINCE + unit] = cycle
    if events >> context[STARTS] & 1:
        cycle = context[COUNT] = context[NOTED] = 0
        for unit in range(3):
            context[LOAD_SINCE + unit] = -1
    context[EDGE_NUMBER], context[LAST], context[CYCLE] = number, events, cycle


def _build(stamp: str) -> Any:
    @cfunc(types.int64(types.int64, types.int64, types.int64, types.int64), cache=True)
    def edge(state: int, temporary: int, words: int, number: int) -> int:
        _ = stamp
        context = _words_at(words, CONTEXT_WORDS)
        inputs, outputs = _bytes_at(state, context[STATE_BYTES]), _bytes_at(temporary, context[OUTPUT_BYTES])
        table = PageTable(
            _words_at(context[KEYS], context[SLOTS]),
            _words_at(context[FRAMES], context[SLOTS]),
            _words_at(context[TABLE_STATE], 3),
        )
        demand, result = NOTHING, 0
        if outputs[context[READ_ENABLE]]:
            address = _number(outputs, context[READ_ADDRESS], context[ADDRESS_BYTES])
            pages.read_bytes(table, address, inputs, context[READ_DATA], context[BUS_BYTES])
            result = HOOK_SETS
        if outputs[context[WRITE_ENABLE]] and not _write_word(table, context, outputs):
            demand = PAGES
        _note(context, _number(outputs, context[EVENTS], context[EVENT_BYTES]), number)
        if demand == NOTHING and context[ROOM] and context[COUNT] == context[ROOM]:
            demand = CHANGES_FULL
        context[DEMAND] = demand
        return result if demand == NOTHING else result | HOOK_STOPS

    return edge


EDGE: Final = _build(source_stamp(__file__, pages.__file__))
"""Called at edges (`Simulator.on_edge`) at which the storage port moves or events have changed.

With the context as int64 [CONTEXT_WORDS]; returns what hooks return.
"""


def _build_write(stamp: str) -> Callable[[PageTable, NDArray[np.int64], NDArray[np.uint8]], bool]:
    @entry
    def write(table: PageTable, context: NDArray[np.int64], outputs: NDArray[np.uint8]) -> bool:
        _ = stamp
        return _write_word(table, context, outputs)

    return write


WRITE_AGAIN: Final = _build_write(source_stamp(__file__, pages.__file__))
"""Repeat the write of the last edge, of whose outputs `outputs` are the bytes; false if memory must grow once more."""
