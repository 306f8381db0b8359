"""Proof that a quantised graph never overflows: interval arithmetic over the integers it really contains.

It knows nothing of how the integers were chosen. A bound holds for every partial sum in any order, since each term's
interval is widened to contain zero; so it holds for any schedule of the convolution too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.ir import Graph, Node
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.interleave import Interleave
from compiler.graph.ops.move import ChannelTranspose, Concat, Pad, Slice, Take, Transpose
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import QAdd, QExtreme, QMul, Quantize, RescaledAdd, RescaledMul
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.rescaled import ByRequant, RescaledConv2d
from compiler.graph.ops.upsample import QInterpolate, Repeat
from compiler.tensor.define_tiles import SIDE_SHIFT

INT32 = (-(1 << 31), (1 << 31) - 1)
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Closed interval of integers."""

    lo: int
    hi: int

    def times(self, factor: int) -> Interval:
        return Interval(lo=min(self.lo * factor, self.hi * factor), hi=max(self.lo * factor, self.hi * factor))

    def less(self, number: int) -> Interval:
        return Interval(lo=self.lo - number, hi=self.hi - number)

    def with_zero(self) -> Interval:
        return Interval(lo=min(self.lo, 0), hi=max(self.hi, 0))

    def plus(self, other: Interval) -> Interval:
        return Interval(lo=self.lo + other.lo, hi=self.hi + other.hi)

    def is_within(self, other: Interval) -> bool:
        return other.lo <= self.lo and self.hi <= other.hi

    @property
    def bits(self) -> int:
        """Signed bits that hold every element."""
        return max((-self.lo - 1 if self.lo < 0 else 0).bit_length(), max(self.hi, 0).bit_length()) + 1


def conv_accumulator(w: NDArray[Any], x: Interval) -> tuple[Ints, Ints]:
    """(low, high), int64 [O]: bounds of every partial sum of an output channel, for weights [O,C,KH,KW]."""
    flat, x = w.reshape(len(w), -1), x.with_zero()
    above = np.maximum(flat, 0).sum(axis=1, dtype=np.int64)
    below = np.minimum(flat, 0).sum(axis=1, dtype=np.int64)
    return above * x.lo + below * x.hi, above * x.hi + below * x.lo


def matmul_accumulator(terms: int, x: Interval, w: Interval) -> Interval:
    """Bounds of every partial sum of so many products of two activations."""
    x, w = x.with_zero(), w.with_zero()
    products = [a * b for a in (x.lo, x.hi) for b in (w.lo, w.hi)]
    return Interval(lo=terms * min(products), hi=terms * max(products))


def prove(graph: Graph) -> dict[str, Interval]:
    """Largest interval of intermediates of each quantised node, by its output.

    Raises QuantizeError naming the first node that some input could make overflow int32.
    """
    values: dict[str, Interval] = {}
    peaks: dict[str, Interval] = {}

    def interval(name: str) -> Interval:
        if name not in values:
            bits = graph.types[name].dtype.bits
            values[name] = Interval(lo=-(1 << (bits - 1)), hi=(1 << (bits - 1)) - 1)
        return values[name]

    for node in graph.nodes:
        match node.op:
            case Quantize():
                values[node.output] = Interval(lo=node.op.lo, hi=node.op.hi)
            case QMaxPool2d() | Relayout() | ChannelTranspose() | Transpose() | Slice() | Take():
                values[node.output] = interval(node.inputs[0])
            case Repeat() | Interleave():
                values[node.output] = interval(node.inputs[0])
            case QInterpolate():
                values[node.output] = interval(node.inputs[0])
                peaks[node.output] = _checked(node, _peak(graph, node, interval))
            case Concat():
                parts = list(map(interval, node.inputs))
                values[node.output] = Interval(lo=min(x.lo for x in parts), hi=max(x.hi for x in parts))
            case Pad():
                source, value = interval(node.inputs[0]), int(node.op.value)
                values[node.output] = Interval(lo=min(source.lo, value), hi=max(source.hi, value))
            case QConv2d() | ExactConv2d() | QMatMul() | ByRequant() | QAdd() | QExtreme() | QMul() | QAvgPool2d():
                values[node.output] = Interval(lo=node.op.lo, hi=node.op.hi)
                peaks[node.output] = _checked(node, _peak(graph, node, interval))
    return peaks


def _peak(graph: Graph, node: Node, interval: Callable[[str], Interval]) -> Interval:
    match node.op:
        case QConv2d():
            return _conv_peak(graph, node, node.op, interval)
        case ExactConv2d():
            return _exact_peak(graph, node, node.op, interval)
        case RescaledConv2d():
            return _rescaled_peak(graph, node, node.op, interval)
        case QMatMul() | RescaledMatMul():
            inner = graph.types[node.inputs[0]].shape[1] // node.op.groups
            acc = matmul_accumulator(inner, *map(interval, node.inputs))
            if isinstance(node.op, RescaledMatMul):
                return acc.plus(_reach(node.op.bias))
            scaled = Interval(lo=acc.lo >> node.op.pre_shift, hi=acc.hi >> node.op.pre_shift).times(node.op.mul)
            biased = scaled.plus(_reach(node.op.bias))
            return Interval(lo=min(acc.lo, biased.lo), hi=max(acc.hi, biased.hi))
        case QInterpolate():
            # Weights of all pixels together, and the number that sums on a side are multiplied by.
            return interval(node.inputs[0]).with_zero().times(1 << (node.op.shift + SIDE_SHIFT + 1))
        case RescaledMul():
            return product_peak(node.op.zero_points, *map(interval, node.inputs)).plus(_reach(node.op.bias))
        case RescaledAvgPool2d():
            most = max((int(graph.constants[name].max()) for name in node.inputs[1:]), default=1)
            sums = interval(node.inputs[0]).with_zero().times(math.prod(node.op.kernel) * most)
            return sums.plus(_reach(node.op.bias))
        case QAdd() | RescaledAdd():
            factors = (node.op.m0, node.op.m1)
            terms = [interval(name).times(m).with_zero() for name, m in zip(node.inputs, factors, strict=False)]
            total = _reach(node.op.bias)
            for term in terms:
                total = total.plus(term)
            return total
        case QExtreme():
            second = node.inputs[0 if node.op.m1 is None else -1]
            factors_of = _constant(graph, node, node.inputs[1]).tolist() if node.op.m1 is None else [node.op.m1]
            z0, z1 = node.op.zero_points
            terms = [interval(node.inputs[0]).less(z0).times(node.op.m0)]
            terms += [interval(second).less(z1).times(m) for m in {min(factors_of), max(factors_of)}]
            chosen = Interval(lo=min(t.lo for t in terms), hi=max(t.hi for t in terms)).with_zero()
            return chosen.plus(_reach(node.op.bias))
        case QMul():
            product = product_peak(node.op.zero_points, *map(interval, node.inputs))
            a, c = (interval(name).less(z) for name, z in zip(node.inputs, node.op.zero_points, strict=True))
            scaled = matmul_accumulator(1, a, c).times(node.op.mul).plus(_reach(node.op.bias))
            return Interval(lo=min(product.lo, scaled.lo), hi=max(product.hi, scaled.hi))
        case QAvgPool2d():
            total = interval(node.inputs[0]).with_zero().times(math.prod(node.op.kernel))
            factors_at = [node.op.mul] if node.op.mul is not None else graph.constants[node.inputs[1]].ravel().tolist()
            peaks = [total.times(int(m)).with_zero() for m in {min(factors_at), max(factors_at), 1}]
            largest = Interval(lo=min(p.lo for p in peaks), hi=max(p.hi for p in peaks))
            return largest.plus(_reach(node.op.bias))
        case _:
            raise AssertionError(node.op)


def product_peak(zero_points: tuple[int, int], a: Interval, c: Interval) -> Interval:
    """Of (a - z0) * (c - z1), computed as the difference of two products, and of both of these."""
    z0, z1 = zero_points
    parts = [matmul_accumulator(1, a.less(z0), c), a.less(z0).times(-z1).with_zero()]
    parts.append(matmul_accumulator(1, a.less(z0), c.less(z1)))
    return Interval(lo=min(part.lo for part in parts), hi=max(part.hi for part in parts))


def _reach(number: int) -> Interval:
    """From 0 to the number."""
    return Interval(lo=min(number, 0), hi=max(number, 0))


def _conv_peak(graph: Graph, node: Node, op: QConv2d, interval: Callable[[str], Interval]) -> Interval:
    w, m, b = (_constant(graph, node, name) for name in node.inputs[1:4])
    low, high = conv_accumulator(w, interval(node.inputs[0]))
    residual = interval(node.inputs[4]).times(op.r_mul).with_zero() if len(node.inputs) == 5 else Interval(lo=0, hi=0)
    factor, bias = m.astype(np.int64), b.astype(np.int64)
    scaled = (low >> op.pre_shift) * factor, (high >> op.pre_shift) * factor
    least = np.minimum(np.minimum(*scaled), 0) + np.minimum(bias, 0) + residual.lo
    most = np.maximum(np.maximum(*scaled), 0) + np.maximum(bias, 0) + residual.hi
    return Interval(lo=int(np.minimum(least, low).min(initial=0)), hi=int(np.maximum(most, high).max(initial=0)))


def _exact_peak(graph: Graph, node: Node, op: ExactConv2d, interval: Callable[[str], Interval]) -> Interval:
    w, *parameters = (_constant(graph, node, name) for name in node.inputs[1:6])
    residual = interval(node.inputs[6]).times(op.r_mul).with_zero() if len(node.inputs) == 7 else Interval(lo=0, hi=0)
    low, high = conv_accumulator(w, interval(node.inputs[0]))
    reach, m, n, b = (each.astype(np.int64) for each in parameters)
    least, most = np.maximum(low, -reach), np.minimum(high, reach)
    fine = np.minimum(0, np.minimum(least * n, most * n)), np.maximum(0, np.maximum(least * n, most * n))
    lowest = np.minimum(0, np.minimum(least * m, most * m)) + (fine[0] >> op.fine) + np.minimum(b, 0) + residual.lo
    highest = np.maximum(0, np.maximum(least * m, most * m)) + (fine[1] >> op.fine) + np.maximum(b, 0) + residual.hi
    return Interval(
        lo=int(min(each.min(initial=0) for each in (low, fine[0], lowest))),
        hi=int(max(each.max(initial=0) for each in (high, fine[1], highest))),
    )


def _rescaled_peak(graph: Graph, node: Node, op: RescaledConv2d, interval: Callable[[str], Interval]) -> Interval:
    w, b, *_ = (_constant(graph, node, name) for name in node.inputs[1:3])
    low, high = conv_accumulator(w, interval(node.inputs[0]))
    if len(node.inputs) == 6:
        r = interval(node.inputs[4]).with_zero()
        m = _constant(graph, node, node.inputs[5]).astype(np.int64) * op.r_mul
        low, high = low + np.minimum(m * r.lo, m * r.hi), high + np.maximum(m * r.lo, m * r.hi)
    low, high = low * op.mul + np.minimum(b, 0), high * op.mul + np.maximum(b, 0)
    return Interval(lo=int(low.min(initial=0)), hi=int(high.max(initial=0)))


def _constant(graph: Graph, node: Node, name: str) -> NDArray[Any]:
    if name not in graph.constants:
        raise QuantizeError(f"Layer {node.name!r} must have constant parameters, not the computed {name!r}")
    return graph.constants[name]


def _checked(node: Node, peak: Interval) -> Interval:
    if peak.lo < INT32[0] or peak.hi > INT32[1]:
        raise QuantizeError(f"Layer {node.name!r} must stay within int32, not reach {peak.lo}..{peak.hi}")
    return peak
