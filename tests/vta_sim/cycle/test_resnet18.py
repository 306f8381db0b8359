"""The layers of ResNet-18 on the cycle engine and on the compiled RTL: every counter, byte and token.

They are the ten convolutions that TVM gives to a VTA; for which of them a factor per channel or only a shift
requantises makes another program, and so do the options of the machine.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.schedules import SHAPES, Shape
from bench.session import inputs_of
from bench.workloads import Workload, pages_of, record
from compiler.driver import compile_graph
from compiler.graph.ir import Graph, Node, TensorType, Value
from compiler.graph.ops.qconv import QConv2d
from compiler.tensor.ir import DType
from tests.vta_sim.cycle.comparison import simulator
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.timing import MemoryTiming

LATENCY = MemoryTiming(latency=32)
NARROW = MemoryTiming(latency=32, read_bytes=4, shared_bus=True)
PADS = (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT)


def layer(shape: Shape, config: VTAConfig, *, multiplier: bool) -> Workload:
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-128, 128, (shape.outputs, shape.inputs, shape.kernel, shape.kernel)).astype(np.int8),
        "m": np.full(shape.outputs, 3 if multiplier else 1, np.int32),
        "b": rng.integers(-100, 100, shape.outputs).astype(np.int32),
    }
    pad = shape.kernel // 2
    op = QConv2d(stride=(shape.stride,) * 2, padding=(pad,) * 4, shift=10, lo=0, hi=127)
    x = Value(name="x", type=TensorType((1, shape.inputs, shape.size, shape.size), DType.INT8))
    node = Node(op=op, inputs=("x", "w", "m", "b"), output="y", name="conv")
    graph = Graph(name="layer", inputs=(x,), outputs=("y",), nodes=(node,), constants=constants)
    program = compile_graph(graph, config)
    return record(shape.name, program, inputs_of(program))


def reports(name: str, workload: Workload, timing: MemoryTiming) -> list[MachineReport]:
    """Of all launches; memory must be that of the functional simulator."""
    machine, memory, made = simulator(name, workload.config, 512, ()), Memory(), []
    machine.reset(memory=memory, timing=timing)
    for start in workload.starts:
        for address, page in start.written.items():
            memory.write(address, page)
        made.append(machine.launch(start.insn_address, start.insn_count, bases=start.simulator_bases))
    left = pages_of(memory)
    for address, page in workload.memory.items():
        assert np.array_equal(left.get(address, 0), page), f"{name}: {address:#x}"
    return made


def compare(workload: Workload, timing: MemoryTiming) -> None:
    mine, rtl = (reports(name, workload, timing) for name in ("cycle", "compiled"))
    for one, other in zip(mine, rtl, strict=True):
        assert dict(one.counters) == dict(other.counters)
        assert (one.status, one.fault_insn, one.tokens_left) == (other.status, other.fault_insn, other.tokens_left)
    cycle, compiled = (simulator(name, workload.config, 512, ()) for name in ("cycle", "compiled"))
    for pad in PADS:
        assert np.array_equal(cycle.scratchpad(pad), compiled.scratchpad(pad)), pad


@pytest.mark.parametrize("multiplier", [False, True], ids=["shift", "channel"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "_"))
def test_a_layer_takes_the_cycles_of_the_rtl(shape: Shape, *, multiplier: bool) -> None:
    compare(layer(shape, VTAConfig(), multiplier=multiplier), LATENCY)


@pytest.mark.parametrize("options", [{"overlap": True}, {"isa": "extended"}, {"log_bus_width": 7}], ids=str)
def test_a_layer_on_other_machines(options: dict[str, object]) -> None:
    config = dataclasses.replace(VTAConfig(), **options)  # type: ignore[arg-type]
    for shape in (SHAPES[0], SHAPES[8]):
        compare(layer(shape, config, multiplier=True), NARROW)
