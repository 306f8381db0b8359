"""From graphs to programs: buffers, steps and layers, graphs of odd shapes, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from compiler.driver import Target, compile_graph
from compiler.errors import CompileError, LoweringError
from compiler.graph.ir import Array, Graph, Node, TensorType, Value
from compiler.graph.ops.elementwise import Add, Identity, Relu
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import Dequantize, QAdd, Quantize
from compiler.graph.ops.shape import Reshape
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, int8s
from tests.differential import Case, check
from vta.api import CompiledProgram
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Host, Launch, Program, Role

CONV = QConv2d(lo=-128, hi=127, shift=8)
ADD = QAdd(m0=1, m1=1, lo=-128, hi=127)
APART = VTAConfig(log_batch=1, log_block_in=3, log_inp_buff_size=14)
"""Convolutions read other tiles than they write."""


class Network(Builder):
    """Values of 16 channels and 4x4 elements."""

    def image(self, name: str = "x") -> str:
        return self.input(1, 16, 4, 4, name=name, dtype=DType.INT8)

    def still(self, name: str = "k") -> str:
        return self.constant(int8s(1, 16, 4, 4, seed=3), name)

    def conv(self, x: str, *residual: str, name: str = "", op: QConv2d = CONV, weights: str = "w") -> str:
        if weights not in self.constants:
            self.constant(int8s(16, 16, 1, 1, seed=len(self.nodes)), weights)
            self.constant(np.full(16, 3, np.int32), f"{weights}m")
            self.constant(np.arange(-8, 8, dtype=np.int32), f"{weights}b")
        return self(op, x, weights, f"{weights}m", f"{weights}b", *residual, name=name)


def agrees(graph: Graph, config: VTAConfig | None = None) -> bool:
    """Whether VTA, LLVM and the reference do; inputs are random."""
    rng = np.random.default_rng(1)
    inputs: dict[str, Array] = {
        value.name: rng.integers(-128, 128, value.type.shape).astype(value.type.dtype.numpy) for value in graph.inputs
    }
    outcome = check(Case(seed=1, config=config or VTAConfig(), graph=graph, inputs=inputs))
    assert outcome.refusal is None
    return not outcome.problems


def kinds(program: Program) -> list[str]:
    return ["launch" if isinstance(step, Launch) else "host" for step in program.steps]


def chain(length: int) -> Graph:
    b = Network()
    value = b.image()
    for _ in range(length):
        value = b.conv(value)
    return b.graph(value)


def test_layers_that_follow_each_other_are_one_launch() -> None:
    program = compile_graph(chain(4), VTAConfig())
    assert kinds(program) == ["host", "launch"]  # the host brings the input into tiles
    assert [layer.name for layer in program.layers] == [f"qconv2d v{k}" for k in range(4)]
    assert [layer.macs for layer in program.layers] == [16 * 16 * 16] * 4
    assert program.layers[0].insn_begin == 0
    assert all(before.insn_end == after.insn_begin for before, after in pairwise(program.layers))
    assert program.layers[-1].insn_end == program.insn_count - 1  # then FINISH
    assert program.layers[0].attributes["op"] == "qconv2d"
    assert program.layers[0].attributes["tiling"]["sizes"]["co"] == 1


def test_host_steps_part_launches() -> None:
    program = compile_graph(chain(3), APART)
    assert kinds(program) == ["host", "launch", "host", "launch", "host", "launch"]
    launches = [step for step in program.steps if isinstance(step, Launch)]
    assert launches[0].insn_begin == 0
    assert all(a.insn_begin + a.insn_count == b.insn_begin for a, b in pairwise(launches))
    assert launches[-1].insn_begin + launches[-1].insn_count == program.insn_count
    assert agrees(chain(3), APART)


def test_launches_share_micro_ops_in_memory() -> None:
    once, thrice = (compile_graph(chain(length), APART) for length in (1, 3))
    assert thrice.uops == once.uops
    assert thrice.insn_count == 3 * once.insn_count


def test_the_cpu_launches_nothing() -> None:
    program = compile_graph(chain(2), VTAConfig(), target=Target.CPU)
    assert kinds(program) == ["host", "host", "host"]
    assert (program.insns, program.uops, program.layers) == (b"", b"", ())
    assert program.attributes["target"] == "cpu"
    assert program.attributes["hosts"]["qconv2d v0"] == "compiled for the CPU"


def test_reasons_of_host_steps() -> None:
    b = Network()
    x = b.input(1, 16, 4, 4)
    quantised = b(Quantize(inv_scale=16.0, lo=-128, hi=127), x)
    program = compile_graph(b.graph(b(Dequantize(scale=0.5), b.conv(quantised))), VTAConfig())
    assert program.attributes["hosts"] == {"quantize v0": "float32 input", "dequantize v2": "float32 result"}
    assert [step.name for step in program.steps if isinstance(step, Host)] == ["quantize v0", "dequantize v2"]
    assert program.attributes["target"] == "vta"
    assert program.attributes["name"] == "test"


def test_host_steps_of_one_name_are_told_apart() -> None:
    b = Network()
    x = b.input(1, 16, 4, 4)
    graph = b.graph(b(Dequantize(scale=0.5), b.conv(b(Quantize(inv_scale=16.0, lo=-128, hi=127), x))))
    alike = replace(graph, nodes=tuple(replace(node, name="same") for node in graph.nodes))
    hosts = compile_graph(alike, VTAConfig()).attributes["hosts"]
    assert hosts == {"same": "float32 input", "same.1": "float32 result"}


def test_buffers_say_how_values_lie_in_memory() -> None:
    b = Network()
    program = compile_graph(b.graph(b.conv(b.conv(b.image()))), VTAConfig(log_batch=1))
    x, y = program.buffer("x"), program.buffer("v1")
    assert (x.role, x.dtype, x.shape, x.layout) == (Role.INPUT, "int8", (1, 16, 4, 4), None)
    assert (y.role, y.dtype, y.shape) == (Role.OUTPUT, "int8", (1, 1, 4, 4, 2, 16))
    assert y.layout == {"logical": [1, 16, 4, 4], "n": 2, "c": 16}
    assert y.nbytes == 512
    weights = program.buffer("v0.W")
    assert (weights.role, weights.dtype, weights.shape) == (Role.CONSTANT, "int8", (1, 1, 1, 1, 1, 1, 16, 16))
    assert program.buffer("v0.B").dtype == "int32"
    assert program.buffer("v0").role is Role.WORKSPACE
    assert {segment.address for segment in program.segments} == {
        buffer.address for buffer in program.buffers if buffer.role is Role.CONSTANT
    }


@pytest.mark.parametrize("config", [VTAConfig(), APART, VTAConfig(log_batch=2, log_block_out=5)], ids=lambda c: c.name)
def test_every_buffer_is_aligned_to_its_elements(config: VTAConfig) -> None:
    program = compile_graph(chain(3), config)
    largest = max(config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes)
    assert all(buffer.address % largest == 0 for buffer in program.buffers)
    assert program.insn_address % 4096 == program.uop_address % 4096 == program.arena_bytes % 4096 == 0


def test_workspace_is_shared_by_values_that_do_not_meet() -> None:
    def extent(length: int) -> int:
        spans = [b for b in compile_graph(chain(length), VTAConfig()).buffers if b.role is Role.WORKSPACE]
        return max(b.address + b.nbytes for b in spans) - min(b.address for b in spans)

    assert extent(8) == extent(3)
    assert agrees(chain(8))


def test_progress_counts_nodes() -> None:
    calls: list[tuple[int, int]] = []
    compile_graph(chain(2), VTAConfig(), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_saved_program_is_the_same_program() -> None:
    program = compile_graph(chain(2), APART)
    assert Program.from_bytes(program.to_bytes()) == program


def built(*outputs: str, name: str) -> Graph:
    """Graphs that a naive allocation of buffers gets wrong."""
    b = Network()
    match name:
        case "an input named like a weight buffer":
            b.conv(b.image("y.W"), name="y")
        case "a value named like a bias buffer":
            b(ADD, b.conv(b.image(), name="y"), "x", name="y.B")
        case "a node that nobody reads":
            b.conv(b.image(), name="y")
            b.conv("x", name="z")
        case "an input that nobody reads":
            b.conv(b.image(), name="y")
            b.image("u")
        case "two layers with the same weights":
            b.conv(b.conv(b.image()), name="y")
        case "an output that is read again":
            b.conv(b.conv(b.image(), name="y"), name="z")
        case "a constant operand":
            b(ADD, b.image(), b.still(), name="y")
        case "a constant read in two layouts":
            b.image()
            b(ADD, b.conv(b.still()), "k", name="y")
        case "one value as both operands":
            b(ADD, b.image(), "x", name="y")
        case "a residual that is the input":
            b.conv(b.image(), "x", name="y", op=QConv2d(lo=-128, hi=127, shift=8, r_mul=5))
        case "padding far wider than the image":
            b.conv(b.image(), name="y", op=QConv2d(lo=-128, hi=127, shift=8, padding=(20, 3, 0, 20)))
        case "values of int32 that wrap":
            b.conv(b.image(), name="y", op=QConv2d(lo=-128, hi=127, shift=31, pre_shift=1))
    return b.graph(*outputs)


ODD: list[tuple[str, Sequence[str]]] = [
    ("an input named like a weight buffer", ["y"]),
    ("a value named like a bias buffer", ["y.B", "y"]),
    ("a node that nobody reads", ["y"]),
    ("an input that nobody reads", ["y"]),
    ("two layers with the same weights", ["y"]),
    ("an output that is read again", ["y", "z"]),
    ("a constant operand", ["y"]),
    ("a constant read in two layouts", ["y"]),
    ("one value as both operands", ["y"]),
    ("a residual that is the input", ["y"]),
    ("padding far wider than the image", ["y"]),
    ("values of int32 that wrap", ["y"]),
]


@pytest.mark.parametrize(("name", "outputs"), ODD, ids=[name for name, _ in ODD])
def test_odd_graphs(name: str, outputs: Sequence[str]) -> None:
    graph = built(*outputs, name=name)
    assert agrees(graph)
    assert agrees(graph, APART)


def refusal(graph: Graph, config: VTAConfig | None = None) -> str:
    with pytest.raises(CompileError) as refused:
        compile_graph(graph, config or VTAConfig())
    return str(refused.value)


def test_outputs_must_differ() -> None:
    b = Network()
    y = b.conv(b.image())
    assert refusal(b.graph(y, y)) == "Graph outputs must be different values, not 'v0' twice"


def test_outputs_must_be_computed() -> None:
    b = Network()
    y = b(ADD, b.image(), b.still())
    assert refusal(b.graph(y, "x")) == "Graph output must be computed by a node, not be the input 'x'"
    assert refusal(b.graph("k")) == "Graph output must be computed by a node, not be the constant 'k'"


def test_weights_must_be_constant() -> None:
    b = Network()
    b.conv(b.image())
    b.input(16, 16, 1, 1, name="v", dtype=DType.INT8)
    y = b(CONV, "x", "v", "wm", "wb")
    assert refusal(b.graph(y)) == (
        "Layer 'qconv2d v1': Operand of shape (16, 16, 1, 1) must be constant to be packed at compile time"
    )


@pytest.mark.parametrize(
    ("config", "step"),
    [
        (VTAConfig(log_inp_width=4), "int32 X.acc from int8 X"),
        (VTAConfig(log_wgt_width=4), "int32 W.acc from int8 W"),
    ],
    ids=["activations", "weights"],
)
def test_a_graph_must_have_the_bits_of_the_machine(config: VTAConfig, step: str) -> None:
    with pytest.raises(LoweringError) as refused:
        compile_graph(chain(1), config)
    rule = "must be made of instructions of the VTA, which has none to compute"
    assert str(refused.value) == f"Layer 'qconv2d v0' {rule} {step}"


@pytest.mark.parametrize("log_bits", [2, 4])
def test_residuals_that_the_accumulator_cannot_load_stay_on_the_host(log_bits: int) -> None:
    """ACC_8BIT widens 8 bits; other activations reach the accumulator through a product alone."""
    config = VTAConfig(log_inp_width=log_bits, log_inp_buff_size=13 + log_bits - 2)
    bits = 1 << log_bits
    limit = 1 << (bits - 1)
    lo, hi = -limit, limit - 1
    b = Network()
    dtype = DType.INT16 if bits == 16 else DType.INT8
    x = b(Quantize(inv_scale=1.0, lo=lo, hi=hi, dtype=dtype), b.input(1, 16, 4, 4))
    y = b.conv(x, op=QConv2d(shift=6, lo=lo, hi=hi))
    z = b.conv(y, x, op=QConv2d(shift=6, r_mul=3, lo=lo, hi=hi))
    graph = b.graph(b(Dequantize(scale=1.0), z))
    program = compile_graph(graph, config)
    assert [layer.name for layer in program.layers] == ["qconv2d v1"]
    assert program.attributes["hosts"]["qconv2d v2"] == f"{bits}-bit activations, of which the accumulator loads none"
    images = {"x": np.random.default_rng(2).integers(-limit, limit, (1, 16, 4, 4)).astype(np.float32)}
    outcome = check(Case(seed=0, config=config, graph=graph, inputs=images))
    assert outcome.problems == ()
    assert outcome.values > 10


def test_identities_at_outputs_are_copies() -> None:
    graph = Graph(
        name="same",
        inputs=(Value(name="x", type=TensorType((1, 3, 2, 2), DType.FLOAT32)),),
        outputs=("y", "z"),
        nodes=tuple(Node(op=Identity(), inputs=("x",), output=name, name=name) for name in ("y", "z")),
        constants={},
    )
    program = CompiledProgram(compile_graph(graph, VTAConfig()), graph=graph)
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    outputs = program.run({"x": x})
    assert isinstance(outputs, dict)
    for array in outputs.values():
        np.testing.assert_array_equal(array, x)


def test_a_reshape_is_a_view_but_at_the_ends() -> None:
    b = Builder()
    x = b.input(1, 8, 1, 4)
    first = b(Reshape(shape=(1, 4, 8)), x)  # of an input
    inner = b(Reshape(shape=(1, 2, 16)), b(Relu(), first))
    again = b(Reshape(shape=(32,)), inner)
    total = b(Add(), again, b(Reshape(shape=(32,)), b(Relu(), inner)))
    graph = b.graph(b(Reshape(shape=(1, 4, 8)), total))  # to an output
    program = compile_graph(graph, VTAConfig(), target=Target.CPU)
    assert [step.name for step in program.steps if isinstance(step, Host)] == [
        *("reshape v0", "relu v1", "relu v4", "add v6", "reshape v7"),
    ]
    array = np.random.default_rng(0).standard_normal((1, 8, 1, 4)).astype(np.float32)
    answer = CompiledProgram(program).run({"x": array})
    assert isinstance(answer, dict)
    positive = np.maximum(array.reshape(32), 0)
    np.testing.assert_array_equal(answer["v7"], (positive + positive).reshape(1, 4, 8))
