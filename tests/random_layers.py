"""Random quantised layers: every attribute that the accelerator has to get right, on tensors that are quickly done."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.graph.ir import Array, Graph, Node, Op, TensorType, Value
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.interleave import Interleave
from compiler.graph.ops.move import ChannelTranspose, Concat, Pad, Slice, Transpose
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import QAdd, QExtreme, QMul, RescaledAdd, RescaledMul
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.rescaled import RescaledConv2d, scale_word
from compiler.graph.ops.upsample import BETWEEN, QInterpolate, Repeat, phases
from compiler.graph.ops.window import Pair, Quad, Window
from compiler.tensor.ir import DType

Shape = tuple[int, int, int, int]


@dataclass
class Draw:
    """A graph that grows by random choices, for activations and weights of so many bits.

    most_channels: small tiles make very many instructions of many channels. extended: convolutions may end in REQUANT.
    """

    r: random.Random
    rng: np.random.Generator
    inp_bits: int = 8
    wgt_bits: int = 8
    most_channels: int = 33
    extended: bool = False
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    @property
    def dtype(self) -> DType:
        """Of activations; 4-bit numbers are int8 in the graph."""
        return _dtype(self.inp_bits)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest activation."""
        return -(1 << (self.inp_bits - 1)), (1 << (self.inp_bits - 1)) - 1

    def shape(self) -> Shape:
        r = self.r
        return r.choice([1, 1, 2, 3]), self.channels([1, 3, 5, 8, 16, 17, 30]), r.randint(1, 9), r.randint(1, 9)

    def channels(self, choices: list[int]) -> int:
        return self.r.choice([count for count in choices if count <= self.most_channels])

    def input(self, shape: tuple[int, ...], dtype: DType | None = None) -> str:
        """Of activations, or of numbers of another type."""
        self.inputs.append(Value(name=f"x{len(self.inputs)}", type=TensorType(shape, dtype or self.dtype)))
        return self.inputs[-1].name

    def constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def integers(self, bits: int, shape: tuple[int, ...]) -> Array:
        """Any numbers of so many bits."""
        limit = 1 << (bits - 1)
        return self.rng.integers(-limit, limit, shape).astype(_dtype(bits).numpy)

    def apply(self, op: Op, *inputs: str) -> str:
        number = len(self.nodes)
        self.nodes.append(Node(op=op, inputs=inputs, output=f"v{number}", name=f"{op.kind} {number}"))
        return self.nodes[-1].output

    def graph(self, *outputs: str) -> Graph:
        graph = Graph(
            name="random",
            inputs=tuple(self.inputs),
            outputs=outputs,
            nodes=tuple(self.nodes),
            constants=self.constants,
        )
        graph.verify()
        return graph

    def pair(self, choices: list[int]) -> Pair:
        return self.r.choice(choices), self.r.choice(choices)

    def clip(self) -> dict[str, int]:
        low, high = self.limits
        return {"lo": self.r.choice([low, low, 0, low + 3]), "hi": self.r.choice([high, high, high - high // 5])}


def _dtype(bits: int) -> DType:
    return DType.INT16 if bits == 16 else DType.INT8


def shape_of(graph: Graph, name: str) -> Shape:
    n, c, h, w = graph.types[name].shape
    return n, c, h, w


def _padding(d: Draw) -> Quad:
    """Often none, asymmetric, now and then wider than an instruction's field of four bits and than any tile."""
    top, left, bottom, right = (d.r.choice([0, 0, 1, 2, 3]) for _ in range(4))
    if d.r.random() < 0.05:
        return (*d.r.choice([(17, left), (top, 17), (5, 16)]), bottom, right)
    return d.r.choice([(0, 0, 0, 0), (top, left, bottom, right), (top, left, top, left)])


def random_window(d: Draw, shape: Shape) -> Window:
    """Fits the padded input."""
    padding, dilation = _padding(d), d.pair([1, 1, 2])
    kernel = []
    for axis in (0, 1):
        room = shape[2 + axis] + padding[axis] + padding[axis + 2]
        kernel.append(min(d.r.randint(1, 4), (room - 1) // dilation[axis] + 1))
    return Window(kernel=(kernel[0], kernel[1]), stride=d.pair([1, 1, 2, 3]), padding=padding, dilation=dilation)


def convolution(d: Draw, x: str | None = None, shape: Shape | None = None) -> str:
    """Any convolution of `x`, by default a new input, some with a residual operand."""
    shape = shape or d.shape()
    x = x or d.input(shape)
    window = random_window(d, shape)
    outs, groups = random_groups(d, shape[1], d.channels([1, 4, 7, 16, 20]))
    result = shape[0], outs, *window.output(*shape[2:])
    residual = d.input(result) if d.r.random() < 0.35 else None
    make = rescaled if d.extended and d.r.random() < 0.7 else convolve
    return make(d, x, (outs, shape[1] // groups, *window.kernel), window, residual, groups)


def random_groups(d: Draw, ins: int, outs: int) -> tuple[int, int]:
    """Output channels and groups: one group, as many as there are channels, or something between."""
    kind = d.r.choice(["dense", "dense", "dense", "depthwise", "any"])
    if kind == "dense":
        return outs, 1
    outs = ins if kind == "depthwise" else outs
    divisors = [count for count in range(1, math.gcd(ins, outs) + 1) if ins % count == 0 == outs % count]
    return outs, divisors[-1] if kind == "depthwise" else d.r.choice(divisors)


def rescaled(d: Draw, x: str, weights: Shape, window: Window, residual: str | None, groups: int = 1) -> str:
    """A convolution with random weights and scales, most of which leave results that spread over the type."""
    outs = weights[0]
    w = d.integers(d.wgt_bits, weights)
    spread = math.sqrt(w[0].size) * 2.0 ** (d.wgt_bits + d.inp_bits - 3)
    b = (d.rng.normal(0, spread, outs)).clip(-(2**31), 2**31 - 1).astype(np.int32)
    scale = np.zeros(outs, np.int32)
    for channel in range(outs):
        shift = d.r.randint(0, 63)
        factor = round(2.0 ** (d.inp_bits - 1 + shift) / spread * d.r.uniform(0.2, 1.5))
        if not 0 < factor < 1 << 24 or d.r.random() < 0.1:
            shift, factor = d.r.choice([0, 1, 23, 62, 63]), d.r.choice([0, 1, (1 << 24) - 1])
        scale[channel] = np.uint32(scale_word(factor, shift) | d.r.randrange(4) << 30).astype(np.int32)
    op = RescaledConv2d(
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=groups,
        bits=d.inp_bits,
        relu=d.r.random() < 0.5,
        r_mul=d.r.choice([1, 1, 8, -30]) if residual else 1,
    )
    operands = [x, *(d.constant(array) for array in (w, b, scale))]
    if residual:
        operands += [residual, d.constant(d.integers(d.wgt_bits, (outs,)))]
    return d.apply(op, *operands)


def convolve(d: Draw, x: str, weights: Shape, window: Window, residual: str | None, groups: int = 1) -> str:
    """A convolution with random weights, whose shifts leave results that spread over the type."""
    outs = weights[0]
    w = d.integers(d.wgt_bits, weights)
    largest = 100 if d.r.random() < 0.7 else 1
    m = d.rng.integers(1, largest + 1, outs).astype(np.int32)
    pre_shift = d.r.choice([0, 0, 3]) + (8 if d.wgt_bits == 16 or d.inp_bits == 16 else 0)
    spread = math.log2(math.sqrt(w[0].size) * max(largest / 2, 1)) + d.wgt_bits - 0.9 - pre_shift
    shift = max(0, min(31, round(spread) + d.r.choice([-1, 0, 1]))) if d.r.random() < 0.95 else d.r.choice([0, 17, 31])
    b = (d.rng.normal(0, 2 << (d.inp_bits // 2), outs) * 2.0**shift).clip(-(2**31), 2**31 - 1).astype(np.int32)
    op = QConv2d(
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=groups,
        pre_shift=pre_shift,
        shift=shift,
        r_mul=d.r.choice([1, 77, -3000]) if residual else 0,
        **d.clip(),
    )
    return d.apply(op, x, *(d.constant(array) for array in (w, m, b)), *([residual] if residual else []))


def dense(d: Draw) -> str:
    """A convolution of 1x1, or, as after flattening, of the whole image."""
    n, c, h, w = d.shape()
    h, w = d.r.choice([(1, 1), (1, 1), (min(h, 4), min(w, 4))])
    x = d.input((n, c, h, w))
    return convolve(d, x, (d.channels([1, 4, 10, 20, 33]), c, h, w), Window(kernel=(h, w)), None)


def attention(d: Draw, block: int) -> tuple[str, ...]:
    """A product of two activations, or of one and the result of another product, with or without exchanged channels."""
    r = d.r
    groups, images = r.choice([1, 1, 2, 3]), r.choice([1, 1, 2])
    inner = block * r.randint(1, 3) if groups > 1 else r.randint(1, 3 * block)
    positions = r.choice([(1, block), (1, 2 * block), (3, block), (block, 1)])
    x = d.input((images, groups * inner, r.randint(1, 4), r.randint(1, 9)))
    w = d.input((images, groups * inner, *positions))
    scores = _product(d, x, w, groups, inner)
    if r.random() < 0.4:
        return (scores,)
    values = d.input((images, groups * block, *positions))
    turned = d.apply(ChannelTranspose(groups=groups), values)
    return scores, _product(d, scores, turned, groups, positions[0] * positions[1])


def _product(d: Draw, x: str, w: str, groups: int, inner: int) -> str:
    """With a scale that leaves results which spread over the type."""
    spread = math.sqrt(inner) * 2.0 ** (d.inp_bits + d.wgt_bits - 4)
    if d.extended and d.r.random() < 0.7:
        shift = d.r.randint(12, 24)
        factor = min(max(1, round(2.0 ** (d.inp_bits - 1 + shift) / spread * d.r.uniform(0.2, 1.5))), (1 << 24) - 1)
        return d.apply(RescaledMatMul(groups=groups, scale=scale_word(factor, shift), bits=d.inp_bits), x, w)
    mul, pre_shift = d.r.choice([1, 3, 100, -5]), d.r.choice([0, 0, 4])
    shift = max(0, round(math.log2(spread * abs(mul))) - pre_shift - d.inp_bits + d.r.choice([1, 2]))
    bias = d.r.choice([0, 1 << max(shift - 1, 0), -32767]) if shift < 15 else 77
    return d.apply(
        QMatMul(groups=groups, pre_shift=pre_shift, mul=mul, bias=bias, shift=shift, **d.clip()), x, w
    )


def gate(d: Draw) -> str:
    """The product of two activations element by element, or with one number for each channel."""
    shape = d.shape()
    other = shape if d.r.random() < 0.5 else (*shape[:2], 1, 1)
    if d.extended and d.r.random() < 0.4:
        shift = d.r.randint(20, 30)
        scale = scale_word(round((1 << shift) * d.r.uniform(0.001, 0.012)), shift)
        rescaled = RescaledMul(scale=scale, bits=d.inp_bits, relu=d.r.random() < 0.5)
        return d.apply(rescaled, d.input(shape), d.input(other))
    mul, shift = d.r.choice([(1, 7), (-3, 8), (900, 17), (32767, 22)])
    bias = d.r.choice([0, 64, -32767])
    return d.apply(QMul(mul=mul, bias=bias, shift=shift, **d.clip()), d.input(shape), d.input(other))


def extreme(d: Draw) -> str:
    """The larger or smaller of two multiples: of two activations, of one, or of one with a factor for each channel."""
    r, shape = d.r, d.shape()
    operands = [d.input(shape)]
    least, m0, m1 = r.random() < 0.5, r.choice([1, 55, 3000]), r.choice([None, 1, -7, 0, 55, 300])
    largest = max(m0, abs(m1) if m1 is not None else 200)
    if m1 is None:
        operands.append(d.constant(d.rng.integers(-200, 200, shape[1]).astype(np.int32)))
    elif r.random() < 0.6:
        operands.append(d.input(shape))
    shift = largest.bit_length() - r.choice([0, 1])
    bias = r.choice([0, 32, -5 << shift, 32767 if shift > 8 else 1])
    return d.apply(QExtreme(m0=m0, m1=m1, bias=bias, shift=shift, least=least, **d.clip()), *operands)


def given(d: Draw) -> str:
    """What the integers of a quantised model ask for: factors that are no immediates, zero points, borders."""
    r, shape, bits = d.r, d.shape(), d.inp_bits
    x, shift = d.input(shape), r.randint(29 - bits, 30 - bits)
    near = round((1 << shift) * r.uniform(0.2, 1.5))
    zero_points = r.choice([0, d.limits[0], 5, -3]), r.choice([0, d.limits[0], -7])
    match r.choice(["conv", "conv", "add", "mul", "mean", "bend", "border"]):
        case "add":
            m1 = r.choice([0, near // 3, -near])
            others = [d.input(shape)] if m1 else []
            return d.apply(QAdd(m0=near, m1=m1, bias=1 << (shift - 1), shift=shift, **d.clip()), x, *others)
        case "mul":
            other = shape if r.random() < 0.5 else (*shape[:2], 1, 1)
            if d.extended:
                scale = scale_word(near >> max(shift - 22, 0), 22 + bits)
                rescaled = RescaledMul(scale=scale, bits=bits, zero_point=r.choice([0, -8]), zero_points=zero_points)
                return d.apply(rescaled, x, d.input(other))
            op = QMul(mul=near >> bits + 2, bias=r.choice([-5, 1 << (shift - 1)]), shift=shift, **d.clip(),
                      zero_points=zero_points)
            return d.apply(op, x, d.input(other))
        case "mean":
            window = random_pooling_window(d, shape, dilated=False)
            attributes = {name: getattr(window, name) for name in ("kernel", "stride", "padding")}
            if d.extended:
                scale = scale_word(near >> max(shift - 20, 0), 23)
                averaged = RescaledAvgPool2d(**attributes, scale=scale, bits=bits, zero_point=r.choice([0, 7]), bias=77)
                return d.apply(averaged, x)
            mean = QAvgPool2d(**attributes, mul=near >> 3, bias=1 << (shift - 1), shift=shift, **d.clip())
            return d.apply(mean, x)
        case "bend":
            m0, m1 = r.choice([(1, -1), (300, 30), (-7, 55)])
            op = QExtreme(m0=m0, m1=m1, bias=9, shift=max(abs(m0), abs(m1)).bit_length(), least=r.random() < 0.5,
                          zero_points=zero_points, **d.clip())
            return d.apply(op, x, *([d.input(shape)] if r.random() < 0.5 else []))
        case "border":
            before, after = (r.randint(0, 2), r.randint(0, 3)), (r.randint(0, 2), r.randint(0, 1))
            kept = d.apply(QAdd(m0=1, **d.clip()), x)
            return d.apply(Pad(before=(0, 0, *before), after=(0, 0, *after), value=float(zero_points[0])), kept)
    window = random_window(d, shape)
    outs, groups = random_groups(d, shape[1], d.channels([1, 4, 7, 16, 20]))
    w = d.integers(d.wgt_bits, (outs, shape[1] // groups, *window.kernel))
    spread = math.sqrt(w[0].size) * 2.0 ** (d.wgt_bits + bits - 3)
    reach = d.rng.integers(1, min(int(2 * spread), 1 << 30) + 2, outs).astype(np.int32)
    fine = 31 - int(reach.max()).bit_length() if r.random() < 0.8 else r.choice([0, 31])
    n = d.rng.integers(-(1 << fine) // 2, max(1, (1 << fine) // 2), outs).astype(np.int32)
    b = d.rng.integers(-(1 << shift), 1 << shift, outs).astype(np.int32)
    op = ExactConv2d(
        stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups,
        fine=fine, shift=shift if r.random() < 0.9 else r.choice([0, 31]), r_mul=0, **d.clip(),
    )
    m = d.rng.integers(1, max(2, int(2.0 ** (bits - 1 + shift) / spread)), outs).astype(np.int32)
    parameters = [d.constant(array) for array in (w, reach, m, n, b)]
    if r.random() < 0.4:
        residual = d.input((shape[0], outs, *window.output(*shape[2:])))
        return d.apply(replace(op, r_mul=r.choice([1, -near])), x, *parameters, residual)
    return d.apply(op, x, *parameters)


def pool(d: Draw, x: str | None = None, shape: Shape | None = None) -> str:
    """Largest or average of windows, each of which has an element of the input."""
    shape = shape or d.shape()
    x = x or d.input(shape)
    largest = d.r.random() < 0.5
    window = random_pooling_window(d, shape, dilated=largest)
    if largest:
        attributes = {name: getattr(window, name) for name in ("kernel", "stride", "padding", "dilation")}
        return d.apply(QMaxPool2d(**attributes), x)
    if d.extended and d.r.random() < 0.3:
        shift = d.r.randint(18, 23)
        scale = scale_word(round((1 << shift) * d.r.uniform(0.01, 0.4)), shift)
        shapes = {"kernel": window.kernel, "stride": window.stride, "padding": window.padding}
        factors = d.rng.integers(1, 9, window.output(*shape[2:])).astype(np.int32)
        operands = [x, *([d.constant(factors)] if d.r.random() < 0.5 else [])]
        rescaled = RescaledAvgPool2d(**shapes, scale=scale, bits=d.inp_bits, relu=d.r.random() < 0.5)
        return d.apply(rescaled, *operands)
    mul = d.r.choice([None, 1, 77, -5])
    shift = d.r.choice([0, 1, 2]) if mul == 1 else d.r.choice([6, 7, 8])
    scale: dict[str, Any] = {"mul": mul, "bias": d.r.choice([0, 32]), "shift": shift}
    op = QAvgPool2d(kernel=window.kernel, stride=window.stride, padding=window.padding, **scale, **d.clip())
    if mul is not None:
        return d.apply(op, x)
    factors = d.rng.integers(1, 200, window.output(*shape[2:])).astype(np.int32)
    return d.apply(op, x, d.constant(factors))


def random_pooling_window(d: Draw, shape: Shape, *, dilated: bool) -> Window:
    if d.r.random() < 0.1:
        return Window(kernel=(shape[2], shape[3]))
    while True:
        window = random_window(d, shape)
        if not dilated:
            window = replace(window, dilation=(1, 1))
        if window.covered(shape[2], shape[3]).all():
            return window


def add(d: Draw, a: str | None = None, b: str | None = None) -> str:
    """The weighted sum of two values of one shape, by default new inputs, or the rescaling of one."""
    if a is None:
        shape = d.shape()
        a = d.input(shape)
        b = d.r.choice([None, a, d.input(shape)]) if d.r.random() < 0.5 else d.input(shape)
    factors: dict[str, int] = {"m0": d.r.choice([1, 55, 3000]), "m1": d.r.choice([1, -7, 300]) if b else 0}
    shift = max(factors["m0"], abs(factors["m1"])).bit_length() - d.r.choice([0, 1])
    if d.extended and d.r.random() < 0.5:
        scale = scale_word(round((1 << 20) * d.r.uniform(0.2, 15)), shift + 20)
        rescaled = RescaledAdd(**factors, scale=scale, bits=d.inp_bits, relu=d.r.random() < 0.5)
        return d.apply(rescaled, a, *([b] if b else []))
    op = QAdd(**factors, bias=d.r.choice([0, 32, -5 << shift, 32767 if shift > 8 else 1]), shift=shift, **d.clip())
    return d.apply(op, a, *([b] if b else []))


def movements(d: Draw, block: int) -> tuple[str, ...]:
    """Channels of inputs, and of what is made of them, behind each other and cut out again, and images made larger.

    block: channels that lie in tiles of their own. Some parts consist of such, and are read elsewhere too, or twice.
    """
    r = d.r
    images, _, *size = d.shape()
    first = images, _some_channels(d, block), size[0], size[1]
    shapes: dict[str, Shape] = {d.input(first): first}

    def made(name: str) -> None:
        shapes[name] = shape_of(d.graph(name), name)

    for _ in range(r.randint(1, 3)):
        made(add(d, d.input((images, _some_channels(d, block), *size))))
    for _ in range(r.randint(2, 5)):
        x = r.choice(list(shapes))
        match r.choice(["concat", "concat", "slice", "larger", "add", "pixels"]):
            case "concat":
                alike = [name for name, shape in shapes.items() if shape[2:] == shapes[x][2:] and shape[1] < 5 * block]
                made(d.apply(Concat(axis=1), *(r.choice([x, *alike]) for _ in range(r.randint(1, 3)))))
            case "slice":
                made(d.apply(_some_of(d, shapes[x], block), x))
            case "pixels":
                made(d.apply(_pixels(d, shapes[x]), x))
            case "larger" if max(shapes[x][2:]) < 10:
                made(d.apply(_larger(d), x))
            case _:
                made(add(d, x))
    return tuple(node.output for node in d.nodes if r.random() < 0.3) or (d.nodes[-1].output,)


def _some_channels(d: Draw, block: int) -> int:
    return d.r.choice([block, block, 2 * block, d.channels([1, 3, 5, 17])])


def _some_of(d: Draw, shape: Shape, block: int) -> Slice:
    """A part of the channels, often of whole blocks."""
    channels, step = shape[1], d.r.choice([1, 1, 1, 2, -1])
    start = d.r.choice([0, (channels - 1) // block * block, d.r.randrange(channels)])
    most = (channels - 1 - start) // step + 1 if step > 0 else start // -step + 1
    count = d.r.choice([most, min(most, block), d.r.randint(1, most)])
    return Slice(starts=(0, start, 0, 0), steps=(1, step, 1, 1), shape=(shape[0], count, *shape[2:]))


def _pixels(d: Draw, shape: Shape) -> Op:
    """Rows and columns that are cut out, padded, exchanged, or come out of channels."""
    factors = d.pair([1, 2, 3])
    phases = factors[0] * factors[1]
    match d.r.choice(["cut", "cut", "padding", "exchange", "interleave"]):
        case "cut":
            starts, steps, counts = zip(*(_some_places(d, extent) for extent in shape[2:]), strict=True)
            return Slice(starts=(0, 0, *starts), steps=(1, 1, *steps), shape=(*shape[:2], *counts))
        case "padding":
            top, left, bottom, right = _padding(d)
            return Pad(before=(0, 0, top, left), after=(0, 0, bottom, right))
        case "interleave" if shape[1] % phases == 0:
            channels = shape[1] // phases
            start = d.r.randrange(factors[0]), d.r.randrange(factors[1])
            size = shape[2] * factors[0] - start[0], shape[3] * factors[1] - start[1]
            groups = d.r.choice([count for count in range(1, channels + 1) if channels % count == 0])
            return Interleave(factors=factors, size=size, starts=start, groups=groups)
        case _:
            return Transpose(order=(0, 1, 3, 2))


def _some_places(d: Draw, extent: int) -> tuple[int, int, int]:
    """Start, step and count along an axis."""
    start, step = d.r.randrange(extent), d.r.choice([1, 1, 1, 2, 3, -1, -2])
    most = (extent - 1 - start) // step + 1 if step > 0 else start // -step + 1
    return start, step, d.r.choice([most, d.r.randint(1, most)])


def _larger(d: Draw) -> Repeat | QInterpolate:
    factors = d.pair([*BETWEEN])
    largest = max(phases(factors[0]).max() * phases(factors[1]).max(), 1)
    if d.r.random() < 0.5 and d.inp_bits == 8 and largest < 1 << (d.wgt_bits - 1):
        return QInterpolate(factors=factors)
    return Repeat(factors=d.pair([1, 2, 3]))


def chain(d: Draw, layers: int) -> list[str]:
    """Layers on top of each other; some read an older value, some add two. Returns the names of all their results."""
    shape = d.shape()
    shapes: dict[str, Shape] = {d.input(shape): shape}
    made: list[str] = []
    for _ in range(layers):
        x = d.r.choice([list(shapes)[-1], list(shapes)[-1], d.r.choice(list(shapes))])
        name = _next(d, x, shapes)
        made.append(name)
        shapes[name] = shape_of(d.graph(name), name)
    return made


def _next(d: Draw, x: str, shapes: dict[str, Shape]) -> str:
    shape = shapes[x]
    rivals = [name for name, other in shapes.items() if other == shape]
    match d.r.choice(["convolution", "convolution", "pool", "add", "residual", "residual"]):
        case "convolution":
            return convolution(d, x, shape)
        case "pool":
            return pool(d, x, shape)
        case "add":
            return add(d, x, d.r.choice(rivals))
    residual = d.r.choice(rivals) if d.r.random() < 0.7 else None
    return convolve(d, x, (shape[1], shape[1], 3, 3), Window(kernel=(3, 3), padding=(1, 1, 1, 1)), residual)
