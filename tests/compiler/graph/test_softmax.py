"""The defined exponential: distance from the true one, and the order of every operation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.errors import GraphError
from compiler.graph.ir import TensorType
from compiler.graph.ops.softmax import COEFFICIENTS, EXP_MIN, LN2_HI, LN2_LO, LOG2_E, Softmax, exp32
from compiler.tensor.ir import DType
from tests.compiler.graph.build import floats

F = np.float32
MAX_ULP = 2.0


def ulps(actual: NDArray[np.float32], exact: NDArray[np.float64]) -> float:
    spacing = np.spacing(exact.astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(actual.astype(np.float64) - exact) / spacing))


def test_exp32_is_within_two_ulp_of_exp() -> None:
    x = np.concatenate([np.linspace(EXP_MIN, 0, 400_001), -np.geomspace(1e-9, 87, 100_001)]).astype(np.float32)
    assert ulps(exp32(x), np.exp(x.astype(np.float64))) <= MAX_ULP


def test_exp32_of_special_values() -> None:
    x = np.array([0.0, -0.0, EXP_MIN, -88.0, -1000.0, -math.inf], np.float32)
    y = exp32(x)
    assert y[0] == 1 == y[1]
    np.testing.assert_array_equal(y[2:], y[2])
    assert y[2] >= np.finfo(np.float32).tiny


def test_constants() -> None:
    assert tuple(float(F(1 / math.factorial(k))) for k in range(8)) == COEFFICIENTS
    assert float(F(LOG2_E)) == LOG2_E
    assert float(F(LN2_LO)) == LN2_LO
    assert (Fraction(LN2_HI) * 512).denominator == 1
    assert abs(LN2_HI + LN2_LO - math.log(2)) < 1e-11


def scalar_exp(x: np.float32) -> np.float32:
    """The docstring of the module, operation by operation."""
    t = max(x, F(EXP_MIN))
    n = F(np.rint(F(t * F(LOG2_E))))
    r = F(F(t - F(n * F(LN2_HI))) - F(n * F(LN2_LO)))
    p = F(COEFFICIENTS[7])
    for k in range(6, -1, -1):
        p = F(F(p * r) + F(COEFFICIENTS[k]))
    return F(p * np.array((int(n) + 127) << 23, np.int32).view(np.float32))


def test_softmax_is_sequential_along_the_axis() -> None:
    x = floats(3, 17, seed=1) * F(9)
    y = Softmax(axis=1).reference(x)
    for row, result in zip(x, y, strict=True):
        largest = row[0]
        for value in row[1:]:
            largest = max(largest, value)
        powers = [scalar_exp(F(value - largest)) for value in row]
        total = F(0)
        for power in powers:
            total = F(total + power)
        np.testing.assert_array_equal(result, np.array([F(power / total) for power in powers], np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axes(axis: int) -> None:
    x = floats(3, 4, 5) * F(4)
    wide = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    y = Softmax(axis=axis).reference(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, wide / wide.sum(axis=axis, keepdims=True), rtol=1e-6)


def test_one_dimension_and_one_element() -> None:
    np.testing.assert_array_equal(Softmax().reference(np.array([3.0], np.float32)), [1])
    assert Softmax().reference(floats(7)).shape == (7,)


def test_refusals() -> None:
    with pytest.raises(GraphError, match=r"^axis must be -2\.\.1, not 2$"):
        Softmax(axis=2).infer([TensorType((2, 3), DType.FLOAT32)])
    with pytest.raises(GraphError, match=r"^input must be float32, not int8\[2,3\]$"):
        Softmax().infer([TensorType((2, 3), DType.INT8)])
