"""Products of two activations: the ops, how they are quantised, where they run, and why not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import GraphError, LoweringError, QuantizeError
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph, Op, Place, TensorType
from compiler.graph.lowering import Blocks, Placed
from compiler.graph.machine import why_not_multiplied
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.move import ChannelTranspose, Pad
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.rescaled import scale_word
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.softmax import Softmax
from compiler.graph.passes.base import run_passes
from compiler.graph.passes.movement import SinkMovements
from compiler.graph.passes.pipeline import quantize_model
from compiler.graph.passes.positions import FillTiles
from compiler.graph.quantize.bounds import Interval, matmul_accumulator, prove
from compiler.graph.quantize.scaling import INT32_MAX, LEAST_MULTIPLIER, rounding, scale_product
from compiler.graph.quantize.values import QuantizeOptions
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, floats, int8s
from vta_hw.spec.config import VTAConfig

SHAPES = ((2, 6, 2, 3), (2, 6, 1, 4))


def sums(x: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """By the definition, element by element, in Python's integers or float64."""
    batch, channels, height, width = x.shape
    inner, positions = channels // groups, w.shape[2] * w.shape[3]
    y = np.zeros((batch, groups * positions, height, width), object)
    for n, o, row, column in np.ndindex(y.shape):
        group, position = divmod(o, positions)
        at = divmod(position, w.shape[3])
        y[n, o, row, column] = sum(
            x[n, group * inner + k, row, column].item() * w[n, group * inner + k, at[0], at[1]].item()
            for k in range(inner)
        )
    return y


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channel_matmul_is_its_definition(groups: int) -> None:
    x, w = (floats(*shape, seed=k) for k, shape in enumerate(SHAPES))
    op = ChannelMatMul(groups=groups, scale=0.5)
    y = op.reference(x, w)
    assert op.infer([TensorType.of(x), TensorType.of(w)]) == TensorType.of(y)
    np.testing.assert_allclose(y, 0.5 * sums(x, w, groups).astype(np.float64), rtol=1e-5, atol=1e-5)
    assert op.macs([TensorType.of(x), TensorType.of(w)]) == 2 * 4 * 6 * 6


@given(
    pre_shift=st.integers(0, 31),
    mul=st.integers(-32767, 32767),
    bias=st.integers(-32767, 32767),
    shift=st.integers(0, 31),
    groups=st.sampled_from([1, 2]),
)
def test_qmatmul_is_its_definition(pre_shift: int, mul: int, bias: int, shift: int, groups: int) -> None:
    x, w = (int8s(*shape, seed=k) for k, shape in enumerate(SHAPES))
    op = QMatMul(groups=groups, pre_shift=pre_shift, mul=mul, bias=bias, shift=shift, lo=-100, hi=90)
    y = op.reference(x, w)
    for at, total in np.ndenumerate(sums(x, w, groups)):
        acc = ((total >> pre_shift) * mul + bias + (1 << 31)) % (1 << 32) - (1 << 31)
        assert y[at] == min(max(acc >> shift, -100), 90)


@given(factor=st.integers(0, (1 << 24) - 1), shift=st.integers(0, 63))
def test_rescaled_matmul_is_its_definition(factor: int, shift: int) -> None:
    x, w = (int8s(*shape, seed=k) for k, shape in enumerate(SHAPES))
    y = RescaledMatMul(groups=2, scale=scale_word(factor, shift)).reference(x, w)
    for at, total in np.ndenumerate(sums(x, w, 2)):
        exact = Fraction(total * factor, 1 << shift)
        rounded = int(abs(exact) + Fraction(1, 2)) * (-1 if exact < 0 else 1)
        assert y[at] == min(max(rounded, -128), 127)


@pytest.mark.parametrize(
    ("op", "shapes", "sentence"),
    [
        (QMatMul(lo=0, hi=1), ((1, 4, 2, 2), (1, 5, 2, 2)), "second operand must be int8[1,4,2,2], not int8[1,5,2,2]"),
        (QMatMul(lo=0, hi=1), ((1, 4, 2, 2), (1, 4, 2)), "second operand must have rank 4, not int8[1,4,2]"),
        (
            QMatMul(groups=3, lo=0, hi=1),
            ((1, 4, 2, 2), (1, 4, 2, 2)),
            "groups must divide 4 input and 4 output channels, not be 3",
        ),
        (QMatMul(mul=1 << 15, lo=0, hi=1), SHAPES, "mul must be -32767..32767, not 32768"),
        (QMatMul(shift=32, lo=0, hi=1), SHAPES, "shift must be 0..31, not 32"),
        (QMatMul(lo=0, hi=128), SHAPES, "clip range must lie within -128..127, not 0..128"),
        (RescaledMatMul(scale=1 << 30), SHAPES, "scale must be 0..1073741823, not 1073741824"),
        (RescaledMatMul(scale=1, bits=9), SHAPES, "bits must be 2..8, not 9"),
    ],
)
def test_operands_and_attributes_that_do_not_fit(op: Op, shapes: tuple[tuple[int, ...], ...], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        op.infer([TensorType(shape, DType.INT8) for shape in shapes])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("x", "w", "tiles", "sentence"),
    [
        ((4, 16, 1, 3), (4, 16, 1, 16), ((4, 16),) * 2, "4 images share their weights"),
        ((1, 16, 1, 3), (1, 16, 1, 15), ((1, 16),) * 2, "15 positions are no multiple of 16"),
        ((1, 16, 1, 3), (1, 16, 1, 16), ((1, 16),) * 2, "8 channels of a group are no multiple of 16"),
        (
            (1, 16, 1, 3),
            (1, 16, 1, 16),
            ((1, 16), None),
            "Operands must be packed alike, not by (1, 16), None and (1, 16)",
        ),
    ],
)
def test_what_is_not_made_of_tiles_cannot_be_lowered(
    x: tuple[int, ...], w: tuple[int, ...], tiles: tuple[tuple[int, int] | None, ...], sentence: str
) -> None:
    op = QMatMul(groups=2 if "group" in sentence else 1, lo=0, hi=1)
    operands = [Placed(shape, DType.INT8, tile) for shape, tile in zip((x, w), tiles, strict=True)]
    with pytest.raises(LoweringError) as caught:
        op.lower("y", operands, Placed(x, DType.INT8, tiles[0]), Blocks())
    assert str(caught.value).endswith(sentence)


@given(
    ratio=st.floats(1e-7, 4.0),
    inner=st.integers(1, 4096),
    multiply=st.booleans(),
)
def test_scale_product_is_just_above_what_is_asked_for(ratio: float, inner: int, multiply: bool) -> None:
    acc = matmul_accumulator(inner, Interval(lo=-128, hi=127), Interval(lo=-128, hi=127))
    found = scale_product(ratio, acc, multiply=multiply)
    assert found.ratio == found.mul / 2 ** (found.pre_shift + found.shift) <= ratio
    if multiply and ratio < 2:
        assert found.ratio > ratio * (1 - 2 / LEAST_MULTIPLIER)
    elif ratio < 1:
        assert found.mul == 1
        assert found.ratio > ratio / 2
    for value in (acc.lo, acc.hi):
        assert abs((value >> found.pre_shift) * found.mul + rounding(found.shift)) <= INT32_MAX


def test_a_product_that_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(QuantizeError) as caught:
        scale_product(1e-12, Interval(lo=-100, hi=1 << 20), multiply=True)
    assert str(caught.value) == "sums of products up to 1048576, scaled by 1e-12, must fit in int32"


def test_overflow_of_a_product_is_found() -> None:
    b = Builder()
    x, w = (b.input(1, 1 << 12, 1, 16, name=name, dtype=DType.INT8) for name in "xw")
    y = b(QMatMul(mul=64, lo=-128, hi=127), x, w)
    with pytest.raises(QuantizeError, match=r"^Layer 'qmatmul v0' must stay within int32, not reach "):
        prove(b.graph(y))
    fits = Builder()
    x, w = (fits.input(1, 1 << 12, 1, 16, name=name, dtype=DType.INT8) for name in "xw")
    peaks = prove(fits.graph(fits(QMatMul(mul=16, bias=3, lo=-128, hi=127), x, w)))
    assert peaks["v0"] == Interval(lo=-(1 << 23) * 127, hi=(1 << 30) + 3)


def product(positions: int, batch: int = 1) -> Builder:
    b = Builder()
    b(ChannelMatMul(), b.input(batch, 16, 1, 8), b.input(batch, 16, 1, positions, name="w"))
    return b


@pytest.mark.parametrize(
    ("config", "positions", "reason"),
    [
        (VTAConfig(), 16, ""),
        (VTAConfig(isa="extended"), 32, ""),
        (VTAConfig(), 24, ""),
        (VTAConfig(log_batch=1), 16, "float32 arithmetic: 2 images share their weights"),
        (
            VTAConfig(log_block_in=3, log_inp_buff_size=13, log_wgt_buff_size=16),
            16,
            "float32 arithmetic: 8 channels are no 16 rows of weights",
        ),
        (
            VTAConfig(log_wgt_width=2, log_wgt_buff_size=17),
            16,
            "float32 arithmetic: 8-bit activations are no 4-bit weights",
        ),
    ],
)
def test_where_products_run_and_why(config: VTAConfig, positions: int, reason: str) -> None:
    b = product(positions, config.batch)
    inputs = {"x": floats(config.batch, 16, 1, 8), "w": floats(config.batch, 16, 1, positions, seed=1)}
    quantized = quantize_model(b.graph("v0"), [inputs], config=config)
    (node,) = (node for node in quantized.graph.nodes if node.op.kind.endswith("matmul"))
    assert node.placement is not None
    assert (node.placement.reason, node.placement.place is Place.HOST) == (reason, bool(reason))


@pytest.mark.parametrize("isa", ["tvm", "extended"])
@pytest.mark.parametrize("multiply", [True, False])
def test_a_product_is_near_the_real_one(isa: str, multiply: bool) -> None:
    b = product(32)
    graph = b.graph("v0")
    inputs = {"x": floats(1, 16, 1, 8), "w": floats(1, 16, 1, 32, seed=1)}
    quantized = quantize_model(graph, [inputs], config=VTAConfig(isa=isa), options=QuantizeOptions(multiply=multiply))
    (layer,) = quantized.layers
    assert layer.kind == ("rescaled_matmul" if isa == "extended" and multiply else "qmatmul")
    exact, found = evaluate(graph, inputs)["v0"], evaluate(quantized.graph, inputs)["v0"]
    noise = ((exact - found) ** 2).mean() / (exact**2).mean()
    assert noise < (10**-3 if multiply else 10**-2.5)


def padded(heads: int, size: int, tokens: int, *, shared: bool = False) -> Graph:
    """Scores of queries and keys, and these times values; shared: keys have another reader."""
    b = Builder()
    x = b.input(1, 16, 1, tokens)
    width = heads * size
    queries, keys, values = (
        b(FusedConv(), x, b.constant(floats(width, 16, 1, 1, seed=k)), b.constant(floats(width, seed=k)))
        for k in range(3)
    )
    scores = b(ChannelMatMul(groups=heads), queries, keys)
    scores = b(Softmax(axis=2), b(Reshape(shape=(1, heads, tokens, tokens)), scores))
    scores = b(Reshape(shape=(1, heads * tokens, 1, tokens)), scores)
    y = b(ChannelMatMul(groups=heads), scores, b(ChannelTranspose(groups=heads), values))
    return b.graph(y, *([keys] if shared else []))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_positions_are_filled_up(heads: int, shared: bool) -> None:
    config = VTAConfig()
    graph = padded(heads, 16, 20, shared=shared)
    filled = run_passes(graph, [FillTiles(config=config), SinkMovements()])
    x = {"x": floats(1, 16, 1, 20)}
    for name in graph.outputs:
        np.testing.assert_allclose(evaluate(filled, x)[name], evaluate(graph, x)[name], rtol=1e-5, atol=1e-5)
    products = [node for node in filled.nodes if isinstance(node.op, ChannelMatMul)]
    for node in products:
        assert not why_not_multiplied(node.op, [filled.types[name] for name in node.inputs], config)
    # Values of one head need no zeros to sum over: what their convolution lacks, its tiles have.
    wide = [node.op.padding for node in filled.nodes if isinstance(node.op, FusedConv) and any(node.op.padding)]
    assert wide == [(0, 0, 0, 12)] * (heads - 1 + (not shared))
    pads = [node.op.after for node in filled.nodes if isinstance(node.op, Pad)]
    assert pads == [(0, 0, 0, 12)] * shared + [(0, 0, 12, 0)] * (heads - 1)


@pytest.mark.parametrize("size", [8, 24])
def test_heads_of_odd_sizes_cannot_be_summed_over(size: int) -> None:
    config = VTAConfig()
    graph = padded(2, size, 32)
    filled = run_passes(graph, [FillTiles(config=config)])
    x = {"x": floats(1, 16, 1, 32)}
    (name,) = graph.outputs
    np.testing.assert_allclose(evaluate(filled, x)[name], evaluate(graph, x)[name], rtol=1e-5, atol=1e-5)
    products = [node for node in filled.nodes if isinstance(node.op, ChannelMatMul)]
    why = [why_not_multiplied(node.op, [filled.types[name] for name in node.inputs], config) for node in products]
    assert why == [f"{size} channels of a group are no multiple of 16", ""]


def test_windows_of_tokens_are_not_filled_up_behind_all() -> None:
    """Values that are exchanged in other groups than the product has: zeros would go behind the last window."""
    b = Builder()
    values = b(ChannelTranspose(), b.input(1, 16, 1, 40, name="v"))  # [1,40,1,16], two windows of 20
    y = b(ChannelMatMul(groups=2), b.input(1, 40, 1, 20), values)
    graph = b.graph(y)
    filled = run_passes(graph, [FillTiles(config=VTAConfig())])
    arrays = {"x": floats(1, 40, 1, 20), "v": floats(1, 16, 1, 40, seed=1)}
    np.testing.assert_allclose(evaluate(filled, arrays)[y], evaluate(graph, arrays)[y], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [-1e9, -1e4])
def test_a_mask_leaves_scores_their_steps(mask: float) -> None:
    b = Builder()
    scores = b(ChannelMatMul(), b.input(1, 16, 1, 16), b.input(1, 16, 1, 16, name="w"))
    masked = b(FusedAdd(), scores, b.constant(np.triu(np.full((16, 16), mask, np.float32), 1)[None, :, None].copy()))
    y = b(Softmax(axis=1), masked)
    graph = b.graph(y)
    inputs = {"x": floats(1, 16, 1, 16), "w": floats(1, 16, 1, 16, seed=1)}
    quantized = quantize_model(graph, [inputs], config=VTAConfig())
    exact, found = evaluate(graph, inputs)[y], evaluate(quantized.graph, inputs)[y]
    assert ((exact - found) ** 2).mean() < 0.01 * (exact**2).mean()
