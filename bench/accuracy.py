"""Does an 8-bit EfficientNet-Lite0 see what the float network sees? On photographs that it was not calibrated with.

    python bench/accuracy.py [--json]

Calibrated with the photographs of scikit-image; compared on the twenty of foolbox, which are labelled, and the two of
scikit-learn. Each machine runs on the functional simulator. Agreement is of the first class, noise that of the logits.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vta
from compiler.driver import compile_graph
from compiler.frontend.onnx import load_onnx
from compiler.graph.batch import rebatched
from compiler.graph.evaluate import evaluate
from compiler.graph.passes.pipeline import prepare
from compiler.graph.quantize.convert import quantize
from compiler.graph.quantize.values import QuantizeOptions
from examples.networks.efficientnet import efficientnet_lite0
from examples.networks.photos import labelled, others, unlabelled
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
class Accuracy:
    """agreement: photographs whose first class is the float network's. right: of the labelled. noise_db: of logits."""

    variant: str
    photographs: int
    agreement: int
    labelled: int
    right: int
    float_right: int
    noise_db: float


def measure() -> list[Accuracy]:
    """Raises ImportError where a package with photographs is missing."""
    calibration = unlabelled()
    known, classes = labelled()
    photographs = np.concatenate([known, others()])
    graph = load_onnx(efficientnet_lite0())
    name, output = graph.inputs[0].name, graph.outputs[0]
    exact = np.concatenate([evaluate(graph, {name: photo[None]})[output] for photo in photographs])
    results = []
    for variant, (isa, options) in VARIANTS.items():
        config = replace(preset("sim"), isa=isa)
        quantized = quantize(prepare(graph, config), [{name: calibration}], config=config, options=options)
        program = vta.CompiledProgram(compile_graph(rebatched(quantized.graph, 1), config), graph=None)
        answers = program.run(photographs, "functional")
        assert isinstance(answers, np.ndarray)
        top, real = answers.argmax(axis=1), exact.argmax(axis=1)
        noise = 10 * math.log10(float((exact**2).sum() / ((answers - exact) ** 2).sum()))
        results.append(
            Accuracy(
                variant=variant,
                photographs=len(photographs),
                agreement=int((top == real).sum()),
                labelled=len(classes),
                right=int((top[: len(classes)] == classes).sum()),
                float_right=int((real[: len(classes)] == classes).sum()),
                noise_db=round(noise, 1),
            )
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print figures for a script")
    arguments = parser.parse_args()
    try:
        results = measure()
    except ImportError as error:
        raise SystemExit(str(error)) from None
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    for r in results:
        print(
            f"{r.variant:42} agrees on {r.agreement} of {r.photographs}, {r.noise_db} dB; "
            f"right on {r.right} of {r.labelled} labelled (float: {r.float_right})"
        )


if __name__ == "__main__":
    main()
