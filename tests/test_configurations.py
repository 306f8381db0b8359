"""The digits network on machines of every kind: the functional engine, LLVM and the reference give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import vta
from compiler.driver import compile_graph
from compiler.errors import LoweringError
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate_all
from compiler.graph.ir import Graph
from compiler.tensor.ir import DType
from tests.compiler.vta.replay import races
from tests.compiler.vta.touches import launches
from vta.api import CompiledProgram, quantized_graph
from vta.demo import data
from vta_hw.spec.config import VTAConfig, preset

IMAGES = 16

CONFIGS = {
    "default": VTAConfig(),
    "batch 2": VTAConfig(log_batch=1),
    "batch 4": VTAConfig(log_batch=2),
    "block 4": VTAConfig(
        log_block_in=2, log_block_out=2, log_inp_buff_size=12, log_wgt_buff_size=12, log_acc_buff_size=13
    ),
    "block 8": VTAConfig(
        log_block_in=3, log_block_out=3, log_inp_buff_size=13, log_wgt_buff_size=14, log_acc_buff_size=14
    ),
    "block 32": VTAConfig(log_block_in=5, log_block_out=5),
    "8 in 16 out": VTAConfig(log_block_in=3, log_inp_buff_size=14, log_wgt_buff_size=16),
    "32 in 16 out": VTAConfig(log_block_in=5),
    "batch 2, 8 in 16 out": VTAConfig(log_batch=1, log_block_in=3, log_inp_buff_size=14, log_wgt_buff_size=16),
    "batch 4, 16 in 4 out": VTAConfig(log_batch=2, log_block_out=2, log_acc_buff_size=15),
    "smallest buffers": VTAConfig(log_uop_buff_size=3, log_inp_buff_size=5, log_wgt_buff_size=9, log_acc_buff_size=7),
    "smallest buffers, batch 2, 16 in 8 out": VTAConfig(
        log_batch=1,
        log_block_out=3,
        log_uop_buff_size=3,
        log_inp_buff_size=6,
        log_wgt_buff_size=8,
        log_acc_buff_size=7,
    ),
    "bus 512": VTAConfig(log_bus_width=9),
    "16-bit weights": VTAConfig(log_wgt_width=4),
    "tiny": preset("tiny"),
}


@cache
def digits() -> data.Digits:
    return data.load_digits()


@cache
def network(weight_bits: int) -> Graph:
    """The quantised network for one image."""
    machine = VTAConfig(log_wgt_width=weight_bits.bit_length() - 1)
    return quantized_graph(data.model_bytes(), machine, digits().inputs(digits().train[:100]), 1)


def compiled(config: VTAConfig) -> CompiledProgram:
    return vta.compile(network(config.wgt_bits), config=config)


@pytest.mark.parametrize("name", CONFIGS)
def test_digits_are_the_same_everywhere(name: str) -> None:
    config = CONFIGS[name]
    images = digits().inputs(digits().test[:IMAGES])
    program = compiled(config)
    answers: dict[str, Any] = {engine: program.run(images, engine) for engine in ("functional", "llvm", "reference")}
    assert answers["reference"].shape == (IMAGES, 10)
    assert np.array_equal(answers["functional"], answers["reference"])
    assert np.array_equal(answers["llvm"], answers["reference"])
    assert all(races(steps) == [] for steps in launches(program.program))
    # All of these images are easy; that they are recognised shows that the answers mean something.
    assert (answers["reference"].argmax(axis=1) == digits().targets(digits().test[:IMAGES])).all()


def test_the_weights_have_the_bits_of_the_machine() -> None:
    def weights(graph: Graph) -> set[DType]:
        return {graph.types[name].dtype for name in graph.constants if len(graph.types[name].shape) == 4}

    assert weights(network(8)) == {DType.INT8}
    assert weights(network(16)) == {DType.INT16}


@pytest.mark.parametrize("name", ["default", "batch 2, 8 in 16 out", "smallest buffers"])
def test_every_intermediate_value_equals_the_reference(name: str) -> None:
    config = CONFIGS[name]
    graph = rebatched(network(config.wgt_bits), config.batch)
    every = tuple(node.output for node in graph.nodes)
    shown = replace(graph, outputs=every)
    program = CompiledProgram(compile_graph(shown, config), graph=shown)
    images = digits().inputs(digits().test[: config.batch])
    made = program.run({graph.inputs[0].name: images}, "functional")
    assert isinstance(made, dict)
    expected = evaluate_all(shown, {graph.inputs[0].name: images})
    quantised = [value for value in every if graph.types[value].dtype is DType.INT8]
    assert len(quantised) >= 8
    for value in every:
        assert np.array_equal(made[value], expected[value]), value


def test_outputs_do_not_depend_on_what_else_is_an_output() -> None:
    """Workspace is shared in the one program, and nothing is shared in the other."""
    graph = network(8)
    shown = replace(graph, outputs=tuple(node.output for node in graph.nodes))
    images = digits().inputs(digits().test[:3])
    few, all_of_them = (
        CompiledProgram(compile_graph(one, VTAConfig()), graph=one).run({graph.inputs[0].name: images})
        for one in (graph, shown)
    )
    assert isinstance(few, dict)
    assert isinstance(all_of_them, dict)
    assert np.array_equal(few[graph.outputs[0]], all_of_them[graph.outputs[0]])


def too_small(**sizes: int) -> VTAConfig:
    """A machine with buffers of one element, which the constructor refuses: what every op needs fits in two."""
    config = VTAConfig()
    for name, size in sizes.items():
        object.__setattr__(config, name, size)
    return config


def test_a_layer_that_cannot_fit_is_refused_by_name() -> None:
    with pytest.raises(LoweringError) as refused:
        compiled(too_small(log_acc_buff_size=6))
    layer = next(node.name for node in network(8).nodes if node.op.kind == "qconv2d")
    assert str(refused.value) == (
        f"Layer {layer!r} must fit the acc buffer of 64 bytes, its smallest tile needs 128"
    )
