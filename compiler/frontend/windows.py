"""The window attributes of ONNX convolutions and pools: kernel, strides, pads, auto_pad, dilations, ceil_mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compiler.errors import FrontendError
from compiler.frontend.attributes import MAX_EXTENT
from compiler.frontend.importer import OnnxNode
from compiler.graph.ops.window import Pair, Window

PADDING_BEYOND_SPAN = 16
MAX_PADDING = 256
"""Results that no input reaches are constants: networks have few of them, damaged files may ask for millions."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A window along one axis, in elements; before, after: padding."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def fits(self, size: int) -> bool:
        return size + self.before + self.after >= self.span

    def same(self, size: int, *, upper: bool) -> Axis:
        """Padding for ceil(size / stride) outputs; if odd, the surplus is at the end (upper) or the beginning."""
        outputs = -(-size // self.stride)
        total = max((outputs - 1) * self.stride + self.span - size, 0)
        small, large = total // 2, total - total // 2
        return replace(self, before=small if upper else large, after=large if upper else small)

    def rounded_up(self, size: int) -> Axis:
        """The padding at the end grows to a whole last window, unless that would begin beyond input and padding."""
        steps = -(-(size + self.before + self.after - self.span) // self.stride)
        if steps * self.stride >= size + self.before:
            steps -= 1
        missing = max(steps * self.stride + self.span - (size + self.before + self.after), 0)
        return replace(self, after=self.after + missing)


UNIT = Axis(kernel=1)


def read_axes(node: OnnxNode, sizes: Sequence[int], kernel: tuple[int, ...] | None) -> list[Axis]:
    """The window of a node along each axis of an image of `sizes`. kernel: what the weights say, if there are any."""
    a, count = node.attributes, len(sizes)
    if kernel is not None and "kernel_shape" not in a:
        taps = kernel
    else:
        taps = a.extents("kernel_shape", count, None, low=1)
    if kernel is not None and taps != kernel:
        raise FrontendError(f"attribute 'kernel_shape' must be {kernel}, that of the weight, not {taps}")
    strides = a.extents("strides", count, 1, low=1)
    dilations = a.extents("dilations", count, 1, low=1)
    pads = a.extents("pads", 2 * count, 0, low=0)
    mode = a.string("auto_pad", "NOTSET")
    axes = [Axis(kernel=k, stride=s, dilation=d) for k, s, d in zip(taps, strides, dilations, strict=True)]
    spans = tuple(axis.span for axis in axes)
    if max(spans) > MAX_EXTENT:
        raise FrontendError(f"window must span at most {MAX_EXTENT} rows and columns, not {spans}")
    match mode:
        case "NOTSET":
            axes = [replace(axis, before=pads[k], after=pads[count + k]) for k, axis in enumerate(axes)]
        case "VALID":
            pass
        case "SAME_UPPER" | "SAME_LOWER":
            axes = [axis.same(size, upper=mode == "SAME_UPPER") for axis, size in zip(axes, sizes, strict=True)]
        case _:
            raise FrontendError(f"attribute 'auto_pad' must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {mode!r}")
    padding = (*(axis.before for axis in axes), *(axis.after for axis in axes))
    for amount, span in zip(padding, (*spans, *spans), strict=True):
        limit = min(span + PADDING_BEYOND_SPAN, MAX_PADDING)
        if amount > limit:
            raise FrontendError(f"padding of a window that spans {spans} must be at most {limit}, not {padding}")
    return axes


def window_of(rows: Axis, columns: Axis) -> Window:
    return Window(
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        dilation=(rows.dilation, columns.dilation),
        padding=(rows.before, columns.before, rows.after, columns.after),
    )


def read_window(node: OnnxNode, sizes: Sequence[int], kernel: Pair) -> Window:
    """The window of a convolution over an image of one or two `sizes`; a line is an image of one row."""
    axes = read_axes(node, sizes, kernel[2 - len(sizes) :])
    return window_of(*[UNIT] * (2 - len(sizes)), *axes)


def pool_axes(node: OnnxNode, sizes: Sequence[int]) -> tuple[list[Axis], bool]:
    """(windows, whether ceil_mode made one larger)."""
    ceil = node.attributes.integer("ceil_mode", 0, low=0, high=1)
    axes = read_axes(node, sizes, None)
    if not all(axis.fits(size) for axis, size in zip(axes, sizes, strict=True)):
        spans = "x".join(str(axis.span) for axis in axes)
        padded = "x".join(str(n + axis.before + axis.after) for axis, n in zip(axes, sizes, strict=True))
        raise FrontendError(f"window of {spans} must fit in the padded input, not exceed its {padded}")
    if not ceil:
        return axes, False
    larger = [axis.rounded_up(size) for axis, size in zip(axes, sizes, strict=True)]
    return larger, larger != axes
