"""Every integer value of a quantised network, on the engines of the accelerator and by the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.driver import compile_graph
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.tensor.ir import DType
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig


def check_every_value(quantized: Graph, config: VTAConfig, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Functional and cycle engine must give each value that the reference gives."""
    graph = exposed(quantized)
    program = compile_graph(graph, config)
    expected = evaluate(graph, inputs)
    for engine in (Engine.FUNCTIONAL, Engine.CYCLE):
        with open_session(program, engine) as session:
            answers = session.run(inputs)
        for buffer in program.outputs:
            answer, reference = answers[buffer.name], expected[buffer.name]
            if buffer.layout is not None:
                answer = unpacked(answer, reference.shape)
            np.testing.assert_array_equal(answer, reference, err_msg=f"{buffer.name} on {engine.value}")


def exposed(graph: Graph) -> Graph:
    """The graph with every integer value among its outputs."""
    inner = [node.output for node in graph.nodes if graph.types[node.output].dtype is DType.INT8]
    return replace(graph, outputs=(*graph.outputs, *(name for name in inner if name not in graph.outputs)))


def unpacked(stored: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Logical [N,C,H,W] of tiles; what is behind images and channels has no meaning."""
    batches, blocks, height, width, n, c = stored.shape
    whole = stored.transpose(0, 4, 1, 5, 2, 3).reshape(batches * n, blocks * c, height, width)
    return whole[: shape[0], : shape[1]]
