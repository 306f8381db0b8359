"""What the programs of the differential tests reach: the table of docs/coverage.md.

`python -m tests.vta_sim.rtl.coverage` writes the table anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.vta_sim.rtl.catalogue import CORNERS, FIELDS, MISUSE
from tests.vta_sim.rtl.directed_cases import DIRECTED
from tests.vta_sim.rtl.machines import Case
from tests.vta_sim.rtl.observer import Corner, Observer
from tests.vta_sim.rtl.random_cases import PROGRAMS, random_cases
from tests.vta_sim.spec_model import layout, pipeline
from tests.vta_sim.spec_model.layout import Fields
from vta_sim.launch_parameters import MAX_TOKENS

DOCUMENT = Path(__file__).parents[3] / "docs" / "coverage.md"
MACHINE, TOKENS = "Machines and memories", "Tokens and launches"
UNIT_NAMES = {pipeline.LOADER: "load", pipeline.COMPUTE: "compute", pipeline.STORER: "store"}

INTRODUCTION = """\
# Coverage of the RTL

Random and hand-written programs run on the RTL in Amaranth's simulator and on the functional simulator. They must leave
the same bytes in DRAM, the same scratchpads, the same tokens and the same counters, with memories of all kinds behind
the machine. This page says what the programs do, by watching them on the model of the specification; a test fails if
one of these corners is reached by no program, and if the page is not what the programs do.

"random" stands for the random programs alone, "directed" for those written by hand alone, "both" for both. What is no
correct program has tests of its own, which are named at the end.
"""


def observe(case: Case) -> set[Corner]:
    """The corners that a case reaches."""
    machine = Observer(case)
    _note_machine(machine, case)
    tokens: Sequence[int] = case.tokens_before
    machine.hit_if(all(tokens), TOKENS, "tokens in every queue before the launch")
    machine.hit_if(MAX_TOKENS in tokens, TOKENS, "as many tokens in a queue as it holds")
    machine.hit_if(any(count > 255 for count in tokens), TOKENS, "more than 255 tokens in a queue")
    for number, words in enumerate(case.launches):
        machine.hit_if(number and any(tokens), TOKENS, "a launch goes on with the tokens of the one before")
        machine.hit_if(len(words) == 1, TOKENS, "a launch of one instruction")
        insns = [layout.decode(machine.config, word) for word in layout.from_words(words)]
        for insn, word in zip(insns, layout.from_words(words), strict=True):
            _note_flags(machine, insn)
            _note_unused_bits(machine, insn, word)
        _note_full_queue(machine, insns)
        tokens = pipeline.run(machine, words, tokens=tokens, bases=case.bases).tokens
    machine.hit_if(all(tokens), TOKENS, "tokens left in every queue")
    machine.hit_if(all(count == 1023 for count in tokens), TOKENS, "1023 tokens left in every queue")
    return machine.seen


def _note_machine(machine: Observer, case: Case) -> None:
    config, timing = case.config, case.timing
    bus = config.bus_bits // 8
    elements = (config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes, config.out_elem_bytes)
    facts = {
        f"bus of {config.bus_bits} bits": True,
        f"addresses of {config.address_bits} bits": True,
        f"instruction set {config.isa}": True,
        f"products of {config.multiplier}": True,
        f"inputs of {config.inp_bits} bits": True,
        f"weights of {config.wgt_bits} bits": True,
        "base registers": any(case.bases.values()),
        "ALU and loads beside GEMM": config.overlap,
        "a limited number of DSP blocks": config.max_dsp > 0,
        "batch above 1": config.batch > 1,
        "blocks that differ": config.block_in != config.block_out,
        "elements of one byte": min(elements) == 1,
        "elements of 32 bus words": max(elements) == 32 * bus,
        "more elements than ports of a scratchpad in a bus word": bus // min(elements) > 8,
        "scratchpads of two elements": config.acc_depth == 2,
        "instructions begin within a bus word": case.insn_address % bus != 0,
        "queues of two instructions": case.queue_depth == 2,
        "memory answers in the next cycle": timing.latency == 0,
        "memory takes 100 cycles": timing.latency == 100,
        "memory takes one burst at a time": timing.outstanding == 1,
        "memory pauses": timing.stalls > 0,
        "words of different readers come mixed": timing.interleave,
    }
    for name, is_so in facts.items():
        machine.hit_if(is_so, MACHINE, name)


def _note_flags(machine: Observer, insn: Fields) -> None:
    module = pipeline.module_of(insn)
    unit = UNIT_NAMES[module]
    pops, pushes = pipeline.queues_of(insn, pipeline.POPS), pipeline.queues_of(insn, pipeline.PUSHES)
    for flag in layout.FLAGS:
        if insn[flag]:
            known = (module, flag) in pipeline.POPS or (module, flag) in pipeline.PUSHES
            machine.hit(TOKENS, f"{unit}: {flag} of a queue" if known else f"{unit}: a flag without a queue")
    machine.hit_if(pops and pushes, TOKENS, f"{unit}: instruction that pops and pushes")
    machine.hit_if(len(pops) == 2, TOKENS, "compute pops both queues at once")
    machine.hit_if(len(pushes) == 2, TOKENS, "compute pushes both queues at once")
    machine.hit_if(insn.get("x_size") == 0, TOKENS, f"{unit}: NOP")
    if insn["opcode"] == layout.FINISH:
        machine.hit_if(len(pops) == 1, TOKENS, "FINISH pops one queue")
        machine.hit_if(len(pops) == 2, TOKENS, "FINISH pops both queues")
        machine.hit_if(pushes, TOKENS, "FINISH pushes")


def _note_unused_bits(machine: Observer, insn: Fields, word: int) -> None:
    slots = layout.slots_of(machine.config, insn["opcode"])
    used = layout.put(slots, {name: (1 << width) - 1 for name, (_, width) in slots.items()})
    machine.hit_if(word & ~used, MACHINE, "unused bits of instructions are not zero")


def _note_full_queue(machine: Observer, insns: Sequence[Fields]) -> None:
    """So many of one unit in a row, of which the first waits for a token, that the fetch unit has to wait."""
    for module in pipeline.MODULES:
        mine = [pipeline.module_of(insn) == module for insn in insns]
        longest = max((len(run) for run in "".join("x" if own else " " for own in mine).split()), default=0)
        machine.hit_if(longest > 520, TOKENS, "more than 512 instructions of a unit wait")


@functools.cache
def reached() -> Mapping[Corner, str]:
    """Who reaches each corner: "random", "directed" or "both"."""
    found: dict[bool, set[Corner]] = {True: set(), False: set()}
    for case in all_cases():
        found[case.random] |= observe(case)
    return {
        corner: "both" if corner in found[True] & found[False] else "random" if corner in found[True] else "directed"
        for corner in found[True] | found[False]
    }


def all_cases() -> Iterator[Case]:
    """Every program of the differential tests."""
    yield from random_cases()
    yield from (make() for make in DIRECTED.values())


def wanted() -> Iterator[Corner]:
    """Every corner of the catalogue."""
    for insn, fields in FIELDS.items():
        for field, kinds in fields.items():
            yield from (("field", insn, f"{field} {kind}") for kind in kinds)
    for section, names in CORNERS.items():
        yield from (("corner", section, name) for name in names)


def document() -> str:
    """The text of docs/coverage.md."""
    sections = [INTRODUCTION, _program_table(), "## Fields of instructions\n"]
    sections += [_field_table(insn, fields) for insn, fields in FIELDS.items()]
    sections.append("## Corners\n")
    sections += [_corner_table(section, names) for section, names in CORNERS.items()]
    sections.append("## Misuse\n")
    sections.append(_table(("what happens", "tested by"), [(what, f"`{test}`") for what, test in MISUSE.items()]))
    return "\n".join(sections)


def _program_table() -> str:
    directed = {machine: sum(name.endswith(f" on {machine}") for name in DIRECTED) for machine in PROGRAMS}
    rows = [(machine, str(count), str(directed[machine])) for machine, count in PROGRAMS.items()]
    rows.append(("all", str(sum(PROGRAMS.values())), str(len(DIRECTED))))
    return f"## Programs\n\n{_table(('machine', 'random', 'directed'), rows)}"


def _field_table(insn: str, fields: Mapping[str, Sequence[str]]) -> str:
    rows = [
        (f"`{field}`", "; ".join(f"{kind}: {_who(('field', insn, f'{field} {kind}'))}" for kind in kinds))
        for field, kinds in fields.items()
    ]
    return f"### {insn}\n\n{_table(('field', 'values and who reaches them'), rows)}"


def _corner_table(section: str, names: Iterable[str]) -> str:
    rows = [(name, _who(("corner", section, name))) for name in names]
    return f"### {section}\n\n{_table(('corner', 'reached by'), rows)}"


def _who(corner: Corner) -> str:
    return reached().get(corner, "nobody")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    DOCUMENT.write_text(document(), encoding="utf-8")
    missing = [corner for corner in wanted() if corner not in reached()]
    print(f"{DOCUMENT.name}: {len(list(wanted()))} corners, {len(missing)} of them reached by nobody")
    for corner in missing:
        print("  ", *corner, sep="  ")


if __name__ == "__main__":
    main()
