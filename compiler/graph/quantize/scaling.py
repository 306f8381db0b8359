"""From real factors to the integers of the quantised ops.

Every function looks for the shift, and the multipliers that go with it, whose result is nearest to the real one while
no intermediate can leave int32. Errors are worst-case bounds in units of the result, before its final rounding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from compiler.errors import QuantizeError
from compiler.graph.ops.qconv import MAX_FACTOR
from compiler.graph.ops.rescaled import FACTOR_BITS, MAX_SHIFT
from compiler.graph.quantize.bounds import Interval
from compiler.tensor.tiles import is_power_of_two

INT32_MAX = (1 << 31) - 1
MAX_PRE_SHIFT = 15
MAX_IMMEDIATE_SHIFT = 15
"""For shifts whose rounding constant is an immediate: 1 << 14 is the largest power of two in 16 signed bits."""
MAX_RESIDUAL_SHIFT = 14
"""The largest power of two in 16 signed bits: an immediate."""
LEAST_RESIDUAL_FACTOR = 4
"""A smaller one would make weights coarser by more than a fifth."""
_MOST_SUMS = 1 << 18
"""Of so many, each is looked at: what becomes of it decides between multipliers that are equally near."""
_BIAS_MOVES = (0, 4, -4, 16, -16, 64, -64)
"""Millionths of a step, where shifts are as large as multipliers of 24 bits allow."""
_FLOAT32 = 2.0**-12
"""Steps of the result, of some thousand that a sum may have."""
LEAST_MULTIPLIER = 64
"""A smaller one would make steps of the result coarser by more than this part of one."""
GOOD_COST = 1 / 8
"""A cost below this is not worth the extra pass over the accumulators that a pre-shift takes."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Term:
    """An operand that is multiplied by a scalar: real factor, and the range of the integers it is applied to.

    zero_point: of these the one that stands for 0.
    """

    ratio: float
    lo: int
    hi: int
    zero_point: int = 0

    @property
    def centred(self) -> Term:
        """The same with the zero point taken off the integers."""
        return replace(self, lo=self.lo - self.zero_point, hi=self.hi - self.zero_point, zero_point=0)

    @property
    def reach(self) -> int:
        """Largest number of steps from 0."""
        return max(abs(self.lo - self.zero_point), abs(self.hi - self.zero_point))


@dataclass(frozen=True, kw_only=True)
class ConvProblem:
    """y = acc * factor + offset + residual, per output channel, in units of y; y is then clipped to lo..hi.

    acc_low, acc_high: bounds of the accumulator that also hold for every partial sum. factor: the least that the
    weights allow; a larger one means coarser weights, of which `levels` is the largest integer. given: whether weights
    are what they are, so that the factor is to be met. multiply: whether m may be other than 1. residual_levels: where
    it may not, the largest weight by which a residual is multiplied before it is shifted.
    """

    acc_low: Ints
    acc_high: Ints
    factor: Floats
    offset: Floats
    lo: int
    hi: int
    levels: int = 127
    given: bool = False
    multiply: bool = True
    residual_levels: int = 127
    residual: Term | None = None

    @property
    def span(self) -> Floats:
        """Largest magnitude that acc * factor can have in a result that is not clipped."""
        span = max(abs(self.lo), abs(self.hi)) + np.abs(self.offset)
        if self.residual is not None:
            span = span + self.residual.ratio * self.residual.reach
        reach: Floats = np.maximum(-self.acc_low, self.acc_high) * self.factor
        least: Floats = np.minimum(reach, span)
        return least


@dataclass(frozen=True, kw_only=True)
class ConvScaling:
    """m / 2**(pre_shift + shift) is `factor`, exactly, and at least the one asked for: weights are to be made for it.

    Where weights are given it is the nearest to that instead, and what that adds at most is in `error`. cost: what the
    search minimises, `error` and the noise that coarser weights add, in units of the result.
    """

    pre_shift: int
    shift: int
    m: Ints
    b: Ints
    r_mul: int
    factor: Floats
    error: float
    cost: float


def scale_conv(problem: ConvProblem, *, max_shift: int) -> ConvScaling:
    """The integers of `QConv2d`: without a pre-shift when that is good enough, else those with the least cost.

    Since the scale of each channel's weights is free, the multiplier need not be rounded: it is the next integer, and
    the weights' scale follows. Where weights are given it is the nearest. Raises QuantizeError when even shift 0
    overflows.
    """
    best: ConvScaling | None = None
    for pre_shift in range(MAX_PRE_SHIFT + 1 if problem.multiply else 1):
        for shift in range(max_shift + 1):
            candidate = _conv_candidate(problem, pre_shift, shift)
            if candidate is not None and (best is None or candidate.cost < best.cost):
                best = candidate
        if pre_shift == 0 and best is not None and best.cost <= GOOD_COST:
            break
    if best is None and not problem.multiply and problem.factor.max(initial=0) > 1:
        raise QuantizeError(f"sums of products must be scaled by at most 1 where shifts alone scale them, not by "
                            f"{problem.factor.max():.6g}")
    if best is None:
        reach = max(-int(problem.acc_low.min()), int(problem.acc_high.max()))
        offset = float(np.abs(problem.offset).max())
        raise QuantizeError(f"accumulators of up to {reach}, scaled by up to {problem.factor.max():.6g}, and a bias "
                            f"of up to {offset:.6g} steps of the result must fit in int32 together")
    return best


def _conv_candidate(problem: ConvProblem, pre_shift: int, shift: int) -> ConvScaling | None:
    """The integers for these shifts, or None where an intermediate could leave int32."""
    one, unit = float(1 << shift), float(1 << (shift + pre_shift))
    m = np.rint(problem.factor * unit) if problem.given else np.ceil(problem.factor * unit)
    if not problem.multiply:
        if m.max(initial=0) > 1:
            return None
        m = np.ones_like(m)
    r_mul = round(problem.residual.ratio * one) if problem.residual else 0
    if not problem.multiply:
        r_mul = _weight_and_shift(r_mul, problem.residual_levels)
    offset = problem.offset * one - (r_mul * problem.residual.zero_point if problem.residual else 0)
    if m.max(initial=0) > INT32_MAX or np.abs(offset).max(initial=0) > INT32_MAX:
        return None
    lost = m * ((1 << pre_shift) - 1) / (1 << (pre_shift + 1))  # what the pre-shift drops on average, and at most again
    exact = offset + rounding(shift) + lost
    b = np.rint(exact)
    m_int, b_int = m.astype(np.int64), b.astype(np.int64)
    if abs(r_mul) > MAX_FACTOR or not _fits(problem, m_int, b_int, r_mul, pre_shift):
        return None
    error = np.abs(b - exact) / one + lost / one
    if problem.residual is not None:
        r = problem.residual
        error = error + abs(r_mul / one - r.ratio) * r.reach
    factor = m / unit
    coarser = np.divide(factor, problem.factor, out=np.ones_like(factor), where=problem.factor > 0) - 1
    if problem.given:
        error = error + np.abs(coarser) * problem.span
        cost = error
    else:
        cost = error + coarser * problem.span / problem.levels  # rounding a weight moves it by about 1 / levels
    return ConvScaling(pre_shift=pre_shift, shift=shift, m=m_int, b=b_int, r_mul=r_mul, factor=factor,
                       error=float(error.max()), cost=float(cost.max()))


def _weight_and_shift(number: int, levels: int) -> int:
    """The nearest product of a number of at most `levels`, one less than a power of two, and a power of two."""
    power = 1 << max(0, number.bit_length() - levels.bit_length())
    return (number + power // 2) // power * power


def _fits(problem: ConvProblem, m: Ints, b: Ints, r_mul: int, pre_shift: int) -> bool:
    """Whether every sum of some of the terms stays within int32."""
    low = np.minimum((problem.acc_low >> pre_shift) * m, 0) + np.minimum(b, 0)
    high = np.maximum((problem.acc_high >> pre_shift) * m, 0) + np.maximum(b, 0)
    if problem.residual is not None:
        low = low + min(0, problem.residual.lo * r_mul)
        high = high + max(0, problem.residual.hi * r_mul)
    return bool(low.min() >= -INT32_MAX - 1 and high.max() <= INT32_MAX)


@dataclass(frozen=True, kw_only=True)
class ExactScaling:
    """Integers of `ExactConv2d`, and its error as in `ConvScaling`."""

    reach: Ints
    m: Ints
    n: Ints
    b: Ints
    r_mul: int
    fine: int
    shift: int
    error: float


def scale_exactly(problem: ConvProblem, *, max_shift: int) -> ExactScaling | None:
    """The integers of `ExactConv2d` for weights that are given: the largest shifts for which they fit; None if none."""
    limits = np.maximum(-problem.acc_low, problem.acc_high)
    r = problem.residual or Term(ratio=0.0, lo=0, hi=0)
    # Sums of products that leave the result within its clip, in steps of it.
    needed = np.abs(problem.offset) + r.reach * r.ratio + max(abs(problem.lo), abs(problem.hi)) + 1
    clipped = np.divide(needed, problem.factor, out=np.zeros_like(needed), where=problem.factor > 0)
    reach = np.minimum(limits, np.ceil(clipped)).astype(np.int64)
    for shift in range(max_shift, -1, -1):
        one = float(1 << shift)
        scaled = problem.factor * one
        r_mul = round(r.ratio * one)
        offset = problem.offset * one - r_mul * r.zero_point
        m, b = np.rint(scaled), np.rint(offset) + rounding(shift)
        if (reach * (m + 1) + np.abs(b)).max(initial=0) + max(abs(r.lo), abs(r.hi)) * r_mul > INT32_MAX:
            continue
        room = INT32_MAX / max(int(reach.max(initial=1)), 1)
        fine = min(math.floor(math.log2(room)) + 1, max_shift)  # n is at most half of 2**fine
        n = np.rint((scaled - m) * (1 << fine))
        error = np.abs(scaled - m - n / (1 << fine)) * reach + np.abs(b - rounding(shift) - offset) + 1
        lost = r.reach * abs(r_mul - r.ratio * one)
        return ExactScaling(reach=reach, m=m.astype(np.int64), n=n.astype(np.int64), b=b.astype(np.int64), r_mul=r_mul,
                            fine=fine, shift=shift, error=(float(error.max()) + lost) / one)
    return None


def rounding(shift: int) -> int:
    """What to add before `>> shift` so that it rounds to nearest, ties upwards."""
    return 1 << (shift - 1) if shift else 0


def scale_rescale(ratio: Floats) -> tuple[Ints, Ints]:
    """Factors and shifts of a REQUANT, ``factor / 2**shift`` being nearest to each positive `ratio`.

    Raises QuantizeError for a ratio of 2**24 or more; one that is too small for any shift becomes zero.
    """
    _, exponent = np.frexp(ratio)
    shift = np.clip(FACTOR_BITS - exponent, 0, MAX_SHIFT)
    factor = np.rint(ratio * 2.0**shift)
    # What rounds up to a power of two has one bit too many.
    shift = np.where((factor == 1 << FACTOR_BITS) & (shift > 0), shift - 1, shift)
    factor = np.rint(ratio * 2.0**shift)
    if factor.max(initial=0) >= 1 << FACTOR_BITS:
        raise QuantizeError(f"sums of products must be scaled by less than 2**{FACTOR_BITS}, not {ratio.max():.6g}")
    return factor.astype(np.int64), shift.astype(np.int64)


def residual_factors(ratio: Floats, *, levels: int) -> tuple[Floats, int] | None:
    """(m, r_mul): integers of at most `levels`, and a power of two, that a residual is multiplied by.

    ratio: units of each channel's accumulator in a step of the residual. The products ``m * r_mul`` are at most these:
    a channel's units can be made to fit them, since weights may be coarser than they have to be. r_mul is the least
    for which no m must be cut to `levels`, unless the smallest m would then lose more than a fifth. None where one is
    that small even for an r_mul of 1.
    """
    room = math.floor(math.log2(ratio.min() / LEAST_RESIDUAL_FACTOR))
    if room < 0:
        return None
    shift = min(max(0, math.ceil(math.log2(ratio.max() / levels))), room, MAX_RESIDUAL_SHIFT)
    return np.minimum(np.floor(ratio / (1 << shift)), levels), 1 << shift


@dataclass(frozen=True, kw_only=True)
class ProductScaling:
    """ratio: what the integers multiply by, exactly; at most the one asked for."""

    pre_shift: int
    mul: int
    shift: int
    ratio: float


def scale_product(ratio: float, acc: Interval, *, multiply: bool) -> ProductScaling:
    """Integers for ``((acc >> pre_shift) * mul + rounding) >> shift``, in steps that are not finer than asked for.

    multiply: whether mul may be other than 1. Raises QuantizeError when nothing fits.
    """
    best: ProductScaling | None = None
    for pre_shift in range(MAX_PRE_SHIFT + 1):
        for shift in range(MAX_IMMEDIATE_SHIFT, -1, -1):
            unit = 1 << (pre_shift + shift)
            mul = min(math.floor(ratio * unit), MAX_FACTOR if multiply else 1)
            reach = max(-acc.lo >> pre_shift, acc.hi >> pre_shift) + 1
            if mul >= 1 and reach * mul + rounding(shift) <= INT32_MAX and (best is None or mul / unit > best.ratio):
                best = ProductScaling(pre_shift=pre_shift, mul=mul, shift=shift, ratio=mul / unit)
        if best is not None and (best.mul >= LEAST_MULTIPLIER or not multiply):
            break
    if best is None:
        raise QuantizeError(f"sums of products up to {max(-acc.lo, acc.hi)}, scaled by {ratio:.6g}, must fit in int32")
    return best


@dataclass(frozen=True, kw_only=True)
class CommonRatio:
    """``x_k * ratio_k`` summed is ``factor * sum of x_k * multipliers[k]``; error: at most, for the terms' ranges."""

    multipliers: tuple[int, ...]
    factor: float
    error: float


def common_ratio(terms: tuple[Term, ...]) -> CommonRatio:
    """Integers of at most `MAX_FACTOR` in the ratio of one or two terms: the best fraction with such a denominator.

    Most ratios are met to about 30 bits so, where a factor for each term would have 15.
    """
    largest = max((abs(term.ratio) for term in terms), default=0.0)
    if not largest:
        return CommonRatio(multipliers=tuple(0 for _ in terms), factor=0.0, error=0.0)
    fractions = [Fraction(term.ratio / largest).limit_denominator(MAX_FACTOR) for term in terms]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    multipliers = tuple(int(fraction * common) for fraction in fractions)
    factor = largest / common
    errors = (
        abs(m * factor - term.ratio) * term.reach
        for m, term in zip(multipliers, terms, strict=True)
    )
    return CommonRatio(multipliers=multipliers, factor=factor, error=math.fsum(errors))


@dataclass(frozen=True, kw_only=True)
class SumScaling:
    multipliers: tuple[int, ...]
    bias: int
    shift: int
    error: float

    @property
    def is_shifted(self) -> bool:
        """Whether shifts do all that the multipliers do, but for what a scale loses as a float32."""
        reduced = self.reduced.multipliers
        return self.error < _FLOAT32 and all(m == 1 or is_power_of_two(m) for m in reduced if m)

    @property
    def has_halves(self) -> bool:
        """Whether it is exact, in steps of which results may lie half way between two."""
        return not self.error and 1 <= self.reduced.shift <= MAX_RESIDUAL_SHIFT

    @property
    def reduced(self) -> SumScaling:
        """The same results without the factors of two that all multipliers have, and the shift would take off again."""
        twos = min([self.shift, *((m & -m).bit_length() - 1 for m in self.multipliers if m)])
        multipliers = tuple(m >> twos for m in self.multipliers)
        return replace(self, multipliers=multipliers, bias=self.bias >> twos, shift=self.shift - twos)


def scale_sum(terms: tuple[Term, ...], *, offset: float = 0.0, max_shift: int = MAX_IMMEDIATE_SHIFT) -> SumScaling:
    """Integers for clip((sum of x_k * multipliers[k] + bias) >> shift): the largest shift for which they fit.

    Multipliers and bias are immediates, unless larger shifts are allowed and nearer to what is asked for: then as many
    sums as possible are rounded as the real ones are. offset: what is added to the sum, in steps of the result. Raises
    QuantizeError when none fits.
    """
    if abs(offset) > MAX_FACTOR and max_shift <= MAX_IMMEDIATE_SHIFT:
        raise QuantizeError(f"an offset must be at most {MAX_FACTOR} steps of the result, not {abs(offset):.6g}")
    narrow = _sum_within(terms, offset, MAX_IMMEDIATE_SHIFT, MAX_FACTOR)
    wide = _sum_within(terms, offset, max_shift, INT32_MAX) if max_shift > MAX_IMMEDIATE_SHIFT else None
    if wide is not None and (narrow is None or wide.error < narrow.error):
        return _rounding_alike(wide, terms, offset)
    if narrow is None:
        ratio = max(term.ratio for term in terms)
        raise QuantizeError(f"operands must be rescaled by at most {MAX_FACTOR}, not {ratio:.6g}")
    return narrow


def _sum_within(terms: tuple[Term, ...], offset: float, max_shift: int, limit: int) -> SumScaling | None:
    """limit: largest magnitude of a multiplier, and of the bias."""
    for shift in range(max_shift, -1, -1):
        multipliers = tuple(round(term.ratio * (1 << shift)) for term in terms)
        added = round(offset * (1 << shift))
        bias = added + rounding(shift) - sum(m * term.zero_point for m, term in zip(multipliers, terms, strict=True))
        if max(*map(abs, multipliers), abs(bias)) <= limit and _sum_fits(terms, multipliers, bias):
            errors = (
                abs(m / (1 << shift) - term.ratio) * term.reach
                for m, term in zip(multipliers, terms, strict=True)
            )
            error = math.fsum([*errors, abs(added / (1 << shift) - offset)])
            return SumScaling(multipliers=multipliers, bias=bias, shift=shift, error=error)
    return None


def _sum_fits(terms: tuple[Term, ...], multipliers: tuple[int, ...], bias: int) -> bool:
    products = [(m * term.lo, m * term.hi) for m, term in zip(multipliers, terms, strict=True)]
    high = max(0, bias) + sum(max(0, *pair) for pair in products)
    low = min(0, bias) + sum(min(0, *pair) for pair in products)
    return high <= INT32_MAX and low >= -INT32_MAX - 1


def _rounding_alike(scaling: SumScaling, terms: tuple[Term, ...], offset: float) -> SumScaling:
    """The integers beside these with which the fewest sums, of all that there are, are rounded to another integer."""
    if math.prod(term.hi - term.lo + 1 for term in terms) > _MOST_SUMS:
        return scaling
    axes = np.meshgrid(*(np.arange(term.lo, term.hi + 1) for term in terms), indexing="ij")
    reals = (term.ratio * (x - term.zero_point) for term, x in zip(terms, axes, strict=True))
    wanted = np.rint(sum(reals, np.float64(offset)))
    best, fewest = scaling, math.prod(wanted.shape) + 1
    for bias_by, *moves in itertools.product(_BIAS_MOVES, *[(0, -1, 1)] * len(terms)):
        multipliers = tuple(m + by for m, by in zip(scaling.multipliers, moves, strict=True))
        bias = scaling.bias + bias_by - sum(by * term.zero_point for by, term in zip(moves, terms, strict=True))
        if not _sum_fits(terms, multipliers, bias):
            continue
        total = sum((x * m for x, m in zip(axes, multipliers, strict=True)), np.int64(bias))
        others = int(np.count_nonzero(total >> scaling.shift != wanted))
        if others < fewest:
            best, fewest = replace(scaling, multipliers=multipliers, bias=bias), others
        if not fewest:
            break
    return best
