"""Convolutions by minimal filtering: the definition is near the answer; its schedule and code are the definition."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.driver import Target, compile_graph
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.ops.conv import convolve
from compiler.graph.ops.fused import FusedConv
from compiler.graph.ops.relayout import Relayout
from compiler.graph.ops.window import Window
from compiler.graph.passes.pipeline import place_on_cpu
from compiler.llvm.jit import compile_proc
from compiler.llvm.parallel import share_loops
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule
from compiler.llvm.sections import sections
from compiler.tensor import define_winograd
from compiler.tensor.define_blocked import Bounds
from compiler.tensor.interp import run
from compiler.tensor.ir import Alloc, DType, For, LoopKind, Prefetch, Proc, constant
from compiler.tensor.minimal import F2, F4, Minimal, Tiling, transform_weights
from compiler.tensor.tiles import Tiled, Weighted
from compiler.tensor.traverse import walk
from compiler.tensor.verify import verify
from tests.compiler.graph.build import Builder, floats
from tests.compiler.llvm.guarded import guarded
from tests.compiler.llvm.test_blocked import SMALL
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig

Array = NDArray[Any]


def image(array: Array) -> Array:
    """[N, blocks, H, W, 1, 1, c] as [N, C, H, W]."""
    return np.moveaxis(array[:, :, :, :, 0, 0], -1, 2).reshape(array.shape[0], -1, *array.shape[2:4])


def random_convolution(seed: int, c: int) -> tuple[Proc, list[Array], Array]:
    """A definition of odd sizes and padding, its arguments, and the answer in float64."""
    r = random.Random(seed)
    scheme = (F2, F4)[seed % 2]
    top, left, bottom, right = (r.randint(0, 2) for _ in range(4))
    height, width = r.randint(max(1, 3 - top - bottom), 11), r.randint(max(1, 3 - left - right), 11)
    x = Tiled(
        batches=r.randint(1, 2), blocks=r.randint(1, 3), height=height, width=width, n=1, c=c, dtype=DType.FLOAT32
    )
    window = Window(kernel=(3, 3), padding=(top, left, bottom, right))
    rows, columns = window.output(height, width)
    y = replace(x, blocks=r.randint(1, 4), height=rows, width=columns)
    down = -(-rows // scheme.outputs)
    together = r.randint(1, down)
    strips, across = -(-down // together), -(-columns // scheme.outputs)
    tiling = Tiling(scheme=scheme, strips=strips, rows=together, columns=across)
    bounds = Bounds(lo=r.choice((-math.inf, -3.0)), hi=r.choice((math.inf, 6.0)))
    source, residual = Weighted(x=x, window=window, weight=DType.FLOAT32), r.random() < 0.5
    proc = define_winograd.conv2d("conv", source, y, bounds, tiling, residual=residual)
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(buffer.static_shape).astype(np.float32) for buffer in proc.params]
    w = rng.standard_normal((y.blocks, x.blocks, 3, 3, c, c)).astype(np.float32)
    arrays[1] = transform_weights(w, scheme)
    rows_of_w = w.transpose(0, 5, 1, 4, 2, 3).reshape(y.blocks * c, x.blocks * c, 3, 3).astype(np.float64)
    exact = convolve(image(arrays[0]).astype(np.float64), rows_of_w, window) + arrays[2].reshape(-1, 1, 1)
    exact += image(arrays[3]) if residual else 0
    return proc, arrays, np.clip(exact, bounds.lo, bounds.hi)


@pytest.mark.parametrize(
    ("seed", "c", "registers"),
    [*((seed, 4, SMALL) for seed in range(24)), *((seed, 8, Registers(count=16, lanes=8)) for seed in range(6))],
)
def test_the_schedule_and_its_code_are_the_definition(seed: int, c: int, registers: Registers) -> None:
    proc, arrays, exact = random_convolution(seed, c)
    verify(proc)
    scheduled = schedule(proc, registers).proc
    verify(scheduled)
    assert any(isinstance(stmt, For) and stmt.kind is LoopKind.UNROLLED for stmt in walk(scheduled.body))
    expected, interpreted = ([array.copy() for array in arrays] for _ in "ei")
    run(proc, expected)
    np.testing.assert_allclose(image(expected[-1]), exact, rtol=0, atol=4e-5)
    run(scheduled, interpreted)
    assert interpreted[-1].tobytes() == expected[-1].tobytes()
    compiled = [guarded(array) for array in arrays]
    compile_proc(scheduled)(*(each.array for each in compiled))
    assert compiled[-1].array.tobytes() == expected[-1].tobytes()
    assert all(each.is_intact for each in compiled)


def of_size(size: int, ins: int, outs: int, tiling: Tiling) -> Proc:
    x = Tiled(batches=1, blocks=ins // 16, height=size, width=size, n=1, c=16, dtype=DType.FLOAT32)
    source = Weighted(x=x, window=Window(kernel=(3, 3), padding=(1, 1, 1, 1)), weight=DType.FLOAT32)
    return define_winograd.conv2d("conv", source, replace(x, blocks=outs // 16), Bounds(lo=0.0), tiling)


def test_strips_hold_what_is_transformed_and_sums_stay_in_registers() -> None:
    proc = schedule(of_size(56, 64, 64, Tiling(scheme=F4, strips=14, rows=1, columns=14))).proc
    shapes = {stmt.buffer.name: stmt.buffer.static_shape for stmt in walk(proc.body) if isinstance(stmt, Alloc)}
    assert shapes["V"] == (1, 1, 36, 4, 14, 16)
    assert shapes["P"] == (1, 1, 1, 6, 58, 16)
    assert shapes["M"] == (1, 1, 2, 36, 14, 16)
    assert shapes["A"] == (1, 1, 2, 1, 14, 16)
    assert any(isinstance(stmt, Prefetch) for stmt in walk(proc.body))


@pytest.mark.parametrize(
    ("tiling", "extents"),
    [
        (Tiling(scheme=F4, strips=14, rows=1, columns=14), [14]),  # strips from input to result
        (Tiling(scheme=F4, strips=1, rows=14, columns=14), [4, 2]),  # blocks of the input, then of the result
    ],
)
def test_threads_share_strips_or_blocks(tiling: Tiling, extents: list[int]) -> None:
    s = schedule(of_size(56, 64, 64, tiling))
    share_loops(s)
    parts = sections(s.proc).parts
    assert all(part.is_parallel for part in parts)
    loops = [part.proc.body[0] for part in parts]
    assert [constant(loop.extent) for loop in loops if isinstance(loop, For)] == extents


def network(size: int, channels: int) -> Graph:
    b = Builder()
    x = b.input(1, channels, size, size)
    w, bias = floats(channels, channels, 3, 3, seed=1) / np.float32(3 * math.sqrt(channels)), floats(channels, seed=2)
    y = b(FusedConv(padding=(1, 1, 1, 1), lo=0.0), x, b.constant(w), b.constant(bias))
    return b.graph(y)


@pytest.mark.parametrize(
    ("size", "channels", "scheme", "most"), [(30, 64, F4, 1e-5), (29, 160, F4, 1e-5), (13, 256, F2, 3e-6)]
)
def test_answers_are_accurate_on_any_number_of_threads(size: int, channels: int, scheme: Minimal, most: float) -> None:
    graph = network(size, channels)
    placed = place_on_cpu(graph, VTAConfig())
    assert isinstance(placed.nodes[0].op, Relayout)
    program = compile_graph(graph, VTAConfig(), target=Target.CPU)
    x = {"x": floats(1, channels, size, size, seed=3)}
    (expected,) = evaluate(graph, x).values()
    assert channels * channels * scheme.points in {math.prod(buffer.shape) for buffer in program.buffers}
    answers = [open_session(program, Engine.LLVM, threads=threads).run(x) for threads in (1, 2)]
    (one,), (two,) = (answer.values() for answer in answers)
    assert one.tobytes() == two.tobytes()
    assert np.abs(one - expected).max() <= most * np.abs(expected).max()


def test_images_of_few_channels_stay_row_major() -> None:
    b = Builder()
    x = b.input(1, 3, 56, 56)
    y = b(FusedConv(padding=(1, 1, 1, 1)), x, b.constant(floats(64, 3, 3, 3)), b.constant(floats(64)))
    placed = place_on_cpu(b.graph(y), VTAConfig())
    assert not isinstance(placed.nodes[0].op, Relayout)
