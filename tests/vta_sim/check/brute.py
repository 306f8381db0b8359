"""Races by brute force: every pair of instructions, every element, and what the tokens let happen without each other.

Nothing here knows clocks, or which push a pop takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.vta_sim.check.timings import Stream
from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.layout import INP, OUT, UOP, WGT, Fields
from tests.vta_sim.spec_model.machine import OF_ACC, Machine
from tests.vta_sim.spec_model.pipeline import MODULES, POPS, PUSHES, QUEUES, module_of, queues_of

Unit = tuple[str, int]
"""A memory and an element of it, or a byte of DRAM."""


def unordered_pairs(stream: Stream) -> set[tuple[int, int]]:
    """Instructions of different units that conflict and may come in either order. Raises ModelError if one of them is
    out of range."""
    insns = [layout.decode(stream.config, word) for word in layout.from_words(stream.words)]
    touched = _touched(stream, insns)
    without = [effects(stream, insns, held) for held in range(len(insns))]
    return {
        (first, second)
        for second in range(len(insns))
        for first in range(second)
        if module_of(insns[first]) != module_of(insns[second])
        and second in without[first]
        and first in without[second]
        and _conflict(touched[first], touched[second])
    }


def effects(stream: Stream, insns: list[Fields], held: int | None = None) -> set[int]:
    """The instructions that can have their effect while that of `held` is still to come."""
    queues = {module: [i for i, insn in enumerate(insns) if module_of(insn) == module][::-1] for module in MODULES}
    tokens = dict(zip(QUEUES, stream.tokens, strict=True))
    done: set[int] = set()
    moved = True
    while moved:
        moved = False
        for queue in queues.values():
            if not queue or queue[-1] == held or not all(tokens[name] for name in queues_of(insns[queue[-1]], POPS)):
                continue
            index = queue.pop()
            for name in queues_of(insns[index], POPS):
                tokens[name] -= 1
            for name in queues_of(insns[index], PUSHES):
                tokens[name] += 1
            done.add(index)
            moved = True
    return done


def _conflict(one: tuple[set[Unit], set[Unit]], other: tuple[set[Unit], set[Unit]]) -> bool:
    return bool(one[1] & other[1] or one[0] & other[1] or one[1] & other[0])


def _touched(stream: Stream, insns: list[Fields]) -> list[tuple[set[Unit], set[Unit]]]:
    """What each instruction reads and what it writes, with the micro-ops that it finds."""
    machine = Machine(stream.config, stream.dram.copy())
    machine.bases = stream.bases
    result: list[tuple[set[Unit], set[Unit]]] = []
    for index, insn in enumerate(insns):
        reads: set[Unit] = set()
        writes: set[Unit] = set()
        match insn["opcode"]:
            case layout.LOAD | layout.STORE if insn["x_size"]:
                is_load = insn["opcode"] == layout.LOAD
                memory = insn["memory_type"]
                if is_load and memory in (*OF_ACC, UOP):
                    machine.execute(index, insn)
                (reads if is_load else writes).update(("DRAM", byte) for byte in _bytes(machine, insn))
                pads = {INP: "INP", WGT: "WGT"} if is_load else {OUT: "OUT"}
                if memory in pads:
                    (writes if is_load else reads).update((pads[memory], element) for element in _window(insn, is_load))
            case layout.GEMM | layout.ALU | layout.GEMM_OVERWRITE if "iter_out" in insn:
                nest = machine.nest(index, insn)
                writes.update(("OUT", element) for element in nest.dst.tolist())
                multiplies = insn["opcode"] != layout.ALU and not (insn["opcode"] == layout.GEMM and insn["reset"])
                if multiplies:
                    reads.update(("INP", element) for element in nest.src.tolist())
                    reads.update(("WGT", element) for element in nest.wgt.tolist())
        result.append((reads, writes))
    return result


def _window(insn: Fields, is_load: bool) -> Iterator[int]:
    width, height = insn["x_size"], insn["y_size"]
    if is_load:
        width, height = width + insn["x_pad_0"] + insn["x_pad_1"], height + insn["y_pad_0"] + insn["y_pad_1"]
    return iter(range(insn["sram_base"], insn["sram_base"] + width * height))


def _bytes(machine: Machine, insn: Fields) -> list[int]:
    unit = machine.config.element_bytes(insn["memory_type"])
    rows = [machine.address(insn, y * insn["x_stride"]) for y in range(insn["y_size"])]
    return [row + byte for row in rows for byte in range(insn["x_size"] * unit)] if rows else []
