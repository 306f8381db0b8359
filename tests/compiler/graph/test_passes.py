"""Each pass on the smallest graph that shows it: the printed result, and the same answers as before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from compiler.errors import GraphError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.ops.conv import Conv, Dense
from compiler.graph.ops.elementwise import Add, BatchNorm, Clip, Identity, Pointwise, Relu
from compiler.graph.ops.move import Concat, Take, Transpose
from compiler.graph.ops.pool import GlobalAveragePool, MaxPool
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.activations import FindGelu
from compiler.graph.passes.base import Pass, run_passes
from compiler.graph.passes.convolution import DenseToConv, FoldAffine
from compiler.graph.passes.fuse import Fuse
from compiler.graph.passes.movement import SinkMovements
from compiler.graph.passes.pipeline import prepare
from compiler.graph.passes.simplify import FoldConstants, RemoveIdentity
from compiler.graph.text import to_text
from tests.compiler.graph.build import Builder, floats
from vta_hw.spec.config import VTAConfig


def nodes(graph: Graph) -> list[str]:
    """The lines of the nodes alone."""
    return [line.strip() for line in to_text(graph).splitlines()[1:-1] if not line.endswith(" = constant")]


def applied(graph: Graph, *passes: Pass) -> list[str]:
    """The nodes after the passes, once the answers are found unchanged up to float rounding."""
    result = run_passes(graph, passes)
    inputs = {value.name: floats(*value.type.shape, seed=7) for value in graph.inputs}
    before, after = evaluate(graph, inputs), evaluate(result, inputs)
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)
    return nodes(result)


def test_remove_identity() -> None:
    b = Builder()
    x = b.input(1, 2)
    y = b(Identity(), b(Relu(), b(Identity(), x)))
    assert applied(b.graph(y), RemoveIdentity()) == ["v2: float32[1,2] = relu(x)"]


def test_identity_stays_where_an_output_is_an_input_or_another_output() -> None:
    b = Builder()
    x = b.input(1, 2)
    y = b(Relu(), x)
    assert applied(b.graph(y, b(Identity(), x), b(Identity(), y)), RemoveIdentity()) == [
        "v0: float32[1,2] = relu(x)",
        "v1: float32[1,2] = identity(x)",
        "v2: float32[1,2] = identity(v0)",
    ]


def test_two_outputs_of_one_value() -> None:
    b = Builder()
    inner = b(Relu(), b.input(1, 2))
    graph = b.graph(b(Identity(), inner, name="first"), b(Identity(), inner, name="second"))
    assert applied(graph, RemoveIdentity()) == [
        "first: float32[1,2] = relu(x)",
        "second: float32[1,2] = identity(first)",
    ]


def test_fold_constants() -> None:
    b = Builder()
    x, c = b.input(2, 3), b.constant(floats(3))
    y = b(Add(), x, b(Relu(), b(Add(), c, c)))
    assert applied(b.graph(y), FoldConstants()) == ["v2: float32[2,3] = add(x, v1.folded)"]


def test_unused_nodes_and_constants_go() -> None:
    b = Builder()
    x = b.input(2, 3)
    b(Add(), x, b.constant(floats(3)))
    result = run_passes(b.graph(b(Relu(), x)), [RemoveIdentity()])
    assert nodes(result) == ["v1: float32[2,3] = relu(x)"]
    assert not result.constants


def test_sink_reshapes() -> None:
    b = Builder()
    x = b.input(2, 3, 1, 1)
    flat = b(Flatten(), x)
    biased = b(Add(), b.constant(floats(3)), flat)
    normal = b(BatchNorm(), biased, *(b.constant(np.abs(floats(3, seed=k))) for k in range(4)))
    y = b(Reshape(shape=(3, 2)), b(Relu(), b(Add(), normal, flat)))
    assert applied(b.graph(y), SinkMovements()) == [
        "v1.add: float32[2,3,1,1] = add(c0.moved, x)",
        "v2.batch_norm: float32[2,3,1,1] = batch_norm(v1.add, c1, c2, c3, c4)",
        "v3.add: float32[2,3,1,1] = add(v2.batch_norm, x)",
        "v4.relu: float32[2,3,1,1] = relu(v3.add)",
        "v5: float32[3,2] = reshape(v4.relu) {shape=(3, 2)}",
    ]


def test_reshape_stays_before_a_softmax_and_goes_when_it_changes_nothing() -> None:
    b = Builder()
    x = b.input(2, 3, 1, 1)
    y = b(Softmax(), b(Flatten(), b(Reshape(shape=(2, 3, 1, 1)), b(Flatten(), x))))
    assert applied(b.graph(y), SinkMovements()) == [
        "v0: float32[2,3] = reshape(x) {shape=(2, 3)}",
        "v3: float32[2,3] = softmax(v0)",
    ]


def test_dense_after_flatten_becomes_a_convolution_of_the_whole_image() -> None:
    b = Builder()
    flat = b(Flatten(), b.input(2, 3, 4, 5))
    y = b(Dense(), flat, b.constant(floats(7, 60)), b.constant(floats(7)))
    assert applied(b.graph(y), DenseToConv()) == [
        "v1.conv: float32[2,7,1,1] = conv(x, c0.kernel, c1)",
        "v1: float32[2,7] = reshape(v1.conv) {shape=(2, 7)}",
    ]


def test_dense_layers_become_a_chain_of_convolutions() -> None:
    b = Builder()
    hidden = b(Relu(), b(Dense(), b.input(2, 6), b.constant(floats(5, 6)), b.constant(floats(5))))
    y = b(Dense(), hidden, b.constant(floats(3, 5)))
    assert applied(b.graph(y), SinkMovements(), DenseToConv(), SinkMovements()) == [
        "v0.reshape: float32[2,6,1,1] = reshape(x) {shape=(2, 6, 1, 1)}",
        "v0.conv: float32[2,5,1,1] = conv(v0.reshape, c0.kernel, c1)",
        "v1.relu: float32[2,5,1,1] = relu(v0.conv)",
        "v2.conv: float32[2,3,1,1] = conv(v1.relu, c2.kernel)",
        "v2: float32[2,3] = reshape(v2.conv) {shape=(2, 3)}",
    ]


def batch_norm(b: Builder, x: str, channels: int) -> str:
    return b(BatchNorm(), x, *(b.constant(np.abs(floats(channels, seed=k)) + np.float32(0.1)) for k in range(4)))


def test_fold_affine_into_the_convolution() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 2, 5, 5), b.constant(floats(3, 2, 3, 3)))
    y = b(Add(), b.constant(floats(3, 1, 1, seed=9)), batch_norm(b, conv, 3))
    assert applied(b.graph(y), FoldAffine()) == ["v2: float32[1,3,3,3] = conv(x, v2.weight, v2.bias)"]


def test_fold_affine_makes_a_convolution_where_there_is_none_to_change() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 2, 5, 5), b.constant(floats(3, 2, 3, 3)))
    y = b(Add(), batch_norm(b, conv, 3), conv)
    assert applied(b.graph(y), FoldAffine()) == [
        "v0: float32[1,3,3,3] = conv(x, c0)",
        "v1: float32[1,3,3,3] = conv(v0, v1.weight, v1.bias) {groups=3}",
        "v2: float32[1,3,3,3] = add(v1, v0)",
    ]


def test_fold_affine_leaves_what_differs_from_pixel_to_pixel() -> None:
    b = Builder()
    y = b(Add(), b.input(1, 2, 3, 3), b.constant(floats(1, 2, 3, 3)))
    assert applied(b.graph(y), FoldAffine()) == ["v0: float32[1,2,3,3] = add(x, c0)"]


def test_fold_affine_refuses_weights_that_overflow() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 1, 2, 2), b.constant(np.full((1, 1, 1, 1), 1e30, np.float32)))
    parameters = [np.full(1, value, np.float32) for value in (1e30, 0, 0, 1)]
    graph = b.graph(b(BatchNorm(), conv, *map(b.constant, parameters)))
    with pytest.raises(
        GraphError, match=r"^Node 'batch_norm v1' must have finite weights when folded into one convolution$"
    ):
        FoldAffine().apply(graph)


def test_fuse_keeps_groups() -> None:
    b = Builder()
    y = b(Conv(groups=2, stride=(2, 1)), b.input(1, 4, 5, 5), b.constant(floats(6, 2, 3, 3)), b.constant(floats(6)))
    assert applied(b.graph(y), Fuse()) == ["v0: float32[1,6,2,3] = fused_conv(x, c0, c1) {stride=(2, 1), groups=2}"]


def test_fuse_convolution_residual_and_activation() -> None:
    b = Builder()
    x = b.input(1, 3, 4, 4)
    stem = b(Relu(), b(Conv(padding=(1, 1, 1, 1)), x, b.constant(floats(3, 3, 3, 3))))
    body = b(Conv(), stem, b.constant(floats(3, 3, 1, 1)), b.constant(floats(3)))
    y = b(Clip(lo=0.0, hi=6.0), b(Relu(), b(Add(), stem, body)))
    assert applied(b.graph(y), Fuse()) == [
        "v1: float32[1,3,4,4] = fused_conv(x, c0, v0.bias) {padding=(1, 1, 1, 1), lo=0.0}",
        "v5: float32[1,3,4,4] = fused_conv(v1, c1, c2, v1) {lo=0.0, hi=6.0}",
    ]


def test_fuse_lets_the_later_of_two_convolutions_take_the_addition() -> None:
    b = Builder()
    x = b.input(1, 3, 4, 4)
    one, two = (b(Conv(), x, b.constant(floats(3, 3, 1, 1, seed=k))) for k in range(2))
    assert applied(b.graph(b(Add(), one, two)), Fuse()) == [
        "v0: float32[1,3,4,4] = fused_conv(x, c0, v0.bias)",
        "v2: float32[1,3,4,4] = fused_conv(x, c1, v1.bias, v0)",
    ]


def test_fuse_absorbs_no_value_that_others_read() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 3, 4, 4), b.constant(floats(3, 3, 1, 1)))
    active = b(Relu(), conv)
    total = b(Add(), conv, active)
    assert applied(b.graph(b(Add(), total, total), active), Fuse()) == [
        "v0: float32[1,3,4,4] = fused_conv(x, c0, v0.bias)",
        "v1: float32[1,3,4,4] = fused_add(v0) {lo=0.0}",
        "v2: float32[1,3,4,4] = fused_add(v0, v1)",
        "v3: float32[1,3,4,4] = fused_add(v2, v2)",
    ]


def test_fuse_keeps_an_activation_before_an_addition() -> None:
    b = Builder()
    x = b.input(1, 3, 4, 4)
    active = b(Relu(), b(Conv(), x, b.constant(floats(3, 3, 1, 1))))
    assert applied(b.graph(b(Relu(), b(Add(), active, x))), Fuse()) == [
        "v1: float32[1,3,4,4] = fused_conv(x, c0, v0.bias) {lo=0.0}",
        "v3: float32[1,3,4,4] = fused_add(v1, x) {lo=0.0}",
    ]


@pytest.mark.parametrize(("first", "second"), [((0, 6), (-1, 3)), ((-2, -1), (0, 5)), ((2, 3), (-5, 1))])
def test_fuse_composes_clips(first: tuple[float, float], second: tuple[float, float]) -> None:
    b = Builder()
    y = b(Clip(lo=second[0], hi=second[1]), b(Clip(lo=first[0], hi=first[1]), b.input(1, 3, 4, 4)))
    assert len(applied(b.graph(y), Fuse())) == 1


def test_prepare_a_whole_network() -> None:
    b = Builder()
    x = b.input(2, 1, 8, 8)
    stem = b(Relu(), batch_norm(b, b(Conv(padding=(1, 1, 1, 1)), x, b.constant(floats(4, 1, 3, 3))), 4))
    deep = b(Conv(groups=4, padding=(1, 1, 1, 1)), b(Identity(), stem), b.constant(floats(4, 1, 3, 3)))
    pooled = b(GlobalAveragePool(), b(MaxPool(kernel=(2, 2)), b(Relu(), b(Add(), deep, stem))))
    hidden = b(Clip(lo=0.0, hi=6.0), batch_norm(b, b(Dense(), b(Flatten(), pooled), b.constant(floats(5, 4))), 5))
    y = b(Softmax(), b(Add(), b(Dense(), hidden, b.constant(floats(3, 5))), b.constant(floats(3))))
    graph = b.graph(y)
    result = prepare(graph, VTAConfig())
    assert [node.op.kind for node in result.nodes] == [
        "fused_conv", "fused_conv", "max_pool", "global_average_pool", "fused_conv", "fused_conv", "reshape", "softmax",
    ]  # fmt: skip
    image = {"x": floats(2, 1, 8, 8, seed=5)}
    np.testing.assert_allclose(evaluate(result, image)[y], evaluate(graph, image)[y], rtol=1e-4, atol=1e-5)
    alone = evaluate(rebatched(result, 1), {"x": image["x"][1:]})[y]
    np.testing.assert_allclose(alone, evaluate(result, image)[y][1:], rtol=1e-5, atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Spoil(Pass):
    """Leaves a graph that does not verify, or has another output."""

    name: ClassVar[str] = "spoil"
    interface: bool

    def apply(self, graph: Graph) -> Graph:
        return replace(graph, outputs=("x",)) if self.interface else replace(graph, nodes=())


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    b = Builder()
    graph = b.graph(b(Clip(lo=-math.inf), b.input(1, 2)))
    with pytest.raises(GraphError) as caught:
        run_passes(graph, [Spoil(interface=False)])
    assert str(caught.value) == (
        "Pass spoil must leave a well-formed graph: Graph output must be a value of the graph, not 'v0'"
    )
    with pytest.raises(GraphError) as caught:
        run_passes(graph, [Spoil(interface=True)])
    assert str(caught.value) == (
        "Pass spoil must keep the interface (x: float32[1,2]) -> (v0: float32[1,2]), "
        "not make it (x: float32[1,2]) -> (x: float32[1,2])"
    )


def test_rebatched_refusals() -> None:
    b = Builder()
    x, z = b.input(1, 2), b.input(2, 1, 2, name="z")
    with pytest.raises(GraphError, match=r"^Inputs must agree on one batch, not have \[1, 2\]$"):
        rebatched(b.graph(b(Relu(), x), b(Relu(), z)), 3)


def gelu(b: Builder, x: str, order: int, *, half: float = 0.5, root: float = math.sqrt(2), one: float = 1.0) -> str:
    """As exporters write it, in three orders."""

    def number(value: float) -> str:
        return b.constant(np.array(value, np.float32))

    if order == 2:
        inner = b(Pointwise(function="multiply"), number(1 / root), x)
    else:
        inner = b(Pointwise(function="divide"), x, number(root))
    erf = b(Add(), number(one), b(Pointwise(function="erf"), inner))
    if order == 0:
        return b(Pointwise(function="multiply"), b(Pointwise(function="multiply"), x, erf), number(half))
    return b(Pointwise(function="multiply"), erf, b(Pointwise(function="multiply"), x, number(half)))


@pytest.mark.parametrize("order", range(3))
def test_gelu_is_found(order: int) -> None:
    b = Builder()
    graph = b.graph(gelu(b, b(Relu(), b.input(2, 3)), order))
    result = run_passes(graph, [FindGelu()])
    assert [node.op.kind for node in result.nodes] == ["relu", "pointwise"]
    x = {"x": floats(2, 3)}
    np.testing.assert_allclose(*(evaluate(g, x)[graph.outputs[0]] for g in (result, graph)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{"half": 1.0}, {"root": 2.0}, {"one": 2.0}])
def test_what_is_nearly_gelu_stays(change: dict[str, float]) -> None:
    b = Builder()
    graph = b.graph(gelu(b, b.input(2, 3), 0, **change))
    assert len(run_passes(graph, [FindGelu()]).nodes) == len(graph.nodes)


def test_parts_of_a_convolution_are_convolutions() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 2, 1, 5), b.constant(floats(48, 2, 1, 1)), b.constant(floats(48)))
    rows = b(Reshape(shape=(1, 5, 3, 16)), b(Transpose(order=(0, 3, 2, 1)), conv))
    parts = [b(Reshape(shape=(1, 5, 16)), b(Take(axis=2, indices=(k,)), rows)) for k in range(3)]
    graph = b.graph(b(Concat(axis=2), *parts))
    result = run_passes(graph, [SinkMovements()])
    shapes = [result.types[node.output].shape for node in result.nodes if isinstance(node.op, Conv)]
    assert shapes == [(1, 16, 1, 5)] * 3
    x = {"x": floats(1, 2, 1, 5)}
    np.testing.assert_allclose(*(evaluate(g, x)[graph.outputs[0]] for g in (result, graph)), rtol=1e-6, atol=1e-6)


def test_a_convolution_that_is_also_read_whole_stays_whole() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 2, 1, 5), b.constant(floats(6, 2, 1, 1)))
    graph = b.graph(b(Take(axis=1, indices=(0, 1)), conv), b(Relu(), conv))
    result = run_passes(graph, [SinkMovements()])
    assert [node.op.kind for node in result.nodes] == ["conv", "take", "relu"]
