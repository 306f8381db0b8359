"""Packing: the order of VTA spec 8.5, padding with zeros, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.graph.layout import Layout, pack, unpack
from compiler.graph.lowering import GroupedWeights
from compiler.graph.ops.conv import convolve
from compiler.graph.ops.window import Window
from compiler.tensor.tiles import Tiled
from tests.compiler.graph.build import int8s

SHAPES = st.tuples(*[st.integers(1, 5)] * 4)


@given(shape=SHAPES, n=st.integers(1, 3), c=st.integers(1, 4))
def test_every_element_has_its_place(shape: tuple[int, int, int, int], n: int, c: int) -> None:
    x = int8s(*shape)
    packed = pack(x, Layout(n, c))
    assert packed.shape == Layout(n, c).physical(shape)
    assert packed.flags.c_contiguous
    for place in np.ndindex(packed.shape):
        image, channel = place[0] * n + place[4], place[1] * c + place[5]
        inside = image < shape[0] and channel < shape[1]
        assert packed[place] == (x[image, channel, place[2], place[3]] if inside else 0)
    np.testing.assert_array_equal(unpack(packed, shape), x)


@given(shape=SHAPES, outs=st.integers(1, 4), subs_y=st.integers(1, 2), ins=st.integers(1, 4), subs_x=st.integers(1, 2))
def test_every_weight_has_its_place(
    shape: tuple[int, int, int, int], outs: int, subs_y: int, ins: int, subs_x: int
) -> None:
    w = int8s(*shape)
    x = Tiled(batches=1, blocks=-(-shape[1] // (ins * subs_x)), height=1, width=1, subs=subs_x, n=1, c=ins)
    y = Tiled(batches=1, blocks=-(-shape[0] // (outs * subs_y)), height=1, width=1, subs=subs_y, n=1, c=outs)
    packed = GroupedWeights(w, 1, x, y).packed()
    for place in np.ndindex(packed.shape):
        block_y, sub_y, block_x, sub_x, row, column, c_y, c_x = place
        out, channel = (block_y * subs_y + sub_y) * outs + c_y, (block_x * subs_x + sub_x) * ins + c_x
        inside = out < shape[0] and channel < shape[1]
        assert packed[place] == (w[out, channel, row, column] if inside else 0)


@pytest.mark.parametrize(
    ("channels", "groups", "blockwise"), [(10, 10, True), (12, 3, True), (16, 2, False), (12, 6, True), (15, 5, False)]
)
def test_grouped_weights_multiply_as_groups(channels: int, groups: int, blockwise: bool) -> None:
    """Blocks of two tiles on one side; a group that crosses blocks needs all of them."""
    x = Tiled(batches=1, blocks=-(-channels // 4), height=1, width=1, subs=2, n=1, c=2)
    y = Tiled(batches=1, blocks=-(-channels // 4), height=1, width=1, n=1, c=4)
    w, image = int8s(channels, channels // groups, 1, 1), int8s(1, channels, 1, 1, seed=1).astype(np.int64)
    weights = GroupedWeights(w, groups, x, y)
    assert weights.blockwise is blockwise
    stored = np.zeros((x.blocks, 2, 2), np.int64)
    stored.reshape(-1)[:channels] = image.ravel()
    tiles = weights.packed()[:, 0, :, :, 0, 0].astype(np.int64)
    read = stored[:, None] if blockwise else np.broadcast_to(stored, (y.blocks, *stored.shape))
    product = np.einsum("ybtoi,ybti->yo", tiles, read).reshape(-1)[:channels]
    expected = convolve(image, w.astype(np.int64), Window(kernel=(1, 1)), groups)
    np.testing.assert_array_equal(product, expected.ravel())


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^Layout must have tiles of at least 1x1, not 0x4$"):
        Layout(0, 4)
    with pytest.raises(ValueError, match=r"^Packed array of logical shape \(1, 9, 2, 2\) must have shape "
                                         r"\(1, 3, 2, 2, 1, 4\), not \(1, 2, 2, 2, 1, 4\)$"):
        unpack(np.zeros((1, 2, 2, 2, 1, 4), np.int8), (1, 9, 2, 2))
