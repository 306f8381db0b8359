"""Quantised ops against arithmetic on Python's integers: int64 that is wrapped where the definition says int32."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.errors import GraphError
from compiler.graph.ir import Op, TensorType
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.qconv import QConv2d, convolve_exact, two_factors
from compiler.graph.ops.qelementwise import Dequantize, QAdd, QExtreme, QMul, Quantize, RescaledAdd, RescaledMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.rescaled import RescaledConv2d, scale_word
from compiler.graph.ops.window import Window
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, int8s
from tests.compiler.graph.test_ops_float import taps, windows
from tests.differential import Case, check
from vta_hw.spec.config import VTAConfig

shifts = st.integers(0, 31)
factors = st.integers(-32767, 32767)
loaded = st.integers(-(1 << 23), 1 << 23)
"""Factors that are no immediates, of which sums and products of two 8-bit numbers do not wrap."""
ranges = st.sampled_from([(-128, 127), (0, 127), (-3, 5), (0, 0)])


def wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


@given(
    window=windows,
    pre_shift=shifts,
    shift=shifts,
    r_mul=factors,
    clip=ranges,
    wild=st.booleans(),
    residual=st.booleans(),
)
def test_qconv2d(
    window: Window, pre_shift: int, shift: int, r_mul: int, clip: tuple[int, int], wild: bool, residual: bool
) -> None:
    """`wild` multipliers make every step wrap."""
    rng = np.random.default_rng(3)
    size = 1 << 31 if wild else 1 << 10
    x, w = int8s(2, 3, 5, 6), int8s(4, 3, *window.kernel, seed=1)
    m, b = (rng.integers(-size, size, 4).astype(np.int32) for _ in range(2))
    op = QConv2d(stride=window.stride, padding=window.padding, dilation=window.dilation, pre_shift=pre_shift,
                 shift=shift, r_mul=r_mul if residual else 0, lo=clip[0], hi=clip[1])
    height, width = window.output(5, 6)
    r = int8s(2, 4, height, width, seed=2)
    operands = (x, w, m, b, r) if residual else (x, w, m, b)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(a) for a in operands]) == TensorType.of(y)
    for n, o, oh, ow in np.ndindex(y.shape):
        acc = wrap(sum(int(tap[n] @ w[o, :, ky, kx]) for ky, kx, tap in taps(window, x, oh, ow))) >> pre_shift
        acc = wrap(wrap(acc * int(m[o])) + int(b[o]))
        if residual:
            acc = wrap(acc + wrap(int(r[n, o, oh, ow]) * r_mul))
        assert y[n, o, oh, ow] == min(max(acc >> shift, clip[0]), clip[1])


@given(window=windows, fine=shifts, shift=shifts, clip=ranges, wild=st.booleans(), r_mul=st.none() | loaded)
def test_exact_conv2d(
    window: Window, fine: int, shift: int, clip: tuple[int, int], wild: bool, r_mul: int | None
) -> None:
    """`wild` factors make every step wrap."""
    rng = np.random.default_rng(3)
    size = 1 << 31 if wild else 1 << 10
    x, w = int8s(2, 3, 5, 6), int8s(4, 3, *window.kernel, seed=1)
    reach = rng.integers(0, 1 << 16, 4).astype(np.int32)
    m, n, b = (rng.integers(-size, size, 4).astype(np.int32) for _ in range(3))
    op = ExactConv2d(stride=window.stride, padding=window.padding, dilation=window.dilation, fine=fine, shift=shift,
                     r_mul=r_mul or 0, lo=clip[0], hi=clip[1])
    r = int8s(2, 4, *window.output(5, 6), seed=2)
    operands = (x, w, reach, m, n, b) if r_mul is None else (x, w, reach, m, n, b, r)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(a) for a in operands]) == TensorType.of(y)
    for k, o, oh, ow in np.ndindex(y.shape):
        acc = sum(int(tap[k] @ w[o, :, ky, kx]) for ky, kx, tap in taps(window, x, oh, ow))
        acc = min(max(acc, -int(reach[o])), int(reach[o]))
        total = wrap(wrap(wrap(acc * int(m[o])) + (wrap(acc * int(n[o])) >> fine)) + int(b[o]))
        total = wrap(total + int(r[k, o, oh, ow]) * (r_mul or 0))
        assert y[k, o, oh, ow] == min(max(total >> shift, clip[0]), clip[1])


@given(
    window=windows,
    scales=st.lists(st.tuples(st.integers(0, (1 << 24) - 1), st.integers(0, 63)), min_size=4, max_size=4),
    relu=st.booleans(),
    wild=st.booleans(),
    r_mul=st.sampled_from([None, 1, 16384, -7]),
    mul=st.sampled_from([1, 8]),
)
def test_rescaled_conv2d(
    window: Window, scales: list[tuple[int, int]], relu: bool, wild: bool, r_mul: int | None, mul: int
) -> None:
    """`wild` biases and factors make sums wrap."""
    rng = np.random.default_rng(3)
    size = 1 << 31 if wild else 1 << 10
    x, w = int8s(2, 3, 5, 6), int8s(4, 3, *window.kernel, seed=1)
    b, m = rng.integers(-size, size, 4).astype(np.int32), int8s(4, seed=5)
    scale = np.array([scale_word(*pair) for pair in scales], np.int64).astype(np.int32)
    attributes = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    op = RescaledConv2d(**attributes, relu=relu, r_mul=1 if r_mul is None else r_mul, mul=mul)
    height, width = window.output(5, 6)
    r = int8s(2, 4, height, width, seed=2)
    operands = (x, w, b, scale, r, m) if r_mul is not None else (x, w, b, scale)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(a) for a in operands]) == TensorType.of(y)
    for n, o, oh, ow in np.ndindex(y.shape):
        acc = sum(int(tap[n] @ w[o, :, ky, kx]) for ky, kx, tap in taps(window, x, oh, ow))
        acc = acc + int(r[n, o, oh, ow]) * int(m[o]) * r_mul if r_mul is not None else acc
        acc = wrap(acc * mul + int(b[o]))
        factor, shift = scales[o]
        magnitude = math.floor(Fraction(abs(acc) * factor, 1 << shift) + Fraction(1, 2))
        assert y[n, o, oh, ow] == min(max(magnitude if acc > 0 else -magnitude, 0 if relu else -128), 127)


@pytest.mark.parametrize(
    ("number", "bits", "factors"),
    [
        (77, 8, (77, 1)),
        (77, 4, None),
        (0, 4, (0, 1)),
        (-8, 4, (-8, 1)),
        (-16, 4, (-8, 2)),
        (8, 4, (4, 2)),
        (254, 8, (127, 2)),
        (255, 8, None),
        (16384, 8, (64, 256)),
        (16384, 2, (1, 16384)),
    ],
)
def test_a_number_is_a_weight_times_a_power_of_two(number: int, bits: int, factors: tuple[int, int] | None) -> None:
    assert two_factors(number, bits) == factors


@pytest.mark.parametrize("r_mul", [77, 5, -8, 128, -128, 16384, 0])
@pytest.mark.parametrize("log_bits", [2, 3])
def test_a_residual_is_multiplied_by_what_weights_hold(r_mul: int, log_bits: int) -> None:
    """Where the factor is no weight of this machine, the accumulator multiplies."""
    b, rng = Builder(), np.random.default_rng(0)
    x, r = (b.input(1, 16, 3, 3, dtype=DType.INT8, name=name) for name in "xr")
    w = b.constant(rng.integers(-8, 8, (16, 16, 1, 1)).astype(np.int8))
    parameters = [b.constant(np.full(16, value, np.int32)) for value in (1, 0)]
    graph = b.graph(b(QConv2d(shift=5, r_mul=r_mul, lo=-128, hi=127), x, w, *parameters, r))
    config = VTAConfig(log_wgt_width=log_bits, log_wgt_buff_size=15 + 3 * (log_bits - 2))
    inputs = {name: int8s(1, 16, 3, 3, seed=seed) for seed, name in enumerate("xr")}
    assert check(Case(seed=0, config=config, graph=graph, inputs=inputs)).problems == ()


@pytest.mark.parametrize(
    ("factor", "shift", "sentence"),
    [(1 << 24, 0, "factor must be 0..16777215, not 16777216"), (1, 64, "shift must be 0..63, not 64")],
)
def test_a_scale_has_room_for_24_and_6_bits(factor: int, shift: int, sentence: str) -> None:
    with pytest.raises(GraphError) as refused:
        scale_word(factor, shift)
    assert str(refused.value) == sentence


def test_convolution_is_exact_where_float64_is_not() -> None:
    x = np.full((1, 1, 1, 1), -(1 << 15), np.int16).repeat(70_000, axis=1)
    w = np.full((1, 70_000, 1, 1), -(1 << 15), np.int16)
    assert convolve_exact(x, w, Window(kernel=(1, 1)))[0, 0, 0, 0] == 70_000 << 30
    op = QConv2d(lo=-1, hi=1)
    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    assert op.reference(x[:, :4], w[:, :4], one, zero)[0, 0, 0, 0] == 0  # 4 << 30 wraps to 0
    assert op.reference(x[:, :2], w[:, :2], one, zero)[0, 0, 0, 0] == -1  # 2 << 30 wraps to the lowest int32


def exact(isa: str, rng: np.random.Generator) -> Case:
    """A convolution, a sum, a product and a mean, all with numbers that are no immediates."""
    b = Builder()
    x = b.input(1, 20, 7, 6, dtype=DType.INT8)
    w = b.constant(rng.integers(-127, 128, (20, 20, 3, 3)).astype(np.int8))
    reach = b.constant(rng.integers(1 << 14, 1 << 18, 20).astype(np.int32))
    m, n = (b.constant(rng.integers(0, 1 << 12, 20).astype(np.int32)) for _ in range(2))
    bias = b.constant(rng.integers(-(1 << 24), 1 << 24, 20).astype(np.int32))
    window = {"padding": (1, 1, 1, 1)}
    y = b(ExactConv2d(fine=12, shift=22, lo=-128, hi=127, **window), x, w, reach, m, n, bias)
    y = b(ExactConv2d(fine=12, shift=22, r_mul=3_000_001, lo=-128, hi=127, **window), y, w, reach, m, n, bias, x)
    if isa == "extended":
        scale = b.constant(np.full(20, scale_word(10_000_000, 33), np.int64).astype(np.int32))
        y = b(RescaledConv2d(mul=64, **window), y, w, bias, scale)
    total = b(QAdd(m0=7_000_001, m1=-5_000_003, bias=1 << 22, shift=23, lo=-128, hi=127), y, x)
    product = b(QMul(mul=100_001, bias=1 << 22, shift=23, lo=-128, hi=127), total, y)
    pooled = b(QAvgPool2d(kernel=(2, 2), mul=4_000_001, bias=1 << 22, shift=23, lo=-128, hi=127), product)
    factors = b.constant(rng.integers(0, 1 << 20, (3, 5)).astype(np.int32))
    edge = {"stride": (2, 1), "padding": (0, 0, 0, 1)}
    last = QAvgPool2d(kernel=(2, 2), **edge, mul=None, bias=1 << 22, shift=23, lo=-128, hi=127)
    graph = b.graph(b(last, pooled, factors))
    return Case(seed=0, config=VTAConfig(isa=isa), graph=graph, inputs={"x": int8s(1, 20, 7, 6)})


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_numbers_that_are_no_immediates_are_the_same_on_every_engine(isa: str) -> None:
    assert check(exact(isa, np.random.default_rng(0))).problems == ()


@given(m0=factors | loaded, m1=factors | loaded, bias=factors, shift=shifts, clip=ranges, both=st.booleans())
def test_qadd(m0: int, m1: int, bias: int, shift: int, clip: tuple[int, int], both: bool) -> None:
    a, c = int8s(1, 3, 4, 4), int8s(1, 3, 4, 4, seed=1)
    op = QAdd(m0=m0, m1=m1 if both else 0, bias=bias, shift=shift, lo=clip[0], hi=clip[1])
    y = op.reference(a, c) if both else op.reference(a)
    total = a.astype(np.int64) * m0 + bias + (c.astype(np.int64) * m1 if both else 0)
    np.testing.assert_array_equal(y, np.clip(total >> shift, *clip))
    assert y.dtype == np.int8


even_shifts = st.integers(1, 14)


@given(m0=factors, bias=factors, shift=even_shifts)
def test_qadd_to_even(m0: int, bias: int, shift: int) -> None:
    a = int8s(1, 3, 4, 4)
    y = QAdd(m0=m0, bias=bias, shift=shift, lo=-128, hi=127, even=True).reference(a)
    exact = [round(Fraction(int(v) * m0 + bias, 1 << shift)) for v in a.ravel()]  # which rounds halves to even
    np.testing.assert_array_equal(y.ravel(), np.clip(exact, -128, 127))


@pytest.mark.parametrize("isa", ["tvm", "extended"])
@pytest.mark.parametrize("shift", [1, 2, 14])
def test_rounding_to_even_is_the_same_on_every_engine(shift: int, isa: str) -> None:
    config = VTAConfig(isa=isa)
    b = Builder()
    x = b.input(1, 16, 8, 8, dtype=DType.INT8)
    added = b(QAdd(m0=1 << max(shift - 2, 0), bias=1 << max(shift - 3, 0), shift=shift, lo=-128, hi=127, even=True), x)
    mean = b(QAvgPool2d(kernel=(2, 2), mul=1, shift=2, lo=-128, hi=127, even=True), x)
    outcome = check(Case(seed=shift, config=config, graph=b.graph(added, mean), inputs={"x": int8s(1, 16, 8, 8)}))
    assert outcome.problems == ()
    assert outcome.values > 60


zeros = st.integers(-128, 127)


@given(m0=factors, m1=factors, z0=zeros, z1=zeros, shift=shifts, least=st.booleans())
def test_qextreme_of_integers_with_zero_points(m0: int, m1: int, z0: int, z1: int, shift: int, least: bool) -> None:
    a, c = int8s(1, 3, 4, 4), int8s(1, 3, 4, 4, seed=1)
    op = QExtreme(m0=m0, m1=m1, shift=shift, lo=-128, hi=127, least=least, zero_points=(z0, z1))
    first, second = (a.astype(np.int64) - z0) * m0, (c.astype(np.int64) - z1) * m1
    chosen = np.minimum(first, second) if least else np.maximum(first, second)
    np.testing.assert_array_equal(op.reference(a, c), np.clip(chosen >> shift, -128, 127))


@given(mul=st.integers(-3000, 3000), z0=zeros, z1=zeros, shift=shifts, gate=st.booleans())
def test_products_of_integers_with_zero_points(mul: int, z0: int, z1: int, shift: int, gate: bool) -> None:
    a, c = int8s(1, 3, 4, 4), int8s(1, 3, *((1, 1) if gate else (4, 4)), seed=1)
    product = (a.astype(np.int64) - z0) * (c.astype(np.int64) - z1)
    op = QMul(mul=mul, shift=shift, lo=-128, hi=127, zero_points=(z0, z1))
    np.testing.assert_array_equal(op.reference(a, c), np.clip(product * mul >> shift, -128, 127))
    rescaled = RescaledMul(scale=scale_word(99, shift), zero_points=(z0, z1), zero_point=-7, bias=1000)
    exact = [math.floor(abs(v) + Fraction(1, 2)) * (1 if v >= 0 else -1)
             for v in (Fraction(int(p + 1000) * 99, 1 << shift) for p in product.ravel())]
    np.testing.assert_array_equal(rescaled.reference(a, c).ravel(), np.clip(np.array(exact) - 7, -128, 127))


@given(m0=factors, m1=factors, bias=factors, shift=shifts, clip=ranges, both=st.booleans(), least=st.booleans())
def test_qextreme(
    m0: int, m1: int, bias: int, shift: int, clip: tuple[int, int], both: bool, least: bool
) -> None:
    a, c = int8s(1, 3, 4, 4), int8s(1, 3, 4, 4, seed=1)
    op = QExtreme(m0=m0, m1=m1, bias=bias, shift=shift, lo=clip[0], hi=clip[1], least=least)
    operands = (a, c) if both else (a,)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(operand) for operand in operands]) == TensorType.of(y)
    terms = a.astype(np.int64) * m0, operands[-1].astype(np.int64) * m1
    chosen = np.where((terms[0] < terms[1]) == least, *terms)
    np.testing.assert_array_equal(y, np.clip((chosen + bias) >> shift, *clip))


@given(m0=factors, bias=factors, shift=shifts, clip=ranges, wild=st.booleans(), least=st.booleans())
def test_qextreme_with_a_factor_for_each_channel(
    m0: int, bias: int, shift: int, clip: tuple[int, int], wild: bool, least: bool
) -> None:
    """`wild` factors make products wrap."""
    size = 1 << 31 if wild else 1 << 10
    x, m = int8s(2, 3, 2, 2), np.random.default_rng(3).integers(-size, size, 3).astype(np.int32)
    op = QExtreme(m0=m0, m1=None, bias=bias, shift=shift, lo=clip[0], hi=clip[1], least=least)
    y = op.reference(x, m)
    assert op.infer([TensorType.of(x), TensorType.of(m)]) == TensorType.of(y)
    for at in np.ndindex(y.shape):
        products = int(x[at]) * m0, wrap(int(x[at]) * int(m[at[1]]))
        acc = wrap((min if least else max)(products) + bias)
        assert y[at] == min(max(acc >> shift, clip[0]), clip[1])


@given(mul=factors, bias=factors, shift=shifts, clip=ranges, gate=st.booleans())
def test_qmul(mul: int, bias: int, shift: int, clip: tuple[int, int], gate: bool) -> None:
    a, c = int8s(1, 3, 4, 4), int8s(1, 3, *((1, 1) if gate else (4, 4)), seed=1)
    op = QMul(mul=mul, bias=bias, shift=shift, lo=clip[0], hi=clip[1])
    y = op.reference(a, c)
    assert op.infer([TensorType.of(a), TensorType.of(c)]) == TensorType.of(y)
    total = a.astype(np.int64) * c * mul + bias
    np.testing.assert_array_equal(y, np.clip(total >> shift, *clip))


def scaled(total: NDArray[np.int64], factor: int, shift: int, *, relu: bool) -> NDArray[np.int8]:
    """What `RescaledOp` says, in exact fractions."""
    lo, hi = 0 if relu else -128, 127

    def one(value: int) -> int:
        exact = Fraction(value * factor, 1 << shift)
        rounded = math.floor(abs(exact) + Fraction(1, 2))
        return min(max(rounded if exact >= 0 else -rounded, lo), hi)

    return np.array([one(int(value)) for value in total.ravel()], np.int8).reshape(total.shape)


words = st.tuples(st.integers(0, (1 << 24) - 1), st.integers(0, 40))


@given(m0=factors, m1=factors, word=words, relu=st.booleans(), both=st.booleans())
def test_rescaled_add(m0: int, m1: int, word: tuple[int, int], relu: bool, both: bool) -> None:
    a, c = int8s(1, 3, 2, 4), int8s(1, 3, 2, 4, seed=1)
    op = RescaledAdd(m0=m0, m1=m1 if both else 0, scale=scale_word(*word), relu=relu)
    operands = (a, c) if both else (a,)
    total = a.astype(np.int64) * m0 + (c.astype(np.int64) * m1 if both else 0)
    assert op.infer([TensorType.of(each) for each in operands]) == TensorType.of(a)
    np.testing.assert_array_equal(op.reference(*operands), scaled(total, *word, relu=relu))


@given(word=words, relu=st.booleans(), gate=st.booleans())
def test_rescaled_mul(word: tuple[int, int], relu: bool, gate: bool) -> None:
    a, c = int8s(1, 3, 2, 4), int8s(1, 3, *((1, 1) if gate else (2, 4)), seed=1)
    op = RescaledMul(scale=scale_word(*word), relu=relu)
    assert op.infer([TensorType.of(a), TensorType.of(c)]) == TensorType.of(a)
    np.testing.assert_array_equal(op.reference(a, c), scaled(a.astype(np.int64) * c, *word, relu=relu))


@given(window=windows, word=words, relu=st.booleans(), per_position=st.booleans())
def test_rescaled_avg_pool2d(window: Window, word: tuple[int, int], relu: bool, per_position: bool) -> None:
    window = Window(kernel=window.kernel, stride=window.stride, padding=(0, 0, 0, 0))
    x = int8s(2, 3, 5, 6)
    m = np.random.default_rng(0).integers(1, 1 << 16, window.output(5, 6)).astype(np.int32)
    op = RescaledAvgPool2d(kernel=window.kernel, stride=window.stride, scale=scale_word(*word), relu=relu)
    operands: tuple[NDArray[Any], ...] = (x, m) if per_position else (x,)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(a) for a in operands]) == TensorType.of(y)
    sums = np.zeros(y.shape, np.int64)
    for n, c, oh, ow in np.ndindex(y.shape):
        sums[n, c, oh, ow] = sum(int(tap[n, c]) for _, _, tap in taps(window, x, oh, ow))
    np.testing.assert_array_equal(y, scaled(sums * m if per_position else sums, *word, relu=relu))


def test_rescaled_ops_that_do_not_fit() -> None:
    x = q8(1, 3, 4, 4)
    for op, types, sentence in (
        (RescaledAdd(scale=1, m0=1 << 15), [x], "m0 must be -32767..32767, not 32768"),
        (RescaledAdd(scale=1, m0=1, m1=1), [x], "m1 must be 0 without a second operand, not 1"),
        (RescaledAdd(scale=1 << 30, m0=1), [x], "scale must be 0..1073741823, not 1073741824"),
        (RescaledMul(scale=1, bits=9), [x, x], "bits must be 2..8, not 9"),
        (RescaledMul(scale=1), [x, q8(1, 3, 1, 4)], "second operand must be int8[1,3,4,4], not int8[1,3,1,4]"),
        (RescaledAvgPool2d(scale=-1, kernel=(2, 2)), [x], "scale must be 0..1073741823, not -1"),
        (RescaledAvgPool2d(scale=1, kernel=(2, 2)), [x, i32(2, 3)], "factor m must be int32[3,3], not int32[2,3]"),
    ):
        with pytest.raises(GraphError) as refused:
            op.infer(types)
        assert str(refused.value) == sentence


def test_operands_of_qmul_that_do_not_fit() -> None:
    x = TensorType((1, 3, 4, 4), DType.INT8)
    with pytest.raises(GraphError, match=r"^second operand must be int8\[1,3,4,4\], not int8\[1,3,4,1\]$"):
        QMul(mul=1, lo=0, hi=1).infer([x, TensorType((1, 3, 4, 1), DType.INT8)])
    with pytest.raises(GraphError, match=r"^second operand must be int8, not int16\[1,3,1,1\]$"):
        QMul(mul=1, lo=0, hi=1).infer([x, TensorType((1, 3, 1, 1), DType.INT16)])
    with pytest.raises(GraphError, match=r"^mul must be -2147483647..2147483647, not 2147483648$"):
        QMul(mul=1 << 31, lo=0, hi=1).infer([x, x])


@given(window=windows, mul=factors, bias=factors, shift=shifts, per_position=st.booleans())
def test_qavg_pool2d(window: Window, mul: int, bias: int, shift: int, per_position: bool) -> None:
    window = Window(kernel=window.kernel, stride=window.stride, padding=(0, 0, 0, 0))
    x = int8s(2, 3, 5, 6)
    height, width = window.output(5, 6)
    m = np.random.default_rng(0).integers(-(1 << 31), 1 << 31, (height, width)).astype(np.int32)
    op = QAvgPool2d(kernel=window.kernel, stride=window.stride, mul=None if per_position else mul, bias=bias,
                    shift=shift, lo=-128, hi=127)
    operands: tuple[NDArray[Any], ...] = (x, m) if per_position else (x,)
    y = op.reference(*operands)
    assert op.infer([TensorType.of(a) for a in operands]) == TensorType.of(y)
    for n, c, oh, ow in np.ndindex(y.shape):
        total = sum(int(tap[n, c]) for _, _, tap in taps(window, x, oh, ow))
        scaled = wrap(wrap(total * (int(m[oh, ow]) if per_position else mul)) + bias)
        assert y[n, c, oh, ow] == min(max(scaled >> shift, -128), 127)


@given(window=windows)
def test_qmax_pool2d(window: Window) -> None:
    x = int8s(1, 2, 6, 6)
    op = QMaxPool2d(kernel=window.kernel, stride=window.stride, padding=window.padding, dilation=window.dilation)
    if not window.covered(6, 6).all():
        with pytest.raises(GraphError, match=r"an element of the input, not none$"):
            op.infer([TensorType.of(x)])
        return
    y = op.reference(x)
    for n, c, oh, ow in np.ndindex(y.shape):
        assert y[n, c, oh, ow] == max(tap[n, c] for _, _, tap in taps(window, x, oh, ow))


def test_quantize_rounds_ties_to_even_and_clips() -> None:
    x = np.array([0.25, 0.75, 1.25, -0.25, -0.75, 63.9, 1e30, -1e30, np.inf], np.float32)
    y = Quantize(inv_scale=2.0, lo=-128, hi=127).reference(x)
    np.testing.assert_array_equal(y, [0, 2, 2, 0, -2, 127, 127, -128, 127])
    assert y.dtype == np.int8


def test_integers_that_stand_for_zero() -> None:
    x = np.array([0.0, 0.25, 0.75, -3.0, 100.0], np.float32)
    q = Quantize(inv_scale=2.0, zero_point=-100, lo=-128, hi=127).reference(x)
    np.testing.assert_array_equal(q, [-100, -100, -98, -106, 100])
    np.testing.assert_array_equal(Dequantize(scale=0.5, zero_point=-100).reference(q), [0, 0, 1, -3, 100])
    for op, sentence in (
        (Quantize(inv_scale=1.0, zero_point=128, lo=0, hi=1), "zero_point must be -128..127, not 128"),
        (QMul(mul=1, lo=0, hi=1, zero_points=(0, -129)), "zero_points[1] must be -128..127, not -129"),
        (RescaledMul(scale=1, relu=True, zero_point=3), "zero_point must be 0 with relu, not 3"),
        (QAdd(m0=1, lo=0, hi=1, shift=15, even=True), "shift must be 1..14, not 15"),
    ):
        types = {"quantize": [TensorType((1, 3, 4, 4), DType.FLOAT32)], "qadd": [q8(1, 3, 4, 4)]}
        with pytest.raises(GraphError) as refused:
            op.infer(types.get(op.kind, [q8(1, 3, 4, 4)] * 2))
        assert str(refused.value) == sentence


def test_quantize_multiplies_in_float32() -> None:
    inverse = float(np.float32(1 / 3))
    x = np.arange(-500, 500, dtype=np.float32) / np.float32(7)
    expected = np.clip(np.rint((x * np.float32(inverse)).astype(np.float32)), -32768, 32767)
    y = Quantize(inv_scale=inverse, lo=-32768, hi=32767, dtype=DType.INT16).reference(x)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == np.int16


def test_dequantize_and_relayout() -> None:
    q = int8s(1, 2, 3, 3)
    scale = float(np.float32(0.1))
    np.testing.assert_array_equal(Dequantize(scale=scale).reference(q), q.astype(np.float32) * np.float32(0.1))
    np.testing.assert_array_equal(Relayout().reference(q), q)


def q8(*shape: int) -> TensorType:
    return TensorType(shape, DType.INT8)


def i32(*shape: int) -> TensorType:
    return TensorType(shape, DType.INT32)


CONV = [q8(1, 2, 3, 3), q8(4, 2, 1, 1), i32(4), i32(4)]


@pytest.mark.parametrize(
    ("op", "types", "sentence"),
    [
        (QConv2d(lo=0, hi=1), CONV[:3], "number of inputs must be 4 or 5, not 3"),
        (QConv2d(lo=0, hi=1), [i32(1, 2, 3, 3), *CONV[1:]], "input must be int8 or int16, not int32[1,2,3,3]"),
        (QConv2d(lo=0, hi=1), [q8(1, 3, 3, 3), *CONV[1:]], "weight must have 3 input channels, not 2"),
        (QConv2d(lo=0, hi=1), [*CONV[:2], i32(3), i32(4)], "factor m must be int32[4], not int32[3]"),
        (QConv2d(lo=0, hi=1), [*CONV[:3], q8(4)], "bias b must be int32[4], not int8[4]"),
        (QConv2d(lo=0, hi=1, shift=32), CONV, "shift must be 0..31, not 32"),
        (QConv2d(lo=0, hi=1, pre_shift=-1), CONV, "pre_shift must be 0..31, not -1"),
        (QConv2d(lo=0, hi=128), CONV, "clip range must lie within -128..127, not 0..128"),
        (QConv2d(lo=1, hi=0), CONV, "clip range must lie within -128..127, not 1..0"),
        (QConv2d(lo=0, hi=1, r_mul=1), CONV, "r_mul must be 0 without a residual, not 1"),
        (QConv2d(lo=0, hi=1, r_mul=1 << 15), CONV, "r_mul must be -32767..32767, not 32768"),
        (QConv2d(lo=0, hi=1), [*CONV, q8(1, 4, 1, 1)], "residual must be int8[1,4,3,3], not int8[1,4,1,1]"),
        (QAdd(m0=1, m1=1, lo=0, hi=1), [q8(1, 2, 3, 3)], "m1 must be 0 without a second operand, not 1"),
        (QAdd(m0=1 << 31, lo=0, hi=1), [q8(1, 2, 3, 3)], "m0 must be -2147483647..2147483647, not 2147483648"),
        (ExactConv2d(fine=0, shift=0, lo=0, hi=1), CONV, "number of inputs must be 6 or 7, not 4"),
        (
            ExactConv2d(fine=0, shift=0, r_mul=1, lo=0, hi=1),
            [*CONV, i32(4), i32(4)],
            "r_mul must be 0 without a residual, not 1",
        ),
        (ExactConv2d(fine=0, shift=0, lo=0, hi=1), [*CONV, i32(4), i32(3)], "bias b must be int32[4], not int32[3]"),
        (ExactConv2d(fine=32, shift=0, lo=0, hi=1), [*CONV, i32(4), i32(4)], "fine must be 0..31, not 32"),
        (RescaledConv2d(mul=0), CONV, "mul must be 1..32767, not 0"),
        (QAdd(m0=1, lo=0, hi=1), [q8(1, 2), q8(1, 2)], "input must have rank 4, not int8[1,2]"),
        (QExtreme(m0=1, m1=1 << 15, lo=0, hi=1), [q8(1, 2, 3, 3)], "m1 must be -32767..32767, not 32768"),
        (QExtreme(m0=1, m1=1, lo=0, hi=1), [q8(1, 2, 3, 3)] * 3, "number of inputs must be 1 or 2, not 3"),
        (QExtreme(m0=1, m1=None, lo=0, hi=1), [q8(1, 2, 3, 3)], "number of inputs must be 2, not 1"),
        (QExtreme(m0=1, m1=None, lo=0, hi=1), [q8(1, 2, 3, 3), i32(3)], "factor m must be int32[2], not int32[3]"),
        (
            QExtreme(m0=1, m1=1, lo=0, hi=1),
            [q8(1, 2, 3, 3), q8(1, 2, 1, 1)],
            "second operand must be int8[1,2,3,3], not int8[1,2,1,1]",
        ),
        (
            QAvgPool2d(kernel=(2, 2), mul=None, lo=0, hi=1),
            [q8(1, 2, 3, 3), i32(2, 3)],
            "factor m must be int32[2,2], not int32[2,3]",
        ),
        (
            QAvgPool2d(kernel=(2, 2), mul=1, lo=0, hi=1),
            [q8(1, 2, 3, 3), i32(2, 2)],
            "number of inputs must be 1, not 2",
        ),
        (
            QAvgPool2d(kernel=(2, 2), mul=1, bias=1 << 31, lo=0, hi=1),
            [q8(1, 2, 3, 3)],
            "bias must be -2147483647..2147483647, not 2147483648",
        ),
        (
            Quantize(inv_scale=0.1, lo=0, hi=1),
            [TensorType((1,), DType.FLOAT32)],
            "inv_scale must be a positive finite float32, not 0.1",
        ),
        (
            Quantize(inv_scale=0.5, lo=0, hi=1, scale=0.1),
            [TensorType((1,), DType.FLOAT32)],
            "scale must be a positive finite float32, not 0.1",
        ),
        (Dequantize(scale=0.0), [q8(1)], "scale must be a positive finite float32, not 0.0"),
    ],
)
def test_refusal(op: Op, types: list[TensorType], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        op.infer(types)
    assert str(caught.value) == sentence
