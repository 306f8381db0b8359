"""One fault in a program: a token flag flipped, an address shifted, or an instruction moved across a barrier."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.vta_sim.check.timings import Stream
from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.layout import Fields, ModelConfig
from tests.vta_sim.spec_model.pipeline import POPS, PUSHES, module_of

FAULTS = ("flag", "address", "move")

_OF_TRANSFERS = ("sram_base", "dram_base", "x_size", "y_size")
_OF_NESTS = ("uop_bgn", "uop_end", "dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in")


def with_fault(stream: Stream, kind: str, rng: random.Random) -> Stream:
    """The stream with one fault of a kind."""
    insns = layout.from_words(stream.words)
    {"flag": _flip, "address": _shift, "move": _move}[kind](stream.config, insns, rng)
    return replace(stream, words=layout.to_words(insns))


def _flip(config: ModelConfig, insns: list[int], rng: random.Random) -> None:
    index = rng.randrange(len(insns))
    module = module_of(layout.decode(config, insns[index]))
    flag = rng.choice([flag for owner, flag in (*POPS, *PUSHES) if owner == module])
    insns[index] ^= 1 << layout.memory_slots()[flag][0]


def _shift(config: ModelConfig, insns: list[int], rng: random.Random) -> None:
    """Change a field that says where, or how much, by a little, in an instruction that moves or computes something."""
    while True:
        index = rng.randrange(len(insns))
        fields = layout.decode(config, insns[index])
        names = [name for name in (*_OF_TRANSFERS, *_OF_NESTS) if name in fields]
        if not _works(fields) or not names:
            continue
        bit, width = layout.slots_of(config, fields["opcode"])[rng.choice(names)]
        ones = (1 << width) - 1
        value = insns[index] >> bit & ones
        shifted = value + rng.choice([-8, -3, -2, -1, 1, 2, 3, 8])
        if 0 <= shifted <= ones:
            insns[index] += (shifted - value) << bit
            return


def _move(config: ModelConfig, insns: list[int], rng: random.Random) -> None:
    """Take an instruction to the other side of one of its unit's that moves tokens."""
    for _ in range(1000):
        here, there = rng.randrange(len(insns)), rng.randrange(len(insns))
        if abs(here - there) > 8 or here == there:
            continue
        module = module_of(layout.decode(config, insns[here]))
        crossed = insns[there:here] if there < here else insns[here + 1 : there + 1]
        if any(_is_barrier(layout.decode(config, insn), module) for insn in crossed):
            insns.insert(there, insns.pop(here))
            return


def _is_barrier(fields: Fields, module: str) -> bool:
    return module_of(fields) == module and any(fields[flag] for owner, flag in (*POPS, *PUSHES) if owner == module)


def _works(fields: Fields) -> bool:
    if "x_size" in fields:
        return fields["x_size"] > 0
    return "iter_out" in fields and fields["iter_out"] * fields["iter_in"] > 0 and fields["uop_bgn"] < fields["uop_end"]
