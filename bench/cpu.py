"""Networks on the CPU beside onnxruntime: milliseconds of processor time, on several threads of time.

The distinct convolutions of ResNet-18, each with its bias and ReLU, and whole networks, in float32. The two take turns
in one process, and the best run of each counts; a ratio above 1 is ours. Answers must agree. Code is made anew, without
the cache.

    python bench/cpu.py [--json] [--repeat 20] [--threads 1] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compiler.driver import Target, compile_graph
from compiler.frontend.onnx import load_onnx
from examples.networks.build import NETWORKS
from runtime.devices.host import HostDevice
from runtime.session import Session
from vta.engines import Engine, host_loader
from vta_hw.spec.config import VTAConfig

LAYERS = (
    (224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 128, 3, 2), (56, 64, 128, 1, 2), (28, 128, 128, 3, 1),
    (28, 128, 256, 3, 2), (28, 128, 256, 1, 2), (14, 256, 256, 3, 1), (14, 256, 512, 3, 2), (14, 256, 512, 1, 2),
    (7, 512, 512, 3, 1),
)  # fmt: skip
"""Rows and columns, input and output channels, kernel, stride."""
DEFAULT = ("resnet18", "mobilenet_v2", "efficientnet_lite0", "resnet50")


def convolution(size: int, ins: int, outs: int, kernel: int, stride: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    w = rng.normal(0, math.sqrt(2 / (ins * kernel * kernel)), (outs, ins, kernel, kernel)).astype(np.float32)
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    constants = [numpy_helper.from_array(a, n) for n, a in (("w", w), ("b", np.zeros(outs, np.float32)))]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ins, size, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "conv", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def layer_name(size: int, ins: int, outs: int, kernel: int, stride: int) -> str:
    return f"{size}x{size} {ins}->{outs} {kernel}x{kernel} /{stride}"


def measured(model: onnx.ModelProto, repeat: int, threads: int) -> dict[str, float]:
    """Milliseconds of both, the ratio, the largest difference of the answers, and seconds to compile."""
    import onnxruntime

    begin = time.perf_counter()
    graph = load_onnx(model, batch=1)
    program = compile_graph(graph, VTAConfig(), target=Target.CPU)
    session = Session(HostDevice(program.config), program, host_loader(Engine.LLVM, threads=threads))
    seconds = time.perf_counter() - begin
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    other = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (value,) = graph.inputs
    x = {value.name: np.random.default_rng(1).normal(0, 1, value.type.shape).astype(np.float32)}
    ours, theirs = session.run(x), other.run(None, x)
    best = [math.inf, math.inf]
    for _ in range(repeat):
        for k, run in enumerate((lambda: session.run(x), lambda: other.run(None, x))):
            best[k] = min(best[k], milliseconds(run, time.thread_time if threads == 1 else time.perf_counter))
    return {
        "ms": round(best[0], 3),
        "onnxruntime_ms": round(best[1], 3),
        "ratio": round(best[1] / best[0], 3),
        "difference": max(difference(a, b) for a, b in zip(ours.values(), theirs, strict=True)),
        "compile_seconds": round(seconds, 2),
    }


def milliseconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    return (clock() - begin) * 1e3


def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest, relative to the largest answer."""
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=DEFAULT, help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"network must be one of {', '.join(NETWORKS)}, not {sorted(unknown)[0]}")
    repeat, threads = arguments.repeat, arguments.threads
    layers = {layer_name(*layer): measured(convolution(*layer), repeat, threads) for layer in LAYERS}
    mean = math.exp(sum(math.log(row["ratio"]) for row in layers.values()) / len(layers))
    networks = {name: measured(NETWORKS[name](), repeat, threads) for name in arguments.networks}
    if arguments.json:
        print(json.dumps({"layers": layers, "geometric_mean": round(mean, 3), "networks": networks}, indent=2))
        return
    print(f"{'':28}{'ms':>8} {'onnxruntime':>12} {'ratio':>7} {'difference':>11} {'compile s':>10}")
    for name, row in (layers | networks).items():
        print(
            f"{name:28}{row['ms']:8.3f} {row['onnxruntime_ms']:12.3f} {row['ratio']:7.2f} {row['difference']:11.1e} "
            f"{row['compile_seconds']:10.2f}"
        )
    print(f"geometric mean of the convolutions' ratios: {mean:.3f}")


if __name__ == "__main__":
    main()
