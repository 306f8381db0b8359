"""Transforms of minimal filtering are exact, and used where they pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from compiler.tensor.ir import DType
from compiler.tensor.minimal import F2, F4, KERNEL, Matrix, Minimal, best_tiling, transform_weights
from compiler.tensor.tiles import Tiled, Weighted, Window


def times(matrix: Matrix, column: Sequence[Fraction | int]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, column, strict=True)), start=Fraction(0)) for row in matrix]


@pytest.mark.parametrize("scheme", [F2, F4, Minimal(pairs=tuple(Fraction(n) for n in (1, 2, 3)))])
def test_products_at_the_points_are_a_convolution(scheme: Minimal) -> None:
    rng = np.random.default_rng(scheme.outputs)
    data, kernel = ([int(n) for n in rng.integers(-99, 99, size)] for size in (scheme.size, KERNEL))
    values = [a * b for a, b in zip(times(scheme.data, data), times(scheme.weights, kernel), strict=True)]
    expected = [sum(data[k + n] * kernel[n] for n in range(KERNEL)) for k in range(scheme.outputs)]
    assert times(scheme.result, values) == expected


@pytest.mark.parametrize("scheme", [F2, F4])
def test_coefficients_are_floats(scheme: Minimal) -> None:
    for row in (*scheme.data, *scheme.result):
        assert all(Fraction(float(np.float32(float(factor)))) == factor for factor in row)


def test_weights_are_rounded_once() -> None:
    w = np.random.default_rng(0).standard_normal((2, 1, KERNEL, KERNEL, 2, 3)).astype(np.float32)
    values = transform_weights(w, F4)
    assert values.shape == (2, 36, 1, 2, 3)
    assert values.dtype == np.float32
    kernel = [[Fraction(float(w[1, 0, row, column, 1, 2])) for row in range(KERNEL)] for column in range(KERNEL)]
    columns = [times(F4.weights, column) for column in kernel]
    exact = [times(F4.weights, row)[2] for row in zip(*columns, strict=True)]
    np.testing.assert_array_equal(values[1, 2::6, 0, 1, 2], np.array([float(n) for n in exact], np.float32))


def layer(size: int, ins: int, outs: int, window: Window | None = None) -> tuple[Weighted, Tiled]:
    x = Tiled(batches=1, blocks=ins // 16, height=size, width=size, n=1, c=16, dtype=DType.FLOAT32)
    window = window or Window(kernel=(3, 3), padding=(1, 1, 1, 1))
    return Weighted(x=x, window=window, weight=DType.FLOAT32), replace(x, blocks=outs // 16)


@pytest.mark.parametrize(
    ("size", "channels", "scheme"),
    [(56, 64, F4), (28, 128, F4), (14, 256, F2), (7, 512, F2), (4, 512, None), (1, 64, None)],
)
def test_the_smaller_the_image_the_less_weights_are_transformed(
    size: int, channels: int, scheme: Minimal | None
) -> None:
    tiling = best_tiling(*layer(size, channels, channels))
    assert (tiling.scheme if tiling else None) == scheme


@pytest.mark.parametrize(
    ("size", "channels", "strips", "rows"), [(56, 64, 14, 1), (224, 16, 56, 1), (28, 128, 1, 7), (14, 64, 1, 7)]
)
def test_strips_fit_a_cache_unless_weights_are_many(size: int, channels: int, strips: int, rows: int) -> None:
    tiling = best_tiling(*layer(size, channels, channels))
    assert tiling is not None
    assert (tiling.strips, tiling.rows) == (strips, rows)
    assert tiling.columns * tiling.scheme.outputs >= size


@pytest.mark.parametrize(
    "window",
    [
        Window(kernel=(1, 1)),
        Window(kernel=(5, 5)),
        Window(kernel=(3, 3), stride=(1, 2)),
        Window(kernel=(3, 3), dilation=(2, 1)),
    ],
)
def test_other_windows_have_none(window: Window) -> None:
    assert best_tiling(*layer(56, 64, 64, window)) is None


def test_other_blocks_have_none() -> None:
    source, y = layer(56, 64, 64)
    assert best_tiling(replace(source, blockwise=True), y) is None
    assert best_tiling(replace(source, x=replace(source.x, blocks=64, c=1)), y) is None
