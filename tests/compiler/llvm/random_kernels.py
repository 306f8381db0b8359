"""Random kernels of the CPU: what graphs of one op, of random shapes and attributes, are compiled to.

`random_case(op, seed)` is always the same. `check` runs its kernels between inaccessible pages, as compiled for a
machine, and compares every bit with what the interpreter makes of their definitions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.driver import Target as CompilerTarget
from compiler.driver import compile_graph
from compiler.graph.ir import Graph, Node, Op
from compiler.graph.layout import Layout
from compiler.graph.ops.along import Normalize, Reduce, Resample
from compiler.graph.ops.conv import ChannelMatMul, Dense, MatMul
from compiler.graph.ops.elementwise import BatchNorm, Cast, Identity, Pointwise
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.fused import FusedAdd, FusedConv
from compiler.graph.ops.interleave import Interleave
from compiler.graph.ops.move import ChannelTranspose, Concat, Expand, Pad, Slice, Take, Transpose
from compiler.graph.ops.pool import AveragePool, GlobalAveragePool, MaxPool
from compiler.graph.ops.qconv import IntegerConv, QConv2d
from compiler.graph.ops.qelementwise import (
    Dequantize,
    QAdd,
    QExtreme,
    QMul,
    Quantize,
    RescaledAdd,
    RescaledMul,
)
from compiler.graph.ops.qmatmul import QMatMul, RescaledMatMul
from compiler.graph.ops.qpool import QAvgPool2d, QMaxPool2d, RescaledAvgPool2d
from compiler.graph.ops.rescaled import RescaledConv2d
from compiler.graph.ops.softmax import Softmax
from compiler.graph.ops.unfold import Unfold
from compiler.graph.ops.upsample import QInterpolate, Repeat
from compiler.llvm.codegen import ALIGNMENT, define
from compiler.llvm.emitter import Globals
from compiler.llvm.jit import Description, NativeRun
from compiler.llvm.module import ENTRY
from compiler.llvm.steps import SerialStep, native_steps, scheduled
from compiler.llvm.target import Target, emit_object
from compiler.llvm.team import Team, processors
from compiler.tensor import define_host, interp
from compiler.tensor.arguments import Parameter, Signature, written
from compiler.tensor.define_blocked import matmul
from compiler.tensor.define_float import Reduction
from compiler.tensor.functions import FUNCTIONS
from compiler.tensor.ir import NUMBERS, Alloc, Body, Buffer, Const, DType, For, If, Mapped, Proc, constant
from compiler.tensor.serial import from_json, to_json
from tests.compiler.graph.test_ops_host import PARAMETERS
from tests.compiler.llvm import test_blocked, test_matmul
from tests.compiler.llvm.guarded import Guarded, GuardedTeam, Place, paged
from tests.compiler.llvm.isolated import Say
from tests.compiler.tensor.random_procs import random_array, random_proc
from tests.differential import LAID_OUT, laid_out
from tests.random_layers import (
    Draw,
    Shape,
    add,
    attention,
    convolution,
    extreme,
    gate,
    given,
    movements,
    pool,
    random_pooling_window,
    random_window,
)
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Host, Program

Array = np.ndarray[Any, Any]
Outputs = str | tuple[str, ...]

FILLS = {Place.END: 0xA5, Place.START: 0x5A}
"""What scratch memory holds at first: results must not depend on it."""
MOST_STEPS = 25_000
"""Statements that the kernels of a case run: what the interpreter has done in a quarter of a second."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A definition, and what its parameters hold before it runs."""

    proc: Proc
    arrays: tuple[Array, ...]

    def __str__(self) -> str:
        parameters = (f"{p.name} {p.type.value}{list(p.static_shape)}" for p in self.proc.params)
        return f"{self.proc.name}({', '.join(parameters)})"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Kernels that run one after the other, on arrays of their own.

    apart: each also runs alone, with every buffer that it allocates between pages, and none on the stack.
    """

    kernels: tuple[Kernel, ...]
    target: Target
    threads: int
    apart: bool


# -- graphs


class Rows(Draw):
    """Images whose rows are often longer than what registers hold, beside small ones."""

    def shape(self) -> Shape:
        r = self.r
        if r.random() < 0.3:
            return super().shape()
        channels = self.channels([1, 2, 3, 4, 5, 8, 15, 16, 17, 20, 31, 32, 33])
        size = r.randint(1, 5), r.choice([1, 2, 3, 7, 8, 9, 13, 15, 16, 17, 29, 33])
        return r.choice([1, 1, 2, 3]), channels, *(size if r.random() < 0.8 else size[::-1])

    def floats(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def numbers(self, dtype: DType, *shape: int) -> Array:
        return random_array(self.rng, Buffer.of("x", dtype, shape))

    def extents(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Of a tensor of one of these ranks."""
        rank = self.r.choice(ranks)
        return tuple(self.r.choice([1, 2, 3, 7, 8, 16, 17, 33, *([67, 130] if rank < 3 else [])]) for _ in range(rank))


def _bounds(d: Rows) -> dict[str, float]:
    return {"lo": d.r.choice((-math.inf, 0.0, -1.0)), "hi": d.r.choice((math.inf, 1.0, 6.0))}


def _fused_conv(groups: Callable[[Rows, int], tuple[int, int, int]]) -> Callable[[Rows], Outputs]:
    """groups: input channels, output channels and groups, of an image that would have so many channels."""

    def make(d: Rows) -> str:
        images, channels, *size = d.shape()
        ins, outs, count = groups(d, channels)
        shape = images, ins, size[0], size[1]
        window = random_window(d, shape)
        weights = outs, ins // count, *window.kernel
        attributes = {name: getattr(window, name) for name in ("stride", "padding", "dilation")}
        operands = [d.input(shape), d.constant(d.floats(*weights)), d.constant(d.floats(outs))]
        if d.r.random() < 0.4:
            operands.append(d.input((images, outs, *window.output(*size))))
        return d.apply(FusedConv(**attributes, **_bounds(d), groups=count), *operands)

    return make


def _dense_groups(d: Rows, channels: int) -> tuple[int, int, int]:
    return channels, d.r.choice([1, 3, 4, 16, 17, 33, 48, 64]), 1


def _depthwise_groups(d: Rows, channels: int) -> tuple[int, int, int]:
    return channels, channels * d.r.choice([1, 1, 1, 2]), channels


def _some_groups(d: Rows, _: int) -> tuple[int, int, int]:
    count = d.r.choice([2, 3, 4])
    return count * d.r.choice([1, 2, 5, 8, 16]), count * d.r.choice([1, 3, 8, 16]), count


def _pool(op: type[MaxPool | AveragePool], dtypes: Sequence[DType]) -> Callable[[Rows], Outputs]:
    def make(d: Rows) -> str:
        shape = d.shape()
        window = random_pooling_window(d, shape, dilated=True)
        attributes = {name: getattr(window, name) for name in ("kernel", "stride", "padding", "dilation")}
        if op is AveragePool:
            attributes["count_include_pad"] = d.r.random() < 0.5
        return d.apply(op(**attributes), d.input(shape, d.r.choice(dtypes)))

    return make


def _global_pool(d: Rows) -> str:
    return d.apply(GlobalAveragePool(), d.input(d.shape(), DType.FLOAT32))


def _fused_add(d: Rows) -> str:
    shape = d.shape()
    operands = [d.input(shape, DType.FLOAT32) for _ in range(d.r.randint(1, 2))]
    return d.apply(FusedAdd(**_bounds(d)), *operands)


def _dense(d: Rows) -> str:
    """With weights that are constant, or are computed."""
    rows, ins, outs = d.r.choice([1, 2, 7, 8, 9, 20]), *(d.r.choice([1, 3, 15, 16, 17, 33, 50]) for _ in range(2))
    x = d.input((rows, ins), DType.FLOAT32)
    w = d.constant(d.floats(outs, ins)) if d.r.random() < 0.6 else d.input((outs, ins), DType.FLOAT32)
    return d.apply(Dense(), x, w, *([d.constant(d.floats(outs))] if d.r.random() < 0.5 else []))


def _matmul(d: Rows) -> str:
    m = test_matmul.random_matrices(d.r)
    if m.b == () and d.r.random() < 0.5:
        right = d.constant(d.floats(m.inner, m.columns))
    else:
        right = d.input((*m.b, m.inner, m.columns), DType.FLOAT32)
    return d.apply(MatMul(), d.input((*m.a, m.rows, m.inner), DType.FLOAT32), right)


def _channel_matmul(d: Rows) -> str:
    images, channels, *size = d.shape()
    groups = d.r.choice([count for count in (1, 2, 3, 4) if channels % count == 0])
    x = d.input((images, channels, *size), DType.FLOAT32)
    w = d.input((images, channels, d.r.randint(1, 3), d.r.choice([1, 5, 8, 16, 17])), DType.FLOAT32)
    return d.apply(ChannelMatMul(groups=groups, scale=d.r.choice([1.0, 0.25])), x, w)


def _along(make: Callable[[Rows, int, int], Op], dtypes: Sequence[DType]) -> Callable[[Rows], Outputs]:
    def apply(d: Rows) -> str:
        shape = d.extents((1, 2, 3, 4))
        first = d.r.randrange(len(shape))
        return d.apply(make(d, first, d.r.randint(first + 1, len(shape))), d.input(shape, d.r.choice(dtypes)))

    return apply


def _resample(d: Rows) -> str:
    shape = d.extents((1, 2, 3, 4))
    axis, count, taps = d.r.randrange(len(shape)), d.r.choice([1, 2, 7, 16, 17]), d.r.randint(1, 4)
    indices = d.rng.integers(0, shape[axis], (count, taps)).astype(np.int32)
    parameters = d.constant(indices), d.constant(d.floats(count, taps))
    return d.apply(Resample(axis=axis), d.input(shape, DType.FLOAT32), *parameters)


def _pointwise(d: Rows) -> str:
    """A function of operands that broadcast to each other."""
    name = d.r.choice([*FUNCTIONS])
    function = FUNCTIONS[name]
    dtype = d.r.choice([DType.FLOAT32, *NUMBERS]) if function.numbers else DType.FLOAT32
    shape = d.extents((0, 1, 2, 3, 4))
    operands = []
    for _ in range(function.operands or d.r.randint(1, 4)):
        own = tuple(d.r.choice([extent, extent, 1]) for extent in shape)[d.r.choice([0, 0, 0, len(shape) // 2]) :]
        operands.append(d.constant(d.numbers(dtype, *own)) if d.r.random() < 0.1 else d.input(own, dtype))
    if not d.inputs:
        operands[0] = d.input(shape, dtype)
    return d.apply(Pointwise(function=name, parameters=PARAMETERS.get(name, ())), *operands)


def _cast(d: Rows) -> str:
    source, target = (d.r.choice([*DType]) for _ in range(2))
    return d.apply(Cast(dtype=target), d.input(d.extents((0, 1, 2, 3)), source))


def _batch_norm(d: Rows) -> str:
    shape = d.shape()
    parameters = [d.input((shape[1],), DType.FLOAT32) for _ in range(4)]
    return d.apply(BatchNorm(), d.input(shape, DType.FLOAT32), *parameters)


def _copy(d: Rows) -> str:
    return d.apply(Identity(), d.input(d.extents((0, 1, 2, 3)), d.r.choice([*DType])))


def _transpose(d: Rows) -> str:
    shape = d.extents((1, 2, 2, 3, 3, 4, 5))
    return d.apply(Transpose(order=tuple(d.r.sample(range(len(shape)), len(shape)))), _any(d, shape))


def _channel_transpose(d: Rows) -> str:
    shape = d.shape()
    groups = d.r.choice([count for count in (1, 2, 3, 4) if shape[1] % count == 0])
    return d.apply(ChannelTranspose(groups=groups), _any(d, shape))


def _slice(d: Rows) -> str:
    shape = d.extents((1, 2, 3, 4))
    starts, steps, counts = [], [], []
    for extent in shape:
        step, start = d.r.choice([1, 1, 2, 3, -1, -2]), d.r.randrange(extent)
        most = (extent - 1 - start) // step + 1 if step > 0 else start // -step + 1
        starts.append(start)
        steps.append(step)
        counts.append(d.r.choice([most, most, d.r.randint(1, most)]))
    return d.apply(Slice(starts=tuple(starts), steps=tuple(steps), shape=tuple(counts)), _any(d, shape))


def _pad(d: Rows) -> str:
    shape, dtype = d.extents((1, 2, 3, 4)), _any_type(d)
    before, after = (tuple(d.r.choice([0, 0, 1, 3]) for _ in shape) for _ in range(2))
    value = d.r.choice([0.0, 1.0, -5.0 if dtype.is_float or dtype.limits[0] < 0 else 1.0])
    return d.apply(Pad(before=before, after=after, value=value), d.input(shape, dtype))


def _concat(d: Rows) -> str:
    shape, dtype = d.extents((1, 2, 3, 4)), _any_type(d)
    axis = d.r.randrange(len(shape))
    parts = [(*shape[:axis], d.r.choice([1, 2, 7, 16, 17]), *shape[axis + 1 :]) for _ in range(d.r.randint(1, 4))]
    return d.apply(Concat(axis=axis), *(d.input(part, dtype) for part in parts))


def _expand(d: Rows) -> str:
    shape = d.extents((1, 2, 3, 4))
    own = tuple(d.r.choice([extent, 1]) for extent in shape)[d.r.choice([0, 0, len(shape) // 2]) :]
    return d.apply(Expand(shape=shape), _any(d, own))


def _take(d: Rows) -> str:
    shape = d.extents((1, 2, 3, 4))
    axis = d.r.randrange(len(shape))
    indices = tuple(d.r.randrange(shape[axis]) for _ in range(d.r.choice([1, 2, 7, 16, 17])))
    return d.apply(Take(axis=axis, indices=indices), _any(d, shape))


def _repeat(d: Rows) -> str:
    return d.apply(Repeat(factors=d.pair([1, 2, 3])), _any(d, d.shape()))


def _interleave(d: Rows) -> str:
    images, channels, height, width = d.shape()
    factors = d.pair([1, 2, 3])
    starts = d.r.randrange(factors[0]), d.r.randrange(factors[1])
    size = height * factors[0] - starts[0], width * factors[1] - starts[1]
    groups = d.r.choice([count for count in (1, 2, 3) if channels % count == 0])
    x = d.input((images, channels * factors[0] * factors[1], height, width))
    return d.apply(Interleave(factors=factors, size=size, starts=starts, groups=groups), x)


def _any_type(d: Rows) -> DType:
    return d.r.choice([DType.FLOAT32, DType.INT8, *DType])


def _any(d: Rows, shape: tuple[int, ...]) -> str:
    return d.input(shape, _any_type(d))


def _quantize(d: Rows) -> str:
    scale = d.r.choice([None, 0.25])
    zero_point = d.r.choice([0, 0, 3, -128])
    low, high = d.limits
    op = Quantize(
        inv_scale=d.r.choice([4.0, 0.5, float(np.float32(0.1))]), lo=d.r.choice([low, 0]), hi=high, dtype=d.dtype,
        scale=scale, zero_point=zero_point,
    )  # fmt: skip
    y = d.apply(op, d.input(d.shape(), DType.FLOAT32))
    return d.apply(QMaxPool2d(kernel=(1, 1)), y) if d.r.random() < 0.5 else y  # which reads blocks of channels


def _dequantize(d: Rows) -> str:
    op = Dequantize(scale=d.r.choice([0.25, float(np.float32(0.1))]), zero_point=d.r.choice([0, 0, 3, -128]))
    return d.apply(op, d.input(d.shape()))


def _unfold(d: Rows) -> str:
    shape = d.shape()
    kernel = d.pair([1, 2, 3])
    attributes = {"stride": d.pair([1, 2, 3]), "origin": d.pair([0, 1, 2]), "size": d.pair([1, 2, 5, 9])}
    return d.apply(Unfold(kernel=kernel, **attributes, value=d.r.choice([0, -7])), d.input(shape))


def _made(make: Callable[[Rows], Outputs], *kinds: type[Op]) -> Callable[[Rows], Outputs]:
    """What `make` draws, if that has an op of one of these kinds; else nothing."""

    def only(d: Rows) -> Outputs:
        outputs = make(d)
        return outputs if any(isinstance(node.op, kinds) for node in d.nodes) else ()

    return only


def _convolved(
    kind: type[IntegerConv], fits: Callable[[int, int], bool] = lambda ins, groups: True
) -> Callable[[Rows], Outputs]:
    """Convolutions of one kind; some read what is not negative, and some have weights at both ends of their type.

    fits: whether those of so many channels and groups are meant.
    """

    def make(d: Rows) -> Outputs:
        y = (given if kind is ExactConv2d else convolution)(d)
        (node, *_) = [node for node in d.nodes if isinstance(node.op, kind)] or [None]
        if node is None or not fits(d.inputs[0].type.shape[1], node.op.groups):
            return ()
        if d.r.random() < 0.3:
            w = d.constants[node.inputs[1]]
            ends = np.array(DType(w.dtype.name).limits, w.dtype)
            d.constants[node.inputs[1]] = d.rng.choice(ends, w.shape)
        if d.r.random() < 0.5:
            low, high = d.r.choice([(0, d.limits[1]), (0, 90), (-5, 99)])
            relu = Node(op=QAdd(m0=1, lo=low, hi=high), inputs=node.inputs[:1], output="clipped", name="clipped")
            d.nodes[d.nodes.index(node)] = replace(node, inputs=("clipped", *node.inputs[1:]))
            d.nodes.insert(0, relu)
        return y

    return make


def _attention(d: Rows) -> Outputs:
    return attention(d, 16)


def _movements(d: Rows) -> Outputs:
    return movements(d, 16)


FLOATS: Mapping[str, Callable[[Rows], Outputs]] = {
    "conv": _fused_conv(_dense_groups),
    "depthwise_conv": _fused_conv(_depthwise_groups),
    "grouped_conv": _fused_conv(_some_groups),
    "max_pool": _pool(MaxPool, (DType.FLOAT32,)),
    "max_pool_of_numbers": _pool(MaxPool, NUMBERS),
    "average_pool": _pool(AveragePool, (DType.FLOAT32,)),
    "global_average_pool": _global_pool,
    "fused_add": _fused_add,
    "dense": _dense,
    "matmul": _matmul,
    "channel_matmul": _channel_matmul,
    "softmax": _along(lambda d, first, last: Softmax(axis=first), (DType.FLOAT32,)),
    "normalize": _along(lambda d, first, last: Normalize(first=first, last=last), (DType.FLOAT32,)),
    "mean": _along(lambda d, first, last: Reduce(reduction=Reduction.MEAN, first=first, last=last), (DType.FLOAT32,)),
    "reduce": _along(
        lambda d, first, last: Reduce(
            reduction=d.r.choice([Reduction.SUM, Reduction.MAX, Reduction.MIN]), first=first, last=last
        ),
        NUMBERS,
    ),
    "resample": _resample,
    "pointwise": _pointwise,
    "cast": _cast,
    "batch_norm": _batch_norm,
    "copy": _copy,
    "transpose": _transpose,
    "channel_transpose": _channel_transpose,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "expand": _expand,
    "take": _take,
    "repeat": _repeat,
}
"""Graphs that are not quantised: float32, and numbers of any type."""

QUANTISED: Mapping[str, Callable[[Rows], Outputs]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "unfold": _unfold,
    "interleave": _interleave,
    "qconv2d": _convolved(QConv2d, lambda ins, groups: groups == 1 and ins > 4),
    "qconv2d_of_an_image": _convolved(QConv2d, lambda ins, groups: groups == 1 and ins <= 4),
    "qconv2d_depthwise": _convolved(QConv2d, lambda ins, groups: groups == ins > 1),
    "qconv2d_grouped": _convolved(QConv2d, lambda ins, groups: 1 < groups < ins),
    "rescaled_conv2d": _convolved(RescaledConv2d),
    "exact_conv2d": _convolved(ExactConv2d),
    "qadd": _made(lambda d: (add if d.r.random() < 0.5 else given)(d), QAdd),
    "rescaled_add": _made(add, RescaledAdd),
    "qmul": _made(lambda d: (gate if d.r.random() < 0.5 else given)(d), QMul),
    "rescaled_mul": _made(lambda d: (gate if d.r.random() < 0.5 else given)(d), RescaledMul),
    "qextreme": extreme,
    "qextreme_bend": _made(given, QExtreme),
    "qmatmul": _made(_attention, QMatMul),
    "rescaled_matmul": _made(_attention, RescaledMatMul),
    "qmax_pool2d": _made(pool, QMaxPool2d),
    "qavg_pool2d": _made(lambda d: (pool if d.r.random() < 0.5 else given)(d), QAvgPool2d),
    "rescaled_avg_pool2d": _made(lambda d: (pool if d.r.random() < 0.5 else given)(d), RescaledAvgPool2d),
    "qinterpolate": _made(_movements, QInterpolate),
    "movements": _made(_movements, Concat, Slice, Pad, Transpose, Interleave, Repeat),
}
"""Graphs of integers of 8 bits, or of 16, that stand for reals."""


def _is_extended(op: str) -> bool:
    return op.startswith("rescaled")


def _graph_kernels(op: str, r: random.Random, rng: np.random.Generator) -> list[Kernel]:
    """The kernels of a graph, nothing if it is none of that op."""
    bits = r.choice([8, 8, 8, 16]) if op in QUANTISED and "matmul" not in op and "interpolate" not in op else 8
    d = Rows(r, rng, inp_bits=bits, extended=_is_extended(op))
    if op in FLOATS:
        d = _FloatRows(r, rng)
    outputs = (FLOATS | QUANTISED)[op](d)
    if not outputs:
        return []
    graph = d.graph(*((outputs,) if isinstance(outputs, str) else outputs))
    config = VTAConfig(isa="extended" if _is_extended(op) else "tvm")
    if bits == 16:
        config = replace(config, log_inp_width=4, log_inp_buff_size=config.log_inp_buff_size + 1)
    if op in FLOATS:
        graph = _in_blocks(graph, r)
    elif r.random() < LAID_OUT:
        graph = laid_out(graph, config)
    program = compile_graph(graph, config, target=CompilerTarget.CPU)
    wild = r.choice((0.0, 0.0, 0.03, 0.5)), r.random() < 0.25
    return [_kernel(program, step, rng, *wild) for step in program.steps if isinstance(step, Host)]


class _FloatRows(Rows):
    @property
    def dtype(self) -> DType:
        return DType.FLOAT32


def _in_blocks(graph: Graph, r: random.Random) -> Graph:
    """Some of the images that come in lie in blocks of channels, which for convolutions may be of any width."""
    layouts = {}
    for value in graph.inputs:
        if len(value.type.shape) == 4 and value.type.dtype is DType.FLOAT32 and r.random() < 0.5:
            layouts[value.name] = Layout(1, 16)
    first = graph.nodes[0]
    if isinstance(first.op, FusedConv) and first.inputs[0] in layouts:
        layouts[first.inputs[0]] = Layout(1, r.choice([16, 16, 4, 5]))
    return replace(graph, layouts=layouts)


def _kernel(program: Program, step: Host, rng: np.random.Generator, wild: float, extremes: bool) -> Kernel:
    """A step, with its constants; what it reads else holds random numbers."""
    contents = {segment.address: segment.data for segment in program.segments}
    buffers = {buffer.name: buffer for buffer in program.buffers}
    proc = from_json(dict(step.proc))
    arrays = []
    for parameter, name in zip(proc.params, step.buffers, strict=True):
        data = contents.get(buffers[name].address) if buffers[name].role.value == "constant" else None
        if data is None:
            arrays.append(_contents(rng, parameter, wild, extremes))
        else:
            arrays.append(np.frombuffer(data, parameter.type.numpy).reshape(parameter.static_shape))
    return Kernel(proc=proc, arrays=tuple(arrays))


def _contents(rng: np.random.Generator, parameter: Buffer, wild: float, extremes: bool) -> Array:
    """wild: the share of floats that may be any, not finite ones too. extremes: integers are the ends of their type."""
    array = random_array(rng, parameter)
    if parameter.type.is_float:
        plain = rng.standard_normal(parameter.static_shape).astype(parameter.type.numpy)
        return np.where(rng.random(parameter.static_shape) < wild, array, plain)
    if extremes and parameter.type.bits <= 16 and parameter.type.is_integer:
        ends = np.array(parameter.limits or parameter.type.limits, parameter.type.numpy)
        return rng.choice(ends, parameter.static_shape)
    return array


# -- definitions that no graph needs to be made for


def _relayout(r: random.Random, rng: np.random.Generator) -> Proc:
    shape = Rows(r, rng).shape()
    images = r.choice([1, 1, 2])
    tiles = [(1, 1), *((images, c) for c in r.sample([1, 3, 4, 8, 16, 16, 32], 2))]
    source, target = r.sample(tiles, 2)
    dtype = r.choice([DType.INT8, DType.INT16, DType.FLOAT32])
    return define_host.relayout("relayout", shape, source, target, dtype=dtype)


DEFINITIONS: Mapping[str, Callable[[random.Random, np.random.Generator], Proc]] = {
    "blocked": lambda r, rng: test_blocked.random_proc(r.randrange(1 << 30)),
    "matrices": lambda r, rng: matmul("product", test_matmul.random_matrices(r)),
    "relayout": _relayout,
    "procedures": lambda r, rng: random_proc(rng),
}

OPS = (*FLOATS, *QUANTISED, *DEFINITIONS)
"""The names of all."""


# -- cases


def random_case(op: str, seed: int) -> Case:
    """Kernels of one of `OPS`; some for another machine than this one, that this one can run, some for two threads."""
    r = random.Random(f"{op} {seed}")
    rng = np.random.default_rng([seed, *op.encode()])
    options = random.Random(f"options of {op} {seed}")
    kernels: list[Kernel] = []
    while not kernels or sum(_steps(kernel.proc.body) for kernel in kernels) > MOST_STEPS:
        if op in DEFINITIONS:
            proc = DEFINITIONS[op](r, rng)
            kernels = [Kernel(proc=proc, arrays=tuple(_contents(rng, p, 0.0, False) for p in proc.params))]
        else:
            kernels = _graph_kernels(op, r, rng)
    other = Target.named("x86-64-v3")
    can = Target.host().triple.startswith("x86_64") and all(Target.host().has(each) for each in ("avx2", "fma"))
    target = other if can and options.random() < 0.3 else Target.host()
    threads = min(2, processors()) if options.random() < 0.25 else 1
    return Case(kernels=tuple(kernels), target=target, threads=threads, apart=options.random() < 0.1)


def _steps(body: Body) -> int:
    """Statements that run, those of loops that differ from time to time once."""
    total = 0
    for stmt in body:
        match stmt:
            case For():
                total += (constant(stmt.extent) if isinstance(stmt.extent, Const) else 1) * _steps(stmt.body)
            case Alloc() | If() | Mapped():
                total += _steps(stmt.body)
            case _:
                total += 1
    return total


def check(item: tuple[str, int], say: Say) -> str:
    """What is wrong with a case, by op and seed, if anything. An access outside of a buffer ends the process."""
    say("it is made")
    case = random_case(*item)
    say(f"it is interpreted: {_described(case)}")
    expected = [[array.copy() for array in kernel.arrays] for kernel in case.kernels]
    for kernel, arrays in zip(case.kernels, expected, strict=True):
        interp.run(kernel.proc, arrays)
    say(f"it is compiled: {_described(case)}")
    description, code = native_steps(_serial(case.kernels), case.target)
    for place, fill in FILLS.items():
        say(f"it runs with {place.value}: {_described(case)}")
        guards = [_guards(kernel, place) for kernel in case.kernels]
        run = NativeRun(description, code, GuardedTeam(case.threads, place, fill))
        run.bound([[guard.array for guard in each] for each in guards])({})
        for kernel, each, right in zip(case.kernels, guards, expected, strict=True):
            if problem := _difference(kernel, each, right, case.target):
                return f"{problem} with {place.value}: {_described(case)}"
    for kernel, right in zip(case.kernels, expected, strict=True) if case.apart else ():
        if problem := _check_apart(kernel, right, case.target, say):
            return problem
    return ""


def _check_apart(kernel: Kernel, expected: Sequence[Array], target: Target, say: Say) -> str:
    """The same for a kernel without buffers on the stack: each that it allocates is a parameter behind its own."""
    what = f"{kernel}, for {target.cpu}, without a stack"
    say(f"it is compiled: {what}")
    module = Globals()
    function = define(scheduled(kernel.proc, target).proc, "kernel", module, target=target, stack_buffer=0)
    sizes = [-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in function.scratch]
    code = emit_object("\n".join([function.text, _entry(len(kernel.arrays) + len(sizes)), *module.lines]), target)
    signature = Signature.of(kernel.proc)
    scratch = (
        Parameter(name=f"scratch{n}", dtype=np.dtype(np.uint8), shape=(size,), is_written=True)
        for n, size in enumerate(sizes)
    )
    signature = replace(signature, parameters=(*signature.parameters, *scratch))
    calls = ((signature, tuple(range(len(signature.parameters)))),)
    for place, fill in FILLS.items():
        say(f"it runs with {place.value}: {what}")
        guards = _guards(kernel, place)
        memory = [paged(np.full(size, fill, np.uint8), place).array for size in sizes]
        run = NativeRun(Description(calls=calls, shared=0, private=0), code, Team())
        run.bound([[*(guard.array for guard in guards), *memory]])({})
        if problem := _difference(kernel, guards, expected, target):
            return f"{problem} with {place.value}: {what}"
        for n, (array, nbytes) in enumerate(zip(memory, function.scratch, strict=True)):
            if (array[nbytes:] != fill).any():
                return f"stores behind allocated buffer {n} of {nbytes} bytes: {what}"
    return ""


def _entry(count: int) -> str:
    """An entry as `compiler.llvm.module` makes it, that calls the kernel with the first addresses of the table."""
    lines = [f"define void @{ENTRY}(ptr %buffers, ptr %scratch, i64 %thread, i64 %threads, ptr %barrier) {{"]
    for n in range(count):
        lines += [f"  %at{n} = getelementptr ptr, ptr %buffers, i64 {n}", f"  %p{n} = load ptr, ptr %at{n}"]
    arguments = ", ".join(f"ptr %p{n}" for n in range(count))
    return "\n".join([*lines, f"  call void @kernel({arguments})", "  ret void", "}"])


def _serial(kernels: Sequence[Kernel]) -> list[SerialStep]:
    """As steps that share no buffers."""
    steps, first = [], 0
    for kernel in kernels:
        behind = first + len(kernel.arrays)
        steps.append(SerialStep(name=kernel.proc.name, proc=to_json(kernel.proc), buffers=tuple(range(first, behind))))
        first = behind
    return steps


def _guards(kernel: Kernel, place: Place) -> list[Guarded]:
    stored = written(kernel.proc)
    return [
        paged(array, place, readonly=parameter.name not in stored)
        for parameter, array in zip(kernel.proc.params, kernel.arrays, strict=True)
    ]


def _difference(kernel: Kernel, guards: Sequence[Guarded], expected: Sequence[Array], target: Target) -> str:
    """From what the interpreter says, and whether the schedule has it already."""
    for n, (parameter, guard, right) in enumerate(zip(kernel.proc.params, guards, expected, strict=True)):
        if not guard.is_intact:
            return f"{kernel} stores beside {parameter.name}"
        differs = differences(guard.array, right)
        if differs.any():
            again = [array.copy() for array in kernel.arrays]
            interp.run(scheduled(kernel.proc, target).proc, again)
            whose = "schedule" if differences(again[n], right).any() else "code"
            at = tuple(int(k) for k in np.argwhere(differs)[0])
            return (
                f"{kernel}: the {whose} differs in {np.count_nonzero(differs)} of {parameter.name}, "
                f"at {at} {guard.array[at]!r} for {right[at]!r}"
            )
    return ""


def differences(found: Array, right: Array) -> Array:
    """Where bits differ. A NaN carries no information: which one an operation gives is the processor's choice."""
    differs = found.view(f"u{found.itemsize}") != right.view(f"u{right.itemsize}")
    return differs & ~(np.isnan(found) & np.isnan(right)) if right.dtype.kind == "f" else differs


def _described(case: Case) -> str:
    threads = f", {case.threads} threads" if case.threads > 1 else ""
    return f"{case.target.cpu}{threads}: {'; '.join(map(str, case.kernels))}"
