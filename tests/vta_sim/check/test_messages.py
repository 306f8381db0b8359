"""Every finding, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import ISA, MemoryType, Uop
from vta_hw.spec.program import Launch, Layer, Program, Segment, Tokens
from vta_sim.check.checker import check_program
from vta_sim.check.findings import Finding, Place, Race, Rule, Severity
from vta_sim.check.order import Limits

TINY = preset("tiny")
PROGRAMS = Path(__file__).parent / "programs"
UOPS = 0x1000
FOUR_UOPS = "load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4"
"""Micro-op k has dst, src and wgt k."""


def program(source: str, *, config: VTAConfig = TINY, tokens: Tokens | None = None) -> Program:
    insns = ISA(config).encode_program(assemble(source, config)[0])
    uops = ISA(config).encode_uops([Uop(dst=k, src=k, wgt=k) for k in range(4)])
    segment = Segment(address=UOPS, data=uops.tobytes())
    return Program.raw(config=config, insns=insns, segments=[segment], tokens=tokens or Tokens(), insn_address=0x8000)


def found(source: str, *, config: VTAConfig = TINY, tokens: Tokens | None = None) -> list[str]:
    return [f"{one.severity} {one.rule}: {one}" for one in check_program(program(source, config=config, tokens=tokens))]


@pytest.mark.parametrize("name", sorted({path.stem for path in PROGRAMS.iterdir()}))
def test_programs(name: str) -> None:
    """`name.s` is a program, `name.exp` its findings, one a line: severity, rule, sentence."""
    source, expected = PROGRAMS / f"{name}.s", PROGRAMS / f"{name}.exp"
    assert source.exists(), f"{expected} must stand beside a program, {source}"
    assert expected.exists(), f"{source} must stand beside its findings, {expected}"
    assert found(source.read_text()) == expected.read_text().splitlines()


def test_programs_show_every_rule_that_one_launch_can_show() -> None:
    shown = {line.split()[1].rstrip(":") for path in PROGRAMS.glob("*.exp") for line in path.read_text().splitlines()}
    elsewhere = {Rule.MISSING_FINISH, Rule.UNKNOWN_MICRO_OPS, Rule.MANY_TOKENS, Rule.MICRO_OP_INDEX}
    assert shown == set(Rule) - elsewhere


def test_a_micro_op_that_chisel_does_not_have() -> None:
    source = "alu.add uop_bgn=2047 uop_end=2049 iter_out=1 iter_in=1 use_imm"
    (line,) = found(f"{source}\nfinish", config=VTAConfig())
    sentence = "micro-op index must be below 2048, not 2048; Chisel has no more"
    assert line == f"lint micro-op-index: Instruction 0 ({source}): {sentence}"


def test_more_tokens_than_chisel_counts() -> None:
    """However late compute is, 256 tokens are in the queue at most, with one that is there from the beginning."""
    source = "\n".join(["load.inp push_next"] * 256 + ["load.uop pop_prev"] * 257)
    (line,) = found(f"{source}\nfinish", tokens=Tokens(l2g=1))
    sentence = "tokens of l2g must be at most 255, not 257; Chisel loses more"
    assert line == f"lint many-tokens: Instruction 255 (load.inp push_next): {sentence}"


def test_queues_that_are_too_short() -> None:
    source = "\n".join(["load.inp pop_next"] + ["load.inp"] * 6 + ["load.uop push_prev", "load.inp push_next"])
    checked = program(f"{source}\nfinish pop_prev")
    assert check_program(checked, limits=Limits(insns=7)) == ()
    (finding,) = check_program(checked, limits=Limits(insns=6))
    assert str(finding) == (
        "Instruction 0 (load.inp pop_next): launch must end with queues of 6 instructions and 1023 tokens, "
        "but comes to a stop before this instruction"
    )
    assert (finding.severity, finding.rule) == (Severity.ERROR, Rule.DEADLOCK)


def test_tokens_that_are_left_are_an_error_unless_allowed() -> None:
    checked = program("load.uop push_prev push_next\nfinish", tokens=Tokens(l2g=2))
    (allowed,) = check_program(checked)
    (refused,) = check_program(checked, allow_leftover_tokens=False)
    assert str(allowed) == str(refused) == "Launch must leave no tokens, not 2 of l2g, 1 of g2l, 1 of g2s"
    assert (allowed.severity, refused.severity) == (Severity.LINT, Severity.ERROR)
    assert refused.place is None


def test_finish_is_missing() -> None:
    (finding,) = check_program(program("load.uop\nload.uop"))
    assert str(finding) == "Launch must execute FINISH, but none of its 2 instructions is one"
    assert (finding.severity, finding.rule) == (Severity.ERROR, Rule.MISSING_FINISH)


def test_micro_ops_that_a_store_makes_unknown_are_told_once() -> None:
    source = f"""
    load.inp y_size=1 x_size=1 push_next
    {FOUR_UOPS} push_next
    store.out dram_base=0x401 y_size=1 x_size=1 pop_prev push_prev
    {FOUR_UOPS} pop_next
    alu.add uop_end=1 iter_out=1 iter_in=1
    gemm uop_bgn=1 uop_end=2 iter_out=1 iter_in=1
    gemm uop_bgn=1 uop_end=2 iter_out=1 iter_in=1 pop_prev
    """
    checked = check_program(program(f"{source}\nfinish"))
    assert [(one.severity.value, one.rule.value, one.place and one.place.insn) for one in checked] == [
        ("error", "race", 5),
        ("lint", "unknown-micro-ops", 5),
    ]
    assert str(checked[1]) == (
        "Instruction 5 (gemm uop_bgn=1 uop_end=2 iter_out=1 iter_in=1): micro-ops must come from memory whose contents "
        "are known; it, and all others like it, count as touching everything"
    )
    # INP[0] is what the LOAD, of which it knows nothing, has written.
    assert isinstance(checked[0], Race)
    assert (checked[0].memory, checked[0].index, checked[0].other.insn) == (MemoryType.INP, 0, 0)


def test_a_race_tells_all_there_is() -> None:
    config = VTAConfig()
    computed, stored = "alu.add uop_end=1 iter_out=1 iter_in=1 use_imm", "store.out dram_base=0x200 y_size=1 x_size=1"
    source = "\n".join([FOUR_UOPS, computed, stored, "finish"])
    raw = program(source, config=config)
    compiled = Program(
        config=config,
        insns=raw.insns,
        insn_address=raw.insn_address,
        uops=raw.segments[0].data,
        uop_address=UOPS,
        arena_bytes=0x10000,
        steps=(Launch(insn_begin=0, insn_count=4),),
        layers=(Layer(name="conv", insn_begin=0, insn_end=2), Layer(name="relu", insn_begin=2, insn_end=3)),
    )
    race = check_program(compiled)[0]
    assert race == Race(
        severity=Severity.ERROR,
        rule=Rule.RACE,
        sentence=(
            "reads OUT[0], which instruction 1 (alu.add uop_end=1 iter_out=1 iter_in=1 use_imm) of layer conv writes; "
            "nothing orders them: a token of g2s is missing between the two"
        ),
        place=Place(insn=2, disassembly="store.out dram_base=0x200 y_size=1 x_size=1", layer="relu"),
        other=Place(insn=1, disassembly="alu.add uop_end=1 iter_out=1 iter_in=1 use_imm", layer="conv"),
        memory=MemoryType.OUT,
        index=0,
        queues=("g2s",),
    )
    assert str(race).startswith(
        "Instruction 2 (store.out dram_base=0x200 y_size=1 x_size=1) of layer relu reads OUT[0], which instruction 1 "
    )


def test_a_deadlock_in_a_later_launch_names_instructions_of_the_program_and_layers() -> None:
    raw = program("load.uop\nfinish\nload.uop\nload.uop pop_prev\nfinish", config=VTAConfig())
    compiled = Program(
        config=raw.config,
        insns=raw.insns,
        insn_address=raw.insn_address,
        arena_bytes=0x10000,
        steps=(Launch(insn_begin=0, insn_count=2), Launch(insn_begin=2, insn_count=3)),
        layers=(Layer(name="pool", insn_begin=3, insn_end=4),),
    )
    (finding,) = check_program(compiled)
    assert str(finding) == (
        "Instruction 3 (load.uop pop_prev) of layer pool: every token that is waited for must come, but "
        "instruction 3 (load.uop pop_prev) of layer pool waits for a token of l2g"
    )


def test_a_place_is_what_findings_begin_with() -> None:
    place = Place(insn=3, disassembly="finish")
    assert str(Finding(severity=Severity.LINT, rule=Rule.AFTER_FINISH, sentence="no", place=place)) == (
        "Instruction 3 (finish): no"
    )
