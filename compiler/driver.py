"""From a quantised graph to a program: the one path through layouts, definitions, schedules, memory and code."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.graph.ir import Graph, Node, Place
from compiler.graph.layout import pack
from compiler.graph.lowering import Blocks, Lowered, Placed
from compiler.graph.passes.base import run_passes
from compiler.graph.passes.layout import AssignLayouts
from compiler.graph.passes.partition import Partition
from compiler.llvm.schedule import schedule as schedule_cpu
from compiler.memory_plan import Lifetime, align, plan
from compiler.tensor.ir import Proc, Scope
from compiler.tensor.serial import to_json
from compiler.vta.footprint import operands_of
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
    """Compile a quantised graph (see `compiler.graph.quantize`) for `config`.

    progress: called with (nodes done, nodes). Raises CompileError: a layer that cannot fit is refused with its name,
    the buffer and the bytes needed. The same graph and configuration give the same program, byte for byte.
    """
    if target is Target.VTA and config.inp_bits < 8:
        raise LoweringError(f"Activations must have 8 or 16 bits to be compiled for VTA, not {config.inp_bits}")
    placed = run_passes(graph, [AssignLayouts(config=config), Partition()])
    return _Compilation(placed, config, target, progress).program()


@dataclass(frozen=True)
class _Item:
    """A node with its definition, and the buffers of the definition's parameters."""

    node: Node
    proc: Proc
    buffers: tuple[str, ...]
    macs: int
    accelerated: bool


class _Compilation:
    def __init__(self, graph: Graph, config: VTAConfig, target: Target, progress: Progress | None) -> None:
        self.graph, self.config, self.target = graph, config, target
        self.progress = progress or (lambda done, total: None)
        self.constants: dict[str, Array] = {}
        self.nibbles: set[str] = set()  # constants of 4-bit scalars, two to a byte
        self.items = [self._item(node) for node in graph.nodes]
        self.alignment = max(64, config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes)

    def _item(self, node: Node) -> _Item:
        types, _ = self.graph.node_types(node)
        blocks = Blocks(batch=self.config.batch, block_in=self.config.block_in, block_out=self.config.block_out)
        operands = [self._placed(name) for name in node.inputs]
        lowered = node.op.lower(node.name, operands, self._placed(node.output), blocks)
        accelerated = (
            self.target is Target.VTA and node.placement is not None and node.placement.place is Place.ACCELERATOR
        )
        buffers = (*self._arguments(node, lowered), node.output)
        if accelerated and self.config.wgt_bits == 4:
            weights = {op.name for op in operands_of(lowered.proc, self.config) if op.scope is Scope.WGT}
            self.nibbles |= {n for p, n in zip(lowered.proc.params, buffers, strict=True) if p.name in weights}
        macs = node.op.macs([t.logical for t in types])
        return _Item(node, lowered.proc, buffers, macs, accelerated)

    def _placed(self, name: str) -> Placed:
        t = self.graph.types[name]
        tile = (t.layout.n, t.layout.c) if t.layout is not None else None
        return Placed(t.shape, t.dtype, tile, self.graph.constants.get(name))

    def _arguments(self, node: Node, lowered: Lowered) -> list[str]:
        """The buffer of every parameter; constants that the definition wants in a form of its own become buffers."""
        names = []
        for parameter, argument in zip(lowered.proc.params, lowered.arguments, strict=False):
            if isinstance(argument, int):
                name = node.inputs[argument]
                if name in self.graph.constants:
                    self._keep_constant(name)
            else:
                name = f"{node.output}.{parameter.name}"
                self.constants[name] = argument
            names.append(name)
        return names

    def _keep_constant(self, name: str) -> None:
        layout = self.graph.layouts.get(name)
        value = self.graph.constants[name]
        self.constants[name] = pack(value, layout) if layout is not None else value

    def program(self) -> Program:
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
                steps.append(Host(name=item.node.name, proc=self._host_proc(item), buffers=item.buffers))
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

    def _host_proc(self, item: _Item) -> dict[str, Any]:
        return to_json(schedule_cpu(item.proc).proc)

    def _host_reasons(self) -> dict[str, str]:
        """Why each host step is not on the accelerator."""
        return {
            item.node.name: item.node.placement.reason or "compiled for the CPU"
            for item in self.items
            if not item.accelerated and item.node.placement is not None
        }

    def _layer(self, item: _Item, launch: LaunchBuilder, first: int, addresses: Mapping[str, int]) -> Layer:
        tiling = TilingProblem(item.proc, self.config).best()
        scheduled = schedule_vta(item.proc, self.config, tiling)
        at = {parameter.name: addresses[name] for parameter, name in zip(item.proc.params, item.buffers, strict=True)}
        begin, end = launch.layer(scheduled.proc, at)
        attributes = {"op": item.node.op.kind, "tiling": _described(tiling)}
        return Layer(
            name=item.node.name, insn_begin=first + begin, insn_end=first + end, macs=item.macs, attributes=attributes
        )

    def _buffers(self) -> tuple[list[Buffer], list[Segment], int]:
        """The buffer table, the contents of the constants, and the end of both in the arena."""
        buffers: list[Buffer] = []
        segments: list[Segment] = []
        at = 0
        for name, value in self.constants.items():
            data = pack_nibbles(value) if name in self.nibbles else np.ascontiguousarray(value).tobytes()
            dtype = "int4" if name in self.nibbles else value.dtype.name
            buffers.append(self._buffer(name, Role.CONSTANT, value.shape, dtype, at))
            if data:
                segments.append(Segment(address=at, data=data))
            at = align(at + len(data), self.alignment)
        for role, names in ((Role.INPUT, [v.name for v in self.graph.inputs]), (Role.OUTPUT, self.graph.outputs)):
            for name in names:
                t = self.graph.types[name]
                buffers.append(self._buffer(name, role, t.physical_shape, t.dtype.value, at))
                at = align(at + t.nbytes, self.alignment)
        taken = {buffer.name for buffer in buffers}
        addresses, end = plan(self._lifetimes(taken), start=at, alignment=self.alignment)
        for name, address in sorted(addresses.items(), key=lambda item: (item[1], item[0])):
            t = self.graph.types[name]
            buffers.append(self._buffer(name, Role.WORKSPACE, t.physical_shape, t.dtype.value, address))
        return buffers, segments, end

    def _buffer(self, name: str, role: Role, shape: tuple[int, ...], dtype: str, address: int) -> Buffer:
        nbytes = -(-int(np.prod(shape, dtype=np.int64)) * DTYPE_BITS[dtype] // 8)
        layout = None
        if name in self.graph.layouts:
            tile = self.graph.layouts[name]
            layout = {"logical": list(self.graph.types[name].shape), "n": tile.n, "c": tile.c}
        return Buffer(name=name, role=role, dtype=dtype, shape=shape, layout=layout, address=address, nbytes=nbytes)

    def _lifetimes(self, taken: set[str]) -> list[Lifetime]:
        last: dict[str, int] = {}
        for step, item in enumerate(self.items):
            for name in item.buffers:
                last[name] = step
        return [
            Lifetime(
                name=item.node.output,
                nbytes=self.graph.types[item.node.output].nbytes,
                first=step,
                last=last[item.node.output],
            )
            for step, item in enumerate(self.items)
            if item.node.output not in taken
        ]


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
    return {"sizes": dict(tiling.sizes), "order": list(tiling.order), "threads": tiling.threads}
