"""ResNet for 224x224 images (He et al. 2015), with random weights.

ResNet-50 is the version with the stride in the 3x3 convolution (v1.5), as frameworks have it.
"""

from __future__ import annotations

import onnx

from examples.networks.writer import Writer

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
BRANCH_GAIN = 0.35
"""Of what a block adds to its input: sums of many blocks keep their size."""


def resnet(depth: int, *, size: int = 224) -> onnx.ModelProto:
    """ResNet of `depth` 18, 34 or 50: float32 [N, 3, size, size] to probabilities [N, 1000]."""
    writer = Writer(f"resnet{depth}", (3, size, size))
    x = writer.relu(writer.batch_norm(writer.conv("x", 64, 7, "conv1", stride=2), "bn1"))
    x = writer.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    writer.size[x] = (writer.size[x] + 1) // 2
    for stage, (count, width) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = _block(writer, x, width, stride, f"layer{stage + 1}.{block}", bottleneck=depth >= 50)
    return writer.model(writer.classifier(x, 1000, "fc"), (1000,))


def _block(writer: Writer, x: str, width: int, stride: int, name: str, *, bottleneck: bool) -> str:
    outs = width * 4 if bottleneck else width
    steps = [(width, 1, 1), (width, 3, stride), (outs, 1, 1)] if bottleneck else [(width, 3, stride), (outs, 3, 1)]
    y = x
    for number, (channels, kernel, step) in enumerate(steps, start=1):
        last = number == len(steps)
        y = writer.conv(y, channels, kernel, f"{name}.conv{number}", stride=step)
        y = writer.batch_norm(y, f"{name}.bn{number}", gain=BRANCH_GAIN if last else 1.0)
        y = y if last else writer.relu(y)
    if stride > 1 or writer.channels[x] != outs:
        x = writer.conv(x, outs, 1, f"{name}.downsample.0", stride=stride)
        x = writer.batch_norm(x, f"{name}.downsample.1")
    return writer.relu(writer.node("Add", y, x))
