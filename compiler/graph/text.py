"""A graph as text, for people and for tests of passes."""

from __future__ import annotations

from dataclasses import MISSING, fields

from compiler.graph.ir import Graph, Node, Op
from compiler.tensor.ir import DType


def to_text(graph: Graph) -> str:
    """One line per constant and node: `result: type = op(inputs) {attributes off their default} @place (reason)`."""
    inputs = ", ".join(f"{value.name}: {graph.types[value.name]}" for value in graph.inputs)
    lines = [f"graph {graph.name}({inputs}) -> ({', '.join(graph.outputs)}) {{"]
    lines += [f"  {name}: {graph.types[name]} = constant" for name in graph.constants]
    lines += [f"  {_node(graph, node)}" for node in graph.nodes]
    return "\n".join([*lines, "}"]) + "\n"


def _node(graph: Graph, node: Node) -> str:
    text = f"{node.output}: {graph.types[node.output]} = {node.op.kind}({', '.join(node.inputs)}){attributes(node.op)}"
    if node.placement is None:
        return text
    reason = f" ({node.placement.reason})" if node.placement.reason else ""
    return f"{text} @{node.placement.place.value}{reason}"


def attributes(op: Op) -> str:
    """` {name=value, ...}` of the attributes without a default or off their default, or nothing."""
    shown = []
    for field in fields(op):  # type: ignore[arg-type]  # every Op is a dataclass, which its base cannot say
        value = getattr(op, field.name)
        if field.default is MISSING or value != field.default:
            shown.append(f"{field.name}={value.value if isinstance(value, DType) else value}")
    return f" {{{', '.join(shown)}}}" if shown else ""
