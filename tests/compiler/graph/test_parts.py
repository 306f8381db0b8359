"""Concatenations and slices that are places in memory: which they are, and what is copied for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.driver import compile_graph
from compiler.graph.ir import Graph
from compiler.graph.layout import Layout
from compiler.graph.ops.along import Resample
from compiler.graph.ops.move import Concat, Slice, Take
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.parts import Part, parts
from compiler.graph.passes.pipeline import place
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, floats, int8s
from tests.compiler.graph.test_ops_host import assert_engines_agree
from tests.differential import Case, check
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program, Role

ADD = QAdd(m0=3, bias=1, shift=1, lo=-128, hi=127)
BOTH = QAdd(m0=1, m1=1, lo=-128, hi=127)


THREEFOLD = np.zeros((6, 1), np.int32), np.ones((6, 1), np.float32)


class Network(Builder):
    """Images of 2x3 pixels."""

    def made(self, channels: int, images: int = 1) -> str:
        """An activation that is computed from an input."""
        name = f"x{len(self.inputs)}"
        return self(ADD, self.input(images, channels, 2, 3, name=name, dtype=DType.INT8))

    def concat(self, *values: str) -> str:
        return self(Concat(axis=1), *values)

    def read(self, value: str) -> str:
        return self(ADD, value)


def part_of(channels: int, start: int, count: int, images: int = 1) -> Slice:
    assert start + count <= channels
    return Slice(starts=(0, start, 0, 0), steps=(1, 1, 1, 1), shape=(images, count, 2, 3))


def layers(graph: Graph, config: VTAConfig | None = None) -> list[str]:
    """Kinds of the accelerator's layers, after all engines have agreed; nothing but relayouts is left to the host."""
    config = config or VTAConfig()
    inputs = {value.name: int8s(*value.type.shape, seed=k) for k, value in enumerate(graph.inputs)}
    outcome = check(Case(seed=0, config=config, graph=graph, inputs=inputs))
    assert not outcome.problems
    assert outcome.refusal is None
    program = compile_graph(graph, config)
    assert all("relayout" in name for name in program.attributes["hosts"])
    return [layer.attributes["op"] for layer in program.layers]


def buffers(program: Program) -> dict[str, tuple[int, int]]:
    return {buffer.name: (buffer.address, buffer.nbytes) for buffer in program.buffers}


def test_operands_of_whole_blocks_lie_in_the_result() -> None:
    b = Network()
    whole = b.concat(b.made(32), b.made(16), b.made(5))
    graph = b.graph(b.read(whole))
    assert layers(graph) == ["qadd"] * 4
    assert parts(place(graph, VTAConfig())) == {
        "v0": Part(whole, 0),
        "v1": Part(whole, 2 * 6 * 16),
        "v2": Part(whole, 3 * 6 * 16),
    }
    program = compile_graph(graph, VTAConfig())
    at = buffers(program)
    begin, nbytes = at[whole]
    assert nbytes == 4 * 6 * 16
    assert [at[name] for name in ("v0", "v1", "v2")] == [(begin, 192), (begin + 192, 96), (begin + 288, 96)]
    assert {program.buffer(name).role for name in (whole, "v0", "v1", "v2")} == {Role.WORKSPACE}


def test_concatenations_of_concatenations() -> None:
    b = Network()
    inner = b.concat(b.made(16), b.made(16))
    graph = b.graph(b.read(b.concat(b.made(16), inner)), b.read(inner))
    assert layers(graph) == ["qadd"] * 5
    at = buffers(compile_graph(graph, VTAConfig()))
    assert at["v1"][0] == at["v4"][0] + 2 * 96
    assert at["v1"][0] == at[inner][0] + 96


def test_a_slice_that_is_a_product_may_be_part_of_a_result() -> None:
    b = Network()
    piece = b(part_of(32, 3, 16), b.made(32))
    assert layers(b.graph(b.read(b.concat(piece, b.made(16))))) == ["qadd", "slice", "qadd", "qadd"]


@pytest.mark.parametrize("case", ["twice", "two", "input", "constant", "output", "slice"])
def test_what_lies_elsewhere_is_copied(case: str) -> None:
    b = Network()
    x, y = b.made(16), b.made(32)
    more: tuple[str, ...] = ()
    match case:
        case "twice":
            y = x
        case "two":
            more = (b.read(b.concat(y, x)),)
        case "input":
            y = b.input(1, 32, 2, 3, name="y", dtype=DType.INT8)
        case "constant":
            y = b.constant(int8s(1, 32, 2, 3, seed=4))
        case "output":
            more = (y,)
        case "slice":
            y = b(part_of(32, 16, 16), y)
    graph = b.graph(b.read(b.concat(x, y)), *more)
    if case == "input":  # else the host brings it into tiles where they belong
        assert "repeat" not in layers(graph)
        graph = replace(graph, layouts={y: Layout(1, 16)})
    copied = layers(graph)
    assert copied.count("repeat") == (2 if case == "two" else 1)
    assert "concat" not in copied


@pytest.mark.parametrize("case", ["channels", "images", "output"])
def test_what_is_no_place_is_a_product(case: str) -> None:
    b = Network()
    images, channels = (2, 16) if case == "images" else (1, 24 if case == "channels" else 16)
    whole = b.concat(b.made(channels, images), b.made(32, images), b.made(3, images))
    found = layers(b.graph(whole if case == "output" else b.read(whole)))
    assert found.count("concat") == 1
    assert "repeat" not in found


def test_the_interpreter_agrees() -> None:
    assert_engines_agree(Concat(axis=1), [int8s(1, 17, 2, 3), int8s(1, 3, 2, 3, seed=1), int8s(1, 32, 2, 3, seed=2)])
    assert_engines_agree(part_of(40, 5, 20), [int8s(1, 40, 2, 3)])


def test_images_of_one_tile_are_placed() -> None:
    b = Network()
    graph = b.graph(b.read(b.concat(b.made(16, images=2), b.made(16, images=2))))
    assert layers(graph, VTAConfig(log_batch=1)) == ["qadd"] * 3


def test_slices_of_whole_blocks_are_places() -> None:
    b = Network()
    x = b.made(40)
    first, last = b(part_of(40, 0, 16), x), b(part_of(40, 16, 24), x)
    inner = b(part_of(24, 16, 8), last)
    graph = b.graph(b.read(first), b.read(last), b.read(inner))
    assert layers(graph) == ["qadd"] * 4
    at = buffers(compile_graph(graph, VTAConfig()))
    assert [at[name][0] - at[x][0] for name in (first, last, inner)] == [0, 96, 192]


@pytest.mark.parametrize(
    "op",
    [
        part_of(40, 1, 16),
        part_of(40, 16, 8),
        Slice(starts=(0, 30, 0, 0), steps=(1, -3, 1, 1), shape=(1, 9, 2, 3)),
    ],
    ids=["start", "end", "step"],
)
def test_other_slices_of_channels_are_products(op: Slice) -> None:
    b = Network()
    assert layers(b.graph(b.read(b(op, b.made(40))))) == ["qadd", "slice", "qadd"]


def test_memory_of_a_result_is_taken_from_its_first_part_on() -> None:
    """What is alive between the parts lies elsewhere."""
    b = Network()
    first = b.made(16)
    between = b.read(b.read(b.made(16)))
    graph = b.graph(b.read(b.concat(first, b(BOTH, between, between))), b.read(first))
    assert layers(graph) == ["qadd"] * 7
    at = buffers(compile_graph(graph, VTAConfig()))
    begin, nbytes = at["v5"]
    between_at, _ = at[between]
    assert between_at >= begin + nbytes or between_at + 96 <= begin


def test_reasons_of_what_stays_on_the_host() -> None:
    rows = Builder()
    x = rows(ADD, rows.input(1, 16, 2, 3, dtype=DType.INT8))
    program = compile_graph(rows.graph(rows(ADD, rows(Take(axis=2, indices=(1, 0, 0)), x))), VTAConfig())
    assert program.attributes["hosts"]["take v1"] == "moves single elements between tiles"
    reals = Builder()
    whole = reals(Concat(axis=1), reals.input(1, 16, 2, 3), reals.constant(floats(1, 2, 2, 3)))
    larger = reals(Resample(axis=2), whole, *(reals.constant(array) for array in THREEFOLD))
    program = compile_graph(reals.graph(larger), VTAConfig())
    assert program.attributes["hosts"] == {
        "concat v0": "float32 tensor",
        "resample v1": "float32 arithmetic: in integers resizing is bilinear, by 2 or 4, in half_pixel coordinates",
    }
    b = Network()
    graph = b.graph(b.read(b.concat(b.made(16), b.made(8))))
    apart = VTAConfig(log_batch=1, log_block_in=3, log_inp_buff_size=14)
    assert compile_graph(graph, apart).attributes["hosts"]["concat v2"] == (
        "tiles of 16 channels, which are made, are not read as tiles of 8"
    )
    case = Case(
        seed=0, config=apart, graph=graph, inputs={value.name: int8s(*value.type.shape) for value in graph.inputs}
    )
    assert not check(case).problems


def test_copies_are_made_once() -> None:
    b = Network()
    x = b.made(16)
    placed = place(b.graph(b.read(b.concat(x, x))), VTAConfig())
    again = place(placed, VTAConfig())
    assert [replace(node, placement=None) for node in again.nodes] == [
        replace(node, placement=None) for node in placed.nodes
    ]


def test_four_bits_lie_in_halves_of_bytes() -> None:
    b = Network()
    narrow = QAdd(m0=1, lo=-8, hi=7)
    x, y = (b(narrow, b.input(1, 16, 2, 3, name=name, dtype=DType.INT8)) for name in ("x", "y"))
    graph = b.graph(b(narrow, b.concat(x, y)))
    config = VTAConfig(log_inp_width=2, log_inp_buff_size=14)
    inputs = {name: np.clip(int8s(1, 16, 2, 3), -8, 7) for name in ("x", "y")}
    assert not check(Case(seed=0, config=config, graph=graph, inputs=inputs)).problems
