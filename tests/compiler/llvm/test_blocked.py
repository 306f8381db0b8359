"""Float ops on blocks of channels: the definition, its schedule for a CPU, and machine code give the same bits."""

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
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.window import Window
from compiler.llvm.jit import compile_proc
from compiler.llvm.registers import Registers, SumTile, best_tile
from compiler.llvm.schedule import schedule
from compiler.tensor import define_blocked
from compiler.tensor.define_blocked import Bounds
from compiler.tensor.interp import run
from compiler.tensor.ir import Alloc, Const, DType, For, LoopKind, Prefetch, Proc
from compiler.tensor.tiles import Tiled, Weighted
from compiler.tensor.traverse import walk
from tests.compiler.graph.build import Builder, floats
from tests.compiler.llvm.guarded import guarded
from tests.compiler.llvm.one import generate
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig

Array = NDArray[Any]
SMALL = Registers(count=9, lanes=4)


def random_window(r: random.Random, height: int, width: int) -> Window:
    while True:
        kernel, stride, dilation = ((r.randint(1, most), r.randint(1, most)) for most in (3, 2, 2))
        top, left, bottom, right = (r.randint(0, 1) for _ in range(4))
        window = Window(kernel=kernel, stride=stride, dilation=dilation, padding=(top, left, bottom, right))
        if window.span[0] <= height and window.span[1] <= width:
            return window


def random_proc(seed: int) -> Proc:
    """A convolution or a pool, with odd sizes, and blocks of another width on the left of some."""
    r = random.Random(seed)
    height, width, c = r.randint(2, 6), r.randint(2, 11), r.choice((4, 4, 8))
    window = random_window(r, height, width)
    rows, columns = window.output(height, width)
    kind = r.choice(("conv", "conv", "depthwise", "max", "average"))
    blocks = r.randint(1, 4)
    x = Tiled(
        batches=r.randint(1, 2), blocks=r.randint(1, 3) if kind == "conv" else blocks, height=height, width=width,
        n=1, c=r.choice((1, c)) if kind == "conv" else c, dtype=DType.FLOAT32,
    )  # fmt: skip
    y = replace(x, blocks=blocks, height=rows, width=columns, c=c)
    source = Weighted(x=x, window=window, weight=DType.FLOAT32, blockwise=kind != "conv")
    if kind == "max":
        return define_blocked.max_pool2d("pool", source, y)
    if kind == "average":
        return define_blocked.average_pool2d("pool", source, y)
    bounds = Bounds(lo=r.choice((-math.inf, 0.0)), hi=r.choice((math.inf, 1.0)))
    return define_blocked.conv2d("conv", source, y, bounds, residual=r.random() < 0.5)


def random_arrays(proc: Proc, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(buffer.static_shape).astype(np.float32) for buffer in proc.params]


@pytest.mark.parametrize("seed", range(60))
def test_the_schedule_and_its_code_are_the_definition(seed: int) -> None:
    proc = random_proc(seed)
    scheduled = schedule(proc, SMALL).proc
    arrays = random_arrays(proc, seed)
    expected, interpreted = ([array.copy() for array in arrays] for _ in "ei")
    run(proc, expected)
    run(scheduled, interpreted)
    assert interpreted[-1].tobytes() == expected[-1].tobytes()
    compiled = [guarded(array) for array in arrays]
    compile_proc(scheduled)(*(each.array for each in compiled))
    assert compiled[-1].array.tobytes() == expected[-1].tobytes()
    assert all(each.is_intact for each in compiled)


def test_sums_stay_in_registers() -> None:
    """All that is allocated but the padded input has constant places: loops over it are unrolled, or are vectors."""
    source = Weighted(
        x=Tiled(batches=1, blocks=2, height=5, width=29, n=1, c=16, dtype=DType.FLOAT32),
        window=Window(kernel=(3, 3), padding=(1, 1, 1, 1)),
        weight=DType.FLOAT32,
    )
    proc = schedule(define_blocked.conv2d("conv", source, replace(source.x, blocks=4), Bounds(lo=0.0))).proc
    sums = [stmt for stmt in walk(proc.body) if isinstance(stmt, Alloc) and stmt.buffer.name != "X.padded"]
    tile = best_tile(4, 29, 16, Registers())
    widths = tile.pixels, 29 % tile.pixels
    assert [stmt.buffer.static_shape for stmt in sums] == [(1, tile.blocks, 1, width, 1, 1, 16) for width in widths]
    for stmt in sums:
        serial = [loop for loop in walk(stmt.body) if isinstance(loop, For) and loop.kind is LoopKind.SERIAL]
        assert {loop.var.name.removesuffix(".rest") for loop in serial} == {"dot.ci", "dot.ky", "dot.kx", "dot.i"}


@pytest.mark.parametrize(("columns", "size", "at_once"), [(7, 3, 5), (7, 1, 5), (29, 3, 3)])
def test_weights_of_the_next_blocks_are_fetched_meanwhile(columns: int, size: int, at_once: int) -> None:
    """The 32 lines of a tap are shared out among the tiles of whole width: one in each of 7 rows, or two."""
    source = Weighted(
        x=Tiled(batches=1, blocks=2, height=7, width=columns, n=1, c=16, dtype=DType.FLOAT32),
        window=Window(kernel=(size, size), padding=(size // 2,) * 4),
        weight=DType.FLOAT32,
    )
    proc = schedule(define_blocked.conv2d("conv", source, replace(source.x, blocks=4), Bounds())).proc
    hints = [loop for loop in walk(proc.body) if isinstance(loop, For) and loop.var.name.startswith("W.ahead")]
    assert [loop.extent for loop in hints[:1]] == [Const(at_once)]
    assert "call void @llvm.prefetch.p0(ptr" in generate(proc).text


def test_depthwise_weights_and_pools_fetch_nothing_ahead() -> None:
    x = Tiled(batches=1, blocks=4, height=7, width=7, n=1, c=16, dtype=DType.FLOAT32)
    source = Weighted(x=x, window=Window(kernel=(3, 3), padding=(1,) * 4), weight=DType.FLOAT32, blockwise=True)
    for proc in (define_blocked.conv2d("conv", source, x, Bounds()), define_blocked.max_pool2d("pool", source, x)):
        assert not any(isinstance(stmt, Prefetch) for stmt in walk(schedule(proc).proc.body))


@pytest.mark.parametrize("registers", [Registers(), Registers(count=16, lanes=8), SMALL])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7, 32])
def test_tiles_fit(registers: Registers, blocks: int) -> None:
    for pixels in (1, 2, 5, 7, 14, 28, 37, 112):
        tile = best_tile(blocks, pixels, 16, registers)
        vectors = tile.blocks * registers.vectors(16)
        assert blocks % tile.blocks == 0
        assert tile.pixels <= pixels
        assert vectors * (tile.pixels + 1) + 1 <= registers.count or tile == SumTile(blocks=1, pixels=1)


def test_tiles_of_networks() -> None:
    assert best_tile(4, 56, 16, Registers()) == SumTile(blocks=2, pixels=14)
    assert best_tile(32, 7, 16, Registers()) == SumTile(blocks=2, pixels=7)
    assert best_tile(63, 1, 16, Registers()).blocks == 9


def network(seed: int) -> Graph:
    """Convolutions of all kinds behind each other, in blocks and not, with channels that fill no block."""
    r = random.Random(seed)
    b = Builder()
    channels = r.choice((3, 16, 20))
    x = b.input(r.randint(1, 2), channels, r.randint(4, 9), r.randint(4, 9))
    values = [x]
    for k in range(4):
        shape = b.graph(values[-1]).types[values[-1]].shape if b.nodes else b.inputs[0].type.shape
        channels = shape[1]
        groups = r.choice((1, 1, channels, 2 if channels % 2 == 0 else 1))
        outs = channels if groups == channels else r.choice((6, 16, 34))
        w, bias = floats(outs, channels // groups, 3, 3, seed=k) / np.float32(6), floats(outs, seed=k + 9)
        lo, hi = r.choice((0.0, -math.inf)), r.choice((6.0, math.inf))
        conv = FusedConv(padding=(1, 1, 1, 1), groups=groups, lo=lo, hi=hi)
        y = b(conv, values[-1], b.constant(w), b.constant(bias))
        if outs == channels and len(values) > 1 and r.random() < 0.5:
            y = b(FusedAdd(lo=0.0), y, values[-1])
        if r.random() < 0.4:
            window = Window(kernel=(2, 2), padding=(1, 0, 0, 1))
            y = b(r.choice((MaxPool, AveragePool))(kernel=window.kernel, padding=window.padding), y)
        values.append(y)
    return b.graph(b(GlobalAveragePool(), values[-1]), values[1], values[2])


@pytest.mark.parametrize("seed", range(12))
def test_networks_are_near_the_reference(seed: int) -> None:
    graph = network(seed)
    (value,) = graph.inputs
    x = floats(*value.type.shape, seed=seed)
    expected = evaluate(graph, {value.name: x})
    answers = open_session(compile_graph(graph, VTAConfig(), target=Target.CPU), Engine.LLVM).run({value.name: x})
    assert sorted(answers) == sorted(expected)
    for name, array in answers.items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-5)
