"""The chosen integers against exact real arithmetic, and the bounds against the worst inputs there are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compiler.errors import QuantizeError
from compiler.graph.ir import Graph
from compiler.graph.ops.qconv import MAX_FACTOR, QConv2d, two_factors
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.ops.rescaled import RescaledConv2d, scale_word
from compiler.graph.quantize.bounds import Interval, conv_accumulator, prove
from compiler.graph.quantize.convolutions import quantize_weights
from compiler.graph.quantize.scaling import (
    GOOD_COST,
    CommonRatio,
    ConvProblem,
    ConvScaling,
    Term,
    common_ratio,
    residual_factors,
    scale_conv,
    scale_exactly,
    scale_rescale,
    scale_sum,
)
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder

CHANNELS = 6

POWERS = {1 << k for k in range(16)}


def problem(seed: int, *, fan_in: int, spread: float, residual: bool) -> tuple[np.ndarray, ConvProblem]:
    """Weights and a problem as networks have them: results fill int8, channels differ by up to `spread`."""
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, (CHANNELS, fan_in, 1, 1)).astype(np.int8)
    low, high = conv_accumulator(w, Interval(lo=-128, hi=127))
    typical = 40 * 70 * np.sqrt(fan_in)
    factor = 60 / typical * rng.uniform(1 / spread, 1, CHANNELS)
    return w, ConvProblem(
        acc_low=low, acc_high=high, factor=factor, offset=rng.uniform(-60, 60, CHANNELS), lo=-128, hi=127,
        residual=Term(ratio=float(rng.uniform(0.1, 1.2)), lo=0, hi=127) if residual else None,
    )


def ideal(problem: ConvProblem, scaling: ConvScaling, acc: np.ndarray, r: np.ndarray) -> np.ndarray:
    """float64 [..., channels]: the real result, before rounding and clipping, of the factor that was chosen."""
    ratio = problem.residual.ratio if problem.residual else 0.0
    return acc * scaling.factor + problem.offset + r * ratio


def integers(problem: ConvProblem, scaling: ConvScaling, acc: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The op on accumulators, in Python's unbounded integers, every intermediate checked to be an int32."""
    wide = (acc.astype(object) >> scaling.pre_shift) * scaling.m.astype(object)
    for partial in (wide, wide + scaling.b, wide + scaling.b + r * scaling.r_mul, wide + r * scaling.r_mul):
        assert partial.min() >= -(1 << 31)
        assert partial.max() < 1 << 31
    return np.clip((wide + scaling.b + r * scaling.r_mul) >> scaling.shift, problem.lo, problem.hi).astype(np.int64)


@given(
    seed=st.integers(0, 10_000),
    fan_in=st.sampled_from([1, 9, 64, 576, 4608]),
    spread=st.sampled_from([1.0, 4.0, 100.0]),
    residual=st.booleans(),
    max_shift=st.sampled_from([15, 30]),
)
def test_requantisation_is_within_its_error_bound(
    seed: int, fan_in: int, spread: float, residual: bool, max_shift: int
) -> None:
    w, given_problem = problem(seed, fan_in=fan_in, spread=spread, residual=residual)
    scaling = scale_conv(given_problem, max_shift=max_shift)
    assert 0 <= scaling.pre_shift <= 15
    assert 0 <= scaling.shift <= max_shift
    assert abs(scaling.r_mul) <= 32767
    assert (scaling.factor >= given_problem.factor).all()
    np.testing.assert_array_equal(scaling.factor * 2.0 ** (scaling.pre_shift + scaling.shift), scaling.m)
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (500, fan_in))
    x[0], x[1] = 127, -128
    x[2], x[3] = np.where(w[0, :, 0, 0] > 0, 127, -128), np.where(w[0, :, 0, 0] > 0, -128, 127)
    acc = x @ w[:, :, 0, 0].T.astype(np.int64)
    r = rng.integers(0, 128, (500, 1)) if residual else np.zeros((500, 1), np.int64)
    real = ideal(given_problem, scaling, acc, r)
    actual = integers(given_problem, scaling, acc, r)
    expected = np.clip(np.floor(real + 0.5), -128, 127)
    assert np.abs(actual - expected).max() <= 1
    unclipped = np.abs(real) < 127
    distance = np.abs(actual - real)[unclipped]
    assert distance.max(initial=0.0) <= 0.5 + scaling.error + 1e-9


def test_requantisation_rarely_differs_from_the_ideal() -> None:
    wrong = total = 0
    for seed in range(20):
        w, given_problem = problem(seed, fan_in=288, spread=4.0, residual=seed % 2 == 0)
        scaling = scale_conv(given_problem, max_shift=30)
        x = np.random.default_rng(seed).integers(0, 128, (500, 288))
        acc = x @ w[:, :, 0, 0].T.astype(np.int64)
        r = np.random.default_rng(seed).integers(0, 128, (500, 1))
        expected = np.clip(np.floor(ideal(given_problem, scaling, acc, r) + 0.5), -128, 127)
        wrong += int((integers(given_problem, scaling, acc, r) != expected).sum())
        total += expected.size
    assert wrong / total < 0.005


def test_no_pre_shift_where_none_is_needed() -> None:
    _, easy = problem(0, fan_in=64, spread=1.0, residual=False)
    scaling = scale_conv(easy, max_shift=30)
    assert scaling.pre_shift == 0
    assert scaling.cost <= GOOD_COST
    assert (scaling.factor < 1.01 * easy.factor).all()


def test_no_multiplier() -> None:
    w, given_problem = problem(0, fan_in=64, spread=4.0, residual=True)
    scaling = scale_conv(replace(given_problem, multiply=False), max_shift=15)
    assert set(scaling.m.tolist()) == {1}
    assert two_factors(scaling.r_mul, 8) is not None  # a weight, shifted
    assert scale_conv(replace(given_problem, multiply=False, residual_levels=1), max_shift=15).r_mul in POWERS
    assert given_problem.factor.max() <= 2.0**-scaling.shift < 2 * given_problem.factor.max()
    x = np.random.default_rng(0).integers(-128, 128, (100, 64))
    acc = x @ w[:, :, 0, 0].T.astype(np.int64)
    r = np.random.default_rng(1).integers(0, 128, (100, 1))
    expected = np.clip(np.floor(ideal(given_problem, scaling, acc, r) + 0.5), -128, 127)
    assert np.abs(integers(given_problem, scaling, acc, r) - expected).max() <= 1


def test_dead_channels_cost_nothing() -> None:
    zero = np.zeros(2, np.int64)
    dead = ConvProblem(acc_low=zero, acc_high=zero, factor=np.zeros(2), offset=np.array([3.0, -200.0]), lo=-128, hi=127)
    scaling = scale_conv(dead, max_shift=30)
    assert scaling.error < 1e-3
    np.testing.assert_array_equal(np.clip(scaling.b >> scaling.shift, -128, 127), [3, -128])


def test_conv_that_cannot_be_scaled_is_refused() -> None:
    ones = np.ones(1, np.int64)
    bad = ConvProblem(acc_low=-ones << 30, acc_high=ones << 30, factor=np.array([100_000.0]), offset=np.array([2.0]),
                      lo=-128, hi=127)
    with pytest.raises(QuantizeError) as caught:
        scale_conv(bad, max_shift=30)
    assert str(caught.value) == (
        "accumulators of up to 1073741824, scaled by up to 100000, and a bias of up to 2 steps of the result "
        "must fit in int32 together"
    )
    with pytest.raises(QuantizeError) as caught:
        scale_conv(replace(bad, factor=np.array([1.5]), multiply=False), max_shift=30)
    assert str(caught.value) == "sums of products must be scaled by at most 1 where shifts alone scale them, not by 1.5"


@given(ratios=st.lists(st.floats(0.001, 50.0), min_size=1, max_size=2), sign=st.sampled_from([1, -1]))
@settings(max_examples=200)
def test_two_ratios_have_a_common_factor(ratios: list[float], sign: int) -> None:
    """Within what the best fraction with 15 bits leaves: less than 1 / 2**15 of the larger, mostly far less."""
    ratios[-1] *= sign
    terms = tuple(Term(ratio=ratio, lo=-128, hi=127) for ratio in ratios)
    common = common_ratio(terms)
    assert max(map(abs, common.multipliers)) <= MAX_FACTOR
    off = [abs(m * common.factor - term.ratio) for m, term in zip(common.multipliers, terms, strict=True)]
    assert max(off) <= max(map(abs, ratios)) / MAX_FACTOR
    assert common.error == pytest.approx(128 * sum(off))


def test_a_common_factor_is_exact_where_it_can_be() -> None:
    terms = (Term(ratio=0.75, lo=-128, hi=127), Term(ratio=-0.5, lo=0, hi=127))
    assert common_ratio(terms) == CommonRatio(multipliers=(3, -2), factor=0.25, error=0.0)
    assert common_ratio((Term(ratio=0.0, lo=0, hi=1),)) == CommonRatio(multipliers=(0,), factor=0.0, error=0.0)


@given(ratios=st.lists(st.floats(0.001, 50.0), min_size=1, max_size=2))
def test_sums(ratios: list[float]) -> None:
    scaling = scale_sum(tuple(Term(ratio=ratio, lo=-128, hi=127) for ratio in ratios))
    assert max(scaling.multipliers) <= 32767
    assert scaling.bias in (0, 1 << scaling.shift >> 1)
    assert scaling.bias <= 32767
    for values in ((127, 127), (-128, -128), (127, -128), (3, 1)):
        total = sum(m * value for m, value in zip(scaling.multipliers, values, strict=False)) + scaling.bias
        real = sum(Fraction(ratio) * value for ratio, value in zip(ratios, values, strict=False))
        assert abs((total >> scaling.shift) - real) <= 0.5 + scaling.error + 1e-9


@settings(max_examples=25, deadline=None)
@given(ratios=st.lists(st.floats(0.01, 4.0), min_size=1, max_size=2))
def test_sums_with_factors_that_are_loaded_round_as_the_reals_do(ratios: list[float]) -> None:
    terms = tuple(Term(ratio=ratio, lo=-128, hi=127) for ratio in ratios)
    scaling = scale_sum(terms, max_shift=30)
    assert scaling.error < 2e-4
    axes = np.meshgrid(*[np.arange(-128, 128)] * len(ratios), indexing="ij")
    total = sum(x * m for x, m in zip(axes, scaling.multipliers, strict=True)) + scaling.bias
    assert np.abs(total).max() < 1 << 31
    exact = sum(x * ratio for x, ratio in zip(axes, ratios, strict=True))
    others = (total >> scaling.shift) != np.rint(exact)
    assert np.abs(np.abs(exact - np.floor(exact)) - 0.5)[others].max(initial=0) < 2e-4


@given(
    seed=st.integers(0, 10_000),
    fan_in=st.sampled_from([1, 9, 64, 576, 4608]),
    spread=st.sampled_from([1.0, 4.0]),
    max_shift=st.sampled_from([15, 30]),
)
def test_two_factors_are_within_their_error_bound(seed: int, fan_in: int, spread: float, max_shift: int) -> None:
    w, single = problem(seed, fan_in=fan_in, spread=spread, residual=False)
    single = replace(single, given=True)
    scaling = scale_exactly(single, max_shift=max_shift)
    assert scaling is not None
    assert scaling.error < (5e-4 if max_shift == 30 else 0.1)
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.integers(-128, 128, (200, fan_in)), np.sign(w[:, :, 0, 0]) * 127]).astype(np.int64)
    acc = x @ w[:, :, 0, 0].T.astype(np.int64)
    cut = np.clip(acc, -scaling.reach, scaling.reach)
    fine = cut * scaling.n
    total = cut * scaling.m + (fine >> scaling.fine)
    for partial in (fine, total, total + scaling.b):
        assert np.abs(partial).max() < 1 << 31
    y = np.clip((total + scaling.b) >> scaling.shift, single.lo, single.hi)
    exact = np.clip(acc * single.factor + single.offset, single.lo, single.hi)
    assert np.abs(y - exact).max() <= 0.5 + scaling.error


def test_two_factors_that_do_not_fit() -> None:
    ones = np.ones(1, np.int64)
    bad = ConvProblem(
        acc_low=-ones, acc_high=ones, factor=np.array([1.0]), offset=np.array([float(1 << 31)]), lo=-128, hi=127
    )
    assert scale_exactly(bad, max_shift=30) is None


def test_sum_that_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(QuantizeError, match=r"^operands must be rescaled by at most 32767, not 40000$"):
        scale_sum((Term(ratio=40_000.0, lo=-128, hi=127),))


@given(seed=st.integers(0, 1000), bits=st.sampled_from([4, 8, 16]), reach=st.sampled_from([7, 128, 1 << 15]))
def test_weights_keep_the_accumulator_in_range(seed: int, bits: int, reach: int) -> None:
    w = np.random.default_rng(seed).standard_normal((3, 500, 2, 2)).astype(np.float32)
    w[1] = 0
    q, scale = quantize_weights(w, bits=bits, reach=reach)
    assert q.dtype == (np.int16 if bits == 16 else np.int8)
    assert np.abs(q.astype(np.int64)).max() <= (1 << (bits - 1)) - 1
    assert np.abs(q.astype(np.int64)).reshape(3, -1).sum(axis=1).max() * reach < 1 << 31
    assert np.abs(q * scale.reshape(-1, 1, 1, 1) - w).max() <= scale.max() / 2 * (1 + 1e-6)
    assert scale[1] == 1.0
    if reach < 1 << 15:
        np.testing.assert_allclose(scale[0], np.abs(w[0]).max() / ((1 << (bits - 1)) - 1))


def test_too_many_products_are_refused() -> None:
    w = np.ones((1, 1 << 17, 1, 1), np.float32)
    with pytest.raises(QuantizeError, match=r"^an output must sum fewer than 131071 products, not 131072$"):
        quantize_weights(w, bits=16, reach=1 << 15)


def conv_graph(w: np.ndarray, m: int, b: int, **attributes: int) -> Builder:
    builder = Builder()
    x = builder.input(1, w.shape[1], 1, 1, dtype=DType.INT8)
    parameters = [builder.constant(np.full(len(w), value, np.int32)) for value in (m, b)]
    builder(QConv2d(lo=-128, hi=127, **attributes), x, builder.constant(w), *parameters)
    return builder


@given(seed=st.integers(0, 1000))
def test_proven_bounds_are_reached_and_not_exceeded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, (1, 20, 1, 1)).astype(np.int8)
    m, b = int(rng.integers(0, 1000)), int(rng.integers(-1000, 1000))
    peak = prove(conv_graph(w, m, b).graph("v0"))["v0"]
    flat = w.reshape(-1).astype(np.int64)
    highest = int(flat @ np.where(flat > 0, 127, -128))
    lowest = int(flat @ np.where(flat > 0, -128, 127))
    assume(m >= 1)
    assert peak.hi == max(highest * m + max(b, 0), highest)
    assert peak.lo == min(lowest * m + min(b, 0), lowest)


def test_overflow_is_found() -> None:
    w = np.full((1, 4, 1, 1), 127, np.int8)
    prove(conv_graph(w, 33_026, 0).graph("v0"))
    with pytest.raises(QuantizeError) as caught:
        prove(conv_graph(w, 33_027, 0).graph("v0"))
    assert str(caught.value) == "Layer 'qconv2d v0' must stay within int32, not reach -2147547648..2130769932"


def rescaled_graph(w: np.ndarray, b: int, m: int, r_mul: int) -> Graph:
    """A convolution that ends in REQUANT, with a residual; w int8 [1,C,1,1]."""
    builder = Builder()
    x = builder.input(1, w.shape[1], 1, 1, dtype=DType.INT8)
    r = builder.input(1, 1, 1, 1, dtype=DType.INT8, name="r")
    b_and_scale = [builder.constant(np.array([value], np.int32)) for value in (b, scale_word(1, 0))]
    factor = builder.constant(np.array([m], np.int8))
    output = builder(RescaledConv2d(r_mul=r_mul), x, builder.constant(w), *b_and_scale, r, factor)
    return builder.graph(output)


def test_bounds_of_a_rescaled_convolution() -> None:
    w = np.array([3, -5], np.int8).reshape(1, 2, 1, 1)
    (peak,) = prove(rescaled_graph(w, 1000, -7, 10)).values()
    assert (peak.lo, peak.hi) == (3 * -128 - 5 * 127 - 70 * 127, 3 * 127 + 5 * 128 + 70 * 128 + 1000)
    with pytest.raises(QuantizeError, match=r"must stay within int32, not reach .*\.\.2147483648$"):
        prove(rescaled_graph(np.zeros((1, 1, 1, 1), np.int8), (1 << 31) - 128, -1, 1))


@given(st.lists(st.floats(2.0**-62, 2.0**23.9), min_size=1, max_size=5))
def test_rescaling_is_as_near_as_24_bits_allow(ratios: list[float]) -> None:
    factor, shift = scale_rescale(np.array(ratios))
    for ratio, f, s in zip(ratios, factor.tolist(), shift.tolist(), strict=True):
        assert 0 < f < 1 << 24
        assert 0 <= s <= 63
        error = abs(Fraction(f, 1 << s) - Fraction(ratio))
        assert error <= max(Fraction(ratio) / (1 << 23), Fraction(1, 1 << 64))


@given(st.lists(st.floats(4.0, 1e6), min_size=1, max_size=6), st.sampled_from([7, 127]))
def test_a_residual_is_multiplied_by_no_more_than_its_share(ratios: list[float], levels: int) -> None:
    found = residual_factors(np.array(ratios), levels=levels)
    assert found is not None
    m, r_mul = found
    product = m * r_mul
    assert ((m >= 4) & (m <= levels) & (product <= np.array(ratios))).all()
    cut = m == levels
    assert (product[~cut] > np.array(ratios)[~cut] * 0.8).all()
    if max(ratios) <= levels:
        assert r_mul == 1


def test_a_residual_finer_than_its_units_has_no_factors() -> None:
    assert residual_factors(np.array([100.0, 3.9]), levels=127) is None


def test_what_cannot_be_rescaled_is_refused() -> None:
    with pytest.raises(QuantizeError) as caught:
        scale_rescale(np.array([1.0, 2.0**24]))
    assert str(caught.value) == "sums of products must be scaled by less than 2**24, not 1.67772e+07"
    assert scale_rescale(np.array([2.0**-70]))[0].tolist() == [0]


def test_overflow_of_the_bias_is_found() -> None:
    w = np.full((1, 1, 1, 1), 1, np.int8)
    prove(conv_graph(w, 1, (1 << 31) - 128).graph("v0"))
    with pytest.raises(QuantizeError, match=r"must stay within int32, not reach -128\.\.2147483648$"):
        prove(conv_graph(w, 1, (1 << 31) - 127).graph("v0"))


def test_bounds_follow_the_range_of_the_producer() -> None:
    b = Builder()
    x = b.input(1, 1, 2, 2, dtype=DType.INT8)
    small = b(QAdd(m0=1, lo=0, hi=3), x)
    b(QAdd(m0=100, m1=-50, bias=7, lo=-128, hi=127), small, small)
    assert prove(b.graph("v1"))["v1"] == Interval(lo=-150, hi=307)


def test_interval_bits() -> None:
    assert [Interval(lo=lo, hi=hi).bits for lo, hi in ((0, 0), (-1, 0), (0, 1), (-128, 127), (-129, 0), (0, 128))] == [
        1, 1, 2, 8, 9, 9,
    ]  # fmt: skip


def test_computed_weights_are_refused() -> None:
    b = Builder()
    x = b.input(1, 1, 1, 1, dtype=DType.INT8)
    parameters = [b.constant(np.zeros(1, np.int32)) for _ in range(2)]
    b(QConv2d(lo=0, hi=1), x, x, *parameters)
    with pytest.raises(QuantizeError) as caught:
        prove(b.graph("v0"))
    assert str(caught.value) == "Layer 'qconv2d v0' must have constant parameters, not the computed 'x'"
