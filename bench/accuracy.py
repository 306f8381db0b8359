"""Do 8-bit networks see and hear what the float networks do? On inputs that they were not calibrated with.

    python bench/accuracy.py [--json] [NETWORK ...]

EfficientNet-Lite0 is calibrated with the photographs of scikit-image and compared on the twenty of foolbox, which are
labelled, and the two of scikit-learn; the keyword network is calibrated with training voices and compared on others,
and that of the demo with training digits and compared on those held out.
Each machine runs on the functional simulator. Agreement is of the first class, noise that of the probabilities. Last
come the same networks as onnxruntime quantises them, with the same inputs: their integers, here and in onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vta
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.graph.quantize.values import QuantizeOptions
from examples.keywords.data import calibration, held_out
from examples.networks.build import NETWORKS
from examples.networks.photos import labelled, others, unlabelled
from vta.demo.data import load_digits
from vta_hw.spec.config import preset

VARIANTS = {
    "TVM's instructions": ("tvm", QuantizeOptions()),
    "extended": ("extended", QuantizeOptions()),
    "TVM's instructions, biases not corrected": ("tvm", QuantizeOptions(correct_bias=False)),
    "extended, biases not corrected": ("extended", QuantizeOptions(correct_bias=False)),
    "powers of two alone": ("tvm", QuantizeOptions(multiply=False)),
    "powers of two alone, biases not corrected": ("tvm", QuantizeOptions(multiply=False, correct_bias=False)),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """calibration, inputs: float32 [N, ...]. classes: int64 [at most N], those of the first inputs."""

    model: onnx.ModelProto
    calibration: NDArray[np.float32]
    inputs: NDArray[np.float32]
    classes: NDArray[np.int64]


def photographs() -> Task:
    """EfficientNet-Lite0. Raises ImportError where a package with weights or photographs is missing."""
    known, classes = labelled()
    return Task(
        model=NETWORKS["efficientnet_lite0"](),
        calibration=unlabelled(),
        inputs=np.concatenate([known, others()]),
        classes=classes,
    )


def keywords() -> Task:
    """The keyword network. Raises ImportError where espeakng-loader is missing."""
    inputs, classes = held_out()
    return Task(model=NETWORKS["keywords"](), calibration=calibration(), inputs=inputs, classes=classes)


def digits() -> Task:
    """The network of the demo."""
    data = load_digits()
    return Task(
        model=NETWORKS["digits"](),
        calibration=data.inputs(data.train[:256]),
        inputs=data.inputs(data.test),
        classes=data.targets(data.test),
    )


TASKS: Final[Mapping[str, Callable[[], Task]]] = MappingProxyType(
    {"efficientnet_lite0": photographs, "keywords": keywords, "digits": digits}
)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """agreement: inputs whose first class is the float network's. right: of the labelled. noise_db: of all outputs."""

    variant: str
    inputs: int
    agreement: int
    labelled: int
    right: int
    float_right: int
    noise_db: float


def measure(task: Task) -> list[Accuracy]:
    """Each variant on the inputs of the task, and the network as onnxruntime quantises it, here and there.

    Raises ImportError where onnxruntime is missing.
    """
    graph = load_onnx(task.model)
    name, exact = graph.inputs[0].name, float_answers(graph, task.inputs)
    results = []
    for variant, (isa, options) in VARIANTS.items():
        config = replace(preset("sim"), isa=isa)
        program = vta.compile(task.model, config=config, calibration=task.calibration, options=options)
        results.append(compared(variant, program.run(task.inputs, "functional"), exact, task.classes))
    model = quantized_by_onnxruntime(task.model, task.calibration)
    for isa in ("tvm", "extended"):
        program = vta.compile(model, config=replace(preset("sim"), isa=isa))
        answers = program.run(task.inputs, "functional")
        results.append(compared(f"quantised by onnxruntime, {isa}", answers, exact, task.classes))
    answers = run_by_onnxruntime(model, name, task.inputs)
    return [*results, compared("quantised and run by onnxruntime", answers, exact, task.classes)]


def float_answers(graph: Graph, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    (value,), (output,) = graph.inputs, graph.outputs
    return np.concatenate([evaluate(graph, {value.name: each[None]})[output] for each in inputs])


def compared(variant: str, answers: object, exact: NDArray[np.float32], classes: NDArray[np.int64]) -> Accuracy:
    assert isinstance(answers, np.ndarray)
    top, real, known = answers.argmax(axis=1), exact.argmax(axis=1), len(classes)
    noise = 10 * math.log10(float((exact**2).sum() / ((answers - exact) ** 2).sum()))
    return Accuracy(
        variant=variant,
        inputs=len(answers),
        agreement=int((top == real).sum()),
        labelled=known,
        right=int((top[:known] == classes).sum()),
        float_right=int((real[:known] == classes).sum()),
        noise_db=round(noise, 1),
    )


def quantized_by_onnxruntime(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> onnx.ModelProto:
    """The model in QDQ form, symmetric, with weights per channel, calibrated with the inputs. Raises ImportError."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{model.graph.input[0].name: each[None]} for each in inputs]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self.left.pop() if self.left else None

    with TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            Reader(),
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return onnx.load(result)


def run_by_onnxruntime(model: onnx.ModelProto, name: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {name: each[None]})[0] for each in inputs])


def command_line(
    description: str | None, measure: Callable[[Task], Iterable[Any]], show: Callable[[str, list[Any]], None]
) -> None:
    """Measure the networks that are asked for, and show each, or print all rows, which are dataclasses, as JSON."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print figures for a script")
    arguments = parser.parse_args()
    for name in arguments.networks:
        if name not in TASKS:
            parser.error(f"NETWORK must be one of {', '.join(TASKS)}, not {name!r}")
    try:
        results = {name: list(measure(TASKS[name]())) for name in arguments.networks or TASKS}
    except ImportError as error:
        raise SystemExit(str(error)) from None
    if arguments.json:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in results.items()}, indent=2))
        return
    for name, rows in results.items():
        show(name, rows)


def shown(name: str, rows: list[Accuracy]) -> None:
    print(name)
    for r in rows:
        print(
            f"{r.variant:42} agrees on {r.agreement} of {r.inputs}, {r.noise_db} dB; "
            f"right on {r.right} of {r.labelled} labelled (float: {r.float_right})"
        )


if __name__ == "__main__":
    command_line(__doc__, measure, shown)
