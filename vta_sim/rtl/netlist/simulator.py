"""A compiled design that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_sim.rtl.netlist.layout import Layout
from vta_sim.rtl.netlist.logic import Field, Memory, Part
from vta_sim.rtl.netlist.native import Native

_ALIGNMENT: Final = 64
_CHUNK: Final = 1 << 20
"""Cycles after which Python looks whether it was interrupted."""


class Code:
    """Machine code of a design for a reset that rests, and for one that may not, made when it is first needed."""

    def __init__(self, layout: Layout, code: bytes, with_reset: Callable[[], tuple[Layout, bytes]] | None) -> None:
        self.layout = layout
        self.native = Native(code)
        self._with_reset = with_reset

    @cached_property
    def resetting(self) -> tuple[Native, int]:
        """Functions for a reset of any value, and the bytes of their temporary store; all else lies as in `layout`."""
        if self._with_reset is None:
            return self.native, self.layout.temporary_bytes
        layout, code = self._with_reset()
        return Native(code), layout.temporary_bytes


class Rows:
    """The rows of a memory as numbers."""

    def __init__(self, memory: Memory, data: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._data = data

    def __len__(self) -> int:
        return self._memory.depth

    def __getitem__(self, row: int) -> int:
        return _gather(self._memory.fields, self._row(row))

    def __setitem__(self, row: int, value: int) -> None:
        if not 0 <= value < 1 << self._memory.width:
            raise ValueError(f"Row of {self._memory.name} must fit {self._memory.width} bits, not {value!r}")
        _scatter(self._memory.fields, self._row(row), value)

    def _row(self, row: int) -> NDArray[np.uint8]:
        if not 0 <= row < self._memory.depth:
            raise IndexError(f"Row of {self._memory.name} must be 0 to {self._memory.depth - 1}, not {row!r}")
        begin = row * self._memory.row_bytes
        return self._data[begin : begin + self._memory.row_bytes]


class Simulator:
    """One instance of a design: its registers and memories.

    Signals are told by name: inputs, outputs, registers ("unit.queue.level") and what was observed at compilation.
    Values are unsigned numbers. A signal is seen as it is in this cycle, after inputs have settled. Not safe for use
    by several threads at once.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        layout = code.layout
        self._state = _buffer(layout.state_bytes)
        self._next = _buffer(layout.state_bytes)
        self._temporary = _buffer(layout.temporary_bytes)
        self._memories = [_buffer(memory.depth * memory.row_bytes) for memory in layout.memories]
        self._pointers = np.array([memory.ctypes.data for memory in self._memories], np.int64)
        self._hook: tuple[int, int, int] = (0, 0, 0)
        self._edges = 0
        self.reset()

    def reset(self) -> None:
        """Go back to the state after power-on."""
        self._state[:] = 0
        for place, value in self._code.layout.init:
            _scatter((Field(0, place),), self._state, value)
        self._next[:] = self._state
        self._edges = 0
        for memory, data in zip(self._code.layout.memories, self._memories, strict=True):
            data[:] = 0
            rows = Rows(memory, data)
            for row, value in memory.init.items():
                rows[row] = value
        self._settled = False

    def poke(self, name: str, value: int) -> None:
        """Set an input, or what a register holds in this cycle.

        ValueError for what is neither, and for a value that does not fit.
        """
        parts = self._settable(name)
        if parts is None:
            raise ValueError(f"Signal to set must be an input or a register, not {name!r}")
        width = sum(part.width for part in parts)
        if not 0 <= value < 1 << width:
            raise ValueError(f"Value of {name} must fit {width} bits, not {value!r}")
        for part in parts:
            assert part.place is not None
            word = (Field(0, part.place),)
            mask = (1 << part.width) - 1
            kept = _gather(word, self._state) & ~(mask << part.begin)
            _scatter(word, self._state, kept | (value >> part.low & mask) << part.begin)
        self._next[:] = self._state
        self._settled = False

    def _settable(self, name: str) -> Sequence[Part] | None:
        layout = self._code.layout
        if name in layout.inputs:
            return [Part(field.low, field.place.width, field.place, 0) for field in layout.inputs[name]]
        parts = layout.names.get(name)
        inner = parts and all(part.place and part.place.offset >= layout.input_bytes for part in parts)
        return parts if inner else None

    @property
    def edges(self) -> int:
        """How often the clock has ticked since the simulator was made or reset."""
        return self._edges

    @cached_property
    def signals(self) -> Mapping[str, int]:
        """All that `peek` knows, with its width in bits."""
        layout = self._code.layout
        widths = {name: sum(part.width for part in parts) for name, parts in layout.names.items()}
        return widths | {
            name: _width(fields) for table in (layout.outputs, layout.inputs) for name, fields in table.items()
        }

    def bytes_of(self, name: str) -> Sequence[int] | None:
        """The bytes of `state` that make a signal, None if it is computed from others."""
        layout = self._code.layout
        if name in layout.outputs:
            return None
        places = [field.place for field in layout.inputs.get(name, ())]
        places += [part.place for part in layout.names.get(name, ()) if part.place is not None]
        return [byte for place in places for byte in range(place.offset, place.offset + place.nbytes)]

    def peek(self, name: str) -> int:
        """The value of a signal. ValueError for one that is neither port nor register and was not observed."""
        layout = self._code.layout
        if name in layout.outputs:
            if not self._settled:
                native = self._native()
                native.settle(*self._arguments)
                self._settled = True
            return _gather(layout.outputs[name], self._temporary)
        if name in layout.inputs:
            return _gather(layout.inputs[name], self._state)
        parts = layout.names.get(name)
        if parts is None:
            raise ValueError(f"Signal must be a port, a register or observed, not {name!r}")
        return sum(self._part(part) << part.low for part in parts)

    def run(self, cycles: int, *, until: str | None = None) -> int:
        """Let the clock tick `cycles` times, and return how often it did.

        until: an output or observed signal of one bit; in a cycle in which it is 1 the clock does not tick any more.
        """
        where = -1 if until is None else self._watched(until)
        native, done = self._native(), 0
        while done < cycles:
            wanted = min(_CHUNK, cycles - done)
            ticked = native.run(*self._arguments, wanted, where, *self._hook, self._edges)
            done += ticked
            self._edges += ticked
            if ticked < wanted:
                break
        self._settled = False
        return done

    def memory(self, name: str) -> Rows:
        """The rows of a memory ("unit.queue.storage"). ValueError for what is none."""
        for memory, data in zip(self._code.layout.memories, self._memories, strict=True):
            if memory.name == name:
                return Rows(memory, data)
        raise ValueError(f"Memory must be one of the design's, not {name!r}")

    def on_edge(self, function: int, context: int, *, when: str) -> None:
        """Let the clock, where the output or observed bit `when` is 1, call a C function at address `function`.

        It gets the addresses of the state, of the outputs as they were before the edge, `context`, and the number of
        edges since the simulator was made or reset. It returns
        int64: the sum of `HOOK_STOPS`, if the run shall end behind this edge, and `HOOK_SETS`, if it has set inputs.
        See `place_of`.
        """
        self._hook = (function, context, self._watched(when))

    def place_of(self, name: str) -> tuple[Field, ...]:
        """Where an input lies in the state, or an output in the temporary store."""
        layout = self._code.layout
        fields = layout.inputs.get(name) or layout.outputs.get(name)
        if fields is None:
            raise ValueError(f"Port must be one of the design's, not {name!r}")
        return fields

    @property
    def state(self) -> NDArray[np.uint8]:
        """The bytes of the state, inputs first; a view."""
        return self._state

    @property
    def outputs(self) -> NDArray[np.uint8]:
        """The bytes of the temporary store, in which outputs are; a view."""
        return self._temporary

    def _part(self, part: Part) -> int:
        word = part.begin if part.place is None else _gather((Field(0, part.place),), self._state) >> part.begin
        return word & (1 << part.width) - 1

    @property
    def _arguments(self) -> tuple[int, ...]:
        return tuple(array.ctypes.data for array in (self._state, self._next, self._temporary, self._pointers))

    def _native(self) -> Native:
        fields = self._code.layout.inputs.get("rst")
        if not fields or not _gather(fields, self._state):
            return self._code.native
        native, nbytes = self._code.resetting
        if nbytes > self._temporary.size:
            self._temporary = _buffer(nbytes)
        return native

    def _watched(self, name: str) -> int:
        fields = self._code.layout.outputs.get(name)
        if fields is None or _width(fields) != 1:
            raise ValueError(f"Signal to wait for must be an output or observed, of one bit, not {name!r}")
        return fields[0].place.offset


def _buffer(nbytes: int) -> NDArray[np.uint8]:
    """Zeros at a multiple of the widest vector."""
    whole = np.zeros(nbytes + _ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % _ALIGNMENT
    return whole[begin : begin + nbytes]


def _width(fields: Sequence[Field]) -> int:
    return sum(field.place.width for field in fields)


def _gather(fields: Sequence[Field], source: NDArray[np.uint8]) -> int:
    value = 0
    for field in fields:
        place = field.place
        word = int.from_bytes(source[place.offset : place.offset + place.nbytes].tobytes(), "little")
        value |= word << field.low
    return value


def _scatter(fields: Sequence[Field], target: NDArray[np.uint8], value: int) -> None:
    for field in fields:
        place = field.place
        part = value >> field.low & (1 << place.width) - 1
        target[place.offset : place.offset + place.nbytes] = np.frombuffer(
            part.to_bytes(place.nbytes, "little"), np.uint8
        )
