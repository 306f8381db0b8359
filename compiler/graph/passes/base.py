"""What a pass is, and how a list of passes is run."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from compiler.errors import GraphError
from compiler.graph.ir import Graph


class Pass(abc.ABC):
    """A frozen dataclass whose fields are its options. A pass keeps inputs, outputs and their types, and their values
    but for what its docstring says; it may leave values unused, and need not leave a graph as a later pass wants it."""

    name: ClassVar[str]

    @abc.abstractmethod
    def apply(self, graph: Graph) -> Graph:
        """The new graph. `graph` verifies, and so must the result."""


def run_passes(graph: Graph, passes: Sequence[Pass]) -> Graph:
    """Apply the passes in order, verifying before the first and after each.

    Raises GraphError, naming the pass when its result does not verify or has another interface than its input.
    """
    graph.verify()
    for step in passes:
        result = step.apply(graph)
        try:
            result.verify()
        except GraphError as error:
            raise GraphError(f"Pass {step.name} must leave a well-formed graph: {error}") from error
        before, after = _interface(graph), _interface(result)
        if before != after:
            raise GraphError(f"Pass {step.name} must keep the interface {before}, not make it {after}")
        graph = result
    return graph


def _interface(graph: Graph) -> str:
    inputs = ", ".join(f"{value.name}: {value.type.logical}" for value in graph.inputs)
    return f"({inputs}) -> ({', '.join(f'{name}: {graph.types[name].logical}' for name in graph.outputs)})"
