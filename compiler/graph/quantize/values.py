"""The two forms of an activation while a graph is being quantised: float32, and integers with a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import MissingScaleError, QuantizeError
from compiler.graph.ir import Graph, Node, Op
from compiler.graph.machine import adds_activations
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.qelementwise import Dequantize, Quantize
from compiler.graph.ops.upsample import Interpolate
from compiler.graph.quantize.bounds import Interval
from compiler.graph.quantize.calibrate import Calibration, Magnitudes
from compiler.graph.quantize.given import Grid, given_grids
from compiler.graph.quantize.joined import joined
from compiler.graph.quantize.linked import linked
from compiler.graph.quantize.report import Method
from compiler.graph.quantize.scaling import Term
from compiler.graph.rewrite import Rewriter
from compiler.tensor.ir import DType
from vta_hw.spec.config import VTAConfig

MAX_SHIFT = 30
PORTABLE_SHIFT = 15


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """calibration, percent: how thresholds are read from the histograms of activations; percent is for PERCENTILE only.

    max_shift: largest shift amount, 0..30. None: 15, which is what every published VTA does (VTA spec 3.5) and costs no
    accuracy, but 30 where a model gives weights as integers, since these cannot be made for a shift.
    multiply: False is for machines without MUL. Every m of a convolution is 1, which saves a pass over the
    accumulators, at the price of weights that share one scale, a power of two times that of the activations; those that
    a model gives as integers are then rounded anew. Scales of what is added are powers of two apart, and what shifts
    cannot scale is computed by the host.
    correct_bias: whether biases take back what the rounding of weights adds to the mean of each result on the
    calibration inputs (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019);
    without such inputs they do not.
    equalise: whether channels between two convolutions are evened (`compiler.graph.passes.equalize`), where they are
    further apart than `least_unevenness`.
    """

    calibration: Calibration = Calibration.MSE
    percent: float = 99.99
    max_shift: int | None = None
    multiply: bool = True
    correct_bias: bool = True
    equalise: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise QuantizeError(f"percent must be above 0 and at most 100, not {self.percent}")
        if self.max_shift is not None and not 0 <= self.max_shift <= MAX_SHIFT:
            raise QuantizeError(f"max_shift must be 0..{MAX_SHIFT}, not {self.max_shift}")

    @property
    def least_unevenness(self) -> float | None:
        """`Equalize.least`, or None to leave channels as they are.

        As measured (bench/equalisation.py): weights that share one scale always gain; where each channel has its own,
        networks that are even by themselves lose some tenths of a decibel.
        """
        if not self.equalise:
            return None
        return 3.0 if self.multiply else 0.0

    def largest_shift(self, *, given: bool) -> int:
        """Of a convolution. given: whether the model gives its weights as integers."""
        if self.max_shift is not None:
            return self.max_shift
        return MAX_SHIFT if given else PORTABLE_SHIFT


@dataclass(frozen=True, kw_only=True)
class Integers:
    """An activation in integers: value of the new graph, and its grid."""

    name: str
    grid: Grid

    @property
    def scale(self) -> float:
        return self.grid.scale

    @property
    def range(self) -> Interval:
        return self.grid.range

    @property
    def zero_point(self) -> int:
        return self.grid.zero_point

    def term(self, scale: float) -> Term:
        """It as what is added in steps of that scale."""
        return Term(
            ratio=self.scale / scale, lo=self.range.lo, hi=self.range.hi, zero_point=self.zero_point
        )

    def is_on(self, grid: Grid) -> bool:
        """Whether each integer is what that grid has for the same real number."""
        alike = (self.scale, self.zero_point) == (grid.scale, grid.zero_point)
        return alike and self.range.is_within(grid.range)


def storage(bits: int) -> DType:
    """The dtype that holds integers of 4, 8 or 16 bits."""
    return DType.INT8 if bits <= 8 else DType.INT16


def symmetric(bits: int) -> Interval:
    return Interval(lo=-(1 << (bits - 1)), hi=(1 << (bits - 1)) - 1)


class Values:
    """Each value of the source graph exists in the new one as float, as integers, or both, made when asked for.

    Scales are those that the model gives, and read from the magnitudes, of calibration inputs, where it gives none.
    """

    def __init__(
        self,
        graph: Graph,
        magnitudes: Mapping[str, Magnitudes] | None,
        config: VTAConfig,
        options: QuantizeOptions,
    ) -> None:
        self.source, self.options, self.config = graph, options, config
        self.rewriter = Rewriter(graph)
        self.limits = symmetric(config.inp_bits)
        self._magnitudes = magnitudes
        self._given = given_grids(graph)
        self._linked = frozenset() if options.multiply else linked(graph)
        self._joined = joined(graph, self._own_scale)
        self._floats = {*(value.name for value in graph.inputs), *graph.constants}
        self._integers: dict[str, Integers] = {}

    def as_float(self, name: str, reader: Node) -> str:
        """The value in float32, under its own name."""
        if name not in self._floats:
            integers = self._integers[name]
            op = Dequantize(scale=integers.scale, zero_point=integers.zero_point)
            self.rewriter.emit(op, (integers.name,), like=reader, output=name)
            self._floats.add(name)
        return name

    def as_integers(self, name: str, reader: Node) -> Integers:
        if name not in self._integers:
            grid = self.grid(name)
            op = self._quantize_op(grid)
            hint = f"{name}.q"
            if name in self.source.constants:
                value = self.rewriter.constant(op.reference(self.source.constants[name]), hint)
            else:
                value = self.rewriter.emit(op, (name,), like=reader, output=self.rewriter.fresh(hint))
            self._integers[name] = Integers(name=value, grid=grid)
        return self._integers[name]

    def has_integers(self, name: str) -> bool:
        """Whether the value is computed in integers."""
        return name in self._integers

    def define_float(self, node: Node) -> None:
        """Keep a node that has no quantised form, or no scale; what the host has not as ops that it has."""
        inputs = tuple(self.as_float(name, node) for name in node.inputs)
        op = node.op
        if isinstance(op, Interpolate):
            *first, op = op.steps
            for step in first:
                inputs = (self.rewriter.emit(step, inputs[:3], like=node), *inputs[3:])
        if isinstance(op, FusedConv):
            inputs = (self.rewriter.emit(op.conv, inputs[:3], like=node), *inputs[3:])
            op = FusedAdd(lo=op.lo, hi=op.hi)
        self.rewriter.emit(op, inputs, like=node, output=node.output)
        self._floats.add(node.output)

    def scale_of(self, name: str) -> float:
        """Reals per step of a value, whether it is integers already or not."""
        return self._integers[name].scale if name in self._integers else self.grid(name).scale

    def define_integers(self, node: Node, op: Op, inputs: tuple[str, ...], grid: Grid) -> str:
        """Add the quantised form of a node; returns the name of the new value."""
        value = self.rewriter.emit(op, inputs, like=node, output=self.rewriter.fresh(f"{node.output}.q"))
        self._integers[node.output] = Integers(name=value, grid=grid)
        return value

    def same_integers(self, output: str, name: str) -> None:
        """The integers of one value are those of another, too."""
        self._integers[output] = self._integers[name]

    def method(self, name: str) -> Method:
        """Where the scale of a value comes from."""
        return Method.GIVEN if self._joined.get(name, name) in self._given else Method.CALIBRATED

    def grid(self, name: str, bound: float = math.inf) -> Grid:
        """Scale and range of a value's integers; magnitudes above `bound` are clipped anyway.

        The scale is 1.0 for a value that is always 0. Raises UnfitGridError for a range of the model's that the machine
        has not, MissingScaleError for a value without one if there are no calibration inputs.
        """
        if name in self._given:
            return self._given[name].within(self.limits)
        if name in self._joined:
            return self.grid(self._joined[name])
        return Grid(scale=self._measured_scale(name, bound), range=self.limits)

    def _own_scale(self, name: str) -> float | None:
        """Reals per step of a value if it is on no concatenation's grid; None if it has to be, or that is unknown.

        The machine may not be able to rescale it.
        """
        if name in self._given:
            return self._given[name].scale
        if self._magnitudes is None or not adds_activations(self.config):
            return None
        return self._measured_scale(name, math.inf)

    def _measured_scale(self, name: str, bound: float) -> float:
        if name in self.source.constants:
            threshold = float(np.abs(self.source.constants[name]).max(initial=0.0))
        elif self._magnitudes is None:
            raise MissingScaleError(f"value {name!r} must have a scale in the model, or calibration inputs be given")
        else:
            threshold = self._magnitudes[name].threshold(
                self.options.calibration, percent=self.options.percent, levels=self.limits.hi
            )
        scale = _usable(min(threshold, bound) / self.limits.hi)
        return 2.0 ** math.ceil(math.log2(scale)) if name in self._linked else scale

    def is_linked(self, name: str) -> bool:
        """Whether the scale of a value has to be a power of two, shifts alone being there for what it is added to."""
        return name in self._linked

    def means(self, name: str) -> NDArray[np.float64] | None:
        """Mean of each channel of an activation [N,C,H,W] of the source graph, float64 [C]; None if unknown."""
        if name in self.source.constants:
            means: NDArray[np.float64] = self.source.constants[name].mean(axis=(0, 2, 3), dtype=np.float64)
            return means
        return None if self._magnitudes is None else self._magnitudes[name].means

    def is_given(self, name: str) -> bool:
        """Whether the model says what integers a value is to have."""
        return name in self._given

    def clipped(self, output: str, lo: float, hi: float) -> Grid:
        """Grid of a result that is clipped to lo..hi in reals."""
        grid = self.grid(output, max(abs(lo), abs(hi)) or math.inf)
        return replace(grid, range=Interval(lo=_step(lo, grid), hi=_step(hi, grid)))

    def grids(self) -> dict[str, Grid]:
        """That of each integer activation of the new graph."""
        return {each.name: each.grid for each in self._integers.values()}

    def _quantize_op(self, grid: Grid) -> Quantize:
        inverse = float(np.float32(1 / grid.scale))
        return Quantize(
            inv_scale=inverse,
            lo=grid.range.lo,
            hi=grid.range.hi,
            dtype=storage(self.config.inp_bits),
            scale=grid.scale if grid.node else None,
            zero_point=grid.zero_point,
        )


def _step(real: float, grid: Grid) -> int:
    """The integer nearest to a real number."""
    if math.isinf(real):
        return grid.range.lo if real < 0 else grid.range.hi
    return min(max(round(real / grid.scale) + grid.zero_point, grid.range.lo), grid.range.hi)


def _usable(scale: float) -> float:
    """Nearest float32 if it and its inverse are normal numbers, else 1.0."""
    rounded = float(np.float32(scale))
    return rounded if 1e-30 < rounded < 1e30 else 1.0
