"""From a graph to a program: the one path through layouts, definitions, schedules, memory and code."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import CompileError, LoweringError
from compiler.graph.ir import Graph, Node, Place
from compiler.graph.layout import pack
from compiler.graph.limits import limits
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.ops.exact import ExactConv2d
from compiler.graph.ops.move import Concat, Slice
from compiler.graph.ops.qconv import IntegerConv, QConv2d
from compiler.graph.ops.qelementwise import QAdd, QExtreme, QMul, Quantize
from compiler.graph.ops.qpool import QAvgPool2d
from compiler.graph.ops.rescaled import ByRequant, RescaledConv2d
from compiler.graph.ops.shape import Reshape
from compiler.graph.parts import consists_of_blocks, parts
from compiler.graph.passes.partition import is_quantised
from compiler.graph.passes.pipeline import cpu_blocks, place, place_on_cpu
from compiler.graph.rewrite import first_free
from compiler.memory_plan import Lifetime, align, plan
from compiler.tensor import define_host
from compiler.tensor.ir import Proc, Scope
from compiler.tensor.serial import to_json
from compiler.vta.footprint import operands_of, steps_of
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from compiler.vta.schedule import schedule as schedule_vta
from compiler.vta.tiling import Tiling, TilingProblem
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Insn
from vta_hw.spec.program import DTYPE_BITS, Buffer, Host, Launch, Layer, Program, Role, Segment, Step

Array = NDArray[Any]
Progress = Callable[[int, int], None]

_PAGE = 4096


class Target(enum.Enum):
    """What executes the quantised ops; conversions and float ops run on the host either way."""

    VTA = "vta"
    CPU = "cpu"


def compile_graph(
    graph: Graph, config: VTAConfig, *, target: Target = Target.VTA, progress: Progress | None = None
) -> Program:
    """Compile a graph for `config`: quantised (see `compiler.graph.quantize`), or for the CPU, of any types.

    progress: called with (steps done, steps). Raises CompileError: a layer that cannot fit is refused with its name,
    the buffer and the bytes needed. The same graph and configuration give the same program, byte for byte.
    """
    return lower_graph(graph, config, target=target, progress=progress).program()


def lower_graph(
    graph: Graph, config: VTAConfig, *, target: Target = Target.VTA, progress: Progress | None = None
) -> Compilation:
    """The definitions that a graph is made of, from which `Compilation.program` makes the program.

    Arguments and errors as those of `compile_graph`.
    """
    _check_outputs(graph)
    if is_quantised(graph):
        _check_bits(graph, config)
    placed = place_on_cpu(graph, config) if target is Target.CPU else place(graph, config)
    return Compilation(placed, config, target, progress)


def _check_outputs(graph: Graph) -> None:
    """An output is a buffer of its own, which some node fills."""
    for position, name in enumerate(graph.outputs):
        if name in graph.outputs[:position]:
            raise CompileError(f"Graph outputs must be different values, not {name!r} twice")
        if name not in graph.producers:
            kind = "constant" if name in graph.constants else "input"
            raise CompileError(f"Graph output must be computed by a node, not be the {kind} {name!r}")


def _check_bits(graph: Graph, config: VTAConfig) -> None:
    """What the machine holds in 4 bits must be made for 4 bits: wider numbers would lose their high ones."""
    for node in graph.nodes:
        limits = dict.fromkeys(node.inputs, config.inp_bits)
        if isinstance(node.op, IntegerConv):
            limits |= {node.inputs[1]: config.wgt_bits, node.inputs[2]: 32, node.inputs[3]: 32}
        if isinstance(node.op, RescaledConv2d):
            limits |= dict.fromkeys(node.inputs[5:], config.wgt_bits)
        for name, bits in limits.items():
            value = graph.constants.get(name)
            if value is not None and value.dtype in (np.int8, np.int16):
                _check_range(node.name, name, int(value.min()), int(value.max()), bits)
        if isinstance(node.op, QConv2d | ExactConv2d | ByRequant | QAdd | QExtreme | QMul | QAvgPool2d | Quantize):
            _check_range(node.name, node.output, node.op.lo, node.op.hi, config.inp_bits)


def _check_range(layer: str, value: str, low: int, high: int, bits: int) -> None:
    if low < -(1 << (bits - 1)) or high >= 1 << (bits - 1):
        raise CompileError(f"Layer {layer!r}: {value!r} must fit the machine's {bits} bits, not reach {low}..{high}")


@dataclass(frozen=True)
class Item:
    """A definition on the way to code: of a node, or of a conversion that a node on the host needs.

    buffers: of the definition's parameters; the last is written.
    """

    node: Node
    proc: Proc
    buffers: tuple[str, ...]
    macs: int = 0
    accelerated: bool = False
    converts: bool = False


class Compilation:
    """A graph in definitions (`items`): host steps and layers of the program, each kind in their order."""

    def __init__(self, graph: Graph, config: VTAConfig, target: Target, progress: Progress | None) -> None:
        self.graph, self.config, self.target = graph, config, target
        self.progress = progress or (lambda done, total: None)
        self.constants: dict[str, Array] = {}
        self.tilings: dict[Hashable, Tiling] = {}
        self.schedules: dict[Proc, tuple[Tiling, Proc]] = {}  # by definition without its name
        self.taken = set(graph.types)
        self.outputs = frozenset(graph.outputs)
        self.nibbles: set[str] = set()  # buffers of 4-bit scalars, two to a byte
        self.copies: dict[str, str] = {}  # by buffer that holds a value in the other of these two forms, that value
        self.views: dict[str, str] = {}  # by value that is another under a new shape, the buffer of that one
        self.parts = parts(graph)
        if target is Target.VTA and config.inp_bits == 4:
            self.nibbles = set(graph.layouts) - {value.name for value in graph.inputs} - set(graph.outputs)
        self.limits = limits(graph) if target is Target.CPU else {}
        self.blocks = cpu_blocks(graph, config) if target is Target.CPU else Blocks.of(config)
        self.items = [item for node in graph.nodes for item in self._items(node)]
        self.alignment = max(64, config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes)

    def _items(self, node: Node) -> list[Item]:
        """The node, between conversions of the 4-bit values that it needs in another form than they are stored in.

        Nothing for one that only names dimensions anew: its result is a view. And nothing for one whose result is part
        of its input, or all whose operands are parts of its result.
        """
        if isinstance(node.op, Slice) and node.output in self.parts and self.parts[node.output].whole == node.inputs[0]:
            return []
        if isinstance(node.op, Concat) and consists_of_blocks(self.graph, node):
            return []
        if self._is_view(node):
            self.views[node.output] = self.views.get(node.inputs[0], node.inputs[0])
            return []
        item = self._item(node)
        if self.target is not Target.VTA or self.config.inp_bits != 4:
            return [item]
        before, after, buffers = [], [], []
        for name in item.buffers:
            if name not in self.graph.layouts or item.accelerated == (name in self.nibbles):
                buffers.append(name)
                continue
            copy = self._new_name(f"{name}.{'nibbles' if item.accelerated else 'bytes'}.{node.output}")
            self.copies[copy] = name
            if item.accelerated:
                self.nibbles.add(copy)
            buffers.append(copy)
            if name == node.output:
                after.append(self._conversion(node, copy, name))
            else:
                before.append(self._conversion(node, name, copy))
        return [*before, replace(item, buffers=tuple(buffers)), *after]

    def _is_view(self, node: Node) -> bool:
        """Whether the result can be the input's bytes: in row-major order, and a buffer of the program's own."""
        (name, *_), output = node.inputs, node.output
        plain = name not in self.graph.layouts and output not in self.graph.layouts
        own = name in self.graph.producers and not self.outputs & {name, output}
        return isinstance(node.op, Reshape) and plain and own

    def _conversion(self, node: Node, source: str, target: str) -> Item:
        """Between a buffer of nibbles and one of bytes."""
        count = math.prod(self.graph.types[self.copies.get(source, source)].physical_shape)
        if target in self.nibbles:
            proc = define_host.pack_nibbles(f"{node.name}.pack", count)
        else:
            proc = define_host.unpack_nibbles(f"{node.name}.unpack", count)
        return Item(node, proc, (source, target), converts=True)

    def _item(self, node: Node) -> Item:
        types, _ = self.graph.node_types(node)
        operands = [replace(self._placed(name), limits=self.limits.get(name)) for name in node.inputs]
        try:
            lowered = node.op.lower(node.name, operands, self._placed(node.output), self.blocks)
        except LoweringError as error:
            raise LoweringError(f"Layer {node.name!r}: {error}") from None
        accelerated = (
            self.target is Target.VTA and node.placement is not None and node.placement.place is Place.ACCELERATOR
        )
        buffers = (*self._arguments(node, lowered), node.output)
        if accelerated and self.config.wgt_bits == 4:
            operands_used = (op for step in steps_of(lowered.proc) for op in operands_of(step, self.config))
            weights = {op.name for op in operands_used if op.scope is Scope.WGT}
            self.nibbles |= {n for p, n in zip(lowered.proc.params, buffers, strict=True) if p.name in weights}
        macs = node.op.macs([t.logical for t in types])
        return Item(node, lowered.proc, buffers, macs, accelerated)

    def _placed(self, name: str) -> Placed:
        t = self.graph.types[name]
        tile = (t.layout.n, t.layout.c) if t.layout is not None else None
        return Placed(t.shape, t.dtype, tile, self.graph.constants.get(name))

    def _arguments(self, node: Node, lowered: Lowered) -> list[str]:
        """The buffer of every parameter; constants that the definition wants in a form of its own become buffers."""
        names = []
        for parameter, argument in zip(lowered.proc.params, lowered.arguments, strict=False):
            if isinstance(argument, int):
                name = self.views.get(node.inputs[argument], node.inputs[argument])
                if name in self.graph.constants:
                    self._keep_constant(name)
            else:
                name = self._new_name(f"{node.output}.{parameter.name}")
                self.constants[name] = argument
            names.append(name)
        return names

    def _new_name(self, hint: str) -> str:
        """A name for a buffer that is no value of the graph, whose names may be anything."""
        name = first_free(hint, self.taken)
        self.taken.add(name)
        return name

    def _keep_constant(self, name: str) -> None:
        layout = self.graph.layouts.get(name)
        value = self.graph.constants[name]
        self.constants[name] = pack(value, layout) if layout is not None else value

    def program(self) -> Program:
        """Schedule every definition, and give what they work on a place in memory."""
        buffers, segments, end = self._buffers()
        addresses = {buffer.name: buffer.address for buffer in buffers}
        uop_address = align(end, _PAGE)
        uops = MicroOps(self.config.uop_depth)
        steps: list[Step] = []
        layers: list[Layer] = []
        insns: list[Insn] = []
        launch: LaunchBuilder | None = None
        for done, item in enumerate(self.items):
            self.progress(done, len(self.items))
            if not item.accelerated:
                if launch is not None:
                    steps.append(_close(launch, insns))
                    launch = None
                steps.append(Host(name=item.proc.name, proc=to_json(item.proc), buffers=item.buffers))
                continue
            if launch is None:
                launch = LaunchBuilder(self.config, uops, uop_address)
            layers.append(self._layer(item, launch, len(insns), addresses))
        if launch is not None:
            steps.append(_close(launch, insns))
        self.progress(len(self.items), len(self.items))
        code = ISA(self.config).encode_program(insns).astype("<u8").tobytes() if insns else b""
        area = uops.area.astype("<u4").tobytes()
        insn_address = align(uop_address + len(area), _PAGE)
        return Program(
            config=self.config,
            insns=code,
            insn_address=insn_address,
            uops=area,
            uop_address=uop_address,
            arena_bytes=align(insn_address + len(code), _PAGE),
            buffers=tuple(buffers),
            steps=tuple(steps),
            layers=tuple(layers),
            segments=tuple(segments),
            attributes={"name": self.graph.name, "target": self.target.value, "hosts": self._host_reasons()},
        )

    def _host_reasons(self) -> dict[str, str]:
        """Why each host step is not on the accelerator, by the name of its node, numbered if several have that."""
        reasons: dict[str, str] = {}
        for item in self.items:
            if not item.accelerated and item.node.placement is not None:
                name = first_free(item.node.name, reasons.keys())
                reasons[name] = item.node.placement.reason or "compiled for the CPU"
        return reasons

    def _layer(self, item: Item, launch: LaunchBuilder, first: int, addresses: Mapping[str, int]) -> Layer:
        steps = [self._scheduled(step) for step in steps_of(item.proc)]
        at = {parameter.name: addresses[name] for parameter, name in zip(item.proc.params, item.buffers, strict=True)}
        ranges = [launch.layer(scheduled, at) for _, scheduled in steps]
        attributes = {"op": item.node.op.kind, "tiling": _described(steps[0][0])}
        begin, end = first + ranges[0][0], first + ranges[-1][1]
        return Layer(name=item.node.name, insn_begin=begin, insn_end=end, macs=item.macs, attributes=attributes)

    def _scheduled(self, proc: Proc) -> tuple[Tiling, Proc]:
        """How a layer is tiled, and its schedule; networks repeat the same layer under other names."""
        nameless = replace(proc, name="")
        if nameless not in self.schedules:
            problem = TilingProblem(proc, self.config)
            if problem.key not in self.tilings:
                self.tilings[problem.key] = problem.best()
            tiling = self.tilings[problem.key]
            self.schedules[nameless] = tiling, schedule_vta(proc, self.config, tiling).proc
        tiling, scheduled = self.schedules[nameless]
        return tiling, replace(scheduled, name=proc.name)

    def _buffers(self) -> tuple[list[Buffer], list[Segment], int]:
        """The buffer table, the contents of the constants, and the end of both in the arena."""
        buffers: list[Buffer] = []
        segments: list[Segment] = []
        at = 0
        for name, value in self.constants.items():
            data = pack_nibbles(value) if name in self.nibbles else np.ascontiguousarray(value).tobytes()
            dtype = "int4" if name in self.nibbles else value.dtype.name
            buffers.append(self._buffer(name, Role.CONSTANT, dtype, at, value.shape))
            if data:
                segments.append(Segment(address=at, data=data))
            at = align(at + len(data), self.alignment)
        for role, names in ((Role.INPUT, [v.name for v in self.graph.inputs]), (Role.OUTPUT, self.graph.outputs)):
            for name in names:
                buffers.append(self._buffer(name, role, self._dtype(name), at))
                at = align(at + buffers[-1].nbytes, self.alignment)
        taken = {buffer.name for buffer in buffers}
        addresses, end = plan(self._lifetimes(taken), start=at, alignment=self.alignment)
        for name in {name: None for item in self.items for name in item.buffers if name in self.parts}:
            whole, begin = self._place(name)
            addresses[name] = addresses[whole] + begin
        for name, address in sorted(addresses.items(), key=lambda item: (item[1], item[0])):
            buffers.append(self._buffer(name, Role.WORKSPACE, self._dtype(name), address))
        return buffers, segments, end

    def _dtype(self, name: str) -> str:
        """How the scalars of a value lie in the arena."""
        return "int4" if name in self.nibbles else self.graph.types[self.copies.get(name, name)].dtype.value

    def _buffer(self, name: str, role: Role, dtype: str, address: int, shape: tuple[int, ...] | None = None) -> Buffer:
        value = self.copies.get(name, name)
        if shape is None:
            shape = self.graph.types[value].physical_shape
        nbytes = -(-int(np.prod(shape, dtype=np.int64)) * DTYPE_BITS[dtype] // 8)
        layout = None
        if value in self.graph.layouts:
            tile = self.graph.layouts[value]
            layout = {"logical": list(self.graph.types[value].shape), "n": tile.n, "c": tile.c}
        return Buffer(name=name, role=role, dtype=dtype, shape=shape, layout=layout, address=address, nbytes=nbytes)

    def _place(self, name: str) -> tuple[str, int]:
        """(buffer that is no part of another, byte of it at which a value begins)."""
        if name not in self.parts:
            return name, 0
        part = self.parts[name]
        whole, begin = self._place(part.whole)
        return whole, begin + part.begin * DTYPE_BITS[self._dtype(name)] // 8

    def _lifetimes(self, taken: set[str]) -> list[Lifetime]:
        """Of the buffers that are no parts of others, from the first step that writes some of them on."""
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for step, item in enumerate(self.items):
            for name in item.buffers:
                last[self._place(name)[0]] = step
            whole, _ = self._place(item.buffers[-1])
            if whole not in taken:
                first.setdefault(whole, step)
        sizes = {name: self._buffer(name, Role.WORKSPACE, self._dtype(name), 0).nbytes for name in first}
        return [Lifetime(name=name, nbytes=sizes[name], first=first[name], last=last[name]) for name in first]


def _close(launch: LaunchBuilder, insns: list[Insn]) -> Launch:
    """Append the launch's instructions to the program's."""
    begin = len(insns)
    insns.extend(launch.finish())
    return Launch(insn_begin=begin, insn_count=len(insns) - begin)


def pack_nibbles(values: Array) -> bytes:
    """Integers from -8 to 7, two to a byte, the first in the low half (VTA spec 3.8)."""
    flat = values.reshape(-1).astype(np.uint8) & 0xF
    pairs = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)]).reshape(-1, 2)
    return bytes(pairs[:, 0] | pairs[:, 1] << 4)


def _described(tiling: Tiling) -> dict[str, Any]:
    stages = {name: [stage.level, stage.copies] for name, stage in tiling.stages.items()}
    return {
        "sizes": dict(tiling.sizes),
        "order": list(tiling.order),
        "piece": tiling.piece,
        "stages": stages,
        "copies": tiling.copies,
    }
