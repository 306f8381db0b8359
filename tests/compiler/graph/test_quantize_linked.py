"""Networks for machines without MUL: scales that are powers of two apart, and no multiplication in any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import vta
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Array, Graph
from compiler.graph.ops.conv import Conv
from compiler.graph.ops.elementwise import Add, Pointwise, Relu
from compiler.graph.ops.move import Concat
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.passes.pipeline import quantize_model
from compiler.graph.quantize.values import QuantizeOptions
from tests.compiler.frontend.models import floats
from tests.compiler.graph.build import Builder
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp

SHAPE = (1, 16, 8, 8)
OPTIONS = QuantizeOptions(multiply=False)
HOST = {"float32 input", "float32 result"}


def residual(b: Builder, conv: Callable[[str, float], str], x: str) -> str:
    """Sums inside convolutions and beside them, of values whose ranges are no powers of two apart."""
    first = b(Relu(), conv(x, 0.7))
    second = b(Add(), conv(first, 3.3), first)
    return b(Add(), *(b(MaxPool(kernel=(2, 2)), value) for value in (second, first)))


def means(b: Builder, conv: Callable[[str, float], str], x: str) -> str:
    """By 4, and by 49, which is no power of two: what reads the mean takes its steps."""
    return b(GlobalAveragePool(), conv(b(AveragePool(kernel=(2, 2)), conv(x, 1.3)), 0.4))


def joined(b: Builder, conv: Callable[[str, float], str], x: str) -> str:
    return conv(b(Concat(axis=1), conv(x, 0.9), b(MaxPool(kernel=(3, 3), padding=(1, 1, 1, 1)), x)), 1.0)


def bent(b: Builder, conv: Callable[[str, float], str], x: str) -> str:
    return conv(b(Pointwise(function="leaky_relu", parameters=(0.25,)), conv(x, 1.1)), 1.0)


NETWORKS = {"residual": residual, "means": means, "concatenation": joined, "leaky": bent}


def graph_of(name: str) -> Graph:
    b = Builder()

    def conv(x: str, factor: float) -> str:
        ins = b.graph(x).types[x].shape[1]
        w = floats(16, ins, 3, 3, seed=len(b.nodes)) * np.float32(factor / 12)
        return b(Conv(padding=(1, 1, 1, 1)), x, b.constant(w), b.constant(floats(16, seed=len(b.nodes)) / 4))

    return b.graph(NETWORKS[name](b, conv, b.input(*SHAPE)))


def multiplications(program: vta.CompiledProgram) -> list[Alu]:
    insns = ISA(program.program.config).decode_program(program.program.insns)
    return [insn for insn in insns if isinstance(insn, Alu) and insn.alu_opcode is AluOp.MUL]


MACHINES = {
    "base": VTAConfig(),
    "extended, overlap": VTAConfig(isa="extended", overlap=True),
    "two images": VTAConfig(log_batch=1, log_inp_buff_size=16, log_acc_buff_size=18),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_program_multiplies_but_by_weights(name: str, machine: str) -> None:
    graph, images = graph_of(name), floats(8, *SHAPE[1:], seed=1)
    program = vta.compile(graph, config=MACHINES[machine], calibration=images, options=OPTIONS)
    assert multiplications(program) == []
    assert set(program.program.attributes["hosts"].values()) <= HOST
    answers = [program.run(images, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    exact = np.concatenate([evaluate(graph, {"x": image})[graph.outputs[0]] for image in images[:, None]])
    assert ((answers[0] - exact) ** 2).mean() < 0.005 * (exact**2).mean()


@pytest.mark.parametrize(
    "pointwise",
    [
        Pointwise(function="leaky_relu", parameters=(0.1,)),
        Pointwise(function="hard_swish"),
        Pointwise(function="negative"),
        AveragePool(kernel=(3, 3), padding=(1, 1, 1, 1)),
    ],
    ids=["slope", "gate", "sign", "border"],
)
def test_what_shifts_cannot_scale_is_left_to_the_host(pointwise: Pointwise | AveragePool) -> None:
    b = Builder()
    w = floats(16, 16, 3, 3) / 12
    conv = b(Conv(padding=(1, 1, 1, 1)), b.input(*SHAPE), b.constant(w))
    graph = b.graph(b(Conv(), b(pointwise, conv), b.constant(floats(16, 16, 1, 1) / 4)))
    images = floats(4, *SHAPE[1:], seed=1)
    program = vta.compile(graph, calibration=images, options=OPTIONS)
    assert multiplications(program) == []
    assert "float32 arithmetic" in program.program.attributes["hosts"].values()


def test_scales_of_what_is_added_are_powers_of_two() -> None:
    batches: list[Mapping[str, Array]] = [{"x": floats(8, *SHAPE[1:], seed=1)}]
    result = quantize_model(graph_of("residual"), batches, config=VTAConfig(), options=OPTIONS)
    added = [layer for layer in result.layers if layer.kind == "qadd" or len(layer.input_scales) == 2]
    assert len(added) >= 2
    for layer in added:
        for scale in (layer.output_scale, *layer.input_scales[-1:]):
            assert np.frexp(scale)[0] == 0.5
