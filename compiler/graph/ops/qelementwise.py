"""Quantised addition, multiplication and choice, and the ways between float32 and the quantised types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, pack_channels, pack_numbers, packed_tile
from compiler.graph.ops import checks
from compiler.graph.ops.qconv import MAX_FACTOR, MAX_INT32, clip_to, is_wide, shifted
from compiler.graph.ops.rescaled import RescaledOp
from compiler.tensor import define, define_host
from compiler.tensor.ir import BinaryOp, DType


@dataclass(frozen=True, kw_only=True)
class QAdd(Op):
    """a, optional c, both int8|int16 [N,C,H,W] of one type -> y = clip((a * m0 + c * m1 + bias) >> shift, lo, hi).

    Every step is int32 and wraps. m0, m1 and bias are immediates if all have 15 bits and a sign, else a machine loads
    them. With one operand it rescales and clips. even: the quotient is rounded, halves to even, instead of cut.
    """

    kind: ClassVar[str] = "qadd"
    m0: int
    m1: int = 0
    bias: int = 0
    shift: int = 0
    lo: int
    hi: int
    even: bool = False

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1, 2)
        checks.activation(types, *checks.QUANTISED)
        for what, value in (("m0", self.m0), ("m1", self.m1), ("bias", self.bias)):
            checks.within(what, value, -MAX_INT32, MAX_INT32)
        checks.right_shift(self.shift, even=self.even)
        checks.clip_range(self.lo, self.hi, types[0].dtype)
        if len(types) == 2:
            checks.same("second operand", types[1], types[0])
        elif self.m1:
            raise GraphError(f"m1 must be 0 without a second operand, not {self.m1}")
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        acc = arrays[0].astype(np.int32) * np.int32(self.m0)
        if len(arrays) == 2:
            acc = acc + arrays[1].astype(np.int32) * np.int32(self.m1)
        acc = shifted(acc + np.int32(self.bias), self.shift, even=self.even)
        return clip_to(acc, self.lo, self.hi, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        y = result.tiled(blocks.block_out, blocks.batch)
        multipliers = (self.m0, self.m1)[: len(operands)]
        wide = is_wide(*multipliers, self.bias)
        proc = define.combine(
            name, y, multipliers, self.bias, self.shift, self.lo, self.hi, even=self.even, wide=wide
        )
        return Lowered(proc, (*range(len(operands)), *([pack_numbers((*multipliers, self.bias), y)] if wide else [])))


@dataclass(frozen=True, kw_only=True)
class RescaledAdd(RescaledOp):
    """a, optional c, both int8|int16 [N,C,H,W] of one type -> a * m0 + c * m1, int32, scaled as `RescaledOp` says.

    m0 and m1 have 15 bits and a sign.
    """

    kind: ClassVar[str] = "rescaled_add"
    m0: int
    m1: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        for what, value in (("m0", self.m0), ("m1", self.m1)):
            checks.within(what, value, -MAX_FACTOR, MAX_FACTOR)
        result = QAdd(m0=self.m0, m1=self.m1, lo=0, hi=0).infer(types)
        self.check_scale(result)
        return result

    def reference(self, *arrays: Array) -> Array:
        factors = (self.m0, self.m1)
        total = sum(array.astype(np.int32) * np.int32(m) for array, m in zip(arrays, factors, strict=False))
        return self.rescaled(np.asarray(total), arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        y = result.tiled(blocks.block_out, blocks.batch)
        proc = define.rescaled_add(name, y, (self.m0, self.m1)[: len(operands)], self.definition)
        return Lowered(proc, (*range(len(operands)), self.pairs(y)))


@dataclass(frozen=True, kw_only=True)
class QExtreme(Op):
    """a, optional c, both int8|int16 [N,C,H,W] of one type -> clip((max(a * m0, c * m1) + bias) >> shift, lo, hi).

    least: min instead of max. Without c it is a, so that two lines meet at 0: a leaky ReLU. zero_points: taken off a
    and c. m1 is either the attribute,
    or None and then of each channel the element of a parameter behind a, int32 [C].
    Every step is int32 and wraps. The attributes m0, m1 and bias have 15 bits and a sign.
    """

    kind: ClassVar[str] = "qextreme"
    m0: int
    m1: int | None
    bias: int = 0
    shift: int = 0
    lo: int
    hi: int
    least: bool = False
    zero_points: tuple[int, int] = (0, 0)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, *((2,) if self.m1 is None else (1, 2)))
        _, channels, _, _ = checks.activation(types, *checks.QUANTISED)
        for what, value in (("m0", self.m0), ("m1", self.m1 or 0), ("bias", self.bias)):
            checks.within(what, value, -MAX_FACTOR, MAX_FACTOR)
        checks.zero_points(self.zero_points, types[0].dtype)
        checks.within("shift", self.shift, 0, 31)
        checks.clip_range(self.lo, self.hi, types[0].dtype)
        if self.m1 is None:
            checks.same("factor m", types[1], TensorType((channels,), DType.INT32))
        elif len(types) == 2:
            checks.same("second operand", types[1], types[0])
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        z0, z1 = self.zero_points
        a = arrays[0].astype(np.int32) - z0
        if self.m1 is None:
            second = (arrays[0].astype(np.int32) - z1) * arrays[1].reshape(-1, 1, 1)
        else:
            second = (arrays[-1].astype(np.int32) - z1) * np.int32(self.m1)
        chosen = (np.minimum if self.least else np.maximum)(a * np.int32(self.m0), second)
        return clip_to((chosen + np.int32(self.bias)) >> np.int32(self.shift), self.lo, self.hi, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        y, by = result.tiled(blocks.block_out, blocks.batch), BinaryOp.MIN if self.least else BinaryOp.MAX
        proc = define.combine(
            name,
            y,
            (self.m0, self.m1),
            self.bias,
            self.shift,
            self.lo,
            self.hi,
            by=by,
            zero_points=self.zero_points,
        )
        if self.m1 is None:
            return Lowered(proc, (0, 0, pack_channels(operands[1].constant(), y)))
        return Lowered(proc, (0, len(operands) - 1))


@dataclass(frozen=True, kw_only=True)
class QMul(Op):
    """a int8|int16 [N,C,H,W], c of its dtype, [N,C,H,W] or [N,C,1,1] -> clip((a * c * mul + bias) >> shift, lo, hi).

    Every step is int32 and wraps. mul and bias are immediates or loaded, as in `QAdd`. zero_points: taken off a and c.
    """

    kind: ClassVar[str] = "qmul"
    mul: int
    bias: int = 0
    shift: int = 0
    lo: int
    hi: int
    zero_points: tuple[int, int] = (0, 0)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2)
        batch, channels, _, _ = checks.activation(types, *checks.QUANTISED)
        for what, value in (("mul", self.mul), ("bias", self.bias)):
            checks.within(what, value, -MAX_INT32, MAX_INT32)
        checks.zero_points(self.zero_points, types[0].dtype)
        checks.within("shift", self.shift, 0, 31)
        checks.clip_range(self.lo, self.hi, types[0].dtype)
        if types[1].shape != (batch, channels, 1, 1):
            checks.same("second operand", types[1], types[0])
        checks.dtype("second operand", types[1], types[0].dtype)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        a, c = (array.astype(np.int32) - z for array, z in zip(arrays, self.zero_points, strict=True))
        acc = (a * c * np.int32(self.mul) + np.int32(self.bias)) >> np.int32(self.shift)
        return clip_to(acc, self.lo, self.hi, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = (each.tiled(blocks.block_out, blocks.batch) for each in (operands[1], result))
        wide = is_wide(self.mul, self.bias)
        proc = define.multiply(
            name,
            x,
            y,
            self.mul,
            self.bias,
            self.shift,
            self.lo,
            self.hi,
            zero_points=self.zero_points,
            wide=wide,
        )
        return Lowered(proc, (0, 1, *([pack_numbers((self.mul, self.bias), y)] if wide else [])))


@dataclass(frozen=True, kw_only=True)
class RescaledMul(RescaledOp):
    """a int8|int16 [N,C,H,W], c of its dtype, [N,C,H,W] or [N,C,1,1] -> a * c, int32, scaled as `RescaledOp` says.

    zero_points: taken off a and c.
    """

    kind: ClassVar[str] = "rescaled_mul"
    zero_points: tuple[int, int] = (0, 0)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        result = QMul(mul=1, lo=0, hi=0, zero_points=self.zero_points).infer(types)
        self.check_scale(result)
        return result

    def reference(self, *arrays: Array) -> Array:
        a, c = (array.astype(np.int32) - z for array, z in zip(arrays, self.zero_points, strict=True))
        return self.rescaled(a * c, arrays[0])

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x, y = (each.tiled(blocks.block_out, blocks.batch) for each in (operands[1], result))
        proc = define.rescaled_multiply(name, x, y, self.definition, zero_points=self.zero_points)
        return Lowered(proc, (0, 1, self.pairs(y)))


@dataclass(frozen=True, kw_only=True)
class Quantize(Op):
    """float32 -> `dtype`: clip(rint(x * inv_scale) + zero_point, lo, hi). Ties go to even, inv_scale is a float32.

    scale: what is divided by instead, where a model asks for that: the quotient may be on the other side of a tie.
    """

    kind: ClassVar[str] = "quantize"
    inv_scale: float
    lo: int
    hi: int
    dtype: DType = DType.INT8
    scale: float | None = None
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.dtype("input", types[0], DType.FLOAT32)
        checks.scale("inv_scale", self.inv_scale)
        if self.scale is not None:
            checks.scale("scale", self.scale)
        checks.within("zero_point", self.zero_point, *self.dtype.limits)
        checks.clip_range(self.lo, self.hi, self.dtype)
        return TensorType(types[0].shape, self.dtype)

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0]
        rounded = np.rint(x * np.float32(self.inv_scale) if self.scale is None else x / np.float32(self.scale))
        steps = rounded + np.float32(self.zero_point)
        return np.clip(steps, np.float32(self.lo), np.float32(self.hi)).astype(self.dtype.numpy)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        proc = define_host.quantize(
            name,
            result.image,
            packed_tile(result),
            inverse_scale=self.inv_scale,
            scale=self.scale,
            zero_point=self.zero_point,
            low=self.lo,
            high=self.hi,
            dtype=self.dtype,
        )
        return Lowered(proc, (0,))


@dataclass(frozen=True, kw_only=True)
class Dequantize(Op):
    """int8|int16 -> float32: float32(q - zero_point) * scale. scale is a float32 value."""

    kind: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        checks.dtype("input", types[0], *checks.QUANTISED)
        checks.scale("scale", self.scale)
        checks.within("zero_point", self.zero_point, *types[0].dtype.limits)
        return TensorType(types[0].shape, DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        return (arrays[0].astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        x = operands[0]
        proc = define_host.dequantize(
            name, x.image, packed_tile(x), scale=self.scale, zero_point=self.zero_point, dtype=x.dtype
        )
        return Lowered(proc, (0,))
