"""Networks and layers compiled with the default settings and profiled on the cycle engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.schedules import Shape
from compiler.driver import compile_graph
from compiler.frontend.onnx import load_onnx
from compiler.graph.ir import Graph, Node, TensorType, Value
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.rescaled import RescaledConv2d, scale_word
from compiler.graph.passes.pipeline import place, prepare
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.values import QuantizeOptions
from compiler.tensor.ir import DType
from runtime.session import Session, stored
from vta.engines import Engine, host_loader, open_device
from vta.profile import Profile, profile
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program
from vta_sim.timing import MemoryTiming

LATENCY: Final = 32
MACHINES: Final[Mapping[str, VTAConfig]] = MappingProxyType(
    {
        "base": VTAConfig(),
        "base, overlap": VTAConfig(overlap=True),
        "extended": VTAConfig(isa="extended"),
        "extended, overlap": VTAConfig(isa="extended", overlap=True),
    }
)
"""The default configuration with the instruction set of TVM or ours; in order, or with ALU and loads beside GEMM."""


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """A program on the cycle engine, and the quantised graph that it computes.

    Seconds: processor time of quantising and of compiling, time of a run.
    """

    graph: Graph
    program: Program
    profile: Profile
    quantize_seconds: float
    compile_seconds: float
    run_seconds: float

    @property
    def cycles(self) -> int:
        return self.profile.total.cycles


def network(model: onnx.ModelProto, config: VTAConfig, *, batch: int = 1, multiply: bool = True) -> Profiled:
    """A network, calibrated on one random batch; multiply: whether each channel has a factor of its own."""
    graph = load_onnx(model, batch=batch)
    (x,) = graph.inputs
    images = np.random.default_rng(1).normal(0, 1, x.type.shape).astype(np.float32)
    begin = time.process_time()
    options = QuantizeOptions(multiply=multiply)
    quantized = quantize(prepare(graph, config, options), [{x.name: images}], config=config, options=options).graph
    return run(quantized, config, {x.name: images}, quantize_seconds=time.process_time() - begin)


def layer(shape: Shape, config: VTAConfig) -> Profiled:
    """One convolution alone, with bias, shift and clip as TVM's."""
    return run(_graph(shape, config), config, {})


def run(
    graph: Graph, config: VTAConfig, inputs: Mapping[str, NDArray[Any]], *, quantize_seconds: float = 0.0
) -> Profiled:
    """Compile a quantised graph, and run it once; inputs that are not given are zeros."""
    begin = time.process_time()
    program = compile_graph(graph, config)
    compiled = time.process_time() - begin
    timing = MemoryTiming(latency=LATENCY)
    with open_device(Engine.CYCLE, config, timing=timing, trace=True) as device:
        session = Session(device, program, host_loader(Engine.CYCLE))
        given = {b.name: inputs.get(b.name, np.zeros(stored(b)[1], stored(b)[0])) for b in program.inputs}
        session.run(given)
        begin = time.perf_counter()
        session.run(given)
        seconds = time.perf_counter() - begin
        traces = session.statistics.traces
    return Profiled(
        graph=place(graph, config),
        program=program,
        profile=profile(program, traces, timing),
        quantize_seconds=quantize_seconds,
        compile_seconds=compiled,
        run_seconds=seconds,
    )


def _graph(shape: Shape, config: VTAConfig) -> Graph:
    """The layer as the quantiser would leave it for this machine."""
    rng = np.random.default_rng(0)
    outs, pad = shape.outputs, shape.kernel // 2
    window = {"stride": (shape.stride,) * 2, "padding": (pad,) * 4}
    one, zero = np.ones(outs, np.int32), np.zeros(outs, np.int32)
    constants: dict[str, NDArray[Any]] = {
        "w": rng.integers(-128, 128, (outs, shape.inputs, shape.kernel, shape.kernel)).astype(np.int8)
    }
    op: QConv2d | RescaledConv2d = QConv2d(**window, shift=8, lo=0, hi=127)
    constants |= {"m": one, "b": zero}
    if config.is_extended:
        op = RescaledConv2d(**window, relu=True)
        constants = {"w": constants["w"], "b": zero, "scale": one * scale_word(1, 8)}
    x = Value(name="x", type=TensorType((1, shape.inputs, shape.size, shape.size), DType.INT8))
    node = Node(op=op, inputs=("x", *constants), output="y", name=shape.name)
    return Graph(name="layer", inputs=(x,), outputs=("y",), nodes=(node,), constants=constants)
