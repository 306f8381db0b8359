"""Compiled layers through a session on the functional simulator: time of a run, and memory against the arena.

Memory is all that is allocated from opening a session to the result, the output included, at its peak. About 0.9 MB of
it are the scratchpads of the simulated machine, whatever the layer.

    python -m bench.session [--json] [--repeat 20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.driver import compile_graph
from compiler.graph.ir import Graph, Node, TensorType, Value
from compiler.graph.ops.qconv import QConv2d
from compiler.tensor.ir import DType
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program

LAYERS = ((64, 64, 56), (512, 512, 7), (64, 64, 224))
"""Input channels, output channels, rows and columns of 3x3 convolutions."""


def convolution(inputs: int, outputs: int, size: int, *, kernel: int = 3) -> Graph:
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "w": rng.integers(-128, 128, (outputs, inputs, kernel, kernel)).astype(np.int8),
        "m": np.full(outputs, 3, np.int32),
        "b": np.zeros(outputs, np.int32),
    }
    op = QConv2d(padding=(kernel // 2,) * 4, shift=10, lo=-128, hi=127)
    x = Value(name="x", type=TensorType((1, inputs, size, size), DType.INT8))
    node = Node(op=op, inputs=("x", "w", "m", "b"), output="y", name="conv")
    return Graph(name="layer", inputs=(x,), outputs=("y",), nodes=(node,), constants=constants)


def inputs_of(program: Program) -> dict[str, NDArray[np.int8]]:
    return {
        buffer.name: np.random.default_rng(1).integers(-128, 128, buffer.shape, np.int8) for buffer in program.inputs
    }


def run(program: Program, x: dict[str, NDArray[np.int8]], repeat: int) -> list[float]:
    """Seconds of each of `repeat` runs."""
    seconds = []
    with open_session(program, Engine.FUNCTIONAL) as session:
        for _ in range(repeat):
            begin = time.perf_counter()
            session.run(x)
            seconds.append(time.perf_counter() - begin)
    return seconds


def measure(inputs: int, outputs: int, size: int, repeat: int) -> dict[str, Any]:
    config = VTAConfig()
    small = compile_graph(convolution(16, 16, 8), config)
    run(small, inputs_of(small), 1)
    program = compile_graph(convolution(inputs, outputs, size), config)
    x = inputs_of(program)
    tracemalloc.start()
    run(program, x, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    median = statistics.median(run(program, x, repeat))
    macs = outputs * size * size * inputs * 9
    return {
        "layer": f"{inputs}->{outputs} 3x3 on {size}x{size}",
        "arena_bytes": program.arena_bytes,
        "peak_bytes": peak,
        "peak_vs_arena": round(peak / program.arena_bytes, 2),
        "median_ms": round(median * 1e3, 2),
        "gmac_per_second": round(macs / median / 1e9, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeat", type=int, default=20, help="timed runs of each layer")
    parser.add_argument("--layer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layer is not None:
        print(json.dumps(measure(*LAYERS[options.layer], options.repeat)))
        return
    # Each layer in a process of its own, so that none reuses the memory of another.
    command = [sys.executable, __file__, "--repeat", str(options.repeat), "--layer"]
    rows = [json.loads(subprocess.check_output([*command, str(k)])) for k in range(len(LAYERS))]
    if options.json:
        print(json.dumps({"config": VTAConfig().name, "layers": rows}, indent=2))
        return
    print(f"{'layer':24} {'arena MB':>9} {'peak/arena':>11} {'ms':>7} {'GMAC/s':>7}")
    for row in rows:
        arena = row["arena_bytes"] / 1e6
        print(
            f"{row['layer']:24} {arena:9.2f} {row['peak_vs_arena']:>11} {row['median_ms']:7} {row['gmac_per_second']:7}"
        )


if __name__ == "__main__":
    main()
