"""The quantised form of each fused float op but convolutions: scales, then integers, then the node."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypedDict

import numpy as np

from compiler.errors import QuantizeError
from compiler.graph.ir import Node, Op
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.fused import FusedAdd
from compiler.graph.ops.move import Concat, Pad
from compiler.graph.ops.pool import AveragePool, MaxPool
from compiler.graph.ops.qelementwise import QAdd, QMul, RescaledAdd, RescaledMul
from compiler.graph.ops.qmatmul import IntegerMatMul, QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.rescaled import FACTOR_BITS, scale_word
from compiler.graph.quantize.bounds import Interval, matmul_accumulator, product_peak
from compiler.graph.quantize.convolutions import bordered, is_requants
from compiler.graph.quantize.given import Grid
from compiler.graph.quantize.report import LayerReport, Method
from compiler.graph.quantize.scaling import (
    INT32_MAX,
    MAX_IMMEDIATE_SHIFT,
    SumScaling,
    Term,
    common_ratio,
    rounding,
    scale_product,
    scale_rescale,
    scale_sum,
)
from compiler.graph.quantize.values import Integers, Values

_MOST_ERROR = 1.0
"""Steps of the result; where factors are further off, the host computes in float32."""

_DROWNING = 16.0
"""How often a constant may reach as far as what it is added to."""


def matmul(values: Values, node: Node, op: ChannelMatMul) -> LayerReport | None:
    """The product of two activations. Its scale is the nearest above the calibrated one that integers express.

    None where any has a zero point.
    """
    x, w = (values.as_integers(name, node) for name in node.inputs)
    inner = values.source.types[node.inputs[0]].shape[1] // op.groups
    grid = values.grid(node.output)
    if x.zero_point or w.zero_point or grid.zero_point:
        return None
    unit, scale = x.scale * w.scale * op.scale, grid.scale
    q: IntegerMatMul
    if values.config.is_extended and values.options.multiply and grid.range == values.limits:
        q = RescaledMatMul(groups=op.groups, scale=_word(unit / scale), bits=values.config.out_bits)
    else:
        reach = matmul_accumulator(inner, x.range, w.range)
        chosen = scale_product(unit / scale, reach, multiply=values.options.multiply)
        scale = float(np.float32(unit / chosen.ratio))
        q = QMatMul(groups=op.groups, pre_shift=chosen.pre_shift, mul=chosen.mul, bias=rounding(chosen.shift),
                    shift=chosen.shift, lo=values.limits.lo, hi=values.limits.hi)
    value = values.define_integers(node, q, (x.name, w.name), replace(grid, scale=scale, range=values.limits))
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind, bits=values.config.inp_bits,
        weight_bits=values.config.wgt_bits, weight_scales=(w.scale, w.scale), input_scales=(x.scale, w.scale),
        output_scale=scale, scale_method=values.method(node.output),
    )


def add(values: Values, node: Node, op: FusedAdd) -> LayerReport | None:
    """None where shifts alone cannot scale what is added, and there is nothing else."""
    return _weighted_sum(values, node, op, (1, 1))


def _weighted_sum(values: Values, node: Node, op: FusedAdd, signs: tuple[int, int]) -> LayerReport | None:
    operands = tuple(values.as_integers(name, node) for name in node.inputs)
    grid = values.clipped(node.output, op.lo, op.hi)
    terms = tuple(
        replace(each, ratio=sign * each.ratio)
        for sign, each in zip(signs, (operand.term(grid.scale) for operand in operands), strict=False)
    )
    summed = _sum(values, node, terms, grid)
    if summed is None:
        return None
    q, shift, error = summed
    value = values.define_integers(node, q, tuple(operand.name for operand in operands), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind, bits=values.config.inp_bits,
        output_scale=grid.scale, input_scales=tuple(operand.scale for operand in operands),
        scale_method=values.method(node.output), shift=shift, error=error,
    )


def _sum(values: Values, node: Node, terms: tuple[Term, ...], grid: Grid) -> tuple[Op, int, float] | None:
    """The op that sums integers in steps of the result, its shift, and its error in these before it rounds.

    None where shifts alone are to scale them and cannot.
    """
    chosen = _evenly(values, node, near(terms, offset=grid.zero_point))
    if chosen is None and _is_rescaled(values, node, grid):
        common = common_ratio(terms)
        m0, m1 = (*common.multipliers, 0)[:2]
        word = _word(common.factor)
        bias = -sum(m * each.zero_point for m, each in zip(common.multipliers, terms, strict=True))
        rescaled = RescaledAdd(m0=m0, m1=m1, bias=bias, scale=word, **_ends(values, grid))
        return rescaled, word >> FACTOR_BITS, common.error
    even = chosen is not None
    if chosen is None:
        chosen = scale_sum(terms, offset=grid.zero_point, max_shift=_largest_shift(values, node.output))
    if not values.options.multiply:
        if not chosen.is_shifted:
            return None
        chosen = chosen.reduced
    m0, m1 = (*chosen.multipliers, 0)[:2]
    added = QAdd(m0=m0, m1=m1, bias=chosen.bias, shift=chosen.shift, lo=grid.range.lo, hi=grid.range.hi, even=even)
    return added, chosen.shift, chosen.error


def _evenly(values: Values, node: Node, chosen: SumScaling | None) -> SumScaling | None:
    """Integers of an op that rounds halves to even, as models that give their integers do; None if there are none.

    The bias is without what rounds. Halves are common where steps of a mean are those of what it averages.
    """
    if chosen is None or not chosen.has_halves or not (values.is_given(node.output) and values.options.multiply):
        return None
    reduced = chosen.reduced
    return replace(reduced, bias=reduced.bias - rounding(reduced.shift))


class _Ends(TypedDict):
    bits: int
    relu: bool
    zero_point: int


def _ends(values: Values, grid: Grid) -> _Ends:
    """How a REQUANT makes integers of a grid."""
    return {"bits": values.config.out_bits, "relu": grid.range.lo == 0, "zero_point": grid.zero_point}


def _is_rescaled(values: Values, node: Node, grid: Grid) -> bool:
    """Whether the result is a `RescaledOp`'s: the model says what it is to be, which factors of 15 bits would miss.

    They miss some integers in a thousand, by one, and every later layer adds to that.
    """
    exists = values.config.is_extended and values.options.multiply
    return exists and values.is_given(node.output) and is_requants(grid, values.limits)


def _word(factor: float) -> int:
    factors, shifts = scale_rescale(np.array([factor]))
    return scale_word(int(factors[0]), int(shifts[0]))


def subtract(values: Values, node: Node) -> LayerReport | None:
    """The difference of two activations: the second is added with a negative factor."""
    return _weighted_sum(values, node, FusedAdd(), (1, -1))


def drowns(values: Values, node: Node) -> bool:
    """Whether a constant of the sum is so large, as that of a mask, that the other operand has no steps beside it."""
    constants = [name for name in node.inputs if name in values.source.constants]
    if not constants or len(constants) == len(node.inputs):
        return False
    largest = max(float(np.abs(values.source.constants[name]).max(initial=0.0)) for name in constants)
    (other,) = (name for name in node.inputs if name not in constants)
    return largest > _DROWNING * values.scale_of(other) * values.limits.hi


def multiply(values: Values, node: Node) -> LayerReport | None:
    """The product of two activations, of which the second may have one position; None if factors are too coarse."""
    return product(values, node, *(values.as_integers(name, node) for name in node.inputs))


def product(values: Values, node: Node, a: Integers, c: Integers) -> LayerReport | None:
    """Of two activations; None if factors are too coarse, or there are none."""
    if not values.options.multiply:
        return None
    zero_points = a.zero_point, c.zero_point
    peak = product_peak(zero_points, a.range, c.range)
    if max(-peak.lo, peak.hi) > INT32_MAX:
        return None
    grid = values.grid(node.output)
    ratio = a.scale * c.scale / grid.scale
    q: QMul | RescaledMul
    if _is_rescaled(values, node, grid):
        word, error = _word(ratio), 0.0
        shift = word >> FACTOR_BITS
        q = RescaledMul(scale=word, zero_points=zero_points, **_ends(values, grid))
    else:
        products = matmul_accumulator(1, a.range.less(a.zero_point), c.range.less(c.zero_point))
        each = Term(ratio=ratio, lo=products.lo, hi=products.hi)
        chosen = near((each,), offset=grid.zero_point, max_shift=_largest_shift(values, node.output))
        if chosen is None:
            return None
        shift, error = chosen.shift, chosen.error
        q = QMul(mul=chosen.multipliers[0], bias=chosen.bias, shift=shift, lo=grid.range.lo, hi=grid.range.hi,
                 zero_points=zero_points)
    value = values.define_integers(node, q, (a.name, c.name), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind, bits=values.config.inp_bits,
        output_scale=grid.scale, input_scales=(a.scale, c.scale), scale_method=values.method(node.output),
        shift=shift, error=error,
    )


def fake_quantize(values: Values, node: Node) -> LayerReport | None:
    """A `FakeQuantize`: nothing where its input is made in its steps already, else integers scaled anew."""
    x, grid = values.as_integers(node.inputs[0], node), values.grid(node.output)
    if x.is_on(grid):
        values.same_integers(node.output, node.inputs[0])
        return None
    return add(values, node, FusedAdd())


def max_pool(values: Values, node: Node, op: MaxPool) -> LayerReport:
    return move(values, node, QMaxPool2d(kernel=op.kernel, stride=op.stride, padding=op.padding, dilation=op.dilation))


def move(values: Values, node: Node, op: Op) -> LayerReport:
    """An op that moves elements, chooses some, or makes some between them, keeps their grid."""
    x = values.as_integers(node.inputs[0], node)
    if isinstance(op, Pad):
        op = replace(op, value=float(x.zero_point))
    value = values.define_integers(node, op, (x.name,), x.grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=op.kind,
        bits=values.config.inp_bits, input_scales=(x.scale,),
        output_scale=x.scale, scale_method=Method.INHERITED,
    )


def concat(values: Values, node: Node, op: Concat) -> LayerReport | None:
    """All operands on the grid of the result: those that have another are scaled anew; None as in `add`."""
    grid = values.grid(node.output)
    given = [values.as_integers(name, node) for name in node.inputs]
    operands, errors = [], [0.0]
    anew: dict[str, Integers] = {}
    for number, x in enumerate(given):
        if x.name in anew:
            x = anew[x.name]
        elif not x.is_on(grid):
            scaled = _sum(values, node, (x.term(grid.scale),), grid)
            if scaled is None:
                return None
            q, _, error = scaled
            like = replace(node, name=f"{node.name}.{number}")
            name = values.rewriter.emit(q, (x.name,), like=like)
            anew[x.name] = Integers(name=name, grid=grid)
            x = anew[x.name]
            errors.append(error)
        operands.append(x)
    span = Interval(lo=min(x.range.lo for x in operands), hi=max(x.range.hi for x in operands))
    value = values.define_integers(node, op, tuple(x.name for x in operands), replace(grid, range=span))
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=op.kind,
        bits=values.config.inp_bits, input_scales=tuple(x.scale for x in given),
        output_scale=grid.scale, scale_method=values.method(node.output), error=max(errors),
    )


def average_pool(values: Values, node: Node, op: AveragePool) -> LayerReport | None:
    """None if the window is so large that the factors of its sums are too coarse, or shifts cannot be these factors."""
    x = values.as_integers(node.inputs[0], node)
    grid = values.grid(node.output)
    counts = op.counts(*values.source.types[node.inputs[0]].shape[2:])
    if not values.options.multiply and not values.is_given(node.output) and not values.is_linked(node.output):
        # What reads the mean takes any steps, so that these may be those of the sum, shifted.
        step = x.scale / int(counts.max())
        grid = replace(grid, scale=float(np.float32(step * 2.0 ** max(0, math.ceil(math.log2(grid.scale / step))))))
    padding = op.padding
    if op.count_include_pad:
        padding, x = bordered(values, node, padding, x)
    total = Interval(lo=x.range.lo, hi=x.range.hi).with_zero().times(op.kernel[0] * op.kernel[1])
    whole, fewest = math.lcm(*np.unique(counts).tolist()), int(counts.min())
    q: QAvgPool2d | RescaledAvgPool2d
    each = Term(ratio=x.scale / grid.scale / fewest, lo=total.lo, hi=total.hi, zero_point=x.zero_point * fewest)
    chosen = None
    if counts.max() == fewest:
        chosen = _evenly(values, node, near((each,), offset=grid.zero_point))
    even = chosen is not None
    rescales = _is_rescaled(values, node, grid) and max(-total.lo, total.hi) * (whole // fewest) <= INT32_MAX
    if chosen is None and rescales:
        word, error = _word(x.scale / grid.scale / whole), 0.0
        shift = word >> FACTOR_BITS
        factors = (whole // counts).astype(np.int32)
        q = RescaledAvgPool2d(kernel=op.kernel, stride=op.stride, padding=padding, scale=word,
                              bias=-x.zero_point * whole, **_ends(values, grid))
    else:
        if chosen is None:
            chosen = near((each,), offset=grid.zero_point, max_shift=_largest_shift(values, node.output))
        if chosen is None:
            return None
        if not values.options.multiply:
            if counts.max() != fewest or not chosen.is_shifted:
                return None
            chosen = chosen.reduced
        shift, error = chosen.shift, chosen.error
        factors = np.rint(x.scale / grid.scale / counts * (1 << shift)).astype(np.int32)
        mul = chosen.multipliers[0] if counts.max() == fewest else None
        q = QAvgPool2d(kernel=op.kernel, stride=op.stride, padding=padding, mul=mul, bias=chosen.bias,
                       shift=shift, lo=grid.range.lo, hi=grid.range.hi, even=even)
    inputs = [x.name]
    if counts.max() != fewest:
        inputs.append(values.rewriter.constant(factors, f"{node.name}.m"))
    value = values.define_integers(node, q, tuple(inputs), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind,
        bits=values.config.inp_bits, input_scales=(x.scale,),
        output_scale=grid.scale, scale_method=values.method(node.output), shift=shift, error=error,
    )


def near(
    terms: tuple[Term, ...], *, offset: float = 0.0, max_shift: int = MAX_IMMEDIATE_SHIFT
) -> SumScaling | None:
    """As `scale_sum`; None where the sum is further off than a step, or there are no such integers."""
    if not all(map(math.isfinite, (offset, *(each.ratio for each in terms)))):
        return None
    try:
        chosen = scale_sum(terms, offset=offset, max_shift=max_shift)
    except QuantizeError:
        return None
    return chosen if chosen.error <= _MOST_ERROR else None


def _largest_shift(values: Values, output: str) -> int:
    """Of a sum: as large as immediates allow, or, for a result that the model gives, as is asked for."""
    given = values.is_given(output) and values.options.multiply
    return values.options.largest_shift(given=given)
