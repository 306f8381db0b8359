"""Softmax whose every rounding is defined, so that numpy, the tensor-IR interpreter and LLVM agree bit for bit.

All arithmetic is IEEE float32, one rounding per operation, nothing fused. x is the input, i the index along the axis:

    m = x[0]; for i = 1, 2, ...: m = max(m, x[i])
    s = 0;    for i = 0, 1, ...: s = s + exp32(x[i] - m)
    y[i] = exp32(x[i] - m) / s

exp32(x), for x <= 0, by range reduction to |r| <= ln(2)/2 and the Taylor series to degree 7 (next term below 6e-9):

    t = max(x, EXP_MIN)                        # keeps 2^n and the result normal numbers
    n = rint(t * LOG2_E)                       # ties to even
    r = (t - n * LN2_HI) - n * LN2_LO          # LN2_HI has 9 significant bits: n * LN2_HI is exact
    p = C7; for k = 6, 5, ..., 0: p = p * r + Ck    (a multiplication, then an addition)
    exp32 = p * bitcast_float32((int32(n) + 127) << 23)

Below EXP_MIN = -87 exp32 stays at exp(-87) = 1.6e-38 instead of falling to zero. Inputs must be finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops import checks
from compiler.tensor import define_host
from compiler.tensor.ir import DType

EXP_MIN = -87.0
LOG2_E = float(np.float32(math.log2(math.e)))
LN2_HI = 355 / 512
LN2_LO = float(np.float32(math.log(2) - LN2_HI))
COEFFICIENTS = tuple(float(np.float32(1 / math.factorial(k))) for k in range(8))
"""C0..C7 = 1/k!, rounded to float32."""
EXPONENT_BIAS = 127
MANTISSA_BITS = 23


def exp32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp of float32 values that are at most 0, exactly as the module's docstring says."""
    f32 = np.float32
    t = np.maximum(x, f32(EXP_MIN))
    n: NDArray[np.float32] = np.rint(t * f32(LOG2_E))
    r = (t - n * f32(LN2_HI)) - n * f32(LN2_LO)
    p: NDArray[np.float32] = np.full_like(r, f32(COEFFICIENTS[7]))
    for coefficient in COEFFICIENTS[6::-1]:
        p = p * r + f32(coefficient)
    power = ((n.astype(np.int32) + np.int32(EXPONENT_BIAS)) << np.int32(MANTISSA_BITS)).view(np.float32)
    result: NDArray[np.float32] = p * power
    return result


@dataclass(frozen=True, kw_only=True)
class Softmax(Op):
    """float32 -> float32 of the same shape, normalised along `axis` (negative counts from the end)."""

    kind: ClassVar[str] = "softmax"
    axis: int = -1

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.dtype("input", types[0], DType.FLOAT32)
        rank = len(types[0].shape)
        checks.within("axis", self.axis, -rank, rank - 1)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        rows = np.moveaxis(arrays[0].astype(np.float32, copy=False), self.axis, 0)
        largest: Array = rows[0]
        for row in rows[1:]:
            largest = np.maximum(largest, row)
        powers = exp32(np.ascontiguousarray(rows - largest))
        total = np.zeros_like(largest)
        for power in powers:
            total = total + power
        return np.ascontiguousarray(np.moveaxis(powers / total, 0, self.axis))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        shape = result.shape
        axis = self.axis % len(shape)
        exp = define_host.ExpConstants(
            least=EXP_MIN,
            log2_e=LOG2_E,
            ln2_high=LN2_HI,
            ln2_low=LN2_LO,
            coefficients=COEFFICIENTS,
            exponent_bias=EXPONENT_BIAS,
            mantissa_bits=MANTISSA_BITS,
        )
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        return Lowered(define_host.softmax(name, outer, shape[axis], inner, exp), (0,))
