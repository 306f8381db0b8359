"""The integers that a model asks for itself: where its values lie on the steps of a `FakeQuantize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError, UnfitGridError
from compiler.graph.ir import Array, Graph, Op
from compiler.graph.ops.elementwise import FakeQuantize, Pointwise
from compiler.graph.ops.move import Movement, Pad
from compiler.graph.ops.pool import MaxPool
from compiler.graph.ops.shape import Reshape
from compiler.graph.quantize.bounds import Interval


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Reals per step, a float32, and the range of the integers, of which `zero_point` stands for 0.

    node: what gives it, "" where that is not the model.
    """

    scale: float
    range: Interval
    zero_point: int = 0
    node: str = ""

    def reals(self, integers: Array) -> NDArray[np.float64]:
        """What the integers stand for."""
        reals: NDArray[np.float64] = (integers.astype(np.float64) - self.zero_point) * self.scale
        return reals

    def nearest(self, reals: Array) -> NDArray[np.float64]:
        """The integers that are next to reals, whole numbers of any size."""
        steps: NDArray[np.float64] = np.rint(reals.astype(np.float64) / self.scale) + self.zero_point
        return steps

    def within(self, limits: Interval) -> Grid:
        """The same steps as integers of the machine: with a zero point if they are not its own.

        Raises UnfitGridError where there are more than the machine has.
        """
        if self.range.is_within(limits):
            return self
        below = self.range.lo - limits.lo
        grid = replace(self, range=self.range.less(below), zero_point=self.zero_point - below)
        if not grid.range.is_within(limits):
            raise UnfitGridError(
                f"node {self.node!r} must quantise to at most {limits.hi - limits.lo + 1} integers, not to "
                f"{self.range.lo}..{self.range.hi} (zero point taken off): quantise activations to {limits.bits} bits"
            )
        return grid


def given_grids(graph: Graph) -> dict[str, Grid]:
    """The grid of each value that a `FakeQuantize` reads or makes, directly or by ops that only move and compare.

    Such ops give the same results before and after it. A value has the grid of its readers only if all have the same,
    and it is no output of the graph: others want its reals.
    """
    grids: dict[str, Grid] = {}
    for node in graph.nodes:
        if isinstance(node.op, FakeQuantize):
            steps = Interval(lo=node.op.lo, hi=node.op.hi)
            grids[node.output] = Grid(scale=node.op.scale, range=steps, node=node.name)
        elif _keeps(node.op):
            kept = [grids.get(name) for name in node.inputs]
            if kept[0] is not None and all(_alike(kept[0], other) for other in kept):
                grids[node.output] = kept[0]
    made = frozenset(grids)
    wanted: dict[str, list[Grid | None]] = {name: [None] for name in graph.outputs}
    for node in reversed(graph.nodes):
        _settle(node.output, wanted, grids)
        asks = isinstance(node.op, FakeQuantize) or _keeps(node.op)
        for name in set(node.inputs) - made:
            wanted.setdefault(name, []).append(grids.get(node.output) if asks else None)
    for value in graph.inputs:
        _settle(value.name, wanted, grids)
    for name in graph.constants:
        _settle(name, wanted, grids)
    return grids


def _settle(name: str, wanted: Mapping[str, list[Grid | None]], grids: dict[str, Grid]) -> None:
    """Give the value the grid that all of its readers ask for, if they do."""
    first, *others = wanted.get(name, [None])
    if first is not None and name not in grids and all(_alike(first, other) for other in others):
        grids[name] = first


def _keeps(op: Op) -> bool:
    """Whether results have no elements but those of the inputs, and zeros."""
    if isinstance(op, Pointwise):
        return op.function in ("maximum", "minimum")
    return isinstance(op, Movement | MaxPool | Reshape) and not (isinstance(op, Pad) and op.value)


def _alike(one: Grid, other: Grid | None) -> bool:
    return other is not None and (one.scale, one.range) == (other.scale, other.range)


def given_weights(
    w: Array, scales: Mapping[str, Array], name: str, limits: Interval
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(integers, of the shape of w, reals per step of each output channel, [O]) of weights that the model gives so.

    None for all others, and where one is just above the limits, as the least integer is behind a negative factor: made
    anew, such weights change by half a step at most. Raises QuantizeError where integers are further off.
    """
    if name not in scales:
        return None
    scale = scales[name].astype(np.float64)
    steps: NDArray[np.float64] = np.rint(w / scale.reshape(-1, *[1] * (w.ndim - 1)))
    lo, hi = int(steps.min(initial=0)), int(steps.max(initial=0))
    if lo >= limits.lo and hi == limits.hi + 1:
        return None
    if not Interval(lo=lo, hi=hi).is_within(limits):
        raise QuantizeError(
            f"weights must be {limits.lo}..{limits.hi} once their zero point is taken off, not {lo}..{hi}: quantise "
            f"the model with symmetric weights of int{limits.bits}"
        )
    return steps, scale
