"""Tilings: what the model says fits is what lowering places, and what cannot fit is refused by name and bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.driver import compile_graph
from compiler.errors import LoweringError
from compiler.tensor.define import Requantize, combine, conv2d, max_pool2d
from compiler.tensor.define_tiles import Line, Moved, move
from compiler.tensor.ir import Buffer, DType, Proc, Scope
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.vta.footprint import steps_of
from compiler.vta.tiling import PIECE, TILED, Stage, Tiling, TilingProblem
from tests.compiler.vta.touches import Space, launches
from tests.differential import random_layer
from vta_hw.spec.config import VTAConfig


def tiles(blocks: int, height: int, width: int) -> Tiled:
    return Tiled(batches=1, blocks=blocks, height=height, width=width, n=1, c=16)


def convolution(size: int = 28, blocks: int = 8, *, residual: int | None = None) -> Proc:
    x = y = tiles(blocks, size, size)
    window = Window(kernel=(3, 3), padding=(1, 1, 1, 1))
    requantize = Requantize(shift=8, low=-128, high=127)
    source, added = Weighted(x=x, window=window), None if residual is None else y
    return conv2d("conv", source, y, requantize, residual=added, residual_multiplier=residual or 1)


def best(proc: Proc, config: VTAConfig) -> Tiling:
    return TilingProblem(proc, config).best()


@pytest.mark.parametrize("seed", range(3000, 3060))
def test_the_best_tiling_of_any_layer_can_be_placed(seed: int) -> None:
    """Lowering refuses what does not fit, so that this alone says that footprints are not underestimated."""
    case = random_layer(seed)
    config = case.config
    depths = {
        Space.UOP: config.uop_depth,
        Space.INP: config.inp_depth,
        Space.WGT: config.wgt_depth,
        Space.ACC: config.acc_depth,
        Space.OUT: config.out_depth,
    }
    program = compile_graph(case.graph, config)
    for steps in launches(program):
        for touch in (touch for step in steps for touch in step.touches):
            assert touch.units.min(initial=0) >= 0
            limit = program.arena_bytes if touch.space is Space.DRAM else depths[touch.space]
            assert touch.units.max(initial=0) < limit


@pytest.mark.parametrize("residual", [None, 1, 3])
def test_tiles_are_parts_of_their_axes(residual: int | None) -> None:
    problem = TilingProblem(convolution(residual=residual), VTAConfig())
    tiling = problem.best()
    assert tiling.sizes.keys() == {axis for axis in TILED if axis in problem.extents}
    assert all(1 <= size <= problem.extents[axis] for axis, size in tiling.sizes.items())
    assert sorted(tiling.order) == ["co", "oh", "ow", "s"]


def test_what_is_loaded_again_has_two_places() -> None:
    tiling = best(convolution(), VTAConfig())
    assert tiling.stages["X"] == Stage(level="kx", copies=2)
    assert tiling.stages["B"] == tiling.stages["M"] == Stage(level=None, copies=1)
    assert tiling.sizes["co"] % tiling.piece == 0


def test_buffers_of_two_elements_take_one_tile_at_a_time() -> None:
    smallest = VTAConfig(log_inp_buff_size=5, log_wgt_buff_size=9, log_acc_buff_size=7)
    tiling = best(convolution(size=6, blocks=2, residual=3), smallest)
    assert [tiling.sizes[axis] for axis in ("co", "oh", "ow", "s")] == [1, 1, 1, 1]
    assert set(tiling.stages.values()) == {Stage(level=PIECE)}


@pytest.mark.parametrize(
    ("scope", "depth", "sentence"),
    [
        (Scope.INP, 0, "Layer 'conv' must fit the inp buffer of 0 bytes, its smallest tile needs 16"),
        (Scope.WGT, 0, "Layer 'conv' must fit the wgt buffer of 0 bytes, its smallest tile needs 256"),
        (Scope.ACC, 1, "Layer 'conv' must fit the acc buffer of 64 bytes, its smallest tile needs 128"),
    ],
)
def test_the_refusal_names_layer_buffer_and_bytes(scope: Scope, depth: int, sentence: str) -> None:
    """No valid configuration is as small as this for the ops there are, so the depths are cut by hand."""
    problem = TilingProblem(convolution(residual=1), VTAConfig())
    problem.depths[scope] = depth
    with pytest.raises(LoweringError) as refused:
        problem.best()
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "proc",
    [
        convolution(size=7, blocks=3),
        convolution(size=7, blocks=3, residual=3),
        combine("add", tiles(3, 5, 7), (3, 5), 1, 4, -128, 127),
        max_pool2d("pool", tiles(3, 7, 7), tiles(3, 3, 3), Window(kernel=(3, 3), stride=(2, 2))),
    ],
    ids=lambda proc: proc.name,
)
def test_every_op_fits_the_smallest_buffers_there_are(proc: Proc) -> None:
    smallest = VTAConfig(log_uop_buff_size=3, log_inp_buff_size=5, log_wgt_buff_size=9, log_acc_buff_size=7)
    tiling = best(proc, smallest)
    assert tiling.copies == 1
    assert set(tiling.stages.values()) <= {Stage(level=PIECE)}


def test_without_overlap_a_tile_of_one_piece_has_two_places() -> None:
    """While it is stored the next is computed; of several pieces the first is stored before the last is computed."""
    layers = [convolution(size, blocks) for size, blocks in ((56, 4), (28, 8), (14, 16), (7, 32))]
    for tiling in (best(layer, VTAConfig()) for layer in layers):
        assert tiling.copies == 2 or tiling.piece < tiling.sizes["co"]


def test_a_definition_of_several_steps_is_tiled_step_by_step() -> None:
    x, y = tiles(2, 9, 7), tiles(2, 18, 7)
    w = Buffer.of("W", DType.INT8, (1, 1, 1, 1, 1, 16, 16))
    boxes = [Moved(size=(9, 7), target=(Line(first=first, step=2), Line())) for first in (0, 1)]
    first, second = steps_of(move("move", [x], boxes, y, w))
    assert best(first, VTAConfig()) == best(second, VTAConfig())
    assert steps_of(convolution()) == [convolution()]


def test_what_is_read_backwards_takes_as_much_room() -> None:
    x, w = tiles(2, 9, 7), Buffer.of("W", DType.INT8, (1, 1, 1, 1, 1, 16, 16))
    loaded = []
    for source in ((Line(), Line()), (Line(first=8, step=-1), Line(first=6, step=-1))):
        problem = TilingProblem(move("move", [x], [Moved(size=(9, 7), source=source)], x, w), VTAConfig())
        loaded.append([operand.elements(problem.whole) for operand in problem.operands])
    assert loaded[0] == loaded[1]


def test_the_best_is_the_same_every_time() -> None:
    layer, config = convolution(56, 4), VTAConfig()
    assert best(layer, config) == best(layer, replace(config))
