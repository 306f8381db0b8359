"""What the quantiser chose, layer by layer."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from compiler.graph.ir import Graph
from compiler.graph.quantize.given import Grid


class Method(enum.Enum):
    """Where the scale of a result comes from: its own calibration, the model, or the operand whose scale it keeps."""

    CALIBRATED = "calibrated"
    GIVEN = "given"
    INHERITED = "inherited"


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One quantised op. Scales are reals per integer step; `weight_scales` is (smallest, largest) over the channels.

    source: the value of the float graph that it stands for. error: worst-case distance, in steps of the result and
    before its rounding, from the real-valued requantisation.
    accumulator_bits: signed bits that the largest intermediate can need.
    """

    value: str
    source: str
    node: str
    kind: str
    bits: int
    input_scales: tuple[float, ...]
    output_scale: float
    scale_method: Method
    weight_bits: int | None = None
    weight_scales: tuple[float, float] | None = None
    pre_shift: int = 0
    shift: int = 0
    error: float = 0.0
    accumulator_bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The quantised graph and the choices behind it. grids: of each integer activation, by value name."""

    graph: Graph
    layers: tuple[LayerReport, ...]
    grids: Mapping[str, Grid]
