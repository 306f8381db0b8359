"""ONNX convolutions, products of matrices, batch normalisation. Semantics: the ONNX operator specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.attributes import MAX_EXTENT
from compiler.frontend.images import Image
from compiler.frontend.importer import Converter, Importer, OnnxNode, as_float32
from compiler.frontend.tensors import check_shape
from compiler.frontend.windows import read_window
from compiler.graph.ops.conv import Conv, Dense, MatMul
from compiler.graph.ops.elementwise import Add, BatchNorm, Identity, Pointwise
from compiler.graph.ops.move import Slice, Transpose
from compiler.graph.ops.shape import Reshape
from compiler.graph.ops.window import Pair, Quad


def _weight_shape(importer: Importer, node: OnnxNode, image: Image) -> tuple[int, int, int, int]:
    """Shape of the weight as [O,I,KH,KW]. Raises FrontendError unless its rank is that of the input."""
    shape = importer.shape(node, 1)
    if len(shape) != (3 if image.is_line else 4):
        raise FrontendError(f"weight must have rank {3 if image.is_line else 4}, not shape {list(shape)}")
    outs, ins, *kernel = shape
    return (outs, ins, 1, kernel[0]) if image.is_line else (outs, ins, kernel[0], kernel[1])


def _conv(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 3)
    image = Image.of(importer, node)
    shape = _weight_shape(importer, node, image)
    groups = node.attributes.integer("group", 1, low=1)
    window = read_window(node, image.shape[3 if image.is_line else 2 :], shape[2:])
    op = Conv(stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups)
    if image.is_line and importer.is_static(node, 1):
        w, scale = importer.weights(node, 1).reshape(shape), importer.weight_scale(node, 1, 0)
        weight = importer.constant(w, f"{node.inputs[1]}.image", scale=scale)
    else:
        weight = importer.value(node, 1)
        if image.is_line:
            weight = importer.emit(node, Reshape(shape=shape), (weight,), last=False)
    bias = (importer.value(node, 2),) if node.has(2) else ()
    image.emit(importer, node, op, (image.value, weight, *bias))


@dataclass(frozen=True)
class _Transposed:
    """The geometry of a transposed convolution; kernel with its dilation filled in. output: rows and columns."""

    kernel: Pair
    stride: Pair
    before: Pair
    output: Pair

    @property
    def taps(self) -> Pair:
        """Kernel of the ordinary convolution that computes every result of a phase."""
        rows, columns = (-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))
        return rows, columns

    def steps(self, size: Pair) -> Pair:
        """Results of each phase, at least as many as there are rows and columns in the input."""
        rows, columns = (
            max(-(-(before + out) // s), extent)
            for before, out, s, extent in zip(self.before, self.output, self.stride, size, strict=True)
        )
        return rows, columns


def _geometry(node: OnnxNode, image: Image, kernel: Pair) -> tuple[_Transposed, Pair]:
    """(geometry, dilation), from the attributes."""
    a, line = node.attributes, image.is_line
    count = 1 if line else 2

    def pair(name: str, default: int, low: int) -> Pair:
        values = a.extents(name, count, default, low=low)
        return (default, values[0]) if line else (values[0], values[1])

    given = a.integers("kernel_shape")
    if given is not None and given != kernel[2 - count :]:
        raise FrontendError(f"attribute 'kernel_shape' must be {kernel[2 - count :]}, that of the weight, not {given}")
    stride, dilation, extra = pair("strides", 1, 1), pair("dilations", 1, 1), pair("output_padding", 0, 0)
    pads = a.extents("pads", 2 * count, 0, low=0)
    padding: Quad = (0, pads[0], 0, pads[1]) if line else (pads[0], pads[1], pads[2], pads[3])
    mode = a.string("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise FrontendError(f"attribute 'auto_pad' must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {mode!r}")
    shape = a.integers("output_shape")
    if shape is not None and len(shape) != count:
        raise FrontendError(f"attribute 'output_shape' must have {count} extents, not {shape}")
    before, output = [], []
    for axis in range(2):
        filled = (kernel[axis] - 1) * dilation[axis] + 1
        whole = stride[axis] * (image.shape[2 + axis] - 1) + filled + extra[axis]
        if shape is not None and axis >= 2 - count:
            wanted: int | None = shape[axis - 2 + count]
        else:
            wanted = image.shape[2 + axis] * stride[axis] if mode.startswith("SAME") else None
        if wanted is None:
            top, bottom = (padding[axis], padding[axis + 2]) if mode == "NOTSET" else (0, 0)
            wanted = whole - top - bottom
        else:
            total = max(whole - wanted, 0)
            top = total // 2 if mode == "SAME_UPPER" else total - total // 2
        if wanted < 1 or wanted > MAX_EXTENT * stride[axis]:
            raise FrontendError(f"result must have extents of at least 1, not {wanted}")
        before.append(top)
        output.append(wanted)
    filled_kernel = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    return _Transposed(
        (filled_kernel[0], filled_kernel[1]), stride, (before[0], before[1]), (output[0], output[1])
    ), dilation


def _conv_transpose(importer: Importer, node: OnnxNode) -> None:
    """An ordinary convolution that computes stride x stride results for each input as channels, which then interleave.

    Result row ``q * stride + r`` of a phase r reads input row ``q - m`` through row ``r + m * stride`` of the kernel
    (Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016).
    """
    node.require(2, 3)
    image = Image.of(importer, node)
    ins, outs_of_group, *kernel = _weight_shape(importer, node, image)
    groups = node.attributes.integer("group", 1, low=1)
    if ins % groups or ins != image.shape[1]:
        raise FrontendError(f"weight must be for {image.shape[1]} channels in {groups} groups, not for {ins}")
    geometry, dilation = _geometry(node, image, (kernel[0], kernel[1]))
    weight = importer.weights(node, 1).reshape(ins, outs_of_group, *kernel)
    phases = geometry.stride[0] * geometry.stride[1]
    outs = outs_of_group * groups
    check_shape((outs * phases, ins // groups, *geometry.taps))
    scale = importer.weight_scale(node, 1, 1)
    scale = None if scale is None else np.tile(scale, groups * phases)
    w = importer.constant(_phases(weight, groups, geometry, dilation), f"{node.inputs[1]}.phases", scale=scale)
    parameters = [w]
    if node.has(2):
        bias = np.tile(importer.weights(node, 2).reshape(groups, 1, -1), (1, phases, 1)).ravel()
        parameters.append(importer.constant(bias, f"{node.inputs[2]}.phases"))
    size = image.shape[2], image.shape[3]
    rows, columns = geometry.steps(size)
    taps = geometry.taps
    op = Conv(padding=(taps[0] - 1, taps[1] - 1, rows - size[0], columns - size[1]), groups=groups)
    value = importer.emit(node, op, (image.value, *parameters), last=False)
    batch, (down, right) = image.shape[0], geometry.stride
    if phases > 1:
        split = Reshape(shape=(batch, groups, down, right, outs_of_group, rows, columns))
        value = importer.emit(node, split, (value,), last=False)
        value = importer.emit(node, Transpose(order=(0, 1, 4, 5, 2, 6, 3)), (value,), last=False)
        joined = Reshape(shape=(batch, outs, rows * down, columns * right))
        value = importer.emit(node, joined, (value,), last=False)
    value = _cut(importer, node, value, geometry)
    image.emit(importer, node, Identity(), (value,))


def _phases(weight: NDArray[np.float32], groups: int, geometry: _Transposed, dilation: Pair) -> NDArray[np.float32]:
    """[C,O/groups,KH,KW] to [groups*phases*O/groups,C/groups,taps], the taps in reverse."""
    ins, outs = weight.shape[:2]
    (rows, columns), (down, right) = geometry.taps, geometry.stride
    full = np.zeros((ins, outs, rows * down, columns * right), np.float32)
    full[:, :, : geometry.kernel[0] : dilation[0], : geometry.kernel[1] : dilation[1]] = weight
    parts = full.reshape(groups, ins // groups, outs, rows, down, columns, right)[:, :, :, ::-1, :, ::-1]
    return np.ascontiguousarray(
        parts.transpose(0, 4, 6, 2, 1, 3, 5).reshape(groups * outs * down * right, ins // groups, rows, columns)
    )


def _cut(importer: Importer, node: OnnxNode, value: str, geometry: _Transposed) -> str:
    """The rows and columns behind what padding takes away; zeros where the input ends before them."""
    shape = importer.shape_of(value)
    starts, sizes = (0, 0, *geometry.before), (*shape[:2], *geometry.output)
    if shape == sizes:
        return value
    return importer.emit(node, Slice(starts=starts, steps=(1, 1, 1, 1), shape=sizes), (value,), last=False)


def _gemm(importer: Importer, node: OnnxNode) -> None:
    """alpha * x * w + beta * bias, alpha and beta folded into the constants where there are such."""
    node.require(2, 3)
    alpha, beta = node.attributes.number("alpha", 1.0), node.attributes.number("beta", 1.0)
    first = bool(node.attributes.integer("transA", 0, low=0, high=1))
    second = bool(node.attributes.integer("transB", 0, low=0, high=1))
    for position in range(2):
        if len(importer.shape(node, position)) != 2:
            what = ("input", "weight")[position]
            raise FrontendError(f"{what} must have rank 2, not shape {list(importer.shape(node, position))}")
    outs = importer.shape(node, 1)[0 if second else 1]
    if first or not importer.is_static(node, 1) or (node.has(2) and not _is_vector(importer, node, outs)):
        _general_gemm(importer, node, alpha, beta, (first, second))
        return
    scaled = importer.weights(node, 1).astype(np.float64) * alpha
    scale = importer.weight_scale(node, 1, 0 if second else 1)
    scale = None if scale is None or not alpha else scale * np.float32(abs(alpha))
    rows = as_float32(scaled if second else scaled.T, "scaled weight")
    w = importer.constant(rows, f"{node.inputs[1]}.rows", scale=scale)
    parameters = [w]
    if node.has(2):
        full = np.broadcast_to(importer.weights(node, 2).reshape(-1), (outs,)).astype(np.float64) * beta
        parameters.append(importer.constant(as_float32(full, "scaled bias"), f"{node.inputs[2]}.scaled"))
    importer.emit(node, Dense(), (importer.value(node, 0), *parameters))


def _is_vector(importer: Importer, node: OnnxNode, outs: int) -> bool:
    """Whether the bias is known and has one value for each output."""
    shape = importer.shape(node, 2)
    return importer.is_static(node, 2) and shape in ((), (1,), (outs,), (1, outs), (1, 1))


def _general_gemm(importer: Importer, node: OnnxNode, alpha: float, beta: float, transposed: tuple[bool, bool]) -> None:
    operands = []
    for position in range(2):
        value = importer.value(node, position)
        if transposed[position]:
            value = importer.emit(node, Transpose(order=(1, 0)), (value,), last=False)
        operands.append(value)
    ends = not node.has(2)
    value = importer.emit(node, MatMul(), (operands[0], operands[1]), last=ends and alpha == 1)
    if alpha != 1:
        value = importer.emit(node, Pointwise(function="scale", parameters=(alpha,)), (value,), last=ends)
    if not ends:
        bias = importer.value(node, 2)
        if beta != 1:
            bias = importer.emit(node, Pointwise(function="scale", parameters=(beta,)), (bias,), last=False)
        importer.emit(node, Add(), (value, bias))


def _matmul(importer: Importer, node: OnnxNode) -> None:
    node.require(2, 2)
    a, b = importer.shape(node, 0), importer.shape(node, 1)
    if not a or not b:
        raise FrontendError(f"operands must have rank 1 or more, not shapes {list(a)} and {list(b)}")
    scale = importer.weight_scale(node, 1, len(b) - 1) if len(b) > 1 else None
    if importer.is_static(node, 1) and len(a) > 1 and (len(a) == len(b) == 2 or (scale is not None and _is_one(b))):
        _dense(importer, node, scale)
        return
    left, right = importer.value(node, 0), importer.value(node, 1)
    if len(a) == 1:
        left = importer.emit(node, Reshape(shape=(1, *a)), (left,), last=False)
    if len(b) == 1:
        right = importer.emit(node, Reshape(shape=(*b, 1)), (right,), last=False)
    vectors = len(a) == 1 or len(b) == 1
    value = importer.emit(node, MatMul(), (left, right), last=not vectors)
    if vectors:
        *batch, rows, columns = importer.shape_of(value)
        shape = (*batch, *([rows] if len(a) > 1 else []), *([columns] if len(b) > 1 else []))
        importer.emit(node, Reshape(shape=shape), (value,))


def _is_one(shape: tuple[int, ...]) -> bool:
    """Whether a constant of that shape is one matrix."""
    return math.prod(shape[:-2]) == 1


def _dense(importer: Importer, node: OnnxNode, scale: NDArray[np.float32] | None) -> None:
    """The product with one constant matrix, whose columns have those scales if they are given as integers."""
    *rows, ins = importer.shape(node, 0)
    *more, _, outs = importer.shape(node, 1)
    transposed = np.ascontiguousarray(importer.weights(node, 1).reshape(-1, outs).T)
    w, x = importer.constant(transposed, f"{node.inputs[1]}.rows", scale=scale), importer.value(node, 0)
    shape = (*[1] * (len(more) + 1 - len(rows)), *rows, outs)
    if len(shape) == 2:
        importer.emit(node, Dense(), (x, w))
        return
    x = importer.emit(node, Reshape(shape=(math.prod(rows), ins)), (x,), last=False)
    importer.emit(node, Reshape(shape=shape), (importer.emit(node, Dense(), (x, w), last=False),))


def _batch_norm(importer: Importer, node: OnnxNode) -> None:
    node.require(5, 5)
    node.attributes.number("momentum", 0.9)
    if node.attributes.integer("training_mode", 0):
        raise FrontendError("attribute 'training_mode' must be 0, not 1")
    epsilon = node.attributes.number("epsilon", 1e-5)
    known = importer.is_static(node, 4)
    if known and (importer.weights(node, 4).astype(np.float64) + epsilon).min(initial=1.0) <= 0:
        raise FrontendError("variance plus epsilon must be positive")
    importer.emit(node, BatchNorm(epsilon=epsilon), tuple(importer.value(node, position) for position in range(5)))


LINEAR: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "MatMul": _matmul,
    }
)
