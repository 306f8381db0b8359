"""Tile sizes: which fit the scratchpads, and which a simple model of the machine expects to be fastest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.tensor.analysis import loops_of
from compiler.tensor.ir import Proc, Scope, constant
from compiler.vta.footprint import Ints, Operand, Sizes, axes_of, extents_of, nests_of, operands_of
from vta_hw.spec.config import VTAConfig

REDUCED = ("ci", "t", "ky", "kx")
"""Reduction loops, in the order in which chunks follow each other."""

TILED = ("co", "oh", "ow", "s", *REDUCED)
"""The loops that a tiling cuts; the others (batches, the tile itself) stay whole."""

_ORDERS = (("co", "oh", "ow", "s"), ("oh", "ow", "co", "s"))
_THREADED = (None, "co", "oh")
_WHOLE_OR_ONE = ("s", "t", "ky", "kx")
_MOST_PARTS = 16

# Weights of the cost model, in cycles: they rank tilings, they do not predict time.
_CYCLES_PER_INSTRUCTION = 16.0
_MEMORY_BIAS = 0.25


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """A choice of schedule for one op.

    sizes: tile size by axis of `TILED` that the op has.
    order: the output axes, outermost first, in which tiles follow each other.
    threads: axis whose neighbouring tiles run as two virtual threads, or None.
    hoist: operands are loaded outside the loops that do not change them (True), or where they are used (False).
    """

    sizes: Mapping[str, int]
    order: tuple[str, ...]
    threads: str | None
    hoist: bool


@dataclass(frozen=True)
class _Shape:
    """What a tiling decides besides sizes."""

    order: tuple[str, ...]
    threads: str | None
    hoist: bool

    def loops(self) -> tuple[str, ...]:
        """All loops over tiles and chunks, outermost first."""
        return (*self.order, *REDUCED)

    def around(self, operand: Operand) -> tuple[str, ...]:
        """The loops around the place where the operand is loaded."""
        loops = self.loops()
        if not self.hoist:
            return loops
        return loops[: 1 + max((k for k, axis in enumerate(loops) if operand.depends_on(axis)), default=-1)]

    def copies(self, operand: Operand) -> int:
        """How many of the operand are in its scratchpad: one for each virtual thread that has its own."""
        private = operand.temporary or self.threads in self.around(operand)
        return 2 if self.threads is not None and private else 1


class TilingProblem:
    """One op on one configuration: the extents and operands that decide which tilings fit and what they cost."""

    def __init__(self, proc: Proc, config: VTAConfig) -> None:
        self.proc, self.config = proc, config
        self.extents = extents_of(proc)
        self.axes = [axis for axis in TILED if axis in self.extents]
        self.operands = operands_of(proc, config)
        self.depths = {Scope.INP: config.inp_depth, Scope.WGT: config.wgt_depth, Scope.ACC: config.acc_depth}
        self.nests = len(nests_of(proc))
        self.micro_ops = self._micro_ops()

    def best(self) -> Tiling:
        """The cheapest tiling that fits. Raises LoweringError naming the buffer and the bytes needed if none does."""
        sizes = self._candidates()
        for hoist in (True, False):
            # Not hoisted, buffers take turns in one place, which virtual threads do not allow.
            threaded = _THREADED if hoist else (None,)
            shapes = [_Shape(order, threads, hoist) for order in _ORDERS for threads in threaded]
            costs = np.stack([self._cost(sizes, shape) for shape in shapes])
            where = int(np.argmin(costs))
            if np.isfinite(costs.flat[where]):
                shape, k = shapes[where // costs.shape[1]], where % costs.shape[1]
                chosen = {axis: int(sizes[axis][k]) for axis in self.axes}
                return Tiling(sizes=chosen, order=shape.order, threads=shape.threads, hoist=hoist)
        raise self._refusal()

    def _candidates(self) -> dict[str, Ints]:
        """Every combination of tile sizes worth trying, one array per axis."""
        grid = np.array(list(itertools.product(*(self._sizes(axis) for axis in self.axes))), np.int64)
        return {axis: grid[:, k] for k, axis in enumerate(self.axes)}

    def _sizes(self, axis: str) -> list[int]:
        """The whole axis, equal parts of it, and powers of two."""
        extent = self.extents[axis]
        if axis in _WHOLE_OR_ONE:
            return sorted({1, extent})
        parts = {-(-extent // k) for k in range(1, min(extent, _MOST_PARTS) + 1)}
        return sorted(parts | {1 << k for k in range(extent.bit_length())})

    def _refusal(self) -> LoweringError:
        smallest = {axis: np.ones(1, np.int64) for axis in self.axes}
        for scope, depth in self.depths.items():
            need = int(self._peak(scope, smallest, _Shape(_ORDERS[0], None, False))[0])
            if need > depth:
                elem = next(operand.elem_bytes for operand in self.operands if operand.scope is scope)
                return LoweringError(
                    f"Layer {self.proc.name!r} must fit the {scope.value} buffer of {depth * elem} bytes, "
                    f"its smallest tile needs {need * elem}"
                )
        raise AssertionError(f"the smallest tiles of {self.proc.name!r} fit, so a tiling must have been found")

    def _peak(self, scope: Scope, sizes: Sizes, shape: _Shape) -> Ints:
        """Most elements of a scratchpad that are alive at once."""
        mine = [operand for operand in self.operands if operand.scope is scope]
        if not mine:
            return np.zeros(1, np.int64)
        needs = np.broadcast_arrays(*(operand.elements(sizes) * shape.copies(operand) for operand in mine))
        if shape.hoist or scope is not Scope.ACC:
            return np.asarray(np.sum(needs, axis=0), np.int64)
        # The first temporary, the accumulator itself, lives throughout, the others one after the other.
        main = next(k for k, operand in enumerate(mine) if operand.temporary)
        others = [need for k, need in enumerate(needs) if k != main]
        return np.asarray(needs[main] + (np.max(others, axis=0) if others else 0), np.int64)

    def _cost(self, sizes: Sizes, shape: _Shape) -> NDArray[np.float64]:
        """Estimated cycles of every candidate; infinite where it does not fit."""
        trips = {axis: -(-self.extents[axis] // size) for axis, size in sizes.items()}
        fits = self._threads_fit(trips, shape)
        for scope, depth in self.depths.items():
            fits = fits & (self._peak(scope, sizes, shape) <= depth)
        bus = self.config.bus_bits // 8
        loaded = [operand for operand in self.operands if not operand.temporary]
        tile_bytes = [operand.elements(sizes) * operand.dram_bytes for operand in loaded]
        repeats = [_product(trips, shape.around(operand)) * self.extents["no"] for operand in loaded]
        memory = sum((np.multiply(b, r) for b, r in zip(tile_bytes, repeats, strict=True)), np.zeros(1)) / bus
        first_tile = sum(tile_bytes, np.zeros(1)) / bus  # nothing overlaps the loads before the first tile
        loads = sum((r * op.blocks(sizes) for r, op in zip(repeats, loaded, strict=True)), np.zeros(1))
        tiles = _product(trips, shape.order) * self.extents["no"]
        instructions = loads + tiles * (self.nests + 2 * _product(trips, REDUCED))
        overlapped = np.maximum(self.micro_ops, memory) if shape.threads is not None else self.micro_ops + memory
        cost = overlapped + _MEMORY_BIAS * memory + first_tile + _CYCLES_PER_INSTRUCTION * instructions
        return np.where(fits, cost, np.inf)

    def _threads_fit(self, trips: Sizes, shape: _Shape) -> NDArray[np.bool_]:
        """The threaded loop must have several tiles, and be the last loop over tiles that has."""
        fits = np.ones(len(next(iter(trips.values()))), np.bool_)
        if shape.threads is None:
            return fits
        after = shape.order[shape.order.index(shape.threads) + 1 :]
        for axis in after:
            fits &= trips[axis] == 1
        return fits & (trips[shape.threads] > 1)

    def _micro_ops(self) -> int:
        """GEMM and ALU micro-ops of the op, which no tiling changes."""
        total = 0
        for nest in nests_of(self.proc):
            axes = axes_of(nest)
            extents = [
                constant(s.loop.extent) for s in loops_of((nest,)) if axes[s.loop.var.name] not in ("n", "c", "i")
            ]
            total += int(np.prod(extents, dtype=np.int64))
        return total


def _product(trips: Sizes, axes: tuple[str, ...]) -> Ints:
    total = np.ones(1, np.int64)
    for axis in axes:
        if axis in trips:
            total = total * trips[axis]
    return total
