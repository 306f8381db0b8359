"""Object files for other processors, linked into C programs and run by emulators, give the interpreter's bits."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import vta
from compiler.graph.ops.along import Reduce
from compiler.graph.ops.conv import Dense
from compiler.graph.ops.elementwise import Pointwise
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.softmax import Softmax
from compiler.llvm.apart import emit_object_apart
from compiler.llvm.objects import compile_object
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule
from compiler.llvm.target import Target
from compiler.tensor import define
from compiler.tensor.define_float import Reduction
from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Buffer,
    Cast,
    Const,
    DType,
    Expr,
    Fma,
    For,
    LoopKind,
    Proc,
    Store,
    Unary,
    UnaryOp,
    Var,
    maximum,
)
from compiler.tensor.tiles import Tiled, Weighted
from tests.compiler.graph.build import Builder, floats, int8s
from tests.compiler.llvm.cross import (
    MACHINES,
    Array,
    Case,
    Machine,
    build,
    case_of_graph,
    case_of_procs,
    case_of_program,
    run,
)
from tests.compiler.llvm.one import generate
from tests.compiler.tensor.random_procs import random_array, random_proc
from tests.differential import random_network
from vta.demo.data import load_digits, model_bytes
from vta.engines import Engine

ROOT = Path(__file__).parents[3]
LEAST_NORMAL = np.float32(2.0**-126)
COUNT = 67  # leaves a scalar rest for every number of lanes
WHOLE = 64  # leaves none
RANDOM = 10


def convolutions() -> Case:
    """Float convolutions with padding, rests of rows and channels, strides, and groups; pools; a residual."""
    b = Builder()
    x, wide = b.input(1, 3, 5, 11), b.input(1, 20, 4, 7, name="wide")

    def weights(*shape: int) -> tuple[str, str]:
        w = floats(*shape, seed=len(b.constants)) / np.float32(8)
        return b.constant(w), b.constant(floats(shape[0], seed=len(b.constants)))

    first = b(FusedConv(padding=(1, 1, 1, 1), lo=0.0), x, *weights(18, 3, 3, 3))
    strided = b(FusedConv(stride=(2, 2), padding=(0, 1, 1, 0)), first, *weights(6, 18, 3, 3))
    deep = b(FusedConv(padding=(1, 1, 1, 1), groups=20, lo=0.0, hi=6.0), wide, *weights(20, 1, 3, 3))
    point = b(FusedConv(), deep, *weights(20, 20, 1, 1))
    summed = b(FusedAdd(lo=0.0), point, wide)
    largest = b(MaxPool(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), summed)
    average = b(AveragePool(kernel=(2, 2), padding=(1, 0, 0, 1)), summed)
    graph = b.graph(strided, largest, average, b(GlobalAveragePool(), summed))
    return case_of_graph(graph, {"x": floats(1, 3, 5, 11), "wide": floats(1, 20, 4, 7, seed=1)})


def vectors() -> Case:
    """Dense layers, a softmax, means, and functions, on rows that fill no vector."""
    b = Builder()
    x = b.input(3, 37)
    dense = b(Dense(), x, b.constant(floats(21, 37, seed=2)), b.constant(floats(21, seed=3)))
    functions = [b(Pointwise(function=name), x) for name in ("exp", "tanh", "gelu", "round", "floor", "sigmoid")]
    mean = b(Reduce(reduction=Reduction.MEAN, first=1, last=2), x)
    return case_of_graph(b.graph(dense, b(Softmax(), dense), mean, *functions), {"x": floats(3, 37, seed=4) * 4})


def digits() -> Case:
    """A network that was trained, in integers between conversions and a softmax of floats."""
    data = load_digits()
    program = vta.compile(model_bytes(), target="cpu", calibration=data.inputs(data.train[:8])).program
    return case_of_program(program, {"image": data.inputs(data.test[:1])}, Engine.LLVM)


def integers(seed: int) -> Case:
    """Convolutions of int8 with requantisation, a residual, a pool."""
    case = random_network(seed)
    return case_of_graph(case.graph, case.inputs, case.config)


def bytes_() -> Case:
    """Convolutions of bytes: of an image of three channels, of what is not negative, of what may be, and depthwise."""
    b = Builder()
    x = b.input(1, 3, 6, 9, dtype=DType.INT8)

    def conv(x: str, outs: int, ins: int, kernel: int, lo: int, groups: int = 1) -> str:
        w = b.constant(int8s(outs, ins, kernel, kernel, seed=len(b.constants)))
        m, bias = b.constant(np.ones(outs, np.int32)), b.constant(np.zeros(outs, np.int32))
        op = QConv2d(padding=(kernel // 2,) * 4, shift=9, lo=lo, hi=127, groups=groups)
        return b(op, x, w, m, bias)

    first = conv(x, 20, 3, 3, 0)
    second = conv(first, 24, 20, 3, -128)
    third = conv(second, 24, 1, 3, -128, groups=24)
    return case_of_graph(b.graph(conv(third, 18, 24, 1, -128)), {"x": int8s(1, 3, 6, 9, seed=9)})


def samples(dtype: DType, seed: int) -> Array:
    """Extreme numbers, none of them between zero and the least normal one, beside random ones."""
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        edges = np.array([0, -0.0, 1, -1.5, 2.5, 0.5, np.inf, -np.inf, 2.0**23, -(2.0**23) - 1, 3e38], dtype.numpy)
        rest = (rng.standard_normal(COUNT) * 100).astype(dtype.numpy)
    else:
        low, high = dtype.limits
        edges = np.array([low, low + 1, max(low, -1), 0, 1, 7, high - 1, high], dtype.numpy)
        rest = rng.integers(low, high, COUNT, dtype=dtype.value, endpoint=True)
    pairs = edges.repeat(len(edges)) if seed else np.tile(edges, len(edges))
    return np.concatenate([pairs[: COUNT // 2], rest])[:COUNT]


def operators(dtype: DType) -> list[Callable[[Expr, Expr], Expr]]:
    """Functions of two numbers of a type, to the same type."""
    found: list[Callable[[Expr, Expr], Expr]] = [
        lambda a, b, op=op: Binary(op, a, b)  # type: ignore[misc]  # mypy sees no defaults of a lambda
        for op in (BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MIN, BinaryOp.MAX)
    ]
    if dtype.is_float:
        found += [lambda a, b: Binary(BinaryOp.DIV, a, b), lambda a, b: Cast(dtype, Cast(DType.INT32, a))]
    else:
        found += [
            lambda a, b: Binary(BinaryOp.FLOORDIV, a, maximum(b, 1)),
            lambda a, b: Binary(BinaryOp.MOD, a, Const(7, dtype)),
            lambda a, b: Binary(BinaryOp.SHR, a, Binary(BinaryOp.MOD, b, Const(dtype.bits, dtype))),
            lambda a, b: Cast(dtype, Cast(DType.FLOAT32, a)),
        ]
    if dtype is DType.FLOAT32:
        found += [
            lambda a, b: Fma(a, b, b),
            lambda a, b: Unary(UnaryOp.RINT, a),
            lambda a, b: Unary(UnaryOp.SQRT, a),
            lambda a, b: Cast(dtype, Cast(DType.FLOAT16, a)),
        ]
    return found


def operator_proc(dtype: DType) -> Proc:
    """All of them, as vectors and one by one."""
    functions = operators(dtype)
    x, y = Buffer.of("x", dtype, (COUNT,)), Buffer.of("y", dtype, (COUNT,))
    z = Buffer.of("z", dtype, (len(functions), 2, COUNT))
    loops = []
    for n, function in enumerate(functions):
        for row, kind in enumerate((LoopKind.VECTORIZED, LoopKind.SERIAL)):
            i = Var(f"i{n}_{row}")
            store = Store(z, (Const(n), Const(row), i), function(x[i,], y[i,]))
            loops.append(For(i, Const(COUNT), (store,), kind))
    return Proc("operators", (x, y, z), tuple(loops))


def procedures() -> Case:
    """Operators on every type, and random procedures."""
    procs: dict[str, tuple[Proc, list[Array]]] = {}
    for dtype in (dtype for dtype in DType if dtype not in (DType.BOOL, DType.FLOAT16)):
        proc = operator_proc(dtype)
        result = np.zeros(proc.params[-1].static_shape, dtype.numpy)
        procs[f"operators.{dtype.value}"] = proc, [samples(dtype, 0), samples(dtype, 1), result]
    for seed in range(RANDOM):
        rng = np.random.default_rng(seed)
        proc = random_proc(rng)
        procs[f"random.{seed}"] = proc, [normal(random_array(rng, buffer)) for buffer in proc.params]
    return case_of_procs(procs)


def normal(array: Array) -> Array:
    """Without the numbers that lie between zero and the least normal one."""
    if array.dtype != np.float32:
        return array
    return np.where(np.abs(array) < LEAST_NORMAL, np.float32(1), array)


def halved() -> Case:
    """Numbers that become smaller than the least normal one."""
    x, y = (Buffer.of(name, DType.FLOAT32, (WHOLE,)) for name in "xy")
    i = Var("i")
    half = Store(y, (i,), x[i,] * Const(0.5, DType.FLOAT32))
    proc = Proc("halved", (x, y), (For(i, Const(WHOLE), (half,), LoopKind.VECTORIZED),))
    data = (floats(WHOLE, seed=5) * LEAST_NORMAL).astype(np.float32)
    return case_of_procs({"halved": (proc, [data, np.zeros_like(data)])})


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {
        "convolutions": convolutions(),
        "vectors": vectors(),
        "digits": digits(),
        **{f"integers{seed}": integers(seed) for seed in (2, 6)},
        "bytes": bytes_(),
        "procedures": procedures(),
        "halved": halved(),
    }


@pytest.fixture(scope="module")
def programs(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Machine], Path]:
    """The program for a machine; those that differ in the emulator alone share it."""

    @cache
    def built(target: str, compiler: str) -> Path:
        return build(target, compiler, cases, tmp_path_factory.mktemp(target))

    return lambda machine: built(machine.target, machine.compiler)


@pytest.mark.parametrize("name", MACHINES)
def test_networks_and_procedures(name: str, cases: dict[str, Case], programs: Callable[[Machine], Path]) -> None:
    machine = MACHINES[name]
    if machine.missing is not None:
        pytest.skip(machine.missing)
    answers = run(machine, programs(machine), cases)
    wrong = []
    for case_name, case in cases.items():
        for output, right in case.expected.items():
            found = answers[case_name][output]
            if case_name == "halved" and machine.target == "armv7":  # as docs/objects.md says of its vectors
                right = np.where(np.abs(right) < LEAST_NORMAL, np.float32(0), right)
            # A NaN carries no information: which one an operation gives is the processor's choice.
            if not np.array_equal(found, right, equal_nan=right.dtype.kind == "f"):
                wrong.append(f"{case_name}: {output}")
    assert wrong == []


@pytest.mark.parametrize("name", ["aarch64", "aarch64-dotprod"])
def test_bytes_are_summed_by_what_a_processor_has(name: str) -> None:
    x = Tiled(batches=1, blocks=2, height=2, width=6, n=1, c=16, limits=(0, 127))
    y = replace(x, limits=None)
    proc = define.conv2d("conv", Weighted(x=x, dot=4), y, define.Requantize(shift=8, low=0, high=127, multiplier=False))
    target = Target.named(name)
    module = generate(schedule(proc, Registers.of(target)).proc, target)
    called = [line for line in module.text.splitlines() if "aarch64.neon.sdot" in line]
    assert bool(called) is (name == "aarch64-dotprod")
    assert emit_object_apart(module.text, target, "conv")  # which LLVM has an instruction for


def test_the_example_of_the_manual(tmp_path: Path) -> None:
    machine = MACHINES["aarch64"]
    if machine.missing is not None:
        pytest.skip(machine.missing)
    manual = (ROOT / "docs" / "objects.md").read_text(encoding="utf-8")
    (tmp_path / "main.c").write_text(manual.partition("```c\n")[2].partition("```\n")[0])
    made = compile_object(vta.compile(model_bytes(), target="cpu").program, Target.named(machine.target), "digits")
    (tmp_path / "digits.o").write_bytes(made.code)
    (tmp_path / "digits.h").write_text(made.header)
    (command,) = re.findall(r"^    (aarch64-linux-gnu-gcc .*)$", manual, re.MULTILINE)
    subprocess.run([*command.split(), "-static", "-Wall", "-Wextra", "-Werror"], cwd=tmp_path, check=True)
    said = subprocess.run([*machine.emulator, "./main"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert said == b"1\n"
