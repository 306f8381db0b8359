"""The recipes: which passes, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from compiler.graph.ir import Array, Graph
from compiler.graph.machine import adds_activations
from compiler.graph.passes.activations import FindGelu
from compiler.graph.passes.base import run_passes
from compiler.graph.passes.convolution import DenseToConv, FoldAffine, MatMulToImages
from compiler.graph.passes.fuse import Fuse
from compiler.graph.passes.grids import OneGridEach
from compiler.graph.passes.layout import AssignLayouts
from compiler.graph.passes.movement import SinkMovements
from compiler.graph.passes.partition import Partition
from compiler.graph.passes.parts import CopyParts
from compiler.graph.passes.positions import FillTiles
from compiler.graph.passes.simplify import FoldConstants, RemoveIdentity
from compiler.graph.passes.unfold import UnfoldInput
from compiler.graph.passes.upsample import FindUpsampling
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.report import Quantized
from compiler.graph.quantize.values import QuantizeOptions
from vta_hw.spec.config import VTAConfig

SIMPLIFY = (
    RemoveIdentity(),
    FoldConstants(),
    FindGelu(),
    MatMulToImages(),
    SinkMovements(),
    DenseToConv(),
    FoldAffine(alone=False),
    SinkMovements(),  # what dense layers brought, and what is behind parts of convolutions, which have their bias now
    FoldAffine(),
)
"""From a graph as imported to convolutions, additions, activations and pools."""


def prepare(graph: Graph, config: VTAConfig) -> Graph:
    """The float graph that the quantiser reads: the same function, up to float rounding of folded weights."""
    fused = (Fuse(residual=adds_activations(config)), FillTiles(config=config), SinkMovements(), OneGridEach())
    return run_passes(graph, (*SIMPLIFY, FindUpsampling(config=config), *fused))


def place(graph: Graph, config: VTAConfig) -> Graph:
    """A quantised graph with layouts and placements: what the back ends read."""
    laid_out = (UnfoldInput(config=config), AssignLayouts(config=config), CopyParts())
    return run_passes(graph, (*laid_out, Partition(config=config)))


def quantize_model(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]] | None,
    *,
    config: VTAConfig,
    options: QuantizeOptions | None = None,
) -> Quantized:
    """From a graph as imported to one that the back ends read. See `quantize` for the arguments and errors."""
    quantized = quantize(prepare(graph, config), batches, config=config, options=options)
    return replace(quantized, graph=place(quantized.graph, config))
