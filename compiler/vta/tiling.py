"""Tile sizes and places of operands: which fit the scratchpads, and which a model of the machine finds fastest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.tensor.analysis import loops_of
from compiler.tensor.ir import For, Proc, Scope, constant
from compiler.vta.footprint import Ints, Operand, Sizes, axes_of, extents_of, is_gemm, nests_of, operands_of
from vta_hw.spec.config import VTAConfig

REDUCED = ("ci", "t", "ky", "kx")
"""Reduction loops, in the order in which chunks follow each other."""

TILED = ("co", "oh", "ow", "s", *REDUCED)
"""The loops that a tiling cuts; the others (batches, the tile itself) stay whole."""

PIECE = "piece"
"""The innermost loop around instructions: over the blocks of output channels of a tile, a few at a time."""

_ORDERS = (("co", "oh", "ow", "s"), ("oh", "ow", "co", "s"))
_WHOLE_OR_ONE = ("s", "t", "ky", "kx")
_MOST_PARTS = 16
_PARTS_OF_ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Rows are cut when they have to be; in how many parts matters less, and the search is the shorter."""

# Cycles, from the page on the RTL (docs/rtl.md, "Cycle costs"), for a memory of the usual latency.
_LATENCY = 32
_LOAD_IN_COMPUTE = _LATENCY + 13
_STORE = _LATENCY + 8
_FETCH_BYTES = 16

_SHARE_OF_PARAMETERS = 8
"""What the product does not use is loaded once if it takes no more than this part of its scratchpad."""

# Weights that rank what takes the same time: less traffic first, then fewer instructions.
_PER_BUS_CYCLE = 0.1
_PER_INSTRUCTION = 4.0

_BELOW = 1 - 1e-9
"""What is bounded by cycles that were added in another order."""

_ONE = np.ones(1, np.int64)

Cycles = NDArray[np.float64]
_Number = TypeVar("_Number", np.int64, np.float64)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where an operand is loaded.

    level: the loop (an axis, or `PIECE`) in each iteration of which it is; None: once, before all of them.
    copies: places that what is loaded takes in turn, so that the next can be loaded while the last is used.
    """

    level: str | None
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """A choice of schedule for one op.

    sizes: tile size by axis of `TILED` that the op has.
    order: the output axes, outermost first, in which tiles follow each other.
    piece: blocks of output channels, of a tile's, that one instruction computes.
    stages: by operand that is loaded.
    copies: places that tiles of results take in turn.
    """

    sizes: Mapping[str, int]
    order: tuple[str, ...]
    piece: int
    stages: Mapping[str, Stage]
    copies: int = 1

    def loops(self) -> tuple[str, ...]:
        """All loops around instructions, outermost first."""
        return loops_in(self.order)


def loops_in(order: tuple[str, ...]) -> tuple[str, ...]:
    """The loops around instructions for tiles in that order, outermost first."""
    return ("no", *order, *REDUCED, PIECE)


@dataclass(frozen=True)
class _Shape:
    """What a tiling decides besides sizes. levels: by operand; turns: whether what is loaded again has two places.

    shared: whether operands of the accumulator that are not needed at once share their place.
    """

    order: tuple[str, ...]
    levels: Mapping[str, str | None]
    turns: bool
    copies: int
    shared: bool = False

    def loops(self) -> tuple[str, ...]:
        return loops_in(self.order)

    def rank(self, level: str | None) -> int:
        """How many loops are around what is loaded at a level."""
        return 0 if level is None else self.loops().index(level) + 1


@dataclass(frozen=True)
class _Grid:
    """Candidates: tile sizes, and trips of the loops around instructions, each by axis (or `PIECE`).

    whole, kept: the grid that this one is a part of, and the places that its candidates have there.
    """

    sizes: Sizes
    trips: Sizes
    whole: _Grid | None = None
    kept: NDArray[np.intp] | None = None
    known: dict[Hashable, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes[PIECE])

    def at(self, kept: NDArray[np.intp]) -> _Grid:
        sizes, trips = ({axis: v[kept] for axis, v in values.items()} for values in (self.sizes, self.trips))
        return _Grid(sizes, trips, self, kept)

    def once(self, key: Hashable, of: Callable[[_Grid], NDArray[_Number]]) -> NDArray[_Number]:
        """``of(self)``, computed once for each key; many shapes ask for the same."""
        if key not in self.known:
            if self.whole is None:
                self.known[key] = of(self)
            else:
                all_of_them = self.whole.once(key, of)
                self.known[key] = all_of_them if len(all_of_them) == 1 else all_of_them[self.kept]
        return self.known[key]

    def count(self, loops: tuple[str, ...]) -> Ints:
        """Trips of all these loops together."""
        return self.once(loops, lambda grid: grid._count(loops))

    def _count(self, loops: tuple[str, ...]) -> Ints:
        total = np.ones(1, np.int64)
        for axis in loops:
            if axis in self.trips:
                total = total * self.trips[axis]
        return total


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What candidates ask of the machine, whatever waits for what.

    rest: cycles of the compute unit besides products; after_tile: those of one tile. traffic: bus cycles. extra: cycles
    before and behind, and prices.
    """

    rest: Cycles
    after_tile: Cycles
    traffic: Cycles
    extra: Cycles


class TilingProblem:
    """One op on one configuration: the extents and operands that decide which tilings fit and what they cost."""

    def __init__(self, proc: Proc, config: VTAConfig) -> None:
        self.proc, self.config = proc, config
        self.extents = extents_of(proc)
        self.whole = {axis: np.full(1, extent, np.int64) for axis, extent in self.extents.items()}
        self.axes = [axis for axis in TILED if axis in self.extents]
        self.operands = operands_of(proc, config)
        self.loaded = [operand for operand in self.operands if not operand.temporary]
        self.depths = {Scope.INP: config.inp_depth, Scope.WGT: config.wgt_depth, Scope.ACC: config.acc_depth}
        self.bus = config.bus_bits // 8
        nests = nests_of(proc)
        self.nests = len(nests)
        self.multiplies = any(is_gemm(nest, config) for nest in nests)
        steps = [(is_gemm(nest, config), self._steps(nest)) for nest in nests]
        # The last sum of products has the reduction loops around its pieces.
        self.product = max((position for position, (gemm, _) in enumerate(steps) if gemm), default=0)
        self.gemm_steps = sum(count for gemm, count in steps if gemm)
        self.alu_steps = sum(count for gemm, count in steps if not gemm)

    @property
    def key(self) -> Hashable:
        """What the best tiling depends on, for one configuration: not on numbers that instructions carry."""
        operands = tuple((o.name, o.scope, o.dram_bytes, repr(o.dimensions), o.first, o.last) for o in self.operands)
        return tuple(self.extents.items()), operands, self.nests, self.product, self.gemm_steps, self.alu_steps

    def best(self) -> Tiling:
        """The cheapest tiling that fits. Raises LoweringError naming the buffer and the bytes needed if none does."""
        grid = self._candidates()
        for shapes in (self._shapes(), self._smallest_shapes()):
            best: tuple[int, _Shape] | None = None
            least = math.inf
            for shape in shapes:
                cost, where = self._cheapest(grid, shape, least)
                if cost < least:
                    least, best = cost, (where, shape)
            if best is not None:
                return self._tiling(grid, *best)
        raise self._refusal()

    def _cheapest(self, grid: _Grid, shape: _Shape, bound: float) -> tuple[float, int]:
        """Cost of the cheapest candidate that fits, and which it is; infinite where none costs less than `bound`."""
        left = np.flatnonzero(np.broadcast_to(self._floor(grid, shape) < bound, len(grid)))
        if len(left):
            left = left[self._fits(grid.at(left), shape)]
        if not len(left):
            return math.inf, 0
        cost = self._cost(grid.at(left), shape)
        where = int(np.argmin(cost))
        return float(cost[where]), int(left[where])

    def _tiling(self, grid: _Grid, k: int, shape: _Shape) -> Tiling:
        one = grid.at(np.array([k]))
        stages = {
            operand.name: Stage(level=shape.levels[operand.name], copies=int(self._copies(operand, one, shape)[0]))
            for operand in self.loaded
        }
        chosen = {axis: int(one.sizes[axis][0]) for axis in self.axes}
        piece = int(one.sizes[PIECE][0])
        return Tiling(sizes=chosen, order=shape.order, piece=piece, stages=stages, copies=shape.copies)

    def _candidates(self) -> _Grid:
        """Every combination of tile sizes worth trying."""
        choices = [np.array(self._sizes(axis), np.int64) for axis in self.axes]
        sizes = dict(zip(self.axes, (one.ravel() for one in np.meshgrid(*choices, indexing="ij")), strict=True))
        pieces = {blocks: self._pieces(blocks) for blocks in self._sizes("co")}
        each = [pieces[blocks] for blocks in sizes["co"].tolist()]
        counts = [len(some) for some in each]
        table = {axis: np.repeat(one, counts) for axis, one in sizes.items()}
        return self._grid({**table, PIECE: np.array([*itertools.chain.from_iterable(each)], np.int64)})

    def _grid(self, sizes: Sizes) -> _Grid:
        trips = {axis: -(-self.extents[axis] // sizes[axis]) for axis in self.axes}
        trips["no"] = np.full(len(sizes[PIECE]), self.extents["no"], np.int64)
        trips[PIECE] = sizes["co"] // sizes[PIECE]
        return _Grid(sizes, trips)

    def _sizes(self, axis: str) -> list[int]:
        """The whole axis, and equal parts of it."""
        extent = self.extents[axis]
        if axis in _WHOLE_OR_ONE:
            return sorted({1, extent})
        if axis == "ci":
            return sorted({1, 2, extent} & set(range(extent + 1)) | {-(-extent // k) for k in (2, 4, 8)})
        parts = _PARTS_OF_ROWS if axis == "ow" else range(1, _MOST_PARTS + 1)
        return sorted({-(-extent // k) for k in parts if k <= extent} | {1, min(2, extent)})

    def _pieces(self, blocks: int) -> list[int]:
        """Parts of a tile that divide it, where there is a product to be computed in parts."""
        if not self.multiplies:
            return [blocks]
        return [piece for piece in {1, 2, 4, 8, blocks} if blocks % piece == 0]

    def _shapes(self) -> Iterator[_Shape]:
        for order in _ORDERS:
            choices = [[(operand.name, level) for level in self._levels(operand, order)] for operand in self.loaded]
            for levels in itertools.product(*choices):
                for copies in (1, 2):
                    yield _Shape(order, dict(levels), True, copies)

    def _smallest_shapes(self) -> Iterator[_Shape]:
        """Everything is loaded where it is used, into one place."""
        for order in _ORDERS:
            yield _Shape(order, {operand.name: PIECE for operand in self.loaded}, False, 1, shared=True)

    def _levels(self, operand: Operand, order: tuple[str, ...]) -> list[str | None]:
        """Where an operand may be loaded: before everything, or inside the innermost loop of a kind that chooses it."""
        loops = loops_in(order)
        chosen_by = [axis for axis in loops if operand.depends_on("co" if axis == PIECE else axis)]
        levels: list[str | None] = [None]
        if operand.scope is Scope.ACC or operand.last < self.product:
            whole = operand.elements(self.whole)
            if whole[0] <= self.depths[operand.scope] // _SHARE_OF_PARAMETERS:
                return levels
            return [*chosen_by[-1:]] or levels
        for kind in (order, REDUCED, (PIECE,)):
            inner = [axis for axis in chosen_by if axis in kind]
            levels += inner[-1:]
        return levels

    def _refusal(self) -> LoweringError:
        smallest = self._grid({axis: np.ones(1, np.int64) for axis in (*self.axes, PIECE)})
        (shape, *_) = self._smallest_shapes()
        for scope, depth in self.depths.items():
            need = int(self._peak(scope, smallest, shape)[0])
            if need > depth:
                elem = next(operand.elem_bytes for operand in self.operands if operand.scope is scope)
                return LoweringError(
                    f"Layer {self.proc.name!r} must fit the {scope.value} buffer of {depth * elem} bytes, "
                    f"its smallest tile needs {need * elem}"
                )
        raise AssertionError(f"the smallest tiles of {self.proc.name!r} fit, so a tiling must have been found")

    def _inside(self, sizes: Sizes, rank: int, order: tuple[str, ...]) -> dict[str, Ints]:
        """The part of each axis that what is loaded below `rank` loops covers."""
        loops = loops_in(order)
        inside: dict[str, Ints] = {}
        for axis in self.extents:
            whole = axis not in loops[:rank]
            inside[axis] = self.whole[axis] if whole else sizes.get(axis, _ONE)
        if "co" in self.axes and rank == len(loops):
            inside["co"] = sizes[PIECE]
        return inside

    def _elements(self, operand: Operand, grid: _Grid, shape: _Shape) -> Ints:
        """Elements of the scratchpad that one place of the operand takes."""
        if operand.temporary:
            rank = len(shape.loops()) if self.multiplies and operand is not self._main else 1 + len(shape.order)
        else:
            rank = shape.rank(shape.levels[operand.name])
        return self._covered(operand, grid, rank, shape)

    def _covered(self, operand: Operand, grid: _Grid, rank: int, shape: _Shape) -> Ints:
        """Elements of the operand that what is below `rank` loops uses."""
        key = operand.name, rank, shape.order
        return grid.once(key, lambda grid: operand.elements(self._inside(grid.sizes, rank, shape.order)))

    def _blocks(self, operand: Operand, grid: _Grid, shape: _Shape) -> Ints:
        """Instructions that load the operand once."""
        rank = shape.rank(shape.levels[operand.name])
        key = "blocks", operand.name, rank, shape.order
        return grid.once(key, lambda grid: operand.blocks(self._inside(grid.sizes, rank, shape.order)))

    @property
    def _main(self) -> Operand:
        """The accumulator of the op: the first temporary."""
        return next(operand for operand in self.operands if operand.temporary)

    def _repeats(self, operand: Operand, grid: _Grid, shape: _Shape) -> Ints:
        """How often an operand is loaded."""
        loops = shape.loops()[: shape.rank(shape.levels[operand.name])]
        if not operand.first <= self.product <= operand.last:
            loops = tuple(axis for axis in loops if axis not in REDUCED or not self.multiplies)
        return grid.count(loops)

    def _rank(self, operand: Operand, shape: _Shape) -> int:
        """The loops around what is loaded: what is used before the product is so for a tile, not for a chunk of it."""
        rank = shape.rank(shape.levels[operand.name])
        return min(rank, 1 + len(shape.order)) if operand.last < self.product else rank

    def _copies(self, operand: Operand, grid: _Grid, shape: _Shape) -> Ints:
        """How many places an operand has: two if it is loaded more than once, by a unit that works ahead."""
        ahead = operand.scope is not Scope.ACC or self.config.overlap
        if operand.temporary or not shape.turns or not ahead:
            return np.full(1, shape.copies if operand.temporary else 1, np.int64)
        return np.where(self._repeats(operand, grid, shape) > 1, 2, 1)

    def _fits(self, grid: _Grid, shape: _Shape) -> NDArray[np.bool_]:
        """Which candidates the scratchpads have room for."""
        fits = np.ones(len(grid), np.bool_)
        for scope, depth in self.depths.items():
            fits = fits & (self._peak(scope, grid, shape) <= depth)
        return fits

    def _peak(self, scope: Scope, grid: _Grid, shape: _Shape) -> Ints:
        """Most elements of a scratchpad that are in use at once."""
        mine = [operand for operand in self.operands if operand.scope is scope]
        if not mine:
            return np.zeros(1, np.int64)
        # Pairs of elements begin at an even place.
        gap = int(any(dimension.least > 1 for operand in mine for dimension in operand.dimensions))
        needs = np.broadcast_arrays(
            *(self._elements(operand, grid, shape) * self._copies(operand, grid, shape) for operand in mine)
        )
        if not shape.shared or scope is not Scope.ACC:
            return np.asarray(np.sum(needs, axis=0) + gap, np.int64)
        # The accumulator lives throughout, the others from the first nest that uses them to the last.
        peak = np.zeros(1, np.int64)
        for position in range(self.nests):
            together = np.zeros(1, np.int64)
            for operand, need in zip(mine, needs, strict=True):
                if operand is self._main or operand.first <= position <= operand.last:
                    together = together + need
            peak = np.maximum(peak, together)
        return np.asarray(peak + gap, np.int64)

    def _floor(self, grid: _Grid, shape: _Shape) -> Cycles:
        """Cycles that every candidate costs at least: no unit waits, and neither does the bus."""

        def of(grid: _Grid) -> Cycles:
            load = self._load(grid, shape)
            busy = self.gemm_steps + (0 if self._overlaps else load.rest)
            return np.asarray((np.maximum(busy, load.traffic) + load.extra) * _BELOW, np.float64)

        return grid.once(("floor", shape.order, *shape.levels.items()), of)

    @property
    def _overlaps(self) -> bool:
        """Whether products are computed while the rest of the tile before is."""
        return self.config.overlap and self.multiplies

    def _load(self, grid: _Grid, shape: _Shape) -> _Load:
        around = "no", *shape.order
        rest: Cycles = np.full(1, self.alu_steps, np.float64)
        traffic: Cycles = np.zeros(1)
        instructions = grid.once(
            ("instructions", shape.order),
            lambda grid: grid.count(shape.loops()) + grid.count(around) * grid.trips[PIECE] * self.nests,
        )
        for operand in self.loaded:
            traffic = traffic + self._moved(operand, grid, shape)
            instructions = instructions + self._repeats(operand, grid, shape) * self._blocks(operand, grid, shape)
            if operand.scope is Scope.ACC:
                rest = rest + self._moved(operand, grid, shape)
                rest = rest + _LOAD_IN_COMPUTE * self._repeats(operand, grid, shape)
        traffic = traffic + instructions * (_FETCH_BYTES / self.bus)
        after_tile = rest / grid.count(around)
        extra = self._before_and_behind(grid, shape) + _PER_BUS_CYCLE * traffic + _PER_INSTRUCTION * instructions
        if self._overlaps:
            extra = extra + after_tile
        return _Load(rest=rest, after_tile=after_tile, traffic=traffic, extra=extra)

    def _moved(self, operand: Operand, grid: _Grid, shape: _Shape) -> Cycles:
        """Bus cycles of all loads of an operand."""
        key = "moved", operand.name, shape.levels[operand.name], shape.order
        return grid.once(key, lambda grid: self._repeats(operand, grid, shape) * self._cycles(operand, grid, shape))

    def _cycles(self, operand: Operand, grid: _Grid, shape: _Shape) -> Cycles:
        """Bus cycles of one load of an operand."""
        return np.asarray(self._elements(operand, grid, shape) * (operand.dram_bytes / self.bus), np.float64)

    def _before_and_behind(self, grid: _Grid, shape: _Shape) -> Cycles:
        """Cycles until the first instruction has its operands, and after the last until its results are stored."""

        def of(grid: _Grid) -> Cycles:
            total = self._store_of_piece(grid)
            for operand in self.loaded:
                first = self._covered(operand, grid, len(shape.loops()), shape)
                total = total + first * (operand.dram_bytes / self.bus)
            return total

        return grid.once(("first", shape.order), of)

    def _cost(self, grid: _Grid, shape: _Shape) -> Cycles:
        """Estimated cycles of every candidate, and what else there is to be said against it."""
        loops = shape.loops()
        load = self._load(grid, shape)
        after_tile, overlap = load.after_tile, self._overlaps
        step = self.gemm_steps / grid.count(loops)
        time, slack, idle_bus = step, step, np.ones(1, np.bool_)
        for rank in range(len(loops), 0, -1):
            ahead, stalled = np.zeros(1), np.zeros(1)
            for operand in self.loaded:
                if operand.scope is not Scope.ACC and self._rank(operand, shape) == rank:
                    again = self._repeats(operand, grid, shape) // grid.count(loops[:rank])
                    cycles = self._cycles(operand, grid, shape) * again
                    twice = self._copies(operand, grid, shape) > 1
                    ahead = ahead + np.where(twice, cycles, 0)
                    stalled = stalled + np.where(twice, 0, cycles)
            if loops[rank - 1] == shape.order[-1]:
                time = time + (0 if overlap else after_tile) + self._wait_for_store(grid, shape, after_tile)
                slack = slack + (0 if overlap else after_tile)
            slack = np.where(idle_bus, time, slack)
            late = np.maximum(ahead - slack, 0)
            time = (time + late + stalled) * grid.trips.get(loops[rank - 1], 1)
            slack = np.maximum(slack - ahead, 0)
            idle_bus = idle_bus & (ahead + stalled == 0)
        return np.asarray(np.maximum(time, load.traffic) + load.extra, np.float64)

    def _store_of_piece(self, grid: _Grid) -> Cycles:
        """Cycles until what the last instruction of a tile computed is in memory."""
        elements = grid.once("piece", lambda grid: self._main.elements({**grid.sizes, "co": grid.sizes[PIECE]}))
        return np.asarray(elements * self.config.out_elem_bytes / self.bus + _STORE, np.float64)

    def _wait_for_store(self, grid: _Grid, shape: _Shape, after_tile: Cycles) -> Cycles:
        """What a tile waits until the place of the one before is stored, the pieces of which are computed in turn."""
        if shape.copies > 1:
            return np.zeros(1)
        pieces = grid.trips[PIECE]
        waits: Cycles = np.maximum(self._store_of_piece(grid) - after_tile * (pieces - 1) / pieces, 0)
        return waits

    @staticmethod
    def _steps(nest: For) -> int:
        """GEMM or ALU micro-ops of a nest, which no tiling changes."""
        axes = axes_of(nest)
        extents = [
            constant(site.loop.extent) for site in loops_of((nest,)) if axes[site.loop.var.name] not in ("n", "c", "i")
        ]
        return int(np.prod(extents, dtype=np.int64))
