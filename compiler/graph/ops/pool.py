"""Float pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor import define_blocked, define_float
from compiler.tensor.ir import NUMBERS, DType
from compiler.tensor.tiles import Weighted


def pooled(types: Sequence[TensorType], window: Window, *dtypes: DType) -> TensorType:
    """Result of pooling the first input. Raises GraphError when a window lies wholly in the padding."""
    batch, channels, height, width = checks.activation(types, *dtypes)
    size = window.output(height, width)
    if any(window.padding) and not window.covered(height, width).all():
        raise GraphError(
            f"padding {window.padding} must leave each {window.kernel[0]}x{window.kernel[1]} window "
            "an element of the input, not none"
        )
    return TensorType((batch, channels, *size), types[0].dtype)


def blocked(x: Placed, window: Window) -> Weighted:
    """An input in blocks of channels, each read by the block of results at its own place."""
    return Weighted(x=x.in_blocks(), window=window, weight=x.dtype, blockwise=True)


@dataclass(frozen=True, kw_only=True)
class MaxPool(Op):
    """Numbers [N,C,H,W] -> largest value of each window, padding ignored."""

    kind: ClassVar[str] = "max_pool"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    @property
    def window(self) -> Window:
        return Window(kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return pooled(types, self.window, *NUMBERS)

    def reference(self, *arrays: Array) -> Array:
        t = self.infer([TensorType.of(arrays[0])])
        least = define_float.neutral(define_float.Reduction.MAX, t.dtype).value
        result = np.full(t.shape, least, arrays[0].dtype)
        for _, _, tap in self.window.taps(arrays[0], least):
            np.maximum(result, tap, out=result)
        return result

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if result.tile is not None:
            return Lowered(define_blocked.max_pool2d(name, blocked(operands[0], self.window), result.in_blocks()), (0,))
        source = define_float.Windowed(operands[0].image, self.window)
        return Lowered(define_float.max_pool(name, source, result.image, result.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class AveragePool(Op):
    """float32 [N,C,H,W] -> mean of each window; padding counts as zeros when `count_include_pad`, else not at all."""

    kind: ClassVar[str] = "average_pool"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    count_include_pad: bool = False

    @property
    def window(self) -> Window:
        return Window(kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return pooled(types, self.window, DType.FLOAT32)

    def counts(self, height: int, width: int) -> Array:
        """int32 [OH,OW]: the divisor at each position of the result."""
        covered = self.window.covered(height, width)
        return np.full_like(covered, math.prod(self.kernel)) if self.count_include_pad else covered

    def reference(self, *arrays: Array) -> Array:
        total = np.zeros(self.infer([TensorType.of(arrays[0])]).shape)
        for _, _, tap in self.window.taps(arrays[0].astype(np.float64), 0):
            total += tap
        mean: Array = total / self.counts(*arrays[0].shape[2:])
        return mean.astype(np.float32)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x = operands[0].image
        counts = self.counts(*x[2:]).astype(np.float32)
        if result.tile is not None:
            source = blocked(operands[0], self.window)
            return Lowered(define_blocked.average_pool2d(name, source, result.in_blocks()), (0, counts))
        proc = define_float.average_pool(name, define_float.Windowed(x, self.window), result.image)
        return Lowered(proc, (0, counts))


@dataclass(frozen=True, kw_only=True)
class GlobalAveragePool(Op):
    """float32 [N,C,H,W] -> mean over H and W, [N,C,1,1]."""

    kind: ClassVar[str] = "global_average_pool"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        batch, channels, _, _ = checks.activation(types, DType.FLOAT32)
        return TensorType((batch, channels, 1, 1), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        mean: Array = arrays[0].mean(axis=(2, 3), dtype=np.float64, keepdims=True)
        return mean.astype(np.float32)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        if result.tile is not None:
            whole = AveragePool(kernel=(operands[0].image[2], operands[0].image[3]))
            return whole.lower(name, operands, result, blocks)
        along = define_float.Along.of(operands[0].shape, 2, 4)
        return Lowered(define_float.reduce(name, along, define_float.Reduction.MEAN), (0,))
