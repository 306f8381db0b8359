"""The integers that a model asks for itself: where its values lie on the steps of a `FakeQuantize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.ir import Array, Graph, Node, Op
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.elementwise import FakeQuantize
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import Movement, Pad
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Reshape
from compiler.graph.quantize.bounds import Interval
from compiler.graph.rewrite import first_free


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Reals per step, a float32, and the range of the steps. node: what gives it, "" where that is not the model."""

    scale: float
    range: Interval
    node: str = ""

    def check(self, limits: Interval) -> None:
        """Raises QuantizeError where the steps are not within those of the machine."""
        lo, hi = self.range.lo, self.range.hi
        if not self.range.is_within(limits):
            raise QuantizeError(
                f"node {self.node!r} must quantise to {limits.lo}..{limits.hi} once the zero point is taken off, not "
                f"to {lo}..{hi}: quantise the model with symmetric activations of int{limits.bits}"
            )


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


def one_grid_each(graph: Graph) -> Graph:
    """The graph with a copy of each integer op for each grid that its result is read on, beside what else reads it."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in set(node.inputs):
            readers.setdefault(name, []).append(node)
    taken, moved, nodes = set(graph.types), dict[tuple[str, str], str](), list[Node]()
    for node in graph.nodes:
        inputs = tuple(moved.get((node.output, name), name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        if not isinstance(node.op, _COPIED):
            continue
        grids: dict[tuple[float, int, int], str] = {}
        own = node.output in graph.outputs
        for reader in readers.get(node.output, ()):
            own = own or not isinstance(reader.op, FakeQuantize)
        for reader in readers.get(node.output, ()):
            if not isinstance(reader.op, FakeQuantize):
                continue
            key = (reader.op.scale, reader.op.lo, reader.op.hi)
            if key not in grids:
                grids[key] = node.output
                if own or len(grids) > 1:
                    grids[key] = first_free(f"{node.output}.{reader.output}", taken)
                    taken.add(grids[key])
                    nodes.append(replace(node, inputs=inputs, output=grids[key]))
            moved[reader.output, node.output] = grids[key]
    return replace(graph, nodes=tuple(nodes))


_COPIED = (FusedConv, FusedAdd, ChannelMatMul, AveragePool, GlobalAveragePool)
"""What makes new integers; ops that keep those they read have no grid of their own."""


def _keeps(op: Op) -> bool:
    """Whether results have no elements but those of the inputs, and zeros."""
    return isinstance(op, Movement | MaxPool | Reshape) and not (isinstance(op, Pad) and op.value)


def _alike(one: Grid, other: Grid | None) -> bool:
    return other is not None and (one.scale, one.range) == (other.scale, other.range)


def given_weights(
    w: Array, scales: Mapping[str, Array], name: str, limits: Interval
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(integers, of the shape of w, reals per step of each output channel, [O]) of weights that the model gives so.

    None for all others. Raises QuantizeError where the integers are not within the limits.
    """
    if name not in scales:
        return None
    scale = scales[name].astype(np.float64)
    steps: NDArray[np.float64] = np.rint(w / scale.reshape(-1, *[1] * (w.ndim - 1)))
    lo, hi = int(steps.min(initial=0)), int(steps.max(initial=0))
    if not Interval(lo=lo, hi=hi).is_within(limits):
        raise QuantizeError(
            f"weights must be {limits.lo}..{limits.hi} once their zero point is taken off, not {lo}..{hi}: quantise "
            f"the model with symmetric weights of int{limits.bits}"
        )
    return steps, scale
