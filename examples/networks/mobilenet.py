"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), width 1.0, with random weights."""

from __future__ import annotations

import onnx

from examples.networks.writer import Writer

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels and stride of each depthwise-separable block."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks, and stride of the first of them."""


def mobilenet_v1(*, size: int = 224) -> onnx.ModelProto:
    """float32 [N, 3, size, size] to probabilities [N, 1000]."""
    writer = Writer("mobilenet_v1", (3, size, size))
    x = _layer(writer, "x", 32, 3, "conv", stride=2)
    for number, (outs, stride) in enumerate(V1):
        x = _layer(writer, x, writer.channels[x], 3, f"block{number}.depthwise", stride=stride, depthwise=True)
        x = _layer(writer, x, outs, 1, f"block{number}.pointwise")
    return writer.model(writer.classifier(x, 1000, "fc"), (1000,))


def mobilenet_v2(*, size: int = 224) -> onnx.ModelProto:
    """float32 [N, 3, size, size] to probabilities [N, 1000]."""
    writer = Writer("mobilenet_v2", (3, size, size))
    x = _layer(writer, "x", 32, 3, "conv", stride=2)
    blocks = [(t, c, s if first == 0 else 1) for t, c, n, s in V2 for first in range(n)]
    for number, (expansion, outs, stride) in enumerate(blocks):
        name, ins, y = f"block{number}", writer.channels[x], x
        if expansion > 1:
            y = _layer(writer, y, ins * expansion, 1, f"{name}.expand")
        y = _layer(writer, y, ins * expansion, 3, f"{name}.depthwise", stride=stride, depthwise=True)
        y = writer.batch_norm(writer.conv(y, outs, 1, f"{name}.project"), f"{name}.project.bn")
        x = writer.node("Add", x, y) if stride == 1 and ins == outs else y
    x = _layer(writer, x, 1280, 1, "head")
    return writer.model(writer.classifier(x, 1000, "fc"), (1000,))


def _layer(
    writer: Writer, x: str, outs: int, kernel: int, name: str, *, stride: int = 1, depthwise: bool = False
) -> str:
    """Convolution, batch normalisation, ReLU6."""
    groups = outs if depthwise else 1
    y = writer.conv(x, outs, kernel, name, stride=stride, groups=groups)
    return writer.relu6(writer.batch_norm(y, f"{name}.bn"))
