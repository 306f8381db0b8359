"""The quantised form of each fused float op: scales, then integers, then the node."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.ir import Array, Node, Op
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import Concat, Pad
from compiler.graph.ops.pool import AveragePool, MaxPool
from compiler.graph.ops.qconv import MAX_FACTOR, QConv2d
from compiler.graph.ops.qelementwise import QAdd, QMul, RescaledAdd, RescaledMul
from compiler.graph.ops.qmatmul import IntegerMatMul, QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.rescaled import FACTOR_BITS, MAX_ZERO_POINT, RescaledConv2d, scale_word
from compiler.graph.ops.window import Quad
from compiler.graph.quantize.bounds import Interval, Ints, conv_accumulator, matmul_accumulator
from compiler.graph.quantize.given import Grid, given_weights
from compiler.graph.quantize.report import LayerReport, Method
from compiler.graph.quantize.scaling import (
    INT32_MAX,
    MAX_IMMEDIATE_SHIFT,
    ConvProblem,
    ConvScaling,
    ExactScaling,
    SumScaling,
    Term,
    common_ratio,
    residual_factors,
    rounding,
    scale_conv,
    scale_exactly,
    scale_product,
    scale_rescale,
    scale_sum,
)
from compiler.graph.quantize.values import Integers, Values, storage, symmetric

_EXACT = 2.0**-15
"""Steps of the result, by which factors for integers of a model may be off: hardly any result is rounded otherwise."""

_MOST_UNITS = float(1 << 29)
"""Largest bias, or residual, in units of an accumulator."""

_MOST_ERROR = 1.0
"""Steps of the result; where factors are further off, the host computes in float32."""

_DROWNING = 16.0
"""How often a constant may reach as far as what it is added to."""

_UNITS_WITHOUT_WEIGHTS = float(1 << 16)
"""Units of an accumulator in a step of the result, where weights do not say how many: a channel's are all zero."""


def quantize_weights(w: Array, *, bits: int, reach: int) -> tuple[Array, NDArray[np.float64]]:
    """float32 [O,C,KH,KW] -> (integers in -qmax..qmax of the same shape, float64 [O] reals per step).

    reach: largest magnitude of an activation. Where the accumulator could overflow, steps get larger, so that fewer
    integers are used. Raises QuantizeError when rounding alone could overflow it.
    """
    flat = np.abs(w.astype(np.float64).reshape(len(w), -1))
    qmax = symmetric(bits).hi
    room = INT32_MAX - flat.shape[1] * reach / 2
    if room <= 0:
        raise QuantizeError(f"an output must sum fewer than {2 * INT32_MAX // reach} products, not {flat.shape[1]}")
    scale = np.maximum(flat.max(axis=1) / qmax, flat.sum(axis=1) * reach / room)
    scale[scale == 0] = 1.0
    return round_weights(w, scale, bits), scale


def round_weights(w: Array, scale: NDArray[np.float64], bits: int) -> Array:
    """float32 [O,C,KH,KW] -> integers in -qmax..qmax, of `scale` float64 [O] reals per step."""
    qmax = symmetric(bits).hi
    steps = np.rint(w / scale.reshape(-1, 1, 1, 1))
    return np.clip(steps, -qmax, qmax).astype(storage(bits).numpy)


@dataclass(frozen=True)
class _Weights:
    """Of a convolution: float32 [O,C,KH,KW], its integers, and their float64 [O] reals per step.

    given: whether the integers are the model's, not to be made for another scale. signs: whether they are those of the
    only weight of each channel, which is a scale, where the model gives the steps of what it multiplies: sums are then
    so small that the factors behind them have all bits that there are.
    """

    real: Array
    integers: Array
    scale: NDArray[np.float64]
    given: bool = False
    signs: bool = False

    def ratio(self, x: float, y: float) -> NDArray[np.float64]:
        """Steps of the result, y each, in one of a sum of products with steps of x, [O].

        Of given weights in float32, as onnxruntime has it: that decides sums beside a tie.
        """
        if not self.given or self.signs:
            return x * self.scale / y
        return (np.float32(x) * self.scale.astype(np.float32) / np.float32(y)).astype(np.float64)


def _weights(values: Values, node: Node, x: Integers) -> _Weights:
    w, bits = values.source.constants[node.inputs[1]], values.config.wgt_bits
    given = given_weights(w, values.source.weight_scales, node.inputs[1], symmetric(bits))
    if given is not None and values.options.multiply:
        integers, scale = given
        return _Weights(w, integers.astype(storage(bits).numpy), scale, given=True)
    if w.size == len(w) and values.options.multiply and values.method(node.inputs[0]) is Method.GIVEN:
        scale = np.where(w == 0, 1.0, np.abs(w.astype(np.float64))).reshape(-1)
        return _Weights(w, np.sign(w).astype(storage(bits).numpy), scale, given=True, signs=True)
    return _Weights(w, *quantize_weights(w, bits=bits, reach=max(-x.range.lo, x.range.hi)))


def conv(values: Values, node: Node, op: FusedConv) -> LayerReport:
    x = values.as_integers(node.inputs[0], node)
    padding, x = _bordered(values, node, op.padding, x)
    op = replace(op, padding=padding)
    weights = _weights(values, node, x)
    w, w_q, w_scale = weights.real, weights.integers, weights.scale
    bias = values.source.constants[node.inputs[2]].astype(np.float64)
    grid = values.clipped(node.output, op.lo, op.hi)
    scale, span = grid.scale, grid.range
    residual = values.as_integers(node.inputs[3], node) if len(node.inputs) == 4 else None
    low, high = conv_accumulator(w_q, x.range)
    # The bias of a REQUANT is in units of the sum, which are too coarse for a sum of one sign.
    uses_requant = values.config.is_extended and values.options.multiply and not weights.signs
    if uses_requant and _is_requants(grid, values.limits):
        report = _rescaled(values, node, op, x, weights, residual, grid)
        if report is not None:
            return report
    problem = ConvProblem(
        acc_low=low,
        acc_high=high,
        factor=np.where(np.any(w_q != 0, axis=(1, 2, 3)), weights.ratio(x.scale, scale), 0.0),
        offset=(bias + _of_zero(x, w_q, w_scale)) / scale + grid.zero_point,
        lo=span.lo,
        hi=span.hi,
        levels=symmetric(values.config.wgt_bits).hi,
        given=weights.given,
        multiply=values.options.multiply,
        residual=term(residual, scale) if residual else None,
    )
    max_shift = values.options.largest_shift(given=weights.given)
    chosen = scale_conv(problem, max_shift=max_shift)
    if weights.given and chosen.error > _EXACT:
        exact = scale_exactly(problem, max_shift=max_shift)
        if exact is not None and exact.error < chosen.error:
            return _exact(values, node, op, x, weights, residual, exact, grid)
    if not weights.given:
        w_scale, w_q = _final_weights(values, w, chosen, w_scale, scale / x.scale)
        added = _of_zero(x, w_q, w_scale) - _added_mean(values, node, w, w_q, w_scale, op.groups)
        if added.any():
            problem = replace(problem, offset=(bias + added) / scale + grid.zero_point)
            chosen = scale_conv(problem, max_shift=max_shift)
            w_scale, w_q = _final_weights(values, w, chosen, w_scale, scale / x.scale)
    constants = {"w": w_q, "m": chosen.m.astype(np.int32), "b": chosen.b.astype(np.int32)}
    parameters = [values.rewriter.constant(array, f"{node.name}.{key}") for key, array in constants.items()]
    q = QConv2d(stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups,
                pre_shift=chosen.pre_shift, shift=chosen.shift, r_mul=chosen.r_mul, lo=span.lo, hi=span.hi)
    inputs = (x.name, *parameters, *([residual.name] if residual else []))
    value = values.define_integers(node, q, inputs, grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind,
        bits=values.config.inp_bits, weight_bits=values.config.wgt_bits,
        input_scales=(x.scale, *([residual.scale] if residual else [])), output_scale=scale,
        weight_scales=(float(w_scale.min()), float(w_scale.max())), scale_method=values.method(node.output),
        pre_shift=chosen.pre_shift, shift=chosen.shift, error=chosen.error,
    )


def _bordered(values: Values, node: Node, padding: Quad, x: Integers) -> tuple[Quad, Integers]:
    """No padding and an operand with a border of what stands for 0, unless that is 0 as in any padding."""
    if not x.zero_point or not any(padding):
        return padding, x
    top, left, bottom, right = padding
    pad = Pad(before=(0, 0, top, left), after=(0, 0, bottom, right), value=float(x.zero_point))
    name = values.rewriter.emit(pad, (x.name,), like=replace(node, name=f"{node.name}.border"))
    return (0, 0, 0, 0), replace(x, name=name)


def _of_zero(x: Integers, w: Array, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reals that a bias takes back, [O]: what the zero point of the activation adds to sums of products with w."""
    sums: NDArray[np.float64] = w.sum(axis=(1, 2, 3), dtype=np.float64)
    return -x.zero_point * sums * x.scale * scale


def _is_requants(grid: Grid, limits: Interval) -> bool:
    """Whether a REQUANT clips to the range of the grid, and has its zero point."""
    least = grid.range.lo == limits.lo or (grid.range.lo == 0 and not grid.zero_point)
    return least and grid.range.hi == limits.hi and abs(grid.zero_point) <= MAX_ZERO_POINT


def _final_weights(
    values: Values, w: Array, chosen: ConvScaling, w_scale: NDArray[np.float64], step: float
) -> tuple[NDArray[np.float64], Array]:
    """(reals per step of each channel, integers) that go with a multiplier and shifts. No step shrinks, so bounds hold.

    step: of the result, in those of the activation.
    """
    w_scale = np.where(chosen.m > 0, chosen.factor * step, w_scale)
    return w_scale, round_weights(w, w_scale, values.config.wgt_bits)


def _added_mean(
    values: Values, node: Node, w: Array, w_q: Array, w_scale: NDArray[np.float64], groups: int
) -> NDArray[np.float64]:
    """What the rounding of weights adds to the mean of each result, float64 [O], away from the border.

    Zeros where biases are not to take it back, or the mean of what the weights multiply is not known.
    """
    means = values.means(node.inputs[0]) if values.options.correct_bias else None
    if means is None:
        return np.zeros(len(w))
    rounding = (w_q * w_scale.reshape(-1, 1, 1, 1) - w).sum(axis=(2, 3))
    ins = rounding.shape[1]
    group = np.arange(len(w)) // (len(w) // groups)
    added: NDArray[np.float64] = (rounding * means.reshape(groups, ins)[group]).sum(axis=1)
    return added


def _rescaled(
    values: Values, node: Node, op: FusedConv, x: Integers, weights: _Weights,
    residual: Integers | None, grid: Grid,
) -> LayerReport | None:
    """A convolution for a machine whose REQUANT takes a factor of 24 bits for each channel.

    None where a residual is finer than what weights of so many bits can multiply it by, and where weights are given
    with a residual, of whose step theirs would have to be a fraction, or are too fine for the bias, or too coarse.
    """
    w, scale, w_scale = weights.real, grid.scale, weights.scale
    bias = values.source.constants[node.inputs[2]].astype(np.float64)
    zero = ~np.any(w != 0, axis=(1, 2, 3))
    # A bias is in units of the products' sum. Where these are too fine for 32 bits, weights get coarser.
    most = np.abs(bias) + np.abs(_of_zero(x, weights.integers, w_scale))
    least = most / x.scale / _MOST_UNITS
    if weights.given and (residual is not None or (w_scale < least).any()):
        return None
    if not weights.given:
        w_scale = np.maximum(np.where(zero, scale / x.scale / _UNITS_WITHOUT_WEIGHTS, w_scale), least)
    m, r_mul = np.zeros(0), 1
    if residual is not None:
        factors = residual_factors(residual.scale / (x.scale * w_scale), levels=symmetric(values.config.wgt_bits).hi)
        if factors is None:
            return None
        m, r_mul = factors
        w_scale = residual.scale / (x.scale * m * r_mul)  # not finer than before
    unit, mul = x.scale * w_scale, 1
    if weights.given:
        w_q = weights.integers
        bias = bias + _of_zero(x, w_q, w_scale)
        mul = _finer(bias / unit, unit / scale, conv_accumulator(w_q, x.range))
        unit, ratio = unit / mul, weights.ratio(x.scale, scale) / mul
        exact = bias / unit
    else:
        w_q = round_weights(w, w_scale, values.config.wgt_bits)
        added = _of_zero(x, w_q, w_scale) - _added_mean(values, node, w, w_q, w_scale, op.groups)
        exact = (bias + added) / unit
        ratio = unit / scale
        if residual is not None:
            exact = exact - residual.zero_point * m * r_mul
    factor, shift = scale_rescale(ratio)
    b = np.rint(exact)
    error = np.abs(b - exact) * ratio + np.abs(factor * 0.5**shift / ratio - 1) * (grid.range.hi - grid.zero_point)
    if weights.given and error.max() > _EXACT:
        return None
    constants = {
        "w": w_q,
        "b": b.astype(np.int32),
        "scale": np.array([scale_word(int(f), int(s)) for f, s in zip(factor, shift, strict=True)], np.int32),
    }
    inputs = [x.name, *(values.rewriter.constant(array, f"{node.name}.{key}") for key, array in constants.items())]
    if residual is not None:
        dtype = storage(values.config.wgt_bits).numpy
        inputs += [residual.name, values.rewriter.constant(m.astype(dtype), f"{node.name}.m")]
    q = RescaledConv2d(stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups,
                       bits=values.config.out_bits, relu=grid.range.lo == 0, zero_point=grid.zero_point, r_mul=r_mul,
                       mul=mul)
    value = values.define_integers(node, q, tuple(inputs), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind,
        bits=values.config.inp_bits, weight_bits=values.config.wgt_bits,
        input_scales=(x.scale, *([residual.scale] if residual else [])), output_scale=scale,
        weight_scales=(float(w_scale.min()), float(w_scale.max())), scale_method=values.method(node.output),
        shift=int(shift.max()), error=float(error.max()),
    )


def _finer(bias: NDArray[np.float64], ratio: NDArray[np.float64], reach: tuple[Ints, Ints]) -> int:
    """The power of two that sums of products must be multiplied by for biases, in their units, to be whole numbers.

    The largest that fits, if none is large enough. ratio: steps of the result in a unit.
    """
    mul = 1
    while (np.abs(np.rint(bias * mul) / mul - bias) * ratio).max(initial=0) > _EXACT / 2:
        most = (np.maximum(-reach[0], reach[1]) + np.abs(bias) + 1).max() * mul * 2
        if mul * 2 > MAX_FACTOR or most > INT32_MAX:
            break
        mul *= 2
    return mul


def _exact(
    values: Values, node: Node, op: FusedConv, x: Integers, weights: _Weights,
    residual: Integers | None, chosen: ExactScaling, grid: Grid,
) -> LayerReport:
    """A convolution whose factors, as the model gives them, have more bits than one product has room for."""
    constants = {"reach": chosen.reach, "m": chosen.m, "n": chosen.n, "b": chosen.b}
    parameters = [values.rewriter.constant(weights.integers, f"{node.name}.w")]
    for key, array in constants.items():
        parameters.append(values.rewriter.constant(array.astype(np.int32), f"{node.name}.{key}"))
    q = ExactConv2d(stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups,
                    fine=chosen.fine, shift=chosen.shift, r_mul=chosen.r_mul, lo=grid.range.lo, hi=grid.range.hi)
    operands = [x, *([residual] if residual else [])]
    inputs = (x.name, *parameters, *(operand.name for operand in operands[1:]))
    value = values.define_integers(node, q, inputs, grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind,
        bits=values.config.inp_bits, weight_bits=values.config.wgt_bits, output_scale=grid.scale,
        input_scales=tuple(operand.scale for operand in operands),
        weight_scales=(float(weights.scale.min()), float(weights.scale.max())), scale_method=values.method(node.output),
        shift=chosen.shift, error=chosen.error,
    )


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
        factor, shift = scale_rescale(np.array([unit / scale]))
        word = scale_word(int(factor[0]), int(shift[0]))
        q = RescaledMatMul(groups=op.groups, scale=word, bits=values.config.out_bits)
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
        for sign, each in zip(signs, (term(operand, grid.scale) for operand in operands), strict=False)
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
    return exists and values.is_given(node.output) and _is_requants(grid, values.limits)


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
            scaled = _sum(values, node, (term(x, grid.scale),), grid)
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
        padding, x = _bordered(values, node, padding, x)
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


def term(operand: Integers, scale: float) -> Term:
    return Term(
        ratio=operand.scale / scale, lo=operand.range.lo, hi=operand.range.hi, zero_point=operand.zero_point
    )
