"""Tile sizes: which fit the scratchpads, and which a simple model of the machine expects to be fastest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.tensor.affine import affine
from compiler.tensor.analysis import accesses, innermost, loops_of
from compiler.tensor.define import AXES
from compiler.tensor.ir import Alloc, DType, For, Proc, Scope, Var, constant, walk
from compiler.tensor.unify import unify
from compiler.vta.instructions import InstructionSet
from vta_hw.spec.config import VTAConfig

Ints = NDArray[np.int64]

REDUCED = ("ci", "t", "ky", "kx")
"""Reduction loops, in the order in which chunks follow each other."""

TILED = ("co", "oh", "ow", "s", *REDUCED)
"""The loops that a tiling cuts; the others (batches, the tile itself) stay whole."""

_WHOLE_OR_ONE = ("s", "t", "ky", "kx")


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
class _Operand:
    """A buffer that a nest reads or writes, seen through the scratchpad it will be staged in.

    dims: for every dimension, coefficient by axis, and the size at which it is cut.
    """

    name: str
    scope: Scope
    elem_bytes: int
    dram_bytes: int
    dims: tuple[tuple[Mapping[str, int], int], ...]
    temporary: bool

    def tiles(self, size: Mapping[str, Ints | int], subs: Mapping[str, int]) -> Ints:
        """Elements of the scratchpad that one tile of the schedule needs."""
        total: Ints = np.ones(1, np.int64)
        for coefficients, limit in self.dims:
            extent: Ints | int = 1
            for axis, coefficient in coefficients.items():
                extent = extent + coefficient * (size.get(axis, subs.get(axis, 1)) - 1)
            total = total * np.minimum(extent, limit)
        return total

    def depends_on(self, axis: str) -> bool:
        return any(axis in coefficients for coefficients, _ in self.dims)


def axes_of(nest: For) -> dict[str, str]:
    """Canonical axis by loop name: output loops by their place in the stored index, others by the end of their name."""
    found = innermost(nest)
    assert found is not None
    loops, _, store = found
    place = {index.name: axis for index, axis in zip(store.index, AXES, strict=True) if isinstance(index, Var)}
    return {loop.var.name: place.get(loop.var.name, loop.var.name.rsplit(".", 1)[-1]) for loop in loops}


def nests_of(proc: Proc) -> list[For]:
    """The loop nests of an op's definition, in program order."""
    body = proc.body
    while len(body) == 1 and isinstance(body[0], Alloc):
        body = body[0].body
    return [stmt for stmt in body if isinstance(stmt, For)]


class TilingProblem:
    """One op on one configuration: the operands and extents that decide which tilings fit and what they cost."""

    def __init__(self, proc: Proc, config: VTAConfig) -> None:
        self.proc, self.config = proc, config
        self.extents: dict[str, int] = {}
        self.operands: list[_Operand] = []
        self.compute_nests = 0
        self._dot = None
        instructions = InstructionSet(config)
        names = set()
        for nest in nests_of(proc):
            axes = axes_of(nest)
            for loop in loops_of((nest,)):
                self.extents.setdefault(axes[loop.loop.var.name], constant(loop.loop.extent))
            match = unify(instructions.gemm.meaning, nest, unplaced=True)
            for operand in self._operands_of(nest, axes, match is not None, config):
                if operand.name not in names:
                    names.add(operand.name)
                    self.operands.append(operand)
            self.compute_nests += 1
        self.depths = {Scope.INP: config.inp_depth, Scope.WGT: config.wgt_depth, Scope.ACC: config.acc_depth}
        self.subs = {axis: extent for axis, extent in self.extents.items() if axis not in (*TILED, "n", "c", "i")}
        self.subs["no"] = 1

    def _operands_of(self, nest: For, axes: dict[str, str], gemm: bool, config: VTAConfig) -> list[_Operand]:
        allocated = {stmt.buffer.name for stmt in walk(self.proc.body) if isinstance(stmt, Alloc)}
        found = innermost(nest)
        assert found is not None
        written = found[2].buffer.name
        is_copy = written in allocated and not any(
            a.buffer.name in allocated and not a.write for a in accesses((nest,))
        )
        operands = []
        for access in accesses((nest,)):
            temporary = access.buffer.name in allocated
            if not temporary and (access.write or (is_copy and not gemm)):
                continue  # loads and stores move these straight between DRAM and a temporary
            scope = Scope.ACC
            if gemm and not temporary:
                rows = constant(access.buffer.shape[-2])
                is_weight = len(access.index) == 8 and rows == config.block_out
                scope = Scope.WGT if is_weight else Scope.INP
            lead = access.index[:-2]
            dims = []
            for index, extent in zip(lead, access.buffer.shape, strict=False):
                form = affine(index)
                dims.append(({axes[a.name]: c for a, c in form.terms.items() if isinstance(a, Var)}, constant(extent)))
            padded = gemm and scope is Scope.INP
            cut = tuple((c, 1 << 40 if padded and axis in (2, 3) else limit) for axis, (c, limit) in enumerate(dims))
            operands.append(self._operand(access.buffer.name, scope, access.buffer.type, cut, temporary))
        return operands

    def _operand(
        self, name: str, scope: Scope, dtype: DType, dims: tuple[tuple[Mapping[str, int], int], ...], temporary: bool
    ) -> _Operand:
        config = self.config
        elem = {Scope.INP: config.inp_elem_bytes, Scope.WGT: config.wgt_elem_bytes, Scope.ACC: config.acc_elem_bytes}
        dram = config.acc_elem_bytes // 4 if scope is Scope.ACC and dtype is DType.INT8 else elem[scope]
        return _Operand(name, scope, elem[scope], dram, dims, temporary)

    def candidates(self, axis: str) -> list[int]:
        """Tile sizes worth trying: the whole, equal parts of it, and powers of two."""
        extent = self.extents.get(axis, 1)
        if axis in _WHOLE_OR_ONE:
            return sorted({1, extent})
        parts = {-(-extent // k) for k in range(1, min(extent, 16) + 1)}
        return sorted(parts | {1 << k for k in range(extent.bit_length()) if 1 << k <= extent})

    def best(self) -> Tiling:
        """The cheapest tiling that fits. Raises LoweringError naming the buffer and the bytes needed if none does."""
        axes = [axis for axis in TILED if axis in self.extents]
        grid = np.array(list(itertools.product(*(self.candidates(axis) for axis in axes))), np.int64).reshape(
            -1, len(axes)
        )
        size: dict[str, Ints] = {axis: grid[:, k] for k, axis in enumerate(axes)}
        best: tuple[float, Tiling] | None = None
        for hoist in (True, False):
            for order in (("co", "oh", "ow", "s"), ("oh", "ow", "co", "s")):
                for threads in (None, "co", "oh"):
                    cost = self._cost(size, order, threads, hoist)
                    k = int(np.argmin(cost))
                    if np.isfinite(cost[k]) and (best is None or cost[k] < best[0]):
                        sizes = {axis: int(size[axis][k]) for axis in axes}
                        best = float(cost[k]), Tiling(sizes=sizes, order=order, threads=threads, hoist=hoist)
            if best is not None:
                return best[1]
        raise self._refusal(axes)

    def _refusal(self, axes: Sequence[str]) -> LoweringError:
        smallest = dict.fromkeys(axes, 1)
        for scope, depth in self.depths.items():
            need = self._peak(scope, smallest, lambda operand: 1, hoist=False)
            if int(need[0]) > depth:
                elem = next(operand.elem_bytes for operand in self.operands if operand.scope is scope)
                return LoweringError(
                    f"Layer {self.proc.name!r} must fit the {scope.value} buffer of {depth * elem} bytes, "
                    f"its smallest tile needs {int(need[0]) * elem}"
                )
        return LoweringError(f"Layer {self.proc.name!r} must have a tiling that fits, none was found")

    def _peak(self, scope: Scope, size: Mapping[str, Ints | int], copies: object, *, hoist: bool) -> Ints:
        """Most elements of a scratchpad alive at once."""
        assert callable(copies)
        needs = [op.tiles(size, self.subs) * copies(op) for op in self.operands if op.scope is scope]
        if not needs:
            return np.zeros(1, np.int64)
        if hoist or scope is not Scope.ACC:
            return np.sum(np.broadcast_arrays(*needs), axis=0)
        # The first temporary (the accumulator itself) lives throughout, the others one after the other.
        mine = [op for op in self.operands if op.scope is scope]
        main = next((k for k, op in enumerate(mine) if op.temporary), 0)
        others = [need for k, need in enumerate(needs) if k != main]
        rest = np.max(np.broadcast_arrays(*others), axis=0) if others else 0
        return np.asarray(needs[main] + rest)

    def _cost(self, size: Mapping[str, Ints], order: tuple[str, ...], threads: str | None, hoist: bool) -> Ints:
        """Estimated cycles of every candidate; infinite where it does not fit."""
        trips = {axis: -(-self.extents[axis] // tile) for axis, tile in size.items()}
        outer = [axis for axis in (*order, *REDUCED) if axis in trips]
        innermost_axis = threads
        fits = np.ones(len(next(iter(size.values()))), bool)
        if threads is not None:
            if threads not in trips:
                return np.full(len(fits), np.inf)
            after = [axis for axis in order[order.index(threads) + 1 :] if axis in trips]
            for axis in after:  # the threaded loop is the last one that has more than one tile
                fits &= trips[axis] == 1
            fits &= trips[threads] > 1

        def level(operand: _Operand) -> list[str]:
            """The loops around the place where the operand is loaded."""
            if not hoist:
                return outer
            last = max((k for k, axis in enumerate(outer) if operand.depends_on(axis)), default=-1)
            return outer[: last + 1]

        def copies(operand: _Operand) -> int:
            return 2 if threads is not None and (operand.temporary or innermost_axis in level(operand)) else 1

        for scope, depth in self.depths.items():
            fits = fits & (self._peak(scope, size, copies, hoist=hoist) <= depth)
        bytes_moved: Ints = np.zeros(1, np.int64)
        instructions: Ints = np.zeros(1, np.int64)
        exposed: Ints = np.zeros(1, np.int64)
        batches = self.extents["no"]
        for operand in self.operands:
            if operand.temporary:
                continue
            repeats: Ints = np.ones(1, np.int64)
            for axis in outer:
                # A loop of one trip does not reload; the model therefore counts trips of the loops actually around.
                if axis in level(operand) or (not hoist):
                    repeats = repeats * trips[axis]
            tile_bytes = operand.tiles(size, self.subs) * operand.dram_bytes
            bytes_moved = bytes_moved + tile_bytes * repeats * batches
            blocks: Ints | int = 1
            for coefficients, _ in operand.dims[:2]:
                for axis in coefficients:
                    blocks = blocks * size.get(axis, np.int64(self.subs.get(axis, 1)))
            instructions = instructions + repeats * batches * blocks
            exposed = exposed + tile_bytes
        tiles: Ints = np.ones(1, np.int64)
        for axis in order:
            tiles = tiles * trips.get(axis, 1)
        reductions: Ints = np.ones(1, np.int64)
        for axis in REDUCED:
            reductions = reductions * trips.get(axis, 1)
        instructions = instructions + batches * tiles * (self.compute_nests + 2 * reductions)
        bus = self.config.bus_bits // 8
        work = self._micro_ops()
        memory = bytes_moved / bus
        overlapped = np.maximum(work, memory) if threads is not None else work + memory
        cost = overlapped + 0.25 * memory + exposed / bus + 16.0 * instructions
        return np.where(fits, cost, np.inf)

    def _micro_ops(self) -> int:
        total = 0
        for nest in nests_of(self.proc):
            count = 1
            axes = axes_of(nest)
            for site in loops_of((nest,)):
                if axes[site.loop.var.name] not in ("n", "c", "i"):
                    count *= constant(site.loop.extent)
            total += count
        return total
