"""The CPU back end beside onnxruntime, OpenBLAS and torch: milliseconds of processor time, on several threads of time.

    layers       the distinct convolutions of ResNet-18 with bias and ReLU, float32, row-major in and out
    random       convolutions of twenty other sizes
    integers     those of ResNet-18 in int8, exactly, beside onnxruntime with uint8 and with int8 activations
    products     matrices of 1024 by 1024 beside OpenBLAS (numpy), in float32, and the same product in int8; one thread
    networks     whole networks in float32
    quantised    whole networks in int8, each quantised by its own tool

All take turns in one process, and the best run of each counts; a ratio above 1 is ours. Float answers must agree,
integers must be those of the integer reference. Code is made anew, without the cache. torch is timed if it
is installed (the extra `train`).

    python bench/cpu.py [--json] [--repeat 20] [--threads 1] [--only layers --only integers] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# OpenBLAS takes its number of threads from nowhere else, when numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # noqa: TID251

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.cpu_models import (
    RESNET18,
    Array,
    Layer,
    convolution,
    integer_convolution,
    product,
    qlinear_convolution,
    quantised_for_onnxruntime,
    random_layers,
)
from compiler.driver import Target, compile_graph
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Graph
from compiler.llvm.team import processors
from examples.networks.build import NETWORKS
from runtime.devices.host import HostDevice
from runtime.session import Session
from vta.api import quantized_graph
from vta.engines import Engine, host_loader
from vta.timing import interleaved
from vta_hw.spec.config import VTAConfig

DEFAULT = ("resnet18", "mobilenet_v2", "efficientnet_lite0", "resnet50")
SIZE = 1024
Run = Callable[[], Any]
Maker = Callable[[dict[str, Array]], Run]
"""A run of inputs."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How runs are timed."""

    repeat: int
    threads: int

    def best(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """Milliseconds of the best run of each, which take turns."""
        clock = time.thread_time_ns if self.threads == 1 else time.perf_counter_ns
        times = interleaved(list(runs.values()), self.repeat, clock=clock, rotate=True)
        return {f"{name}_ms": round(each.best, 3) for name, each in zip(runs, times, strict=True)}

    def ours(self, graph: Graph) -> tuple[Session, float]:
        """A session of `graph`, and the seconds that it took to make one."""
        begin = time.perf_counter()
        program = compile_graph(graph, VTAConfig(), target=Target.CPU)
        session = Session(HostDevice(program.config), program, host_loader(Engine.LLVM, threads=self.threads))
        return session, round(time.perf_counter() - begin, 2)

    def onnxruntime(self, model: onnx.ModelProto | bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        content = model if isinstance(model, bytes) else model.SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def floats(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {value.name: rng.normal(0, 1, value.type.shape).astype(np.float32) for value in graph.inputs}


def floating(bench: Bench, model: onnx.ModelProto, others: Mapping[str, Maker]) -> Row:
    """A float model beside onnxruntime and the `others`, made of its inputs."""
    graph = load_onnx(model, batch=1)
    session, seconds = bench.ours(graph)
    other, x = bench.onnxruntime(model), floats(graph)
    answers = zip(session.run(x).values(), other.run(None, x), strict=True)
    times = bench.best(
        {
            "ours": lambda: session.run(x),
            "onnxruntime": lambda: other.run(None, x),
            **{name: make(x) for name, make in others.items()},
        }
    )
    return {
        **times,
        "ratio": ratio(times, "onnxruntime"),
        "difference": max(difference(a, b) for a, b in answers),
        "compile_seconds": seconds,
    }


def torch_convolution(bench: Bench, layer: Layer, model: onnx.ModelProto) -> dict[str, Maker]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(bench.threads)
    w, b = (torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in model.graph.initializer)

    def make(x: dict[str, Array]) -> Run:
        image = torch.from_numpy(x["x"])

        def run() -> Any:
            with torch.inference_mode():
                return torch.relu(torch.conv2d(image, w, b, layer.stride, layer.kernel // 2))

        return run

    return {"torch": make}


def integers(bench: Bench, layer: Layer) -> Row:
    """Fails unless the answer is that of the integer reference."""
    graph = integer_convolution(layer)
    session, seconds = bench.ours(graph)
    x = np.random.default_rng(1).integers(-128, 128, layer.shape).astype(np.int8)
    (found,), (exact,) = session.run({"x": x}).values(), evaluate(graph, {"x": x}).values()
    if not np.array_equal(found.reshape(exact.shape), exact):
        raise SystemExit(f"{layer}: integers differ from the reference")
    others = {
        name: (bench.onnxruntime(qlinear_convolution(layer, dtype)), np.abs(x // 2).astype(dtype))
        for name, dtype in (("u8s8", np.uint8), ("s8s8", np.int8))
    }
    runs: dict[str, Run] = {"ours": lambda: session.run({"x": x})}
    for name, (other, given) in others.items():
        runs[name] = partial(other.run, None, {"x": given})
    times = bench.best(runs)
    return {
        **times,
        "ratio": ratio(times, "u8s8"),
        "ratio_s8s8": ratio(times, "s8s8"),
        "compile_seconds": seconds,
    }


def products(bench: Bench) -> dict[str, Row]:
    graph = load_onnx(product(SIZE), batch=None)
    session, _ = bench.ours(graph)
    x = floats(graph)
    (found,) = session.run(x).values()
    times = bench.best({"ours": lambda: session.run(x), "openblas": lambda: x["x"] @ x["b"]})
    row = {**times, "ratio": ratio(times, "openblas"), "difference": difference(found, x["x"] @ x["b"])}
    whole = integers(bench, Layer(32, SIZE, SIZE, 1, 1))
    giga = 2 * SIZE**3 / 1e6
    return {
        f"{SIZE}^3 float32": {
            **row,
            "gops": round(giga / row["ours_ms"]),
            "openblas_gops": round(giga / row["openblas_ms"]),
        },
        f"{SIZE}^3 int8": {**whole, "gops": round(giga / whole["ours_ms"])},
    }


def quantised(bench: Bench, model: onnx.ModelProto) -> Row:
    """Fails unless the answer is that of the integer reference."""
    graph = load_onnx(model, batch=1)
    x = floats(graph)
    ours = quantized_graph(graph, VTAConfig(), x, 1)
    session, seconds = bench.ours(ours)
    exact = evaluate(ours, x)
    if not all(np.array_equal(answer, exact[name]) for name, answer in session.run(x).items()):
        raise SystemExit("a quantised network differs from the integer reference")
    other = bench.onnxruntime(quantised_for_onnxruntime(model, x))
    times = bench.best({"ours": lambda: session.run(x), "u8s8": lambda: other.run(None, x)})
    return {**times, "ratio": ratio(times, "u8s8"), "compile_seconds": seconds}


def ratio(times: Mapping[str, float], other: str) -> float:
    return round(times[f"{other}_ms"] / times["ours_ms"], 3)


def difference(a: Array, b: Array) -> float:
    """Largest, relative to the largest answer."""
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30))


def mean(rows: Iterable[Row], key: str = "ratio") -> float:
    """Geometric."""
    values = [row[key] for row in rows]
    return round(math.exp(sum(map(math.log, values)) / len(values)), 3)


def sections(bench: Bench, networks: Iterable[str]) -> dict[str, Callable[[], dict[str, Row]]]:
    def layers(chosen: Iterable[Layer]) -> dict[str, Row]:
        models = {layer: convolution(layer) for layer in chosen}
        return {str(layer): floating(bench, m, torch_convolution(bench, layer, m)) for layer, m in models.items()}

    return {
        "layers": lambda: layers(RESNET18),
        "random": lambda: layers(random_layers(20, seed=0)),
        "integers": lambda: {str(layer): integers(bench, layer) for layer in RESNET18},
        "products": lambda: products(replace(bench, threads=1)),
        "networks": lambda: {name: floating(bench, NETWORKS[name](), {}) for name in networks},
        "quantised": lambda: {name: quantised(bench, NETWORKS[name]()) for name in networks},
    }


def show(section: str, rows: dict[str, Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"{section:26}" + "".join(f"{column.removesuffix('_ms'):>16}" for column in columns))
    for name, row in rows.items():
        cells = (f"{row[c]:.1e}" if c == "difference" and c in row else str(row.get(c, "")) for c in columns)
        print(f"  {name:24}" + "".join(f"{cell:>16}" for cell in cells))
    if section != "products":
        print(f"  geometric mean of the ratios: {mean(rows.values())}, least {min(r['ratio'] for r in rows.values())}")
    if section == "integers":
        print(f"  geometric mean beside s8s8: {mean(rows.values(), 'ratio_s8s8')}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=DEFAULT, help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", metavar="SECTION", help="one of those above; may be repeated")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"network must be one of {', '.join(NETWORKS)}, not {sorted(unknown)[0]}")
    if arguments.repeat < 1:
        parser.error(f"repeat must be at least 1, not {arguments.repeat}")
    if not 1 <= arguments.threads <= processors():
        parser.error(f"threads must be 1 to {processors()}, not {arguments.threads}")
    bench = Bench(repeat=arguments.repeat, threads=arguments.threads)
    known = sections(bench, arguments.networks)
    if unknown := set(arguments.only or ()) - set(known):
        parser.error(f"section must be one of {', '.join(known)}, not {sorted(unknown)[0]}")
    results: dict[str, Any] = {}
    for name in arguments.only or known:
        rows = known[name]()
        results[name] = rows
        if name != "products":
            results[f"{name}_geometric_mean"] = mean(rows.values())
        if name == "integers":
            results["integers_geometric_mean_s8s8"] = mean(rows.values(), "ratio_s8s8")
        if not arguments.json:
            show(name, rows)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
