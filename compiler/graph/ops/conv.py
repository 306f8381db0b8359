"""Float convolution and dense layer, as imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.ops import checks
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor.ir import DType


def convolve(x: Array, w: Array, window: Window, groups: int = 1) -> Array:
    """x [N,C,H,W], w [O,C/groups,KH,KW] -> [N,O,OH,OW] in the dtype of x, cross-correlation, padding is zero."""
    batch, channels, *size = x.shape
    outs = w.shape[0]
    height, width = window.output(*size)
    grouped_w = w.reshape(groups, outs // groups, channels // groups, *w.shape[2:])
    result = np.zeros((batch, groups, outs // groups, height * width), x.dtype)
    for row, column, tap in window.taps(x, 0):
        columns = tap.reshape(batch, groups, channels // groups, height * width)
        result += grouped_w[:, :, :, row, column] @ columns
    return result.reshape(batch, outs, height, width)


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """x float32 [N,C,H,W], w float32 [O,C/groups,KH,KW], optional bias float32 [O] -> float32 [N,O,OH,OW].

    The reference sums in float64 and rounds once, so that calibration does not depend on the order of a BLAS.
    """

    kind: ClassVar[str] = "conv"
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def window(self, w: TensorType) -> Window:
        kernel = w.shape[2], w.shape[3]
        return Window(kernel=kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2, 3)
        batch, channels, height, width = checks.activation(types, DType.FLOAT32)
        x, w = types[:2]
        checks.rank("weight", w, 4)
        outs = w.shape[0]
        checks.groups(self.groups, channels, outs)
        checks.same("weight", w, TensorType((outs, channels // self.groups, *w.shape[2:]), DType.FLOAT32))
        if len(types) == 3:
            checks.same("bias", types[2], TensorType((outs,), DType.FLOAT32))
        return TensorType((batch, outs, *self.window(w).output(height, width)), x.dtype)

    def reference(self, *arrays: Array) -> Array:
        x, w = (array.astype(np.float64) for array in arrays[:2])
        y = convolve(x, w, self.window(TensorType.of(arrays[1])), self.groups)
        if len(arrays) == 3:
            y += arrays[2].astype(np.float64).reshape(1, -1, 1, 1)
        return y.astype(np.float32)

    def macs(self, types: Sequence[TensorType]) -> int:
        return math.prod(self.infer(types).shape) * math.prod(types[1].shape[1:])


@dataclass(frozen=True, kw_only=True)
class Dense(Op):
    """x float32 [N,I], w float32 [O,I], optional bias float32 [O] -> x w^T + bias, float32 [N,O].

    The reference sums in float64, as `Conv`.
    """

    kind: ClassVar[str] = "dense"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2, 3)
        x, w = types[:2]
        checks.rank("input", x, 2)
        checks.dtype("input", x, DType.FLOAT32)
        checks.rank("weight", w, 2)
        checks.same("weight", w, TensorType((w.shape[0], x.shape[1]), DType.FLOAT32))
        if len(types) == 3:
            checks.same("bias", types[2], TensorType((w.shape[0],), DType.FLOAT32))
        return TensorType((x.shape[0], w.shape[0]), x.dtype)

    def reference(self, *arrays: Array) -> Array:
        x, w, *bias = (array.astype(np.float64) for array in arrays)
        return (x @ w.T + (bias[0] if bias else 0)).astype(np.float32)

    def macs(self, types: Sequence[TensorType]) -> int:
        return types[0].shape[0] * math.prod(types[1].shape)
