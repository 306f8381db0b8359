"""Run a graph by the references of its ops: the meaning of a graph, against which every back end is tested."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.errors import GraphError
from compiler.graph.ir import Array, Graph


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name, as logical arrays. Raises GraphError when an input is missing or has another shape or dtype."""
    values = evaluate_all(graph, inputs)
    return {name: values[name] for name in graph.outputs}


def evaluate_all(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every value by name, inputs and constants included."""
    values: dict[str, Array] = dict(graph.constants)
    for value in graph.inputs:
        if value.name not in inputs:
            raise GraphError(f"Inputs must contain {value.name!r}, not only {sorted(inputs)}")
        array = inputs[value.name]
        if array.shape != value.type.shape or array.dtype != value.type.dtype.numpy:
            raise GraphError(f"Input {value.name!r} must be {value.type.logical}, not {array.dtype}{list(array.shape)}")
        values[value.name] = array
    for node in graph.nodes:
        values[node.output] = node.op.reference(*(values[name] for name in node.inputs))
    return values
