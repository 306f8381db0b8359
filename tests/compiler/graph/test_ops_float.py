"""Float ops against loops that spell out the definition; refusals by their sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.errors import GraphError
from compiler.graph.ir import Op, TensorType
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, Relu
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.ops.window import Window
from compiler.tensor.ir import DType
from tests.compiler.graph.build import floats

windows = st.builds(
    lambda kernel, stride, padding, dilation: Window(kernel=kernel, stride=stride, padding=padding, dilation=dilation),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
sizes = st.tuples(st.integers(5, 8), st.integers(5, 8))


def taps(window: Window, x: NDArray[np.float32], oh: int, ow: int) -> list[tuple[int, int, NDArray[np.float64]]]:
    """(ky, kx, x[n, c]) of the taps that lie in the input."""
    inside = []
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            row = oh * window.stride[0] + ky * window.dilation[0] - window.padding[0]
            column = ow * window.stride[1] + kx * window.dilation[1] - window.padding[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                inside.append((ky, kx, x[:, :, row, column].astype(np.float64)))
    return inside


@given(window=windows, size=sizes, groups=st.sampled_from([1, 2]))
def test_conv(window: Window, size: tuple[int, int], groups: int) -> None:
    x, w, bias = floats(2, 4, *size), floats(6, 4 // groups, *window.kernel, seed=1), floats(6, seed=2)
    op = Conv(stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups)
    y = op.reference(x, w, bias)
    assert op.infer([TensorType.of(a) for a in (x, w, bias)]) == TensorType(y.shape, DType.FLOAT32)
    for o, oh, ow in np.ndindex(y.shape[1:]):
        first = o // (6 // groups) * (4 // groups)
        channels = slice(first, first + 4 // groups)
        exact = sum((tap[:, channels] @ w[o, :, ky, kx] for ky, kx, tap in taps(window, x, oh, ow)), np.zeros(2))
        np.testing.assert_allclose(y[:, o, oh, ow], exact + bias[o], rtol=1e-6, atol=1e-6)


@given(window=windows, size=sizes, include=st.booleans())
def test_pools(window: Window, size: tuple[int, int], include: bool) -> None:
    x = floats(2, 3, *size)
    plain = Window(kernel=window.kernel, stride=window.stride, padding=window.padding)
    largest = MaxPool(kernel=window.kernel, stride=window.stride, padding=window.padding, dilation=window.dilation)
    mean = AveragePool(kernel=window.kernel, stride=window.stride, padding=window.padding, count_include_pad=include)
    for op, shown in ((largest, window), (mean, plain)):
        height, width = shown.output(*size)
        found = [[taps(shown, x, oh, ow) for ow in range(width)] for oh in range(height)]
        if not all(cell for line in found for cell in line):
            with pytest.raises(GraphError, match=r"an element of the input, not none$"):
                op.infer([TensorType.of(x)])
            continue
        y = op.reference(x)
        assert op.infer([TensorType.of(x)]) == TensorType(y.shape, DType.FLOAT32)
        for oh, ow in np.ndindex(height, width):
            values = np.array([tap for _, _, tap in found[oh][ow]])
            count = math.prod(shown.kernel) if include else len(values)
            exact = values.max(axis=0) if op is largest else values.sum(axis=0) / count
            np.testing.assert_allclose(y[:, :, oh, ow], exact, rtol=1e-6, atol=1e-7)


@given(window=windows, size=sizes)
def test_covered_counts_taps(window: Window, size: tuple[int, int]) -> None:
    counts = window.covered(*size)
    x = floats(1, 1, *size)
    for oh, ow in np.ndindex(counts.shape):
        assert counts[oh, ow] == len(taps(window, x, oh, ow))


def test_dense() -> None:
    x, w, bias = floats(3, 5), floats(4, 5, seed=1), floats(4, seed=2)
    np.testing.assert_allclose(Dense().reference(x, w, bias), x @ w.T + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Dense().reference(x, w), x @ w.T, rtol=1e-5, atol=1e-6)


def test_elementwise() -> None:
    x, z = floats(2, 3, 2, 2), floats(2, 3, 2, 2, seed=1)
    np.testing.assert_array_equal(Add().reference(x, z), x + z)
    np.testing.assert_array_equal(Add().reference(z[0, :, :1, :1], x), x + z[0, :, :1, :1])
    np.testing.assert_array_equal(Relu().reference(x), np.where(x > 0, x, 0))
    np.testing.assert_array_equal(Clip(lo=-0.5, hi=1.0).reference(x), x.clip(-0.5, 1.0))
    np.testing.assert_array_equal(FusedAdd(lo=0.0).reference(x, z), np.maximum(x + z, 0))
    np.testing.assert_array_equal(FusedAdd(hi=0.0).reference(x), np.minimum(x, 0))


def test_batch_norm() -> None:
    x, scale, bias, mean = floats(2, 3, 2, 2), floats(3, seed=1), floats(3, seed=2), floats(3, seed=3)
    variance = floats(3, seed=4) ** 2
    y = BatchNorm(epsilon=1e-3).reference(x, scale, bias, mean, variance)
    for channel in range(3):
        exact = (x[:, channel] - mean[channel]) / math.sqrt(variance[channel] + 1e-3) * scale[channel] + bias[channel]
        np.testing.assert_allclose(y[:, channel], exact, rtol=1e-5, atol=1e-6)


def test_fused_conv_is_the_sequence_of_its_parts() -> None:
    x, w, bias, r = floats(1, 3, 5, 5), floats(4, 3, 3, 3), floats(4), floats(1, 4, 3, 3, seed=5)
    expected = Clip(lo=-1.0, hi=2.0).reference(Add().reference(Conv().reference(x, w, bias), r))
    np.testing.assert_array_equal(FusedConv(lo=-1.0, hi=2.0).reference(x, w, bias, r), expected)


def test_shapes() -> None:
    x = floats(2, 3, 2, 2)
    np.testing.assert_array_equal(Flatten().reference(x), x.reshape(2, 12))
    np.testing.assert_array_equal(Reshape(shape=(4, 6)).reference(x), x.reshape(4, 6))
    np.testing.assert_allclose(GlobalAveragePool().reference(x), x.mean(axis=(2, 3), keepdims=True), rtol=1e-5)


def f32(*shape: int) -> TensorType:
    return TensorType(shape, DType.FLOAT32)


@pytest.mark.parametrize(
    ("op", "types", "sentence"),
    [
        (Conv(), [f32(1, 2, 3, 3)], "number of inputs must be 2 or 3, not 1"),
        (Conv(), [f32(1, 2, 3), f32(1, 2, 1, 1)], "input must have rank 4, not float32[1,2,3]"),
        (Conv(), [f32(1, 2, 3, 3), f32(1, 3, 1, 1)], "weight must be float32[1,2,1,1], not float32[1,3,1,1]"),
        (Conv(), [f32(1, 2, 3, 3), f32(4, 2, 1, 1), f32(3)], "bias must be float32[4], not float32[3]"),
        (
            Conv(stride=(0, 1)),
            [f32(1, 2, 3, 3), f32(4, 2, 1, 1)],
            "stride must be at least 1 in both directions, not (0, 1)",
        ),
        (
            Conv(padding=(0, -1, 0, 0)),
            [f32(1, 2, 3, 3), f32(4, 2, 1, 1)],
            "padding must not be negative, not (0, -1, 0, 0)",
        ),
        (
            Conv(),
            [f32(1, 2, 3, 3), f32(4, 2, 3, 4)],
            "window of 3x4 must fit in the padded input, not exceed its 3x3",
        ),
        (
            Conv(groups=2),
            [f32(1, 3, 3, 3), f32(4, 2, 1, 1)],
            "groups must divide 3 input and 4 output channels, not be 2",
        ),
        (Dense(), [f32(1, 2), f32(3, 4)], "weight must be float32[3,2], not float32[3,4]"),
        (Add(), [f32(2, 3), f32(3, 2)], "operands must broadcast to one shape, not have [2, 3] and [3, 2]"),
        (Relu(), [TensorType((1,), DType.INT8)], "input must be float32, not int8[1]"),
        (Clip(lo=2.0, hi=1.0), [f32(1)], "clip range must not be empty, not 2.0..1.0"),
        (FusedAdd(lo=math.nan), [f32(1)], "clip range must not be empty, not nan..inf"),
        (BatchNorm(), [f32(1, 3), *[f32(2)] * 4], "scale must be float32[3], not float32[2]"),
        (Reshape(shape=(5,)), [f32(2, 3)], "shape must hold as many elements as float32[2,3], not (5,)"),
        (Flatten(), [f32()], "input must have rank 1 or more, not float32[]"),
        (
            FusedConv(),
            [f32(1, 2, 3, 3), f32(4, 2, 1, 1), f32(4), f32(1, 4, 1, 1)],
            "residual must be float32[1,4,3,3], not float32[1,4,1,1]",
        ),
    ],
)
def test_refusal(op: Op, types: list[TensorType], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        op.infer(types)
    assert str(caught.value) == sentence
