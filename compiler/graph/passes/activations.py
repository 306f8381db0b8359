"""Activation functions that exporters write as several ops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.graph.ops.elementwise import Add, Pointwise
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite

_PRECISION = 1e-3
"""How near, relatively, constants must be to those of the definition: some exporters write four digits."""


@dataclass(frozen=True, kw_only=True)
class FindGelu(Pass):
    """x * (1 + erf(x / sqrt(2))) / 2, multiplied in any order, becomes one op."""

    name: ClassVar[str] = "find-gelu"

    def apply(self, graph: Graph) -> Graph:
        return rewrite(graph, _gelu)


def _gelu(rewriter: Rewriter, node: Node) -> str | None:
    if not _is(node, "multiply", "divide"):
        return None
    number, factors = _factors(rewriter, node)
    if len(factors) != 2 or not math.isclose(number, 0.5, rel_tol=_PRECISION):
        return None
    for x, other in (factors, factors[::-1]):
        if x and other and _is_one_plus_erf(rewriter, other, x):
            return rewriter.emit(Pointwise(function="gelu"), (x,), like=node, output=node.output)
    return None


def _is(node: Node | None, *functions: str) -> bool:
    return node is not None and isinstance(node.op, Pointwise) and node.op.function in functions


def _number(rewriter: Rewriter, name: str) -> float | None:
    """The value of a constant of one element."""
    array = rewriter.array(name)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _factors(rewriter: Rewriter, node: Node) -> tuple[float, list[str]]:
    """(product of the numbers, the other factors) of a tree of products and of quotients by numbers."""
    number = 1.0
    factors: list[str] = []
    for position, name in enumerate(node.inputs):
        value, producer = _number(rewriter, name), rewriter.producer(name)
        divides = position == 1 and _is(node, "divide")
        if value is not None:
            number *= 1 / value if divides and value else value
        elif producer is not None and _flows_in(rewriter, producer, name) and not divides:
            inner, more = _factors(rewriter, producer)
            number, factors = number * inner, factors + more
        else:
            factors += [name] if not divides else [name, ""]  # a quotient by a value is no product
    return number, factors


def _flows_in(rewriter: Rewriter, producer: Node, name: str) -> bool:
    """Whether the value is a product that only the product at hand reads; what x is has several readers."""
    return _is(producer, "multiply", "divide") and rewriter.only_used_here(name)


def _is_one_plus_erf(rewriter: Rewriter, name: str, x: str) -> bool:
    """Whether the value is ``1 + erf(x / sqrt(2))``."""
    total = rewriter.producer(name)
    if total is None or not isinstance(total.op, Add):
        return False
    numbers = [_number(rewriter, operand) for operand in total.inputs]
    if 1.0 not in numbers:
        return False
    erf = rewriter.producer(total.inputs[1 - numbers.index(1.0)])
    if erf is None or not _is(erf, "erf"):
        return False
    scaled = rewriter.producer(erf.inputs[0])
    if scaled is None or not _is(scaled, "multiply", "divide"):
        return False
    number, factors = _factors(rewriter, scaled)
    return factors == [x] and bool(np.isclose(number, math.sqrt(0.5), rtol=_PRECISION))
