"""Float convolution, dense layer and products of matrices.

The references sum in float64 and round once, so that calibration does not depend on the order of a BLAS; what is
compiled sums in float32, and agrees within rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError, LoweringError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor import define_blocked, define_float
from compiler.tensor.define_blocked import Matrices
from compiler.tensor.ir import DType


def pack_columns(b: Array, m: Matrices) -> Array:
    """B [K,N] as the W of `define_blocked.Matrices`."""
    blocks = -(-m.columns // define_blocked.BLOCK)
    full = np.zeros((m.padded, blocks * define_blocked.BLOCK), b.dtype)
    full[: m.inner, : m.columns] = b
    return np.ascontiguousarray(full.reshape(m.padded, blocks, define_blocked.BLOCK).swapaxes(0, 1))


def convolve(x: Array, w: Array, window: Window, groups: int = 1) -> Array:
    """x [N,C,H,W], w [O,C/groups,KH,KW] -> [N,O,OH,OW] in the dtype of x, cross-correlation, padding is zero."""
    batch, channels, *size = x.shape
    outs = w.shape[0]
    height, width = window.output(*size)
    grouped_w = w.reshape(groups, outs // groups, channels // groups, *w.shape[2:])
    result = np.zeros((batch, groups, outs // groups, height * width), x.dtype)
    if 1 < channels // groups < _FEW:
        matrix = grouped_w.transpose(0, 1, 3, 4, 2).reshape(groups, outs // groups, -1)
        for image in range(batch):
            taps = [tap.reshape(groups, channels // groups, -1) for *_, tap in window.taps(x[image : image + 1], 0)]
            np.matmul(matrix, np.concatenate(taps, axis=1), out=result[image])
        return result.reshape(batch, outs, height, width)
    for row, column, tap in window.taps(x, 0):
        columns = tap.reshape(batch, groups, channels // groups, height * width)
        weights = grouped_w[:, :, :, row, column]
        result += weights * columns if channels == groups else weights @ columns
    return result.reshape(batch, outs, height, width)


_FEW = 16
"""Channels that are too few for one tap to be worth a product of matrices; that of all taps together is."""


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """x float32 [N,C,H,W], w float32 [O,C/groups,KH,KW], optional bias float32 [O] -> float32 [N,O,OH,OW]."""

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

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, w, y = (operand.image for operand in (*operands[:2], result))
        source = define_float.Windowed(x, self.window(TensorType(w, DType.FLOAT32)))
        proc = define_float.conv2d(name, source, w, y, self.groups, bias=len(operands) == 3)
        return Lowered(proc, tuple(range(len(operands))))


@dataclass(frozen=True, kw_only=True)
class Dense(Op):
    """x float32 [N,I], w float32 [O,I], optional bias float32 [O] -> x w^T + bias, float32 [N,O]."""

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

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        images, ins = operands[0].shape
        w, outs, biased = operands[1].value, result.shape[1], len(operands) == 3
        packed = w is not None
        m = Matrices(rows=images, inner=ins, columns=outs, packed=packed, transposed=not packed, bias=biased)
        weights = 1 if w is None else pack_columns(w.T, m)
        return Lowered(define_blocked.matmul(name, m), (0, weights, *((2,) if biased else ())))


@dataclass(frozen=True, kw_only=True)
class MatMul(Op):
    """a float32 [...,M,K], b float32 [...,K,N] -> float32 [...,M,N]; the dimensions in front broadcast."""

    kind: ClassVar[str] = "matmul"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2)
        for what, t in zip(("first operand", "second operand"), types, strict=True):
            checks.dtype(what, t, DType.FLOAT32)
            if len(t.shape) < 2:
                raise GraphError(f"{what} must have rank 2 or more, not {t}")
        a, b = (t.shape for t in types)
        if a[-1] != b[-2]:
            raise GraphError(f"rows of the second operand must be {a[-1]}, the columns of the first, not {b[-2]}")
        batch = checks.broadcast([TensorType(shape[:-2], DType.FLOAT32) for shape in (a, b)])
        return TensorType((*batch, a[-2], b[-1]), DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        a, b = (array.astype(np.float64) for array in arrays)
        return np.asarray(a @ b).astype(np.float32)

    def macs(self, types: Sequence[TensorType]) -> int:
        return math.prod(self.infer(types).shape) * types[0].shape[-1]

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        a, b = (operand.shape for operand in operands)
        if 0 in (*a, *b):
            raise LoweringError(f"Product of {a} and {b} must have no dimension of 0")
        value = operands[1].value if math.prod(b[:-2]) == 1 else None
        m = Matrices(
            rows=a[-2],
            inner=a[-1],
            columns=b[-1],
            batch=result.shape[:-2],
            a=a[:-2],
            b=b[:-2],
            packed=value is not None,
        )
        if value is not None and m.a == m.batch:  # the rows of all are those of one
            m = replace(m, rows=math.prod(a[:-1]), batch=(), a=(), b=())
        weights = 1 if value is None else pack_columns(value.reshape(b[-2:]), m)
        return Lowered(define_blocked.matmul(name, m), (0, weights))


@dataclass(frozen=True, kw_only=True)
class ChannelMatMul(Op):
    """x float32 [N,G*K,H,W], w float32 [N,G*K,P,Q] -> y float32 [N,G*P*Q,H,W]: within each of G groups of channels

        y[o,h,w] = scale * sum over k of w[k,o] * x[k,h,w]

    where o counts the positions of w. scale is a float32 value. It is a 1x1 convolution whose weights are computed, and
    differ between images and groups: what products of two activations are where channels come before positions.
    """

    kind: ClassVar[str] = "channel_matmul"
    groups: int = 1
    scale: float = 1.0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        return channel_product(types, self.groups, DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        x, w = (array.astype(np.float64) for array in arrays)
        return (multiply_channels(x, w, self.groups) * self.scale).astype(np.float32)

    def macs(self, types: Sequence[TensorType]) -> int:
        return math.prod(self.infer(types).shape) * types[0].shape[1] // self.groups

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        batch, channels = operands[0].shape[:2]
        columns, positions = (math.prod(operand.shape[2:]) for operand in operands)
        products, inner = batch * self.groups, channels // self.groups
        return Lowered(define_float.matmul_columns(name, (products, inner, columns), positions, self.scale), (0, 1))


def channel_product(types: Sequence[TensorType], groups: int, *dtypes: DType) -> TensorType:
    """Type of the product of two images of the same channels. Raises GraphError."""
    checks.count(types, 2)
    batch, channels, *size = checks.activation(types, *dtypes)
    checks.rank("second operand", types[1], 4)
    checks.groups(groups, channels, channels)
    checks.same("second operand", types[1], TensorType((batch, channels, *types[1].shape[2:]), types[0].dtype))
    return TensorType((batch, groups * math.prod(types[1].shape[2:]), *size), types[0].dtype)


def multiply_channels(x: Array, w: Array, groups: int) -> Array:
    """The product in the dtype of the operands."""
    batch, channels, *size = x.shape
    columns, positions = (each.reshape(batch, groups, channels // groups, -1) for each in (x, w))
    return np.asarray(positions.swapaxes(2, 3) @ columns).reshape(batch, -1, *size)
