"""The window attributes of ONNX convolutions and pools: kernel, strides, pads, auto_pad, dilations, ceil_mode."""

from __future__ import annotations

from compiler.errors import FrontendError, GraphError
from compiler.frontend.attributes import MAX_EXTENT
from compiler.frontend.importer import OnnxNode
from compiler.graph.ops.window import Pair, Quad, Window

PADDING_BEYOND_SPAN = 16
MAX_PADDING = 256
"""Results that no input reaches are constants: networks have few of them, damaged files may ask for millions."""


def read_window(node: OnnxNode, shape: tuple[int, ...], kernel: Pair | None) -> Window:
    """The window of a node over an input of `shape` [N,C,H,W]. kernel: what the weights say, if there are any."""
    a = node.attributes
    if kernel is not None and "kernel_shape" not in a:
        rows, columns = kernel
    else:
        rows, columns = a.extents("kernel_shape", 2, None, low=1)
    if kernel is not None and (rows, columns) != kernel:
        raise FrontendError(f"attribute 'kernel_shape' must be {kernel}, that of the weight, not {(rows, columns)}")
    down, right = a.extents("strides", 2, 1, low=1)
    dilation_y, dilation_x = a.extents("dilations", 2, 1, low=1)
    top, left, bottom, after = a.extents("pads", 4, 0, low=0)
    mode = a.string("auto_pad", "NOTSET")
    window = Window(kernel=(rows, columns), stride=(down, right), dilation=(dilation_y, dilation_x))
    if max(window.span) > MAX_EXTENT:
        raise FrontendError(f"window must span at most {MAX_EXTENT} rows and columns, not {window.span}")
    match mode:
        case "NOTSET":
            padding: Quad = (top, left, bottom, after)
        case "VALID":
            padding = (0, 0, 0, 0)
        case "SAME_UPPER" | "SAME_LOWER":
            padding = _same(window, shape, upper=mode == "SAME_UPPER")
        case _:
            raise FrontendError(f"attribute 'auto_pad' must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {mode!r}")
    for amount, span in zip(padding, (*window.span, *window.span), strict=True):
        limit = min(span + PADDING_BEYOND_SPAN, MAX_PADDING)
        if amount > limit:
            raise FrontendError(f"padding of a window that spans {window.span} must be at most {limit}, not {padding}")
    return Window(kernel=window.kernel, stride=window.stride, dilation=window.dilation, padding=padding)


def pool_window(node: OnnxNode, shape: tuple[int, ...]) -> tuple[Window, bool]:
    """(window, whether ceil_mode made it larger): then the padding at the end grows to a whole last window."""
    ceil = node.attributes.integer("ceil_mode", 0, low=0, high=1)
    window = read_window(node, shape, None)
    if not ceil:
        return window, False
    try:
        window.output(shape[2], shape[3])
    except GraphError as error:
        raise FrontendError(str(error)) from None
    top, left, bottom, right = window.padding
    extra = (_rest(window, 0, shape[2], top, bottom), _rest(window, 1, shape[3], left, right))
    padding = (top, left, bottom + extra[0], right + extra[1])
    return Window(kernel=window.kernel, stride=window.stride, dilation=window.dilation, padding=padding), any(extra)


def _same(window: Window, shape: tuple[int, ...], *, upper: bool) -> Quad:
    """Padding for ceil(size / stride) outputs; where it is odd the surplus is at the end (upper) or the beginning."""
    total = []
    for size, stride, span in zip(shape[2:], window.stride, window.span, strict=True):
        outputs = -(-size // stride)
        total.append(max((outputs - 1) * stride + span - size, 0))
    small = [amount // 2 for amount in total]
    large = [amount - half for amount, half in zip(total, small, strict=True)]
    before, after = (small, large) if upper else (large, small)
    return before[0], before[1], after[0], after[1]


def _rest(window: Window, axis: int, size: int, before: int, after: int) -> int:
    """Elements missing for the window that ceil_mode adds; none when that would begin beyond the input and padding."""
    span, stride = window.span[axis], window.stride[axis]
    steps = -(-(size + before + after - span) // stride)
    if steps * stride >= size + before:
        steps -= 1
    return max(steps * stride + span - (size + before + after), 0)
