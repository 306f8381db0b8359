"""One network on every engine: who is right, who agrees, what each layer costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vta.api import CompiledProgram, compile_model
from vta.demo.data import load_digits, model_bytes
from vta.engines import Engine
from vta_hw.spec.config import VTAConfig

CALIBRATION_IMAGES = 256
INTERPRETED_IMAGES = 2
FLOAT = "float"
"""Name of the run of the float network in numpy, with which the integers cannot agree bit for bit."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One engine on `images` held-out images: `agrees` says that every output byte equals the int8 reference's.

    accuracy: share of images whose most probable class is right. seconds: of the run, compilation for it included.
    """

    engine: str
    images: int
    accuracy: float
    seconds: float
    agrees: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The compiled demo network and what every engine made of the held-out images."""

    program: CompiledProgram
    results: tuple[Result, ...]

    @property
    def agree(self) -> bool:
        """Whether no integer engine differs from the reference in any byte."""
        return all(result.agrees is not False for result in self.results)


def study(config: VTAConfig, engines: Sequence[Engine], images: int, report: Report) -> Study:
    """Compile the demo network and run its first `images` held-out images on the reference and `engines`.

    The interpreter gets a few images only, being slow. report: called with (what is being done, done, total).
    """
    digits = load_digits()
    chosen = digits.test[:images]
    inputs, targets = digits.inputs(chosen), digits.targets(chosen)
    report("Compiling the network", 0, 0)
    program = compile_model(model_bytes(), config=config, calibration=digits.inputs(digits.train[:CALIBRATION_IMAGES]))
    report("Running the float network", 0, 0)
    results = [run_float(inputs, targets)]
    expected, reference = run(program, Engine.REFERENCE, inputs, targets, None, report)
    results.append(reference)
    for engine in engines:
        count = min(images, INTERPRETED_IMAGES) if engine is Engine.INTERP else images
        results.append(run(program, engine, inputs[:count], targets[:count], expected[:count], report)[1])
    return Study(program=program, results=tuple(results))


def run_float(inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> Result:
    """The network before quantisation, op by op in numpy."""
    from compiler.frontend.onnx import load_onnx
    from compiler.graph.batch import rebatched
    from compiler.graph.evaluate import evaluate

    begin = time.perf_counter()
    graph = rebatched(load_onnx(model_bytes()), len(inputs))
    (outputs,) = evaluate(graph, {graph.inputs[0].name: inputs}).values()
    return Result(
        engine=FLOAT,
        images=len(inputs),
        accuracy=accuracy(outputs, targets),
        seconds=time.perf_counter() - begin,
        agrees=None,
    )


def run(
    program: CompiledProgram,
    engine: Engine,
    inputs: NDArray[np.float32],
    targets: NDArray[np.int64],
    expected: NDArray[np.generic] | None,
    report: Report,
) -> tuple[NDArray[np.generic], Result]:
    """Outputs of one engine, compared with `expected` byte by byte."""
    title = f"Running on {engine.value}"
    report(title, 0, len(inputs))
    begin = time.perf_counter()
    outputs = program.run(inputs, engine, progress=lambda done, total: report(title, done, total))
    seconds = time.perf_counter() - begin
    assert not isinstance(outputs, dict)
    agrees = None if expected is None else outputs.dtype == expected.dtype and outputs.tobytes() == expected.tobytes()
    return outputs, Result(
        engine=engine.value,
        images=len(inputs),
        accuracy=accuracy(outputs, targets),
        seconds=seconds,
        agrees=agrees,
    )


def accuracy(outputs: NDArray[np.generic], targets: NDArray[np.int64]) -> float:
    """Share of rows of `outputs` [N, classes] whose largest entry is at the target."""
    return float(np.mean(np.argmax(outputs, axis=1) == targets))
