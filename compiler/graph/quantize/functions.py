"""The quantised form of functions that are made of straight lines: scales, then integers, then the nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Node
from compiler.graph.machine import adds_activations
from compiler.graph.ops.elementwise import Pointwise
from compiler.graph.ops.qelementwise import QAdd, QExtreme
from compiler.graph.quantize.bounds import Interval
from compiler.graph.quantize.given import Grid
from compiler.graph.quantize.report import LayerReport
from compiler.graph.quantize.rules import near, product
from compiler.graph.quantize.values import Integers, Values

_HARD_SWISH = 1 / 6, 0.5
"""Slope and offset of the gate of a HardSwish."""


def function(values: Values, node: Node, op: Pointwise) -> LayerReport | None:
    """A function of activations that are computed in integers, [N,C,H,W], by the integers of the accelerator.

    None where it has none: for other functions and operands, and where factors are too coarse.
    """
    types = [values.source.types[name] for name in node.inputs]
    alike = len(types[0].shape) == 4 and types[0] == values.source.types[node.output]
    if not (alike and values.has_integers(node.inputs[0]) and adds_activations(values.config)):
        return None
    match op.function:
        case "negative":
            return _line(values, node, -1.0, 0.0)
        case "hard_sigmoid":
            return _line(values, node, *op.parameters, lo=0.0, hi=1.0)
        case "hard_swish" if values.options.multiply:
            return _hard_swish(values, node)
        case "abs":
            return _bend(values, node, np.array([-1.0]))
        case "leaky_relu":
            return _bend(values, node, np.array(op.parameters))
        case "prelu":
            slopes = values.source.constants.get(node.inputs[1])
            if slopes is not None and (slopes.size == 1 or slopes.shape[-3:] == (slopes.size, 1, 1)):
                return _bend(values, node, slopes.reshape(-1).astype(np.float64))
        case "maximum" | "minimum" if len(types) == 2 and types[0] == types[1] and values.has_integers(node.inputs[1]):
            return _extreme(values, node, node.inputs, np.ones(1), least=op.function == "minimum")
    return None


def _line(
    values: Values, node: Node, slope: float, offset: float, *, lo: float = -math.inf, hi: float = math.inf
) -> LayerReport | None:
    """clip(x * slope + offset, lo, hi)."""
    x = values.as_integers(node.inputs[0], node)
    grid = values.clipped(node.output, lo, hi)
    line = x.term(grid.scale)
    chosen = near((replace(line, ratio=slope * line.ratio),), offset=offset / grid.scale + grid.zero_point)
    if chosen is None or not (values.options.multiply or chosen.is_shifted):
        return None
    chosen = chosen.reduced
    q = QAdd(m0=chosen.multipliers[0], bias=chosen.bias, shift=chosen.shift, lo=grid.range.lo, hi=grid.range.hi)
    value = values.define_integers(node, q, (x.name,), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind, bits=values.config.inp_bits,
        input_scales=(x.scale,), output_scale=grid.scale, scale_method=values.method(node.output), shift=chosen.shift,
        error=chosen.error,
    )


def _bend(values: Values, node: Node, slopes: NDArray[np.float64]) -> LayerReport | None:
    """x from 0 on, and left of it x times a slope, [1] or [C] of them; None where some exceed 1, and others do not."""
    steep = slopes > 1
    if steep.any() and not steep.all():
        return None
    return _extreme(values, node, node.inputs[:1], slopes, least=bool(steep.all()))


def _extreme(
    values: Values, node: Node, names: tuple[str, ...], slopes: NDArray[np.float64], *, least: bool
) -> LayerReport | None:
    """The larger or smaller of the first activation, and of the last times slopes, one, or one for each channel."""
    operands = [values.as_integers(name, node) for name in names]
    grid = values.grid(node.output)
    first, last = operands[0].term(grid.scale).centred, operands[-1].term(grid.scale).centred
    steepest = replace(last, ratio=float(slopes[np.abs(slopes).argmax()]) * last.ratio)
    chosen = near((first, steepest), offset=grid.zero_point)
    if chosen is None or not (values.options.multiply or (chosen.is_shifted and len(slopes) == 1)):
        return None
    inputs, error = [operand.name for operand in operands], chosen.error
    if len(slopes) > 1:
        exact = slopes * last.ratio * (1 << chosen.shift)
        factors = np.rint(exact).astype(np.int32)
        error += float(np.abs(factors - exact).max()) / (1 << chosen.shift) * max(-last.lo, last.hi)
        inputs.append(values.rewriter.constant(factors, f"{node.name}.m"))
        m0, m1 = chosen.multipliers[0], None
    else:
        chosen = chosen.reduced
        m0, m1 = chosen.multipliers
    q = QExtreme(m0=m0, m1=m1, bias=chosen.bias, shift=chosen.shift, lo=grid.range.lo, hi=grid.range.hi, least=least,
                 zero_points=(operands[0].zero_point, operands[-1].zero_point))
    value = values.define_integers(node, q, tuple(inputs), grid)
    return LayerReport(
        value=value, source=node.output, node=node.name, kind=q.kind, bits=values.config.inp_bits,
        input_scales=tuple(operand.scale for operand in operands), output_scale=grid.scale,
        scale_method=values.method(node.output), shift=chosen.shift, error=error,
    )


def _hard_swish(values: Values, node: Node) -> LayerReport | None:
    """x times its gate, which has steps of its own: no activation opens it further than the largest of them reach."""
    x, (slope, offset) = values.as_integers(node.inputs[0], node), _HARD_SWISH
    reach = x.range.less(x.zero_point)
    scale = min(1.0, reach.hi * x.scale * slope + offset) / values.limits.hi
    line = x.term(scale)
    gate = near((replace(line, ratio=slope * line.ratio),), offset=offset / scale)
    if gate is None:
        return None
    opened = Interval(lo=0, hi=min(round(1 / scale), values.limits.hi))
    q = QAdd(m0=gate.multipliers[0], bias=gate.bias, shift=gate.shift, lo=opened.lo, hi=opened.hi)
    name = values.rewriter.emit(q, (x.name,), like=replace(node, name=f"{node.name}.gate"))
    report = product(values, node, x, Integers(name=name, grid=Grid(scale=scale, range=opened)))
    if report is None:
        return None
    farthest = max(-reach.lo, reach.hi) * x.scale / report.output_scale
    return replace(report, error=report.error + (gate.error + 0.5) * scale * farthest)
