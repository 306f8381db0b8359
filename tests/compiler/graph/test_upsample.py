"""Images that get larger: by pixels that are repeated, and by what is between them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from compiler.driver import compile_graph
from compiler.errors import GraphError
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import TensorType
from compiler.graph.ops.move import Take
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.ops.upsample import BETWEEN, Interpolate, QInterpolate, Repeat, phases
from compiler.graph.ops.window import Pair
from compiler.graph.passes.upsample import FindUpsampling
from compiler.tensor.ir import DType
from tests.compiler.frontend.models import model
from tests.compiler.graph.build import Builder, floats, int8s
from tests.compiler.graph.test_ops_host import assert_engines_agree
from tests.differential import Case, check
from vta_hw.spec.config import VTAConfig

ADD = QAdd(m0=1, lo=-128, hi=127)
MACHINES = {
    "base": VTAConfig(),
    "extended": VTAConfig(isa="extended"),
    "overlap": VTAConfig(isa="extended", overlap=True),
    "batch": VTAConfig(log_batch=1),
    "wide": VTAConfig(log_block_in=3, log_inp_buff_size=13, log_wgt_buff_size=16),
    "narrow": VTAConfig(log_block_out=3, log_acc_buff_size=15, log_wgt_buff_size=15),
    "small": VTAConfig(log_inp_buff_size=10, log_wgt_buff_size=14, log_acc_buff_size=12, log_uop_buff_size=6),
}


def exact(line: list[int], factor: int) -> list[Fraction]:
    """Bilinear interpolation of a line in half_pixel coordinates, without rounding."""
    made = []
    for position in range(len(line) * factor):
        at = Fraction(2 * position + 1, 2 * factor) - Fraction(1, 2)
        left = at.__floor__()
        near, far = (line[min(max(k, 0), len(line) - 1)] for k in (left, left + 1))
        made.append(near * (1 - (at - left)) + far * (at - left))
    return made


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("extent", [1, 2, 5])
def test_a_line_is_interpolated_and_rounded_half_up(factor: int, extent: int) -> None:
    x = int8s(1, 1, 1, extent, seed=extent)
    y = QInterpolate(factors=(1, factor)).reference(x)
    wanted = [(value + Fraction(1, 2)).__floor__() for value in exact(x.ravel().tolist(), factor)]
    assert y.ravel().tolist() == wanted
    assert QInterpolate(factors=(factor, 1)).reference(x.reshape(1, 1, extent, 1)).ravel().tolist() == wanted


def test_weights_of_phases() -> None:
    assert phases(2).tolist() == [[1, 3, 0], [0, 3, 1]]
    assert phases(2, moving=True).tolist() == [[1, 3], [3, 1]]
    assert phases(4).tolist() == [[3, 5, 0], [1, 7, 0], [0, 7, 1], [0, 5, 3]]
    assert phases(1).tolist() == [[1]]


@pytest.mark.parametrize(
    ("machine", "factors"),
    [*((name, (2, 2)) for name in MACHINES), ("base", (4, 4)), ("base", (4, 1)), ("base", (1, 2)), ("narrow", (2, 4))],
    ids=str,
)
def test_engines_agree_between_pixels(machine: str, factors: Pair) -> None:
    """Extremes, so that sums on the sides are as large as they get."""
    b = Builder()
    x = b.input(1, 18, 2, 3, dtype=DType.INT8)
    graph = b.graph(b(QInterpolate(factors=factors), b(ADD, x)))
    values = np.where(int8s(1, 18, 2, 3) < 64, np.int8(-128), int8s(1, 18, 2, 3, seed=1))
    outcome = check(Case(seed=0, config=MACHINES[machine], graph=graph, inputs={x: values}))
    assert (outcome.problems, outcome.refusal) == ((), None)


@pytest.mark.parametrize("config", MACHINES.values(), ids=MACHINES)
def test_engines_agree_on_repeated_pixels(config: VTAConfig) -> None:
    b = Builder()
    x = b.input(2, 18, 3, 5, dtype=DType.INT8)
    graph = b.graph(b(Repeat(factors=(3, 2)), b(ADD, x)), b(Repeat(factors=(1, 4)), b(ADD, x)))
    outcome = check(Case(seed=0, config=config, graph=graph, inputs={x: int8s(2, 18, 3, 5)}))
    assert (outcome.problems, outcome.refusal) == ((), None)


def test_the_interpreter_agrees() -> None:
    assert_engines_agree(QInterpolate(factors=(2, 4)), [int8s(1, 17, 2, 3)])
    assert_engines_agree(Repeat(factors=(2, 1)), [int8s(2, 17, 2, 3)])
    assert_engines_agree(Repeat(factors=(2, 3)), [floats(2, 3, 2, 3)])


def resized(size: Pair, scales: tuple[float, float], **attributes: object) -> tuple[str, ...]:
    """Kinds of ops that an ONNX Resize becomes; they compute what it did."""
    from onnx import helper

    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    graph = load_onnx(model([node], {"x": (1, 2, *size)}, ["y"], constants))
    found = FindUpsampling(config=VTAConfig()).apply(graph)
    found.verify()
    x = {"x": floats(1, 2, *size)}
    np.testing.assert_array_equal(evaluate(found, x)["y"], evaluate(graph, x)["y"])
    return tuple(node.op.kind for node in found.nodes if node.op.kind != "identity")


def test_resizing_by_whole_factors_is_found() -> None:
    assert resized((3, 4), (2, 2)) == ("repeat",)
    assert resized((3, 4), (3, 1)) == ("repeat",)
    assert resized((1, 1), (2, 2), coordinate_transformation_mode="asymmetric", nearest_mode="floor") == ("repeat",)
    for coordinates in ("half_pixel", "pytorch_half_pixel"):
        assert resized((3, 4), (2, 4), mode="linear", coordinate_transformation_mode=coordinates) == ("interpolate",)
    assert resized((1, 4), (2, 2), mode="linear") == ("interpolate",)


def test_other_resizing_stays() -> None:
    assert resized((3, 4), (1.5, 2)) == ("take", "repeat")
    assert resized((4, 4), (0.5, 0.5)) == ("take", "take")
    assert resized((3, 4), (3, 3), mode="linear") == ("resample", "resample")
    assert resized((3, 4), (2, 2), mode="linear", coordinate_transformation_mode="align_corners") == ("resample",) * 2
    assert resized((3, 4), (2, 2), mode="cubic") == ("resample", "resample")


def test_both_steps_are_joined_only_where_the_first_has_no_other_reader() -> None:
    b = Builder()
    rows = b(Take(axis=2, indices=(0, 0, 1, 1)), b.input(1, 1, 2, 2))
    both = b(Take(axis=3, indices=(0, 0, 1, 1)), rows)
    found = FindUpsampling(config=VTAConfig()).apply(b.graph(rows, both))
    assert [node.op for node in found.nodes] == [Repeat(factors=(2, 1)), Repeat(factors=(1, 2))]


def test_a_machine_whose_weights_are_too_narrow_leaves_it_to_the_host() -> None:
    config = VTAConfig(log_wgt_width=2, log_wgt_buff_size=17)
    b = Builder()
    x = b.input(1, 16, 2, 2, dtype=DType.INT8)
    graph = b.graph(b(QInterpolate(factors=(2, 2)), b(ADD, x)))
    outcome = check(Case(seed=0, config=config, graph=graph, inputs={x: int8s(1, 16, 2, 2)}))
    assert (outcome.problems, outcome.refusal) == ((), None)
    reasons = compile_graph(graph, config).attributes["hosts"]
    assert "weights of up to 9 are no weights of 4 bits" in reasons.values()


def test_refusals() -> None:
    image = TensorType((1, 2, 3, 4), DType.INT8)
    with pytest.raises(GraphError, match=r"^factors must be 1 or 2 or 4, not \(3, 2\)$"):
        QInterpolate(factors=(3, 2)).infer([image])
    with pytest.raises(GraphError, match=r"^input must be int8, not int16\[1,2,3,4\]$"):
        QInterpolate(factors=(2, 2)).infer([TensorType(image.shape, DType.INT16)])
    with pytest.raises(GraphError, match=r"^least factor must be 1..2, not 0$"):
        Repeat(factors=(0, 2)).infer([image])
    with pytest.raises(GraphError, match=r"^input must have rank 4, not int8\[2\]$"):
        Repeat(factors=(1, 2)).infer([TensorType((2,), DType.INT8)])
    real = TensorType(image.shape, DType.FLOAT32)
    parameters = TensorType((9, 2), DType.INT32), TensorType((9, 2), DType.FLOAT32)
    with pytest.raises(GraphError, match=r"^what the parameters make must be float32\[1,2,6,4\], not float32\[1,2,9"):
        Interpolate(factors=(2, 1)).infer([real, *parameters])
    assert BETWEEN == (1, 2, 4)
