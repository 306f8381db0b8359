"""Where wide values are cut, so that nothing is wider than a machine register and words can be put in an order.

A value is cut where it is put together of parts, and then so are what uses it and what it is made of, until nothing
changes. So the lanes of an array become words. What is still too wide is cut somewhere.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from amaranth.hdl import _nir as nir

from vta_sim.rtl.netlist import cells
from vta_sim.rtl.netlist.errors import Unsupported
from vta_sim.rtl.netlist.words import REGISTER_BITS

LANE_BITS: Final = 8
"""Parts of fewer bits are not cut off by themselves."""

Piece = tuple[int, int]
"""Cell and number of the piece of its output."""


class Cuts:
    """The pieces of every cell's output."""

    def __init__(self, netlist: nir.Netlist) -> None:
        self._cells: list[nir.Cell] = netlist.cells
        self._widths = [cells.width(cell) for cell in self._cells]
        self._ports: dict[int, list[int]] = defaultdict(list)
        for number, cell in enumerate(self._cells):
            if isinstance(cell, nir.SyncReadPort | nir.AsyncReadPort | nir.SyncWritePort):
                self._ports[cell.memory].append(number)
        self._users = self._find_users()
        self._fine: set[int] = set()
        self._find()

    def pieces(self, cell: int) -> Iterator[tuple[int, int]]:
        """Lowest bit, and bit behind the highest, of each piece."""
        bounds = self._bounds[cell]
        return itertools.pairwise(bounds)

    def covering(self, run: cells.Run) -> Iterator[tuple[int, int, int]]:
        """(number of a piece, its lowest bit that is in the run, number of bits) of those that a run touches."""
        cell, low, length = run
        bounds = self._bounds[cell]
        number = bisect_right(bounds, low) - 1
        while low < run[1] + length:
            end = min(bounds[number + 1], run[1] + length)
            yield number, low - bounds[number], end - low
            low, number = end, number + 1

    def order(self) -> list[Piece]:
        """All pieces, none before one it depends on within a cycle. Cuts finer where words depend on each other."""
        while True:
            order, cycle = self._sort()
            if not cycle:
                return order
            finer = {cell for cell, _ in cycle if cells.is_cuttable(self._cells[cell])} - self._fine
            if not finer:
                raise Unsupported("Design must not have combinational loops")
            self._fine |= finer
            self._find()

    def _find(self) -> None:
        self._points: list[set[int]] = [{0, width} for width in self._widths]
        self._work: list[Piece] = []
        for start, bits in self._cells[0].ports_i.values():
            # Whole words, so that whoever sets an input finds its bits one behind the other.
            self._points[0] |= {*range(start, start + bits, REGISTER_BITS), start + bits}
        for number, cell in enumerate(self._cells):
            if isinstance(cell, nir.PriorityMatch):
                self._points[number].update(range(len(cell.inputs)))
            if self._is_wide(number):
                self._cut_lanes(number)
            if isinstance(cell, nir.AssignmentList):
                for each in cell.assignments:
                    self._add(number, each.start, always=True)
                    self._add(number, each.start + len(each.value), always=True)
            elif isinstance(cell, nir.SyncWritePort):
                for bit in range(1, len(cell.en)):
                    if cell.en[bit] != cell.en[bit - 1]:
                        self._add(cell.memory, bit, always=True)
                self._cut_parts(cell.memory, 0, cell.data)
        while True:
            while self._work:
                self._spread(*self._work.pop())
            for number, points in enumerate(self._points):
                if self._is_wide(number):
                    bounds = sorted(points)
                    for low, high in itertools.pairwise(bounds):
                        for bit in range(low + REGISTER_BITS, high, REGISTER_BITS):
                            self._add(number, bit)
            if not self._work:
                break
        self._bounds = [sorted(points) for points in self._points]

    def _find_users(self) -> Mapping[int, list[tuple[int, int, int, int]]]:
        """Of each cell the (lowest bit, bits) of its output that go on, bit by bit, as bits of (cell, lowest bit)."""
        users: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
        for number, cell in enumerate(self._cells):
            written = isinstance(cell, nir.SyncWritePort)
            target = cell.memory if written else number
            for start, value in [(0, cell.data)] if written else cells.aligned_inputs(cell):
                at = start
                for source, low, length in cells.runs(value):
                    if source >= 0:
                        users[source].append((low, length, target, at))
                    at += length
        return users

    def _is_wide(self, cell: int) -> bool:
        wide = (self._widths[cell] > REGISTER_BITS or cell in self._fine) and cell > 0
        return wide and cells.is_cuttable(self._cells[cell])

    def _add(self, cell: int, bit: int, *, always: bool = False) -> None:
        if 0 < bit < self._widths[cell] and bit not in self._points[cell] and (always or self._is_wide(cell)):
            self._points[cell].add(bit)
            self._work.append((cell, bit))

    def _cut_lanes(self, number: int) -> None:
        """Cut a wide value where it is put together."""
        for start, value in cells.aligned_inputs(self._cells[number]):
            self._cut_parts(number, start, value)

    def _cut_parts(self, number: int, at: int, value: nir.Value) -> None:
        for length in cells.lanes(value):
            if length >= LANE_BITS:
                self._add(number, at)
                self._add(number, at + length)
            at += length

    def _cut_between(self, value: nir.Value, bit: int) -> None:
        """Cut what goes on across a bit of a value."""
        if 0 < bit < len(value) and not value[bit].is_const and value[bit] == value[bit - 1] + 1:
            self._add(value[bit].cell, value[bit].bit)

    def _spread(self, number: int, bit: int) -> None:
        cell = self._cells[number]
        for start, value in cells.aligned_inputs(cell):
            self._cut_between(value, bit - start)
        if isinstance(cell, nir.SyncReadPort | nir.AsyncReadPort):
            self._add(cell.memory, bit, always=True)
        for low, length, user, at in self._users.get(number, ()):
            if low < bit < low + length:
                self._add(user, at + bit - low)
        if isinstance(cell, nir.Memory):
            for port in self._ports[number]:
                if isinstance(self._cells[port], nir.SyncWritePort):
                    self._cut_between(self._cells[port].data, bit)
                else:
                    self._add(port, bit, always=True)

    def _needs(self, piece: Piece) -> Iterator[Piece]:
        cell, number = piece
        bounds = self._bounds[cell]
        for value in cells.inputs_of(self._cells[cell], bounds[number], bounds[number + 1]):
            for run in cells.runs(value):
                if run[0] > 0 and not cells.is_state(self._cells[run[0]]):
                    for needed, _, _ in self.covering(run):
                        yield run[0], needed

    def _sort(self) -> tuple[list[Piece], list[Piece]]:
        """The order, or the pieces of a cycle."""
        order: list[Piece] = []
        seen: dict[Piece, bool] = {}  # True once it is in the order.
        for cell in range(1, len(self._cells)):
            if cells.is_state(self._cells[cell]):
                continue
            for number in range(len(self._bounds[cell]) - 1):
                cycle = self._visit((cell, number), seen, order)
                if cycle:
                    return [], cycle
        return order, []

    def _visit(self, root: Piece, seen: dict[Piece, bool], order: list[Piece]) -> list[Piece]:
        if root in seen:
            return []
        path: list[tuple[Piece, Iterator[Piece]]] = [(root, self._needs(root))]
        seen[root] = False
        while path:
            piece, rest = path[-1]
            for needed in rest:
                done = seen.get(needed)
                if done is False:
                    pieces = [each for each, _ in path]
                    return pieces[pieces.index(needed) :]
                if done is None:
                    seen[needed] = False
                    path.append((needed, self._needs(needed)))
                    break
            else:
                seen[piece] = True
                order.append(piece)
                path.pop()
        return []


def used_bits(netlist: nir.Netlist, used: Iterable[nir.Value]) -> Mapping[int, int]:
    """Number of the low output bits of each cell that anyone uses."""
    most: dict[int, int] = defaultdict(int)
    for value in (*(value for cell in netlist.cells for value in cells.inputs(cell)), *used):
        for net in value:
            if not net.is_const:
                most[net.cell] = max(most[net.cell], net.bit + 1)
    return most
