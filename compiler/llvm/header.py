"""The C header of a network's object file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from llvmlite import binding as llvm

from compiler.errors import CompileError
from compiler.llvm.target import Target
from vta_hw.spec.program import Buffer, Role

_C_TYPES = MappingProxyType(
    {
        "float32": "float",
        "float64": "double",
        "float16": "uint16_t",
        "bool": "uint8_t",
        "int4": "uint8_t",
        **{f"{kind}{bits}": f"{kind}{bits}_t" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    }
)
_MEANING = MappingProxyType(
    {"float16": "bits of IEEE half", "bool": "0 or 1", "int4": "two numbers of 4 bits, the first in the low half"}
)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a caller of NAME_run has to know. Sizes are bytes; calls: functions that the object expects elsewhere."""

    name: str
    target: Target
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    workspace_bytes: int
    alignment: int
    stack_bytes: int
    constant_bytes: int
    calls: tuple[str, ...]


def port_names(inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> dict[str, str]:
    """The parameters of the C function, in order, by buffer: names that differ even in capitals, for the macros."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for buffer in (*inputs, *outputs):
        role = "in" if buffer.role is Role.INPUT else "out"
        plain = f"{role}_{re.sub('[^A-Za-z0-9]', '_', buffer.name)}"
        while plain.upper() in taken:
            plain += "_"
        taken.add(plain.upper())
        names[buffer.name] = plain
    return names


def header(interface: Interface) -> str:
    return "\n".join(_lines(interface)) + "\n"


def _lines(interface: Interface) -> Iterator[str]:
    name, target = interface.name, interface.target
    macro = name.upper()
    version = ".".join(map(str, llvm.llvm_version_info))
    ports = port_names(interface.inputs, interface.outputs)
    calls = ", ".join(interface.calls) or "no other function"
    yield "/*"
    yield f" * A neural network for {target.triple}, processor {target.cpu} with {target.features or 'no extensions'}."
    yield f" * Made by vta-toolkit with LLVM {version}. Link with {name}.o, which calls {calls}."
    yield f" * Its {interface.constant_bytes} bytes of constants are in its section .rodata."
    yield " */"
    yield f"#ifndef {macro}_H"
    yield f"#define {macro}_H"
    yield ""
    yield "#include <stdint.h>"
    yield ""
    yield "#ifdef __cplusplus"
    yield 'extern "C" {'
    yield "#endif"
    for buffer in (*interface.inputs, *interface.outputs):
        yield ""
        yield from _port(f"{macro}_{ports[buffer.name].upper()}", buffer)
    yield ""
    yield "/* What a call computes in. Nothing in it outlasts the call. */"
    yield f"#define {macro}_WORKSPACE_BYTES {interface.workspace_bytes}"
    yield f"#define {macro}_WORKSPACE_ALIGN {interface.alignment}"
    yield ""
    yield "/* Buffers on the stack; what the compiler saves there comes on top. */"
    yield f"#define {macro}_STACK_BYTES {interface.stack_bytes}"
    yield ""
    parameters = [f"const {_C_TYPES[b.dtype]} *{ports[b.name]}" for b in interface.inputs]
    parameters += [f"{_C_TYPES[b.dtype]} *{ports[b.name]}" for b in interface.outputs]
    yield "/*"
    yield " * Run the network. The arrays must not overlap; they are aligned to their elements, the workspace to"
    yield f" * {macro}_WORKSPACE_ALIGN. Returns 0, or -1 if a pointer is null or not aligned, when nothing is done."
    yield " * Calls may run at the same time, each with a workspace and outputs of its own."
    yield " */"
    yield f"int {name}_run({', '.join([*parameters, 'void *workspace'])});"
    yield ""
    yield "#ifdef __cplusplus"
    yield "}"
    yield "#endif"
    yield "#endif"


def _port(macro: str, buffer: Buffer) -> Iterator[str]:
    shape = "".join(f"[{extent}]" for extent in buffer.shape)
    meaning = f", {_MEANING[buffer.dtype]}" if buffer.dtype in _MEANING else ""
    tiles = ""
    match buffer.layout:
        case None:
            pass
        case {"logical": [int(), int(), int(), int()] as logical}:
            tiles = f"; [N/n, C/c, H, W, n, c] of {logical}, filled up with zeros"
        case _:
            raise CompileError(
                f"Layout of buffer {buffer.name!r} must have a logical shape of four integers, not {buffer.layout!r}"
            )
    kind = "Input" if buffer.role is Role.INPUT else "Output"
    shown = buffer.name.replace("*/", "* /")
    yield f"/* {kind} {shown!r}: {_C_TYPES[buffer.dtype]}{shape}, row-major{meaning}{tiles}. */"
    yield f"#define {macro}_RANK {len(buffer.shape)}"
    yield f"#define {macro}_SHAPE {{{', '.join(map(str, buffer.shape))}}}"
    yield f"#define {macro}_BYTES {buffer.nbytes}"
