"""One convolution of ResNet-18 as a program: 56x56 pixels, 64 channels to 64, 3x3, by default.

    python examples/resnet/layer.py -o layer.vta
    vta profile layer.vta --latency 32

Weights are random: what takes time does not depend on them. The ten shapes of the network that VTA takes are those of
`bench/schedules.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import vta

CALIBRATION_IMAGES = 2


def model(size: int, inputs: int, outputs: int, kernel: int, stride: int) -> onnx.ModelProto:
    """Convolution, bias and ReLU: float32 [1, inputs, size, size] to [1, outputs, size / stride, size / stride]."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, (inputs * kernel * kernel) ** -0.5, (outputs, inputs, kernel, kernel))
    constants = {"w": weights, "b": rng.normal(0, 0.1, outputs)}
    pad = kernel // 2
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
        ),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    out = (size + 2 * pad - kernel) // stride + 1
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, out, out])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def main() -> None:
    """Compile the layer that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("layer.vta"), help="the program (default: %(default)s)"
    )
    parser.add_argument("--config", default="sim", help="preset or vta_config.json (default: %(default)s)")
    for name, value in (("size", 56), ("inputs", 64), ("outputs", 64), ("kernel", 3), ("stride", 1)):
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    given = parser.parse_args()
    layer = model(given.size, given.inputs, given.outputs, given.kernel, given.stride)
    images = np.random.default_rng(1).normal(0, 1, (CALIBRATION_IMAGES, given.inputs, given.size, given.size))
    program = vta.compile(layer, config=given.config, calibration=images.astype(np.float32))
    program.save(given.output)
    print(f"{given.output}: {program.total.macs:,} MACs, {program.total.instructions} instructions")


if __name__ == "__main__":
    main()
