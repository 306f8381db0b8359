"""Programs as text: what `vta_hw.spec.asm` reads back, with layers and indices as comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec import asm
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Insn, Load, MemoryType
from vta_hw.spec.program import Layer, Program


def list_insns(config: VTAConfig, insns: bytes) -> Iterator[str]:
    """A line per instruction, with its index."""
    yield from _numbered(ISA(config).decode_program(insns), 0)


def list_program(program: Program, *, uops: bool = False) -> Iterator[str]:
    """Lines of a program: configuration, steps as comments, micro-ops if asked for, instructions by layer."""
    yield f"# {program.config.name}, {program.insn_count} instructions, {program.uop_count} micro-ops"
    if uops:
        yield from list_uops(program)
    insns = ISA(program.config).decode_program(program.insns)
    done = 0
    for layer in sorted(program.layers, key=lambda layer: layer.insn_begin):
        yield from _numbered(insns[done : layer.insn_begin], done)
        yield _heading(layer)
        yield from _numbered(insns[layer.insn_begin : layer.insn_end], layer.insn_begin)
        done = layer.insn_end
    yield from _numbered(insns[done:], done)


def list_uops(program: Program) -> Iterator[str]:
    """The micro-ops of a compiled program, by index; of a raw one, those its instructions load, by byte address."""
    isa = ISA(program.config)
    if not program.is_raw:
        words = np.frombuffer(program.uops, "<u4")
        labels = {index: int(word) for index, word in enumerate(words)}
    else:
        labels = dict(loaded_uops(program))
    for label, word in labels.items():
        yield f"{asm.disassemble_uop(isa.decode_uop(word))}  # {label if not program.is_raw else hex(label)}"


def loaded_uops(program: Program) -> Mapping[int, int]:
    """Byte address -> word of every micro-op that a raw program loads from its segments, ascending."""
    addresses: set[int] = set()
    for insn in ISA(program.config).decode_program(program.insns):
        if isinstance(insn, Load) and insn.memory_type == MemoryType.UOP:
            for row in range(insn.y_size):
                first = insn.dram_base + row * insn.x_stride
                addresses.update(4 * element for element in range(first, first + insn.x_size))
    words: dict[int, int] = {}
    for segment in program.segments:
        image: NDArray[np.uint8] = np.frombuffer(segment.data, np.uint8)
        for address in addresses:
            offset = address - segment.address
            if 0 <= offset <= len(image) - 4:
                words[address] = int.from_bytes(image[offset : offset + 4].tobytes(), "little")
    return dict(sorted(words.items()))


def _heading(layer: Layer) -> str:
    return f"# layer {layer.name}: instructions {layer.insn_begin} to {layer.insn_end - 1}, {layer.macs:,} MACs"


def _numbered(insns: list[Insn], first: int) -> Iterator[str]:
    for index, insn in enumerate(insns, start=first):
        yield f"{asm.disassemble(insn)}  # {index}"
