"""The node tests that come with onnx, on the CPU path: graphs as imported through LLVM.

Inputs that an operator takes only as constants, such as shapes and axes, are bound as such, as in the models that
people have; so are lists of no elements.

`python -m tests.compiler.frontend.backend_tests FILE` writes the page of the manual that lists the outcomes.
"""

from __future__ import annotations

import enum
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

import vta
from compiler.errors import CompileError
from compiler.frontend.onnx import OLDEST_OPSET
from compiler.frontend.operators import CONVERTERS
from compiler.frontend.quantized import CONTRIBUTED
from compiler.frontend.tensors import TYPES

Array = NDArray[Any]

MUST_BE_CONSTANT: Final = re.compile(r"must be a constant, not the computed '(.*)'$")


class Outcome(enum.Enum):
    """REFUSED: with a reason. WRONG: neither that nor the right answer. UNKNOWN: of types that numpy has not."""

    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Result:
    """is_float: whether the operands, and the results, are float32; indices may be integers."""

    test: str
    op: str
    is_float: bool
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class NodeTest:
    """is_held: whether numpy has the types of all inputs and outputs, which lack some otherwise."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    is_held: bool
    rtol: float
    atol: float

    @property
    def op(self) -> str:
        return str(self.model.graph.node[0].op_type)

    @property
    def is_float(self) -> bool:
        """Indices, shapes and counts may be integers, operands and results not."""
        graph = self.model.graph
        results = [value.type.tensor_type.elem_type for value in graph.output]
        operand = graph.input[0].type.tensor_type.elem_type if graph.input else onnx.TensorProto.INT64
        return {operand, *results} == {onnx.TensorProto.FLOAT}

    def result(self) -> Result:
        if not self.is_held:
            return Result(self.name, self.op, self.is_float, Outcome.UNKNOWN)
        try:
            operands = zip(self.model.graph.input, self.inputs, strict=True)
            empty = {value.name for position, (value, array) in enumerate(operands) if position and not array.size}
            actual = self._run(frozenset(empty))
        except CompileError as error:
            return Result(self.name, self.op, self.is_float, Outcome.REFUSED, str(error))
        for expected, value in zip(self.outputs, actual, strict=True):
            alike = (expected.shape, expected.dtype) == (value.shape, value.dtype)
            if not alike or not np.allclose(value, expected, self.rtol, self.atol, equal_nan=True):
                return Result(
                    self.name,
                    self.op,
                    self.is_float,
                    Outcome.WRONG,
                    f"{value.ravel()[:4]} is not {expected.ravel()[:4]}",
                )
        return Result(self.name, self.op, self.is_float, Outcome.PASSED)

    def _run(self, constants: frozenset[str]) -> list[Array]:
        """With these inputs as constants, and those that the operator takes as nothing else. Raises CompileError."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        names = [value.name for value in graph.input]
        for name, array in zip(names, self.inputs, strict=True):
            if name in constants:
                graph.initializer.append(numpy_helper.from_array(array, name))
        try:
            compiled = vta.compile(model, target="cpu")
        except CompileError as error:
            wanted = MUST_BE_CONSTANT.search(str(error))
            if wanted is None:
                raise
            return self._run(constants | {wanted[1]})
        given = dict(zip(names, self.inputs, strict=True))
        outputs = compiled.run({port.name: given[port.name].copy() for port in compiled.inputs})
        return [outputs[value.name] for value in graph.output]


def node_tests() -> Iterator[NodeTest]:
    """Those of one node whose operator is imported, at an opset that is."""
    with warnings.catch_warnings():  # the cases compute their own answers, some of them infinite
        warnings.simplefilter("ignore")
        cases = sorted(collect_testcases(None), key=lambda case: str(case.name))
    for case in cases:
        model = case.model
        if len(model.graph.node) != 1 or model.graph.node[0].op_type not in CONVERTERS:
            continue
        if model.graph.node[0].domain or model.opset_import[0].version < OLDEST_OPSET:
            continue
        inputs, outputs = (tuple(map(_array, values)) for values in case.data_sets[0])
        known = tuple(array for array in inputs if array is not None), tuple(a for a in outputs if a is not None)
        is_held = (len(inputs), len(outputs)) == (len(known[0]), len(known[1]))
        yield NodeTest(case.name, model, *known, is_held, case.rtol, case.atol)


def _array(value: Any) -> Array | None:
    """None for a sequence, and for element types that numpy has not."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value) if value.data_type in TYPES else None
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def share(results: Sequence[Result]) -> float:
    """Of the tests of types that numpy has, those that pass."""
    counted = [result for result in results if result.outcome is not Outcome.UNKNOWN]
    return sum(result.outcome is Outcome.PASSED for result in counted) / len(counted)


def page(results: Sequence[Result]) -> str:
    """The manual's page, in Markdown."""
    counted = [result for result in results if result.outcome is not Outcome.UNKNOWN]
    floats = [result for result in counted if result.is_float]
    passed = [result for result in results if result.outcome is Outcome.PASSED]
    passing = sum(result.is_float for result in passed)
    lines = [
        "# ONNX operators",
        "",
        "Models of opset 13 and later are imported. The node tests that come with onnx run on the CPU path, that is",
        "imported and compiled by LLVM. Inputs that an operator takes only as constants, such as shapes, axes and some",
        "weights, are constants there, as they are in models.",
        "`python -m tests.compiler.frontend.backend_tests docs/onnx.md` writes this page, and a test fails where it is",
        "not what happens.",
        "",
        f"Of {len(counted)} tests of these operators (onnx {onnx.__version__}) {len(passed)} pass,",
        f"{share(results):.1%}; of the {len(floats)} in float32 {passing}. The others are refused, as said below.",
        f"{len(results) - len(counted)} more, nearly all of Cast, are in types that numpy has not (float8, bfloat16,",
        "integers of 4 and 2 bits, sequences), nor has the compiler; they are not counted. Operators without tests",
        "here are those whose tests have several nodes.",
        "",
        "Integers of 8 to 64 bits, with and without sign, and float64 are computed in their own type: additions wrap,",
        "divisions round towards zero. Functions that are more than arithmetic, such as Exp, are for float32 alone.",
        "float16 is converted to float32 where it comes in, and back where it goes out or a Cast asks for it; bool is",
        "moved, cast, and reduced. The accelerator is for networks in float32, which are quantised:",
        "[](compiler.md). A graph with other types is refused there.",
        "",
        "Operators that make or read the integers of a quantised model are imported too. Those of onnxruntime, domain",
        f"com.microsoft, are {', '.join(sorted(CONTRIBUTED))}.",
        "",
        "| operator | float32 tests | pass | tests of other types | pass |",
        "| --- | --- | --- | --- | --- |",
    ]
    for op in sorted(CONVERTERS):
        cells = []
        for is_float in (True, False):
            tests = [result for result in counted if result.op == op and result.is_float is is_float]
            cells += [str(len(tests)), str(sum(result.outcome is Outcome.PASSED for result in tests))]
        lines.append(f"| {op} | {' | '.join(cells)} |")
    lines += ["", "## Tests in float32 that are refused", "", "| test | reason |", "| --- | --- |"]
    lines += [_row(result) for result in floats if result.outcome is Outcome.REFUSED]
    lines += ["", "## Tests of other types that are refused", "", "| test | reason |", "| --- | --- |"]
    lines += [_row(result) for result in results if not result.is_float and result.outcome is Outcome.REFUSED]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> str:
    reason = result.reason if len(result.reason) <= 160 else f"{result.reason[:157]}..."
    return f"| `{result.test}` | {reason.replace('|', '/')} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page([test.result() for test in node_tests()]))
