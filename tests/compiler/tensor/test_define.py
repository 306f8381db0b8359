"""The definitions of the ops against plain numpy on logical tensors, and their schedules against the definitions."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.graph.ops import softmax as exact
from compiler.llvm.schedule import schedule as cpu_schedule
from compiler.tensor import define_host
from compiler.tensor.analysis import loops_of
from compiler.tensor.define import Requantize, avg_pool2d, combine, conv2d, exact_conv2d, max_pool2d, multiply
from compiler.tensor.define_tiles import Line, Moved, move
from compiler.tensor.interp import run
from compiler.tensor.ir import Alloc, BinaryOp, Buffer, DType, LoopKind, Proc
from compiler.tensor.schedule import Schedule
from compiler.tensor.serial import from_json, to_json
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.tensor.traverse import walk
from compiler.tensor.verify import verify
from compiler.vta.footprint import steps_of
from compiler.vta.schedule import schedule as vta_schedule
from compiler.vta.tiling import TilingProblem
from tests.compiler.tensor.random_procs import random_array
from vta_hw.spec.config import preset

Array = NDArray[Any]
RANDOM = st.randoms(use_true_random=False)


def unpack(tiled: Array) -> Array:
    """[N/n, C/(s*c), H, W, s, n, c] as int32 [N, C, H, W]."""
    batches, blocks, height, width, subs, n, c = tiled.shape
    logical = tiled.transpose(0, 5, 1, 4, 6, 2, 3)
    return logical.reshape(batches * n, blocks * subs * c, height, width).astype(np.int32)


def unpack_weight(tiled: Array) -> Array:
    """[O/(s*c), s, I/(s*c), s, KH, KW, c, c] as int32 [O, I, KH, KW]."""
    yb, ys, xb, xs, kh, kw, cy, cx = tiled.shape
    return tiled.transpose(0, 1, 6, 2, 3, 7, 4, 5).reshape(yb * ys * cy, xb * xs * cx, kh, kw).astype(np.int32)


def unpack_channel(tiled: Array) -> Array:
    """[C/(s*c), s, n, c] as [n, C]: one value for each row of a tile and each channel."""
    blocks, subs, n, c = tiled.shape
    return tiled.transpose(2, 0, 1, 3).reshape(n, blocks * subs * c)


def tap(x: Array, window: Window, size: tuple[int, int], ky: int, kx: int) -> tuple[Array, Array]:
    """What each output reads at one tap, and where that lies in `x`."""
    rows = np.arange(size[0]) * window.stride[0] + ky * window.dilation[0] - window.padding[0]
    columns = np.arange(size[1]) * window.stride[1] + kx * window.dilation[1] - window.padding[1]
    inside = ((rows >= 0) & (rows < x.shape[2]))[:, None] & ((columns >= 0) & (columns < x.shape[3]))[None, :]
    read = x[:, :, np.clip(rows, 0, x.shape[2] - 1)][:, :, :, np.clip(columns, 0, x.shape[3] - 1)]
    return read, np.broadcast_to(inside, read.shape)


def taps(x: Array, window: Window, size: tuple[int, int]) -> list[tuple[int, int, Array, Array]]:
    kernel = [(ky, kx) for ky in range(window.kernel[0]) for kx in range(window.kernel[1])]
    return [(ky, kx, *tap(x, window, size, ky, kx)) for ky, kx in kernel]


def rows_of(values: Array, batch: int) -> Array:
    """Per-row, per-channel values for a batch of whole tiles, to broadcast over positions."""
    return np.tile(values, (batch // values.shape[0], 1))[:, :, None, None]


# -- random instances


def tensor(r: random.Random, height: int, width: int, n: int, batches: int, c: int, dtype: DType = DType.INT8) -> Tiled:
    subs = r.choice((1, 1, 2))
    return Tiled(batches=batches, blocks=r.randint(1, 2), height=height, width=width, subs=subs, n=n, c=c, dtype=dtype)


def sliding(r: random.Random) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """A window, and extents of an input and the output of it."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return r.randint(low, high), r.randint(low, high)

    kernel, stride, dilation = pair(1, 3), pair(1, 2), pair(1, 2)
    top, left, bottom, right = (r.choice((0, 0, 1, 2)) for _ in range(4))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = max(span[0] - top - bottom, 1) + r.randint(0, 3)
    width = max(span[1] - left - right, 1) + r.randint(0, 3)
    window = Window(kernel=kernel, stride=stride, padding=(top, left, bottom, right), dilation=dilation)
    out = (height + top + bottom - span[0]) // stride[0] + 1, (width + left + right - span[1]) // stride[1] + 1
    return window, (height, width), out


def limits(r: random.Random) -> tuple[int, int]:
    return r.choice(((-128, 127), (0, 127), (-128, 0), (-3, 5)))


def arguments(r: random.Random, proc: Proc) -> list[Array]:
    rng = np.random.default_rng(r.getrandbits(32))
    return [np.array(random_array(rng, buffer), order="C") for buffer in proc.params]


def result(proc: Proc, arrays: Sequence[Array]) -> Array:
    copies = [array.copy() for array in arrays]
    run(proc, copies)
    assert all(np.array_equal(copy, array) for copy, array in zip(copies[:-1], arrays[:-1], strict=True))
    return copies[-1]


def a_convolution(r: random.Random, c: tuple[int, int] | None = None, n: int | None = None) -> Proc:
    window, size, out = sliding(r)
    n, batches = n or r.randint(1, 2), r.randint(1, 2)
    cx, cy = c or (r.randint(1, 3), r.randint(1, 3))
    x, y = tensor(r, *size, n, batches, cx), tensor(r, *out, n, batches, cy)
    low, high = limits(r)
    requantize = Requantize(
        shift=r.choice((0, 1, 8)), low=low, high=high, pre_shift=r.choice((0, 3)), multiplier=r.random() < 0.5
    )
    residual, multiplier = r.choice(((None, 1), (y, 1), (y, -7)))
    source = Weighted(x=x, window=window)
    return conv2d("conv", source, y, requantize, residual=residual, residual_multiplier=multiplier)


def an_exact_convolution(r: random.Random, c: int | None = None, n: int | None = None) -> tuple[Proc, Window]:
    window, size, out = sliding(r)
    n, batches = n or r.randint(1, 2), r.randint(1, 2)
    x, y = (tensor(r, *extent, n, batches, c or r.randint(1, 3)) for extent in (size, out))
    source = Weighted(x=x, window=window)
    residual = r.random() < 0.5
    return exact_conv2d("exact", source, y, fine=9, shift=20, low=-128, high=127, residual=residual), window


# -- the definitions


@settings(max_examples=60)
@given(RANDOM)
def test_conv2d(r: random.Random) -> None:
    window, size, out = sliding(r)
    n, batches = r.randint(1, 2), r.randint(1, 2)
    x, y = tensor(r, *size, n, batches, r.randint(1, 3)), tensor(r, *out, n, batches, r.randint(1, 3))
    low, high = limits(r)
    q = Requantize(
        shift=r.choice((0, 1, 8)), low=low, high=high, pre_shift=r.choice((0, 3)), multiplier=r.random() < 0.5
    )
    residual = r.choice((None, 1, -7))
    added = None if residual is None else y
    source = Weighted(x=x, window=window)
    proc = conv2d("conv", source, y, q, residual=added, residual_multiplier=residual or 1)
    verify(proc)
    arrays = arguments(r, proc)
    named = {buffer.name: array for buffer, array in zip(proc.params, arrays, strict=True)}
    assert list(named) == [
        "X",
        "W",
        *(["M"] if q.multiplier else []),
        "B",
        *(["R"] if residual is not None else []),
        "Y",
    ]

    data, weight = unpack(named["X"]), unpack_weight(named["W"])
    acc: Array = np.zeros((data.shape[0], weight.shape[0], *out), np.int32)
    for ky, kx, read, inside in taps(data, window, out):
        acc += np.einsum("nihw,oi->nohw", np.where(inside, read, 0), weight[:, :, ky, kx]).astype(np.int32)
    acc >>= q.pre_shift
    if q.multiplier:
        acc = acc * rows_of(unpack_channel(named["M"]), len(acc))
    acc = acc + rows_of(unpack_channel(named["B"]), len(acc))
    if residual is not None:
        acc = acc + unpack(named["R"]) * np.int32(residual)
    expected = np.clip(acc >> q.shift, q.low, q.high)
    assert np.array_equal(unpack(result(proc, arrays)), expected)


@settings(max_examples=40)
@given(RANDOM)
def test_exact_conv2d(r: random.Random) -> None:
    proc, window = an_exact_convolution(r)
    verify(proc)
    arrays = arguments(r, proc)
    x, w, p, *r, y = arrays
    data, weight = unpack(x), unpack_weight(w)
    low, high = -128, 127
    acc: Array = np.zeros((data.shape[0], weight.shape[0], *y.shape[2:4]), np.int32)
    for ky, kx, read, inside in taps(data, window, (y.shape[2], y.shape[3])):
        acc += np.einsum("nihw,oi->nohw", np.where(inside, read, 0), weight[:, :, ky, kx]).astype(np.int32)
    least, most, m, n, b, *factor = (rows_of(unpack_channel(p[:, :, k]), len(acc)) for k in range(p.shape[2]))
    acc = np.minimum(np.maximum(acc, least), most)
    acc = acc * m + ((acc * n) >> 9) + b
    for residual in r:
        acc = acc + unpack(residual) * factor[0]
    expected = np.clip(acc >> 20, low, high)
    assert np.array_equal(unpack(result(proc, arrays)), expected)


@settings(max_examples=20)
@given(RANDOM)
def test_numbers_that_are_no_immediates_are_loaded(r: random.Random) -> None:
    y = tensor(r, r.randint(1, 4), r.randint(1, 4), r.randint(1, 2), r.randint(1, 2), r.randint(1, 4))
    both = combine("combine", y, (9, 9), 9, 20, -128, 127, wide=True)
    product = multiply("multiply", y, y, 9, 9, 20, -128, 127, wide=True)
    for proc in (both, product):
        verify(proc)
        arrays = arguments(r, proc)
        x0, x1, p, _ = arrays
        numbers = [np.tile(number, (y.batches, y.blocks * y.subs))[:, :, None, None] for number in p]
        a, c = unpack(x0), unpack(x1)
        total = a * numbers[0] + c * numbers[1] + numbers[2] if proc is both else a * c * numbers[0] + numbers[1]
        assert np.array_equal(unpack(result(proc, arrays)), np.clip(total >> 20, -128, 127))


@settings(max_examples=40)
@given(RANDOM)
def test_combine(r: random.Random) -> None:
    y = tensor(r, r.randint(1, 4), r.randint(1, 4), r.randint(1, 2), r.randint(1, 2), r.randint(1, 4))
    multipliers = tuple(r.choice((None, 1, -1, 3, 32767)) for _ in range(r.randint(1, 2)))
    bias, shift = r.choice((0, 5, -32767)), r.choice((0, 4))
    low, high = limits(r)
    by, join = r.choice(((BinaryOp.ADD, np.add), (BinaryOp.MIN, np.minimum), (BinaryOp.MAX, np.maximum)))
    proc = combine("combine", y, multipliers, bias, shift, low, high, by=by)
    verify(proc)
    arrays = arguments(r, proc)
    inputs = [unpack(array) for array in arrays[: len(multipliers)]]
    rows = len(inputs[0])
    factors = [rows_of(unpack_channel(arrays[-2]), rows) if m is None else np.int32(m) for m in multipliers]
    total = functools.reduce(join, [x * m for x, m in zip(inputs, factors, strict=True)])
    expected = np.clip((total + np.int32(bias)) >> shift, low, high)
    assert np.array_equal(unpack(result(proc, arrays)), expected)


def pooled(r: random.Random) -> tuple[Tiled, Tiled, Window]:
    window, size, out = sliding(r)
    x = tensor(r, *size, r.randint(1, 2), r.randint(1, 2), r.randint(1, 3), r.choice((DType.INT8, DType.INT16)))
    y = Tiled(batches=x.batches, blocks=x.blocks, height=out[0], width=out[1], subs=x.subs, n=x.n, c=x.c, dtype=x.dtype)
    return x, y, window


@settings(max_examples=40)
@given(RANDOM)
def test_max_pool2d(r: random.Random) -> None:
    x, y, window = pooled(r)
    proc = max_pool2d("pool", x, y, window)
    verify(proc)
    arrays = arguments(r, proc)
    lowest = -(1 << (x.dtype.bits - 1))
    data = unpack(arrays[0])
    expected = np.full((*data.shape[:2], y.height, y.width), lowest, np.int32)
    for _, _, read, inside in taps(data, window, (y.height, y.width)):
        expected = np.maximum(expected, np.where(inside, read, lowest))
    assert np.array_equal(unpack(result(proc, arrays)), expected)


@settings(max_examples=40)
@given(RANDOM)
def test_avg_pool2d(r: random.Random) -> None:
    x, y, window = pooled(r)
    multiplier = r.choice((None, 1, 21845))
    bias, shift = r.choice((0, 1 << 15)), r.choice((0, 16))
    low, high = limits(r)
    proc = avg_pool2d("pool", x, y, window, multiplier, bias, shift, low, high)
    verify(proc)
    arrays = arguments(r, proc)
    data = unpack(arrays[0])
    total: Array = np.zeros((*data.shape[:2], y.height, y.width), np.int32)
    for _, _, read, inside in taps(data, window, (y.height, y.width)):
        total += np.where(inside, read, 0)
    if multiplier is None:
        per_tile = arrays[1].transpose(2, 3, 0, 1)  # [n, c, OH, OW]
        repeats = total.shape[0] // y.n, total.shape[1] // y.c, 1, 1
        total = total * np.tile(per_tile, repeats)
    else:
        total = total * np.int32(multiplier)
    expected = np.clip((total + np.int32(bias)) >> shift, low, high)
    assert np.array_equal(unpack(result(proc, arrays)), expected)


def test_definitions_are_made_of_perfect_nests_over_the_output() -> None:
    proc = a_convolution(random.Random(1))
    assert all(site.loop.kind is LoopKind.SERIAL for site in loops_of(proc.body))
    assert from_json(to_json(proc)) == proc


# -- the schedules


def instance(r: random.Random, c: int | None = None, n: int | None = None) -> Proc:
    """One of the definitions at random; `c` and `n` fix the tile."""
    kind = r.randrange(5)
    if kind == 0:
        return a_convolution(r, (c, c) if c else None, n)
    window, size, out = sliding(r)
    n, c = n or r.randint(1, 2), c or r.randint(1, 3)
    x = tensor(r, *size, n, r.randint(1, 2), c)
    y = Tiled(batches=x.batches, blocks=x.blocks, height=out[0], width=out[1], subs=x.subs, n=x.n, c=x.c)
    low, high = limits(r)
    if kind == 1:
        return max_pool2d("max", x, y, window)
    if kind == 2:
        multiplier = r.choice((None, 1, 21845))
        wide = r.random() < 0.3
        return avg_pool2d("avg", x, y, window, multiplier, r.choice((0, 99)), r.choice((0, 9)), low, high, wide=wide)
    if kind == 3:
        return an_exact_convolution(r, c, n)[0]
    multipliers = tuple(r.choice((1, -1, 3)) for _ in range(r.randint(1, 2)))
    return combine("add", y, multipliers, r.choice((0, 5)), r.choice((0, 4)), low, high, wide=r.random() < 0.3)


def check_schedule(r: random.Random, proc: Proc, scheduled: Schedule) -> None:
    """The same answer from a verified procedure, again when the trace is replayed."""
    verify(scheduled.proc)
    arrays = arguments(r, proc)
    assert np.array_equal(result(scheduled.proc, arrays), result(proc, arrays))
    assert Schedule.replay(proc, scheduled.trace).proc == scheduled.proc


@settings(max_examples=40)
@given(RANDOM)
def test_cpu_schedule_keeps_the_answer(r: random.Random) -> None:
    proc = instance(r)
    scheduled = cpu_schedule(proc)
    assert any(site.loop.kind is LoopKind.VECTORIZED for site in loops_of(scheduled.proc.body)) or not any(
        extent > 1 for extent in proc.params[-1].static_shape[2:]
    )
    check_schedule(r, proc, scheduled)


def a_move(r: random.Random, c: int, n: int) -> tuple[Proc, list[Moved], int]:
    """A block of two tensors, one below the other; with what is moved the number of that block."""
    transposed, padding, step = r.random() < 0.5, r.randint(0, 2), r.choice((1, 2, -1))
    x = tensor(r, r.randint(2, 4), r.randint(2, 4), n, 2, c)
    first = r.randrange(x.blocks)
    rows, columns = (x.width, x.height) if transposed else (x.height, x.width)
    source = (Line(), Line(first=0 if step > 0 else x.width - 1, step=step))
    along = -(-x.width // abs(step))
    size = (along, columns) if transposed else (rows + padding, along)
    place = (Line(), Line()), (Line(first=size[0], step=1), Line())
    boxes = [
        Moved(x=k, size=size, source=source, target=place[k], transposed=transposed, blocks=Line(first=first, step=0))
        for k in (0, 1)
    ]
    y = replace(x, blocks=1, height=2 * size[0], width=size[1])
    w = Buffer.of("W", DType.INT8, (1, 1, x.subs, 1, x.subs, c, c))
    return move("move", [x, x], boxes, y, w), boxes, first


@settings(max_examples=30)
@given(RANDOM)
def test_move(r: random.Random) -> None:
    config = preset("tiny")
    proc, boxes, first = a_move(r, config.block_out, config.batch)
    verify(proc)
    x0, x1, w, y = arguments(r, proc)
    subs, c = w.shape[2], w.shape[5]
    w[0, 0, :, 0] = np.eye(subs * c, dtype=np.int8).reshape(subs, c, subs, c).swapaxes(1, 2)
    expected = []
    for x, box in zip((x0, x1), boxes, strict=True):
        part = unpack(x)[:, first * subs * c : (first + 1) * subs * c, :, :: box.source[1].step]
        part = part.swapaxes(2, 3) if box.transposed else part
        rows = box.size[0] - part.shape[2]
        expected.append(np.pad(part, ((0, 0), (0, 0), (0, rows), (0, 0))))
    answer = result(proc, [x0, x1, w, y])
    assert np.array_equal(unpack(answer), np.concatenate(expected, axis=2))
    scheduled = y
    for step in steps_of(proc):
        step_of = vta_schedule(step, config, TilingProblem(step, config).best())
        verify(step_of.proc)
        scheduled = result(step_of.proc, [x0, x1, w, scheduled])
    assert np.array_equal(scheduled, answer)


def test_cpu_schedule_keeps_temporaries_to_a_tile_of_sums() -> None:
    proc = max_pool2d(
        "pool",
        Tiled(batches=1, blocks=2, height=6, width=6, n=1, c=4),
        Tiled(batches=1, blocks=2, height=6, width=6, n=1, c=4),
        Window(kernel=(3, 3), padding=(1, 1, 1, 1)),
    )
    (temporary,) = (stmt.buffer for stmt in walk(cpu_schedule(proc).proc.body) if isinstance(stmt, Alloc))
    assert temporary.static_shape == (1, 2, 1, 6, 1, 1, 4)


def test_cpu_schedule_leaves_other_procedures_alone() -> None:
    for proc in (
        define_host.copy("c", 12, DType.INT8),
        define_host.relayout("r", (1, 5, 2, 2), (1, 4), (1, 2)),
    ):
        assert cpu_schedule(proc).proc == proc


@settings(max_examples=15)
@given(RANDOM)
def test_vta_schedule_keeps_the_answer(r: random.Random) -> None:
    config = preset("tiny")
    proc = instance(r, config.block_out, config.batch)
    try:
        tiling = TilingProblem(proc, config).best()
    except LoweringError:
        return  # does not fit the smallest machine there is
    check_schedule(r, proc, vta_schedule(proc, config, tiling))


# -- around the network


def packed(logical: Array, tile: tuple[int, int]) -> Array:
    """[N, C, H, W] as [N/n, C/c, H, W, n, c], zeros where there is no data."""
    n, c = tile
    batch, channels, height, width = logical.shape
    padded = np.pad(logical, ((0, -batch % n), (0, -channels % c), (0, 0), (0, 0)))
    return np.ascontiguousarray(
        padded.reshape(padded.shape[0] // n, n, padded.shape[1] // c, c, height, width).transpose(0, 2, 4, 5, 1, 3)
    )


SHAPES = [((1, 1, 1, 1), (1, 1)), ((3, 5, 2, 3), (2, 4)), ((2, 4, 3, 1), (2, 4)), ((1, 7, 2, 2), (1, 16))]


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
def test_quantize(shape: define_host.Shape4, tile: define_host.Tile, dtype: DType) -> None:
    low, high = -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    proc = define_host.quantize("q", shape, tile, inverse_scale=10.0, low=low, high=high, dtype=dtype)
    verify(proc)
    x = (np.random.default_rng(0).standard_normal(shape) * 10000).astype(np.float32)
    x.reshape(-1)[0] = 0.25  # a tie: 2.5 rounds to 2
    expected = packed(np.clip(np.rint(x * np.float32(10.0)), low, high).astype(dtype.numpy), tile)
    assert np.array_equal(result(proc, [x, np.ones(proc.params[1].static_shape, dtype.numpy)]), expected)


def test_quantize_divides_where_it_is_told_to() -> None:
    """By a scale whose inverse, rounded, takes a number beside a tie over it."""
    scale = np.float32(0.047)
    x = (np.arange(-128, 128, dtype=np.float32).reshape(1, 1, 16, 16) + np.float32(0.5)) * scale
    divided = np.clip(np.rint(x / scale), -128, 127)
    assert (divided != np.clip(np.rint(x * (1 / scale)), -128, 127)).any()
    proc = define_host.quantize(
        "q", x.shape, (1, 1), inverse_scale=float(1 / scale), low=-128, high=127, scale=float(scale)
    )
    assert np.array_equal(result(proc, [x, np.ones(proc.params[1].static_shape, np.int8)]), packed(divided, (1, 1)))


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
def test_dequantize(shape: define_host.Shape4, tile: define_host.Tile) -> None:
    proc = define_host.dequantize("d", shape, tile, scale=0.3)
    verify(proc)
    logical = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    y = np.zeros(shape, np.float32)
    assert np.array_equal(result(proc, [packed(logical, tile), y]), logical.astype(np.float32) * np.float32(0.3))


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize("target", [(1, 1), (2, 3), (1, 16)])
def test_relayout(shape: define_host.Shape4, tile: define_host.Tile, target: define_host.Tile) -> None:
    proc = define_host.relayout("r", shape, tile, target)
    verify(proc)
    logical = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    source = packed(logical, tile)
    source[source == 0] = 77  # what lies in the padding does not count
    source = np.where(packed(np.ones(shape, np.int8), tile) == 1, packed(logical, tile), source)
    expected = packed(logical, target)
    x, y = (buffer.static_shape for buffer in proc.params)
    assert np.array_equal(result(proc, [source.reshape(x), np.ones(y, np.int8)]), expected.reshape(y))


@pytest.mark.parametrize("limits", [(None, None), (0.0, None), (None, 6.0), (0.0, 6.0)])
@pytest.mark.parametrize("inputs", [1, 2])
def test_clip(limits: tuple[float | None, float | None], inputs: int) -> None:
    proc = define_host.clip("c", 9, *limits, inputs=inputs)
    verify(proc)
    xs = [np.linspace(-9, 9 + k, 9, dtype=np.float32) for k in range(inputs)]
    expected = sum(xs[1:], xs[0])
    expected = expected if limits[0] is None else np.maximum(expected, np.float32(limits[0]))
    expected = expected if limits[1] is None else np.minimum(expected, np.float32(limits[1]))
    assert np.array_equal(result(proc, [*xs, np.zeros(9, np.float32)]), expected)


def test_copy() -> None:
    x = np.arange(12, dtype=np.int16)
    assert np.array_equal(result(define_host.copy("c", 12, DType.INT16), [x, np.zeros(12, np.int16)]), x)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (3, 10, 1)])
def test_softmax(shape: tuple[int, int, int]) -> None:
    """Bit for bit the graph op, and close to the mathematical function."""
    exp = define_host.ExpConstants(
        least=exact.EXP_MIN,
        log2_e=exact.LOG2_E,
        ln2_high=exact.LN2_HI,
        ln2_low=exact.LN2_LO,
        coefficients=exact.COEFFICIENTS,
        exponent_bias=exact.EXPONENT_BIAS,
        mantissa_bits=exact.MANTISSA_BITS,
    )
    proc = define_host.softmax("s", *shape, exp)
    verify(proc)
    x = (np.random.default_rng(0).standard_normal(shape) * 20).astype(np.float32)
    y = result(proc, [x, np.zeros(shape, np.float32)])
    assert np.array_equal(y, exact.Softmax(axis=1).reference(x))
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert np.allclose(y, wide / wide.sum(1, keepdims=True), rtol=1e-5, atol=1e-30)
