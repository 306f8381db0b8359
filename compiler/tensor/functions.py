"""Functions of numbers as expressions of the tensor IR, each rounding in a fixed order, so that every engine agrees.

`FUNCTIONS` has them by name. `apply` evaluates an expression on whole arrays: the reference of the graph ops that are
made of these functions.

The exponential is that of `compiler.graph.ops.softmax`, with the power of two in two halves so that it reaches all of
float32. The error function is Abramowitz and Stegun's 7.1.26 (absolute error below 1.5e-7), and its series near zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Kind,
    Load,
    Select,
    Unary,
    UnaryOp,
    cast,
    maximum,
    minimum,
)

Array = NDArray[Any]

_LEAST_EXPONENT, _LARGEST_EXPONENT = -87.0, 89.0
_LN2_HIGH = 355 / 512
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SLOPE = 0.3275911
_TANH_SERIES_END, _ERF_SERIES_END = 0.1, 0.3
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""ONNX operator specification, Selu."""


def f32(value: float) -> Const:
    return Const(float(np.float32(value)), DType.FLOAT32)


def sub(a: Expr, b: Expr) -> Expr:
    return Binary(BinaryOp.SUB, a, b)


def div(a: Expr, b: Expr) -> Expr:
    return Binary(BinaryOp.DIV, a, b)


def less(a: Expr, b: Expr) -> Expr:
    return Compare(CompareOp.LT, a, b)


def number(value: int, dtype: DType) -> Const:
    return Const(float(value) if dtype.is_float else value, dtype)


def zero(x: Expr) -> Const:
    return number(0, x.dtype)


def negative(x: Expr) -> Expr:
    return x * number(-1, x.dtype) if x.dtype.is_float else sub(zero(x), x)


def absolute(x: Expr) -> Expr:
    return x if x.dtype.kind is Kind.UNSIGNED else Select(less(x, zero(x)), negative(x), x)


def quotient(a: Expr, b: Expr) -> Expr:
    """a / b; of integers the whole part, rounded towards zero, and 0 for a divisor of 0."""
    if a.dtype.is_float:
        return div(a, b)
    unsigned = DType(f"uint{a.dtype.bits}")  # has room for the size of the least number
    size = Binary(BinaryOp.FLOORDIV, cast(unsigned, absolute(a)), maximum(cast(unsigned, absolute(b)), 1))
    result = cast(a.dtype, size)
    if a.dtype.kind is Kind.SIGNED:
        alike = Compare(CompareOp.EQ, less(a, zero(a)), less(b, zero(b)))
        result = Select(alike, result, negative(result))
    return Select(Compare(CompareOp.EQ, b, zero(b)), zero(b), result)


def converted(x: Expr, dtype: DType) -> Expr:
    """x as another type: whether it is not zero as bool; float16 by way of float32."""
    if x.dtype is dtype:
        return x
    if DType.FLOAT16 in (x.dtype, dtype) and DType.FLOAT32 not in (x.dtype, dtype):
        return converted(converted(x, DType.FLOAT32), dtype)
    if dtype is DType.BOOL:
        return Select(Compare(CompareOp.EQ, x, zero(x)), Const(0, dtype), Const(1, dtype))
    return cast(dtype, x)


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's rule; the constant term comes first."""
    result: Expr = f32(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + f32(coefficient)
    return result


def _power_of_two(n: Expr) -> Expr:
    """2**n of an int32 in -126..127."""
    return Unary(UnaryOp.BITCAST, (n + 127) * (1 << 23))


def exp(x: Expr) -> Expr:
    """e**x; below -87 and of NaN that of -87 (1.6e-38), above 88.73 infinity."""
    t = minimum(maximum(x, f32(_LEAST_EXPONENT)), f32(_LARGEST_EXPONENT))
    n = Unary(UnaryOp.RINT, t * f32(math.log2(math.e)))
    r = sub(sub(t, n * f32(_LN2_HIGH)), n * f32(math.log(2) - _LN2_HIGH))
    p = polynomial(r, [1 / math.factorial(k) for k in range(8)])
    power = cast(DType.INT32, n)
    half = power >> 1
    return (p * _power_of_two(half)) * _power_of_two(sub(power, half))


def log(x: Expr) -> Expr:
    """Of a positive number; -infinity of 0, NaN of less. By the series of artanh on sqrt(1/2)..sqrt(2)."""
    bits = Unary(UnaryOp.BITS, x)
    fraction = Unary(UnaryOp.BITCAST, bits % (1 << 23) + (127 << 23))
    large = less(f32(math.sqrt(2)), fraction)
    m = Select(large, fraction * f32(0.5), fraction)
    n = cast(DType.FLOAT32, (bits >> 23) - 127) + Select(large, f32(1.0), f32(0.0))
    s = div(sub(m, f32(1.0)), m + f32(1.0))
    series = s * polynomial(s * s, [2 / (2 * k + 1) for k in range(6)])
    value = n * f32(math.log(2)) + series
    finite = Select(less(x, f32(math.inf)), value, x)
    return Select(less(f32(0.0), x), finite, Select(Compare(CompareOp.EQ, x, f32(0.0)), f32(-math.inf), f32(math.nan)))


def fake_quantize(x: Expr, scale: float, low: float, high: float) -> Expr:
    """The nearest whole multiple of the scale, ties to even, of those by the integers low..high."""
    return minimum(maximum(Unary(UnaryOp.RINT, div(x, f32(scale))), f32(low)), f32(high)) * f32(scale)


def softplus(x: Expr) -> Expr:
    """log(1 + e**x) without overflow."""
    return maximum(x, f32(0.0)) + log(exp(negative(absolute(x))) + f32(1.0))


def general_power(x: Expr, y: Expr) -> Expr:
    """x to the power of y; NaN for a negative x and a y that is no whole number."""
    size = exp(y * log(absolute(x)))
    half = y * f32(0.5)
    is_even = Compare(CompareOp.EQ, sub(half, Unary(UnaryOp.RINT, half)), f32(0.0))
    is_whole = Compare(CompareOp.EQ, y, Unary(UnaryOp.RINT, y))
    mirrored = Select(is_even, f32(1.0), Select(is_whole, f32(-1.0), f32(math.nan)))
    sign = Select(less(x, f32(0.0)), mirrored, f32(1.0))
    at_zero = Select(less(y, f32(0.0)), f32(math.inf), f32(0.0))
    value = Select(Compare(CompareOp.EQ, x, f32(0.0)), at_zero, size * sign)
    return Select(Compare(CompareOp.EQ, y, f32(0.0)), f32(1.0), value)


def sigmoid(x: Expr) -> Expr:
    z = exp(negative(absolute(x)))
    return div(Select(less(x, f32(0.0)), z, f32(1.0)), z + f32(1.0))


def tanh(x: Expr) -> Expr:
    """By the exponential, and by its series where that would lose digits."""
    z = exp(absolute(x) * f32(-2.0))
    size = div(sub(f32(1.0), z), z + f32(1.0))
    series = x * polynomial(x * x, (1.0, -1 / 3, 2 / 15, -17 / 315))
    return Select(less(absolute(x), f32(_TANH_SERIES_END)), series, Select(less(x, f32(0.0)), negative(size), size))


def erf(x: Expr) -> Expr:
    size = absolute(x)
    t = div(f32(1.0), size * f32(_ERF_SLOPE) + f32(1.0))
    tail = sub(f32(1.0), t * polynomial(t, _ERF) * exp(negative(x * x)))
    terms = [2 / math.sqrt(math.pi) * (-1) ** k / math.factorial(k) / (2 * k + 1) for k in range(5)]
    series = x * polynomial(x * x, terms)
    return Select(less(size, f32(_ERF_SERIES_END)), series, Select(less(x, f32(0.0)), negative(tail), tail))


def gelu(x: Expr) -> Expr:
    return (x * f32(0.5)) * (erf(x * f32(math.sqrt(0.5))) + f32(1.0))


def gelu_tanh(x: Expr) -> Expr:
    """x * (1 + tanh(u)) / 2, which is x * sigmoid(2u)."""
    u = (x + (x * x) * x * f32(0.044715)) * f32(math.sqrt(2 / math.pi))
    return x * sigmoid(u * f32(2.0))


def floor(x: Expr) -> Expr:
    rounded = Unary(UnaryOp.RINT, x)
    return Select(less(x, rounded), sub(rounded, f32(1.0)), rounded)


def ceil(x: Expr) -> Expr:
    rounded = Unary(UnaryOp.RINT, x)
    return Select(less(rounded, x), rounded + f32(1.0), rounded)


def _elu(x: Expr, alpha: float, scale: float, steepness: float = 1.0) -> Expr:
    """scale * x, and left of zero scale * alpha * (exp(x / steepness) - 1)."""
    y = div(x, f32(steepness)) if steepness != 1 else x
    below = sub(exp(minimum(y, f32(0.0))), f32(1.0)) * f32(alpha)
    bent = Select(less(x, f32(0.0)), below, x)
    return bent if scale == 1 else bent * f32(scale)


def hard_sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return minimum(maximum(x * f32(alpha) + f32(beta), f32(0.0)), f32(1.0))


def mish(x: Expr) -> Expr:
    """x * tanh(log(1 + e**x)): with n = e**x * (e**x + 2), x * n / (n + 2), which is x where x is large."""
    e = exp(minimum(x, f32(20.0)))
    n = e * (e + f32(2.0))
    return x * div(n, n + f32(2.0))


def power(x: Expr, exponent: float) -> Expr:
    """x to a whole power, or half of one, by repeated products. Raises ValueError for any other exponent."""
    twice = round(2 * exponent)
    if twice != 2 * exponent or abs(twice) > 2 * MAX_EXPONENT:
        raise ValueError(f"exponent must be a half or a whole one up to {MAX_EXPONENT}, not {exponent}")
    whole, root = divmod(abs(twice), 2)
    result: Expr = Unary(UnaryOp.SQRT, x) if root else f32(1.0)
    for _ in range(whole):
        result = result * x
    return div(f32(1.0), result) if twice < 0 else result


MAX_EXPONENT = 16


def whole_power(x: Expr, y: Expr, limit: int) -> Expr:
    """x to the power of a y of its type in 0..limit, by repeated products."""
    result: Expr = number(1, x.dtype)
    for k in range(limit):
        result = result * Select(less(number(k, y.dtype), y), x, number(1, x.dtype))
    return result


def clip(x: Expr, low: float, high: float) -> Expr:
    """Bounds that are infinite limit nothing."""
    if low > -math.inf:
        x = maximum(x, f32(low))
    return minimum(x, f32(high)) if high < math.inf else x


def _folded(op: BinaryOp) -> Callable[..., Expr]:
    def fold(first: Expr, *rest: Expr) -> Expr:
        for operand in rest:
            first = Binary(op, first, operand)
        return first

    return fold


def _mean(*operands: Expr) -> Expr:
    return div(_folded(BinaryOp.ADD)(*operands), f32(len(operands)))


@dataclass(frozen=True)
class Function:
    """build: from the operands, then the parameters, to the result. operands: how many, 0 for any number from one up.
    numbers: whether it takes all numbers, of one type, and gives that type, not float32 alone."""

    build: Callable[..., Expr]
    operands: int = 1
    parameters: int = 0
    numbers: bool = False


FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "abs": Function(absolute, numbers=True),
        "add": Function(_folded(BinaryOp.ADD), 0, numbers=True),
        "batch_norm": Function(
            lambda x, scale, bias, mean, variance, epsilon: (
                div(sub(x, mean) * scale, Unary(UnaryOp.SQRT, variance + f32(epsilon))) + bias
            ),
            5,
            1,
        ),
        "ceil": Function(ceil),
        "celu": Function(lambda x, alpha: _elu(x, alpha, 1.0, alpha), parameters=1),
        "clip": Function(clip, parameters=2),
        "divide": Function(quotient, 2, numbers=True),
        "elu": Function(lambda x, alpha: _elu(x, alpha, 1.0), parameters=1),
        "erf": Function(erf),
        "exp": Function(exp),
        "fake_quantize": Function(fake_quantize, parameters=3),
        "floor": Function(floor),
        "gelu": Function(gelu),
        "gelu_tanh": Function(gelu_tanh),
        "general_power": Function(general_power, 2),
        "hard_sigmoid": Function(hard_sigmoid, parameters=2),
        "hard_swish": Function(lambda x: x * hard_sigmoid(x, 1 / 6, 0.5)),
        "log": Function(log),
        "leaky_relu": Function(lambda x, slope: Select(less(x, f32(0.0)), x * f32(slope), x), parameters=1),
        "maximum": Function(_folded(BinaryOp.MAX), 0, numbers=True),
        "mean": Function(_mean, 0),
        "minimum": Function(_folded(BinaryOp.MIN), 0, numbers=True),
        "mish": Function(mish),
        "multiply": Function(_folded(BinaryOp.MUL), 0, numbers=True),
        "negative": Function(negative, numbers=True),
        "power": Function(power, parameters=1),
        "prelu": Function(lambda x, slope: Select(less(x, f32(0.0)), x * slope, x), 2),
        "reciprocal": Function(lambda x: div(f32(1.0), x)),
        "round": Function(lambda x: Unary(UnaryOp.RINT, x)),
        "scale": Function(lambda x, factor: x * f32(factor), parameters=1),
        "selu": Function(lambda x, alpha, gamma: _elu(x, alpha, gamma), parameters=2),
        "sigmoid": Function(sigmoid),
        "softplus": Function(softplus),
        "softsign": Function(lambda x: div(x, absolute(x) + f32(1.0))),
        "square": Function(lambda x: x * x, numbers=True),
        "sqrt": Function(lambda x: Unary(UnaryOp.SQRT, x)),
        "subtract": Function(sub, 2, numbers=True),
        "swish": Function(lambda x, alpha: x * sigmoid(x * f32(alpha)), parameters=1),
        "tanh": Function(tanh),
        "thresholded_relu": Function(lambda x, alpha: Select(less(f32(alpha), x), x, f32(0.0)), parameters=1),
        "where": Function(lambda holds, a, b: Select(Compare(CompareOp.EQ, holds, zero(holds)), b, a), 3, numbers=True),
        "whole_power": Function(whole_power, 2, 1, numbers=True),
    }
)

_BINARY: Final[Mapping[BinaryOp, Callable[[Array, Array], Array]]] = MappingProxyType(
    {
        BinaryOp.ADD: np.add,
        BinaryOp.SUB: np.subtract,
        BinaryOp.MUL: np.multiply,
        BinaryOp.DIV: np.divide,
        BinaryOp.FLOORDIV: np.floor_divide,
        BinaryOp.MIN: lambda a, b: np.where(a < b, a, b),
        BinaryOp.MAX: lambda a, b: np.where(a > b, a, b),
        BinaryOp.SHR: np.right_shift,
        BinaryOp.MOD: np.mod,
    }
)
_COMPARE: Final[Mapping[CompareOp, Callable[[Array, Array], Array]]] = MappingProxyType(
    {CompareOp.LT: np.less, CompareOp.LE: np.less_equal, CompareOp.EQ: np.equal}
)
_UNARY: Final[Mapping[UnaryOp, Callable[[Array], Array]]] = MappingProxyType(
    {
        UnaryOp.RINT: np.rint,
        UnaryOp.SQRT: np.sqrt,
        UnaryOp.BITCAST: lambda a: np.asarray(a, np.int32).view(np.float32),
        UnaryOp.BITS: lambda a: np.asarray(a, np.float32).view(np.int32),
    }
)


def _saturated(array: Array, dtype: DType) -> Array:
    """Floats as integers, truncated; the limits of the type where they are beyond it, 0 for NaN."""
    low, high = dtype.limits
    exact = np.nan_to_num(array.astype(np.float64))
    inside = (exact > low) & (exact < high)
    beyond = np.where(exact > 0, dtype.numpy.type(high), dtype.numpy.type(low))
    return np.where(inside, np.where(inside, exact, 0).astype(dtype.numpy), beyond)


def apply(expr: Expr, arrays: Mapping[str, Array]) -> Array:
    """`expr` for each element of arrays of one shape, or such that broadcast to one, by the name of their buffer.

    What the interpreter would compute, bit for bit.
    """
    known: dict[int, Array] = {}

    def value(e: Expr) -> Array:
        if id(e) not in known:
            known[id(e)] = compute(e)
        return known[id(e)]

    def compute(e: Expr) -> Array:
        match e:
            case Load():
                return arrays[e.buffer.name]
            case Const():
                return np.asarray(e.value, e.type.numpy)
            case Unary():
                return _UNARY[e.op](value(e.a))
            case Binary():
                return _BINARY[e.op](value(e.a), value(e.b))
            case Compare():
                return _COMPARE[e.op](value(e.a), value(e.b))
            case Select():
                return np.where(value(e.cond), value(e.a), value(e.b))
            case Cast() if e.a.dtype.is_float and e.type.is_integer:
                return _saturated(value(e.a), e.type)
            case Cast():
                return value(e.a).astype(e.type.numpy)
        raise TypeError(f"Expression must be one of those of functions, not {e!r}")

    with np.errstate(all="ignore"):
        return value(expr)
