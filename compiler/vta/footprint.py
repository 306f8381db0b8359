"""What the tiles of an op take in the scratchpads, as functions of tile sizes.

Works on the definition of the op, before any schedule: an index that is affine in the loops covers, for a tile of
given sizes, an interval whose length follows from the coefficients alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.tensor.affine import affine
from compiler.tensor.analysis import Access, accesses, innermost, loops_of
from compiler.tensor.ir import Alloc, Const, DType, For, Proc, Scope, Var, constant
from compiler.tensor.tiles import AXES
from compiler.tensor.traverse import walk
from compiler.tensor.unify import Match, unify
from compiler.vta.instructions import instruction_set
from vta_hw.spec.config import VTAConfig

Ints = NDArray[np.int64]
Sizes = Mapping[str, Ints]

_UNLIMITED = 1 << 40


@dataclass(frozen=True)
class Dimension:
    """A dimension of a scratchpad buffer: ``least + sum(coefficient * (size - 1))`` over the axes, at most `limit`."""

    coefficients: Mapping[str, int]
    limit: int
    least: int = 1


@dataclass(frozen=True)
class Operand:
    """A buffer that computing nests use through a scratchpad.

    temporary: it never lies in DRAM. elem_bytes: of a scratchpad element; dram_bytes: of the same element in DRAM.
    first, last: positions of the nests that use it.
    """

    name: str
    scope: Scope
    elem_bytes: int
    dram_bytes: int
    dimensions: tuple[Dimension, ...]
    temporary: bool
    first: int
    last: int

    def elements(self, sizes: Sizes) -> Ints:
        """Elements of the scratchpad that one tile takes, for every candidate."""
        total = np.ones(1, np.int64)
        for dimension in self.dimensions:
            total = total * _extent(dimension, sizes)
        return total

    def blocks(self, sizes: Sizes) -> Ints:
        """Pieces that do not follow each other in DRAM, which separate loads must fetch: an estimate."""
        total = np.ones(1, np.int64)
        for dimension in self.dimensions[:2]:
            total = total * _extent(dimension, sizes)
        return total

    def depends_on(self, axis: str) -> bool:
        return any(axis in dimension.coefficients for dimension in self.dimensions)


def _extent(dimension: Dimension, sizes: Sizes) -> Ints:
    extent: Ints | int = dimension.least
    for axis, coefficient in dimension.coefficients.items():
        if axis in sizes:
            extent = extent + coefficient * (sizes[axis] - 1)
    return np.atleast_1d(np.minimum(extent, dimension.limit))


def axes_of(nest: For) -> dict[str, str]:
    """Canonical axis by loop name: output loops by their place in the stored index, others by the end of their name."""
    found = innermost(nest)
    assert found is not None, "an op is a sequence of perfect nests"
    loops, _, store = found
    place = {index.name: axis for index, axis in zip(store.index, AXES, strict=True) if isinstance(index, Var)}
    return {loop.var.name: place.get(loop.var.name, loop.var.name.rsplit(".", 1)[-1]) for loop in loops}


def steps_of(proc: Proc) -> list[Proc]:
    """The op's definition as procedures that are scheduled one by one: each has temporaries of its own."""
    return [replace(proc, body=(stmt,)) for stmt in proc.body]


def nests_of(proc: Proc) -> list[For]:
    """The loop nests of an op's definition, in program order."""
    body = proc.body
    while len(body) == 1 and isinstance(body[0], Alloc):
        body = body[0].body
    return [stmt for stmt in body if isinstance(stmt, For)]


def temporaries_of(proc: Proc) -> list[str]:
    """Names of the buffers that the op allocates, outermost first."""
    return [stmt.buffer.name for stmt in walk(proc.body) if isinstance(stmt, Alloc)]


def extents_of(proc: Proc) -> dict[str, int]:
    """Trip count of every axis of the op."""
    extents: dict[str, int] = {}
    for nest in nests_of(proc):
        axes = axes_of(nest)
        for site in loops_of((nest,)):
            extents.setdefault(axes[site.loop.var.name], constant(site.loop.extent))
    return extents


def is_transfer(nest: For, temporaries: list[str]) -> bool:
    """Whether the nest only moves data between DRAM and a temporary."""
    found = innermost(nest)
    assert found is not None, "an op is a sequence of perfect nests"
    store = found[2]
    reads = [access.buffer.name for access in accesses((store,)) if not access.write]
    return len(reads) == 1 and (reads[0] not in temporaries or store.buffer.name not in temporaries)


def is_gemm(nest: For, config: VTAConfig) -> bool:
    """Whether the nest is a sum of products of tiles."""
    return unify(instruction_set(config).gemm.meaning, nest, unplaced=True) is not None


def operands_of(proc: Proc, config: VTAConfig) -> list[Operand]:
    """The scratchpad buffers of an op, each once, in order of first use."""
    gemm = instruction_set(config).gemm.meaning
    temporaries = temporaries_of(proc)
    found: dict[str, Operand] = {}
    for position, nest in enumerate(nests_of(proc)):
        match = unify(gemm, nest, unplaced=True)
        transfer = is_transfer(nest, temporaries)
        for access in _computed_with(nest, temporaries, transfer):
            name = access.buffer.name
            if name not in found:
                found[name] = _operand(access, axes_of(nest), match, temporaries, config, position)
            found[name] = replace(found[name], last=position)
    return list(found.values())


def _computed_with(nest: For, temporaries: list[str], transfer: bool) -> Iterator[Access]:
    """Accesses that go through a scratchpad; a transfer touches its DRAM side directly."""
    for access in accesses((nest,)):
        if access.buffer.name in temporaries or not (transfer or access.write):
            yield access


def _operand(
    access: Access, axes: Mapping[str, str], match: Match | None, temporaries: list[str], config: VTAConfig, at: int
) -> Operand:
    name = access.buffer.name
    scope = Scope.ACC
    if match is not None and name not in temporaries:
        scope = Scope.INP if match.operands["inp"].buffer.name == name else Scope.WGT
    dimensions = []
    for index, extent in zip(access.index[:-2], access.buffer.shape, strict=False):
        coefficients = {axes[a.name]: abs(c) for a, c in affine(index).terms.items() if isinstance(a, Var)}
        # Padding is loaded too, so that an input tile may be larger than the input.
        limit = _UNLIMITED if scope is Scope.INP else constant(extent)
        # An operand that consists of several elements has places that no loop chooses.
        least = constant(extent) if isinstance(index, Const) and scope is Scope.ACC else 1
        dimensions.append(Dimension(coefficients, limit, least))
    elem = element_bytes(scope, config)
    narrow = scope is Scope.ACC and access.buffer.type is DType.INT8
    return Operand(name, scope, elem, elem // 4 if narrow else elem, tuple(dimensions), name in temporaries, at, at)


def element_bytes(scope: Scope, config: VTAConfig) -> int:
    """Bytes of one element of a scratchpad."""
    return {Scope.INP: config.inp_elem_bytes, Scope.WGT: config.wgt_elem_bytes, Scope.ACC: config.acc_elem_bytes}[scope]
