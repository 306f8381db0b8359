"""Changes of layout as squares that are exchanged in registers: bit for bit what the definition says."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.llvm.jit import compile_proc
from compiler.llvm.schedule import schedule
from compiler.llvm.transpose import transposition
from compiler.tensor import define_host, interp
from compiler.tensor.analysis import loops_of
from compiler.tensor.ir import DType, For, LoopKind, Proc
from compiler.tensor.traverse import walk
from tests.compiler.llvm.guarded import guarded

BLOCKS, ROWS = (1, 16), (1, 1)


def squares(proc: Proc) -> int:
    return sum(transposition(stmt) is not None for stmt in walk(proc.body) if isinstance(stmt, For))


def check(proc: Proc, seed: int) -> None:
    scheduled = schedule(proc).proc
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(-100, 100, buffer.static_shape).astype(buffer.type.numpy) for buffer in proc.params)
    expected = y.copy()
    interp.run(proc, [x, expected])
    source, target = guarded(x), guarded(y)
    compile_proc(scheduled)(source.array, target.array)
    assert source.is_intact and target.is_intact
    assert np.array_equal(target.array, expected)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.INT8, DType.INT16])
@pytest.mark.parametrize(
    "shape", [(1, 32, 4, 8), (1, 16, 7, 7), (2, 35, 9, 5), (1, 3, 5, 5), (1, 17, 1, 1), (2, 40, 3, 11)]
)
def test_blocks_and_rows_are_exchanged(shape: tuple[int, int, int, int], dtype: DType) -> None:
    for source, target in ((BLOCKS, ROWS), (ROWS, BLOCKS)):
        check(define_host.relayout("r", shape, source, target, dtype=dtype), seed=sum(shape))


@pytest.mark.parametrize("source", [BLOCKS, ROWS])
def test_whole_blocks_are_squares_and_what_is_left_is_not(source: tuple[int, int]) -> None:
    target = ROWS if source == BLOCKS else BLOCKS
    assert squares(schedule(define_host.relayout("r", (1, 48, 8, 4), source, target)).proc) == 1
    assert squares(schedule(define_host.relayout("r", (1, 40, 9, 3), source, target)).proc) == 1
    assert squares(schedule(define_host.relayout("r", (1, 12, 8, 4), source, target)).proc) == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("pixels", [(4, 4), (5, 7), (1, 33), (2, 3)])
def test_channels_of_an_image_are_put_between_each_other(channels: int, pixels: tuple[int, int]) -> None:
    shape = 2, channels, *pixels
    for proc in (
        define_host.relayout("r", shape, ROWS, (1, 4)),
        define_host.relayout("r", shape, (1, 4), ROWS),
        define_host.quantize("q", shape, (1, 4), inverse_scale=0.5, low=-100, high=100),
    ):
        check(proc, seed=channels)
    whole = schedule(define_host.relayout("r", (1, 4, 8, 8), ROWS, (1, 4))).proc
    assert squares(whole) == 1


def test_quantised_images_are_exchanged_while_they_are_converted() -> None:
    proc = define_host.quantize("q", (1, 20, 4, 9), BLOCKS, inverse_scale=0.5, low=-100, high=100)
    assert squares(schedule(proc).proc) == 0  # no row of 16 pixels
    proc = define_host.quantize("q", (1, 20, 3, 33), BLOCKS, inverse_scale=0.5, low=-100, high=100)
    assert squares(schedule(proc).proc) == 1
    check(proc, seed=1)


def test_two_vectorised_loops_of_other_kinds_are_no_squares() -> None:
    (nest,) = schedule(define_host.relayout("r", (1, 16, 4, 4), BLOCKS, ROWS)).proc.body
    outer = next(site.loop for site in loops_of((nest,)) if site.loop.kind is LoopKind.VECTORIZED)
    assert transposition(outer) is not None
    (inner,) = outer.body
    assert isinstance(inner, For)
    assert transposition(inner) is None
    assert transposition(For(outer.var, outer.extent, (For(inner.var, inner.extent, inner.body),), outer.kind)) is None
