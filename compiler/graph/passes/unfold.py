"""Convolutions that read an image of few channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from compiler.graph.ir import Array, Graph, Node
from compiler.graph.ops.move import Pad
from compiler.graph.ops.qconv import IntegerConv
from compiler.graph.ops.qelementwise import Quantize
from compiler.graph.ops.unfold import Unfold
from compiler.graph.ops.window import Pair
from compiler.graph.passes.base import Pass
from compiler.graph.rewrite import Rewriter, rewrite
from vta_hw.spec.config import VTAConfig

_GAIN = 0.9
"""Largest part of the time that may be left for an unfolding to be worth another step on the host."""


@dataclass(frozen=True)
class _Patch:
    """A way to unfold: `size` pixels of the image, [rows, columns], become one of a convolution.

    kernel, stride, output: of the convolution as it was, each (vertical, horizontal).
    """

    size: Pair
    kernel: Pair
    stride: Pair
    output: Pair

    @property
    def taps(self) -> Pair:
        """The kernel that is left."""
        return -(-self.kernel[0] // self.size[0]), -(-self.kernel[1] // self.size[1])

    @property
    def dilation(self) -> Pair:
        """How far its taps lie apart: a patch, in strides, which are the steps of the unfolded image."""
        rows, columns = (max(1, part // step) for part, step in zip(self.size, self.stride, strict=True))
        return rows if self.taps[0] > 1 else 1, columns if self.taps[1] > 1 else 1

    @property
    def image(self) -> Pair:
        """Rows and columns of the unfolded image."""
        taps, dilation = self.taps, self.dilation
        return self.output[0] + (taps[0] - 1) * dilation[0], self.output[1] + (taps[1] - 1) * dilation[1]

    def weights(self, w: Array) -> Array:
        """[O,C,KH,KW] to [O, patch*C, taps], the channels in the order of `Unfold`; zeros where the last patch ends."""
        outs, ins, *kernel = w.shape
        (rows, columns), (high, wide) = self.taps, self.size
        full = np.zeros((outs, ins, rows * high, columns * wide), w.dtype)
        full[:, :, : kernel[0], : kernel[1]] = w
        parts = full.reshape(outs, ins, rows, high, columns, wide).transpose(0, 3, 5, 1, 2, 4)
        return np.ascontiguousarray(parts.reshape(outs, high * wide * ins, rows, columns))


@dataclass(frozen=True)
class _Image:
    """What the host quantises, and a border that a convolution has around it: rows above, columns left, of `value`."""

    name: str
    border: Pair = (0, 0)
    value: int = 0


def _image(rewriter: Rewriter, name: str) -> _Image | None:
    """The image that a convolution reads, or None if it reads anything else."""
    source = rewriter.producer(name)
    image = _Image(name)
    if source is not None and isinstance(source.op, Pad) and source.op.is_border:
        _, _, above, left = source.op.before
        image = _Image(source.inputs[0], (above, left), int(source.op.value))
        source = rewriter.producer(image.name)
    return image if source is not None and isinstance(source.op, Quantize) else None


@dataclass(frozen=True, kw_only=True)
class UnfoldInput(Pass):
    """A convolution of what the host quantises reads pixels with their neighbours as channels, where that is faster.

    A tile multiplies all its channels at once, of which an image has three. Part of the kernel, up to all of it,
    becomes channels; what the host writes grows, until the bus sets the limit. Afterwards such a convolution reads an
    `Unfold`. Convolutions in groups stay, and all on a machine of 4-bit activations, which the host writes in pairs.
    """

    name: ClassVar[str] = "unfold-input"
    config: VTAConfig

    def apply(self, graph: Graph) -> Graph:
        return graph if self.config.inp_bits == 4 else rewrite(graph, self._unfold)

    def _unfold(self, rewriter: Rewriter, node: Node) -> str | None:
        op = node.op
        if not isinstance(op, IntegerConv) or op.groups > 1 or op.dilation != (1, 1):
            return None
        image, weight = _image(rewriter, node.inputs[0]), rewriter.array(node.inputs[1])
        if image is None or weight is None:
            return None
        rows, columns = op.infer([rewriter.type(name) for name in node.inputs]).shape[2:]
        kernel = weight.shape[2], weight.shape[3]
        choices = [
            _Patch((high, wide), kernel, op.stride, (rows, columns))
            for high in _parts(kernel[0], op.stride[0])
            for wide in _parts(kernel[1], op.stride[1])
        ]
        patch = min(choices, key=lambda patch: (self._cycles(weight, patch), sum(self._moved(weight, patch))))
        plain = _tiles(weight.shape[1], self.config.block_in) * math.prod(kernel) * self._products(weight, patch)
        if self._cycles(weight, patch) > _GAIN * plain:
            return None
        origin = op.padding[0] + image.border[0], op.padding[1] + image.border[1]
        unfold = Unfold(kernel=patch.size, stride=op.stride, origin=origin, size=patch.image, value=image.value)
        unfolded = rewriter.emit(unfold, (image.name,), like=replace(node, name=f"{node.name}.unfold"))
        weights = rewriter.constant(patch.weights(weight), f"{node.inputs[1]}.unfolded")
        product = replace(op, stride=(1, 1), padding=(0, 0, 0, 0), dilation=patch.dilation)
        return rewriter.emit(product, (unfolded, weights, *node.inputs[2:]), like=node, output=node.output)

    def _products(self, weight: Array, patch: _Patch) -> int:
        """Tile products for each tap and each tile of input channels."""
        return math.prod(patch.output) * _tiles(len(weight), self.config.block_out)

    def _cycles(self, weight: Array, patch: _Patch) -> float:
        """The longest of multiplying, reading and writing activations, for one image; the bus reads while it writes."""
        tiles = _tiles(weight.shape[1] * math.prod(patch.size), self.config.block_in)
        moved = max(self._moved(weight, patch)) * self.config.inp_bits / self.config.bus_bits
        return max(tiles * math.prod(patch.taps) * self._products(weight, patch), moved)

    def _moved(self, weight: Array, patch: _Patch) -> tuple[int, int]:
        """Activations that are read and written, for one image."""
        tiles = _tiles(weight.shape[1] * math.prod(patch.size), self.config.block_in)
        read = tiles * self.config.block_in * math.prod(patch.image)
        return read, self.config.block_out * self._products(weight, patch)


def _tiles(channels: int, block: int) -> int:
    return -(-channels // block)


def _parts(kernel: int, stride: int) -> list[int]:
    """How much of a kernel may become channels along one axis: several strides, or all of it."""
    return [*range(stride, kernel, stride), kernel]
