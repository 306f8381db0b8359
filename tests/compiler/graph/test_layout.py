"""Packing: the order of VTA spec 8.5, padding with zeros, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.graph.layout import Layout, pack, pack_weights, unpack
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


@given(shape=SHAPES, block_out=st.integers(1, 4), block_in=st.integers(1, 4))
def test_every_weight_has_its_place(shape: tuple[int, int, int, int], block_out: int, block_in: int) -> None:
    w = int8s(*shape)
    packed = pack_weights(w, block_out=block_out, block_in=block_in)
    for place in np.ndindex(packed.shape):
        out, channel = place[0] * block_out + place[4], place[1] * block_in + place[5]
        inside = out < shape[0] and channel < shape[1]
        assert packed[place] == (w[out, channel, place[2], place[3]] if inside else 0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^Layout must have tiles of at least 1x1, not 0x4$"):
        Layout(0, 4)
    with pytest.raises(ValueError, match=r"^Packed array of logical shape \(1, 9, 2, 2\) must have shape "
                                         r"\(1, 3, 2, 2, 1, 4\), not \(1, 2, 2, 2, 1, 4\)$"):
        unpack(np.zeros((1, 2, 2, 2, 1, 4), np.int8), (1, 9, 2, 2))
