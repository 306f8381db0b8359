"""Patches of an image as channels: how a convolution with few input channels fills the machine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, packed_tile
from compiler.graph.ops import checks
from compiler.graph.ops.window import Pair
from compiler.tensor import define_host


@dataclass(frozen=True, kw_only=True)
class Unfold(Op):
    """x int8|int16 [N,C,H,W] -> [N,KH*KW*C,OH,OW] of its type: all that a window covers, as channels of one pixel.

    ``y[n, (i*KW + j)*C + c, u, v] = x[n, c, u*stride[0] - origin[0] + i, v*stride[1] - origin[1] + j]``, or `value`
    outside of x. size: (OH, OW). A kernel that equals the stride makes it space-to-depth, one that covers a
    convolution's makes that a product of matrices (im2col).
    """

    kind: ClassVar[str] = "unfold"
    kernel: Pair
    stride: Pair
    origin: Pair
    size: Pair
    value: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        batch, channels, _, _ = checks.activation(types, *checks.QUANTISED)
        for what, pair in (("kernel", self.kernel), ("stride", self.stride), ("size", self.size)):
            checks.within(f"least {what}", min(pair), 1, max(pair))
        checks.within("least origin", min(self.origin), 0, max(self.origin))
        checks.within("value", self.value, *types[0].dtype.limits)
        return TensorType((batch, self.kernel[0] * self.kernel[1] * channels, *self.size), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0]
        taps = [self._rows(x, 2, 0, i) for i in range(self.kernel[0])]
        return np.concatenate([self._rows(rows, 3, 1, j) for rows in taps for j in range(self.kernel[1])], axis=1)

    def _rows(self, x: Array, dimension: int, axis: int, tap: int) -> Array:
        """Element `tap` of each window along one dimension of `x`."""
        at = np.arange(self.size[axis]) * self.stride[axis] - self.origin[axis] + tap
        inside = (at >= 0) & (at < x.shape[dimension])
        picked = np.take(x, np.where(inside, at, 0), axis=dimension)
        shape = [1] * x.ndim
        shape[dimension] = len(at)
        return np.where(inside.reshape(shape), picked, x.dtype.type(self.value))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x = operands[0]
        proc = define_host.unfold(
            name,
            x.image,
            packed_tile(x),
            packed_tile(result),
            kernel=self.kernel,
            stride=self.stride,
            origin=self.origin,
            size=self.size,
            dtype=x.dtype,
            value=self.value,
        )
        return Lowered(proc, (0,))
