"""From scheduled procedures to instructions: walks the loops with their values known and emits what each nest needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.tensor.affine import Range, bounds, evaluate
from compiler.tensor.analysis import accesses, by_buffer
from compiler.tensor.ir import Alloc, Body, Buffer, For, LoopKind, Mapped, Proc, Scope
from compiler.tensor.traverse import walk
from compiler.tensor.unify import Match, unify
from compiler.vta.box import Box, Nest, elements_shape
from compiler.vta.footprint import element_bytes
from compiler.vta.instructions import Instruction, InstructionSet, instruction_set
from compiler.vta.microops import MicroOps, place_kernels
from compiler.vta.order import sink
from compiler.vta.regions import Sweep, Transfer, cut, sweeps, transfers
from compiler.vta.tokens import Space, Span, Work, synchronize
from vta_hw.spec import isa
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import requant_imm
from vta_hw.spec.isa import AluOp, Insn, MemoryType, Module, Opcode

Env = dict[str, int]
"""Values of loop variables; and by buffer, which has names of its own, the turn that its `Alloc` is at."""

_MOST_TRIPS = (1 << 14) - 1
_MOST_LOAD_BYTES = 4096
"""Of one LOAD that can be cut, so that whoever reads its first part need not wait for the rest."""
_FACTORS = {"dst": "dst_factor", "inp": "src_factor", "src": "src_factor", "wgt": "wgt_factor"}
_SPACES = {MemoryType.INP: Space.INP, MemoryType.WGT: Space.WGT}
_STORED, _RELEASED = Span(Space.STORED, 0, 1), Span(Space.RELEASED, 0, 1)


@dataclass(frozen=True)
class _Placement:
    """A scratchpad buffer: first element, elements per place, and places: `copies` for each virtual thread."""

    base: int
    size: int
    copies: int
    threads: tuple[tuple[str, int], ...]

    @property
    def end(self) -> int:
        return self.base + self.size * self.copies * math.prod(extent for _, extent in self.threads)

    def origin(self, env: Mapping[str, int], turn: int) -> int:
        place = 0
        for name, extent in self.threads:
            place = place * extent + env[name]
        return self.base + (place * self.copies + turn % self.copies) * self.size


@dataclass
class LaunchBuilder:
    """Collects the instructions of one accelerator launch, layer by layer."""

    config: VTAConfig
    uops: MicroOps
    uop_address: int
    works: list[Work] = field(default_factory=list)
    layers: int = 0
    stored: list[tuple[int, int]] = field(default_factory=list)  # bytes of the arena, from and to
    instructions: InstructionSet = field(init=False)

    def __post_init__(self) -> None:
        self.instructions = instruction_set(self.config)
        self.codec = isa.ISA(self.config)
        self.loaded = np.zeros(self.config.acc_depth, np.bool_)  # accumulators whose OUT is stale
        self.encoded: dict[tuple[int, bytes], NDArray[np.uint32]] = {}
        self.uops.forget()

    def layer(self, proc: Proc, addresses: Mapping[str, int]) -> tuple[int, int]:
        """Append the instructions of a scheduled op, its parameters being at `addresses` in the arena.

        Returns the range of instructions. Raises LoweringError if a scratchpad overflows, or the op needs what no
        instruction does.
        """
        touched = by_buffer(access for access in accesses(proc.body) if access.buffer.scope is Scope.DRAM)
        for name, uses in touched.items():
            if len({use.write for use in uses}) > 1:
                raise LoweringError(f"Layer {proc.name!r} must not read {name!r}, which it writes")
        begin = len(self.works)
        works = sink(_LayerLowering(self, proc, addresses).run())
        works = place_kernels(works, self.uops, self.uop_address // self.config.uop_elem_bytes)
        # What earlier layers have stored is loaded when all of it is there; constants need not wait.
        first = next((k for k, work in enumerate(works) if _RELEASED in work.reads), len(works))
        fence = Work(isa.Load(memory_type=MemoryType.UOP), Module.COMPUTE, reads=(_STORED,), writes=(_RELEASED,))
        self.works += [*works[:first], *([fence] if first < len(works) else []), *works[first:]]
        self.layers += 1
        for name, uses in touched.items():
            if any(use.write for use in uses):
                self.stored.append((addresses[name], addresses[name] + _nbytes(uses[0].buffer)))
        return begin, len(self.works)

    def kernel(self, operands: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The words of micro-ops, from dst, src (or inp) and wgt as far as they have these, int64 [N, 1..3]."""
        count, columns = operands.shape
        key = columns, operands.tobytes()
        if key not in self.encoded:
            padded = np.zeros((3, count), np.int64)
            padded[:columns] = operands.T
            self.encoded[key] = self.codec.encode_uops((padded[0], padded[1], padded[2]))
        return self.encoded[key]

    def is_stored(self, buffer: Buffer, address: int) -> bool:
        """Whether earlier layers of the launch have stored to a part of the buffer."""
        last = address + _nbytes(buffer)
        return any(begin < last and address < end for begin, end in self.stored)

    def finish(self) -> list[Insn]:
        """All instructions of the launch, synchronised, with FINISH after the last store."""
        self.works.append(Work(isa.Finish(), Module.COMPUTE, reads=(_STORED,)))
        depths = {
            Space.INP: self.config.inp_depth,
            Space.WGT: self.config.wgt_depth,
            Space.OUT: self.config.out_depth,
        }
        return synchronize(self.works, depths)


@dataclass(frozen=True, eq=False)
class _Reset:
    """A reset that has not been emitted yet, and the accumulators that it resets."""

    work: Work
    elements: NDArray[np.int64]


class _LayerLowering:
    """Emits one scheduled procedure."""

    def __init__(self, builder: LaunchBuilder, proc: Proc, addresses: Mapping[str, int]) -> None:
        self.builder, self.proc, self.addresses = builder, proc, addresses
        self.config = builder.config
        self.by_name = {instruction.name: instruction for instruction in builder.instructions.all}
        self.placements: dict[str, _Placement] = {}
        self.scopes = {stmt.buffer.name: stmt.buffer.scope for stmt in walk(proc.body) if isinstance(stmt, Alloc)}
        self.pairs = {name for stmt in walk(proc.body) if isinstance(stmt, Mapped) for name in self._pairs(stmt)}
        self.turns: dict[tuple[str, tuple[int, ...]], int] = {}
        self.nests: dict[int, Nest] = {}
        self.stored = {b.name for b in proc.params if builder.is_stored(b, addresses[b.name])}
        self.works: list[Work] = []
        self.resets: list[_Reset] = []

    def run(self) -> list[Work]:
        """The instructions, in an order in which they may execute; micro-ops are not placed yet."""
        self._place(self.proc.body, (), (), {Scope.INP: 0, Scope.WGT: 0, Scope.ACC: 0})
        self._alternate()
        for _ in self._walk(self.proc.body, {}):
            pass
        self._reset_now(Span(Space.OUT, 0, self.config.acc_depth))
        return self.works

    def _alternate(self) -> None:
        """Every other layer has its weights at the end of their scratchpad: they come while the last ones are used."""
        if self.builder.layers % 2:
            mine = [name for name in self.placements if self.scopes[name] is Scope.WGT]
            gap = self.config.wgt_depth - max((self.placements[name].end for name in mine), default=0)
            for name in mine:
                self.placements[name] = replace(self.placements[name], base=self.placements[name].base + gap)

    def _pairs(self, stmt: Mapped) -> Iterator[str]:
        """The buffers of which an instruction reads two elements at a time, that begin at an even place."""
        instruction = self.by_name.get(stmt.instruction)
        if instruction is not None and instruction.alu is AluOp.REQUANT:
            touched = by_buffer(accesses(stmt.body))
            yield from (name for name, uses in touched.items() if not any(use.write for use in uses))

    def _reset_now(self, *touched: Span) -> None:
        """Emit the resets of accumulators that are about to be used.

        A reset waits until then, so that what is stored meanwhile holds up no other accumulator's.
        """
        for reset in self._due(*touched):
            self.resets.remove(reset)
            self.works.append(reset.work)

    def _due(self, *touched: Span) -> list[_Reset]:
        """The resets that touch what is about to be used."""
        spans = [(reset, reset.work.writes[0]) for reset in self.resets]
        return [reset for reset, span in spans if any(span.begin < one.end and one.begin < span.end for one in touched)]

    def _place(
        self, body: Body, loops: tuple[Range, ...], threads: tuple[tuple[str, int], ...], top: dict[Scope, int]
    ) -> None:
        """Give every buffer a fixed place: on top of those around it, once for each virtual thread."""
        depths = {Scope.INP: self.config.inp_depth, Scope.WGT: self.config.wgt_depth, Scope.ACC: self.config.acc_depth}
        for stmt in body:
            match stmt:
                case For():
                    inner = threads
                    if stmt.kind is LoopKind.VTHREAD:
                        inner = (*threads, (stmt.var.name, bounds(stmt.extent, loops)[1]))
                    # Threads take turns anywhere, so that no two buffers inside may share a place.
                    self._place(
                        stmt.body, (*loops, Range(stmt.var.name, stmt.extent)), inner, top if threads else {**top}
                    )
                case Alloc():
                    scope = stmt.buffer.scope
                    if scope not in depths:
                        raise LoweringError(
                            f"Layer {self.proc.name!r}: buffer {stmt.buffer.name!r} must lie in a scratchpad, "
                            f"not in {scope.value}"
                        )
                    size = _capacity(stmt.buffer, loops)
                    begin = top[scope]
                    if stmt.buffer.name in self.pairs:
                        begin += begin % 2
                    places = stmt.copies * int(np.prod([extent for _, extent in threads], dtype=np.int64))
                    end = begin + size * places
                    if end > depths[scope]:
                        elem = element_bytes(scope, self.config)
                        raise LoweringError(
                            f"Layer {self.proc.name!r} must fit the {scope.value} buffer of {depths[scope] * elem} "
                            f"bytes, its schedule needs {end * elem}"
                        )
                    self.placements[stmt.buffer.name] = _Placement(begin, size, stmt.copies, threads)
                    inside = {**top, scope: end}
                    self._place(stmt.body, loops, threads, inside)
                    if threads:
                        top.update(inside)
                case Mapped():
                    pass
                case _:
                    raise LoweringError(f"Layer {self.proc.name!r}: statement must be mapped, not {stmt!r}")

    def _walk(self, body: Body, env: Env) -> Iterator[None]:
        """Emit `body`, pausing after each mapped nest so that virtual threads can take turns."""
        for stmt in body:
            match stmt:
                case For(kind=LoopKind.VTHREAD):
                    yield from self._interleave(stmt, env)
                case For():
                    for value in range(evaluate(stmt.extent, env)):
                        yield from self._walk(stmt.body, {**env, stmt.var.name: value})
                case Alloc():
                    yield from self._walk(stmt.body, {**env, stmt.buffer.name: self._turn(stmt.buffer.name, env)})
                case Mapped():
                    self._emit(stmt, env)
                    yield

    def _turn(self, buffer: str, env: Env) -> int:
        """Which execution of a buffer's `Alloc` begins, counted for each virtual thread."""
        key = buffer, tuple(env[name] for name, _ in self.placements[buffer].threads)
        self.turns[key] = self.turns.get(key, -1) + 1
        return self.turns[key]

    def _interleave(self, loop: For, env: Env) -> Iterator[None]:
        threads = [self._walk(loop.body, {**env, loop.var.name: value}) for value in range(evaluate(loop.extent, env))]
        while threads:
            threads = [thread for thread in threads if next(thread, _DONE) is not _DONE]
            yield

    def _emit(self, stmt: Mapped, env: Env) -> None:
        instruction = self.by_name.get(stmt.instruction)
        nest = self.nests.get(id(stmt))
        if nest is None:
            (loop,) = stmt.body
            match: Match | None = None
            if instruction is not None and isinstance(loop, For):
                match = unify(instruction.meaning, loop)
            if match is None:
                raise LoweringError(
                    f"Layer {self.proc.name!r} must be made of instructions, not map {stmt.instruction!r}"
                )
            nest = self.nests[id(stmt)] = Nest(match)
        assert instruction is not None, "what matches exists"
        box = Box(nest, env)
        if box.empty:
            return
        match instruction.opcode:
            case Opcode.LOAD:
                self._emit_load(instruction, box)
            case Opcode.STORE:
                self._emit_store(box)
            case _:
                self._emit_compute(instruction, box)

    def _emit_load(self, instruction: Instruction, box: Box) -> None:
        memory = instruction.memory
        assert memory is not None
        module = Module.LOAD if memory in _SPACES else Module.COMPUTE
        loaded = self.builder.loaded
        source = box.match.operands["src"].buffer
        read = (_RELEASED,) if source.name in self.stored else ()
        most = _MOST_LOAD_BYTES // self.config.dram_elem_bytes(memory)
        copies = cut(self._sram(box, "dst"), self._dram(box, "src", memory), box.copy_axes("dst", "src"), most)
        for part in itertools.chain.from_iterable(transfers(*copy) for copy in copies):
            insn = isa.Load(
                memory_type=memory,
                sram_base=part.sram,
                dram_base=part.dram,
                y_size=part.y_size,
                x_size=part.x_size,
                x_stride=part.x_stride,
                y_pad_0=part.y_pad[0],
                y_pad_1=part.y_pad[1],
                x_pad_0=part.x_pad[0],
                x_pad_1=part.x_pad[1],
            )
            written = (Span(_SPACES[memory], part.sram, part.sram + _elements(part)),) if memory in _SPACES else ()
            if memory not in _SPACES:
                self._reset_now(Span(Space.OUT, part.sram, part.sram + _elements(part)))
                loaded[part.sram : part.sram + _elements(part)] = True
            self.works.append(Work(insn, module, reads=read, writes=written))

    def _emit_store(self, box: Box) -> None:
        target = self._dram(box, "dst", MemoryType.OUT)
        for part in transfers(self._sram(box, "src"), target, box.copy_axes("src", "dst")):
            insn = isa.Store(
                memory_type=MemoryType.OUT,
                sram_base=part.sram,
                dram_base=part.dram,
                y_size=part.y_size,
                x_size=part.x_size,
                x_stride=part.x_stride,
            )
            read = Span(Space.OUT, part.sram, part.sram + _elements(part))
            if self.builder.loaded[read.begin : read.end].any():
                raise LoweringError(
                    f"Layer {self.proc.name!r} must compute what it stores: VTA stores OUT, which a load does not reach"
                )
            self._reset_now(read)
            self.works.append(Work(insn, Module.STORE, reads=(read,), writes=(_STORED,)))

    def _sram(self, box: Box, name: str) -> int:
        """First element of the operand `name` in its scratchpad."""
        buffer = box.match.operands[name].buffer.name
        return self.placements[buffer].origin(box.env, box.env[buffer]) + box.base(name)

    def _dram(self, box: Box, name: str, memory: MemoryType) -> int:
        """First element of the operand `name` in DRAM, in elements of the transfer."""
        elem = self.config.dram_elem_bytes(memory)
        address = self.addresses[box.match.operands[name].buffer.name]
        assert address % elem == 0, "the arena aligns every buffer to its elements"
        return address // elem + box.base(name)

    def _emit_compute(self, instruction: Instruction, box: Box) -> None:
        names = ["dst", *(name for name in ("inp", "wgt", "src") if name in box.match.operands)]
        operands = names
        gemm = instruction.opcode is Opcode.GEMM
        if gemm:
            limits = [self.config.acc_depth, self.config.inp_depth, self.config.wgt_depth][: len(names)]
        else:
            # Immediate operations name their destination as source too: all implementations read that alike (spec 3.5).
            names, operands = ["dst", "src"], ["dst", operands[-1]]
            limits = [self.config.acc_depth] * 2
        self._check_order_free(box)
        visit_once = gemm and self.config.is_extended  # so that its first micro-ops may overwrite
        bases = [self._sram(box, name) for name in operands]
        for sweep in sweeps(
            bases, box.axes(operands), limits, _MOST_TRIPS, self.builder.uops.depth, visit_once=visit_once
        ):
            if not gemm:
                self._emit_sweep(_alu(instruction, box.match.immediate), sweep, names)
            elif instruction.reset:
                self.resets.append(_Reset(self._work(partial(isa.Gemm, reset=True), sweep, names), sweep.elements(0)))
            else:
                self._emit_product(sweep, names)

    def _emit_product(self, sweep: Sweep, names: Sequence[str]) -> None:
        """A GEMM, which overwrites accumulators if just these are to be reset and the machine can."""
        due = self._due(Span(Space.OUT, *sweep.reach[0]))
        first, rest = sweep.first_visits(0) if self.config.is_extended and due else (None, sweep)
        if first is not None:
            zeroed = np.unique(np.concatenate([reset.elements for reset in due]))
            if np.array_equal(zeroed, np.unique(first.elements(0))):
                self.resets = [reset for reset in self.resets if reset not in due]
                self._emit_sweep(isa.GemmOverwrite, first, names)
                if rest is not None:
                    self._emit_sweep(isa.Gemm, rest, names)
                return
        self._emit_sweep(isa.Gemm, sweep, names)

    def _check_order_free(self, box: Box) -> None:
        """An instruction takes its iterations in an order of its own."""
        dst, src = box.match.operands["dst"], box.match.operands.get("src")
        if src is not None and src.buffer.name == dst.buffer.name and src.tile != dst.tile:
            raise LoweringError(
                f"Layer {self.proc.name!r} must not read other tiles of {dst.buffer.name!r} where it writes that buffer"
            )

    def _emit_sweep(self, insn: Callable[..., Insn], sweep: Sweep, names: Sequence[str]) -> None:
        work = self._work(insn, sweep, names)
        k = names.index("src") if "src" in names else 0
        self._reset_now(*work.writes, Span(Space.OUT, *sweep.reach[k]))
        self.works.append(work)

    def _work(self, insn: Callable[..., Insn], sweep: Sweep, names: Sequence[str]) -> Work:
        """The instruction for a sweep; `insn` makes it from micro-ops and loops."""
        kernel = self.builder.kernel(sweep.operands)
        spaces = [(Space.INP, "inp"), (Space.WGT, "wgt")]
        reads = tuple(Span(space, *sweep.reach[names.index(name)]) for space, name in spaces if name in names)
        written = Span(Space.OUT, *sweep.reach[0])
        self.builder.loaded[written.begin : written.end] = False
        factors: dict[str, int] = {}
        for k, name in enumerate(names):
            field = _FACTORS[name]
            factors[f"{field}_out"], factors[f"{field}_in"] = sweep.outer.strides[k], sweep.inner.strides[k]
        made = insn(uop_end=len(kernel), iter_out=sweep.outer.extent, iter_in=sweep.inner.extent, **factors)
        return Work(made, Module.COMPUTE, reads=reads, writes=(written,), kernel=kernel)


def _alu(instruction: Instruction, immediate: int | None) -> Callable[..., Insn]:
    assert instruction.alu is not None
    if instruction.alu is AluOp.REQUANT:
        imm, use_imm = requant_imm(immediate or 0, relu=instruction.relu), False
    else:
        imm, use_imm = immediate or 0, immediate is not None
        imm = -imm if instruction.left else imm
    return partial(isa.Alu, alu_opcode=instruction.alu, use_imm=use_imm, imm=imm)


_DONE = object()


def _elements(part: Transfer) -> int:
    return (part.y_size + sum(part.y_pad)) * (part.x_size + sum(part.x_pad))


def _nbytes(buffer: Buffer) -> int:
    """Bytes of a parameter in the arena; 4-bit scalars take less."""
    return math.prod(buffer.static_shape) * buffer.type.numpy.itemsize


def _capacity(buffer: Buffer, loops: Sequence[Range]) -> int:
    """Most elements (tiles) that a buffer of possibly varying shape takes."""
    size = 1
    for extent in elements_shape(buffer):
        size *= max(bounds(extent, loops)[1], 0)
    return size
