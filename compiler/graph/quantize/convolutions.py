"""Convolutions in integers: weights, and what brings their sums of products to the steps of the result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.ir import Array, Node
from compiler.graph.machine import reads_own_tiles
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.fused import FusedConv
from compiler.graph.ops.move import Pad
from compiler.graph.ops.qconv import MAX_FACTOR, QConv2d
from compiler.graph.ops.rescaled import MAX_ZERO_POINT, RescaledConv2d, scale_word
from compiler.graph.ops.window import Quad
from compiler.graph.quantize.bounds import Interval, Ints, conv_accumulator
from compiler.graph.quantize.given import Grid, given_weights
from compiler.graph.quantize.report import LayerReport, Method
from compiler.graph.quantize.scaling import (
    INT32_MAX,
    ConvProblem,
    ConvScaling,
    ExactScaling,
    residual_factors,
    scale_conv,
    scale_exactly,
    scale_rescale,
)
from compiler.graph.quantize.values import Integers, Values, storage, symmetric

_EXACT = 2.0**-15
"""Steps of the result, by which factors for integers of a model may be off: hardly any result is rounded otherwise."""

_MOST_UNITS = float(1 << 29)
"""Largest bias, or residual, in units of an accumulator."""

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
    padding, x = bordered(values, node, op.padding, x)
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
    if uses_requant and is_requants(grid, values.limits):
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
        residual_levels=symmetric(values.config.wgt_bits).hi if reads_own_tiles(values.config) else 1,
        residual=residual.term(scale) if residual else None,
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


def bordered(values: Values, node: Node, padding: Quad, x: Integers) -> tuple[Quad, Integers]:
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


def is_requants(grid: Grid, limits: Interval) -> bool:
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
