"""The node tests that come with onnx, on the CPU path: float graphs through LLVM.

Inputs that are not float32, such as shapes and axes, are bound as constants, as in the models that people have; so are
all inputs but the first where an operator takes only constant weights.

`python -m tests.compiler.frontend.backend_tests FILE` writes the page of the manual that lists the outcomes.
"""

from __future__ import annotations

import enum
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

from compiler.driver import Target, compile_graph
from compiler.errors import CompileError
from compiler.frontend.onnx import OLDEST_OPSET, load_onnx
from compiler.frontend.operators import CONVERTERS
from compiler.frontend.quantized import CONTRIBUTED
from runtime.session import Session
from vta.engines import Engine, open_session
from vta_hw.spec.config import preset

Array = NDArray[Any]

MUST_BE_CONSTANT: Final = "must be a constant, not the computed"


class Outcome(enum.Enum):
    """REFUSED: with a reason. WRONG: neither that nor the right answer."""

    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "wrong"


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
    name: str
    model: onnx.ModelProto
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
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
        try:
            actual = self._run(only_first=False)
        except CompileError as error:
            if MUST_BE_CONSTANT not in str(error):
                return Result(self.name, self.op, self.is_float, Outcome.REFUSED, str(error))
            try:
                actual = self._run(only_first=True)
            except CompileError as second:
                return Result(self.name, self.op, self.is_float, Outcome.REFUSED, str(second))
        for expected, value in zip(self.outputs, actual, strict=True):
            if expected.shape != value.shape or not np.allclose(value, expected, self.rtol, self.atol, equal_nan=True):
                return Result(
                    self.name,
                    self.op,
                    self.is_float,
                    Outcome.WRONG,
                    f"{value.ravel()[:4]} is not {expected.ravel()[:4]}",
                )
        return Result(self.name, self.op, self.is_float, Outcome.PASSED)

    def _run(self, *, only_first: bool) -> list[Array]:
        """Raises CompileError."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        names = [value.name for value in graph.input]
        computed = {
            value.name
            for position, value in enumerate(graph.input)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and not (only_first and position)
        }
        for name, array in zip(names, self.inputs, strict=True):
            if name not in computed:
                graph.initializer.append(numpy_helper.from_array(array, name))
        imported = load_onnx(model)
        program = compile_graph(imported, preset("sim"), target=Target.CPU)
        session: Session = open_session(program, Engine.LLVM)
        given = dict(zip(names, self.inputs, strict=True))
        outputs = session.run({value.name: given[value.name].copy() for value in imported.inputs})
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
        inputs, outputs = case.data_sets[0]
        if all(isinstance(array, np.ndarray | np.generic) for array in (*inputs, *outputs)):
            yield NodeTest(
                case.name, model, tuple(map(np.asarray, inputs)), tuple(map(np.asarray, outputs)), case.rtol, case.atol
            )


def share(results: Sequence[Result]) -> float:
    """Of the tests in float32, those that pass."""
    tests = [result for result in results if result.is_float]
    return sum(result.outcome is Outcome.PASSED for result in tests) / len(tests)


def page(results: Sequence[Result]) -> str:
    """The manual's page, in Markdown."""
    floats = [result for result in results if result.is_float]
    passed = [result for result in results if result.outcome is Outcome.PASSED]
    passing = sum(result.is_float for result in passed)
    lines = [
        "# ONNX operators",
        "",
        "Models of opset 13 and later are imported. The node tests that come with onnx run on the CPU path, that is",
        "imported as a float graph and compiled by LLVM. Inputs that are no numbers to compute with, such as shapes",
        "and axes, are constants there, as they are in models; so are weights where an operator takes only constant",
        "ones. `python -m tests.compiler.frontend.backend_tests docs/onnx.md` writes this page, and a test fails where",
        "it is not what happens.",
        "",
        f"Of {len(floats)} tests of these operators in float32 (onnx {onnx.__version__}) {passing} pass,",
        f"{share(results):.1%}. With those of all element types, booleans and unsigned integers among them, it is",
        f"{len(passed)} of {len(results)}. The others are refused, with the reasons below. Operators without tests",
        "here are those whose tests have several nodes, or results that are constants.",
        "",
        "What runs on the accelerator once a network is quantised is another question: [](compiler.md).",
        "",
        "Operators that make or read the integers of a quantised model are imported too. Their tests end in integers,",
        "or compute constants, and are refused. Those of onnxruntime, domain com.microsoft, are",
        f"{', '.join(sorted(CONTRIBUTED))}.",
        "",
        "| operator | float32 tests | pass | tests of other types | pass |",
        "| --- | --- | --- | --- | --- |",
    ]
    for op in sorted(CONVERTERS):
        cells = []
        for is_float in (True, False):
            tests = [result for result in results if result.op == op and result.is_float is is_float]
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
