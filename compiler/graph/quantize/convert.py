"""From the prepared float graph to the quantised one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from compiler.errors import MissingScaleError, QuantizeError, UnfitGridError
from compiler.graph.ir import Array, Graph, Node
from compiler.graph.machine import why_not_moved, why_not_multiplied
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.elementwise import FakeQuantize, Pointwise
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.interleave import interleaving
from compiler.graph.ops.move import ChannelTranspose, Concat, Pad, Rearrange, Slice, Take, Transpose
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.upsample import Interpolate, QInterpolate, Repeat
from compiler.graph.quantize import convolutions, functions, rules
from compiler.graph.quantize.bounds import prove
from compiler.graph.quantize.calibrate import measure
from compiler.graph.quantize.joined import WITH_INTEGERS, is_in_integers
from compiler.graph.quantize.report import LayerReport, Quantized
from compiler.graph.quantize.values import QuantizeOptions, Values
from vta_hw.spec.config import VTAConfig


def quantize(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]] | None,
    *,
    config: VTAConfig,
    options: QuantizeOptions | None = None,
) -> Quantized:
    """Quantise a graph that `pipeline.prepare` made: symmetric, weights per output channel, activations per tensor.

    batches: calibration inputs, each a mapping from input name to a float32 array of any number of images. A scale that
    the model gives, by a `FakeQuantize`, goes before what they say, and weights that it gives as integers are taken as
    they are; None will do where it gives all scales. Bits come from `config`. What has no quantised form stays float,
    between a `Dequantize` and a `Quantize`. The result is proven free of overflow. Raises QuantizeError when a layer
    cannot be kept within int32, or calibration is missing or unusable.
    """
    magnitudes = None if batches is None else measure(graph, batches)
    values = Values(graph, magnitudes, config, options or QuantizeOptions())
    reports: list[LayerReport] = []
    for node in graph.nodes:
        try:
            report = _quantize_or_keep(values, node)
        except QuantizeError as error:
            raise QuantizeError(f"Layer {node.name!r}: {error}") from None
        reports += [report] if report is not None else []
    for name in graph.outputs:
        if name in graph.producers:
            values.as_float(name, graph.producers[name])
    result = values.rewriter.finish()
    result.verify()
    peaks = prove(result)
    layers = tuple(
        replace(report, accumulator_bits=peaks[report.value].bits if report.value in peaks else None)
        for report in reports
        if report.value in result.types
    )
    grids = {name: grid for name, grid in values.grids().items() if name in result.types}
    return Quantized(graph=result, layers=layers, grids=grids)


def _quantize_or_keep(values: Values, node: Node) -> LayerReport | None:
    """As `_quantize_node`; what lacks a scale, or has integers that the machine has not, stays float.

    Not so a convolution in the middle of the network, and none that has such integers: the host would take too long.
    """
    try:
        return _quantize_node(values, node)
    except (MissingScaleError, UnfitGridError) as error:
        if _is_convolution(values, node) and (isinstance(error, UnfitGridError) or _is_between(values, node)):
            raise
        values.define_float(node)
        return None


def _is_convolution(values: Values, node: Node) -> bool:
    """Not one of a number for each channel, which may have been a product."""
    return isinstance(node.op, FusedConv) and values.source.types[node.inputs[1]].shape[1:] != (1, 1, 1)


def _is_between(values: Values, node: Node) -> bool:
    """Whether any op of integers reads the result."""
    return any(isinstance(each.op, WITH_INTEGERS) for each in values.source.nodes if node.output in each.inputs)


def _quantize_node(values: Values, node: Node) -> LayerReport | None:
    """Add the node in its quantised form, or as it is and return None."""
    shape = values.source.types[node.inputs[0]].shape
    match node.op:
        case FusedConv():
            return convolutions.conv(values, node, node.op)
        case FusedAdd() if len(shape) == 4 and not rules.drowns(values, node):
            return _or_float(values, node, rules.add(values, node, node.op))
        case FakeQuantize() if len(shape) == 4:
            source = node.inputs[0]
            if values.has_integers(source) or values.is_given(source):
                return _or_float(values, node, rules.fake_quantize(values, node))
        case MaxPool():
            return rules.max_pool(values, node, node.op)
        case AveragePool() if node.op.dilation == (1, 1):
            return _or_float(values, node, rules.average_pool(values, node, node.op))
        case GlobalAveragePool():
            window = AveragePool(kernel=(shape[2], shape[3]))
            return _or_float(values, node, rules.average_pool(values, node, window))
        case ChannelMatMul():
            types = [values.source.types[name] for name in node.inputs]
            if not why_not_multiplied(node.op, types, values.config):
                return _or_float(values, node, rules.matmul(values, node, node.op))
        case Pointwise(function="subtract") if len(shape) == 4 and _same_types(values, node):
            return _or_float(values, node, rules.subtract(values, node))
        case Pointwise(function="multiply") if len(shape) == 4 and len(node.inputs) == 2:
            if (ordered := _gated(values, node)) is not None:
                return _or_float(values, node, rules.multiply(values, ordered))
        case Pointwise():
            return _or_float(values, node, functions.function(values, node, node.op))
        case Concat() if is_in_integers(values.source, node) and any(map(values.has_integers, node.inputs)):
            return _or_float(values, node, rules.concat(values, node, node.op))
        case ChannelTranspose() | Transpose(order=(0, 1, 3, 2)) | Slice() | Take() | Pad(value=0.0) | Repeat():
            if len(shape) == 4 and values.has_integers(node.inputs[0]):
                return rules.move(values, node, node.op)
        case Rearrange() if values.has_integers(node.inputs[0]):
            found = interleaving(node.op, shape)
            if found is not None and not why_not_moved(found, shape, values.config):
                return rules.move(values, node, found)
        case Interpolate() if values.has_integers(node.inputs[0]) and values.options.multiply:
            op = QInterpolate(factors=node.op.factors)
            if not why_not_moved(op, shape, values.config):
                return rules.move(values, node, op)
    values.define_float(node)
    return None


def _or_float(values: Values, node: Node, report: LayerReport | None) -> LayerReport | None:
    """The report; without one the node stays float, unless it is the integers of another."""
    if report is None and not values.has_integers(node.output):
        values.define_float(node)
    return report


def _same_types(values: Values, node: Node) -> bool:
    """Whether the operands are computed in integers and of one type."""
    types = [values.source.types[name] for name in node.inputs]
    return types[0] == types[1] and all(values.has_integers(name) for name in node.inputs)


def _gated(values: Values, node: Node) -> Node | None:
    """The product with its larger operand first, if it is one of integers.

    That operand must be computed in integers. The other may be made for it if it has one number for each channel; to
    make integers of a whole activation costs as much on the host as the product, and is less exact.
    """
    for a, c in (node.inputs, node.inputs[::-1]):
        large, small = (values.source.types[name].shape for name in (a, c))
        gates = small == (*large[:2], 1, 1) and c not in values.source.constants
        if values.has_integers(a) and (gates or (large == small and values.has_integers(c))):
            return replace(node, inputs=(a, c))
    return None
