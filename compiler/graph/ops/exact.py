"""Convolution that is requantised in two steps, as exactly as a factor of REQUANT does it, on TVM's instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, pack_channels
from compiler.graph.ops import checks
from compiler.graph.ops.qconv import MAX_INT32, IntegerConv, clip_to, wrap32
from compiler.tensor import define
from compiler.tensor.ir import DType


@dataclass(frozen=True, kw_only=True)
class ExactConv2d(IntegerConv):
    """x int8|int16 [N,C,H,W], w int8|int16 [O,C/groups,KH,KW], and reach, m, n, b int32 [O], optional r of the result's
    type:

        acc = min(max(conv(x, w), -reach[o]), reach[o])                       (padding is zero)
        y   = clip((acc * m[o] + ((acc * n[o]) >> fine) + b[o] + r * r_mul) >> shift, lo, hi)       [N,O,OH,OW]

    Every step is int32 and wraps; >> is arithmetic. ``m + n / 2**fine`` is a factor with twice the bits that one
    product has room for; sums beyond `reach`, whose results are clipped anyway, take none of that room.
    """

    kind: ClassVar[str] = "exact_conv2d"
    fine: int
    shift: int
    r_mul: int = 0
    lo: int
    hi: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 6, 7)
        x, w = types[:2]
        result = self.result(x, w)
        for what, t in zip(("reach", "factor m", "factor n", "bias b"), types[2:6], strict=True):
            checks.same(what, t, TensorType((w.shape[0],), DType.INT32))
        checks.within("fine", self.fine, 0, 31)
        checks.within("shift", self.shift, 0, 31)
        checks.within("r_mul", self.r_mul, -MAX_INT32, MAX_INT32)
        checks.clip_range(self.lo, self.hi, x.dtype)
        if len(types) == 7:
            checks.same("residual", types[6], result)
        elif self.r_mul:
            raise GraphError(f"r_mul must be 0 without a residual, not {self.r_mul}")
        return result

    def reference(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        reach, m, n, b = (array.reshape(1, -1, 1, 1) for array in arrays[2:6])
        acc = np.minimum(np.maximum(wrap32(self.products(x, w)), -reach), reach)
        acc = acc * m + ((acc * n) >> np.int32(self.fine)) + b
        if len(arrays) == 7:
            acc = acc + arrays[6].astype(np.int32) * np.int32(self.r_mul)
        return clip_to(acc >> np.int32(self.shift), self.lo, self.hi, x)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        source, y, weights = self.weighted(operands, result, blocks)
        reach, *others = (operand.constant() for operand in operands[2:6])
        residual = len(operands) == 7
        numbers = [-reach, reach, *others, *([np.full_like(reach, self.r_mul)] if residual else [])]
        packed = np.stack([pack_channels(each, y) for each in numbers], axis=2)
        proc = define.exact_conv2d(
            name, source, y, fine=self.fine, shift=self.shift, low=self.lo, high=self.hi, residual=residual
        )
        return Lowered(proc, (0, *weights, np.ascontiguousarray(packed), *([6] if residual else [])))
