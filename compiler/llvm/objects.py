"""A network as an object file: a program's host steps, its constants, and one C function that runs them in order.

The module holds each distinct procedure once, as an internal function, and the entry, which calls them with places in
the caller's arrays, in the constants and in the caller's workspace::

    int NAME_run(const T *in_..., T *out_..., void *workspace)

The entry is the only symbol that others see, so that several networks can be linked into one program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from compiler.errors import CompileError, LoweringError
from compiler.llvm.apart import emit_object_apart
from compiler.llvm.codegen import ALIGNMENT, Function, define
from compiler.llvm.elf import symbols
from compiler.llvm.emitter import Globals
from compiler.llvm.header import Interface, header, port_names
from compiler.llvm.registers import Registers
from compiler.llvm.rounding import with_roundeven
from compiler.llvm.schedule import schedule_of_any
from compiler.llvm.target import Target
from compiler.memory_plan import align
from compiler.tensor.arguments import Span, check_overlap, written
from compiler.tensor.ir import Proc
from compiler.tensor.serial import from_json
from vta_hw.spec.program import Buffer, Host, Program, Role

_STACK_BUFFER = 4096
"""Bytes. What is larger lies in the workspace, whose place the caller chooses; tiles of sums are smaller."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class NetworkObject:
    """code: an ELF object file. header: its C header. calls: the functions that the linker has to find elsewhere."""

    code: bytes
    header: str
    workspace_bytes: int
    constant_bytes: int
    calls: tuple[str, ...]


def compile_object(program: Program, target: Target, name: str) -> NetworkObject:
    """The object file `name`.o and its header for a program whose steps are all host steps.

    The code is made in a child process. Raises CompileError if the program has other steps or a step that its buffers
    do not fit, if `name` is no identifier of C, or if LLVM cannot make code of a step.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise CompileError(f"Name must be an identifier of C with at most 64 characters, not {name!r}")
    steps = [_step(program, step) for step in _hosts(program)]
    _check_segments(program)
    network = _Network(program, steps, target, name)
    code = network.object_code()
    interface = Interface(
        name=name,
        target=target,
        inputs=program.inputs,
        outputs=program.outputs,
        workspace_bytes=network.workspace_bytes,
        alignment=ALIGNMENT,
        stack_bytes=max((function.stack for function in network.functions.values()), default=0),
        constant_bytes=len(network.constants),
        calls=symbols(code).undefined,
    )
    return NetworkObject(
        code=code,
        header=header(interface),
        workspace_bytes=network.workspace_bytes,
        constant_bytes=len(network.constants),
        calls=interface.calls,
    )


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A procedure and its arguments."""

    proc: Proc
    buffers: tuple[Buffer, ...]

    @property
    def key(self) -> Proc:
        """The procedure without its name: networks repeat a layer under others."""
        return replace(self.proc, name="")


def _hosts(program: Program) -> list[Host]:
    hosts = [step for step in program.steps if isinstance(step, Host)]
    if len(hosts) < len(program.steps):
        raise CompileError(
            "Program must have host steps alone to become an object file, not launches of the accelerator: "
            "compile it for the CPU"
        )
    return hosts


def _step(program: Program, step: Host) -> _Call:
    """A step of the program; it may be a stranger's, so that all that its code will rely on is checked."""
    proc = from_json(step.proc)
    buffers = tuple(program.buffer(name) for name in step.buffers)
    if len(buffers) != len(proc.params):
        raise CompileError(f"Host step {step.name!r} must have {len(proc.params)} buffers, not {len(buffers)}")
    stored, spans = written(proc), []
    for parameter, buffer in zip(proc.params, buffers, strict=True):
        nbytes = int(np.prod(parameter.static_shape, dtype=np.int64)) * parameter.type.numpy.itemsize
        if nbytes != buffer.nbytes:
            raise CompileError(
                f"Parameter {parameter.name!r} of host step {step.name!r} must have the {buffer.nbytes} bytes of its "
                f"buffer, not {nbytes}"
            )
        of_bytes = buffer.dtype == "int4" and parameter.type.bits == 8
        if parameter.type.value != buffer.dtype and not of_bytes:
            raise CompileError(
                f"Parameter {parameter.name!r} of host step {step.name!r} must have the type of its buffer, "
                f"{buffer.dtype}, not {parameter.type.value}"
            )
        is_written = parameter.name in stored
        if is_written and buffer.role not in (Role.OUTPUT, Role.WORKSPACE):
            raise CompileError(
                f"Host step {step.name!r} must store to outputs and workspace alone, not to the {buffer.role.value} "
                f"{buffer.name!r}"
            )
        spans.append(
            Span(start=buffer.address, end=buffer.address + buffer.nbytes, name=parameter.name, is_written=is_written)
        )
    check_overlap(step.name, spans)
    return _Call(proc=proc, buffers=buffers)


def _check_segments(program: Program) -> None:
    for segment in program.segments:
        end = segment.address + len(segment.data)
        constants = (buffer for buffer in program.buffers if buffer.role is Role.CONSTANT)
        if not any(b.address <= segment.address and end <= b.address + b.nbytes for b in constants):
            raise CompileError(
                f"Segment at {segment.address} must lie within a constant to become part of an object file, and it "
                "does not"
            )


class _Network:
    """The LLVM module: its functions by procedure, its constants, and where everything lies."""

    def __init__(self, program: Program, calls: list[_Call], target: Target, name: str) -> None:
        self.program, self.calls, self.target, self.name = program, calls, target, name
        self.constants, self.constant_offsets = _constants(program, calls)
        self.globals = Globals()
        registers = Registers.of(target)
        self.definitions = {call.key: call.proc for call in reversed(calls)}  # named as the first step that uses it
        self.procs = {key: schedule_of_any(proc, registers).proc for key, proc in self.definitions.items()}
        self.symbols = {key: f"{name}_procedure{n}" for n, key in enumerate(self.procs)}
        self.functions = {key: self.function(key, self.globals, "internal") for key in self.procs}
        self.begin, end = _workspace(program)
        self.scratch = align(end - self.begin, ALIGNMENT)
        self.workspace_bytes = self.scratch + max((_padded(f) for f in self.functions.values()), default=0)

    def function(self, key: Proc, module: Globals, linkage: str) -> Function:
        return define(
            self.procs[key], self.symbols[key], module, linkage, target=self.target, stack_buffer=_STACK_BUFFER
        )

    def object_code(self) -> bytes:
        """Raises LoweringError, with the name of the step, where LLVM fails."""
        functions = [function.text for function in self.functions.values()]
        lines = [*self.constant_lines(), *functions, *self.entry(), *self.globals.lines]
        try:
            return emit_object_apart(self.complete(lines), self.target, f"Network {self.name!r}")
        except LoweringError:
            self.find_fault()
            raise

    def find_fault(self) -> None:
        """Raises LoweringError for the first step of which alone LLVM cannot make code."""
        for key in self.procs:
            module = Globals()
            function = self.function(key, module, "")
            what = f"Host step {self.definitions[key].name!r}"
            emit_object_apart(self.complete([function.text, *module.lines]), self.target, what)

    def complete(self, lines: list[str]) -> str:
        text = "\n".join(lines) + "\n"
        return text if self.target.has_roundeven else with_roundeven(text, f"{self.name}_roundeven")

    def constant_lines(self) -> Iterator[str]:
        if self.constants:
            size = len(self.constants)
            yield f'@{self.name}_constants = internal constant [{size} x i8] c"{_escaped(self.constants)}", align 64'

    # -- the entry

    def entry(self) -> Iterator[str]:
        ports = port_names(self.program.inputs, self.program.outputs)
        params = [f"ptr %{port}" for port in ports.values()]
        yield f"define i32 @{self.name}_run({', '.join([*params, 'ptr %workspace'])}) nounwind {{"
        yield "start:"
        yield from self.checks(ports)
        yield "  br i1 %wrong, label %refused, label %accepted"
        yield "refused:"
        yield "  ret i32 -1"
        yield "accepted:"
        for number, call in enumerate(self.calls):
            yield from self.call(number, call, ports)
        yield "  ret i32 0"
        yield "}"

    def checks(self, ports: Mapping[str, str]) -> Iterator[str]:
        """Let %wrong be whether a pointer is null or not aligned."""
        alignments = {port: _itemsize(self.program.buffer(name)) for name, port in ports.items()}
        if self.workspace_bytes:
            alignments["workspace"] = ALIGNMENT
        before = "false"
        for n, (pointer, alignment) in enumerate(alignments.items()):
            yield f"  %address{n} = ptrtoint ptr %{pointer} to i64"
            yield f"  %off{n} = and i64 %address{n}, {alignment - 1}"
            yield f"  %skewed{n} = icmp ne i64 %off{n}, 0"
            yield f"  %null{n} = icmp eq ptr %{pointer}, null"
            yield f"  %bad{n} = or i1 %skewed{n}, %null{n}"
            yield f"  %wrong{n} = or i1 {before}, %bad{n}"
            before = f"%wrong{n}"
        yield f"  %wrong = or i1 {before}, false"

    def call(self, number: int, call: _Call, ports: Mapping[str, str]) -> Iterator[str]:
        arguments = []
        for n, buffer in enumerate(call.buffers):
            place = f"%argument{number}.{n}"
            match buffer.role:
                case Role.CONSTANT:
                    base, offset = f"@{self.name}_constants", self.constant_offsets[buffer.name]
                case Role.WORKSPACE:
                    base, offset = "%workspace", buffer.address - self.begin
                case _:
                    base, offset = f"%{ports[buffer.name]}", 0
            yield f"  {place} = getelementptr i8, ptr {base}, i64 {offset}"
            arguments.append(f"ptr {place}")
        offset = self.scratch
        for n, nbytes in enumerate(self.functions[call.key].scratch):
            place = f"%scratch{number}.{n}"
            yield f"  {place} = getelementptr i8, ptr %workspace, i64 {offset}"
            arguments.append(f"ptr {place}")
            offset += align(nbytes, ALIGNMENT)
        # Inlined, the stack of all steps would be in use at once.
        yield f"  call void @{self.symbols[call.key]}({', '.join(arguments)}) noinline"


def _constants(program: Program, calls: list[_Call]) -> tuple[bytes, dict[str, int]]:
    """What the steps read of the constants, each aligned, and where each begins."""
    used = {b.name: b for call in calls for b in call.buffers if b.role is Role.CONSTANT}
    data, offsets = bytearray(), {}
    for buffer in sorted(used.values(), key=lambda b: b.address):
        data += bytes(align(len(data), ALIGNMENT) - len(data))
        offsets[buffer.name] = len(data)
        content = bytearray(buffer.nbytes)
        for segment in program.segments:
            at = segment.address - buffer.address
            if 0 <= at < buffer.nbytes:
                content[at : at + len(segment.data)] = segment.data
        data += content
    return bytes(data), offsets


def _workspace(program: Program) -> tuple[int, int]:
    """Where the arena's workspace begins, aligned, and ends."""
    buffers = [buffer for buffer in program.buffers if buffer.role is Role.WORKSPACE]
    begin = min((buffer.address for buffer in buffers), default=0)
    return begin // ALIGNMENT * ALIGNMENT, max((buffer.address + buffer.nbytes for buffer in buffers), default=0)


def _padded(function: Function) -> int:
    """Bytes of scratch, each part aligned."""
    return sum(align(nbytes, ALIGNMENT) for nbytes in function.scratch)


def _itemsize(buffer: Buffer) -> int:
    """Bytes of an element; two numbers of 4 bits are one."""
    return 1 if buffer.dtype == "int4" else np.dtype(buffer.dtype).itemsize


def _escaped(data: bytes) -> str:
    """As LLVM writes bytes in a string."""
    digits = np.frombuffer(b"0123456789ABCDEF", np.uint8)
    values = np.frombuffer(data, np.uint8)
    text = np.full((len(data), 3), ord("\\"), np.uint8)
    text[:, 1], text[:, 2] = digits[values >> 4], digits[values & 15]
    return text.tobytes().decode()
