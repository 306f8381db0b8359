"""Rows and columns that move: cut, padded, behind each other, exchanged, and those that channels become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from compiler.driver import compile_graph
from compiler.errors import GraphError
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Op, TensorType
from compiler.graph.ops.interleave import Interleave, interleaving
from compiler.graph.ops.move import Concat, Pad, Rearrange, Slice, Transpose
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.passes.interleave import CutInterleaved
from compiler.tensor.ir import DType
from tests.compiler.frontend.models import model
from tests.compiler.graph.build import Builder, floats, int8s
from tests.compiler.graph.test_ops_host import assert_engines_agree
from tests.differential import Case, check
from vta.api import compile_model
from vta_hw.spec.config import VTAConfig

MACHINES = {
    "base": VTAConfig(),
    "extended": VTAConfig(isa="extended"),
    "overlap": VTAConfig(isa="extended", overlap=True),
    "batch": VTAConfig(log_batch=2, log_block_in=3, log_block_out=3),
    "large": VTAConfig(log_block_in=5, log_block_out=5),
    "wide": VTAConfig(log_block_in=3, log_inp_buff_size=13, log_wgt_buff_size=16),
    "narrow": VTAConfig(log_block_out=3, log_acc_buff_size=15, log_wgt_buff_size=15),
    "small": VTAConfig(log_inp_buff_size=10, log_wgt_buff_size=14, log_acc_buff_size=12, log_uop_buff_size=6),
    "unequal": VTAConfig(log_batch=1, log_block_in=3, log_inp_buff_size=13, log_wgt_buff_size=16),
    "4 bits": VTAConfig(log_inp_width=2, log_inp_buff_size=13),
}
CUT = "interleaved, cut"
LEFT_TO_THE_HOST = ("unequal", "4 bits")


def part_of(shape: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...], size: tuple[int, ...]) -> Slice:
    """Of rows and columns; or of channels too."""
    whole = 4 - len(starts)
    return Slice(starts=(0,) * whole + starts, steps=(1,) * whole + steps, shape=(*shape[:whole], *size))


SHAPES = ((1, 20, 5, 7), (3, 3, 5, 7), (1, 48, 5, 7))
MOVES: dict[str, Any] = {
    "rows": lambda s: (part_of(s, (1, 0), (1, 1), (3, 7)), [s]),
    "columns": lambda s: (part_of(s, (0, 2), (1, 1), (5, 4)), [s]),
    "steps": lambda s: (part_of(s, (1, 0), (2, 3), (2, 3)), [s]),
    "backwards": lambda s: (part_of(s, (4, 5), (-1, -2), (4, 3)), [s]),
    "one pixel": lambda s: (part_of(s, (4, 6), (1, 1), (1, 1)), [s]),
    "channels too": lambda s: (part_of(s, (1, 0, 1), (1, 1, 2), (s[1] - 1, 5, 3)), [s]),
    "blocks too": lambda s: (part_of(s, (s[1] // 32 * 16, 0, 1), (1, 1, 2), (s[1] - s[1] // 32 * 16, 5, 3)), [s]),
    "exchanged": lambda s: (Transpose(order=(0, 1, 3, 2)), [s]),
    "padding": lambda s: (Pad(before=(0, 0, 1, 0), after=(0, 0, 2, 3)), [s]),
    "much padding": lambda s: (Pad(before=(0, 0, 17, 0), after=(0, 0, 0, 18)), [s]),
    "padded channels": lambda s: (Pad(before=(0, 2, 0, 1), after=(0, 15, 0, 0)), [s]),
    "behind rows": lambda s: (Concat(axis=2), [s, (*s[:2], 1, 7), (*s[:2], 4, 7)]),
    "behind columns": lambda s: (Concat(axis=3), [s, (*s[:2], 5, 3)]),
    "interleaved": lambda s: (Interleave(factors=(2, 2), size=(10, 14)), [(s[0], s[1] * 4, *s[2:])]),
    CUT: lambda s: (
        Interleave(factors=(2, 3), size=(8, 19), starts=(1, 1), groups=s[1]), [(s[0], s[1] * 6, *s[2:])]
    ),
    "interleaved in groups": lambda s: (
        Interleave(factors=(2, 2), size=(10, 14), groups=2 if s[1] == 20 else s[1]), [(s[0], s[1] * 4, *s[2:])]
    ),
    "interleaved rows": lambda s: (Interleave(factors=(4, 1), size=(3, 7), starts=(2, 0)), [(s[0], s[1] * 4, *s[2:])]),
}  # fmt: skip


def moved(op: Op, shapes: list[tuple[int, ...]], config: VTAConfig) -> dict[str, str]:
    """What is left to the host of moves of activations, on which all engines agree: the reasons."""
    b = Builder()
    high = (1 << (config.inp_bits - 1)) - 1
    inputs = [b.input(*shape, name=f"x{k}", dtype=DType.INT8) for k, shape in enumerate(shapes)]
    add = QAdd(m0=1, lo=-high - 1, hi=high)
    graph = b.graph(b(op, *(b(add, x) for x in inputs), name="y"))
    values = (int8s(*shape, seed=k) >> (8 - config.inp_bits) for k, shape in enumerate(shapes))
    given = dict(zip(inputs, values, strict=True))
    outcome = check(Case(seed=0, config=config, graph=graph, inputs=given))
    assert (outcome.problems, outcome.refusal) == ((), None)
    reasons: dict[str, str] = compile_graph(graph, config).attributes["hosts"]
    return {name: reason for name, reason in reasons.items() if "relayout" not in name}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_engines_agree(move: str, shape: tuple[int, ...]) -> None:
    assert moved(*MOVES[move](shape), VTAConfig()) == {}


@pytest.mark.parametrize("move", ["steps", "channels too", "backwards", "exchanged", "padding", "behind rows", CUT])
@pytest.mark.parametrize("machine", [name for name in MACHINES if name != "base"])
def test_engines_agree_on_other_machines(machine: str, move: str) -> None:
    left = moved(*MOVES[move]((2, 20, 5, 7)), MACHINES[machine])
    assert bool(left) == (machine in LEFT_TO_THE_HOST)


@pytest.mark.parametrize("move", MOVES)
def test_the_interpreter_agrees(move: str) -> None:
    op, shapes = MOVES[move]((1, 18, 5, 7))
    assert_engines_agree(op, [int8s(*shape, seed=k) for k, shape in enumerate(shapes)])


def rearranged(shape: tuple[int, ...], split: tuple[int, ...], order: tuple[int, ...], result: tuple[int, ...]) -> Any:
    """What a rearrangement interleaves; it does the same."""
    op = Rearrange(split=split, order=order, shape=result)
    found = interleaving(op, shape)
    if found is not None:
        x = int8s(*shape)
        np.testing.assert_array_equal(found.reference(x), op.reference(x))
    return found


def test_rearrangements_that_interleave_are_found() -> None:
    """The depth-to-space of ONNX in both modes, transposed convolutions in groups, and of one row."""
    shape, result = (2, 24, 3, 5), (2, 6, 6, 10)
    dcr = rearranged(shape, (2, 2, 2, 6, 3, 5), (0, 3, 4, 1, 5, 2), result)
    assert dcr == Interleave(factors=(2, 2), size=(6, 10))
    crd = rearranged(shape, (2, 6, 2, 2, 3, 5), (0, 1, 4, 2, 5, 3), result)
    assert crd == Interleave(factors=(2, 2), size=(6, 10), groups=6)
    groups = rearranged(shape, (2, 2, 2, 2, 3, 3, 5), (0, 1, 4, 5, 2, 6, 3), result)
    assert groups == Interleave(factors=(2, 2), size=(6, 10), groups=2)
    line = rearranged((1, 6, 1, 5), (1, 3, 2, 5), (0, 2, 3, 1), (1, 2, 1, 15))
    assert line == Interleave(factors=(1, 3), size=(1, 15))
    assert rearranged(shape, (2, 2, 2, 6, 3, 5), (0, 3, 4, 2, 5, 1), result) is None
    assert rearranged(shape, (2, 24, 3, 5), (0, 1, 3, 2), (2, 24, 5, 3)) is None
    assert interleaving(Rearrange(split=(4, 6), order=(1, 0), shape=(6, 4)), (4, 6)) is None


def test_what_is_cut_off_is_not_interleaved() -> None:
    b = Builder()
    x = b.input(1, 8, 3, 5, dtype=DType.INT8)
    whole = b(Interleave(factors=(2, 2), size=(6, 10)), x)
    once = b(part_of((1, 2, 6, 10), (1, 0), (1, 1), (5, 10)), whole)
    graph = b.graph(b(part_of((1, 2, 5, 10), (1, 3), (1, 1), (3, 4)), once))
    cut = CutInterleaved().apply(CutInterleaved().apply(graph))
    assert [node.op for node in cut.nodes] == [Interleave(factors=(2, 2), size=(3, 4), starts=(2, 3))]
    given = {x: int8s(1, 8, 3, 5)}
    np.testing.assert_array_equal(evaluate(cut, given)[cut.outputs[0]], evaluate(graph, given)[graph.outputs[0]])
    for reason, read in (("step", part_of((1, 2, 6, 10), (0, 0), (2, 1), (3, 10))), ("reader", None)):
        other = Builder()
        value = other(Interleave(factors=(2, 2), size=(6, 10)), other.input(1, 8, 3, 5, dtype=DType.INT8))
        part = other(read or part_of((1, 2, 6, 10), (1, 0), (1, 1), (5, 10)), value)
        graph = other.graph(*((part, value) if reason == "reader" else (part,)))
        assert CutInterleaved().apply(graph).nodes == graph.nodes


def test_refusals() -> None:
    image = TensorType((1, 8, 3, 4), DType.INT8)
    with pytest.raises(GraphError, match=r"groups must"):
        Interleave(factors=(2, 3), size=(6, 12)).infer([image])
    with pytest.raises(GraphError, match=r"^size must be 1\.\.7, not 8$"):
        Interleave(factors=(2, 2), size=(6, 8), starts=(0, 1)).infer([image])


def compiled(nodes: list[Any], constants: dict[str, NDArray[np.float32]], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Layers of a network from x to y, nothing of which but the ends is left to the host, and on which engines agree.

    The real network is near.
    """
    network = model(nodes, {"x": shape}, ["y"], constants)
    samples = floats(8, *shape[1:])
    program = compile_model(network, config="sim", calibration=samples)
    x = floats(*shape, seed=7)
    answer = np.asarray(program.run(x, engine="functional"))
    np.testing.assert_array_equal(np.asarray(program.run(x, engine="cycle")), answer)
    exact = evaluate(load_onnx(network), {"x": x})["y"]
    assert np.mean((answer - exact) ** 2) < 0.01 * np.mean(exact**2)
    assert set(program.program.attributes["hosts"].values()) == {"float32 input", "float32 result"}
    return tuple(layer.attributes["op"] for layer in program.program.layers)


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return (floats(*shape, seed=seed) / np.sqrt(shape[1] * np.prod(shape[2:]))).astype(np.float32)


def test_a_small_u_net() -> None:
    """Transposed convolutions of 2x2 and, with padding, of 3x3, normalised and activated, are each one convolution."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "a.w"], ["a"], pads=[1] * 4), node("Relu", ["a"], ["a.r"]),
        node("Conv", ["a.r", "b.w"], ["b"], pads=[1] * 4, strides=[2, 2]), node("Relu", ["b"], ["b.r"]),
        node("Conv", ["b.r", "c.w"], ["c"], pads=[1] * 4, strides=[2, 2]), node("Relu", ["c"], ["c.r"]),
        node("ConvTranspose", ["c.r", "d.w", "d.b"], ["d"], strides=[2, 2]),
        node("Concat", ["b.r", "d"], ["bd"], axis=1),
        node("Conv", ["bd", "e.w"], ["e"], pads=[1] * 4), node("Relu", ["e"], ["e.r"]),
        node("ConvTranspose", ["e.r", "f.w", "f.b"], ["f"], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
        node("BatchNormalization", ["f", "f.s", "f.t", "f.m", "f.v"], ["f.n"]), node("Relu", ["f.n"], ["f.r"]),
        node("Concat", ["a.r", "f.r"], ["af"], axis=1),
        node("Conv", ["af", "y.w"], ["y"]),
    ]  # fmt: skip
    constants = {
        "a.w": weights(16, 16, 3, 3), "b.w": weights(32, 16, 3, 3), "c.w": weights(48, 32, 3, 3),
        "d.w": weights(48, 32, 2, 2), "d.b": floats(32), "e.w": weights(20, 64, 3, 3), "f.w": weights(20, 16, 3, 3),
        "f.b": floats(16), "f.s": floats(16, seed=1), "f.t": floats(16, seed=2), "f.m": floats(16, seed=3),
        "f.v": np.abs(floats(16, seed=4)) + 0.5, "y.w": weights(3, 32, 1, 1),
    }  # fmt: skip
    found = compiled(nodes, constants, (1, 16, 12, 8))
    assert found == (*["qconv2d"] * 4, "interleave", *["qconv2d"] * 2, "interleave", "qconv2d")


def test_a_network_of_other_moves() -> None:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "a.w"], ["a"], pads=[1] * 4),
        node("Slice", ["a", "two", "all", "axis"], ["b"]),
        node("Transpose", ["b"], ["c"], perm=[0, 1, 3, 2]),
        node("Conv", ["c", "d.w"], ["d"]),
        node("Concat", ["d", "c"], ["e"], axis=2),
        node("Pad", ["e", "pads"], ["f"]),
        node("Conv", ["f", "g.w"], ["g"], group=20),
        node("DepthToSpace", ["g"], ["h"], blocksize=2, mode="CRD"),
        node("Conv", ["h", "y.w"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "a.w": weights(20, 16, 3, 3), "d.w": weights(20, 20, 1, 1), "g.w": weights(20, 1, 3, 3),
        "y.w": weights(3, 5, 1, 1), "two": np.array([2]), "all": np.array([99]), "axis": np.array([2]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 0, 1]),
    }  # fmt: skip
    found = compiled(nodes, constants, (2, 16, 9, 6))
    assert found == (
        *("qconv2d", "slice", "transpose", "qconv2d", "concat", "pad", "qconv2d", "interleave", "qconv2d"),
    )


@pytest.mark.parametrize(
    ("op", "shape", "weights"),
    [
        (Transpose(order=(0, 1, 3, 2)), (1, 20, 2, 3), (1, 1, 1, 1, 1, 16, 16)),
        (Pad(before=(0, 0, 1, 0), after=(0, 0, 0, 0)), (1, 20, 2, 3), (1, 1, 1, 1, 1, 16, 16)),
        (Interleave(factors=(2, 2), size=(4, 6)), (1, 128, 2, 3), (1, 1, 1, 1, 1, 16, 16)),
        (Interleave(factors=(2, 2), size=(4, 6), groups=32), (1, 128, 2, 3), (4, 1, 1, 4, 1, 16, 16)),
        (Interleave(factors=(2, 2), size=(4, 6)), (1, 80, 2, 3), (4, 2, 1, 2, 1, 16, 16)),
        (Interleave(factors=(2, 1), size=(4, 3)), (1, 80, 2, 3), (2, 3, 1, 3, 1, 16, 16)),
    ],
)
def test_sums_are_over_as_few_blocks_as_possible(op: Op, shape: tuple[int, ...], weights: tuple[int, ...]) -> None:
    """Boxes and blocks of results that are alike share weights."""
    b = Builder()
    graph = b.graph(b(op, b(QAdd(m0=1, lo=-128, hi=127), b.input(*shape, dtype=DType.INT8)), name="y"))
    assert compile_graph(graph, VTAConfig()).buffer("y.W").shape == weights
