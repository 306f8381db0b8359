"""Graphs: what verifies, what is refused and with which sentence, and the printed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.errors import GraphError
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph, Node, Place, Placement, TensorType, Value
from compiler.graph.layout import Layout
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Add, Relu
from compiler.graph.text import to_text
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, floats

X = Value(name="x", type=TensorType((1, 2, 3, 3), DType.FLOAT32))
RELU = Node(op=Relu(), inputs=("x",), output="y", name="r")


def graph(*nodes: Node, outputs: tuple[str, ...] = ("y",), **fields: object) -> Graph:
    return replace(Graph(name="g", inputs=(X,), outputs=outputs, nodes=nodes, constants={}), **fields)  # type: ignore[arg-type]  # fields of several types


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (graph(replace(RELU, inputs=("z",))), "Node 'r' must read values defined before it, not 'z'"),
        (graph(replace(RELU, inputs=("y",))), "Node 'r' must read values defined before it, not 'y'"),
        (graph(RELU, RELU), "Value 'y' must be defined once, not twice"),
        (graph(replace(RELU, output="x")), "Value 'x' must be defined once, not twice"),
        (graph(replace(RELU, output="")), "Value must have a name, not ''"),
        (graph(RELU, outputs=("z",)), "Graph output must be a value of the graph, not 'z'"),
        (graph(replace(RELU, op=Add())), "Node 'r' (add): number of inputs must be 2, not 1"),
        (graph(RELU, layouts={"z": Layout(1, 2)}), "Layout must belong to a value of the graph, not 'z'"),
        (
            replace(graph(RELU), constants={"w": floats(4, 2)}, weight_scales={"w": floats(2)}),
            "Scales must be those of each channel of a constant, not 2 of 'w'",
        ),
        (
            replace(graph(RELU), weight_scales={"x": floats(1)}),
            "Scales must be those of each channel of a constant, not 1 of 'x'",
        ),
        (
            replace(graph(RELU, layouts={"w": Layout(1, 2)}), constants={"w": floats(4, 2)}),
            "Value 'w' with layout n1c2 must be numbers of rank 4, not float32[4,2]",
        ),
        (
            graph(RELU, inputs=(replace(X, type=TensorType((1, 0), DType.FLOAT32)),)),
            "Value 'x' must have extents of at least 1, not float32[1,0]",
        ),
        (
            graph(RELU, constants={"c": np.zeros(1, np.complex128)}),
            (
                "Array must have one of the dtypes bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, "
                "float16, float32, float64, not complex128"
            ),
        ),
    ],
)
def test_refusal(bad: Graph, sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        bad.verify()
    assert str(caught.value) == sentence


def test_constants_cannot_be_written() -> None:
    mine = floats(2)
    constant = graph(RELU, constants={"c": mine}).constants["c"]
    with pytest.raises(ValueError, match="read-only"):
        constant[0] = 1
    mine[0] = 1


def test_types_uses_and_producers() -> None:
    b = Builder()
    x = b.input(1, 2, 3, 3)
    y = b(Add(), x, x)
    g = b.graph(y)
    assert g.types[y] == TensorType((1, 2, 3, 3), DType.FLOAT32)
    assert (g.uses[x], g.uses[y]) == (2, 1)
    assert g.producers[y].inputs == (x, x)
    assert g.node_types(g.nodes[0]) == ((g.types[x], g.types[x]), g.types[y])


def test_type_with_layout() -> None:
    t = TensorType((3, 5, 4, 4), DType.INT8, Layout(2, 16))
    assert str(t) == "int8[3,5,4,4]{n2c16}"
    assert t.physical_shape == (2, 1, 4, 4, 2, 16)
    assert t.nbytes == 2 * 16 * 2 * 16
    assert t.logical == TensorType((3, 5, 4, 4), DType.INT8)


def test_text() -> None:
    b = Builder()
    w = b.constant(floats(4, 2, 3, 3), "w")
    y = b(Conv(padding=(1, 1, 1, 1)), b.input(1, 2, 5, 5), w)
    g = b.graph(b(Relu(), y, name="out"))
    placed = replace(g, nodes=(*g.nodes[:1], replace(g.nodes[1], placement=Placement(place=Place.HOST, reason="why"))))
    assert to_text(placed) == (
        "graph test(x: float32[1,2,5,5]) -> (out) {\n"
        "  w: float32[4,2,3,3] = constant\n"
        "  v0: float32[1,4,5,5] = conv(x, w) {padding=(1, 1, 1, 1)}\n"
        "  out: float32[1,4,5,5] = relu(v0) @host (why)\n"
        "}\n"
    )


def test_macs() -> None:
    b = Builder()
    y = b(Conv(stride=(2, 2)), b.input(2, 3, 9, 9), b.constant(floats(5, 3, 3, 3)))
    (node,) = b.graph(y).nodes
    assert node.op.macs(b.graph(y).node_types(node)[0]) == 2 * 5 * 4 * 4 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "Inputs must contain 'x', not only []"),
        ({"x": np.zeros((1, 2), np.float32)}, "Input 'x' must be float32[1,2,3,3], not float32[1, 2]"),
        ({"x": np.zeros((1, 2, 3, 3))}, "Input 'x' must be float32[1,2,3,3], not float64[1, 2, 3, 3]"),
    ],
)
def test_evaluate_refuses_other_inputs(inputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        evaluate(graph(RELU), inputs)
    assert str(caught.value) == sentence
