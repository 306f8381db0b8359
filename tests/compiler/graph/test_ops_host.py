"""Ops that run on the host: reference, interpreter and LLVM agree bit for bit, or, where sums are long, nearly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from compiler.driver import Target, compile_graph
from compiler.errors import GraphError
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Array, Op, TensorType
from compiler.graph.ops.along import Normalize, Reduce, Resample
from compiler.graph.ops.conv import Conv, Dense, MatMul
from compiler.graph.ops.elementwise import Add, BatchNorm, Cast, Clip, Pointwise, Relu
from compiler.graph.ops.move import Concat, Expand, Pad, Slice, Take, Transpose
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.tensor.define_float import Reduction
from compiler.tensor.functions import FUNCTIONS
from compiler.tensor.ir import NUMBERS, DType
from tests.compiler.graph.build import Builder, floats
from vta.api import from_stored, port_of, to_stored
from vta.engine_names import Engine
from vta.engines import open_session
from vta_hw.spec.config import preset

PARAMETERS = {
    "batch_norm": (1e-3,),
    "celu": (1.5,),
    "clip": (-0.5, math.inf),
    "elu": (0.7,),
    "fake_quantize": (0.3, -8, 7),
    "hard_sigmoid": (0.3, 0.4),
    "leaky_relu": (0.2,),
    "power": (-1.5,),
    "scale": (0.3,),
    "selu": (1.6, 1.1),
    "swish": (1.2,),
    "thresholded_relu": (0.4,),
    "whole_power": (9,),
}
SPECIAL = np.array([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 88.5, -88.5, 0.5, 1.5, -2.5, math.inf, -math.inf, math.nan])


def assert_engines_agree(op: Op, inputs: Sequence[Array], *, exact: bool = True, constants: int = 0) -> None:
    """On inputs, of which the last `constants` are constants of the graph."""
    b = Builder()
    names = []
    for k, array in enumerate(inputs):
        if k < len(inputs) - constants:
            names.append(b.input(*array.shape, name=f"x{k}", dtype=DType(array.dtype.name)))
        else:
            names.append(b.constant(array))
    graph = b.graph(b(op, *names, name="y"))
    given = {value.name: inputs[k] for k, value in enumerate(graph.inputs)}
    expected = evaluate(graph, given)["y"]
    program = compile_graph(graph, preset("sim"), target=Target.CPU)
    ports = {buffer.name: port_of(buffer) for buffer in (*program.inputs, *program.outputs)}
    stored = {name: to_stored(ports[name], array) for name, array in given.items()}
    for engine in (Engine.INTERP, Engine.LLVM):
        actual = from_stored(ports["y"], open_session(program, engine).run(stored)["y"])
        assert actual.dtype == expected.dtype
        if exact:
            np.testing.assert_array_equal(actual, expected, err_msg=engine.value)
        else:
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=engine.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function = FUNCTIONS[name]
    op = Pointwise(function=name, parameters=PARAMETERS.get(name, ()))
    count = function.operands or 3
    values = np.concatenate([SPECIAL.astype(np.float32), floats(50) * 3]).reshape(4, 16)
    operands = [values, *(np.abs(floats(16, seed=k)) for k in range(1, count))]
    with np.errstate(all="ignore"):
        assert_engines_agree(op, operands)
    if function.numbers:
        numbers = np.random.default_rng(1).integers(-128, 128, (count, 3, 8))
        for dtype in (np.int8, np.uint16, np.int64, np.float64):
            assert_engines_agree(op, list(numbers.astype(dtype)))


@pytest.mark.parametrize("dtype", [dtype for dtype in NUMBERS if dtype.is_integer])
def test_integers_are_divided_towards_zero(dtype: DType) -> None:
    low, high = dtype.limits
    edges = np.array([low, low + 1, max(low, -7), 0, 1, 2, 3, high - 1, high], dtype.numpy)
    a, b = np.meshgrid(edges, edges)
    op = Pointwise(function="divide")
    exact = [int(abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if y else 0
             for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)]  # fmt: skip
    wrapped = np.array([value & ((1 << dtype.bits) - 1) for value in exact], f"uint{dtype.bits}").view(dtype.numpy)
    np.testing.assert_array_equal(op.reference(a, b).reshape(-1), wrapped)
    assert_engines_agree(op, [a, b])


@pytest.mark.parametrize("dtype", tuple(DType))
def test_casts(dtype: DType) -> None:
    values = np.array([0.0, -0.5, 1.5, -2.5, 100.0, 65504.0, -1e-7, 3e9, -1e30, math.inf, math.nan])
    with np.errstate(all="ignore"):
        for source in DType:
            assert_engines_agree(Cast(dtype=dtype), [Cast(dtype=source).reference(values)])
    assert Cast(dtype=DType.BOOL).reference(values).tolist() == [False, *[True] * 10]
    assert Cast(dtype=DType.UINT8).reference(values).tolist() == [0, 0, 1, 0, 100, 255, 0, 255, 0, 255, 0]


@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT8, DType.INT64, DType.FLOAT64])
def test_windows_and_reductions_of_numbers(dtype: DType) -> None:
    x = np.random.default_rng(1).integers(-100, 100, (2, 3, 5, 4)).astype(dtype.numpy)
    assert_engines_agree(MaxPool(kernel=(2, 2), padding=(1, 1, 1, 1)), [x])
    for reduction in (Reduction.SUM, Reduction.MAX, Reduction.MIN):
        assert_engines_agree(Reduce(reduction=reduction, first=1, last=3), [x])


@pytest.mark.parametrize(
    ("name", "exact", "low", "high"),
    [
        ("exp", np.exp, -80.0, 88.0),
        ("log", np.log, 1e-30, 1e30),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), -30.0, 30.0),
        ("tanh", np.tanh, -12.0, 12.0),
        ("erf", np.vectorize(math.erf), -5.0, 5.0),
        ("gelu", lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2, -6.0, 6.0),
        ("softplus", lambda x: np.logaddexp(x, 0), -20.0, 20.0),
        ("mish", lambda x: x * np.tanh(np.logaddexp(x, 0)), -20.0, 60.0),
        ("sqrt", np.sqrt, 0.0, 1e20),
    ],
)
def test_functions_are_accurate(name: str, exact: np.ufunc, low: float, high: float) -> None:
    x = np.linspace(low, high, 20001).astype(np.float32)
    actual = Pointwise(function=name).reference(x)
    np.testing.assert_allclose(actual, exact(x.astype(np.float64)), rtol=2e-6, atol=3e-7)


def test_power_of_negative_numbers() -> None:
    x, y = np.array([-2, -2, -2, 0, 0, 0, 3], np.float32), np.array([3, 2, 0.5, 2, -1, 0, 0.5], np.float32)
    actual = Pointwise(function="general_power").reference(x, y)
    np.testing.assert_allclose(actual[[0, 1, 3, 5, 6]], [-8, 4, 0, 1, math.sqrt(3)], rtol=1e-6)
    assert math.isnan(actual[2])
    assert math.isinf(actual[4])


X = (2, 4, 7, 6)


@pytest.mark.parametrize(
    "op",
    [
        Transpose(order=(0, 2, 3, 1)),
        Slice(starts=(1, 3, 0, 5), steps=(1, -1, 2, -2), shape=(1, 4, 4, 3)),
        Pad(before=(0, 1, 0, 2), after=(1, 0, 3, 0), value=7),
        Expand(shape=(3, 2, 4, 7, 6)),
        Take(axis=2, indices=(6, 0, 0, 3)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int32"])
def test_moves(op: Op, dtype: str) -> None:
    assert_engines_agree(op, [(floats(*X) * 50).astype(dtype)])


def test_concat() -> None:
    parts = [floats(2, 3, 5, seed=1), floats(2, 1, 5, seed=2), floats(2, 4, 5, seed=3)]
    assert_engines_agree(Concat(axis=1), parts)


@pytest.mark.parametrize("reduction", Reduction)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3), (0, 4)])
def test_reductions(reduction: Reduction, first: int, last: int) -> None:
    assert_engines_agree(Reduce(reduction=reduction, first=first, last=last), [floats(*X)])


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, 4)])
def test_normalisation(first: int, last: int) -> None:
    x = floats(*X) * 3 + 1
    assert_engines_agree(Normalize(first=first, last=last), [x])
    y = Normalize(first=first, last=last).reference(x).astype(np.float64)
    axes = tuple(range(first, last))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-3)


def test_resampling() -> None:
    k = np.array([[0, 1], [5, 6], [3, 3]], np.int32)
    assert_engines_agree(Resample(axis=2), [floats(*X), k, floats(3, 2)], constants=2)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (Conv(stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2), groups=2), [(6, 2, 3, 3), (6,)]),
        (Conv(), [(5, 4, 2, 2)]),
        (MaxPool(kernel=(3, 2), stride=(2, 2), padding=(1, 1, 1, 0)), []),
        (AveragePool(kernel=(3, 3), padding=(1, 1, 1, 1)), []),
        (AveragePool(kernel=(3, 2), padding=(1, 1, 1, 1), dilation=(2, 1), count_include_pad=True), []),
        (GlobalAveragePool(), []),
        (BatchNorm(), [(4,)] * 4),
        (Add(), [(4, 1, 1)]),
        (Relu(), []),
        (Clip(lo=-0.3), []),
    ],
)
def test_images(op: Op, inputs: list[tuple[int, ...]]) -> None:
    arrays = [np.abs(floats(*shape, seed=k)) for k, shape in enumerate(inputs, start=1)]
    assert_engines_agree(op, [floats(*X), *arrays], exact=False)


def test_products() -> None:
    assert_engines_agree(MatMul(), [floats(3, 1, 4, 5), floats(2, 5, 6, seed=1)], exact=False)
    assert_engines_agree(Dense(), [floats(3, 5), floats(4, 5, seed=1), floats(4, seed=2)], exact=False)


@pytest.mark.parametrize(
    ("op", "shapes", "sentence"),
    [
        (Transpose(order=(0, 0)), [(2, 3)], "order must name each dimension of float32[2,3] once, not be (0, 0)"),
        (Take(axis=0, indices=(2,)), [(2,)], "smallest index must be 0..1, not 2"),
        (Expand(shape=(2, 4)), [(2, 3)], "operands must broadcast to one shape, not have [2, 3] and [2, 4]"),
        (Pointwise(function="prelu"), [(2,)], "number of inputs must be 2, not 1"),
        (Reduce(reduction=Reduction.SUM, first=1, last=1), [(2,)], "dimensions must be some of float32[2], not 1..0"),
        (MatMul(), [(3, 4), (5, 6)], "rows of the second operand must be 4, the columns of the first, not 5"),
    ],
)
def test_refusals(op: Op, shapes: list[tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        op.infer([TensorType(shape, DType.FLOAT32) for shape in shapes])
    assert str(caught.value) == sentence
