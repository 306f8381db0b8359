"""Damaged ONNX files: importing one gives a `FrontendError` or, where the damage is harmless, a well-formed graph,
which then can be quantised or is refused with another `CompileError`.

`python -m tests.compiler.frontend.fuzz --count 500` tries new damage and prints the seeds of what went wrong;
`--seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import math
import secrets
import sys
import traceback
import warnings

import numpy as np

from compiler.errors import CompileError, FrontendError
from compiler.frontend.onnx import load_onnx
from compiler.graph.ir import Array, Graph
from compiler.graph.passes.pipeline import quantize_model
from tests.compiler.frontend.models import residual_network
from tests.compiler.frontend.mutate import mutation
from tests.compiler.frontend.quantized_models import dequantized_conv, integer_conv
from vta_hw.spec.config import VTAConfig

INTACT = tuple(proto().SerializeToString() for proto in (residual_network, dequantized_conv, integer_conv))
"""The models that are damaged, in turn."""
LARGEST = 1 << 18
"""Elements of a value: damage can make a network larger than there is time to run it."""


def problem(data: bytes) -> str | None:
    """What is wrong about how a damaged file is read; None if nothing is."""
    try:
        graph = load_onnx(data, batch=1)
    except FrontendError as error:
        return None if str(error) and "\n" not in str(error) else f"message is not a sentence: {error!r}"
    except Exception:  # noqa: BLE001 - that no other exception leaves is what is tested
        return traceback.format_exc()
    try:
        graph.verify()
        if max(math.prod(t.shape) for t in graph.types.values()) <= LARGEST:
            quantize_model(graph, [random_inputs(graph)], config=VTAConfig())
    except CompileError as error:
        return None if str(error) and "\n" not in str(error) else f"message is not a sentence: {error!r}"
    except Exception:  # noqa: BLE001 - likewise
        return traceback.format_exc()
    return None


def random_inputs(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {value.name: rng.random(value.type.shape, np.float32) for value in graph.inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description="Import damaged ONNX files.")
    parser.add_argument("--count", type=int, default=500, help="how many files (default 500)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the first file (default: a new one)")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    print(f"{arguments.count} damaged ONNX files, seeds {seed}..{seed + arguments.count - 1}")
    failures = 0
    warnings.simplefilter("error")
    for number in range(seed, seed + arguments.count):
        damage = mutation(INTACT[number % len(INTACT)], number)
        if found := problem(damage.data):
            failures += 1
            print(f"seed {number} ({damage.kind}): {found}")
    print(f"{failures} problems")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
