"""The layers of ResNet-18 on the cycle engine and on the compiled RTL: every counter, byte and token.

The compiler gives all of them to the accelerator: the ten convolutions of which TVM does so, and the first convolution,
the pools and the classifier. A factor per channel, a mere shift and a residual operand make other programs of a
convolution, and so do the options of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.schedules import SHAPES, Shape
from bench.session import inputs_of
from bench.workloads import Workload, pages_of, record
from compiler.driver import compile_graph
from compiler.graph.ir import Graph, Node, Op, TensorType, Value
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d
from compiler.tensor.ir import DType
from tests.vta_sim.cycle.comparison import reports_differ, simulator
from tests.vta_sim.rtl.machines import contents_differ
from vta_hw.spec.config import VTAConfig
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.timing import MemoryTiming

DEFAULT: Final = VTAConfig()
LATENCY: Final = MemoryTiming(latency=32)
NARROW: Final = MemoryTiming(latency=32, read_bytes=4, shared_bus=True, stalls=0.1, seed=7)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation on int8. inputs: shapes of activations, [N,C,H,W]; constants: operands behind the first of them."""

    op: Op
    inputs: tuple[tuple[int, int, int, int], ...]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def graph(self) -> Graph:
        inputs = tuple(
            Value(name=f"x{number}", type=TensorType(shape, DType.INT8)) for number, shape in enumerate(self.inputs)
        )
        first, *others = (value.name for value in inputs)
        node = Node(op=self.op, inputs=(first, *self.constants, *others), output="y", name="layer")
        return Graph(name="layer", inputs=inputs, outputs=("y",), nodes=(node,), constants=self.constants)

    def workload(self, config: VTAConfig) -> Workload:
        program = compile_graph(self.graph(), config)
        # Nothing but the change of the layout is left to the host.
        assert [layer.name for layer in program.layers] == ["layer"]
        return record("layer", program, inputs_of(program))


def convolution(shape: Shape, *, factors: bool = True, residual: bool = False, low: int = 0) -> Layer:
    """With ReLU unless it is told another least value."""
    rng = np.random.default_rng(0)
    pad, out = shape.kernel // 2, shape.size // shape.stride
    return Layer(
        op=QConv2d(
            stride=(shape.stride,) * 2,
            padding=(pad,) * 4,
            shift=10,
            r_mul=700 if residual else 0,
            lo=low,
            hi=127,
        ),
        inputs=((1, shape.inputs, shape.size, shape.size), *([(1, shape.outputs, out, out)] if residual else [])),
        constants={
            "w": rng.integers(-128, 128, (shape.outputs, shape.inputs, shape.kernel, shape.kernel)).astype(np.int8),
            "m": rng.integers(2, 9, shape.outputs).astype(np.int32) if factors else np.ones(shape.outputs, np.int32),
            "b": rng.integers(-100, 100, shape.outputs).astype(np.int32),
        },
    )


OF_TVM: Final = {
    f"{shape.name.replace(' ', '_')}-{kind}": convolution(shape, factors=factors)
    for shape in SHAPES
    for kind, factors in (("shift", False), ("channel", True))
}
RESIDUAL: Final = {
    f"{shape.name.replace(' ', '_')}-residual": convolution(shape, residual=True)
    for shape in SHAPES
    if shape.stride == 1
}
OTHERS: Final = {
    "first convolution": convolution(Shape(224, 3, 64, 7, 2, 0, 0)),
    "largest of 3x3": Layer(
        op=QMaxPool2d(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), inputs=((1, 64, 112, 112),)
    ),
    "mean of 7x7": Layer(
        op=QAvgPool2d(kernel=(7, 7), mul=669, bias=1 << 14, shift=15, lo=-128, hi=127), inputs=((1, 512, 7, 7),)
    ),
    "classifier": convolution(Shape(1, 512, 1000, 1, 1, 0, 0), low=-128),
}
LAYERS: Final = {**OTHERS, **OF_TVM, **RESIDUAL}


def launch(name: str, workload: Workload, timing: MemoryTiming) -> list[MachineReport]:
    """The reports of all launches on one of `comparison.SIMULATORS`, which stays as they leave it."""
    machine, memory = simulator(name, workload.config, 512, ()), Memory()
    machine.reset(memory=memory, timing=timing)
    reports = []
    for start in workload.starts:
        for address, page in start.written.items():
            memory.write(address, page)
        reports.append(
            machine.launch(start.insn_address, start.insn_count, bases=start.simulator_bases, tokens=start.tokens)
        )
    return reports


def compare(workload: Workload, timing: MemoryTiming) -> None:
    reports = (launch(name, workload, timing) for name in ("cycle", "compiled"))
    for found, wanted in zip(*reports, strict=True):
        assert list(reports_differ(found, wanted)) == []
    cycle, compiled = (simulator(name, workload.config, 512, ()) for name in ("cycle", "compiled"))
    assert list(contents_differ(compiled, cycle)) == []
    left = pages_of(cycle.memory)
    assert left.keys() == workload.memory.keys()
    for address, page in workload.memory.items():
        assert np.array_equal(left[address], page), f"{address:#x} is not what the functional simulator leaves"


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_the_cycles_of_the_rtl(name: str) -> None:
    compare(LAYERS[name].workload(DEFAULT), LATENCY)


@pytest.mark.parametrize("options", [{"overlap": True}, {"isa": "extended"}, {"log_bus_width": 7}], ids=str)
@pytest.mark.parametrize("number", [0, 9])
def test_a_layer_on_other_machines(number: int, options: Mapping[str, Any]) -> None:
    config = replace(DEFAULT, **options)
    compare(convolution(SHAPES[number], residual=True).workload(config), NARROW)
