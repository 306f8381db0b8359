"""The recipes: which passes, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from compiler.errors import QuantizeError
from compiler.graph.ir import Array, Graph
from compiler.graph.lowering import Blocks
from compiler.graph.machine import adds_activations
from compiler.graph.ops.elementwise import Cast
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.passes.activations import FindGelu
from compiler.graph.passes.base import run_passes
from compiler.graph.passes.blocks import BlockChannels
from compiler.graph.passes.convolution import DenseToConv, FoldAffine, MatMulToImages
from compiler.graph.passes.equalize import Equalize
from compiler.graph.passes.fuse import Fuse
from compiler.graph.passes.grids import OneGridEach
from compiler.graph.passes.interleave import CutInterleaved
from compiler.graph.passes.layout import AssignLayouts
from compiler.graph.passes.movement import SinkMovements
from compiler.graph.passes.partition import Partition, is_quantised
from compiler.graph.passes.parts import CopyParts
from compiler.graph.passes.positions import FillTiles
from compiler.graph.passes.simplify import FoldConstants, KeepPrecision, RemoveIdentity
from compiler.graph.passes.unfold import UnfoldInput
from compiler.graph.passes.upsample import FindUpsampling
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.report import Quantized
from compiler.graph.quantize.values import QuantizeOptions
from compiler.tensor.ir import DType
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


def prepare(graph: Graph, config: VTAConfig, options: QuantizeOptions | None = None) -> Graph:
    """The float graph that the quantiser reads: the same function, up to float rounding of folded weights.

    options: those of the quantisation, which say whether channels are evened for it. Raises QuantizeError when an
    input or a result is not float32; float16 is where the model has it as input or result.
    """
    for name in (*(value.name for value in graph.inputs), *graph.producers):
        dtype, producer = graph.types[name].dtype, graph.producers.get(name)
        converted = dtype is DType.FLOAT16 and (producer is None or isinstance(producer.op, Cast))
        if dtype is not DType.FLOAT32 and not converted:
            raise QuantizeError(f"Value {name!r} must be float32 to be quantised, not {graph.types[name]}")
    fused = (Fuse(residual=adds_activations(config)), FillTiles(config=config), SinkMovements(), OneGridEach())
    evened = (Equalize(least=least),) if (least := (options or QuantizeOptions()).least_unevenness) is not None else ()
    return run_passes(graph, (KeepPrecision(), *SIMPLIFY, FindUpsampling(config=config), *fused, *evened))


def place(graph: Graph, config: VTAConfig) -> Graph:
    """A graph with layouts, if it is quantised, and placements: what the back ends read."""
    laid_out = (CutInterleaved(), UnfoldInput(config=config), AssignLayouts(config=config), CopyParts())
    return run_passes(graph, (*(laid_out if is_quantised(graph) else ()), Partition(config=config)))


CPU_BLOCKS = Blocks(batch=1, block_in=16, block_out=16, dot=4)
"""What ops are lowered to for a CPU: 16 channels of a pixel are one vector, or a few."""

FOR_CPU = (
    RemoveIdentity(),
    FoldConstants(),
    DenseToConv(),
    FoldAffine(),
    Fuse(),
    BlockChannels(channels=CPU_BLOCKS.block_out),
)
"""From a graph as imported to one of fused ops on blocks of channels; what cannot be in blocks stays as it is."""


def place_on_cpu(graph: Graph, config: VTAConfig) -> Graph:
    """The same for a CPU: channels are in `cpu_blocks`, and a float graph is fused."""
    if not is_quantised(graph):
        return run_passes(graph, (*FOR_CPU, Partition(config=config)))
    if cpu_blocks(graph, config).dot:
        few = CPU_BLOCKS.dot if max(config.inp_bits, config.wgt_bits) <= 8 else 0
        layouts = AssignLayouts(config=_with_blocks(config), few=few)
    else:
        layouts = AssignLayouts(config=config)
    return run_passes(graph, (CutInterleaved(), layouts, CopyParts(), Partition(config=config)))


def cpu_blocks(graph: Graph, config: VTAConfig) -> Blocks:
    """What the ops of a graph are lowered to for a CPU: `CPU_BLOCKS`, whatever `config` has, unless activations are
    multiplied by each other, of which whole tiles of the machine are."""
    own = Blocks.of(config)
    square = own.batch == 1 and own.block_in == own.block_out == CPU_BLOCKS.block_out
    if not square and any(isinstance(node.op, QMatMul | RescaledMatMul) for node in graph.nodes):
        return own
    return replace(CPU_BLOCKS, weight_bits=config.wgt_bits)


def _with_blocks(config: VTAConfig) -> VTAConfig:
    """A machine of the types of `config` that computes in the blocks of a CPU."""
    inp, wgt = config.log_inp_width, config.log_wgt_width
    small = VTAConfig()
    return replace(
        small,
        log_inp_width=inp,
        log_wgt_width=wgt,
        log_inp_buff_size=small.log_inp_buff_size + inp - small.log_inp_width,
        log_wgt_buff_size=small.log_wgt_buff_size + wgt - small.log_wgt_width,
        isa=config.isa,
    )


def quantize_model(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]] | None,
    *,
    config: VTAConfig,
    options: QuantizeOptions | None = None,
) -> Quantized:
    """From a graph as imported to one that the back ends read. See `quantize` for the arguments and errors."""
    quantized = quantize(prepare(graph, config, options), batches, config=config, options=options)
    return replace(quantized, graph=place(quantized.graph, config))
