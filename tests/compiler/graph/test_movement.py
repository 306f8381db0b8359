"""SinkMovements and MatMulToImages: what they make of chains, of attention, and that they change no answer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import GraphError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph, Op
from compiler.graph.ops.along import Normalize, Reduce
from compiler.graph.ops.conv import Conv, Dense, MatMul
from compiler.graph.ops.elementwise import Add, BatchNorm, Pointwise, Relu
from compiler.graph.ops.move import ChannelTranspose, Concat, Movement, Pad, Rearrange, Slice, Take, Transpose
from compiler.graph.ops.shape import Flatten, Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.base import Pass, run_passes
from compiler.graph.passes.convolution import FoldAffine, MatMulToImages
from compiler.graph.passes.fuse import Fuse
from compiler.graph.passes.movement import SinkMovements
from compiler.graph.text import to_text
from compiler.tensor.define_float import Reduction
from tests.compiler.graph.build import Builder, floats

TO_IMAGES = (MatMulToImages(), SinkMovements(), FoldAffine())


def applied(graph: Graph, *passes: Pass) -> list[str]:
    """The nodes after the passes, which give the same answers, also for twice the images."""
    result = run_passes(graph, passes)
    for count in (1, 2):
        before, after = (rebatched(g, count * g.inputs[0].type.shape[0]) for g in (graph, result))
        arrays = {v.name: floats(*v.type.shape, seed=k) for k, v in enumerate(before.inputs)}
        expected, actual = evaluate(before, arrays), evaluate(after, arrays)
        for name in graph.outputs:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-5)
    lines = to_text(result).splitlines()
    return [line.strip() for line in lines[1:-1] if "constant" not in line]


def test_chains_that_do_nothing_go() -> None:
    b = Builder()
    there = b(Reshape(shape=(2, 3, 4, 5)), b(Transpose(order=(0, 2, 1)), b.input(2, 20, 3)))
    back = b(Transpose(order=(0, 2, 1)), b(Reshape(shape=(2, 3, 20)), there))
    assert applied(b.graph(b(Relu(), back)), SinkMovements()) == ["v4: float32[2,20,3] = relu(x)"]


def test_a_chain_is_one_node() -> None:
    b = Builder()
    heads = b(Transpose(order=(0, 2, 1, 3)), b(Reshape(shape=(2, 5, 3, 4)), b.input(2, 5, 12)))
    y = b(Reshape(shape=(6, 4, 5)), b(Transpose(order=(0, 1, 3, 2)), heads))
    assert applied(b.graph(y), SinkMovements()) == [
        "v3: float32[6,4,5] = rearrange(x) {split=(2, 5, 12), order=(0, 2, 1), shape=(6, 4, 5)}"
    ]


def test_exchanged_channels_and_positions_are_found() -> None:
    b = Builder()
    split = b(Reshape(shape=(2, 3, 4, 5)), b(Conv(), b.input(2, 2, 1, 5), b.constant(floats(12, 2, 1, 1))))
    y = b(Reshape(shape=(2, 15, 1, 4)), b(Transpose(order=(0, 1, 3, 2)), split))
    assert applied(b.graph(y), SinkMovements())[1:] == ["v3: float32[2,15,1,4] = channel_transpose(v0) {groups=3}"]


def test_what_exchanges_images_stays() -> None:
    b = Builder()
    y = b(Relu(), b(Transpose(order=(1, 0, 2)), b(Transpose(order=(1, 2, 0)), b.input(2, 3, 4))))
    result = run_passes(b.graph(y), [SinkMovements()])
    x = {"x": floats(2, 3, 4)}
    np.testing.assert_array_equal(evaluate(result, x)[y], evaluate(b.graph(y), x)[y])


def test_ops_along_an_axis_follow_it() -> None:
    b = Builder()
    conv = b(Conv(), b.input(2, 3, 2, 4), b.constant(floats(6, 3, 1, 1)))
    rows = b(Transpose(order=(0, 2, 1)), b(Reshape(shape=(2, 6, 8)), conv))
    y = b(Softmax(axis=-1), b(Normalize(first=2, last=3), rows))
    assert applied(b.graph(y), SinkMovements()) == [
        "v0: float32[2,6,2,4] = conv(x, c0)",
        "v3.reshape: float32[2,6,8] = reshape(v0) {shape=(2, 6, 8)}",
        "v3.normalize: float32[2,6,8] = normalize(v3.reshape) {first=1, last=2}",
        "v4.softmax: float32[2,6,8] = softmax(v3.normalize) {axis=1}",
        "v4: float32[2,8,6] = transpose(v4.softmax) {order=(0, 2, 1)}",
    ]


def test_the_mean_of_all_positions_is_a_pool() -> None:
    b = Builder()
    conv = b(Conv(), b.input(2, 3, 2, 4), b.constant(floats(6, 3, 1, 1)))
    rows = b(Transpose(order=(0, 2, 1)), b(Reshape(shape=(2, 6, 8)), conv))
    y = b(Reshape(shape=(2, 6)), b(Reduce(reduction=Reduction.MEAN, first=1, last=2), rows))
    assert applied(b.graph(y), SinkMovements())[1:] == [
        "v3.global_average_pool: float32[2,6,1,1] = global_average_pool(v0)",
        "v4: float32[2,6] = reshape(v3.global_average_pool) {shape=(2, 6)}",
    ]


def test_the_mean_of_the_channels_of_rows_is_none() -> None:
    b = Builder()
    conv = b(Conv(), b.input(2, 3, 2, 4), b.constant(floats(6, 3, 1, 1)))
    rows = b(Transpose(order=(0, 2, 1)), b(Reshape(shape=(2, 6, 8)), conv))
    y = b(Reduce(reduction=Reduction.MEAN, first=2, last=3), rows)
    assert applied(b.graph(y), SinkMovements())[2:] == [
        "v3.reduce: float32[2,1,8] = reduce(v3.reshape) {reduction=Reduction.MEAN, first=1, last=2}",
        "v3: float32[2,8,1] = reshape(v3.reduce) {shape=(2, 8, 1)}",
    ]


def test_rows_times_weights_are_a_convolution_with_its_bias() -> None:
    b = Builder()
    product = b(MatMul(), b.input(2, 5, 3), b.constant(floats(3, 7)))
    y = b(MatMul(), b(Relu(), b(Add(), product, b.constant(floats(7)))), b.constant(floats(7, 4)))
    assert [line.split(" = ")[1] for line in applied(b.graph(y), *TO_IMAGES)] == [
        "rearrange(x) {split=(2, 5, 3), order=(0, 2, 1), shape=(2, 3, 1, 5)}",
        "conv(v0.reshape.1, v1.add.weight, v1.add.bias)",
        "relu(v1.add)",
        "conv(v2.relu, c2.kernel)",
        "rearrange(v3.conv) {split=(2, 4, 5), order=(0, 2, 1), shape=(2, 5, 4)}",
    ]


def test_dense_layers_of_rows_are_convolutions_of_images() -> None:
    b = Builder()
    rows = b(Reshape(shape=(10, 3)), b.input(2, 5, 3))
    y = b(Dense(), rows, b.constant(floats(4, 3)), b.constant(floats(4)))
    result = run_passes(b.graph(b(Reshape(shape=(2, 5, 4)), y)), TO_IMAGES)
    (conv,) = (node for node in result.nodes if isinstance(node.op, Conv))
    assert result.types[conv.output].shape == (2, 4, 1, 5)


def attention(batch: int, *, tokens: int = 6, heads: int = 2, size: int = 4, merged: bool = False) -> Graph:
    """merged: heads and images in one dimension, as torch.bmm wants them."""
    b = Builder()
    width = heads * size
    x = b.input(batch, tokens, width)

    def project(seed: int) -> str:
        y = b(MatMul(), x, b.constant(floats(width, width, seed=seed)))
        y = b(Add(), y, b.constant(floats(width, seed=seed)))
        y = b(Transpose(order=(0, 2, 1, 3)), b(Reshape(shape=(batch, tokens, heads, size)), y))
        return b(Reshape(shape=(batch * heads, tokens, size)), y) if merged else y

    queries, keys, values = map(project, range(3))
    swap = (0, 2, 1) if merged else (0, 1, 3, 2)
    scores = b(MatMul(), queries, b(Transpose(order=swap), keys))
    scores = b(Pointwise(function="divide"), scores, b.constant(np.array(size**0.5, np.float32)))
    mixed = b(MatMul(), b(Softmax(axis=-1), scores), values)
    if merged:
        mixed = b(Reshape(shape=(batch, heads, tokens, size)), mixed)
    joined = b(Reshape(shape=(batch, tokens, width)), b(Transpose(order=(0, 2, 1, 3)), mixed))
    return b.graph(b(Add(), x, b(MatMul(), joined, b.constant(floats(width, width, seed=9)))))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_stays_in_images(batch: int, merged: bool) -> None:
    graph = attention(batch, merged=merged)
    result = run_passes(graph, TO_IMAGES)
    x = {"x": floats(batch, 6, 8)}
    (name,) = graph.outputs
    np.testing.assert_allclose(evaluate(result, x)[name], evaluate(graph, x)[name], rtol=1e-5, atol=1e-5)
    kinds = [node.op.kind for node in result.nodes]
    assert kinds == [
        *("rearrange", "conv", "conv", "conv", "channel_matmul", "reshape", "softmax", "reshape", "channel_transpose"),
        *("channel_matmul", "conv", "add", "rearrange"),
    ]


KINDS = ("reshape", "transpose", "flatten", "relu", "softmax", "normalize", "sum", "mean", "add", "bias")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains of movements with ops between them; what was made before may come back as an operand."""
    b = Builder()
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([4, 6])), 1, draw(st.sampled_from([4, 6])))
    x = b.input(*shape)
    made = [(b(Conv(), x, b.constant(floats(shape[1], shape[1], 1, 1))), shape)]
    for step in range(draw(st.integers(3, 9))):
        value, shape = made[-1]
        kind = draw(st.sampled_from(KINDS))
        if kind == "reshape":
            parts = draw(st.permutations([*shape[1:]]))
            split = draw(st.sampled_from([1, 2]))
            parts = [parts[0] // split, split, *parts[1:]] if parts[0] % split == 0 else parts
            op, shape = Reshape(shape=(shape[0], *parts)), (shape[0], *parts)
            value = b(op, value)
        elif kind == "transpose":
            order = (0, *draw(st.permutations(range(1, len(shape)))))
            value, shape = b(Transpose(order=order), value), tuple(shape[axis] for axis in order)
        elif kind == "flatten":
            value, shape = b(Flatten(), value), (shape[0], math.prod(shape[1:]))
        elif kind == "softmax":
            value = b(Softmax(axis=draw(st.integers(1, len(shape) - 1))), value)
        elif kind == "normalize":
            first = draw(st.integers(1, len(shape) - 1))
            value = b(Normalize(first=first, last=draw(st.integers(first + 1, len(shape)))), value)
        elif kind in ("sum", "mean"):
            first = draw(st.integers(1, len(shape) - 1))
            last = draw(st.integers(first + 1, len(shape)))
            value = b(Reduce(reduction=Reduction(kind), first=first, last=last), value)
            shape = (*shape[:first], *(1,) * (last - first), *shape[last:])
        elif kind == "add":
            others = [name for name, other in made if other == shape]
            value = b(Add(), value, draw(st.sampled_from([*others, value])))
        elif kind == "bias":
            value = b(Add(), b.constant(floats(*shape[-1:], seed=step)), value)
        else:
            value = b(Relu(), value)
        made.append((value, shape))
    return b.graph(made[-1][0])


@given(graphs())
def test_no_answer_changes(graph: Graph) -> None:
    result = run_passes(graph, (SinkMovements(), SinkMovements()))
    x = {"x": floats(*graph.inputs[0].type.shape)}
    (name,) = graph.outputs
    np.testing.assert_allclose(evaluate(result, x)[name], evaluate(graph, x)[name], rtol=2e-5, atol=2e-5)
    moves = (Reshape, Flatten, Movement)
    producers = [result.producers.get(node.inputs[0]) for node in result.nodes if isinstance(node.op, moves)]
    assert not any(before is not None and isinstance(before.op, moves) for before in producers)


def test_movements_are_what_they_say() -> None:
    x = np.arange(48, dtype=np.float32).reshape(1, 12, 2, 2)
    swapped = ChannelTranspose(groups=3).reference(x)
    assert swapped.shape == (1, 12, 1, 4)
    for group, channel, position in np.ndindex(3, 4, 4):
        assert swapped[0, group * 4 + position, 0, channel] == x[0, group * 4 + channel, position // 2, position % 2]
    op = Rearrange(split=(1, 12, 4), order=(0, 2, 1), shape=(1, 48))
    np.testing.assert_array_equal(op.reference(x), x.reshape(12, 4).T.reshape(1, 48))


def conv_parts(*indices: tuple[int, ...], axis: int = 1) -> Graph:
    """A convolution of 32 channels, and elements of it that are taken."""
    b = Builder()
    conv = b(Conv(), b.input(1, 4, 1, 4), b.constant(floats(32, 4, 1, 1)))
    return b.graph(*(b(Take(axis=axis, indices=chosen), conv) for chosen in indices))


@pytest.mark.parametrize(
    ("graph", "convolutions"),
    [
        (conv_parts(tuple(range(31, -1, -1))), 1),
        (conv_parts((*range(16, 32), *range(16))), 1),
        (conv_parts((3, 2, 1, 0), axis=3), 1),
        (conv_parts(tuple(range(16)), tuple(range(16, 32))), 2),
        (conv_parts(tuple(range(31)), tuple(range(1, 32))), 1),  # parts that overlap are computed once
        (conv_parts(*((k,) for k in range(32))), 1),  # and parts of single channels would take 32 tiles instead of 2
    ],
    ids=["reversed", "rotated", "reversed columns", "halves", "overlapping", "single"],
)
def test_parts_of_a_convolution(graph: Graph, convolutions: int) -> None:
    result = run_passes(graph, (SinkMovements(), SinkMovements()))
    x = {"x": floats(1, 4, 1, 4)}
    expected, found = evaluate(graph, x), evaluate(result, x)
    for name in graph.outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert sum(isinstance(node.op, Conv) for node in result.nodes) == convolutions


@pytest.mark.parametrize(
    "op",
    [
        Concat(axis=0),
        Softmax(axis=0),
        Reduce(reduction=Reduction.MAX, first=0, last=1),
        Normalize(first=0, last=2),
        Take(axis=0, indices=(0,)),
        Slice(starts=(1, 0), steps=(1, 1), shape=(1, 4)),
        Pad(before=(1, 0), after=(0, 0)),
        Transpose(order=(1, 0)),
    ],
    ids=str,
)
def test_what_mixes_images_has_no_other_batch(op: Op) -> None:
    b = Builder()
    graph = b.graph(b(op, b.input(2, 4)))
    rebatched(graph, 2)
    with pytest.raises(GraphError, match=rf"^Node '{op.kind} v0' \({op.kind}\) must work image by image for 3 of them"):
        rebatched(graph, 3)


def test_constant_images_are_repeated() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 3, 2, 2), b.constant(floats(4, 3, 1, 1)), b.constant(floats(4)))
    total = b(Add(), conv, b.constant(floats(1, 4, 2, 2)))
    graph = b.graph(b(Concat(axis=1), total, b.constant(floats(1, 1, 2, 2))))
    for each in (graph, run_passes(graph, [Fuse()])):
        x = {"x": floats(3, 3, 2, 2)}
        alone = [evaluate(each, {"x": x["x"][k : k + 1]})[graph.outputs[0]] for k in range(3)]
        np.testing.assert_allclose(evaluate(rebatched(each, 3), x)[graph.outputs[0]], np.concatenate(alone), atol=1e-6)


BACKWARDS = {"starts": (0, 1, 1, 0), "steps": (1, -1, 1, 1)}
"""Channels of a slice that are exchanged."""


def kinds(graph: Graph, *passes: Pass) -> list[str]:
    """Of the nodes after the passes, which give the same answers."""
    return [line.split(" = ")[1].split("(")[0] for line in applied(graph, *passes)]


def interleaved(b: Builder, x: str, order: tuple[int, ...] = (0, 3, 4, 1, 5, 2)) -> str:
    """Eight channels of 3x5 pixels as two of 6x10, by default; the first of the channels of a pixel are its phase."""
    split = b(Reshape(shape=(1, 2, 2, 2, 3, 5)), x)
    moved = b(Transpose(order=order), split)
    return b(Reshape(shape=(1, 2, 6, 10)), moved)


def cut(rows: int) -> Slice:
    return Slice(starts=(0, 0, 1, 0), steps=(1, 1, 1, 1), shape=(1, 2, rows, 10))


def test_what_follows_a_transposed_convolution_becomes_part_of_it() -> None:
    b = Builder()
    conv = b(Conv(), b.input(1, 3, 3, 5), b.constant(floats(8, 3, 1, 1)))
    parameters = [b.constant(np.abs(floats(2, seed=seed)) + 0.5) for seed in range(4)]
    normal = b(BatchNorm(epsilon=1e-5), b(cut(5), interleaved(b, conv)), *parameters)
    passes = SinkMovements(), SinkMovements(), FoldAffine(), Fuse()
    graph = b.graph(b(Relu(), b(Add(), normal, b.constant(floats(2, 1, 1)))))
    assert kinds(graph, *passes) == ["fused_conv", "rearrange", "slice"]


def test_normalisation_stays_behind_what_mixes_channels() -> None:
    b = Builder()
    mixed = interleaved(b, b.input(1, 8, 3, 5), (0, 4, 1, 2, 5, 3))
    graph = b.graph(b(BatchNorm(epsilon=1e-5), mixed, *(b.constant(np.abs(floats(2)) + 0.5) for _ in range(4))))
    assert kinds(graph, SinkMovements())[-1] == "batch_norm"


@pytest.mark.parametrize(("case", "expected"), [
    ("little", ["relu", "slice"]), ("much", ["slice", "relu"]), ("reader", ["slice", "relu"]),
    ("columns", ["slice", "add"]), ("backwards", ["slice", "relu"]), ("channels", ["slice", "relu"]),
])  # fmt: skip
def test_an_activation_goes_before_a_cut_where_little_is_cut_off(case: str, expected: list[str]) -> None:
    b = Builder()
    x = b.input(1, 4 if case == "channels" else 2, 6, 10)
    part = b(replace(cut(2 if case == "much" else 5), **BACKWARDS if case == "backwards" else {}), x)
    value = b(Add(), part, b.constant(floats(10))) if case == "columns" else b(Relu(), part)
    graph = b.graph(*((value, part) if case == "reader" else (value,)))
    assert kinds(graph, SinkMovements()) == expected
