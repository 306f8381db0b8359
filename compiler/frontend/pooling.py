"""ONNX pools. Semantics: the ONNX operator specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from compiler.errors import FrontendError
from compiler.frontend.importer import Converter, Importer, OnnxNode
from compiler.frontend.windows import UNIT, pool_axes, window_of
from compiler.graph.ir import Op
from compiler.graph.ops.pool import AveragePool, MaxPool
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.window import Window


def _max_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    node.attributes.integer("storage_order", 0)  # concerns only the indices, an output that is refused
    _pool(importer, node, lambda w: MaxPool(kernel=w.kernel, stride=w.stride, padding=w.padding, dilation=w.dilation))


def _average_pool(importer: Importer, node: OnnxNode) -> None:
    node.require(1, 1)
    include = bool(node.attributes.integer("count_include_pad", 0, low=0, high=1))

    def op(w: Window) -> Op:
        return AveragePool(
            kernel=w.kernel, stride=w.stride, padding=w.padding, dilation=w.dilation, count_include_pad=include
        )

    if _pool(importer, node, op) and include:
        raise FrontendError("attribute 'ceil_mode' must be 0 when padding counts and the last window is not whole")


def _pool(importer: Importer, node: OnnxNode, op: Callable[[Window], Op]) -> bool:
    """Add the pool of [N,C,...]; gives whether ceil_mode made a window larger.

    Maxima and means of rectangles are those of columns of those of rows: a volume is pooled in two steps.
    """
    shape = importer.shape(node, 0)
    if len(shape) not in (3, 4, 5):
        raise FrontendError(f"input must have rank 3 to 5, not shape {list(shape)}")
    axes, rounded_up = pool_axes(node, shape[2:])
    value = importer.value(node, 0)
    if len(shape) == 4:
        importer.emit(node, op(window_of(*axes)), (value,))
        return rounded_up
    batch, channels, *sizes = shape
    depth = sizes[0] if len(sizes) == 3 else 1
    rows, columns = (sizes[1], sizes[2]) if len(sizes) == 3 else (1, sizes[0])

    def reshaped(value: str, shape: tuple[int, ...], *, last: bool = False) -> str:
        return importer.emit(node, Reshape(shape=shape), (value,), last=last)

    value = reshaped(value, (batch, channels * depth, rows, columns))
    value = importer.emit(node, op(window_of(*[UNIT] * (2 - len(axes)), *axes[-2:])), (value,), last=False)
    _, _, rows, columns = importer.shape_of(value)
    if len(sizes) == 1:
        reshaped(value, (batch, channels, columns), last=True)
        return rounded_up
    value = reshaped(value, (batch, channels, depth, rows * columns))
    value = importer.emit(node, op(window_of(axes[0], UNIT)), (value,), last=False)
    reshaped(value, (batch, channels, importer.shape_of(value)[2], rows, columns), last=True)
    return rounded_up


POOLING: Final[Mapping[str, Converter]] = MappingProxyType({"AveragePool": _average_pool, "MaxPool": _max_pool})
