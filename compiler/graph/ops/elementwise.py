"""Ops that work element by element: those that passes know by name, and `Pointwise` for all other functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.lowering import Blocks, Lowered, Placed, elements
from compiler.graph.ops import checks
from compiler.tensor import define_float, define_host
from compiler.tensor.functions import FUNCTIONS, apply, converted
from compiler.tensor.ir import Buffer, DType, Expr


def _unary(types: Sequence[TensorType]) -> TensorType:
    checks.count(types, 1)
    checks.dtype("input", types[0], DType.FLOAT32)
    return types[0].logical


@dataclass(frozen=True, kw_only=True)
class Add(Op):
    """a + b in float32, broadcast to a common shape: a bias, [C,1,1] say."""

    kind: ClassVar[str] = "add"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 2)
        for what, t in zip(("first operand", "second operand"), types, strict=True):
            checks.dtype(what, t, DType.FLOAT32)
        return TensorType(checks.broadcast(types), DType.FLOAT32)

    def reference(self, *arrays: Array) -> Array:
        return np.add(arrays[0], arrays[1], dtype=np.float32)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Pointwise(function="add").lower(name, operands, result, blocks)


@dataclass(frozen=True, kw_only=True)
class Relu(Op):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        return _unary(types)

    def reference(self, *arrays: Array) -> Array:
        return np.maximum(arrays[0], np.float32(0))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Pointwise(function="clip", parameters=(0.0, math.inf)).lower(name, operands, result, blocks)


@dataclass(frozen=True, kw_only=True)
class Clip(Op):
    """min(max(x, lo), hi); a bound may be infinite. Relu6 is lo=0, hi=6."""

    kind: ClassVar[str] = "clip"
    lo: float = -math.inf
    hi: float = math.inf

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        if not self.lo <= self.hi:
            raise GraphError(f"clip range must not be empty, not {self.lo}..{self.hi}")
        return _unary(types)

    def reference(self, *arrays: Array) -> Array:
        return np.minimum(np.maximum(arrays[0], np.float32(self.lo)), np.float32(self.hi))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Pointwise(function="clip", parameters=(self.lo, self.hi)).lower(name, operands, result, blocks)


@dataclass(frozen=True, kw_only=True)
class FakeQuantize(Op):
    """clip(rint(x / scale), lo, hi) * scale: what is left of x by a quantisation that the model itself asks for.

    scale is a float32 value; ties go to even. An ONNX QuantizeLinear with the DequantizeLinear behind it is this, where
    lo..hi is the range of the integers less their zero point.
    """

    kind: ClassVar[str] = "fake_quantize"
    scale: float
    lo: int
    hi: int

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.scale("scale", self.scale)
        if not self.lo <= 0 <= self.hi:
            raise GraphError(f"integers must be a range with 0, not {self.lo}..{self.hi}")
        return _unary(types)

    @property
    def function(self) -> Pointwise:
        return Pointwise(function="fake_quantize", parameters=(self.scale, self.lo, self.hi))

    def reference(self, *arrays: Array) -> Array:
        return self.function.reference(*arrays)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return self.function.lower(name, operands, result, blocks)


@dataclass(frozen=True, kw_only=True)
class Identity(Op):
    """x. Dropout at inference is imported as this."""

    kind: ClassVar[str] = "identity"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return types[0].logical

    def reference(self, *arrays: Array) -> Array:
        return arrays[0]

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_host.copy(name, elements(operands), result.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class Cast(Op):
    """x as another type: floats are truncated to integers, numbers that are not 0 are true.

    Integers beyond the type keep their low bits, floats become its lowest or highest integer.
    """

    kind: ClassVar[str] = "cast"
    dtype: DType

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 1)
        return TensorType(types[0].shape, self.dtype)

    def reference(self, *arrays: Array) -> Array:
        x = Buffer.of("X", DType(arrays[0].dtype.name), ())
        return np.asarray(apply(converted(x[()], self.dtype), {"X": arrays[0]}))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return Lowered(define_host.convert(name, elements(operands), operands[0].dtype, self.dtype), (0,))


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Op):
    """x float32 [N,C,...]; scale, bias, mean, variance float32 [C]:
    (x - mean) / sqrt(variance + epsilon) * scale + bias.

    The reference computes in float64 and rounds once.
    """

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        checks.count(types, 5)
        if len(types[0].shape) < 2:
            raise GraphError(f"input must have rank 2 or more, not {types[0]}")
        checks.dtype("input", types[0], DType.FLOAT32)
        for what, t in zip(("scale", "bias", "mean", "variance"), types[1:], strict=True):
            checks.same(what, t, TensorType(types[0].shape[1:2], DType.FLOAT32))
        return types[0].logical

    def affine(self, scale: Array, bias: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        """float64 (factor, offset), both [C]: the op is x * factor + offset."""
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + self.epsilon)
        return factor, bias.astype(np.float64) - mean.astype(np.float64) * factor

    def reference(self, *arrays: Array) -> Array:
        shape = (1, -1) + (1,) * (arrays[0].ndim - 2)
        factor, offset = (array.reshape(shape) for array in self.affine(*arrays[1:]))
        return (arrays[0].astype(np.float64) * factor + offset).astype(np.float32)

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        channels = (*operands[1].shape, *(1,) * (len(result.shape) - 2))
        shapes = [result.shape, *[channels] * 4]
        return _lowered(name, "batch_norm", (self.epsilon,), result, shapes)


@dataclass(frozen=True, kw_only=True)
class Pointwise(Op):
    """A function of `compiler.tensor.functions`, by name, of operands that broadcast to a common shape.

    float32, or, where the function takes them, all numbers, of one type.
    """

    kind: ClassVar[str] = "pointwise"
    function: str
    parameters: tuple[float, ...] = ()

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        function = FUNCTIONS[self.function]
        if function.operands:
            checks.count(types, function.operands)
        for t in types:
            if function.numbers:
                checks.number("operand", t)
            else:
                checks.dtype("operand", t, DType.FLOAT32)
            if t.dtype is not types[0].dtype:
                raise GraphError(f"operands must have one type, not {types[0]} and {t}")
        return TensorType(checks.broadcast(types), types[0].dtype)

    def reference(self, *arrays: Array) -> Array:
        loads: list[Expr] = [Buffer.of(f"X{k}", DType(array.dtype.name), ())[()] for k, array in enumerate(arrays)]
        expr = FUNCTIONS[self.function].build(*loads, *self.parameters)
        value = apply(expr, {f"X{k}": array for k, array in enumerate(arrays)})
        return np.array(np.broadcast_to(value, np.broadcast_shapes(*(array.shape for array in arrays))))

    def lower(self, name: str, operands: Sequence[Placed], result: Placed, blocks: Blocks) -> Lowered:
        return _lowered(name, self.function, self.parameters, result, [operand.shape for operand in operands])


def _lowered(
    name: str, function: str, parameters: tuple[float, ...], result: Placed, shapes: Sequence[tuple[int, ...]]
) -> Lowered:
    def build(operands: Sequence[Expr]) -> Expr:
        return FUNCTIONS[function].build(*operands, *parameters)

    proc = define_float.pointwise(name, result.dtype, shapes, result.shape, build)
    return Lowered(proc, tuple(range(len(shapes))))
