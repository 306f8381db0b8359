"""How passes make a new graph: one sweep over the nodes, in order, each either copied or replaced."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace
from itertools import count

from compiler.graph.ir import Array, Graph, Node, Op, TensorType, infer_node
from compiler.graph.ops.elementwise import Identity

Rule = Callable[["Rewriter", Node], str | None]
"""Given a node whose inputs are values of the new graph, the value that stands for its result, or None to copy it."""


class Rewriter:
    """A new graph in the making. A replacement that takes the old node's output name keeps its use count."""

    def __init__(self, source: Graph) -> None:
        self.source = source
        self._nodes: dict[str, Node] = {}
        self._constants: dict[str, Array] = dict(source.constants)
        self._weight_scales: dict[str, Array] = dict(source.weight_scales)
        self._types = {value.name: value.type.logical for value in source.inputs}
        self._types |= {name: TensorType.of(array) for name, array in source.constants.items()}
        self._taken = {*self._types, *source.producers}
        self._position = {name: k for k, name in enumerate(source.producers)}

    def emit(self, op: Op, inputs: tuple[str, ...], *, like: Node, output: str | None = None) -> str:
        """Add a node, named as `like`. `output` may be the output of `like`; without it the value gets a new name."""
        result = output if output is not None else self.fresh(f"{like.output}.{op.kind}")
        node = Node(op=op, inputs=inputs, output=result, name=like.name, placement=like.placement)
        self._types[result] = infer_node(node, [self._types[name] for name in inputs])
        self._nodes[result] = node
        return result

    def constant(self, array: Array, hint: str, *, scale: Array | None = None) -> str:
        """Add a constant under a new name made from `hint`. scale: see `Graph.weight_scales`."""
        name = self.fresh(hint)
        self._constants[name] = array
        if scale is not None:
            self._weight_scales[name] = scale
        self._types[name] = TensorType.of(array)
        return name

    def fresh(self, hint: str) -> str:
        """A name no value has: `hint`, or `hint` with a number."""
        name = first_free(hint, self._taken)
        self._taken.add(name)
        return name

    def type(self, name: str) -> TensorType:
        """Logical type of a value of the new graph."""
        return self._types[name]

    def producer(self, name: str) -> Node | None:
        """The new graph's node that computes the value; None for inputs and constants."""
        return self._nodes.get(name)

    def array(self, name: str) -> Array | None:
        """The value of a constant, None for all else."""
        return self._constants.get(name)

    def weight_scale(self, name: str) -> Array | None:
        """Of weights that the model gives as integers (`Graph.weight_scales`), None for all else."""
        return self._weight_scales.get(name)

    def position(self, name: str) -> int:
        """Place of the value's node in the source graph; -1 for inputs, constants and new values."""
        return self._position.get(name, -1)

    def only_used_here(self, name: str) -> bool:
        """Whether the source graph reads the value exactly once, so that its producer may be absorbed by the reader."""
        return self.source.uses.get(name, 0) <= 1

    def run(self, rule: Rule) -> Graph:
        """Sweep over the source graph and return the new one, without what no output needs."""
        alias: dict[str, str] = {}
        for node in self.source.nodes:
            renamed = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
            result = rule(self, renamed)
            if result is None:
                result = self.emit(renamed.op, renamed.inputs, like=renamed, output=renamed.output)
            if result != node.output:
                alias[node.output] = result
        self._keep_output_names(alias)
        return self.finish()

    def finish(self) -> Graph:
        """The new graph as it stands, without what no output needs."""
        nodes, constants = tuple(self._nodes.values()), self._constants
        return pruned(replace(self.source, nodes=nodes, constants=constants, weight_scales=self._weight_scales))

    def _keep_output_names(self, alias: dict[str, str]) -> None:
        """Outputs are the interface: where one became another value, that value takes its name, or is copied to it."""
        for output in self.source.outputs:
            if output not in alias:
                continue
            old = alias[output]
            node = self._nodes.get(old)
            if node is None or old in self.source.outputs:
                self.emit(Identity(), (old,), like=self.source.producers[output], output=output)
                continue
            names = {old: output}
            nodes = [renamed_node(each, names) for each in self._nodes.values()]
            self._nodes = {each.output: each for each in nodes}
            self._types[output] = self._types[old]
            alias |= {key: output for key, value in alias.items() if value == old}


def renamed_node(node: Node, names: dict[str, str]) -> Node:
    """The node with values renamed; names not in the mapping stay."""
    inputs = tuple(names.get(name, name) for name in node.inputs)
    return replace(node, inputs=inputs, output=names.get(node.output, node.output))


def pruned(graph: Graph) -> Graph:
    """Without nodes, constants, layouts and scales that no output depends on. Inputs stay: they are the interface."""
    needed = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    kept = {name: array for name, array in graph.constants.items() if name in needed}
    values = {*kept, *(node.output for node in nodes), *(value.name for value in graph.inputs)}
    layouts = {name: layout for name, layout in graph.layouts.items() if name in values}
    scales = {name: scale for name, scale in graph.weight_scales.items() if name in kept}
    return replace(graph, nodes=tuple(reversed(nodes)), constants=kept, layouts=layouts, weight_scales=scales)


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """`graph` after one sweep of `rule`."""
    return Rewriter(graph).run(rule)


def first_free(hint: str, taken: Set[str]) -> str:
    """`hint` if it is free, else `hint.1`, `hint.2`, ..."""
    return hint if hint not in taken else next(n for n in (f"{hint}.{k}" for k in count(1)) if n not in taken)
