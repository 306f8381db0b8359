"""A short way to write graphs in tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Array, Graph, Node, Op, TensorType, Value
from compiler.tensor.ir import DType


class Builder:
    """`x = b.input(...)`, `y = b(op, x)`, `b.graph(y)`; values are called by the order they come in, or as given."""

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}

    def input(self, *shape: int, name: str = "x", dtype: DType = DType.FLOAT32) -> str:
        self.inputs.append(Value(name=name, type=TensorType(shape, dtype)))
        return name

    def constant(self, array: NDArray[Any], name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def __call__(self, op: Op, *inputs: str, name: str = "") -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(Node(op=op, inputs=inputs, output=name, name=f"{op.kind} {name}"))
        return name

    def graph(self, *outputs: str) -> Graph:
        graph = Graph(
            name="test", inputs=tuple(self.inputs), outputs=outputs, nodes=tuple(self.nodes), constants=self.constants
        )
        graph.verify()
        return graph


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def int8s(*shape: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
